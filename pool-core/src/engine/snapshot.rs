use tokio::time::Instant;

use super::{State, since};
use crate::{ClassStats, Counters, GroupStats, Load, ResourceInfo, Stats, WaiterInfo};

impl<R> State<R> {
    pub(crate) fn load(&self) -> Load {
        self.counts.load(self.waiters.len(), self.config.max_size)
    }

    pub(crate) fn stats(&self, now: Instant) -> Stats {
        let oldest = self.waiters.iter().map(|(_, waiter)| waiter.ticket.enqueued_at).min();
        // Counted when they were granted, but no leases until they are fetched.
        let unfetched = self.slots.iter().map(|(_, slot)| (slot.class, slot.unfetched()));
        let unfetched: Vec<_> =
            unfetched.filter_map(|(class, waited)| Some((class, waited?))).collect();
        let classes = self.classes.iter().map(|(id, class)| {
            let own = unfetched.iter().filter(|(class, _)| *class == id);
            ClassStats {
                class: class.class.clone(),
                load: class.counts.load(class.waiters.len(), class.max.min(self.config.max_size)),
                min: class.min,
                warm: class.warm,
                waited: class.leases.waited - own.clone().map(|(_, waited)| *waited).sum(),
                granted: class.leases.granted - own.count() as u64,
                failing: class.breaker.is_failing(),
            }
        });
        let mut leases = self.gone;
        self.classes.iter().for_each(|(_, class)| leases.add(class.leases));
        let counters = Counters {
            acquired: leases.granted - unfetched.len() as u64,
            released: leases.released,
            waited: leases.waited - unfetched.iter().map(|(_, waited)| *waited).sum(),
            ..self.counters
        };
        Stats {
            at: now,
            load: self.load(),
            counters,
            classes: classes.collect(),
            groups: self.group_stats(),
            oldest_wait: oldest.map(|at| since(now, at)),
            draining: self.is_draining(),
        }
    }

    /// Every group that is known, by name.
    fn group_stats(&self) -> Vec<GroupStats> {
        let mut all: Vec<_> = self.groups.iter().map(|(_, state)| state.stats()).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
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
                    group: waiter.group.map(|id| self.groups[id].group.name.clone()),
                    priority: waiter.ticket.priority,
                    waited: since(now, waiter.ticket.enqueued_at),
                }
            })
            .collect()
    }
}
