//! The engine on a bench: one method for each thing that happens to it.

mod account;
mod callers;
mod groups;
mod operators;
mod tasks;
mod time;

pub(crate) use callers::Asking;

use std::collections::BTreeMap;
use std::sync::Arc;

use groups::Parties;
use tokio::time::Instant;

use crate::engine::{Effects, Job, Pooled, SlotRef, State, Ticket};
use crate::error::SharedError;
use crate::{Class, Config, Counters, Limits, ResourceId};

/// A resource that counts its own kind, so that a lost one is found.
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
    /// When it is deemed to have come, then its number: the order of service.
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

/// The engine, and beside it a naive account of what it should be like: plain lists, searched
/// from end to end. Every call is followed by a comparison of the two.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) state: State<Toy>,
    pub(crate) now: Instant,
    config: Config,
    /// One part each, but the first.
    classes: Vec<Class>,
    limits: Vec<Limits>,
    groups: Parties,
    asked: u64,
    /// The class of a request that something may be created for, while the engine is asked.
    asking: Option<usize>,
    pub(crate) waiting: Vec<Ask>,
    /// Answered with a grant, and not fetched.
    pub(crate) granted: Vec<Ask>,
    /// Answered with an error, and not fetched.
    pub(crate) failed: Vec<Ask>,
    pub(crate) leases: Vec<(usize, Box<Pooled<Toy>>)>,
    /// Revoked in the hands of their holder, or on their way to it.
    revoked: Vec<ResourceId>,
    pub(crate) pending: Vec<Pending>,
    idle: BTreeMap<ResourceId, usize>,
    /// When each resource last came out of a lease, a recycling or its creation.
    used: BTreeMap<ResourceId, Instant>,
    /// When the creation of each ended.
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
    /// A creation is for a minimum, or for a request that something may be created for.
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
    crate::shared::shared_error("told to fail")
}
