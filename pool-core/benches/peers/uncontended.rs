use std::hint::black_box;
use std::time::Instant;

use crate::contenders::{Bare, Bb8, Contender, Deadpool, FastPool, Mobc, Stacked};
use crate::figure::{Figure, median};

/// One task with an idle resource at hand: nanoseconds per acquire and release.
pub(crate) fn run(quick: bool) -> Vec<Figure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let (bare, stacked, deadpool, bb8, mobc, fast) = (
            Bare::new(8),
            Stacked::new(8),
            Deadpool::new(8),
            Bb8::new(8),
            Mobc::new(8),
            FastPool::new(8),
        );
        let (rounds, turns) = if quick { (1, 100) } else { (15, 100_000) };
        let mut all: [Vec<f64>; 6] = Default::default();
        for _ in 0..rounds {
            all[0].push(round(&bare, turns).await);
            all[1].push(round(&stacked, turns).await);
            all[2].push(round(&deadpool, turns).await);
            all[3].push(round(&bb8, turns).await);
            all[4].push(round(&mobc, turns).await);
            all[5].push(round(&fast, turns).await);
        }
        let names =
            [Bare::NAME, Stacked::NAME, Deadpool::NAME, Bb8::NAME, Mobc::NAME, FastPool::NAME];
        names
            .into_iter()
            .zip(all)
            .map(|(pool, values)| Figure {
                bench: "uncontended".to_string(),
                pool,
                value: median(values),
                unit: "ns",
            })
            .collect()
    })
}

async fn round<C: Contender>(pool: &C, turns: u32) -> f64 {
    drop(pool.get().await);
    let start = Instant::now();
    for _ in 0..turns {
        black_box(pool.get().await);
    }
    start.elapsed().as_nanos() as f64 / f64::from(turns)
}
