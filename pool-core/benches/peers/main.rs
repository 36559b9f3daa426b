//! pool-core beside the pools that a Rust user would otherwise take, all in one process.
//!
//! Rounds of the contenders are interleaved, a ratio is one between neighbours in time, and the
//! median round counts, so that a machine that changes its speed changes it for all. Quote the
//! ratios, not the nanoseconds.
//!
//! `cargo bench -p pool-core --bench peers`

mod contended;
mod contenders;
mod figure;
mod uncontended;

fn main() {
    // `cargo test --benches` runs this as well, to see that it works.
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let mut figures = uncontended::run(quick);
    for tasks in [8, 64, 10_000] {
        figures.extend(contended::run(tasks, quick));
    }
    figure::print(&figures);
}
