use std::hint::black_box;
use std::time::Instant;

use crate::contenders::{Bare, Bb8, Contender, Deadpool, FastPool, Mobc, Stacked};
use crate::figure::{Figure, figures};

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
        let mut all: Vec<[f64; 6]> = Vec::new();
        for _ in 0..rounds {
            all.push([
                round(&bare, turns).await,
                round(&stacked, turns).await,
                round(&deadpool, turns).await,
                round(&bb8, turns).await,
                round(&mobc, turns).await,
                round(&fast, turns).await,
            ]);
        }
        figures("uncontended", "ns", &all)
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
