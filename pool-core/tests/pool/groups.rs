use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pool_core::testing::{Step, settle};
use pool_core::{AcquireError, Group, GroupStats, Request};
use tokio::time::{Instant, sleep};

use crate::support::*;

fn of(group: &Arc<Group>) -> Request {
    let mut request = Request::new();
    request.group = Some(Arc::clone(group));
    request
}

fn group(name: &str) -> Group {
    Group::new(name)
}

fn stats(pool: &FakePool, name: &str) -> Option<GroupStats> {
    pool.stats().groups.into_iter().find(|group| &*group.name == name)
}

#[tokio::test(start_paused = true)]
async fn a_full_group_waits_beside_idle_resources_and_others_pass() {
    let (pool, control) = build(|builder| builder.min_size(3).max_size(3));
    settle().await;
    let (ada, ben) = (Arc::new(group("ada").max_leases(1)), Arc::new(group("ben")));
    let first = lease_with(&pool, of(&ada)).await;
    let second = ask_with(&pool, of(&ada)).await;
    assert_eq!((pool.load().idle, pool.load().waiting), (2, 1));
    let other = lease_with(&pool, of(&ben)).await;
    let nobodys = lease(&pool).await;
    assert!(!second.is_finished());
    drop(first);
    let second = answer(second).await.expect("its group has room");
    drop((second, other, nobodys));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_created_for_those_whose_group_is_full() {
    let (pool, control) = pool_of(8);
    let ada = Arc::new(group("ada").max_leases(2));
    let mut asked = Vec::new();
    for _ in 0..20 {
        asked.push(ask_with(&pool, of(&ada)).await);
    }
    settle().await;
    assert_eq!((pool.load().leased, control.peak()), (2, 2));
    for ask in asked {
        drop(ask.await);
    }
    assert_eq!(control.peak(), 2);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn errors_about_a_group_have_its_numbers() {
    let (pool, control) = pool_of(4);
    let ada = Arc::new(group("ada").max_leases(1).max_waiting(1));
    let held = lease_with(&pool, of(&ada)).await;
    let at_once = pool.acquire_with(of(&ada).timeout(Duration::ZERO)).await;
    let Err(AcquireError::GroupFull { group, .. }) = at_once else { panic!("{at_once:?}") };
    assert_eq!((group.leased, group.max_leases), (1, Some(1)));
    let waits = ask_with(&pool, of(&ada).timeout(SECOND)).await;
    let refused = pool.acquire_with(of(&ada)).await;
    let Err(AcquireError::GroupQueueFull { group }) = refused else { panic!("{refused:?}") };
    assert_eq!((group.waiting, group.max_waiting), (1, Some(1)));
    sleep(SECOND).await;
    let late = answer(waits).await;
    let Err(AcquireError::GroupFull { waited, .. }) = late else { panic!("{late:?}") };
    assert_eq!(waited, SECOND);
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn limits_change_while_leases_stay() {
    let (pool, control) = pool_of(4);
    let ada = |max| Arc::new(group("ada").max_leases(max));
    let first = lease_with(&pool, of(&ada(2))).await;
    let second = lease_with(&pool, of(&ada(2))).await;
    pool.set_group(&ada(1));
    let third = ask_with(&pool, of(&ada(1))).await;
    drop(first);
    settle().await;
    assert!(!third.is_finished(), "one is still held");
    pool.set_group(&ada(2));
    drop(answer(third).await.expect("it may have two again"));
    drop(second);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_groups_leave_nothing_behind() {
    let (pool, control) = pool_of(2);
    for n in 0..10_000 {
        let own = Arc::new(group(&n.to_string()).max_leases(1));
        drop(lease_with(&pool, of(&own)).await);
    }
    assert_eq!(pool.stats().groups, []);
    // Also after they have waited for each other.
    let held = lease(&pool).await;
    let busy = lease(&pool).await;
    let mut asked = Vec::new();
    for n in 0..500 {
        asked.push(ask_with(&pool, of(&Arc::new(group(&n.to_string())))).await);
    }
    assert_eq!(pool.stats().groups.len(), 500);
    drop((held, busy));
    for ask in asked {
        drop(ask.await.expect("no panic").expect("a lease"));
    }
    settle().await;
    assert_eq!(pool.stats().groups, []);
    ends_clean(pool, control).await;
}

/// Keeps `depth` requests of a group waiting, each lease held for `held`, and counts the leases.
fn flood(pool: &FakePool, own: &Arc<Group>, depth: usize, held: Duration, labelled: Option<&str>) {
    for _ in 0..depth {
        let (pool, own) = (pool.clone(), Arc::clone(own));
        let labelled = labelled.map(ToOwned::to_owned);
        tokio::spawn(async move {
            loop {
                let mut request = of(&own);
                if let Some(class) = &labelled {
                    request.set("class", class.as_str());
                }
                let Ok(lease) = pool.acquire_with(request).await else { return };
                sleep(held).await;
                drop(lease);
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn where_classes_compete_the_group_that_holds_least_for_its_weight_gets_the_room() {
    let (pool, control) =
        build(|builder| builder.max_size(8).acquire_timeout(None).policy(Sorted::default()));
    // Three times the weight, and it comes later.
    let (heavy, light) = (Arc::new(group("heavy").weight(3.0)), Arc::new(group("light")));
    flood(&pool, &light, 100, SECOND, Some("a"));
    settle().await;
    assert_eq!(stats(&pool, "light").map(|light| light.leased), Some(8));
    sleep(10 * SECOND).await;
    flood(&pool, &heavy, 100, SECOND, Some("b"));
    sleep(10 * SECOND).await;
    let mut held = BTreeMap::from([("heavy", 0), ("light", 0)]);
    let created = control.begun(Step::Create);
    for _ in 0..100 {
        sleep(Duration::from_millis(137)).await;
        for (name, sum) in &mut held {
            *sum += stats(&pool, name).map_or(0, |group| group.leased);
        }
    }
    assert!((570..=630).contains(&held["heavy"]), "{held:?} of 800");
    assert_eq!(control.begun(Step::Create), created, "nothing is closed and made anew in between");
    let until = Instant::now();
    pool.drain(Duration::ZERO).await;
    assert!(until.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_asks_one_by_one_is_held_to_what_it_has_had() {
    let (pool, _) = build(|builder| builder.max_size(1).acquire_timeout(None));
    let (one, many) = (Arc::new(group("one")), Arc::new(group("many").weight(4.0)));
    flood(&pool, &many, 20, SECOND, None);
    settle().await;
    let mut turns = 0;
    let began = Instant::now();
    while began.elapsed() < 100 * SECOND {
        let lease = pool.acquire_with(of(&one)).await.expect("it never fails");
        sleep(SECOND).await;
        drop(lease);
        turns += 1;
    }
    assert!((19..=22).contains(&turns), "{turns} of 100 leases, with a fifth of the weight");
    pool.drain(Duration::ZERO).await;
}
