use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{Acquired, Asked, Effects, Grant, Job, Return, SlotRef, State};
use crate::error::SharedError;
use crate::{
    AcquireError, Class, CloseReason, Config, Counters, Limits, ResourceId, ResourceState,
};

/// A resource that counts its own kind, so that a lost one is found.
#[derive(Debug)]
pub(super) struct Toy {
    id: ResourceId,
    _alive: Arc<()>,
}

/// A request that has no answer yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) waiter: usize,
    pub(super) class: usize,
    /// When it is deemed to have come, then its number: the order of service.
    pub(super) rank: (Instant, u64),
    expires_at: Option<Instant>,
}

/// What the engine wants done, and has not been done yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) slot: SlotRef,
    pub(super) class: usize,
    pub(super) work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    Create,
    Recycle(Toy),
    Check(Toy),
    Close(Toy),
    Revoke,
}

/// The engine, and beside it a naive account of what it should be like: plain lists, searched
/// from end to end. Every call is followed by a comparison of the two.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) state: State<Toy>,
    pub(super) now: Instant,
    config: Config,
    /// One part each, but the first.
    classes: Vec<Class>,
    limits: Vec<Limits>,
    asked: u64,
    pub(super) waiting: Vec<Ask>,
    /// Answered with a grant, and not fetched.
    pub(super) granted: Vec<Ask>,
    /// Answered with an error, and not fetched.
    pub(super) failed: Vec<Ask>,
    pub(super) leases: Vec<(usize, Grant<Toy>)>,
    /// Revoked in the hands of their holder, or on their way to it.
    revoked: Vec<ResourceId>,
    pub(super) pending: Vec<Pending>,
    idle: BTreeMap<ResourceId, usize>,
    /// When each resource last came out of a lease, a recycling or its creation.
    used: BTreeMap<ResourceId, Instant>,
    counters: Counters,
    /// How many resources there may be: `max_size`, or what was left when that shrank.
    ceiling: usize,
    draining: bool,
    alive: Arc<()>,
}

impl Rig {
    pub(super) fn new(mut config: Config, class_count: usize) -> Self {
        config.seed = Some(7);
        let now = Instant::now();
        let mut classes = vec![Class::default()];
        for name in 1..class_count {
            let mut class = Class::default();
            class.insert("class", name.to_string());
            classes.push(class);
        }
        let mut limits = vec![Limits::default(); class_count];
        limits[0].min = Some(config.min_size);
        let mut rig = Self {
            state: State::new(config.clone(), now),
            now,
            ceiling: config.max_size,
            config,
            classes,
            limits,
            asked: 0,
            waiting: Vec::new(),
            granted: Vec::new(),
            failed: Vec::new(),
            leases: Vec::new(),
            revoked: Vec::new(),
            pending: Vec::new(),
            idle: BTreeMap::new(),
            used: BTreeMap::new(),
            counters: Counters::default(),
            draining: false,
            alive: Arc::new(()),
        };
        rig.call(|state, now, fx| state.start(now, fx));
        rig
    }

    /// One call of the engine, its effects put into the account, and the two compared.
    fn call<T>(
        &mut self,
        method: impl FnOnce(&mut State<Toy>, Instant, &mut Effects<Toy>) -> T,
    ) -> T {
        let mut fx = Effects::default();
        let out = method(&mut self.state, self.now, &mut fx);
        self.state.check();
        self.state.take_rearm();
        drop(fx.drop.take());
        for job in fx.jobs {
            self.take_on(job);
        }
        if fx.drained {
            assert!(self.draining && self.state.is_drained(), "drained, but not empty");
        }
        out
    }

    fn take_on(&mut self, job: Job<Toy>) {
        let (slot, meta, work) = match job {
            Job::Create { slot, meta } => (slot, meta, Work::Create),
            Job::Recycle { slot, meta, resource } => (slot, meta, Work::Recycle(resource)),
            Job::Check { slot, meta, resource } => (slot, meta, Work::Check(resource)),
            Job::Close { slot, meta, resource, .. } => (slot, meta, Work::Close(resource)),
            Job::Revoke { slot, meta } => (slot, meta, Work::Revoke),
        };
        assert_eq!(slot.id, meta.id);
        let class = self.classes.iter().position(|class| *class == meta.class);
        let class = class.expect("only classes of this test exist");
        let busy = self.pending.iter().any(|pending| pending.slot.id == slot.id);
        assert!(!busy, "resource {} has two jobs at once", slot.id);
        match &work {
            Work::Create | Work::Revoke => {}
            Work::Recycle(toy) | Work::Check(toy) | Work::Close(toy) => {
                assert_eq!(toy.id, slot.id, "a job got another's resource");
            }
        }
        if matches!(work, Work::Revoke) {
            self.counters.revoked += 1;
            self.revoked.push(slot.id);
        }
        self.pending.push(Pending { slot, class, work });
    }

    // ---- what callers do ----

    pub(super) fn acquire(&mut self, class: usize, handicap: Duration, nowait: bool) {
        let had_idle = self.idle.values().any(|held| *held == class);
        let name = self.classes[class].clone();
        let clock = State::<Toy>::needs_clock(&self.config);
        let quiet = self.call(|state, now, _| {
            state.lease_quietly(&name, Location::caller(), clock.then_some(now))
        });
        if let Some(grant) = quiet {
            assert!(had_idle && self.waiting.is_empty(), "leased past those who wait");
            self.counters.acquired += 1;
            self.lease(class, grant);
            return self.compare();
        }
        let expires_at = self.config.acquire_timeout.map(|limit| self.now + limit);
        let expires_at = expires_at.filter(|_| !nowait);
        let mut waker = Some(Waker::noop().clone());
        let mut asked = Asked {
            class: &name,
            limits: None,
            handicap,
            priority: None,
            nowait,
            expires_at,
            acquired_at: Location::caller(),
        };
        let mut answer = self.call(|state, now, fx| state.acquire(&asked, &mut waker, now, fx));
        if matches!(answer, Acquired::UnknownClass) {
            asked.limits = Some(Some(self.limits[class]));
            answer = self.call(|state, now, fx| state.acquire(&asked, &mut waker, now, fx));
        }
        match answer {
            Acquired::Granted(grant) => {
                assert!(had_idle, "granted at once, but none of its class was idle");
                self.counters.acquired += 1;
                self.lease(class, grant);
            }
            Acquired::Queued(waiter) => {
                assert!(!self.draining, "queued by a pool that drains");
                let rank = (self.now + handicap, self.asked);
                self.waiting.push(Ask { waiter, class, rank, expires_at });
            }
            Acquired::Refused(error) => match error {
                AcquireError::Closed => {
                    assert!(self.draining, "closed, but it does not drain");
                    self.counters.errors += 1;
                }
                AcquireError::QueueFull { .. } => {
                    assert!(self.waiting.len() >= self.config.max_waiting, "the queue has room");
                    assert!(!had_idle, "it would only have waited for a check");
                    self.counters.rejected += 1;
                }
                AcquireError::Timeout { .. } => {
                    assert!(nowait, "timed out at once, but it could wait");
                    self.counters.timeouts += 1;
                }
                AcquireError::Unavailable { .. } => self.counters.errors += 1,
                AcquireError::Rejected(_) => panic!("no policy is here"),
            },
            Acquired::UnknownClass | Acquired::NeedsWaker => panic!("both were given"),
        }
        self.asked += 1;
        self.compare();
    }

    fn lease(&mut self, class: usize, grant: Grant<Toy>) {
        assert_eq!(grant.meta.class, self.classes[class], "leased to the wrong class");
        assert_eq!(grant.resource.id, grant.slot.id, "leased the wrong resource");
        let twice = self.leases.iter().any(|(_, held)| held.slot.id == grant.slot.id);
        assert!(!twice, "resource {} was leased twice at once", grant.slot.id);
        self.leases.push((class, grant));
    }

    /// The caller comes to look for its answer.
    pub(super) fn poll(&mut self, ask: Ask) {
        let (answer, unused) =
            self.call(|state, _, _| state.watch(ask.waiter, Waker::noop().clone()));
        drop(unused);
        match answer {
            None => assert!(self.waits(ask), "answered, but it is not told"),
            Some(answer) => self.fetched(ask, answer),
        }
        self.compare();
    }

    /// The caller's time is up.
    pub(super) fn expire(&mut self, ask: Ask) {
        let waited = self.waits(ask);
        let answer = self.call(|state, now, fx| state.expire(ask.waiter, now, fx));
        if waited {
            assert!(matches!(answer, Err(AcquireError::Timeout { .. })));
            self.counters.timeouts += 1;
            self.waiting.retain(|held| held.waiter != ask.waiter);
        } else {
            self.fetched(ask, answer);
        }
        self.compare();
    }

    fn fetched(&mut self, ask: Ask, answer: Result<Grant<Toy>, AcquireError>) {
        match answer {
            Ok(grant) => {
                self.counters.acquired += 1;
                self.counters.waited += grant.waited;
                self.granted.retain(|held| held.waiter != ask.waiter);
                self.lease(ask.class, grant);
            }
            Err(_) => self.failed.retain(|held| held.waiter != ask.waiter),
        }
    }

    pub(super) fn cancel(&mut self, ask: Ask) {
        if !self.failed.iter().any(|held| held.waiter == ask.waiter) {
            self.counters.cancelled += 1;
        }
        self.call(|state, now, fx| state.cancel(ask.waiter, now, fx));
        for list in [&mut self.waiting, &mut self.granted, &mut self.failed] {
            list.retain(|held| held.waiter != ask.waiter);
        }
        self.compare();
    }

    pub(super) fn release(&mut self, at: usize, how: Return) {
        let (_, grant) = self.leases.remove(at);
        self.counters.released += 1;
        self.used.insert(grant.slot.id, self.now);
        self.revoked.retain(|id| *id != grant.slot.id);
        let Grant { slot, mut resource, .. } = grant;
        if how == Return::Judged(crate::Verdict::Keep) {
            match self.call(|state, now, _| state.release_quietly(slot, resource, now)) {
                Ok(()) => return self.compare(),
                Err(unquiet) => resource = unquiet,
            }
        }
        self.call(|state, now, fx| state.release(slot, resource, how, now, fx));
        self.compare();
    }

    // ---- what tasks report ----

    pub(super) fn finish(&mut self, at: usize, ok: bool) {
        let Pending { slot, work, .. } = self.pending.remove(at);
        let result = if ok { Ok(()) } else { Err(broken()) };
        match work {
            Work::Create if ok => {
                self.counters.created += 1;
                self.used.insert(slot.id, self.now);
                let toy = Toy { id: slot.id, _alive: Arc::clone(&self.alive) };
                self.call(|state, now, fx| state.created(slot, toy, now, fx));
            }
            Work::Create => {
                self.counters.create_failed += 1;
                self.call(|state, now, fx| state.create_failed(slot, broken(), now, fx));
            }
            Work::Recycle(toy) => {
                self.used.insert(slot.id, self.now);
                self.counters.recycled += u64::from(ok);
                self.counters.recycle_failed += u64::from(!ok);
                self.call(|state, now, fx| state.recycled(slot, toy, result, now, fx));
            }
            Work::Check(toy) => {
                self.counters.checks += 1;
                self.counters.checks_failed += u64::from(!ok);
                self.call(|state, now, fx| state.checked(slot, toy, result, now, fx));
            }
            Work::Close(toy) => {
                drop(toy);
                self.closed(slot);
            }
            Work::Revoke => self.closed(slot),
        }
        self.compare();
    }

    fn closed(&mut self, slot: SlotRef) {
        self.counters.closed += 1;
        self.call(|state, now, fx| state.closed(slot, now, fx));
    }

    /// A task dies with its resource.
    pub(super) fn lose(&mut self, at: usize) {
        let Pending { slot, work, .. } = self.pending.remove(at);
        match work {
            Work::Create => self.counters.create_failed += 1,
            Work::Check(_) => {
                self.counters.checks += 1;
                self.counters.checks_failed += 1;
                self.counters.closed += 1;
            }
            Work::Recycle(_) => {
                self.counters.recycle_failed += 1;
                self.counters.closed += 1;
            }
            Work::Close(_) | Work::Revoke => self.counters.closed += 1,
        }
        drop(work);
        self.call(|state, now, fx| state.lost(slot, broken(), now, fx));
        self.compare();
    }

    // ---- what operators do ----

    pub(super) fn resize(&mut self, min: usize, max: usize) {
        self.call(|state, now, fx| state.resize(min, max, now, fx));
        self.config.max_size = max;
        self.limits[0].min = Some(min);
        self.compare();
    }

    pub(super) fn set_limits(&mut self, class: usize, limits: Limits) {
        let name = self.classes[class].clone();
        self.call(|state, now, fx| state.set_limits(&name, limits, now, fx));
        self.limits[class] = limits;
        self.compare();
    }

    pub(super) fn doom(&mut self, id: u64, reason: CloseReason) {
        let found = self.state.resources().into_iter().find(|held| held.id.get() == id);
        let Some(info) = found else { return };
        let doomed = self.call(|state, now, fx| state.doom(info.id, reason, now, fx));
        assert_eq!(doomed, info.state != ResourceState::Closing, "what is closing stays so");
        self.compare();
    }

    pub(super) fn flush_idle(&mut self) {
        let idle = self.idle.len();
        let flushed = self.call(State::flush_idle_now);
        assert_eq!(flushed, idle, "all that is idle is flushed");
        self.compare();
    }

    pub(super) fn drain(&mut self, grace: Option<Duration>) {
        self.draining = true;
        self.call(|state, now, fx| state.drain(grace, now, fx));
        self.compare();
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
        let next = self.call(|state, now, fx| state.tick(now, fx));
        assert!(next.is_none_or(|at| at > self.now), "a tick that asks for itself spins");
        self.compare();
        for (id, class) in &self.idle {
            let kept = self.limits[*class].min.unwrap_or(0) + self.limits[*class].warm.unwrap_or(0);
            if let (Some(limit), 0) = (self.config.max_idle_time, kept) {
                assert!(self.now - self.used[id] < limit, "resource {id} has idled too long");
            }
        }
        if self.config.health_check_interval.is_some() {
            let checking = self.state.load().checking;
            let unproven = self.state.unproven(self.now);
            assert!(checking > 0 || unproven == 0, "an idle resource is due, and none is checked");
        }
    }

    // ---- the comparison ----

    fn waits(&self, ask: Ask) -> bool {
        self.waiting.iter().any(|held| held.waiter == ask.waiter)
    }

    fn compare(&mut self) {
        self.sort_answers();
        self.compare_load();
        self.compare_queue();
        assert_eq!(self.state.stats(self.now).counters, self.counters, "counters");
        self.compare_limits();
    }

    /// Finds out who was answered, and that nobody better was passed over.
    fn sort_answers(&mut self) {
        let (kept, taken_back): (Vec<Ask>, Vec<Ask>) =
            self.granted.drain(..).partition(|ask| self.state.is_granted(ask.waiter));
        self.granted = kept;
        for ask in taken_back {
            let counter =
                if self.draining { &mut self.counters.errors } else { &mut self.counters.timeouts };
            *counter += 1;
            self.failed.push(ask);
        }
        let engine = self.state.waiting_ids();
        let (still, answered): (Vec<Ask>, Vec<Ask>) =
            self.waiting.drain(..).partition(|ask| engine.contains(&ask.waiter));
        self.waiting = still;
        for ask in answered {
            if self.state.is_granted(ask.waiter) {
                let passed_over = self
                    .waiting
                    .iter()
                    .find(|other| other.class == ask.class && other.rank < ask.rank);
                assert!(passed_over.is_none(), "{ask:?} was served before {passed_over:?}");
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
            let waiters = self.waiting.iter().filter(|held| held.class == ask.class).count();
            assert!(idle == 0 || checks.count() >= waiters, "{ask:?} waits beside an idle one");
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

    // ---- the end ----

    /// Ends all work well and gives everything back, until nobody waits.
    pub(super) fn serve_everyone(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "somebody waits for ever: {:?}", self.waiting);
            while !self.pending.is_empty() {
                self.finish(0, true);
            }
            for ask in [self.granted.clone(), self.failed.clone()].concat() {
                self.poll(ask);
            }
            while !self.leases.is_empty() {
                self.release(0, Return::Judged(crate::Verdict::Recycle));
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
    pub(super) fn end(mut self) {
        self.drain(Some(Duration::ZERO));
        self.advance(Duration::from_millis(1));
        while !self.pending.is_empty() {
            self.finish(0, true);
        }
        assert!(self.state.is_drained(), "something is left: {:?}", self.state.resources());
        while !self.leases.is_empty() {
            self.release(0, Return::Judged(crate::Verdict::Keep));
        }
        for ask in [self.granted.clone(), self.failed.clone()].concat() {
            self.cancel(ask);
        }
        assert_eq!(Arc::strong_count(&self.alive), 1, "a value outlived the pool");
    }
}

fn broken() -> SharedError {
    crate::shared::shared_error("told to fail")
}

/// What only tests look at.
impl State<Toy> {
    fn flush_idle_now(&mut self, now: Instant, fx: &mut Effects<Toy>) -> usize {
        self.flush_idle(now, fx)
    }

    fn waiting_ids(&self) -> Vec<usize> {
        self.classes.iter().flat_map(|(_, class)| class.waiters.iter(&self.waiters)).collect()
    }

    /// Idle resources whose last proof of life is too old.
    fn unproven(&self, now: Instant) -> usize {
        let due = |proven_at: Instant| {
            self.config.health_check_interval.is_some_and(|every| now - proven_at >= every)
        };
        let slots = self.slots.iter().filter(|(_, slot)| slot.state.kind() == ResourceState::Idle);
        slots.filter(|(_, slot)| due(slot.proven_at)).count()
    }

    fn is_granted(&self, waiter: usize) -> bool {
        matches!(self.waiters[waiter].state, crate::engine::waiter::WaiterState::Granted(_))
    }
}
