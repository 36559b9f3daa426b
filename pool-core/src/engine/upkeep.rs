use std::time::Duration;

use tokio::time::Instant;

use super::slot::{ClassId, DEFAULT_CLASS, SlotRef, SlotState};
use super::{Effects, Job, Phase, State, since};
use crate::{CloseReason, Event, ResourceState};

/// Pause before looking again when a check is due while another one runs.
const CHECK_PAUSE: Duration = Duration::from_millis(100);

impl<R> State<R> {
    /// Does everything whose time has come and returns the next moment to call it.
    pub(crate) fn tick(&mut self, now: Instant, fx: &mut Effects<R>) -> Option<Instant> {
        self.alarm = None;
        // First, since a resource that it takes back may have been idle for too long.
        self.revoke_overdue(now, fx);
        let classes: Vec<ClassId> = self.classes.iter().map(|(id, _)| id).collect();
        for class in classes {
            if self.classes[class].breaker.expire(now) {
                self.refresh(class);
            }
            self.expire_waiters(class, now, fx);
            self.retire_idle(class, now, fx);
            self.forget(class, now, fx);
        }
        self.check_next(now, fx);
        self.pump(now, fx);
        self.alarm = self.next_deadline(now);
        self.rearm = false;
        self.alarm
    }

    /// Closes resources that have been idle for too long or are too old, least recently used first.
    fn retire_idle(&mut self, class: ClassId, now: Instant, fx: &mut Effects<R>) {
        let idle: Vec<usize> = self.classes[class].idle.iter().copied().collect();
        for index in idle {
            let used_at = self.idle(index).used_at;
            let idle_too_long =
                self.config.max_idle_time.is_some_and(|limit| since(now, used_at) >= limit);
            if self.slots[index].expires_at.is_some_and(|at| at <= now) {
                self.retire_old(index, now, fx);
            } else if idle_too_long && self.classes[class].can_spare() {
                self.close_idle(index, CloseReason::IdleTimeout, now, fx);
            }
        }
    }

    /// Closes an idle resource that is too old; if its class needs one in its place and there is
    /// room, the replacement is made first, and the old one stays for at most the time that a
    /// creation may take.
    fn retire_old(&mut self, index: usize, now: Instant, fx: &mut Effects<R>) {
        let slot = &self.slots[index];
        let class = &self.classes[slot.class];
        let late = slot.expires_at.is_some_and(|at| at + self.config.create_timeout <= now);
        let needed = if slot.retiring { class.lacks_replacement() } else { !class.can_spare() };
        let room = self.slots.len() < self.config.max_size
            && class.counts.total() < class.max
            && !class.breaker.is_failing();
        if needed && !late && (slot.retiring || room) && !self.is_draining() {
            self.mark_retiring(index);
        } else {
            self.close_idle(index, CloseReason::Lifetime, now, fx);
        }
    }

    /// Checks one idle resource: the one whose proof of life is oldest and due. Only one is checked
    /// at a time, so that checks do not take the pool away from those who want to lease.
    fn check_next(&mut self, now: Instant, fx: &mut Effects<R>) {
        let Some(interval) = self.config.health_check_interval else { return };
        if self.counts.of(ResourceState::Checking) > 0 || self.is_draining() {
            return;
        }
        let due = self
            .slots
            .iter()
            .filter_map(|(_, slot)| {
                let SlotState::Idle(pooled) = &slot.state else { return None };
                Some((pooled.proven_at, pooled.slot.index, slot.class))
            })
            .filter(|(proven_at, ..)| since(now, *proven_at) >= interval)
            .min();
        let Some((_, index, class)) = due else { return };
        let idle = &mut self.classes[class].idle;
        let at = idle.iter().position(|held| *held == index).expect("it is listed as idle");
        idle.remove(at);
        self.start_check(index, now, fx);
        self.refresh(class);
    }

    /// Reports and revokes leases past the hold limit, and all of them past the drain deadline.
    fn revoke_overdue(&mut self, now: Instant, fx: &mut Effects<R>) {
        let drained = matches!(self.phase, Phase::Draining { deadline: Some(at) } if at <= now);
        let mut overdue = Vec::new();
        let mut retiring = Vec::new();
        for (index, slot) in &self.slots {
            let SlotState::Leased { overdue_at, acquired_at, ticket } = &slot.state else {
                continue;
            };
            if drained || overdue_at.is_some_and(|at| at <= now) {
                let asked = ticket.as_ref().map(|ticket| ticket.acquired_at);
                overdue.push((index, acquired_at.or(asked).expect("a lease was asked for")));
            } else if slot.expires_at.is_some_and(|at| at <= now) {
                retiring.push(index);
            }
        }
        for index in retiring {
            self.mark_retiring(index);
        }
        for (index, acquired_at) in overdue {
            if self.take_back(index, now, fx) {
                continue;
            }
            let held = since(now, self.slots[index].since);
            let reason = if drained { CloseReason::Drained } else { CloseReason::Overdue };
            let meta = self.meta(index);
            if !drained {
                let (id, class) = (meta.id, meta.class.clone());
                self.emit(fx, || Event::Overdue { id, class, held, acquired_at });
            }
            self.counters.revoked += 1;
            self.closing(index, &reason, now, fx);
            self.set_state(index, SlotState::Closing(reason), now);
            self.let_go(index);
            self.refresh(self.slots[index].class);
            fx.jobs.push(Job::Revoke { slot: SlotRef { index, id: meta.id }, meta });
        }
    }

    /// Drops a class that nothing remembers, so that names from outside cannot pile up.
    pub(super) fn forget(&mut self, class: ClassId, now: Instant, fx: &mut Effects<R>) {
        if class != DEFAULT_CLASS && self.classes[class].is_forgettable(now) {
            let state = self.classes.remove(class);
            self.gone.add(state.leases);
            self.class_ids.remove(&state.class);
            self.hungry.remove(&class);
            self.short.remove(&class);
            fx.errors.extend(state.breaker.into_last());
        }
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut consider = |at: Option<Instant>| {
            next = match (next, at) {
                (Some(next), Some(at)) => Some(next.min(at)),
                (next, at) => next.or(at),
            };
        };
        for (_, class) in &self.classes {
            consider(class.breaker.retry_at());
            if class.is_empty() {
                consider(class.breaker.remembers_until());
            }
            for (expires_at, _) in class.waiters.first_timed(&self.waiters) {
                consider(Some(expires_at));
            }
        }
        if let Phase::Draining { deadline } = self.phase
            && self.counts.of(ResourceState::Leased) > 0
        {
            consider(deadline);
        }
        let checking = self.counts.of(ResourceState::Checking) > 0;
        for (_, slot) in &self.slots {
            match &slot.state {
                SlotState::Idle(pooled) => {
                    if slot.retiring {
                        consider(slot.expires_at.map(|at| at + self.config.create_timeout));
                    } else {
                        consider(slot.expires_at);
                    }
                    if self.classes[slot.class].can_spare() {
                        consider(self.config.max_idle_time.map(|limit| pooled.used_at + limit));
                    }
                    let due =
                        self.config.health_check_interval.map(|every| pooled.proven_at + every);
                    consider(due.map(|at| if checking { at.max(now + CHECK_PAUSE) } else { at }));
                }
                SlotState::Leased { overdue_at, .. } => {
                    consider(*overdue_at);
                    if !slot.retiring {
                        consider(slot.expires_at);
                    }
                }
                SlotState::Creating
                | SlotState::Recycling
                | SlotState::Checking
                | SlotState::Closing(_) => {}
            }
        }
        next
    }
}
