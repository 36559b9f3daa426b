use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use url::{Origin, Url};

use crate::loader::Blame;

/// A URL to be visited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// The URL as it was given.
    pub(crate) url: String,
    /// Number of attempts begun so far.
    pub(crate) attempts: u32,
    /// Number of failed attempts that count against it.
    failures: u32,
    /// A Chromium died while it was in it: it gets one to itself, to show who was at fault.
    pub(crate) suspect: bool,
}

impl Job {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), attempts: 0, failures: 0, suspect: false }
    }

    /// Returns `true` if it should be tried again after a failed attempt; `alone` if it had its
    /// Chromium to itself.
    pub(crate) fn try_again(&mut self, blame: Blame, alone: bool, retries: u32) -> bool {
        if blame == Blame::Unknown && !alone {
            // At most once: from now on it is alone.
            self.suspect = true;
            return true;
        }
        self.failures += 1;
        blame != Blame::Permanent && self.failures <= retries
    }

    /// Returns the number of failures that count against it.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

/// Limits of a run that protect the hosts that it visits.
///
/// A host is an origin: scheme, name and port. RFC 9309 has a `robots.txt` for each, and a context
/// can be wiped for one origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manners {
    /// Maximum number of pages of one host in progress at the same time; `None` for no limit.
    pub(crate) per_host: Option<usize>,
    /// Minimum time between two pages of one host.
    pub(crate) delay: Duration,
    /// Only one page of a host is in progress until the contents of its `robots.txt` are known: see
    /// [`settle`](Queue::settle).
    pub(crate) robots: bool,
    /// Workers stay with a host, because its pages share something.
    pub(crate) sites: bool,
}

/// The jobs that have yet to be done. Workers take jobs from it and report their outcomes.
#[derive(Debug)]
pub(crate) struct Queue {
    manners: Manners,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    hosts: HashMap<String, Host>,
    /// The hosts that have jobs that are ready, each once; the next one to be served comes first.
    turns: VecDeque<String>,
    ready: usize,
    /// Jobs that wait for their next attempt, in no order, since there are few.
    later: Vec<(Instant, Job)>,
    /// Number of jobs that are taken, and neither done nor put back.
    in_hand: usize,
}

/// The jobs of one host; of all hosts, if no limits apply.
#[derive(Debug, Default)]
struct Host {
    ready: VecDeque<Job>,
    in_hand: usize,
    /// Time from which the next one may be taken.
    free_at: Option<Instant>,
    /// The crawl-delay that it asks for.
    delay: Option<Duration>,
    /// It is among the turns. A host that a worker stays with may be there without a job.
    has_turn: bool,
    /// Its `robots.txt` is known.
    settled: bool,
}

impl Manners {
    /// Returns the host whose jobs form one line with this one; an empty name for all of them if no
    /// limits apply.
    fn host(self, job: &Job) -> String {
        if self == Self::default() {
            return String::new();
        }
        origin(&job.url).map(|origin| origin.ascii_serialization()).unwrap_or_default()
    }

    /// Checks that a job of this host may be taken now.
    ///
    /// # Errors
    ///
    /// The time from which it may be taken, if it only has to wait.
    fn allow(self, host: &Host, now: Instant) -> Result<(), Option<Instant>> {
        let most = if self.robots && !host.settled { Some(1) } else { self.per_host };
        if most.is_some_and(|most| host.in_hand >= most) {
            return Err(None);
        }
        match host.free_at.filter(|at| *at > now) {
            Some(later) => Err(Some(later)),
            None => Ok(()),
        }
    }
}

impl Queue {
    pub(crate) fn new(jobs: impl IntoIterator<Item = Job>, manners: Manners) -> Self {
        let mut state = State::default();
        for job in jobs {
            state.add(manners.host(&job), job);
        }
        Self { manners, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Takes the next job, preferably one with the same host as `stay`. Waits while all remaining
    /// jobs are due later or their hosts have had enough for now. Returns `None` when all are done.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn take(&self, stay: Option<&Job>) -> Option<Job> {
        let stay = stay.map(|job| self.manners.host(job));
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on, so that nothing is missed between the check and the wait.
            changed.as_mut().enable();
            let next_try = {
                let mut state = self.lock();
                match state.take(self.manners, stay.as_deref(), Instant::now()) {
                    Ok(job) => return Some(job),
                    Err(_) if state.is_done() => return None,
                    Err(next_try) => next_try,
                }
            };
            match next_try {
                Some(at) => tokio::select! { () = changed => {}, () = sleep_until(at) => {} },
                None => changed.await,
            }
        }
    }

    /// Counts a taken job as done.
    pub(crate) fn done(&self, job: &Job) {
        self.change(|state| state.let_go(&self.manners.host(job)));
    }

    /// Puts back a taken job, to be tried again after a while.
    pub(crate) fn put_back(&self, job: Job, after: Duration) {
        self.change(|state| {
            state.let_go(&self.manners.host(&job));
            state.later.push((Instant::now() + after, job));
        });
    }

    /// Records the contents of the `robots.txt` of a job's host: from now on more than one of its
    /// pages may be in progress, and its own delay applies if it is longer.
    pub(crate) fn settle(&self, job: &Job, delay: Option<Duration>) {
        self.change(|state| {
            let host = state.hosts.get_mut(&self.manners.host(job)).expect("a job of it was taken");
            if !host.settled {
                host.settled = true;
                host.delay = delay;
                host.free_at = host.free_at.max(delay.map(|delay| Instant::now() + delay));
            }
        });
    }

    /// Returns the number of jobs that nobody has taken.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.lock();
        state.ready + state.later.len()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, host: String, job: Job) {
        let jobs = self.hosts.entry(host.clone()).or_default();
        if !jobs.has_turn {
            jobs.has_turn = true;
            self.turns.push_back(host);
        }
        jobs.ready.push_back(job);
        self.ready += 1;
    }

    /// Takes the job whose turn it is.
    ///
    /// # Errors
    ///
    /// The time of the next check, if a job only has to wait.
    fn take(
        &mut self,
        manners: Manners,
        stay: Option<&str>,
        now: Instant,
    ) -> Result<Job, Option<Instant>> {
        if let Some(due) = self.later.iter().position(|(at, _)| *at <= now) {
            let (_, job) = self.later.swap_remove(due);
            let host = manners.host(&job);
            self.add(host.clone(), job);
            // It has already waited, so it goes before new ones of its host.
            let jobs = self.hosts.get_mut(&host).expect("it was added to this moment");
            jobs.ready.rotate_right(1);
        }
        if let Some(host) = stay.and_then(|host| self.hosts.get_mut(host))
            && manners.allow(host, now).is_ok()
            && let Some(job) = host.take(manners, now)
        {
            self.ready -= 1;
            self.in_hand += 1;
            return Ok(job);
        }
        let mut next_try = self.later.iter().map(|(at, _)| *at).min();
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front().expect("it was not looked at yet");
            let host = self.hosts.get_mut(&name).expect("a host with a turn is known");
            if host.ready.is_empty() {
                host.has_turn = false;
                continue;
            }
            if let Err(later) = manners.allow(host, now) {
                next_try = next_try.into_iter().chain(later).min();
                self.turns.push_back(name);
                continue;
            }
            let job = host.take(manners, now).expect("it has one that is ready");
            host.has_turn = !host.ready.is_empty();
            if host.has_turn {
                self.turns.push_back(name);
            }
            self.ready -= 1;
            self.in_hand += 1;
            return Ok(job);
        }
        Err(next_try)
    }

    fn let_go(&mut self, host: &str) {
        self.in_hand -= 1;
        let jobs = self.hosts.get_mut(host).expect("a job of it was taken");
        jobs.in_hand -= 1;
    }

    fn is_done(&self) -> bool {
        self.ready == 0 && self.later.is_empty() && self.in_hand == 0
    }
}

impl Host {
    fn take(&mut self, manners: Manners, now: Instant) -> Option<Job> {
        let job = self.ready.pop_front()?;
        self.in_hand += 1;
        let delay = self.delay.unwrap_or_default().max(manners.delay);
        self.free_at = (!delay.is_zero()).then(|| now + delay);
        Some(job)
    }
}

/// Returns the origin of an address, if other addresses can have the same.
pub(crate) fn origin(url: &str) -> Option<Origin> {
    Url::parse(url).ok().map(|url| url.origin()).filter(Origin::is_tuple)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_a_name_and_a_port() {
        assert_eq!(origin("http://a/1"), origin("http://u:p@a:80/2"));
        for other in ["https://a/1", "http://a:81/1", "http://b/1", "data:,a", "nonsense"] {
            assert_ne!(origin("http://a/1"), origin(other), "{other}");
        }
        assert_eq!(origin("data:,a"), None);
    }

    #[test]
    fn a_job_has_its_retries_and_then_no_more() {
        let mut job = Job::new("http://a/");
        assert!(job.try_again(Blame::Retry, false, 1));
        assert!(!job.try_again(Blame::Retry, false, 1));
    }

    #[test]
    fn the_death_of_a_shared_browser_counts_against_nobody_but_suspects_everybody() {
        let mut job = Job::new("http://a/");
        assert!(job.try_again(Blame::Unknown, false, 0));
        assert!(job.suspect);
        assert!(!job.try_again(Blame::Unknown, true, 0), "alone it is its own fault");
    }

    #[test]
    fn what_is_permanent_is_not_tried_again() {
        assert!(!Job::new("http://a/").try_again(Blame::Permanent, false, 5));
    }

    fn queue(urls: &[&str]) -> Queue {
        Queue::new(urls.iter().map(|url| Job::new(*url)), Manners::default())
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_ends_when_the_last_job_in_hand_is_done() {
        let queue = queue(&["a"]);
        let job = queue.take(None).await.unwrap();
        let other = queue.take(None);
        tokio::pin!(other);
        assert!(futures_util::poll!(&mut other).is_pending(), "the job may come back");
        queue.done(&job);
        assert_eq!(other.await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_was_put_back_comes_again_when_it_is_due_and_not_before() {
        let queue = queue(&["a", "b"]);
        let first = queue.take(None).await.unwrap();
        queue.put_back(first, Duration::from_secs(3));
        let second = queue.take(None).await.unwrap();
        assert_eq!(second.url, "b");
        queue.done(&second);
        let began = Instant::now();
        let again = queue.take(None).await.unwrap();
        assert_eq!(again.url, "a");
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        queue.done(&again);
        assert_eq!(queue.take(None).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_has_had_enough_lets_others_pass() {
        let urls = ["http://a/1", "http://a/2", "http://b/1"];
        let manners = Manners { per_host: Some(1), ..Manners::default() };
        let queue = Queue::new(urls.into_iter().map(Job::new), manners);
        let (first, second) = (queue.take(None).await.unwrap(), queue.take(None).await.unwrap());
        assert_eq!((&*first.url, &*second.url), ("http://a/1", "http://b/1"));
        let third = queue.take(None);
        tokio::pin!(third);
        assert!(futures_util::poll!(&mut third).is_pending(), "a has one in work");
        queue.done(&second);
        assert!(futures_util::poll!(&mut third).is_pending());
        queue.done(&first);
        assert_eq!(third.await.unwrap().url, "http://a/2");
    }

    #[tokio::test(start_paused = true)]
    async fn pages_of_one_host_keep_their_distance() {
        let urls = ["http://a/1", "http://a/2", "http://a/3", "http://b/1"];
        let manners = Manners { delay: Duration::from_secs(2), ..Manners::default() };
        let queue = Queue::new(urls.into_iter().map(Job::new), manners);
        let began = Instant::now();
        let mut taken = Vec::new();
        for _ in urls {
            taken.push((queue.take(None).await.unwrap().url, began.elapsed().as_secs()));
        }
        let taken: Vec<(&str, u64)> = taken.iter().map(|(url, at)| (&**url, *at)).collect();
        let wanted = [("http://a/1", 0), ("http://b/1", 0), ("http://a/2", 2), ("http://a/3", 4)];
        assert_eq!(taken, wanted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_stays_with_a_host_as_long_as_that_has_jobs() {
        let urls = ["http://a/1", "http://b/1", "http://a/2", "http://b/2", "http://c/1"];
        let manners = Manners { sites: true, ..Manners::default() };
        let queue = Queue::new(urls.into_iter().map(Job::new), manners);
        let mut last: Option<Job> = None;
        let mut taken = Vec::new();
        for _ in urls {
            let job = queue.take(last.as_ref()).await.unwrap();
            queue.done(&job);
            taken.push(job.url.clone());
            last = Some(job);
        }
        assert_eq!(taken, ["http://a/1", "http://a/2", "http://b/1", "http://b/2", "http://c/1"]);
        assert_eq!(queue.take(None).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_was_not_asked_yet_has_one_page_in_work_and_then_keeps_its_delay() {
        let urls = ["http://a/1", "http://a/2", "http://a/3"];
        let manners = Manners { robots: true, ..Manners::default() };
        let queue = Queue::new(urls.into_iter().map(Job::new), manners);
        let first = queue.take(None).await.unwrap();
        let second = queue.take(None);
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending(), "nobody knows what a says");
        let began = Instant::now();
        queue.settle(&first, Some(Duration::from_secs(5)));
        let second = second.await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        // It is asked once.
        queue.settle(&second, None);
        queue.take(None).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn each_port_and_scheme_of_a_name_keeps_the_delay_of_its_own() {
        let urls = ["http://a/1", "http://a:81/1", "https://a/1"];
        let again = ["http://a/2", "http://a:81/2", "https://a/2"];
        let manners = Manners { robots: true, ..Manners::default() };
        let queue = Queue::new(urls.iter().chain(&again).map(|url| Job::new(*url)), manners);
        for (url, delay) in urls.into_iter().zip([None, Some(5), Some(2)]) {
            let job = queue.take(None).await.unwrap();
            assert_eq!(job.url, url, "no other has to wait for what the first one says");
            queue.settle(&job, delay.map(Duration::from_secs));
        }
        let began = Instant::now();
        for (url, at) in [("http://a/2", 0), ("https://a/2", 2), ("http://a:81/2", 5)] {
            assert_eq!(queue.take(None).await.unwrap().url, url);
            assert_eq!(began.elapsed(), Duration::from_secs(at), "{url}");
        }
    }
}
