use pool_core::testing::{Behaviour, Step, settle};
use pool_core::{Limits, Request};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_request_gets_a_resource_of_its_own_class_only() {
    let (pool, control) = build(|builder| builder.max_size(2).policy(Sorted::default()));
    let a = lease_with(&pool, class("a")).await;
    assert_eq!(a.meta().class, class_named("a"));
    assert_eq!(a.label("class"), Some("a"), "the policy has configured it");
    drop(a);
    settle().await;
    let b = lease_with(&pool, class("b")).await;
    assert_eq!(b.label("class"), Some("b"));
    assert_eq!((pool.load().leased, pool.load().idle), (1, 1));
    drop(b);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn in_a_full_pool_the_least_recently_used_idle_resource_makes_room() {
    let (pool, control) = build(|builder| builder.max_size(2).policy(Sorted::default()));
    let mut events = pool.events();
    drop(lease_with(&pool, class("a")).await);
    sleep(SECOND).await;
    drop(lease_with(&pool, class("b")).await);
    sleep(SECOND).await;
    drop(lease_with(&pool, class("c")).await);
    settle().await;
    let left: Vec<_> = pool.resources().into_iter().map(|info| info.class.to_string()).collect();
    assert_eq!(left, ["class=b", "class=c"]);
    assert_eq!(close_reasons(&all(&mut events)), ["evicted"]);
    assert_eq!(control.peak(), 2);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_class_can_spare_makes_room_before_what_it_should_keep() {
    let (pool, control) = build(|builder| {
        let keep = Limits { min: Some(1), ..Limits::default() };
        builder.max_size(2).policy(Sorted::default().limit("kept", keep))
    });
    drop(lease_with(&pool, class("kept")).await);
    sleep(SECOND).await;
    drop(lease_with(&pool, class("spare")).await);
    sleep(SECOND).await;
    drop(lease_with(&pool, class("new")).await);
    settle().await;
    let left: Vec<_> = pool.resources().into_iter().map(|info| info.class.to_string()).collect();
    assert_eq!(left, ["class=kept", "class=new"]);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_class_does_not_starve_another() {
    let (pool, control) =
        build(|builder| builder.max_size(2).acquire_timeout(None).policy(Sorted::default()));
    // Ten workers of the busy class keep both resources in use without a gap.
    let workers: Vec<_> = (0..10)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                loop {
                    let held = pool.acquire_with(class("busy")).await.expect("they take turns");
                    sleep(std::time::Duration::from_millis(100)).await;
                    drop(held);
                }
            })
        })
        .collect();
    sleep(SECOND).await;
    let before = tokio::time::Instant::now();
    let mut worst = std::time::Duration::ZERO;
    for _ in 0..20 {
        let asked = tokio::time::Instant::now();
        drop(lease_with(&pool, class("rare")).await);
        worst = worst.max(asked.elapsed());
        sleep(3 * SECOND).await;
    }
    assert!(worst < 3 * SECOND, "the rare class has waited {worst:?}");
    let stats = pool.stats();
    let busy = stats.classes.iter().find(|held| held.class == class_named("busy"));
    let granted = busy.expect("it is in use").granted;
    let could = before.elapsed().as_secs() * 20;
    assert!(granted * 2 > could, "the busy class got {granted} of {could}");
    for worker in workers {
        worker.abort();
    }
    settle().await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn two_classes_in_contention_do_not_evict_each_other_at_every_turn() {
    let (pool, control) =
        build(|builder| builder.max_size(1).acquire_timeout(None).policy(Sorted::default()));
    let worker = |name: &'static str| {
        let pool = pool.clone();
        async move {
            for _ in 0..100 {
                let held = pool.acquire_with(class(name)).await.expect("they take turns");
                sleep(std::time::Duration::from_millis(20)).await;
                drop(held);
            }
        }
    };
    let workers: Vec<_> =
        ["a", "a", "a", "b", "b", "b"].into_iter().map(|name| tokio::spawn(worker(name))).collect();
    for worker in workers {
        worker.await.expect("no worker panics");
    }
    let made = control.begun(Step::Create);
    assert!(made < 40, "600 leases took {made} creations");
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn of_many_classes_none_starves() {
    let (pool, control) = build(|builder| {
        builder.max_size(3).max_creating(3).acquire_timeout(None).policy(Sorted::default())
    });
    control.set(Step::Create, Behaviour::Take(std::time::Duration::from_millis(50)));
    let workers: Vec<_> = (0..12)
        .map(|worker| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut worst = std::time::Duration::ZERO;
                for _ in 0..20 {
                    let asked = tokio::time::Instant::now();
                    let request = class(&format!("{}", worker % 6));
                    let held = pool.acquire_with(request).await.expect("all are served");
                    worst = worst.max(asked.elapsed());
                    sleep(std::time::Duration::from_millis(30)).await;
                    drop(held);
                }
                worst
            })
        })
        .collect();
    for worker in workers {
        let worst = worker.await.expect("no worker panics");
        assert!(worst < 10 * SECOND, "somebody waited {worst:?}");
    }
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_a_class_are_asked_for_once_when_it_is_first_seen() {
    let (pool, control) = build(|builder| {
        let limits = Limits { min: Some(2), max: Some(2), warm: None };
        builder.max_size(5).policy(Sorted::default().limit("a", limits))
    });
    let held = lease_with(&pool, class("a")).await;
    settle().await;
    assert_eq!((pool.load().leased, pool.load().idle), (1, 1));
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_default_class_gets_its_limits_from_the_policies_too() {
    let (pool, control) = build(|builder| {
        let limits = Limits { min: None, max: Some(3), warm: Some(2) };
        builder.max_size(5).policy(Sorted::default().limit("default", limits))
    });
    settle().await;
    assert_eq!(pool.load().idle, 2, "kept warm from the start");
    let held = [lease(&pool).await, lease(&pool).await, lease(&pool).await];
    assert!(pool.acquire_with(Request::new().timeout(SECOND)).await.is_err());
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_class_that_is_empty_is_forgotten_and_known_again_when_asked_for() {
    let (pool, control) =
        build(|builder| builder.max_size(2).max_idle_time(Some(MINUTE)).policy(Sorted::default()));
    for _ in 0..3 {
        drop(lease_with(&pool, class("a")).await);
        assert_eq!(pool.stats().classes.len(), 2);
        sleep(2 * MINUTE).await;
        assert_eq!(pool.stats().classes.len(), 1);
    }
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn one_waiter_evicts_one_and_a_class_that_fails_no_more_than_it_may_try() {
    let (pool, control) =
        build(|builder| builder.max_size(4).max_creating(4).policy(Sorted::default()));
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(lease_with(&pool, class("a")).await);
    }
    drop(held);
    settle().await;
    control.set(Step::Create, Behaviour::Fail);
    let mut waiters = vec![ask_with(&pool, class("b")).await];
    let idle = |pool: &FakePool| {
        let stats = pool.stats();
        stats.classes.iter().find(|held| held.class == class_named("a")).map(|a| a.load.idle)
    };
    assert_eq!(idle(&pool), Some(3));
    for _ in 0..3 {
        waiters.push(ask_with(&pool, class("b")).await);
    }
    sleep(SECOND).await;
    assert_eq!(idle(&pool), Some(3), "its tries go one at a time, so one place is enough");
    for waiter in waiters {
        drop(waiter.await.expect("no panic").expect_err("nothing can be made"));
    }
    ends_clean(pool, control).await;
}
