//! What is true after every case, whatever was done in it.
//!
//! The oracle looks at the machine and not at the pool: at processes by their directories, parents
//! and start times, at files, descriptors and threads. Only then does it compare what the pool
//! says of itself. It never uses the pool's own code to look.
//!
//! | it must hold | promise |
//! |---|---|
//! | every Chromium of ours is one that the API knows, and the other way round | P1, P5 |
//! | no zombie of ours is older than a second | P2 |
//! | no directory, file or shared memory is left of what is gone; none at all in the end | P3 |
//! | descriptors of the pool are as before, give or take four, and threads no more than four above | P3 |
//! | nobody holds or waits, the states add up, the metrics say the same | P5, P16 |
//! | a fresh lease comes within ten seconds and its first commands succeed | P7, P9 |
//! | the pool has not panicked, and ends with 0 when it is told to | P14 |
//! | a Chromium of somebody else, started beside the pool, lives | P1 |

mod accounting;
mod litter;
mod ours;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::patience::GENEROUS;
use crate::process::ProcessId;
use crate::{Canary, Cdp, Home, Service};
use accounting::accounting;
use litter::SharedMemory;
pub use ours::Ours;

/// How long everything may take to be in order again. Blocking threads of the pool's runtime
/// linger for ten seconds by themselves.
const RECOVERY: Duration = Duration::from_secs(40);

/// A lease must come within this, whatever happened.
const FRESH_LEASE: Duration = Duration::from_secs(10);

/// What a pool holds at rest is what it has held for so long without a change: connections that the
/// oracle itself has closed are open in the pool for a moment longer.
const STEADY: Duration = Duration::from_millis(500);

/// Maximum difference of descriptors from where they were, and of threads above it.
const SLACK: i64 = 4;

/// The judge of one case.
#[derive(Debug)]
pub struct Oracle {
    /// The processes of this case.
    pub ours: Ours,
    canary: Arc<Canary>,
    shared_memory: SharedMemory,
    min_size: usize,
    rest: Option<Rest>,
}

/// What a pool at rest holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    process: ProcessId,
    descriptors: i64,
    threads: i64,
    browsers: i64,
}

/// What is wrong; empty when nothing is.
pub(crate) struct Findings(Vec<String>);

impl Findings {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, finding: impl Into<String>) {
        self.0.push(finding.into());
    }

    fn verdict(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Debug for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.0 {
            write!(f, "\n  - {finding}")?;
        }
        Ok(())
    }
}

impl Oracle {
    pub(crate) fn new(home: &Home, min_size: usize) -> Self {
        Self {
            ours: Ours::of(home),
            canary: Canary::shared(),
            shared_memory: SharedMemory::now(),
            min_size,
            rest: None,
        }
    }

    /// From now on this many browsers are there at rest.
    pub fn expect_at_rest(&mut self, min_size: usize) {
        self.min_size = min_size;
    }

    /// Takes down what a service holds that has just been started, once every browser was leased:
    /// the first lease of each starts processes and threads that stay.
    pub(crate) async fn begin(&mut self, service: &Service) {
        self.at_rest(service).await;
        for lease in self.lease_all(service).await {
            lease.close().await;
        }
        self.take_down(service).await;
    }

    /// Leases as many browsers as there are at rest, and uses each.
    pub(crate) async fn lease_all(&self, service: &Service) -> Vec<Cdp> {
        let mut leases = Vec::new();
        for _ in 0..self.min_size {
            leases.push(service.connect("/").await);
        }
        for lease in &leases {
            lease.page("about:blank").await;
        }
        leases
    }

    /// Takes down what a service holds once it is at rest, without the browsers that it launched
    /// beside the first leases: it may close them whenever it wants to.
    pub(crate) async fn take_down(&mut self, service: &Service) {
        self.at_rest(service).await;
        // It keeps one idle, whatever the minimum is.
        let kept = self.min_size.max(1) as i64;
        if Rest::of(service, &self.ours).browsers > kept {
            flush(service).await;
            self.at_rest(service).await;
        }
        self.rest = Some(self.steady(service).await);
    }

    async fn steady(&self, service: &Service) -> Rest {
        let mut rest = Rest::of(service, &self.ours);
        let mut since = Instant::now();
        crate::eventually("what the pool holds stays the same", GENEROUS, async || {
            let now = Rest::of(service, &self.ours);
            if now != rest {
                (rest, since) = (now, Instant::now());
            }
            if since.elapsed() < STEADY { Err(now) } else { Ok(()) }
        })
        .await;
        rest
    }

    /// Waits until nobody holds or waits and the minimum is there.
    ///
    /// # Panics
    ///
    /// If that does not come.
    pub async fn at_rest(&self, service: &Service) {
        crate::eventually("the pool is at rest", GENEROUS, async || {
            let mut findings = Findings::new();
            accounting(service, &self.ours, self.min_size, &mut findings).await;
            findings.verdict()
        })
        .await;
    }

    /// Judges a service that runs.
    ///
    /// # Panics
    ///
    /// With everything that is wrong.
    pub(crate) async fn judge(&self, service: &Service, home: &Home) {
        assert!(service.is_running(), "the service has ended by itself");
        fresh_lease(service).await;
        crate::eventually("the oracle finds nothing", RECOVERY, async || {
            let mut findings = Findings::new();
            accounting(service, &self.ours, self.min_size, &mut findings).await;
            if findings.0.is_empty() {
                self.flush_surplus(service, &mut findings).await;
            }
            litter::of_a_service(home, &self.ours, &mut findings);
            self.shared_memory.litter(&mut findings);
            self.compare(service, &mut findings);
            findings.verdict()
        })
        .await;
        let mut findings = Findings::new();
        self.zombies(service, &mut findings).await;
        self.surroundings(home, &mut findings);
        findings.verdict().unwrap_or_else(|findings| panic!("the oracle:{findings:?}"));
    }

    /// Judges what is left of a service that was told to end.
    ///
    /// # Panics
    ///
    /// With everything that is wrong.
    pub(crate) async fn judge_end(&self, home: &Home) {
        self.gone(Duration::from_secs(2)).await;
        let mut findings = Findings::new();
        litter::of_nobody(home, &mut findings);
        self.shared_memory.litter(&mut findings);
        self.surroundings(home, &mut findings);
        findings.verdict().unwrap_or_else(|findings| panic!("the oracle, at the end:{findings:?}"));
    }

    /// Waits until no Chromium of ours lives, and returns how long that took.
    ///
    /// # Panics
    ///
    /// With the processes that live after `limit`.
    pub async fn gone(&self, limit: Duration) -> Duration {
        crate::eventually("no process of ours is left", limit, async || {
            let left = self.ours.chromium();
            if left.is_empty() { Ok(()) } else { Err(ours::describe(&left)) }
        })
        .await
    }

    /// More browsers than before hold more descriptors: closes those above the minimum.
    async fn flush_surplus(&self, service: &Service, findings: &mut Findings) {
        let Some(before) = self.before(service) else { return };
        let browsers = Rest::of(service, &self.ours).browsers;
        if browsers > before.browsers {
            findings.add(format!("there were {} browsers and are {browsers}", before.browsers));
            flush(service).await;
        }
    }

    /// What this process held when it was taken down.
    fn before(&self, service: &Service) -> Option<Rest> {
        self.rest.filter(|rest| rest.process == service.process)
    }

    fn compare(&self, service: &Service, findings: &mut Findings) {
        let Some(before) = self.before(service) else { return };
        let now = Rest::of(service, &self.ours);
        let more = now.descriptors - before.descriptors;
        // Fewer browsers hold fewer.
        if more > SLACK || (more < -SLACK && now.browsers >= before.browsers) {
            let (had, has) = (before.descriptors, now.descriptors);
            findings.add(format!("the pool had {had} descriptors and has {has}"));
        }
        // It may have fewer: those for work that blocks end once they have had none for ten seconds.
        if now.threads - before.threads > SLACK {
            let (had, has) = (before.threads, now.threads);
            findings.add(format!("the pool had {had} threads and has {has}"));
        }
    }

    async fn zombies(&self, service: &Service, findings: &mut Findings) {
        let young = self.ours.zombies(service);
        if young.is_empty() {
            return;
        }
        sleep(Duration::from_secs(1)).await;
        for zombie in self.ours.zombies(service) {
            if young.iter().any(|young| young.id == zombie.id) {
                let (name, pid) = (zombie.name, zombie.id.pid);
                findings.add(format!("{name} ({pid}) is a zombie for more than a second"));
            }
        }
    }

    fn surroundings(&self, home: &Home, findings: &mut Findings) {
        if !self.canary.is_alive() {
            findings.add("a Chromium of somebody else was killed");
        }
        let log = home.log();
        if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
            findings.add(format!("the pool has panicked: {line}"));
        }
    }
}

impl Rest {
    fn of(service: &Service, ours: &Ours) -> Self {
        let threads = service.process.status("Threads").unwrap_or_default();
        Self {
            process: service.process,
            descriptors: service.process.descriptors() as i64,
            threads: threads as i64,
            browsers: ours.browsers().len() as i64,
        }
    }
}

/// Has all browsers closed that nobody holds; as many as the minimum are launched again.
async fn flush(service: &Service) {
    service.post("/api/flush", &serde_json::json!({})).await;
}

/// How soon a lease is asked for again that was refused.
const RETRY: Duration = Duration::from_millis(100);

/// A lease that anybody may ask for, and its first commands.
async fn fresh_lease(service: &Service) {
    let began = Instant::now();
    let lease = async {
        let client = loop {
            match service.try_connect("/?acquire_timeout=10000").await {
                Ok(client) => break client,
                // A pool without a queue has nothing while the last leases are cleaned up.
                Err(refused) if refused.code() == "queue_full" => sleep(RETRY).await,
                Err(refused) => panic!("no fresh lease: {refused:?}"),
            }
        };
        let page = client.page("about:blank").await;
        // As much of JavaScript as the fake Chromium has.
        assert_eq!(page.eval("42").await, 42, "the first page of a fresh lease");
        client.close().await;
    };
    let leased = timeout(FRESH_LEASE, lease).await;
    assert!(leased.is_ok(), "no fresh lease that works within {:.1?}", began.elapsed());
}
