use serde_json::json;

use crate::contenders::{Bare, Bb8, Contender, Deadpool, FastPool, Mobc, Stacked};

/// In the order in which they run.
pub(crate) const NAMES: [&str; 6] =
    [Bare::NAME, Stacked::NAME, Deadpool::NAME, Bb8::NAME, Mobc::NAME, FastPool::NAME];

/// One measured number of one contender.
pub(crate) struct Figure {
    bench: String,
    pool: &'static str,
    /// The median round.
    value: f64,
    unit: &'static str,
    /// To deadpool in the same round; the median of that.
    ratio: f64,
}

/// The figures of a bench from what each round of each contender has shown.
///
/// A shared machine may be three times as fast in one second as in the next, so ratios are taken
/// between neighbours in time, and only then the median.
pub(crate) fn figures(bench: &str, unit: &'static str, rounds: &[[f64; 6]]) -> Vec<Figure> {
    let deadpool = NAMES.iter().position(|name| *name == Deadpool::NAME).expect("it runs");
    let of = |at: usize| Figure {
        bench: bench.to_owned(),
        pool: NAMES[at],
        value: median(rounds.iter().map(|round| round[at])),
        unit,
        ratio: median(rounds.iter().map(|round| round[at] / round[deadpool])),
    };
    (0..NAMES.len()).map(of).collect()
}

/// A table for people, then a JSON line per figure for machines.
pub(crate) fn print(figures: &[Figure]) {
    let mut bench = "";
    for figure in figures {
        if figure.bench != bench {
            bench = &figure.bench;
            println!("\n{bench} ({})", figure.unit);
        }
        let Figure { pool, value, ratio, .. } = figure;
        println!("  {pool:<22} {value:>14.1}   {ratio:.2} x deadpool");
    }
    println!();
    for figure in figures {
        let line = json!({
            "bench": figure.bench,
            "pool": figure.pool,
            "value": (figure.value * 100.0).round() / 100.0,
            "unit": figure.unit,
            "ratio_to_deadpool": (figure.ratio * 1000.0).round() / 1000.0,
        });
        println!("{line}");
    }
}

/// The middle one, which a single disturbed round does not move.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
