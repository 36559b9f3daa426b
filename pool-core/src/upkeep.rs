use std::sync::{Arc, Weak};

use tokio::time::{Instant, timeout_at};

use crate::shared::Shared;
use crate::{Adjustment, Class, Driver, Limits};

/// The pool's one standing task: sleeps until the engine's next deadline, and gives the policies
/// their tick. It holds the pool weakly and ends with it; and the pool ends with it.
pub(crate) async fn run<D: Driver>(pool: Standing<D>) {
    let mut next_tick = None;
    loop {
        let Some(shared) = pool.0.upgrade() else { return };
        let now = Instant::now();
        let mut wake_at = shared.apply(|state, fx| state.tick(now, fx));
        if !shared.policies.is_empty() {
            let mut at = next_tick.unwrap_or(now);
            if at <= now {
                tick(&shared);
                at = now + shared.settings.tick_interval;
            }
            next_tick = Some(at);
            wake_at = Some(wake_at.map_or(at, |deadline| deadline.min(at)));
        }
        // Only the alarm is kept while asleep, or the pool would never end.
        let alarm = Arc::clone(&shared.alarm);
        drop(shared);
        match wake_at {
            Some(at) => drop(timeout_at(at, alarm.notified()).await),
            None => alarm.notified().await,
        }
    }
}

/// The standing task's hold on its pool. When the task is dropped because its runtime shuts down,
/// nothing can be made, closed or timed out any more: requests must fail rather than wait for ever.
pub(crate) struct Standing<D: Driver>(Weak<Shared<D>>);

impl<D: Driver> Standing<D> {
    pub(crate) fn new(shared: &Arc<Shared<D>>) -> Self {
        Self(Arc::downgrade(shared))
    }
}

impl<D: Driver> Drop for Standing<D> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.drain(None);
        }
    }
}

fn tick<D: Driver>(shared: &Arc<Shared<D>>) {
    let stats = shared.look(|state| state.stats(Instant::now()));
    for adjustment in shared.policies.tick(&stats, &|panic| shared.report(panic)) {
        if let Adjustment::Class(class, limits) = &adjustment {
            set_limits(shared, class, *limits);
            continue;
        }
        let now = Instant::now();
        shared.apply(|state, fx| {
            let (min, max) = state.size();
            match &adjustment {
                Adjustment::MaxSize(size) if *size > 0 => {
                    state.resize(min.min(*size), *size, now, fx);
                }
                Adjustment::MinSize(size) => state.resize((*size).min(max), max, now, fx),
                Adjustment::MaxSize(_) | Adjustment::Class(..) => {}
            }
        });
    }
}

/// Sets the limits of a class. If that makes the class known, what is not set is what the policies
/// say: they are asked once per class, and this is the occasion.
pub(crate) fn set_limits<D: Driver>(shared: &Arc<Shared<D>>, class: &Class, limits: Limits) {
    let mut all = limits;
    if !shared.look(|state| state.knows(class)) {
        let told = shared.policies.limit(class, &|panic| shared.report(panic)).unwrap_or_default();
        all.min = all.min.or(told.min);
        all.max = all.max.or(told.max);
        all.warm = all.warm.or(told.warm);
    }
    let now = Instant::now();
    shared.apply(|state, fx| state.set_limits(class, all, now, fx));
}
