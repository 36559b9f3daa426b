//! The comparison of the engine with the account, and the end of both.

use std::sync::Arc;
use std::time::Duration;

use super::{Ask, Rig, Toy, Work};
use crate::engine::{Return, State, Ticket};
use crate::{ResourceState, Verdict};

impl Rig {
    pub(super) fn compare(&mut self) {
        self.sort_answers();
        self.compare_load();
        self.compare_queue();
        assert_eq!(self.state.stats(self.now).counters, self.counters, "counters");
        self.compare_limits();
        self.compare_groups();
    }

    /// Finds out who was answered, and that nobody better was passed over.
    fn sort_answers(&mut self) {
        let (kept, taken_back): (Vec<Ask>, Vec<Ask>) =
            self.granted.drain(..).partition(|ask| ask.ticket.unfetched().is_some());
        self.granted = kept;
        for ask in taken_back {
            let counter =
                if self.draining { &mut self.counters.errors } else { &mut self.counters.timeouts };
            *counter += 1;
            self.failed.push(ask);
        }
        let (still, answered): (Vec<Ask>, Vec<Ask>) =
            self.waiting.drain(..).partition(|ask| self.state.queues(&ask.ticket));
        self.waiting = still;
        for ask in answered {
            if ask.ticket.unfetched().is_some() {
                let passed_over = self.waiting.iter().find(|other| {
                    (other.class, other.group) == (ask.class, ask.group) && other.rank < ask.rank
                });
                assert!(passed_over.is_none(), "{ask:?} was served before {passed_over:?}");
                self.groups.served(ask.class, ask.group);
                self.granted.push(ask);
            } else {
                let late = ask.expires_at.is_some_and(|at| at <= self.now) && !self.draining;
                *if late { &mut self.counters.timeouts } else { &mut self.counters.errors } += 1;
                self.failed.push(ask);
            }
        }
    }

    fn compare_load(&mut self) {
        self.idle.clear();
        for info in self.state.resources() {
            if info.state == ResourceState::Idle {
                let class = self.classes.iter().position(|class| *class == info.class);
                self.idle.insert(info.id, class.expect("only classes of this test exist"));
            }
        }
        let load = self.state.load();
        let jobs = |kind: fn(&Work) -> bool| {
            self.pending.iter().filter(|pending| kind(&pending.work)).count()
        };
        assert_eq!(load.creating, jobs(|work| matches!(work, Work::Create)), "creating");
        assert_eq!(load.recycling, jobs(|work| matches!(work, Work::Recycle(_))), "recycling");
        assert_eq!(load.checking, jobs(|work| matches!(work, Work::Check(_))), "checking");
        let closing = jobs(|work| matches!(work, Work::Close(_) | Work::Revoke));
        assert_eq!(load.closing, closing, "closing");
        let held = self.leases.iter().filter(|(_, held)| !self.revoked.contains(&held.slot.id));
        assert_eq!(load.leased, held.count() + self.granted.len(), "leased");
        assert_eq!(load.waiting, self.waiting.len(), "waiting");
        // Every value is somewhere: idle, with a job, with a holder, or on its way to one.
        let with_jobs = self
            .pending
            .iter()
            .filter(|held| !matches!(held.work, Work::Create | Work::Revoke))
            .count();
        let alive = Arc::strong_count(&self.alive) - 1;
        let known = self.idle.len() + with_jobs + self.leases.len() + self.granted.len();
        assert_eq!(alive, known, "a value was lost or kept");
    }

    fn compare_queue(&self) {
        let mut expected = self.waiting.clone();
        expected.sort_by_key(|ask| ask.rank);
        let expected: Vec<_> = expected.iter().map(|ask| self.classes[ask.class].clone()).collect();
        let queue: Vec<_> =
            self.state.waiters(self.now).into_iter().map(|info| info.class).collect();
        assert_eq!(queue, expected, "the order of the queue");
        for ask in &self.waiting {
            let idle = self.idle.values().filter(|class| **class == ask.class).count();
            let checks = self
                .pending
                .iter()
                .filter(|held| held.class == ask.class && matches!(held.work, Work::Check(_)));
            let served = checks.count() >= self.ready(ask.class) || self.room(ask.group) == 0;
            assert!(idle == 0 || served, "{ask:?} waits beside an idle one");
        }
    }

    fn compare_limits(&mut self) {
        let load = self.state.load();
        self.ceiling = self.config.max_size.max(self.ceiling.min(load.total()));
        assert!(
            load.total() <= self.ceiling,
            "{} resources, {} allowed",
            load.total(),
            self.ceiling
        );
        assert!(load.creating <= self.config.max_creating, "more creations than allowed");
    }

    /// Ends all work well and gives everything back, until nobody waits.
    pub(crate) fn serve_everyone(&mut self) {
        // Nothing may ever be made for them.
        for ask in self.waiting.clone().iter().filter(|ask| !ask.creates) {
            self.cancel(ask);
        }
        for round in 0.. {
            assert!(round < 10_000, "somebody waits for ever: {:?}", self.waiting);
            while !self.pending.is_empty() {
                self.finish(0, true);
            }
            for ask in [self.granted.clone(), self.failed.clone()].concat() {
                self.poll(&ask);
            }
            while !self.leases.is_empty() {
                self.release(0, Return::Judged(Verdict::Recycle));
            }
            if self.waiting.is_empty() && self.pending.is_empty() && self.granted.is_empty() {
                return;
            }
            if self.pending.is_empty() {
                self.advance(Duration::from_secs(1));
            }
        }
    }

    /// Drains it to nothing.
    pub(crate) fn end(mut self) {
        self.drain(Some(Duration::ZERO));
        self.advance(Duration::from_millis(1));
        while !self.pending.is_empty() {
            self.finish(0, true);
        }
        assert!(self.state.is_drained(), "something is left: {:?}", self.state.resources());
        while !self.leases.is_empty() {
            self.release(0, Return::Judged(Verdict::Keep));
        }
        for ask in [self.granted.clone(), self.failed.clone()].concat() {
            self.cancel(&ask);
        }
        assert_eq!(Arc::strong_count(&self.alive), 1, "a value outlived the pool");
    }
}

/// Accessors for tests only.
impl State<Toy> {
    fn queues(&self, ticket: &Arc<Ticket<Toy>>) -> bool {
        self.waiters.iter().any(|(_, waiter)| Arc::ptr_eq(&waiter.ticket, ticket))
    }
}
