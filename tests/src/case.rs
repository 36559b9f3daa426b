use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::oracle::Oracle;
use crate::{Exit, Home, Service, Setup, Site};

/// So many cases at once, however many threads the tests have. Most of a case is waiting, but each
/// has Chromiums of its own, and what is promised in seconds needs a machine that has time for it.
const AT_ONCE: u32 = 4;

pub(crate) static TURNS: Semaphore = Semaphore::const_new(AT_ONCE as usize);

/// Interval at which a case that must be alone looks whether it is.
const LOOK: Duration = Duration::from_millis(100);

/// How much of the log a test that fails shows.
const TAIL: usize = 60;

/// A test in progress: a service of its own, a site to visit, and the judge.
#[derive(Debug)]
pub struct Case {
    /// The service.
    pub service: Service,
    /// The site.
    pub site: Site,
    /// The judge.
    pub oracle: Oracle,
    /// The directories.
    pub home: Home,
    /// How the service was configured.
    pub setup: Setup,
}

/// Starts a service, does `body` to it, and lets the [oracle](crate::oracle) judge.
///
/// # Panics
///
/// If `body` does, or with what the oracle finds.
pub async fn case(setup: Setup, body: impl AsyncFnOnce(&mut Case)) {
    case_in(Home::new(), setup, body).await;
}

/// Like [`case`], in a home that the test has prepared.
///
/// # Panics
///
/// As [`case`].
pub async fn case_in(home: Home, setup: Setup, body: impl AsyncFnOnce(&mut Case)) {
    let _turn = TURNS.acquire().await.expect("nobody closes it");
    Case::run(home, setup, body).await;
}

/// Like [`case_in`], with no other case beside it: for what is promised within a second.
///
/// It begins once no other case waits for its turn. If it queued with them, the machine would stand
/// idle until the longest running case is over.
///
/// # Panics
///
/// As [`case`].
pub async fn case_alone(home: Home, setup: Setup, body: impl AsyncFnOnce(&mut Case)) {
    let _turns = loop {
        match TURNS.try_acquire_many(AT_ONCE) {
            Ok(turns) => break turns,
            Err(_) => sleep(LOOK).await,
        }
    };
    Case::run(home, setup, body).await;
}

/// Starts a service that must refuse to start, and lets the oracle look at what is left. The exit,
/// and what was written to stderr.
///
/// # Panics
///
/// With what the oracle finds.
pub async fn refused(home: Home, setup: &Setup) -> (Exit, String) {
    let _turn = TURNS.acquire().await.expect("nobody closes it");
    let oracle = Oracle::new(&home, 0);
    let refusal = Service::refused(&home, setup).await;
    oracle.judge_end(&home).await;
    refusal
}

impl Case {
    async fn run(home: Home, setup: Setup, body: impl AsyncFnOnce(&mut Self)) {
        let mut case = Self::start(home, setup).await;
        body(&mut case).await;
        case.finish().await;
    }

    async fn start(home: Home, setup: Setup) -> Self {
        let oracle = Oracle::new(&home, setup.min_size());
        let site = Site::start().await;
        let service = Service::start(&home, &setup).await;
        let mut case = Self { service, site, home, setup, oracle };
        case.oracle.begin(&case.service).await;
        case
    }

    /// Starts the service again, in the same directories, after the test has killed it.
    pub async fn restart(&mut self) {
        self.service = Service::start(&self.home, &self.setup).await;
    }

    /// Kills the service as the kernel would that is out of memory.
    pub async fn kill_service(&mut self) {
        self.service.kill().await;
    }

    async fn finish(&mut self) {
        self.oracle.judge(&self.service, &self.home).await;
        self.service.signal(Signal::TERM);
        let exit = self.service.exit(Duration::from_secs(20)).await;
        assert_eq!(exit.code, Some(0), "the service ends in order");
        self.oracle.judge_end(&self.home).await;
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("-- the log of the service ends with\n{}\n--", tail(&self.home));
        }
    }
}

/// The end of the log of the service that has this home.
pub(crate) fn tail(home: &Home) -> String {
    let log = home.log();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
