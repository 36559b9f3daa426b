use serde_json::json;

/// One measured number of one contender.
pub(crate) struct Figure {
    pub bench: String,
    pub pool: &'static str,
    pub value: f64,
    pub unit: &'static str,
}

/// A table for people, then a JSON line per figure for machines.
pub(crate) fn print(figures: &[Figure]) {
    let mut bench = "";
    for figure in figures {
        if figure.bench != bench {
            bench = &figure.bench;
            println!("\n{bench} ({})", figure.unit);
        }
        println!(
            "  {:<22} {:>14.1}   {:.2} x deadpool",
            figure.pool,
            figure.value,
            ratio(figures, figure)
        );
    }
    println!();
    for figure in figures {
        let line = json!({
            "bench": figure.bench,
            "pool": figure.pool,
            "value": (figure.value * 100.0).round() / 100.0,
            "unit": figure.unit,
            "ratio_to_deadpool": (ratio(figures, figure) * 1000.0).round() / 1000.0,
        });
        println!("{line}");
    }
}

fn ratio(figures: &[Figure], figure: &Figure) -> f64 {
    let deadpool = figures
        .iter()
        .find(|other| other.bench == figure.bench && other.pool == "deadpool")
        .expect("deadpool is measured in every bench");
    figure.value / deadpool.value
}

/// The middle one, which a single disturbed round does not move.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
