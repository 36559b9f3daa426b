//! The clock, and what must have happened by it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Rig, Toy};
use crate::engine::State;
use crate::engine::slot::SlotState;

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

    /// An old one may stay for as long as its replacement may take.
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
