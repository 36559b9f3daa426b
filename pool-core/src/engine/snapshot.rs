use tokio::time::Instant;

use super::waiter::WaiterState;
use super::{State, since};
use crate::{ClassStats, Load, ResourceInfo, Stats, WaiterInfo};

impl<R> State<R> {
    pub(crate) fn load(&self) -> Load {
        self.counts.load(self.waiting, self.config.max_size)
    }

    pub(crate) fn stats(&self, now: Instant) -> Stats {
        let oldest = self
            .waiters
            .iter()
            .filter(|(_, waiter)| matches!(waiter.state, WaiterState::Waiting(_)))
            .map(|(_, waiter)| waiter.enqueued_at)
            .min();
        let classes = self.classes.iter().map(|(_, class)| ClassStats {
            class: class.class.clone(),
            load: class.counts.load(class.waiters.len(), class.max.min(self.config.max_size)),
            min: class.min,
            warm: class.warm,
            waited: class.waited,
            granted: class.granted,
            failing: class.breaker.is_failing(),
        });
        Stats {
            at: now,
            load: self.load(),
            counters: self.counters,
            classes: classes.collect(),
            oldest_wait: oldest.map(|at| since(now, at)),
            draining: self.is_draining(),
        }
    }

    pub(crate) fn resources(&self) -> Vec<ResourceInfo> {
        let mut all: Vec<ResourceInfo> = self
            .slots
            .iter()
            .map(|(_, slot)| ResourceInfo {
                id: slot.id,
                class: self.classes[slot.class].class.clone(),
                state: slot.state.kind(),
                since: slot.since,
                created_at: slot.created_at,
                uses: slot.uses,
                last_check: slot.last_check,
            })
            .collect();
        all.sort_by_key(|info| info.id);
        all
    }

    pub(crate) fn waiters(&self, now: Instant) -> Vec<WaiterInfo> {
        let mut waiting: Vec<_> = self
            .classes
            .iter()
            .flat_map(|(_, class)| class.waiters.sorted(&self.waiters))
            .collect();
        waiting.sort_unstable_by_key(|(rank, _)| *rank);
        waiting
            .into_iter()
            .map(|(_, waiter)| {
                let waiter = &self.waiters[waiter];
                WaiterInfo {
                    class: self.classes[waiter.class].class.clone(),
                    priority: waiter.priority,
                    waited: since(now, waiter.enqueued_at),
                }
            })
            .collect()
    }
}
