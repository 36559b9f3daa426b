use std::error::Error;
use std::time::Duration;

use pool_core::{Pool, Request};
use pool_policies::{PolicyError, Profile, Profiles, WarmUp, Warming};

use crate::support::{Browsers, Warmth, cause, pool, profile, until};

#[tokio::test(start_paused = true)]
async fn a_new_resource_is_warmed_once_before_its_first_lease() {
    let how = WarmUp::new().viewport(800, 600).user_agent("test").url("about:blank").script("1");
    let pool = pool(Warming::new(how.clone()));
    for _ in 0..3 {
        let lease = pool.acquire().await.unwrap();
        assert_eq!(lease.warmed, std::slice::from_ref(&how));
    }
    assert_eq!(pool.driver().control.created(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_warm_up_is_a_failed_creation_and_the_resource_is_closed() {
    let pool = pool(Warming::new(WarmUp::new()));
    let control = pool.driver().control.clone();
    control.warm_up(Warmth::Fails);
    let error = pool.acquire().await.err().unwrap();
    assert!(matches!(cause(&error), PolicyError::WarmUpFailed { .. }));
    assert_eq!(cause(&error).source().unwrap().to_string(), "the page crashed");
    until("all of them are closed", || control.closed() == control.created()).await;

    control.warm_up(Warmth::Works);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(pool.acquire().await.unwrap().warmed.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_warm_up_that_takes_too_long_is_a_failed_creation() {
    let limit = Duration::from_secs(3);
    let pool = pool(Warming::new(WarmUp::new().timeout(limit)));
    pool.driver().control.warm_up(Warmth::Hangs);
    let request = Request::new().timeout(Duration::from_secs(4));
    let error = pool.acquire_with(request).await.err().unwrap();
    assert!(
        matches!(cause(&error), PolicyError::TookTooLong { limit: held, .. } if *held == limit)
    );
}

#[tokio::test(start_paused = true)]
async fn resources_are_kept_ready_beyond_those_in_use() {
    let pool = pool(Warming::new(WarmUp::new()).keep(2));
    until("two are ready", || pool.load().idle == 2).await;
    let leases = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    until("two more are ready", || pool.load().idle == 2).await;
    assert_eq!(pool.load().total(), 4);
    drop(leases);
}

#[tokio::test(start_paused = true)]
async fn a_profile_may_keep_another_number_ready() {
    let root = tempfile::tempdir().unwrap();
    let profiles = Profiles::builder(root.path())
        .profile("busy", Profile::new().max_size(4).warm(2))
        .profile("quiet", Profile::new().max_size(4))
        .build()
        .unwrap();
    let pool = Pool::builder(Browsers::default())
        .policy(profiles)
        .policy(Warming::new(WarmUp::new()).keep(1))
        .max_size(20)
        .build()
        .unwrap();
    let idle = |name: &str| {
        let stats = pool.stats();
        let of = stats.classes.iter().find(|class| class.class.get("profile") == Some(name));
        of.map_or(0, |class| class.load.idle)
    };
    until("the busy profile has its two", || idle("busy") == 2).await;
    let lease = pool.acquire_with(profile("quiet")).await.unwrap();
    until("the quiet profile has the common one", || idle("quiet") == 1).await;
    drop(lease);
}
