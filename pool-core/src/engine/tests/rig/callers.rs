//! Actions of callers.

use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::{Ask, Rig, Toy};
use crate::engine::{Acquired, Answer, Asked, Pooled, Return, State, Ticket};
use crate::{AcquireError, Labels, Verdict};

/// A request, as it is put to the engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    pub(crate) class: usize,
    pub(crate) group: Option<usize>,
    pub(crate) handicap: Duration,
    pub(crate) waited: Duration,
    pub(crate) creates: bool,
    pub(crate) nowait: bool,
}

impl Rig {
    pub(crate) fn acquire(&mut self, asking: Asking) {
        let Asking { class, group, handicap, waited, creates, nowait } = asking;
        let plain = waited.is_zero() && group.is_none();
        let over = group.is_some_and(|group| self.room(Some(group)) == 0);
        let of_group = group.map(|group| self.groups.group(group));
        let had_idle = self.idle.values().any(|held| *held == class);
        let name = self.classes[class].clone();
        let clock = State::<Toy>::needs_clock(&self.config);
        let quiet = self.call(|state, now, _| {
            let now = clock.then_some(now);
            plain.then(|| state.lease_quietly(&name, Location::caller(), now)).flatten()
        });
        if let Some(pooled) = quiet {
            assert!(had_idle && self.waiting.is_empty(), "leased past those who wait");
            self.counters.acquired += 1;
            self.lease(class, None, pooled);
            return self.compare();
        }
        let expires_at = self.config.acquire_timeout.map(|limit| self.now + limit);
        let expires_at = expires_at.filter(|_| !nowait);
        let mut asked = Asked {
            class: &name,
            limits: None,
            handicap,
            group: of_group.as_ref(),
            labels: &Labels::default(),
            waited,
            creates,
            priority: None,
            nowait,
            expires_at,
            acquired_at: Location::caller(),
        };
        let ticket = Arc::new(Ticket::new(&asked, self.now, Waker::noop().clone()));
        self.asking = creates.then_some(class);
        let mut answer = self.call(|state, now, fx| state.acquire(&asked, Some(&ticket), now, fx));
        if matches!(answer, Acquired::UnknownClass) {
            asked.limits = Some(Some(self.limits[class]));
            answer = self.call(|state, now, fx| state.acquire(&asked, Some(&ticket), now, fx));
        }
        self.asking = None;
        match answer {
            Acquired::Granted(pooled) => {
                assert!(had_idle, "granted at once, but none of its class was idle");
                self.counters.acquired += 1;
                self.counters.waited += waited;
                self.lease(class, group, pooled);
            }
            Acquired::Queued(waiter) => {
                assert!(!self.draining, "queued by a pool that drains");
                let rank = (self.now + handicap - waited, self.asked);
                self.waiting.push(Ask { waiter, ticket, class, group, rank, expires_at, creates });
            }
            Acquired::Refused(error) => match *error {
                AcquireError::Closed => {
                    assert!(self.draining, "closed, but it does not drain");
                    self.counters.errors += 1;
                }
                AcquireError::QueueFull { .. } => {
                    assert!(self.waiting.len() >= self.config.max_waiting, "the queue has room");
                    assert!(!had_idle || over, "it would only have waited for a check");
                    self.counters.rejected += 1;
                }
                AcquireError::Timeout { .. } => {
                    assert!(nowait, "timed out at once, but it could wait");
                    self.counters.timeouts += 1;
                }
                AcquireError::GroupFull { .. } => {
                    assert!(nowait && over, "its group has room, or it could wait");
                    self.counters.timeouts += 1;
                }
                AcquireError::GroupQueueFull { group: told } => {
                    let waiting = self.waiting.iter().filter(|ask| ask.group == group).count();
                    assert!(told.max_waiting.is_some_and(|max| waiting >= max), "it has room");
                    assert_eq!(told.waiting, waiting, "waiters of the group");
                    assert!(!had_idle || over, "it would only have waited for a check");
                    self.counters.rejected += 1;
                }
                AcquireError::Unavailable { .. } => self.counters.errors += 1,
                AcquireError::Rejected(_) => panic!("no policy is here"),
            },
            Acquired::UnknownClass | Acquired::NeedsTicket => panic!("both were given"),
        }
        self.asked += 1;
        self.compare();
    }

    fn lease(&mut self, class: usize, group: Option<usize>, pooled: Box<Pooled<Toy>>) {
        assert_eq!(pooled.meta.class, self.classes[class], "leased to the wrong class");
        assert_eq!(pooled.resource.id, pooled.slot.id, "leased the wrong resource");
        let twice = self.leases.iter().any(|(_, held)| held.slot.id == pooled.slot.id);
        assert!(!twice, "resource {} was leased twice at once", pooled.slot.id);
        let max = self.config.max_use_count.unwrap_or(u64::MAX);
        assert!(pooled.meta.uses <= max, "resource {} was leased too often", pooled.slot.id);
        self.groups.leases.insert(pooled.slot.id, group);
        self.leases.push((class, pooled));
    }

    /// Lets the caller look for its answer.
    pub(crate) fn poll(&mut self, ask: &Ask) {
        match ask.ticket.poll(Waker::noop()) {
            None => assert!(self.waiting.contains(ask), "answered, but it is not told"),
            Some(answer) => self.fetched(ask, answer),
        }
        self.compare();
    }

    /// Lets the caller's time run out.
    pub(crate) fn expire(&mut self, ask: &Ask) {
        let waited = self.waiting.contains(ask);
        let answer = self.call(|state, now, fx| state.expire(ask.waiter, &ask.ticket, now, fx));
        if waited {
            let full = self.room(ask.group) == 0;
            match answer.expect_err("it still waited").as_ref() {
                AcquireError::Timeout { .. } => assert!(!full, "its group was full"),
                AcquireError::GroupFull { .. } => assert!(full, "its group had room"),
                error => panic!("not out of time: {error}"),
            }
            self.counters.timeouts += 1;
            self.waiting.retain(|held| held != ask);
        } else {
            self.fetched(ask, answer);
        }
        self.compare();
    }

    fn fetched(&mut self, ask: &Ask, answer: Answer<Toy>) {
        match answer {
            Ok(pooled) => {
                self.counters.acquired += 1;
                self.counters.waited += pooled.waited;
                self.granted.retain(|held| held != ask);
                self.lease(ask.class, ask.group, pooled);
            }
            Err(_) => self.failed.retain(|held| held != ask),
        }
    }

    pub(crate) fn cancel(&mut self, ask: &Ask) {
        let failed = self.failed.contains(ask);
        self.counters.cancelled += u64::from(!failed);
        let error = self.call(|state, now, fx| state.cancel(ask.waiter, &ask.ticket, now, fx));
        assert_eq!(error.is_some(), failed, "only who failed has an error");
        for list in [&mut self.waiting, &mut self.granted, &mut self.failed] {
            list.retain(|held| held != ask);
        }
        self.compare();
    }

    pub(crate) fn release(&mut self, at: usize, how: Return) {
        let (_, mut pooled) = self.leases.remove(at);
        self.groups.leases.remove(&pooled.slot.id);
        self.counters.released += 1;
        if how != Return::Untouched {
            self.used.insert(pooled.slot.id, self.now);
        }
        self.revoked.retain(|id| *id != pooled.slot.id);
        if how == Return::Judged(Verdict::Keep) {
            match self.call(|state, now, _| state.release_quietly(pooled, now)) {
                Ok(()) => return self.compare(),
                Err(unquiet) => pooled = unquiet,
            }
        }
        self.call(|state, now, fx| state.release(pooled, how, now, fx));
        self.compare();
    }
}
