//! Every combination of {ok, err, slow, hang} for create, prepare, check, recycle and close.

use std::time::Duration;

use pool_core::testing::{Behaviour, FakeControl, FakeDriver, FakeResource, Step, settle};
use pool_core::{AcquireError, BoxError, Meta, Policy, Request, async_trait};
use tokio::time::sleep;

use crate::support::*;

const OUTCOMES: [Behaviour; 4] = [
    Behaviour::Pass,
    Behaviour::Fail,
    Behaviour::Take(Duration::from_millis(700)),
    Behaviour::Hang,
];

/// A preparation that does what it is told.
struct Prepares(Behaviour);

#[async_trait]
impl Policy<FakeDriver> for Prepares {
    async fn prepare(&self, _: &mut FakeResource, _: &Meta) -> Result<(), BoxError> {
        match self.0 {
            Behaviour::Fail => return Err("not prepared".into()),
            Behaviour::Take(time) => sleep(time).await,
            Behaviour::Hang => std::future::pending().await,
            _ => {}
        }
        Ok(())
    }
}

/// Nobody waits beside a resource that is idle, or beside room for a creation that is allowed.
fn nothing_is_wasted(pool: &FakePool, control: &FakeControl) {
    let stats = pool.stats();
    let load = stats.load;
    assert!(load.total() <= 2 && control.peak() <= 2, "{load:?}");
    if load.waiting > load.checking {
        assert_eq!(load.idle, 0, "{load:?}");
        let on_their_way = load.creating + load.recycling + load.checking;
        let blocked = stats.classes[0].failing;
        let room = load.total() < load.max_size && load.creating < 2;
        assert!(!room || load.waiting <= on_their_way || blocked, "{load:?}");
    }
}

async fn one(outcomes: [Behaviour; 5]) {
    let [create, prepare, check, recycle, close] = outcomes;
    let (pool, control) = build(|builder| {
        builder
            .max_size(2)
            .max_creating(2)
            .create_timeout(2 * SECOND)
            .check_timeout(SECOND)
            .recycle_timeout(SECOND)
            .close_timeout(SECOND)
            .check_after_idle(Some(Duration::from_millis(100)))
            .health_check_interval(Some(2 * SECOND))
            .policy(Prepares(prepare))
    });
    for (step, outcome) in [
        (Step::Create, create),
        (Step::Check, check),
        (Step::Recycle, recycle),
        (Step::Close, close),
    ] {
        control.set(step, outcome);
    }
    let mut answered = 0;
    for round in 0..3 {
        let mut asked = Vec::new();
        for patience in [1, 4, 9] {
            asked.push(ask_with(&pool, Request::new().timeout(patience * SECOND)).await);
        }
        start_and_maybe_drop(&pool);
        nothing_is_wasted(&pool, &control);
        for asked in asked {
            // A lease or a typed error by its deadline.
            let answer = tokio::time::timeout(10 * SECOND, asked).await.expect("in time");
            match answer.expect("no panic") {
                Ok(held) => {
                    answered += 1;
                    let used = held.touch();
                    sleep(Duration::from_millis(30)).await;
                    drop(used);
                    if round == 1 { held.discard() } else { drop(held) }
                }
                Err(AcquireError::Timeout { .. } | AcquireError::Unavailable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            settle().await;
            nothing_is_wasted(&pool, &control);
        }
        sleep(3 * SECOND).await;
        nothing_is_wasted(&pool, &control);
    }
    let can_be_made =
        ![create, prepare].iter().any(|it| matches!(it, Behaviour::Fail | Behaviour::Hang));
    assert_eq!(answered > 0, can_be_made, "{answered} leases");
    ends_clean(pool, control).await;
}

fn start_and_maybe_drop(pool: &FakePool) {
    let mut asked = Box::pin(pool.acquire());
    let _ = poll_once(asked.as_mut());
}

/// One of four parts, so that they run side by side.
async fn part(create: Behaviour) {
    for prepare in OUTCOMES {
        for check in OUTCOMES {
            for recycle in OUTCOMES {
                for close in OUTCOMES {
                    let outcomes = [create, prepare, check, recycle, close];
                    let ended = tokio::spawn(one(outcomes)).await;
                    assert!(ended.is_ok(), "create, prepare, check, recycle, close: {outcomes:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_accounts_are_exact_whatever_the_others_do_when_creations_are_ok() {
    part(OUTCOMES[0]).await;
}

#[tokio::test(start_paused = true)]
async fn the_accounts_are_exact_whatever_the_others_do_when_creations_fail() {
    part(OUTCOMES[1]).await;
}

#[tokio::test(start_paused = true)]
async fn the_accounts_are_exact_whatever_the_others_do_when_creations_are_slow() {
    part(OUTCOMES[2]).await;
}

#[tokio::test(start_paused = true)]
async fn the_accounts_are_exact_whatever_the_others_do_when_creations_hang() {
    part(OUTCOMES[3]).await;
}
