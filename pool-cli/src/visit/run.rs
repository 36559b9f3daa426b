use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::timeout;

use super::crew::NoBrowsers;
use super::{
    BadLine, Browsers, Crew, Job, Options, Output, Progress, Queue, Record, RecordError, Results,
    Summary, UrlList,
};
use crate::config::Config;
use crate::exit::{FAILURE, Failure};
use crate::signals::{self, Signals};

/// Time that browsers have to close. What is not gone by then dies with its pipe, when this process
/// ends.
const CLOSING: Duration = Duration::from_secs(3);

/// One run: what is to be visited, and where the results go.
#[derive(Debug)]
pub(crate) struct Run {
    jobs: Vec<Job>,
    bad: Vec<BadLine>,
    results: Results,
    progress: Progress,
    summary: Summary,
    began: Instant,
}

/// The reason why no more records are taken.
enum End {
    /// There are none.
    Done,
    /// A signal came.
    Stopped(SignalKind),
    /// They cannot be written.
    Unwritten(std::io::Error),
}

impl Run {
    /// Leaves out what the output has already; what has failed only if it is not to be tried again.
    pub(crate) fn new(list: &UrlList, results: Results, retry_failed: bool) -> Self {
        let is_done = |url: &str| match results.output() {
            Output::File(journal) => journal.done(url).is_some_and(|good| good || !retry_failed),
            Output::Stdout => false,
        };
        let urls = list.urls().iter().filter(|url| !is_done(url));
        let jobs: Vec<Job> = urls.map(|url| Job::new(url.as_str())).collect();
        let bad: Vec<BadLine> =
            list.bad().iter().filter(|bad| !is_done(&bad.text)).cloned().collect();
        let total = list.urls().len() + list.bad().len();
        let before = total - jobs.len() - bad.len();
        let summary = Summary::new(before, list.repeated());
        let progress = Progress::new(total, before);
        Self { jobs, bad, results, progress, summary, began: Instant::now() }
    }

    /// Visits all there is to visit.
    ///
    /// # Errors
    ///
    /// The message to print, and the exit code: 1 if a URL failed, 128 and the number of a signal.
    pub(crate) async fn go(mut self, config: Config, options: Options) -> Result<(), Failure> {
        // Before anything is launched: a signal must not leave browsers behind.
        let mut signals = Signals::listen()?;
        let refused = self.refuse_bad_lines();
        refused.map_err(|error| Failure::new(self.results.broken(&error)))?;
        let jobs = std::mem::take(&mut self.jobs);
        let mut end = End::Done;
        if !jobs.is_empty() {
            let browsers = Arc::new(Browsers::open(config, &options).await?);
            // Room for a few, so that no page waits for a disk.
            let (records, mut taken) = mpsc::channel(64);
            let crew = Crew::new(Queue::new(jobs, options.manners), Arc::clone(&browsers), options);
            let work = tokio::spawn(crew.work(records));
            end = self.take(&mut taken, &mut signals).await;
            if !matches!(end, End::Done) {
                work.abort();
            }
            let worked = work.await;
            self.progress.finish();
            // A second signal, or a browser that does not end, must not keep anybody waiting.
            tokio::select! {
                _ = timeout(CLOSING, browsers.close()) => {}
                _ = signals.next() => {}
            }
            if let Ok(Err(no_browsers)) = worked {
                return Err(self.no_browsers(&no_browsers));
            }
        }
        self.finish(end)
    }

    /// Lines that are no URLs have a record, too, so that none is lost.
    fn refuse_bad_lines(&mut self) -> std::io::Result<()> {
        for bad in std::mem::take(&mut self.bad) {
            self.progress.line(&bad.to_string());
            let error = RecordError { code: "bad_url".to_owned(), message: bad.why };
            let record = Record { url: bad.text, error: Some(error), ..Record::default() };
            self.results.write(&record)?;
            self.summary.add(&record);
            self.progress.count();
        }
        Ok(())
    }

    async fn take(&mut self, records: &mut Receiver<Record>, signals: &mut Signals) -> End {
        let end = loop {
            tokio::select! {
                record = records.recv() => match record {
                    Some(record) => {
                        if let Err(error) = self.add(&record) {
                            return End::Unwritten(error);
                        }
                    }
                    None => return End::Done,
                },
                signal = signals.next() => break End::Stopped(signal),
            }
        };
        // What is done is done.
        while let Ok(record) = records.try_recv() {
            if let Err(error) = self.add(&record) {
                return End::Unwritten(error);
            }
        }
        end
    }

    fn add(&mut self, record: &Record) -> std::io::Result<()> {
        self.results.write(record)?;
        self.summary.add(record);
        self.progress.add(record);
        Ok(())
    }

    fn finish(mut self, end: End) -> Result<(), Failure> {
        self.summary.ended(self.began.elapsed());
        match end {
            End::Done => {
                anstream::eprintln!("{}", self.summary);
                if self.summary.failed() == 0 { Ok(()) } else { Err(Failure::silent(FAILURE)) }
            }
            End::Stopped(signal) => {
                let code = signals::exit_code(signal);
                anstream::eprintln!("stopped after {}", self.summary);
                let hint = match self.results.output() {
                    Output::File(_) => "run the same command again to go on where it was stopped",
                    Output::Stdout => {
                        "to be able to go on where it was stopped, write to a file: --out results.jsonl"
                    }
                };
                Err(Failure::silent(code).hint(hint))
            }
            End::Unwritten(error) => Err(Failure::new(self.results.broken(&error))),
        }
    }

    fn no_browsers(&mut self, error: &NoBrowsers) -> Failure {
        self.summary.ended(self.began.elapsed());
        let failure = Failure::from(error.clone());
        match self.results.output() {
            Output::File(_) if self.summary.visited() > 0 => {
                anstream::eprintln!("stopped after {}", self.summary);
                failure.hint("what was visited is kept; run the same command again to go on")
            }
            _ => failure.hint("look at all it needs: pool-cli doctor"),
        }
    }
}
