use std::time::Duration;

use serde::Serialize;

/// One result, which is one line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) bench: &'static str,
    pub(crate) engine: &'static str,
    pub(crate) lease: String,
    pub(crate) concurrency: usize,
    pub(crate) figure: &'static str,
    /// Whose it is: `pool`, `launch` or `direct`; none of a ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) contestant: Option<&'static str>,
    /// The median, where there are several samples.
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    #[serde(flatten)]
    pub(crate) spread: Option<Spread>,
}

/// Distribution of samples, in the unit of their figure. Percentiles are samples: the smallest one
/// that so many percent do not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The value of its figure.
    #[serde(skip)]
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) samples: usize,
}

impl Spread {
    /// That of durations, in milliseconds; of no duration it is zero.
    pub(crate) fn of(samples: &[Duration]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let percentile = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            let sample = sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default();
            rounded(sample.as_secs_f64() * 1000.0)
        };
        Self {
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
            samples: sorted.len(),
        }
    }
}

/// To a thousandth, which is more than is known.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let spread = Spread::of(&samples);
        assert_eq!((spread.p50, spread.p90, spread.p99), (100.0, 180.0, 198.0));
        let one = Spread::of(&samples[..1]);
        assert_eq!((one.p50, one.p99, one.samples), (200.0, 200.0, 1));
        assert_eq!(Spread::of(&[]).p99, 0.0);
    }
}
