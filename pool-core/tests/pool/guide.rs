//! The traps in the code of the connection-pooling guide, one by one: we have none of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pool_core::testing::{Behaviour, FakeDriver, Step, settle};
use pool_core::{Adjustment, Policy, Request, Stats, async_trait};
use tokio::time::{Instant, sleep};

use crate::support::*;

// "Try to get from pool, timeout=30; except Empty: create": the basic pool waits for the whole
// timeout before it grows.
#[tokio::test(start_paused = true)]
async fn the_pool_grows_at_once_and_not_after_the_timeout() {
    let (pool, control) = build(|builder| builder.max_size(2).acquire_timeout(Some(30 * SECOND)));
    let first = lease(&pool).await;
    let before = Instant::now();
    let second = lease(&pool).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    drop((first, second));
    ends_clean(pool, control).await;
}

// "_initialize_pool" creates one after the other, in the constructor.
#[tokio::test(start_paused = true)]
async fn building_a_pool_does_not_wait_for_its_minimum() {
    let before = Instant::now();
    let driver = FakeDriver::new();
    driver.control().set(Step::Create, Behaviour::Take(SECOND));
    let pool = pool_core::Pool::builder(driver).min_size(4).max_creating(4).build().expect("valid");
    assert_eq!(before.elapsed(), Duration::ZERO);
    sleep(SECOND + Duration::from_millis(10)).await;
    assert_eq!(pool.load().idle, 4, "and they are made side by side");
}

// A new connection goes into the idle queue *and* to its asker: two users of one browser.
#[tokio::test(start_paused = true)]
async fn a_new_resource_has_one_holder() {
    let (pool, control) = pool_of(4);
    control.set(Step::Create, Behaviour::Take(Duration::from_millis(50)));
    let in_use = Arc::new(Mutex::new(BTreeSet::new()));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (pool, in_use) = (pool.clone(), Arc::clone(&in_use));
            tokio::spawn(async move {
                let held = pool.acquire().await.expect("all are served");
                let _touch = held.touch();
                let first = in_use.lock().expect("no task panics").insert(held.id());
                assert!(first, "{} is held twice", held.id());
                sleep(Duration::from_millis(5)).await;
                in_use.lock().expect("no task panics").remove(&held.id());
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no resource was held twice");
    }
    ends_clean(pool, control).await;
}

// The semaphore is taken for the time of the creation only, and `len(...) < max_size` is read
// without it: many askers at once create more than the maximum.
#[tokio::test(start_paused = true)]
async fn many_askers_at_once_do_not_create_more_than_the_maximum() {
    let (pool, control) = build(|builder| builder.max_size(3).max_creating(3));
    control.set(Step::Create, Behaviour::Take(SECOND));
    let mut asked = Vec::new();
    for _ in 0..50 {
        asked.push(ask(&pool).await);
    }
    sleep(2 * SECOND).await;
    assert_eq!(control.peak(), 3);
    for asked in asked {
        drop(asked.await.expect("no panic").expect("all are served"));
    }
    ends_clean(pool, control).await;
}

// "min(1.0, timeout)" in a loop: the wait is only looked at once a second, and may be passed by
// one; a free connection goes to whoever polls first.
#[tokio::test(start_paused = true)]
async fn a_timeout_is_kept_to_the_tenth_of_a_second() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    let before = Instant::now();
    let request = Request::new().timeout(Duration::from_millis(1_500));
    pool.acquire_with(request).await.expect_err("it is held");
    let waited = before.elapsed();
    assert!(waited >= Duration::from_millis(1_500) && waited < Duration::from_millis(1_600));
    drop(held);
    ends_clean(pool, control).await;
}

// "use_count > max_use_count" is looked at after the use: one lease too many.
#[tokio::test(start_paused = true)]
async fn the_use_count_is_not_off_by_one() {
    let (pool, control) = build(|builder| builder.max_size(1).max_use_count(Some(100)));
    for _ in 0..100 {
        assert_eq!(lease(&pool).await.id().get(), 1);
        settle().await;
    }
    assert_eq!(lease(&pool).await.id().get(), 2);
    settle().await;
    ends_clean(pool, control).await;
}

// The health loop empties the idle queue first: nobody can acquire while it checks.
#[tokio::test(start_paused = true)]
async fn a_slow_health_check_does_not_take_the_pool_away() {
    let (pool, control) = build(|builder| {
        builder
            .min_size(5)
            .max_size(5)
            .health_check_interval(Some(10 * SECOND))
            .check_timeout(MINUTE)
    });
    settle().await;
    control.set(Step::Check, Behaviour::Hold);
    sleep(11 * SECOND).await;
    assert_eq!(pool.load().checking, 1);
    let before = Instant::now();
    let held = [lease(&pool).await, lease(&pool).await, lease(&pool).await, lease(&pool).await];
    assert_eq!(before.elapsed(), Duration::ZERO);
    drop(held);
    control.open(Step::Check);
    settle().await;
    ends_clean(pool, control).await;
}

// One exception in the health loop loses every connection that it had taken out of the queue.
#[tokio::test(start_paused = true)]
async fn a_health_check_that_goes_wrong_loses_nothing() {
    for behaviour in [Behaviour::Fail, Behaviour::Panic, Behaviour::Hang] {
        let (pool, control) = build(|builder| {
            builder.min_size(3).max_size(3).health_check_interval(Some(10 * SECOND))
        });
        settle().await;
        control.next(Step::Check, behaviour);
        sleep(30 * SECOND).await;
        assert_eq!(pool.load().total(), 3, "{behaviour:?}");
        settle().await;
        ends_clean(pool, control).await;
    }
}

// "conn = self._connections.get(conn_id); if conn: ..." - a destroyed id stays in the queue, and
// its asker waits on.
#[tokio::test(start_paused = true)]
async fn what_was_closed_is_never_handed_out() {
    let (pool, control) = pool_of(2);
    drop((lease(&pool).await, lease(&pool).await));
    settle().await;
    let gone = pool.resources()[0].id;
    pool.retire(gone);
    let held = [lease(&pool).await, lease(&pool).await];
    assert!(held.iter().all(|held| held.id() != gone));
    drop(held);
    ends_clean(pool, control).await;
}

// "Released unknown browser connection" is a warning and a leak; and a release puts a connection
// back even after it was destroyed. A lease cannot be released twice, nor to another pool; what is
// released late is unknown, and dropped.
#[tokio::test(start_paused = true)]
async fn the_release_of_something_unknown_does_no_harm() {
    let (pool, control) = build(|builder| builder.max_size(1).hold_limit(Some(SECOND)));
    let late = lease(&pool).await;
    sleep(2 * SECOND).await;
    let held = lease(&pool).await;
    drop(late);
    settle().await;
    assert_eq!((pool.load().leased, pool.load().total()), (1, 1));
    drop(held);
    settle().await;
    assert_eq!(pool.load().idle, 1);
    ends_clean(pool, control).await;
}

// The priority pool never creates anything: its first asker waits for ever.
#[tokio::test(start_paused = true)]
async fn with_priorities_too_the_first_asker_gets_a_new_resource() {
    let (pool, control) = build(|builder| builder.max_size(1).policy(Sorted::default()));
    drop(lease_with(&pool, Request::new().priority(9)).await);
    ends_clean(pool, control).await;
}

// "try get_nowait" first: a newcomer of low priority takes what a waiter of high priority is
// about to get.
#[tokio::test(start_paused = true)]
async fn a_newcomer_does_not_overtake_a_waiter() {
    let (pool, control) = build(|builder| builder.max_size(1).policy(Sorted::default()));
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    let urgent = ask_with(&pool, Request::new().priority(1)).await;
    drop(held);
    let newcomer = ask_with(&pool, Request::new().priority(1)).await;
    drop(answer(urgent).await.expect("it came first"));
    drop(answer(newcomer).await.expect("then the newcomer"));
    ends_clean(pool, control).await;
}

// Low priorities starve while high ones come.
#[tokio::test(start_paused = true)]
async fn low_priorities_do_not_starve() {
    let (pool, control) =
        build(|builder| builder.max_size(1).acquire_timeout(None).policy(Sorted::default()));
    let held = lease(&pool).await;
    let low = ask_with(&pool, Request::new().priority(9)).await;
    let stream = tokio::spawn({
        let pool = pool.clone();
        async move {
            // Two at any time, so that one always waits.
            let worker = || async {
                loop {
                    let urgent = Request::new().priority(1);
                    let held = pool.acquire_with(urgent).await.expect("they are served");
                    sleep(SECOND).await;
                    drop(held);
                }
            };
            let (mut a, mut b) = (Box::pin(worker()), Box::pin(worker()));
            std::future::poll_fn(|cx| {
                assert!(a.as_mut().poll(cx).is_pending() && b.as_mut().poll(cx).is_pending());
                std::task::Poll::<()>::Pending
            })
            .await;
        }
    });
    drop(held);
    sleep(90 * SECOND).await;
    let low = answer(low).await.expect("it has waited for eight levels");
    assert!(low.waited() <= 85 * SECOND);
    drop(low);
    stream.abort();
    settle().await;
    ends_clean(pool, control).await;
}

// A waiter that is cancelled stays in the heap: "future.set_result" raises InvalidStateError, and
// the browser is lost.
#[tokio::test(start_paused = true)]
async fn a_cancelled_waiter_costs_no_resource() {
    let (pool, control) = build(|builder| builder.max_size(1).policy(Sorted::default()));
    for _ in 0..20 {
        let held = lease(&pool).await;
        let cancelled = ask_with(&pool, Request::new().priority(1)).await;
        let patient = ask_with(&pool, Request::new().priority(9)).await;
        cancelled.abort();
        drop(held);
        drop(answer(patient).await.expect("the cancelled one is not in its way"));
        settle().await;
    }
    assert_eq!(control.begun(Step::Create), 1);
    ends_clean(pool, control).await;
}

// The regional pool takes the region from its caller at each call and shares nothing: a pool per
// region, each with a minimum. Ours are classes of one pool, under one maximum.
#[tokio::test(start_paused = true)]
async fn regions_and_profiles_share_one_maximum() {
    let (pool, control) = build(|builder| builder.max_size(3).policy(Sorted::default()));
    for name in ["us-east", "us-west", "eu-west", "ap-south", "work", "personal"] {
        let held = lease_with(&pool, class(name)).await;
        assert_eq!(held.meta().class, class_named(name));
    }
    assert_eq!(control.peak(), 3);
    ends_clean(pool, control).await;
}

// "self.metrics" of the dynamic pool is never written: it sizes by nothing. And it compares
// milliseconds with seconds.
#[tokio::test(start_paused = true)]
async fn sizing_is_fed_with_what_really_happens() {
    #[derive(Default)]
    struct Seen(Arc<Mutex<Vec<Stats>>>);
    #[async_trait]
    impl Policy<FakeDriver> for Seen {
        fn tick(&self, stats: &Stats) -> Vec<Adjustment> {
            self.0.lock().expect("no test panics with it").push(stats.clone());
            Vec::new()
        }
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (pool, control) = build(|builder| builder.max_size(1).policy(Seen(Arc::clone(&seen))));
    let held = lease(&pool).await;
    let waiter = ask(&pool).await;
    sleep(4 * SECOND).await;
    drop(held);
    drop(answer(waiter).await);
    sleep(2 * SECOND).await;
    let seen = seen.lock().expect("no test panics with it").clone();
    assert!(seen.iter().any(|stats| stats.load.waiting == 1 && stats.load.utilization() > 0.99));
    assert!(seen.iter().any(|stats| stats.oldest_wait >= Some(3 * SECOND)));
    let last = seen.last().expect("it ticks every second");
    assert_eq!((last.counters.waited, last.counters.acquired), (4 * SECOND, 2));
    ends_clean(pool, control).await;
}

// The dashboard asks for keys that no pool has: it shows 0 for ever.
#[tokio::test(start_paused = true)]
async fn the_four_plots_of_the_dashboard_can_be_drawn_from_one_snapshot() {
    let (pool, control) = pool_of(2);
    let held = [lease(&pool).await, lease(&pool).await];
    let waiter = ask(&pool).await;
    sleep(SECOND).await;
    let stats = pool.stats();
    assert_eq!((stats.load.leased, stats.load.idle, stats.load.waiting), (2, 0, 1));
    assert!(stats.load.utilization() > 0.99);
    assert_eq!(stats.oldest_wait, Some(SECOND));
    drop(held);
    drop(answer(waiter).await);
    settle().await;
    let stats = pool.stats();
    let average = stats.counters.waited / u32::try_from(stats.counters.acquired).expect("few");
    assert_eq!(average, SECOND / 3);
    assert_eq!((stats.load.leased, stats.load.idle), (0, 2));
    ends_clean(pool, control).await;
}

// "destroyed" in close() empties the list but not the queue, and a lease that is out is put back
// into a pool that is closed.
#[tokio::test(start_paused = true)]
async fn what_comes_back_to_a_closed_pool_is_closed() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    drop(pool);
    drop(held);
    settle().await;
    assert!(control.existing().is_empty() && control.dropped_unclosed().is_empty());
    control.assert_sound();
}

// A warm-up that fails leaves a connection in the pool that was never warmed.
#[tokio::test(start_paused = true)]
async fn a_failed_warm_up_is_never_leased() {
    struct Cold;
    #[async_trait]
    impl Policy<FakeDriver> for Cold {
        async fn prepare(
            &self,
            _: &mut pool_core::testing::FakeResource,
            meta: &pool_core::Meta,
        ) -> Result<(), pool_core::BoxError> {
            if meta.id.get() < 3 { Err("still cold".into()) } else { Ok(()) }
        }
    }
    let (pool, control) = build(|builder| builder.max_size(1).policy(Cold));
    let held = lease(&pool).await;
    assert_eq!(held.id().get(), 3);
    assert_eq!(control.begun(Step::Close), 2);
    drop(held);
    settle().await;
    ends_clean(pool, control).await;
}
