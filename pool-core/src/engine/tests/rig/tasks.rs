//! Reports of tasks.

use std::sync::Arc;

use super::{Pending, Rig, Toy, Work, broken};
use crate::engine::SlotRef;

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

    /// A task dies with its resource.
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
