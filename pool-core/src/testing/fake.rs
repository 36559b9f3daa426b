use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::ledger::{Call, Ledger, Outcome, Step};
use crate::{Class, Driver, Meta, Reporter, ResourceId};

/// A driver whose every step does what a test tells it to, through its [`FakeControl`].
///
/// Unless it is told otherwise, it makes a [`FakeResource`] at once and never fails.
#[derive(Clone, Debug, Default)]
pub struct FakeDriver {
    control: FakeControl,
}

impl FakeDriver {
    /// Creates a driver with a control of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the handle that scripts and watches it.
    #[must_use]
    pub fn control(&self) -> FakeControl {
        self.control.clone()
    }

    async fn perform(&self, step: Step, meta: &Meta) -> Result<(), FakeError> {
        let entry = self.control.ledger.begin(step, meta);
        let mut behaviour = self.control.decide(step);
        if behaviour == Behaviour::Hold {
            behaviour = self.control.hold(step, meta.id).await;
        }
        let passes = match behaviour {
            // A held call that is released as `Hold` again has been told nothing else, so it
            // passes.
            Behaviour::Pass | Behaviour::Hold => true,
            Behaviour::Fail => false,
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Panic => panic!("{step} of resource {} was told to panic", meta.id),
            Behaviour::Take(time) => {
                tokio::time::sleep(time).await;
                true
            }
            Behaviour::FailAfter(time) => {
                tokio::time::sleep(time).await;
                false
            }
        };
        entry.end(if passes { Outcome::Done } else { Outcome::Failed });
        if passes { Ok(()) } else { Err(FakeError { step, id: meta.id }) }
    }
}

#[async_trait]
impl Driver for FakeDriver {
    type Spec = FakeSpec;
    type Resource = FakeResource;
    type Error = FakeError;

    async fn create(
        &self,
        spec: &FakeSpec,
        meta: &Meta,
        reporter: Reporter,
    ) -> Result<FakeResource, FakeError> {
        self.control.keep_reporter(meta.id, reporter);
        self.perform(Step::Create, meta).await?;
        Ok(FakeResource::new(meta, spec, &self.control.ledger))
    }

    async fn check(&self, resource: &mut FakeResource, meta: &Meta) -> Result<(), FakeError> {
        debug_assert_eq!(resource.id(), meta.id, "a check got the wrong meta");
        self.perform(Step::Check, meta).await
    }

    fn needs_recycle(&self, _: &FakeResource) -> bool {
        self.control.needs_recycle()
    }

    async fn recycle(&self, resource: &mut FakeResource, meta: &Meta) -> Result<(), FakeError> {
        debug_assert_eq!(resource.id(), meta.id, "a recycle got the wrong meta");
        self.perform(Step::Recycle, meta).await
    }

    async fn close(&self, resource: FakeResource, meta: &Meta) {
        debug_assert_eq!(resource.id(), meta.id, "a close got the wrong meta");
        // A close cannot fail, whatever it was told.
        let _ = self.perform(Step::Close, meta).await;
    }

    async fn revoke(&self, meta: &Meta) {
        let _ = self.perform(Step::Revoke, meta).await;
    }
}

/// Behaviour of a call to the [`FakeDriver`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behaviour {
    /// It succeeds, without yielding.
    #[default]
    Pass,
    /// It fails. A close or revoke cannot fail and passes.
    Fail,
    /// It never ends.
    Hang,
    /// It panics.
    Panic,
    /// It succeeds after this long.
    Take(Duration),
    /// It fails after this long.
    FailAfter(Duration),
    /// It stands at the gate until [`FakeControl::release`] or one of its siblings decides its
    /// outcome.
    Hold,
}

/// Scripts the calls to a [`FakeDriver`], and remembers their outcomes.
///
/// Clones control the same driver.
#[derive(Clone, Debug, Default)]
pub struct FakeControl {
    script: Arc<Mutex<Script>>,
    pub(super) ledger: Ledger,
}

#[derive(Debug, Default)]
struct Script {
    standing: BTreeMap<Step, Behaviour>,
    next: BTreeMap<Step, VecDeque<Behaviour>>,
    gates: BTreeMap<Step, VecDeque<Held>>,
    reporters: BTreeMap<ResourceId, Reporter>,
    skip_recycle: bool,
}

#[derive(Debug)]
struct Held {
    id: ResourceId,
    verdict: oneshot::Sender<Behaviour>,
}

impl Held {
    /// Lets the call continue. This wakes its task, so it must not be done under the lock. Returns
    /// `false` if the call was gone.
    fn go_on(self, behaviour: Behaviour) -> bool {
        self.verdict.send(behaviour).is_ok()
    }
}

impl FakeControl {
    fn script(&self) -> MutexGuard<'_, Script> {
        // If a test panicked while it held the script, that test has already failed.
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the behaviour of every call of a step from now on. Default: [`Behaviour::Pass`].
    pub fn set(&self, step: Step, behaviour: Behaviour) {
        self.script().standing.insert(step, behaviour);
    }

    /// Sets the behaviour of the next call of a step; calling it again queues one for the call
    /// after that.
    pub fn next(&self, step: Step, behaviour: Behaviour) {
        self.script().next.entry(step).or_default().push_back(behaviour);
    }

    /// Sets the answer of [`Driver::needs_recycle`]. Default: true.
    pub fn set_needs_recycle(&self, needed: bool) {
        self.script().skip_recycle = !needed;
    }

    pub(super) fn needs_recycle(&self) -> bool {
        !self.script().skip_recycle
    }

    /// Returns the number of calls of a step that stand at the gate.
    #[must_use]
    pub fn held(&self, step: Step) -> usize {
        self.script().gate(step).len()
    }

    /// Returns the resources whose calls of a step stand at the gate, oldest first.
    #[must_use]
    pub fn held_ids(&self, step: Step) -> Vec<ResourceId> {
        self.script().gate(step).iter().map(|held| held.id).collect()
    }

    /// Lets the oldest call at the gate succeed; returns `false` if there was none.
    pub fn release(&self, step: Step) -> bool {
        self.release_as(step, Behaviour::Pass)
    }

    /// Gives the oldest call at the gate its behaviour; returns `false` if there was none.
    pub fn release_as(&self, step: Step, behaviour: Behaviour) -> bool {
        let held = self.script().gate(step).pop_front();
        held.is_some_and(|held| held.go_on(behaviour))
    }

    /// Gives one resource's call at the gate its behaviour; returns `false` if there was none.
    pub fn release_id(&self, step: Step, id: ResourceId, behaviour: Behaviour) -> bool {
        let held = {
            let mut script = self.script();
            let gate = script.gate(step);
            gate.iter().position(|held| held.id == id).and_then(|at| gate.remove(at))
        };
        held.is_some_and(|held| held.go_on(behaviour))
    }

    /// Opens the gate of a step for good: the calls at the gate and all later ones succeed.
    pub fn open(&self, step: Step) {
        self.set(step, Behaviour::Pass);
        while self.release(step) {}
    }

    /// Returns the reporter that a resource was given at its creation.
    #[must_use]
    pub fn reporter(&self, id: ResourceId) -> Option<Reporter> {
        self.script().reporters.get(&id).cloned()
    }

    /// Returns every call so far, in order.
    #[must_use]
    pub fn log(&self) -> Vec<Call> {
        self.ledger.log()
    }

    /// Returns the number of calls of a step that have begun.
    #[must_use]
    pub fn begun(&self, step: Step) -> usize {
        self.count(step, Outcome::Begun)
    }

    /// Returns the number of calls of a step that had this outcome.
    #[must_use]
    pub fn count(&self, step: Step, outcome: Outcome) -> usize {
        self.ledger.count(step, outcome)
    }

    /// Returns every resource that exists: from the beginning of its creation until its value is
    /// gone.
    #[must_use]
    pub fn existing(&self) -> BTreeSet<ResourceId> {
        self.ledger.existing()
    }

    /// Returns the largest number of resources that ever existed at the same time.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.ledger.peak()
    }

    /// Returns the resources whose value was dropped without a close or a revoke.
    #[must_use]
    pub fn dropped_unclosed(&self) -> BTreeSet<ResourceId> {
        self.ledger.unclosed()
    }

    /// Asserts that no resource was used by two at once, used after its end, created twice, closed
    /// twice or revoked twice.
    ///
    /// # Panics
    ///
    /// If one was.
    #[track_caller]
    pub fn assert_sound(&self) {
        let violations = self.ledger.violations();
        assert!(violations.is_empty(), "the driver was misused: {violations:#?}");
    }

    pub(super) fn decide(&self, step: Step) -> Behaviour {
        let mut script = self.script();
        let next = script.next.get_mut(&step).and_then(VecDeque::pop_front);
        next.unwrap_or_else(|| script.standing.get(&step).copied().unwrap_or_default())
    }

    pub(super) async fn hold(&self, step: Step, id: ResourceId) -> Behaviour {
        let (verdict, told) = oneshot::channel();
        self.script().gate(step).push_back(Held { id, verdict });
        // Without a control left to decide, the call succeeds.
        told.await.unwrap_or_default()
    }

    pub(super) fn keep_reporter(&self, id: ResourceId, reporter: Reporter) {
        self.script().reporters.insert(id, reporter);
    }
}

impl Script {
    /// Returns the calls at a gate that are still waited for.
    fn gate(&mut self, step: Step) -> &mut VecDeque<Held> {
        let gate = self.gates.entry(step).or_default();
        gate.retain(|held| !held.verdict.is_closed());
        gate
    }
}

/// Description of a [`FakeResource`]: any labels that policies wrote into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FakeSpec {
    /// Anything.
    pub labels: BTreeMap<String, String>,
}

/// The resource of the [`FakeDriver`].
#[derive(Debug)]
pub struct FakeResource {
    id: ResourceId,
    class: Class,
    labels: BTreeMap<String, String>,
    ledger: Ledger,
}

impl FakeResource {
    pub(super) fn new(meta: &Meta, spec: &FakeSpec, ledger: &Ledger) -> Self {
        Self {
            id: meta.id,
            class: meta.class.clone(),
            labels: spec.labels.clone(),
            ledger: ledger.clone(),
        }
    }

    /// Returns its identity, as the pool gave it.
    #[must_use]
    pub fn id(&self) -> ResourceId {
        self.id
    }

    /// Returns the class that it was made for.
    #[must_use]
    pub fn class(&self) -> &Class {
        &self.class
    }

    /// Returns the value of a label that its spec had.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// Marks it as in use until the guard is dropped. [`FakeControl::assert_sound`] finds use by
    /// two at once, and use after the close.
    #[must_use = "it is in use as long as the guard lives"]
    pub fn touch(&self) -> Touch<'_> {
        self.ledger.enter(self.id);
        Touch { resource: self }
    }
}

impl Drop for FakeResource {
    fn drop(&mut self) {
        self.ledger.dropped(self.id);
    }
}

/// A [`FakeResource`] in use, from [`FakeResource::touch`].
#[derive(Debug)]
pub struct Touch<'a> {
    resource: &'a FakeResource,
}

impl Drop for Touch<'_> {
    fn drop(&mut self) {
        self.resource.ledger.exit(self.resource.id);
    }
}

/// A failure that a test asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step} of resource {id} was told to fail")]
pub struct FakeError {
    /// The call that failed.
    pub step: Step,
    /// The resource that it was about.
    pub id: ResourceId,
}
