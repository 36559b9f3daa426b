use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::contenders::{Bare, Bb8, Contender, Deadpool, FastPool, Mobc, Stacked};
use crate::figure::{Figure, figures};

/// So many tasks over this many resources.
const RESOURCES: usize = 8;

/// What one round of one contender has shown.
struct Round {
    per_second: f64,
    worst_wait_ms: f64,
    /// The most leases of a task, less the fewest, by the mean: 0 is perfectly even.
    spread: f64,
}

/// Many tasks that each lease, yield once while they hold, and release, as fast as they can.
pub(crate) fn run(tasks: usize, quick: bool) -> Vec<Figure> {
    let (rounds, time) =
        if quick { (1, Duration::from_millis(20)) } else { (9, Duration::from_millis(400)) };
    let all: Vec<[Round; 6]> = (0..rounds)
        .map(|_| {
            [
                round::<Bare>(tasks, time),
                round::<Stacked>(tasks, time),
                round::<Deadpool>(tasks, time),
                round::<Bb8>(tasks, time),
                round::<Mobc>(tasks, time),
                round::<FastPool>(tasks, time),
            ]
        })
        .collect();
    let show = |what: &str, unit: &'static str, pick: fn(&Round) -> f64| {
        let rounds: Vec<[f64; 6]> = all.iter().map(|round| round.each_ref().map(pick)).collect();
        figures(&format!("contended_{tasks}_{what}"), unit, &rounds)
    };
    let mut out = show("throughput", "leases/s", |round| round.per_second);
    out.extend(show("worst_wait", "ms", |round| round.worst_wait_ms));
    out.extend(show("spread", "share of mean", |round| round.spread));
    out
}

fn round<C: Contender>(tasks: usize, time: Duration) -> Round {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    let round = runtime.block_on(async {
        let pool = C::new(RESOURCES);
        let held = futures_held(&pool).await;
        let stop = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let (pool, stop) = (pool.clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    let (mut leases, mut worst) = (0u64, Duration::ZERO);
                    while !stop.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        let guard = pool.get().await;
                        // The first one has waited for the start.
                        if leases > 0 {
                            worst = worst.max(asked.elapsed());
                        }
                        tokio::task::yield_now().await;
                        drop(guard);
                        leases += 1;
                    }
                    (leases, worst)
                })
            })
            .collect();
        drop(held);
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        let elapsed = start.elapsed();
        let mut counts = Vec::new();
        let mut worst = Duration::ZERO;
        for task in tasks {
            let (leases, wait) = task.await.expect("no task panics");
            counts.push(leases);
            worst = worst.max(wait);
        }
        let total: u64 = counts.iter().sum();
        let mean = total as f64 / counts.len() as f64;
        let (most, fewest) = (counts.iter().max().copied(), counts.iter().min().copied());
        Round {
            per_second: total as f64 / elapsed.as_secs_f64(),
            worst_wait_ms: worst.as_secs_f64() * 1000.0,
            spread: (most.unwrap_or(0) - fewest.unwrap_or(0)) as f64 / mean,
        }
    });
    runtime.shutdown_background();
    round
}

/// All resources, so that they exist before the clock starts.
async fn futures_held<C: Contender>(pool: &C) -> Vec<C::Guard> {
    let mut held = Vec::new();
    for _ in 0..RESOURCES {
        held.push(pool.get().await);
    }
    held
}
