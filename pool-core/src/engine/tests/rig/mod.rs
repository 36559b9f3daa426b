//! A test rig for the engine, with one method for each thing that can happen to it.

mod account;

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use account::Parties;
use tokio::time::Instant;

use crate::engine::slot::SlotState;
use crate::engine::{
    Acquired, Answer, Asked, Effects, Job, Pooled, Return, SlotRef, State, Ticket,
};
use crate::error::{SharedError, shared_error};
use crate::{
    AcquireError, Class, CloseReason, Config, Counters, Labels, Limits, ResourceId, ResourceState,
    Verdict,
};

/// A resource that counts its instances, so that a lost one is noticed.
#[derive(Debug)]
pub(crate) struct Toy {
    id: ResourceId,
    _alive: Arc<()>,
}

/// A request whose answer has not been fetched yet.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    waiter: usize,
    ticket: Arc<Ticket<Toy>>,
    pub(crate) class: usize,
    group: Option<usize>,
    /// The time at which it counts as having come, then its number: the order of service.
    pub(crate) rank: (Instant, u64),
    expires_at: Option<Instant>,
    /// A resource may be created for it.
    creates: bool,
}

impl PartialEq for Ask {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ticket, &other.ticket)
    }
}

/// Work requested by the engine and not done yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) slot: SlotRef,
    pub(crate) class: usize,
    pub(crate) work: Work,
}

#[derive(Debug)]
pub(crate) enum Work {
    Create,
    Recycle(Box<Pooled<Toy>>),
    Check(Box<Pooled<Toy>>),
    Close(Box<Pooled<Toy>>),
    Revoke,
}

/// The engine, and a naive account of what its state should be: plain lists, searched from end to
/// end. The two are compared after every call.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) state: State<Toy>,
    pub(crate) now: Instant,
    config: Config,
    /// The first is the default class; each of the others has one part.
    classes: Vec<Class>,
    limits: Vec<Limits>,
    groups: Parties,
    asked: u64,
    /// The class of the request being put to the engine, if a resource may be created for it.
    asking: Option<usize>,
    pub(crate) waiting: Vec<Ask>,
    /// Answered with a grant that has not been fetched.
    pub(crate) granted: Vec<Ask>,
    /// Answered with an error that has not been fetched.
    pub(crate) failed: Vec<Ask>,
    pub(crate) leases: Vec<(usize, Box<Pooled<Toy>>)>,
    /// Revoked in the hands of their holder, or on their way to it.
    revoked: Vec<ResourceId>,
    pub(crate) pending: Vec<Pending>,
    idle: BTreeMap<ResourceId, usize>,
    /// The time at which each resource last came out of a lease, a recycling or its creation.
    used: BTreeMap<ResourceId, Instant>,
    /// The time at which the creation of each ended.
    made: BTreeMap<ResourceId, Instant>,
    counters: Counters,
    /// Maximum number of resources: `max_size`, or what was left when that shrank.
    ceiling: usize,
    draining: bool,
    alive: Arc<()>,
}

impl Rig {
    pub(crate) fn new(mut config: Config, class_count: usize, group_count: usize) -> Self {
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
            groups: Parties::new(group_count),
            asked: 0,
            asking: None,
            waiting: Vec::new(),
            granted: Vec::new(),
            failed: Vec::new(),
            leases: Vec::new(),
            revoked: Vec::new(),
            pending: Vec::new(),
            idle: BTreeMap::new(),
            used: BTreeMap::new(),
            made: BTreeMap::new(),
            counters: Counters::default(),
            draining: false,
            alive: Arc::new(()),
        };
        rig.call(|state, now, fx| state.start(now, fx));
        rig
    }

    /// Calls the engine once, enters its effects into the account, and compares the two.
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
            Job::Recycle(pooled) => (pooled.slot, pooled.meta.clone(), Work::Recycle(pooled)),
            Job::Check(pooled) => (pooled.slot, pooled.meta.clone(), Work::Check(pooled)),
            Job::Close(pooled, _) => (pooled.slot, pooled.meta.clone(), Work::Close(pooled)),
            Job::Revoke { slot, meta } => (slot, meta, Work::Revoke),
        };
        assert_eq!(slot.id, meta.id);
        let class = self.classes.iter().position(|class| *class == meta.class);
        let class = class.expect("only classes of this test exist");
        let busy = self.pending.iter().any(|pending| pending.slot.id == slot.id);
        assert!(!busy, "resource {} has two jobs at once", slot.id);
        match &work {
            Work::Create | Work::Revoke => {}
            Work::Recycle(pooled) | Work::Check(pooled) | Work::Close(pooled) => {
                assert_eq!(pooled.resource.id, slot.id, "a job got another's resource");
            }
        }
        if matches!(work, Work::Create) {
            self.is_called_for(class);
        }
        if matches!(work, Work::Revoke) {
            self.counters.revoked += 1;
            self.revoked.push(slot.id);
        }
        self.pending.push(Pending { slot, class, work });
    }
}

impl Rig {
    /// Asserts that a creation is for a minimum, or for a request that allows one.
    fn is_called_for(&self, class: usize) {
        let kept = self.limits[class].min.unwrap_or(0) + self.limits[class].warm.unwrap_or(0);
        let asked = self.waiting.iter().any(|ask| ask.class == class && ask.creates);
        assert!(
            kept > 0 || asked || self.asking == Some(class),
            "created for nobody of class {class}"
        );
    }
}

fn broken() -> SharedError {
    shared_error("told to fail")
}

/// Reports of tasks.
impl Rig {
    pub(crate) fn finish(&mut self, at: usize, ok: bool) {
        let Pending { slot, work, .. } = self.pending.remove(at);
        let result = if ok { Ok(()) } else { Err(broken()) };
        match work {
            Work::Create if ok => {
                self.counters.created += 1;
                self.used.insert(slot.id, self.now);
                self.made.insert(slot.id, self.now);
                let toy = Toy { id: slot.id, _alive: Arc::clone(&self.alive) };
                self.call(|state, now, fx| state.created(slot, toy, now, fx));
            }
            Work::Create => {
                self.counters.create_failed += 1;
                self.call(|state, now, fx| state.create_failed(slot, broken(), now, fx));
            }
            Work::Recycle(pooled) => {
                self.used.insert(slot.id, self.now);
                self.counters.recycled += u64::from(ok);
                self.counters.recycle_failed += u64::from(!ok);
                self.call(|state, now, fx| state.recycled(pooled, result, now, fx));
            }
            Work::Check(pooled) => {
                self.counters.checks += 1;
                self.counters.checks_failed += u64::from(!ok);
                self.call(|state, now, fx| state.checked(pooled, result, now, fx));
            }
            Work::Close(pooled) => {
                drop(pooled);
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

    /// Loses a task together with its resource.
    pub(crate) fn lose(&mut self, at: usize) {
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
}

/// Actions of operators and drivers.
impl Rig {
    pub(crate) fn resize(&mut self, min: usize, max: usize) {
        self.limits[0].min = Some(min);
        self.call(|state, now, fx| state.resize(min, max, now, fx));
        self.config.max_size = max;
        self.compare();
    }

    pub(crate) fn set_limits(&mut self, class: usize, limits: Limits) {
        let name = self.classes[class].clone();
        self.limits[class] = limits;
        self.call(|state, now, fx| state.set_limits(&name, limits, now, fx));
        self.compare();
    }

    pub(crate) fn doom(&mut self, id: u64, reason: CloseReason) {
        let found = self.state.resources().into_iter().find(|held| held.id.get() == id);
        let Some(info) = found else { return };
        let doomed = self.call(|state, now, fx| state.doom(info.id, reason, now, fx));
        assert_eq!(doomed, info.state != ResourceState::Closing, "what is closing stays so");
        self.compare();
    }

    pub(crate) fn flush_idle(&mut self) {
        let idle = self.idle.len();
        let flushed = self.call(|state, now, fx| state.flush_idle(now, fx));
        assert_eq!(flushed, idle, "all that is idle is flushed");
        self.compare();
    }

    pub(crate) fn drain(&mut self, grace: Option<Duration>) {
        self.draining = true;
        self.call(|state, now, fx| state.drain(grace, now, fx));
        self.compare();
    }
}

/// The clock, and what must have happened by now.
impl Rig {
    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
        if self.config.hold_limit.is_some() {
            self.groups.begin_anew();
        }
        let next = self.call(|state, now, fx| state.tick(now, fx));
        assert!(next.is_none_or(|at| at > self.now), "a tick that asks for itself spins");
        self.compare();
        self.nothing_idles_too_long();
        self.nothing_is_too_old();
        self.nobody_holds_too_long();
        self.nobody_waits_too_long();
        self.checks_are_on_time();
    }

    fn nothing_idles_too_long(&self) {
        for (id, class) in &self.idle {
            let kept = self.limits[*class].min.unwrap_or(0) + self.limits[*class].warm.unwrap_or(0);
            if let (Some(limit), 0) = (self.config.max_idle_time, kept) {
                assert!(self.now - self.used[id] < limit, "resource {id} has idled too long");
            }
        }
    }

    /// Asserts that no resource is older than allowed; an old one may stay for as long as its
    /// replacement may take.
    fn nothing_is_too_old(&self) {
        let Some(lifetime) = self.config.max_lifetime else { return };
        for id in self.idle.keys() {
            let end = self.made[id] + lifetime + self.config.create_timeout;
            assert!(self.now < end, "resource {id} is too old");
        }
    }

    fn nobody_holds_too_long(&self) {
        let Some(limit) = self.config.hold_limit else { return };
        for (_, pooled) in &self.leases {
            let leased_at = pooled.leased_at.expect("a hold limit needs the clock");
            let revoked = self.revoked.contains(&pooled.slot.id);
            assert!(revoked || self.now - leased_at < limit, "{} is overdue", pooled.slot.id);
        }
    }

    fn nobody_waits_too_long(&self) {
        let late = self.waiting.iter().find(|ask| ask.expires_at.is_some_and(|at| at <= self.now));
        assert!(late.is_none(), "{late:?} should have been told that its time is up");
    }

    fn checks_are_on_time(&self) {
        if self.config.health_check_interval.is_some() {
            let checking = self.state.load().checking;
            let unproven = self.state.unproven(self.now);
            assert!(checking > 0 || unproven == 0, "an idle resource is due, and none is checked");
        }
    }
}

/// Accessors for tests only.
impl State<Toy> {
    /// Idle resources whose last proof of life is too old.
    fn unproven(&self, now: Instant) -> usize {
        let due = |proven_at: Instant| {
            self.config.health_check_interval.is_some_and(|every| now - proven_at >= every)
        };
        let idle = self.slots.iter().filter_map(|(_, slot)| match &slot.state {
            SlotState::Idle(pooled) => Some(pooled),
            _ => None,
        });
        idle.filter(|pooled| due(pooled.proven_at)).count()
    }
}

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
