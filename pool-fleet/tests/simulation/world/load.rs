//! Clients by chance, and what one perfect central queue would do for them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::Visit;

/// Clients that come at random moments to random gateways.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) gateways: usize,
    pub(crate) places: usize,
    /// Share of all places that is leased on average.
    pub(crate) busy: f64,
    /// Mean length of a lease; lengths are log-normal.
    pub(crate) lease: Duration,
    /// No more clients come after that.
    pub(crate) until: Duration,
    pub(crate) timeout: Duration,
    pub(crate) seed: u64,
}

/// When the leases that are there from the start are taken: the nodes know each other by then.
pub(crate) const FILLED: Duration = Duration::from_millis(2500);
/// Width of the log-normal distribution.
const SIGMA: f64 = 1.0;

impl Stream {
    /// Returns all clients in the order of their coming: first those that have their leases from
    /// the start, as if it had gone on for long, then the others.
    pub(crate) fn visits(&self) -> Vec<Visit> {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let mean = self.lease.as_secs_f64();
        let mu = mean.ln() - SIGMA * SIGMA / 2.0;
        let held = (self.places as f64 * self.busy) as usize;
        let visit = |at: Duration, gateway, lease| Visit {
            at,
            gateway,
            lease: Duration::from_secs_f64(lease),
            timeout: self.timeout,
            priority: 5,
        };
        let mut visits: Vec<Visit> = (0..held)
            .map(|index| {
                // Of the leases that are seen at a moment, long ones are more.
                let whole = (mu + SIGMA * SIGMA + SIGMA * normal(&mut rng)).exp();
                let spread = Duration::from_nanos(index as u64);
                visit(FILLED + spread, index % self.gateways, whole * rng.f64())
            })
            .collect();
        let rate = self.places as f64 * self.busy / mean;
        let mut at = FILLED.as_secs_f64() + 0.1;
        loop {
            at += -(1.0 - rng.f64()).ln() / rate;
            if at >= self.until.as_secs_f64() {
                return visits;
            }
            let lease = (mu + SIGMA * normal(&mut rng)).exp();
            visits.push(visit(Duration::from_secs_f64(at), rng.usize(..self.gateways), lease));
        }
    }
}

fn normal(rng: &mut fastrand::Rng) -> f64 {
    let (radius, angle) = ((-2.0 * (1.0 - rng.f64()).ln()).sqrt(), rng.f64());
    radius * (std::f64::consts::TAU * angle).cos()
}

/// Returns how long each client waits at one queue before all places.
pub(crate) fn central(visits: &[Visit], places: usize) -> Vec<Duration> {
    let mut free: BinaryHeap<Reverse<Duration>> =
        (0..places).map(|_| Reverse(Duration::ZERO)).collect();
    let mut waits = Vec::with_capacity(visits.len());
    for visit in visits {
        let Reverse(first) = free.pop().expect("as many as places");
        let begins = first.max(visit.at);
        waits.push(begins - visit.at);
        free.push(Reverse(begins + visit.lease));
    }
    waits
}

/// Returns the mean and the 99th percentile.
pub(crate) fn mean_and_p99(waits: &mut [Duration]) -> (Duration, Duration) {
    if waits.is_empty() {
        return (Duration::ZERO, Duration::ZERO);
    }
    waits.sort_unstable();
    let sum: Duration = waits.iter().sum();
    (sum / waits.len() as u32, waits[waits.len() * 99 / 100])
}
