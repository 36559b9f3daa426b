use std::time::Duration;

use tokio::time::Instant;

/// Time that a failing proxy stays out of service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) longest: Duration,
    /// So many failures in a row take a proxy out.
    pub(super) threshold: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(5), longest: Duration::from_secs(5 * 60), threshold: 1 }
    }
}

/// Health of a proxy. It is given the time, so that it needs no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Anybody may use it.
    Serving { failures: u32 },
    /// Nobody may use it before `until`; then one may try.
    Out { until: Instant, backoff: Duration },
    /// One tries it. If nothing is heard of that one by `until`, another may.
    Trial { until: Instant, backoff: Duration },
}

impl Default for Health {
    fn default() -> Self {
        Self::Serving { failures: 0 }
    }
}

impl Health {
    pub(super) fn is_serving(&self) -> bool {
        matches!(self, Self::Serving { .. })
    }

    /// Until when it must not be used; nothing if it may be.
    pub(super) fn out_until(&self, now: Instant) -> Option<Instant> {
        match *self {
            Self::Serving { .. } => None,
            Self::Out { until, .. } | Self::Trial { until, .. } => (now < until).then_some(until),
        }
    }

    /// It is used once more: if it was out, that is a trial.
    pub(super) fn assigned(&mut self, now: Instant) {
        if let Self::Out { backoff, .. } | Self::Trial { backoff, .. } = *self {
            *self = Self::Trial { until: now + backoff, backoff };
        }
    }

    /// It worked. Says whether that let it back in.
    pub(super) fn succeeded(&mut self) -> bool {
        let was_out = !self.is_serving();
        *self = Self::default();
        was_out
    }

    /// It did not work. Says for how long that takes it out, if it does.
    pub(super) fn failed(&mut self, now: Instant, rules: &Backoff) -> Option<Duration> {
        let backoff = match *self {
            Self::Serving { failures } if failures + 1 < rules.threshold => {
                *self = Self::Serving { failures: failures + 1 };
                return None;
            }
            Self::Serving { .. } => rules.first,
            // Many users of a proxy notice one failure: only the first of them counts.
            Self::Out { until, .. } if now < until => return None,
            Self::Out { backoff, .. } | Self::Trial { backoff, .. } => {
                backoff.saturating_mul(2).min(rules.longest)
            }
        };
        *self = Self::Out { until: now + backoff, backoff };
        Some(backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(threshold: u32) -> Backoff {
        Backoff { first: SECOND, longest: 8 * SECOND, threshold }
    }

    #[test]
    fn the_time_out_doubles_with_each_failed_trial_up_to_the_longest() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        let mut outs = Vec::new();
        for _ in 0..6 {
            let out = health.failed(now, &rules(1)).unwrap();
            outs.push(out.as_secs());
            now += out;
            assert_eq!(health.out_until(now), None);
            health.assigned(now);
        }
        assert_eq!(outs, [1, 2, 4, 8, 8, 8]);
    }

    #[test]
    fn many_reports_of_one_failure_count_once() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!(health.failed(now, &rules(1)), Some(SECOND));
        for _ in 0..5 {
            assert_eq!(health.failed(now, &rules(1)), None);
        }
        assert_eq!(health.out_until(now), Some(now + SECOND));
    }

    #[test]
    fn one_tries_at_a_time_and_the_next_after_a_while_without_news() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        health.failed(now, &rules(1));
        now += SECOND;
        health.assigned(now);
        assert!(health.out_until(now).is_some());
        now += SECOND;
        assert!(health.out_until(now).is_none());
    }

    #[test]
    fn success_lets_it_back_in_and_forgets_the_past() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        for _ in 0..3 {
            now += health.failed(now, &rules(1)).unwrap();
        }
        assert!(health.succeeded());
        assert!(!health.succeeded());
        assert_eq!(health.failed(now, &rules(1)), Some(SECOND));
    }

    #[test]
    fn below_the_threshold_it_stays_in_and_a_success_starts_the_count_anew() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!(health.failed(now, &rules(3)), None);
        assert_eq!(health.failed(now, &rules(3)), None);
        health.succeeded();
        assert_eq!(health.failed(now, &rules(3)), None);
        assert_eq!(health.failed(now, &rules(3)), None);
        assert_eq!(health.failed(now, &rules(3)), Some(SECOND));
    }
}
