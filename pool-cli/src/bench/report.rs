use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::shared::{Memory, RoundTrips};
use super::{Step, Steps};
use crate::stdout::Table;

const MIB: f64 = 1024.0 * 1024.0;

/// Results of a run: tables for people with [`Display`](fmt::Display), and [`json`](Self::json).
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) engine: &'static str,
    pub(crate) lease: String,
    pub(crate) concurrency: usize,
    pub(crate) pool: Steps,
    pub(crate) launch: Steps,
    /// Set for shared leases in a pool of the benchmark's own.
    pub(crate) memory: Option<Memory>,
    /// Set for shared leases.
    pub(crate) round_trips: Option<RoundTrips>,
}

/// A quantity that both contestants have.
struct Measure {
    figure: &'static str,
    unit: &'static str,
    /// The name, the value and its spread for each side: the pool first.
    sides: [(&'static str, f64, Option<Spread>); 2],
    /// The name of the ratio (the pool's value divided by the other one), if that is a figure too.
    ratio: Option<&'static str>,
}

impl Measure {
    fn of(figure: &'static str, sides: [(&'static str, Spread); 2]) -> Self {
        let sides = sides.map(|(who, spread)| (who, spread.p50, Some(spread)));
        Self { figure, unit: "ms", sides, ratio: None }
    }

    fn ratio(&self) -> f64 {
        let [(_, pool, _), (_, other, _)] = self.sides;
        rounded(pool / other)
    }
}

impl Report {
    fn measures(&self) -> Vec<Measure> {
        let mut measures: Vec<Measure> = Step::ALL
            .into_iter()
            .map(|step| {
                let spread = |steps: &Steps| Spread::of(steps.of(step));
                let sides = [("pool", spread(&self.pool)), ("launch", spread(&self.launch))];
                let ratio = match step {
                    Step::FirstPage => Some("first_page_ratio"),
                    Step::NewPage => Some("new_page_ratio"),
                    Step::Connect | Step::Goto | Step::Release => None,
                };
                Measure { ratio, ..Measure::of(step.as_str(), sides) }
            })
            .collect();
        if let Some(RoundTrips { pool, direct }) = &self.round_trips {
            let sides = [("pool", Spread::of(pool)), ("direct", Spread::of(direct))];
            let ratio = Some("round_trip_ratio");
            measures.push(Measure { ratio, ..Measure::of("round_trip", sides) });
        }
        if let Some(Memory { further, own }) = self.memory {
            let side = |who, bytes: f64| (who, rounded(bytes / MIB), None);
            measures.push(Measure {
                figure: "memory",
                unit: "MiB",
                sides: [side("pool", further), side("launch", own)],
                ratio: Some("memory_ratio"),
            });
        }
        measures
    }

    /// Returns everything that was measured.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for measure in self.measures() {
            let figure = |figure, contestant, value, unit, spread| Figure {
                bench: "lease",
                engine: self.engine,
                lease: self.lease.clone(),
                concurrency: self.concurrency,
                figure,
                contestant,
                value,
                unit,
                spread,
            };
            let sides = measure.sides.iter().map(|(who, value, spread)| {
                figure(measure.figure, Some(*who), *value, measure.unit, *spread)
            });
            figures.extend(sides);
            let ratio =
                measure.ratio.map(|name| figure(name, None, measure.ratio(), "ratio", None));
            figures.extend(ratio);
        }
        figures
    }

    /// Returns one line of JSON for each figure.
    pub(crate) fn json(&self) -> String {
        let line = |figure: &Figure| {
            let line = serde_json::to_string(figure).expect("a figure is plain data");
            line + "\n"
        };
        self.figures().iter().map(line).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clients, engine, lease) = (self.concurrency, self.engine, &self.lease);
        let sessions = self.pool.of(Step::Connect).len();
        writeln!(
            f,
            "{engine}, {lease} leases: {sessions} sessions of each, {clients} at a time\n"
        )?;
        let number = |value: f64| format!("{value:.2}");
        let mut rows = Table::new(["what", "whose", "unit", "p50", "p90", "p99", "ratio"]);
        for measure in self.measures() {
            for (index, (who, value, spread)) in measure.sides.into_iter().enumerate() {
                let is_first = index == 0;
                let shown = |text: String| if is_first { text } else { String::new() };
                rows.add([
                    shown(measure.figure.replace('_', " ")),
                    who.to_owned(),
                    measure.unit.to_owned(),
                    number(value),
                    spread.map(|spread| number(spread.p90)).unwrap_or_default(),
                    spread.map(|spread| number(spread.p99)).unwrap_or_default(),
                    shown(format!("{:.3}", measure.ratio())),
                ]);
            }
        }
        write!(f, "{rows}")
    }
}

/// One result, which is one line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) bench: &'static str,
    pub(crate) engine: &'static str,
    pub(crate) lease: String,
    pub(crate) concurrency: usize,
    pub(crate) figure: &'static str,
    /// The contestant, `pool`, `launch` or `direct`; `None` for a ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) contestant: Option<&'static str>,
    /// The median, if there are several samples.
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    #[serde(flatten)]
    pub(crate) spread: Option<Spread>,
}

/// Distribution of samples, in the unit of their figure. Percentiles are samples: the smallest one
/// that this many percent do not exceed.
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
    /// Returns the spread of some durations, in milliseconds; zero without durations.
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

/// Rounds to a thousandth, which is more than the measurement's precision.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report() -> Report {
        let steps = |ms: u64| {
            let mut steps = Steps::default();
            for step in Step::ALL {
                steps.add(step, Duration::from_millis(ms));
            }
            steps
        };
        Report {
            engine: "shell",
            lease: "shared".to_owned(),
            concurrency: 1,
            pool: steps(10),
            launch: steps(200),
            memory: Some(Memory { further: 32.0 * MIB, own: 128.0 * MIB }),
            round_trips: None,
        }
    }

    #[test]
    fn a_ratio_is_the_pools_share_of_the_others() {
        let figures = report().figures();
        let value = |name: &str| figures.iter().find(|figure| figure.figure == name).unwrap().value;
        assert_eq!((value("first_page_ratio"), value("memory_ratio")), (0.05, 0.25));
    }

    #[test]
    fn a_figure_is_a_line_of_json() {
        let json = report().json();
        let line = json.lines().find(|line| line.contains("first_page_ratio")).unwrap();
        assert_eq!(
            line,
            r#"{"bench":"lease","engine":"shell","lease":"shared","concurrency":1,"figure":"first_page_ratio","value":0.05,"unit":"ratio"}"#
        );
        assert!(json.lines().next().unwrap().contains(r#""contestant":"pool","value":10.0"#));
    }

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
