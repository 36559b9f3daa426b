use std::collections::BTreeMap;
use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::timeout;

use super::crew::NoBrowsers;
use super::{
    BadLine, Browsers, Crew, Job, Options, Output, Queue, Record, RecordError, Results, UrlList,
};
use crate::client::Client;
use crate::config::Config;
use crate::exit::{self, FAILURE, Failure, Signals};

/// The source of the browsers of a run.
#[derive(Debug)]
pub(crate) enum Place {
    /// A pool of its own, with this configuration.
    Own(Box<Config>),
    /// A running pool.
    Far(Client),
}

/// Time that browsers have to close. Whatever is not gone by then dies with its pipe, when this
/// process ends.
const CLOSING: Duration = Duration::from_secs(3);

/// A run: the URLs to visit, and the destination of the results.
#[derive(Debug)]
pub(crate) struct Run {
    jobs: Vec<Job>,
    bad: Vec<BadLine>,
    results: Results,
    progress: Progress,
    summary: Summary,
    began: Instant,
}

/// The reason why no more records are accepted.
enum End {
    /// There are none.
    Done,
    /// A signal came.
    Stopped(SignalKind),
    /// They cannot be written.
    Unwritten(std::io::Error),
}

impl Run {
    /// Leaves out URLs that the output already has; failed ones only if they should not be tried
    /// again.
    pub(crate) fn new(list: UrlList, mut results: Results, retry_failed: bool) -> Self {
        let is_done = |url: &str| match results.output() {
            Output::File(journal) => journal.done(url).is_some_and(|good| good || !retry_failed),
            Output::Stdout => false,
        };
        let repeated = list.repeated();
        let (urls, mut bad) = list.into_parts();
        let total = urls.len() + bad.len();
        let urls = urls.into_iter().filter(|url| !is_done(url));
        let jobs: Vec<Job> = urls.map(Job::new).collect();
        bad.retain(|bad| !is_done(&bad.text));
        let before = total - jobs.len() - bad.len();
        results.forget();
        let summary = Summary::new(before, repeated);
        let progress = Progress::new(total, before);
        Self { jobs, bad, results, progress, summary, began: Instant::now() }
    }

    /// Visits everything that there is to visit.
    ///
    /// # Errors
    ///
    /// The message to print, and the exit code: 1 if a URL failed, 128 plus the number of a signal.
    pub(crate) async fn go(mut self, place: Place, options: Options) -> Result<(), Failure> {
        // Before anything is launched: a signal must not leave browsers behind.
        let mut signals = Signals::listen()?;
        let refused = self.refuse_bad_lines();
        refused.map_err(|error| Failure::new(self.results.broken(&error)))?;
        let jobs = std::mem::take(&mut self.jobs);
        let mut end = End::Done;
        if !jobs.is_empty() {
            let browsers = Arc::new(match place {
                Place::Own(config) => Browsers::open(*config, &options).await?,
                Place::Far(client) => Browsers::of(client, &options),
            });
            // Room for a few, so that no page waits for a disk.
            let (records, mut taken) = mpsc::channel(64);
            let crew =
                Crew::new(Queue::new(jobs, options.manners()), Arc::clone(&browsers), options);
            let work = tokio::spawn(Arc::clone(&crew).work(records));
            end = self.take(&mut taken, &mut signals).await;
            if !matches!(end, End::Done) {
                work.abort();
            }
            let worked = work.await;
            self.summary.wiped(crew.wiped());
            // Pages that it holds go back now.
            drop(crew);
            self.progress.finish();
            // A second signal, or a browser that does not end, must not keep anybody waiting.
            tokio::select! {
                _ = timeout(CLOSING, browsers.close()) => {}
                _ = signals.next() => {}
            }
            if let Ok(Err(no_browsers)) = worked {
                return Err(self.no_browsers(&no_browsers, &browsers));
            }
        }
        self.finish(end)
    }

    /// Records lines that are not URLs as well, so that none is lost.
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
                let code = exit::code_of(signal);
                anstream::eprintln!("stopped after {}", self.summary);
                let hint = match self.results.output() {
                    Output::File(_) => "run the same command again to resume",
                    Output::Stdout => "results in a file can be resumed: --out results.jsonl",
                };
                Err(Failure::silent(code).hint(hint))
            }
            End::Unwritten(error) => Err(Failure::new(self.results.broken(&error))),
        }
    }

    fn no_browsers(&mut self, error: &NoBrowsers, browsers: &Browsers) -> Failure {
        self.summary.ended(self.began.elapsed());
        let failure = Failure::from(error.clone());
        let is_kept = match self.results.output() {
            Output::File(_) => self.summary.visited() > 0,
            Output::Stdout => false,
        };
        if is_kept {
            anstream::eprintln!("stopped after {}", self.summary);
            return failure.hint("what was visited is kept; run the same command again to resume");
        }
        failure.hint(match browsers {
            Browsers::Far(_) => "see that pool: pool-cli status --url URL",
            Browsers::Own(_) => "check all requirements: pool-cli doctor",
        })
    }
}

/// The display of progress: a bar on a terminal, and a line for each failure.
#[derive(Debug)]
struct Progress {
    bar: ProgressBar,
    failed: usize,
}

impl Progress {
    /// Creates the display for this many URLs, some of which were done before.
    fn new(total: usize, done: usize) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr_with_hz(8))
        } else {
            ProgressBar::hidden()
        };
        let template = "{bar:30} {pos}/{len}  {per_sec}  {msg}  {elapsed} (left: {eta})";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
        bar.set_position(done as u64);
        bar.reset_eta();
        Self { bar, failed: 0 }
    }

    /// Counts one more as done.
    fn count(&self) {
        self.bar.inc(1);
    }

    /// Shows a record.
    fn add(&mut self, record: &Record) {
        self.count();
        if let Some(RecordError { code, message }) = &record.error {
            self.failed += 1;
            self.bar.set_message(format!("{} failed", self.failed));
            self.line(&format!("{}: {code}: {message}", shown(&record.url)));
        }
    }

    /// Writes a line above the bar.
    fn line(&self, text: &str) {
        self.bar.suspend(|| anstream::eprintln!("{text}"));
    }

    /// Removes the bar.
    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Shortens a URL for a line of a terminal: no control characters, and not a whole document in
/// `data:`.
fn shown(url: &str) -> String {
    const LONGEST: usize = 200;
    let mut text: String = url.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    if text.len() < url.len() && url.chars().count() > LONGEST {
        text.push('…');
    }
    text
}

/// Totals of a run.
#[derive(Clone, Debug, Default)]
struct Summary {
    visited: usize,
    /// Failures by their code.
    failed: BTreeMap<String, usize>,
    retried: usize,
    /// Number of URLs done by an earlier run.
    before: usize,
    /// Number of lines that repeat a URL.
    repeated: usize,
    /// Number of pages that found a context wiped for them.
    wiped: usize,
    took: Duration,
}

impl Summary {
    /// Creates the summary of a run that leaves out URLs that were done before or are repeated.
    fn new(before: usize, repeated: usize) -> Self {
        Self { before, repeated, ..Self::default() }
    }

    /// Sets the number of pages that found a context wiped for them.
    fn wiped(&mut self, wiped: usize) {
        self.wiped = wiped;
    }

    /// Sets how long the run took.
    fn ended(&mut self, took: Duration) {
        self.took = took;
    }

    /// Counts a record.
    fn add(&mut self, record: &Record) {
        self.visited += 1;
        if let Some(error) = &record.error {
            *self.failed.entry(error.code.clone()).or_default() += 1;
        }
        if record.attempts > 1 {
            self.retried += 1;
        }
    }

    /// Returns the number of URLs with a record in this run.
    fn visited(&self) -> usize {
        self.visited
    }

    /// Returns the number of URLs that failed.
    fn failed(&self) -> usize {
        self.failed.values().sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = if self.visited == 1 { "URL" } else { "URLs" };
        write!(f, "{} {pages} in {:.1} s", self.visited, self.took.as_secs_f64())?;
        if self.visited > 1 && !self.took.is_zero() {
            write!(f, " ({:.1}/s)", self.visited as f64 / self.took.as_secs_f64())?;
        }
        if self.failed() > 0 {
            let kinds = self.failed.iter().map(|(code, count)| format!("{count} {code}"));
            write!(f, ", {} failed ({})", self.failed(), kinds.collect::<Vec<_>>().join(", "))?;
        }
        for (count, what) in [
            (self.wiped, "in a wiped context"),
            (self.retried, "tried again"),
            (self.before, "done before"),
            (self.repeated, "given twice"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_cannot_steer_the_terminal() {
        assert_eq!(shown("http://a/\u{1b}[2J\u{7}"), "http://a/[2J");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), 201);
    }

    #[test]
    fn the_summary_counts_what_failed_and_why() {
        let mut summary = Summary::new(3, 0);
        summary.ended(Duration::from_secs(2));
        let good = Record { attempts: 2, ..Record::default() };
        let error = RecordError { code: "timeout".to_owned(), message: String::new() };
        let bad = Record { error: Some(error), attempts: 1, ..Record::default() };
        for record in [&good, &bad, &bad] {
            summary.add(record);
        }
        assert_eq!(
            summary.to_string(),
            "3 URLs in 2.0 s (1.5/s), 2 failed (2 timeout), 1 tried again, 3 done before"
        );
    }
}
