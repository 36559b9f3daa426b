//! F20, F23, F57: many who ask, many who give up, and a pool that changes its size meanwhile.

use std::time::Duration;

use browser_pool_tests::{Case, Home, LeaseKind, Setup, case, case_alone, for_both_kinds, rounds};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::iter;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{until_released, works};

for_both_kinds!(f20_cancelled_acquires, f57_resize_under_load);

async fn f20_cancelled_acquires(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let case: &Case = case;
        let served = iter(0..rounds(400, 5000)).map(|_| async {
            let moment = Duration::from_millis(fastrand::u64(0..400));
            // Dropped wherever it is: connecting, in the queue, or with a lease.
            timeout(moment, case.service.connect("/")).await.is_ok()
        });
        let served = served.buffer_unordered(24).filter(|served| std::future::ready(*served));
        println!("{} were served before they gave up", served.count().await);
        until_released(&case.service, Duration::from_secs(10)).await;
        // What the last ones have sent may be read only now.
        case.oracle.at_rest(&case.service).await;
    })
    .await;
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() * 99 / 100]
}

/// The waiters at the same moment are as many as the pool's queue holds; more are refused.
#[tokio::test(flavor = "multi_thread")]
async fn f23_overload() {
    const QUEUE: usize = 20;
    let setup = Setup::new().set("pool.max_waiting", QUEUE as i64);
    case_alone(Home::new(), setup, async |case| {
        let case: &Case = case;
        let holders = join_all((0..2).map(|_| case.service.connect("/"))).await;
        let waiting = join_all((0..QUEUE).map(|_| async {
            case.service.connect("/?acquire_timeout=600000").await.close().await;
        }));
        let overload = async {
            while case.service.state().await["load"]["waiting"] != QUEUE {
                sleep(Duration::from_millis(20)).await;
            }
            let refusals = iter(0..rounds(1000, 20_000)).map(|_| async {
                let began = Instant::now();
                let refused = case.service.try_connect("/").await.expect_err("the queue is full");
                assert_eq!((refused.status, refused.code()), (429, "queue_full"), "{refused:?}");
                assert!(refused.retry_after.is_some(), "{refused:?}");
                let refused = began.elapsed();
                let began = Instant::now();
                case.service.get("/livez").await;
                (refused, began.elapsed())
            });
            let took: Vec<_> = refusals.buffer_unordered(8).collect().await;
            let (refused, alive): (Vec<Duration>, Vec<Duration>) = took.into_iter().unzip();
            let (refused, alive) = (p99(refused), p99(alive));
            println!("p99: refused {refused:?}, told that it lives {alive:?}");
            // What the machine has no time for, the pool cannot do in time either.
            let limit = Duration::from_millis(50).max(2 * alive);
            assert!(refused <= limit, "refused after {refused:?}");
            drop(holders);
        };
        // Those in the queue are served.
        tokio::join!(waiting, overload);
    })
    .await;
}

async fn f57_resize_under_load(kind: LeaseKind) {
    let setup = Setup::new().kind(kind).set("pool.acquire_timeout", "2m");
    case(setup, async |case| {
        let case: &Case = case;
        let before = case.service.state().await["load"].clone();
        let clients = iter(0..rounds(80, 400)).map(|number| async move {
            let client = case.service.connect("/").await;
            works(&client).await.unwrap_or_else(|error| panic!("lease {number}: {error}"));
            sleep(Duration::from_millis(fastrand::u64(0..100))).await;
            works(&client).await.unwrap_or_else(|error| panic!("lease {number}: {error}"));
            client.close().await;
        });
        let clients = clients.buffer_unordered(6).collect::<()>();
        let sizes = async {
            for size in [6, 1, 4, 1, 5, 2].into_iter().cycle() {
                let body = json!({ "min_size": size.min(2), "max_size": size });
                let answer = case.service.post("/api/resize", &body).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                sleep(Duration::from_millis(400)).await;
            }
        };
        tokio::select! {
            () = clients => {}
            () = sizes => unreachable!("it goes on for ever"),
        }
        let back = json!({ "min_size": before["min_size"], "max_size": before["max_size"] });
        case.service.post("/api/resize", &back).await;
        let revoked = case.service.state().await["counters"]["revoked"].clone();
        assert_eq!(revoked, 0, "leases were taken away");
    })
    .await;
}
