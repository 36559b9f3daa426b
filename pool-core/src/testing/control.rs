use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::ledger::Ledger;
use super::{Behaviour, Call, Outcome, Step};
use crate::{Reporter, ResourceId};

/// Says what becomes of the calls to a [`FakeDriver`](super::FakeDriver), and what became of them.
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
    /// Wakes the call, so it must not be done under the lock. Says whether it was still there.
    fn go_on(self, behaviour: Behaviour) -> bool {
        self.verdict.send(behaviour).is_ok()
    }
}

impl FakeControl {
    fn script(&self) -> MutexGuard<'_, Script> {
        // A test that panicked while it held the script has failed already.
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the behaviour of every call of a step from now on. Default: [`Behaviour::Pass`].
    pub fn set(&self, step: Step, behaviour: Behaviour) {
        self.script().standing.insert(step, behaviour);
    }

    /// Sets the behaviour of the next call of a step; called several times, of the calls after it.
    pub fn next(&self, step: Step, behaviour: Behaviour) {
        self.script().next.entry(step).or_default().push_back(behaviour);
    }

    /// Sets the answer of [`Driver::needs_recycle`](crate::Driver::needs_recycle). Default: true.
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

    /// Whose calls of a step stand at the gate, the oldest first.
    #[must_use]
    pub fn held_ids(&self, step: Step) -> Vec<ResourceId> {
        self.script().gate(step).iter().map(|held| held.id).collect()
    }

    /// Lets the oldest call at the gate end well; says whether there was one.
    pub fn release(&self, step: Step) -> bool {
        self.release_as(step, Behaviour::Pass)
    }

    /// Lets the oldest call at the gate go on as told; says whether there was one.
    pub fn release_as(&self, step: Step, behaviour: Behaviour) -> bool {
        let held = self.script().gate(step).pop_front();
        held.is_some_and(|held| held.go_on(behaviour))
    }

    /// Lets one resource's call at the gate go on as told; says whether there was one.
    pub fn release_id(&self, step: Step, id: ResourceId, behaviour: Behaviour) -> bool {
        let held = {
            let mut script = self.script();
            let gate = script.gate(step);
            gate.iter().position(|held| held.id == id).and_then(|at| gate.remove(at))
        };
        held.is_some_and(|held| held.go_on(behaviour))
    }

    /// Opens the gate of a step for good: what stands there, and all later calls, end well.
    pub fn open(&self, step: Step) {
        self.set(step, Behaviour::Pass);
        while self.release(step) {}
    }

    /// The reporter that a resource was given at its creation.
    #[must_use]
    pub fn reporter(&self, id: ResourceId) -> Option<Reporter> {
        self.script().reporters.get(&id).cloned()
    }

    /// Every call so far, in order.
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

    /// Every resource that exists: from the beginning of its creation until its value is gone.
    #[must_use]
    pub fn existing(&self) -> BTreeSet<ResourceId> {
        self.ledger.existing()
    }

    /// The most resources that ever existed at the same time.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.ledger.peak()
    }

    /// Resources whose value was dropped, though neither close nor revoke was called.
    #[must_use]
    pub fn dropped_unclosed(&self) -> BTreeSet<ResourceId> {
        self.ledger.unclosed()
    }

    /// Asserts that no resource was used by two at once, used after its end, made twice, closed
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
        // Without a control left to tell it, the call ends well.
        told.await.unwrap_or_default()
    }

    pub(super) fn keep_reporter(&self, id: ResourceId, reporter: Reporter) {
        self.script().reporters.insert(id, reporter);
    }
}

impl Script {
    /// The calls at a gate that are still waited for.
    fn gate(&mut self, step: Step) -> &mut VecDeque<Held> {
        let gate = self.gates.entry(step).or_default();
        gate.retain(|held| !held.verdict.is_closed());
        gate
    }
}
