//! Thousands of leases through one pool: what it holds stays the same.

use std::time::Duration;

use browser_pool_tests::{Case, Engine, LeaseKind, Setup, case, eventually, rounds};
use futures_util::StreamExt;
use futures_util::stream::iter;

/// How many clients are there at a time.
const CLIENTS: usize = 8;

/// What the memory of the pool may grow by between two rests, in KiB: an allocator that has seen a
/// busier moment than before keeps some of it.
const GROWTH: u64 = 8 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_stays_the_same_over_many_leases() {
    many_leases(Engine::Shell).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_stays_the_same_over_many_leases() {
    many_leases(Engine::Chromium).await;
}

async fn many_leases(engine: Engine) {
    let setup = Setup::new()
        .engine(engine)
        .kind(LeaseKind::Shared)
        .set("pool.leases_per_browser", 4)
        .set("warming.min_idle", 0)
        .size(4);
    case(setup, async |case| {
        let case: &Case = case;
        // The first ones bring allocations and threads that stay.
        leases(case, 100).await;
        let before = Held::by(case);
        let total = rounds(300, 2_000);
        for _ in 0..4 {
            leases(case, total / 4).await;
            // One more may be open for a moment, before as well: a file of /proc, or a connection
            // just closed.
            eventually(
                "there are no more descriptors than before",
                Duration::from_secs(10),
                async || {
                    let now = Held::by(case).descriptors;
                    if now <= before.descriptors { Ok(()) } else { Err(now) }
                },
            )
            .await;
            let now = Held::by(case);
            println!("after a quarter of {total} leases: {before:?}, then {now:?}");
            assert!(now.memory <= before.memory + GROWTH, "memory: {before:?}, then {now:?}");
        }
    })
    .await;
}

/// So many leases, each with a page beside the one that it finds, until the pool is at rest again.
async fn leases(case: &Case, count: usize) {
    iter(0..count)
        .for_each_concurrent(CLIENTS, async |_| {
            let client = case.service.connect("/").await;
            client.page("about:blank").await;
            client.page(&case.site.at("/title.html")).await;
            client.close().await;
        })
        .await;
    case.oracle.at_rest(&case.service).await;
}

/// What the process of the pool holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    /// Resident, in KiB.
    memory: u64,
}

impl Held {
    fn by(case: &Case) -> Self {
        let process = case.service.process;
        let memory = process.status("VmRSS").expect("it runs");
        Self { descriptors: process.descriptors(), memory }
    }
}
