//! The requests that wait for a profile which is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pool_core::{Class, Request};
use tokio::sync::watch;
use tokio::time::Instant;

/// The requests that wait at this node for a profile, before they stand in the queue of its pool.
///
/// As in the pool, the best one is that with the lowest rank: its age, and its handicap by priority. It alone looks
/// whether the profile is free; one that is better takes its turn.
#[derive(Debug)]
pub(super) struct ProfileWaiters {
    state: watch::Sender<State>,
    /// Maximum number of them, beside the one whose turn it is.
    max: usize,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// Best first.
    waiting: BTreeMap<Place, ProfileWaiter>,
    /// Profiles that somebody was given, and of which there is no browser yet.
    taken: BTreeSet<Arc<str>>,
}

/// A rank, and a number that makes it unique.
type Place = (Instant, u64);

/// A request that waits for a profile.
#[derive(Clone, Debug)]
pub(crate) struct ProfileWaiter {
    pub(crate) profile: Arc<str>,
    pub(crate) class: Class,
    /// Name of its tenant in the configuration.
    pub(crate) group: Option<Arc<str>>,
    pub(crate) priority: Option<u8>,
    /// Time at which its client began to wait, wherever that was.
    pub(crate) since: Instant,
    /// It may have the profile here. One that may not stands here in case that changes.
    pub(crate) creates: bool,
}

impl ProfileWaiters {
    /// Creates an empty list of at most `max` requests, beside the one whose turn it is.
    pub(super) fn new(max: usize) -> Self {
        Self { state: watch::Sender::default(), max }
    }

    /// Adds a request, with the class and the handicap that the policies give it, or returns the number of those that
    /// wait if they are as many as may.
    pub(super) fn join(
        &self,
        profile: &str,
        request: &Request,
        (class, handicap): (Class, Duration),
    ) -> Result<Wait<'_>, usize> {
        let now = Instant::now();
        let since = now.checked_sub(request.waited).unwrap_or(now);
        let profile: Arc<str> = profile.into();
        let waiter = ProfileWaiter {
            profile: Arc::clone(&profile),
            class,
            group: request.group.as_ref().map(|group| Arc::clone(&group.name)),
            priority: request.priority,
            since,
            creates: request.creates,
        };
        let mut place = (since + handicap, 0);
        let mut waiting = 0;
        let joined = self.state.send_if_modified(|state| {
            waiting = state.waiting.len();
            if waiting > self.max {
                return false;
            }
            state.last += 1;
            place.1 = state.last;
            state.waiting.insert(place, waiter);
            true
        });
        if joined { Ok(Wait { waiters: self, profile, place }) } else { Err(waiting) }
    }

    /// Returns those that wait, best first.
    pub(super) fn all(&self) -> Vec<ProfileWaiter> {
        self.state.borrow().waiting.values().cloned().collect()
    }
}

impl State {
    /// Returns true if it is the turn of this one.
    fn is_first(&self, profile: &Arc<str>, place: Place) -> bool {
        let mut ready = self.waiting.iter().filter(|(_, waiter)| waiter.creates);
        let first = ready.find(|(_, waiter)| waiter.profile == *profile);
        !self.taken.contains(profile) && first.is_some_and(|(first, _)| *first == place)
    }
}

/// A request's wait, which ends with its drop.
#[derive(Debug)]
pub(super) struct Wait<'a> {
    waiters: &'a ProfileWaiters,
    profile: Arc<str>,
    place: Place,
}

impl<'a> Wait<'a> {
    /// Waits until it is this one's turn.
    pub(super) async fn first(&self) {
        self.until(true).await;
    }

    /// Waits until it is this one's turn no longer.
    pub(super) async fn overtaken(&self) {
        self.until(false).await;
    }

    async fn until(&self, is_first: bool) {
        let mut state = self.waiters.state.subscribe();
        // The sender lives as long as `self`.
        let _ = state.wait_for(|state| state.is_first(&self.profile, self.place) == is_first).await;
    }

    /// Ends the wait with the profile, unless another one was given it meanwhile: then it goes on.
    pub(super) fn take(&self) -> Option<Taken<'a>> {
        let mut taken = false;
        self.waiters.state.send_modify(|state| {
            taken = state.taken.insert(Arc::clone(&self.profile));
            if taken {
                state.waiting.remove(&self.place);
            }
        });
        let profile = Arc::clone(&self.profile);
        taken.then(|| Taken { waiters: self.waiters, profile })
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.waiters.state.send_if_modified(|state| state.waiting.remove(&self.place).is_some());
    }
}

/// A profile that a request was given. With its drop it is the next one's turn.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    waiters: &'a ProfileWaiters,
    profile: Arc<str>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.waiters.state.send_modify(|state| {
            state.taken.remove(&self.profile);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    const NONE: Duration = Duration::ZERO;

    fn join<'a>(waiters: &'a ProfileWaiters, profile: &str, handicap: Duration) -> Wait<'a> {
        let decided = (Class::default(), handicap);
        waiters.join(profile, &Request::new(), decided).expect("there is room")
    }

    fn is_over(wait: impl Future<Output = ()>) -> bool {
        pin!(wait).now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_is_first_and_the_next_one_when_it_has_a_browser_or_has_gone() {
        let waiters = ProfileWaiters::new(10);
        let first = join(&waiters, "work", NONE);
        tokio::time::advance(Duration::from_millis(1)).await;
        let [second, third] = [(); 2].map(|()| join(&waiters, "work", NONE));
        let other = join(&waiters, "other", NONE);
        assert!(is_over(first.first()) && is_over(other.first()));
        assert!(!is_over(second.first()));
        assert_eq!(waiters.all().len(), 4);
        let taken = first.take().expect("nobody else has it");
        assert_eq!(waiters.all().len(), 3, "it waits for the pool from now on");
        assert!(!is_over(second.first()), "its browser is not there yet");
        assert!(second.take().is_none());
        drop((first, taken));
        assert!(is_over(second.first()) && !is_over(third.first()));
        drop(second);
        assert!(is_over(third.first()));
        drop((third, other));
        assert!(waiters.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_more_urgent_takes_the_turn_of_an_older_one() {
        let waiters = ProfileWaiters::new(10);
        let low = join(&waiters, "work", Duration::from_secs(5));
        assert!(is_over(low.first()) && !is_over(low.overtaken()));
        tokio::time::advance(Duration::from_secs(1)).await;
        let later = join(&waiters, "work", Duration::from_secs(5));
        assert!(!is_over(low.overtaken()) && !is_over(later.first()));
        let urgent = join(&waiters, "work", NONE);
        assert!(is_over(low.overtaken()) && is_over(urgent.first()));
        // Of two that have claimed an instance each, one is given it.
        let taken = low.take().expect("it was quicker");
        assert!(is_over(urgent.overtaken()) && urgent.take().is_none());
        drop(taken);
        assert!(is_over(urgent.first()));
        // Nobody is overtaken for ever: an age of five seconds makes up for it.
        drop(urgent);
        tokio::time::advance(Duration::from_secs(6)).await;
        let urgent = join(&waiters, "work", NONE);
        assert!(is_over(later.first()) && !is_over(urgent.first()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_may_not_have_it_here_is_counted_and_passed_over() {
        let waiters = ProfileWaiters::new(10);
        let request = Request::new().without_creating().waited(Duration::from_secs(3));
        let elsewhere = waiters.join("work", &request, (Class::default(), NONE));
        let elsewhere = elsewhere.expect("there is room");
        let here = join(&waiters, "work", NONE);
        assert!(is_over(here.first()) && !is_over(elsewhere.first()));
        let all = waiters.all();
        assert_eq!(all.iter().map(|waiter| waiter.creates).collect::<Vec<_>>(), [false, true]);
        assert_eq!(all[0].since.elapsed(), Duration::from_secs(3), "its age is brought along");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_may() {
        let waiters = ProfileWaiters::new(1);
        let ask = || waiters.join("work", &Request::new(), (Class::default(), NONE));
        let (first, second) = (ask().expect("there is room"), ask().expect("there is room"));
        assert_eq!(ask().err(), Some(2));
        // One that was given the profile waits for the pool, which has a limit of its own.
        let taken = first.take().expect("nobody else has it");
        let third = ask().expect("there is room again");
        drop((first, taken, second, third));
        assert!(waiters.all().is_empty());
    }
}
