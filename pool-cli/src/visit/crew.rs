use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::browsers::Browser;
use super::robots::{Asked, LONGEST, Robots, Verdict};
use super::{Browsers, Isolation, Job, Options, Queue, Record, origin};
use crate::loader::{Furniture, NoBrowser, Outlook, Page, Resource, Trouble, Wiped};

/// The pause before the first retry of a URL; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(250);

/// The pause if a pool has no browser at present.
const BUSY: Duration = Duration::from_secs(1);

/// Maximum time for wiping a page. Making a new context takes a fraction of it.
const WIPING: Duration = Duration::from_secs(2);

/// Maximum number of pages in the same context before it is replaced, which bounds what a renderer
/// does not give back.
const USES: u32 = 100;

/// The workers that visit the URLs in a queue.
#[derive(Debug)]
pub(crate) struct Crew {
    queue: Queue,
    browsers: Arc<Browsers>,
    options: Options,
    /// Turns, which limit the number of pages that load at the same time.
    turns: Semaphore,
    robots: Option<Robots>,
    /// The browser that all pages share, if they do.
    common: Mutex<Option<Arc<Browser>>>,
    /// Number of pages that found a context wiped for them.
    wiped: AtomicUsize,
}

/// One worker, and what it keeps between two URLs.
#[derive(Debug)]
struct Worker {
    crew: Arc<Crew>,
    held: Option<Held>,
}

/// A page, and the browser that it is in. The page is dropped before its browser.
#[derive(Debug)]
struct Held {
    page: Page,
    browser: Arc<Browser>,
    /// The URL that it was last loaded for.
    job: Job,
    uses: u32,
}

/// The reason why the crew stops before everything is done.
#[derive(Clone, Debug, thiserror::Error)]
#[error("there are no browsers to visit with: {0}")]
pub(crate) struct NoBrowsers(NoBrowser);

/// A failed attempt at a URL.
#[derive(Debug)]
struct Attempt {
    trouble: Trouble,
    /// It had its Chromium to itself.
    alone: bool,
    /// It had begun to load.
    begun: bool,
    /// Time that it took.
    ms: u64,
}

impl Crew {
    pub(crate) fn new(queue: Queue, browsers: Arc<Browsers>, options: Options) -> Arc<Self> {
        Arc::new(Self {
            queue,
            browsers,
            turns: Semaphore::new(options.concurrency),
            robots: options.robots.clone().map(Robots::new),
            options,
            common: Mutex::default(),
            wiped: AtomicUsize::new(0),
        })
    }

    /// Visits everything in the queue and sends a record of each URL.
    ///
    /// # Errors
    ///
    /// If there is no way to get a browser. URLs without a record by then were not visited.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, everything under way is given up.
    pub(crate) async fn work(
        self: Arc<Self>,
        records: mpsc::Sender<Record>,
    ) -> Result<(), NoBrowsers> {
        let mut workers = JoinSet::new();
        for _ in 0..self.options.concurrency + self.browsers.ahead(&self.options) {
            let worker = Worker { crew: Arc::clone(&self), held: None };
            workers.spawn(worker.work(records.clone()));
        }
        drop(records);
        while let Some(ended) = workers.join_next().await {
            match ended {
                Ok(outcome) => outcome?,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        Ok(())
    }

    /// Returns how many pages found a context wiped for them.
    pub(crate) fn wiped(&self) -> usize {
        self.wiped.load(Relaxed)
    }

    /// Leases a browser for one page; with `alone`, one that has its Chromium to itself.
    async fn lease(&self, alone: bool) -> Result<Browser, Trouble> {
        let browser = self.browsers.lease(alone).await.map_err(Trouble::NoBrowser)?;
        browser.begin(&self.options).await?;
        Ok(browser)
    }

    /// Returns the browser that all pages share.
    async fn common(&self) -> Result<Arc<Browser>, Trouble> {
        let mut common = self.common.lock().await;
        match &*common {
            Some(browser) if !browser.is_over() => Ok(Arc::clone(browser)),
            _ => {
                let browser = Arc::new(self.lease(false).await?);
                *common = Some(Arc::clone(&browser));
                Ok(browser)
            }
        }
    }

    /// Gets the `robots.txt` at an address in a browser, so that it takes the same route as pages.
    async fn ask_for_robots(&self, address: &str) -> Result<Asked, Trouble> {
        let browser = self.lease(false).await?;
        let client = browser.connect().await?;
        let furniture = Arc::new(Furniture {
            user_agent: self.options.furniture.user_agent.clone(),
            ..Furniture::default()
        });
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let ask = async {
            let held = browser.holds_pages();
            let mut page = Page::stage(&client, held, address, &furniture).await?;
            // One more byte, to see whether there is more than counts.
            page.resource(LONGEST + 1).await
        };
        let waited = self.options.timeout;
        let answer = timeout(waited, ask).await.unwrap_or(Err(Trouble::Timeout { waited }));
        let asked = match answer {
            Ok(Resource { status: 200..=299, bytes }) => Asked::Text(bytes),
            Ok(Resource { status: 400..=499, .. }) => Asked::Nothing,
            Ok(Resource { status, .. }) => {
                Asked::Unreachable(format!("its robots.txt has status {status}"))
            }
            Err(trouble @ (Trouble::Browser(_) | Trouble::Protocol(_))) => return Err(trouble),
            Err(trouble) => Asked::Unreachable(format!("its robots.txt: {trouble}")),
        };
        browser.discard();
        Ok(asked)
    }
}

impl Worker {
    async fn work(mut self, records: mpsc::Sender<Record>) -> Result<(), NoBrowsers> {
        let crew = Arc::clone(&self.crew);
        while let Some(mut job) = crew.queue.take(self.held.as_ref().map(|held| &held.job)).await {
            let mut visited = None;
            let record = match self.visit(&mut job).await {
                Ok((record, held)) => {
                    visited = held;
                    record
                }
                Err(Attempt { trouble: Trouble::NoBrowser(error), .. })
                    if error.outlook == Outlook::Hopeless =>
                {
                    return Err(NoBrowsers(error));
                }
                Err(Attempt { trouble: Trouble::NoBrowser(error), .. })
                    if error.outlook == Outlook::Busy =>
                {
                    crew.queue.put_back(job, BUSY);
                    continue;
                }
                Err(attempt) => {
                    // If it had not begun to load, it cannot have caused the browser's death.
                    let alone = attempt.alone && attempt.begun;
                    if job.try_again(attempt.trouble.blame(), alone, crew.options.retries) {
                        let doublings = job.failures().saturating_sub(1).min(6);
                        let pause = if job.failures() == 0 {
                            Duration::ZERO
                        } else {
                            PAUSE * (1 << doublings)
                        };
                        crew.queue.put_back(job, pause);
                        continue;
                    }
                    Record::failed(&job, attempt.ms, &attempt.trouble)
                }
            };
            if records.send(record).await.is_err() {
                // Nobody receives them any more: the run is over.
                return Ok(());
            }
            crew.queue.done(&job);
            if let Some(held) = visited {
                self.keep(held).await;
            }
        }
        Ok(())
    }

    /// Visits a URL once, if its host allows it.
    async fn visit(&mut self, job: &mut Job) -> Result<(Record, Option<Held>), Attempt> {
        if let Some(verdict) = self.judge(job).await? {
            let delay = match &verdict {
                Verdict::Allowed(delay) => *delay,
                Verdict::Denied | Verdict::Unknown(_) => None,
            };
            self.crew.queue.settle(job, delay);
            let denied = |code, why: &str| Ok((Record::refused(job, code, why), None));
            match verdict {
                Verdict::Allowed(_) => {}
                Verdict::Denied => {
                    return denied("robots_denied", "the host's robots.txt does not allow it");
                }
                Verdict::Unknown(why) => {
                    let why = format!("the rules of the host could not be read: {why}");
                    return denied("robots_unknown", &why);
                }
            }
        }
        self.load(job).await.map(|(record, held)| (record, Some(held)))
    }

    /// Asks the host of a URL for its rules, if they must be obeyed.
    async fn judge(&mut self, job: &Job) -> Result<Option<Verdict>, Attempt> {
        let crew = &self.crew;
        let Some(robots) = &crew.robots else { return Ok(None) };
        let Some(address) = Robots::address(&job.url) else {
            return Ok(Some(Verdict::Allowed(None)));
        };
        if !robots.knows(&address) {
            // The request may need its place.
            self.held = None;
        }
        let verdict = robots.judge(&job.url, &address, crew.ask_for_robots(&address)).await;
        let before = |trouble| Attempt { trouble, alone: false, begun: false, ms: 0 };
        verdict.map(Some).map_err(before)
    }

    /// Prepares a page, waits for its turn, loads it, and takes what is requested from it.
    async fn load(&mut self, job: &mut Job) -> Result<(Record, Held), Attempt> {
        let crew = Arc::clone(&self.crew);
        let options = &crew.options;
        let alone = options.is_alone(job.suspect);
        let before = |trouble| Attempt { trouble, alone, begun: false, ms: 0 };
        let mut held = self.stage(job).await.map_err(before)?;
        let turn = crew.turns.acquire().await.expect("the semaphore is never closed");
        job.attempts += 1;
        let began = Instant::now();
        let elapsed = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let url = job.url.clone();
        let page = &mut held.page;
        let load = async {
            let details = page.load().await?;
            let waited = options.timeout.saturating_sub(began.elapsed());
            let come = timeout(waited, options.take.wait(page)).await;
            come.unwrap_or_else(|_| Err(options.take.missing(options.timeout)))?;
            let ms = elapsed();
            let taken = options.take.take(page).await?;
            let captured = options.files.capture(page, &url, &details.title).await?;
            Ok((details, ms, taken, captured))
        };
        let loaded = timeout(options.patience(), load).await;
        drop(turn);
        match loaded.unwrap_or(Err(Trouble::Timeout { waited: options.timeout })) {
            Ok((details, ms, taken, captured)) => {
                if held.uses > 0 && options.isolation == Isolation::Wiped {
                    crew.wiped.fetch_add(1, Relaxed);
                }
                held.uses += 1;
                let record = Record {
                    url,
                    final_url: Some(details.final_url),
                    status: details.status,
                    title: Some(details.title),
                    ms,
                    error: None,
                    attempts: job.attempts,
                    screenshot: captured.screenshot,
                    pdf: captured.pdf,
                    html: captured.html,
                    har: captured.har,
                    taken,
                };
                Ok((record, held))
            }
            Err(trouble) => {
                // Whatever is still running in it, and whatever state it is in.
                held.give_up().await;
                Err(Attempt { trouble, alone, begun: true, ms: elapsed() })
            }
        }
    }

    /// Returns the page that is held, if it can be used, or makes one.
    async fn stage(&mut self, job: &Job) -> Result<Held, Trouble> {
        if let Some(mut held) = self.held.take() {
            let fits = match self.crew.options.isolation {
                Isolation::Context => false,
                Isolation::Wiped => {
                    let of = origin(&held.job.url);
                    of.is_some() && of == origin(&job.url)
                }
                Isolation::None => true,
            };
            if fits && !job.suspect && matches!(held.page.again(&job.url).await, Ok(true)) {
                held.job = job.clone();
                return Ok(held);
            }
            held.let_go().await;
        }
        let crew = &self.crew;
        let waited = crew.options.timeout;
        let shared = crew.options.isolation == Isolation::None && !job.suspect;
        let browser =
            if shared { crew.common().await? } else { Arc::new(crew.lease(job.suspect).await?) };
        let furniture = &crew.options.furniture;
        let stage = async {
            let client = browser.connect().await?;
            if shared {
                return Page::open(&client, &job.url, furniture).await;
            }
            Page::stage(&client, browser.holds_pages(), &job.url, furniture).await
        };
        match timeout(waited, stage).await.unwrap_or(Err(Trouble::Timeout { waited })) {
            Ok(page) => Ok(Held { page, browser, job: job.clone(), uses: 0 }),
            Err(trouble) => {
                discard(browser);
                Err(trouble)
            }
        }
    }

    /// Keeps the page for the next URL, if that may use it.
    async fn keep(&mut self, mut held: Held) {
        let crew = &self.crew;
        let is_last = crew.queue.waiting() == 0;
        let is_shared = crew.options.isolation == Isolation::None && !held.job.suspect;
        if held.uses >= USES || (is_last && is_shared) {
            return held.let_go().await;
        }
        if is_shared {
            self.held = Some(held);
        } else if is_last {
            // Nobody needs it clean again.
            held.give_up().await;
        } else if crew.options.isolation == Isolation::Wiped && !held.job.suspect {
            match timeout(WIPING, held.page.wipe()).await {
                Ok(Ok(Wiped::Clean)) => self.held = Some(held),
                Ok(Ok(Wiped::Stained(by))) => {
                    tracing::debug!(url = held.job.url, %by, "a context is not used again");
                    held.let_go().await;
                }
                Ok(Err(error)) => {
                    tracing::debug!(url = held.job.url, %error, "a page was not wiped");
                    held.give_up().await;
                }
                Err(_) => {
                    tracing::debug!(url = held.job.url, "a page was not wiped in time");
                    held.give_up().await;
                }
            }
        } else {
            held.let_go().await;
        }
    }
}

impl Held {
    /// Closes the page with everything in it; its browser is cleaned for the next one.
    async fn let_go(self) {
        let Self { page, browser, .. } = self;
        match Arc::try_unwrap(browser) {
            // It ends with its page.
            Ok(browser) => drop((page, browser)),
            Err(_shared) => page.close().await,
        }
    }

    /// Gives up the page, whatever state it is in, and its browser, if that is its own.
    async fn give_up(self) {
        let Self { page, browser, .. } = self;
        match Arc::try_unwrap(browser) {
            Ok(browser) => {
                drop(page);
                browser.discard();
            }
            Err(_shared) => page.close().await,
        }
    }
}

/// Gives up a browser, if nobody shares it.
fn discard(browser: Arc<Browser>) {
    if let Ok(browser) = Arc::try_unwrap(browser) {
        browser.discard();
    }
}
