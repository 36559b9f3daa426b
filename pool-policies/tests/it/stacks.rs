use std::time::Duration;

use pool_core::{Pool, Request};
use pool_policies::{
    DynamicSizing, GeoProxy, Priority, Profile, Profiles, Proxy, Region, WarmUp, Warming,
};

use crate::support::{Browsers, profile, refusal};

fn regions() -> GeoProxy {
    let proxy = |address| Region::new().proxy(Proxy::parse(address).unwrap());
    GeoProxy::builder()
        .region("eu", proxy("http://eu.example:1"))
        .region("us", proxy("http://us.example:1"))
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_profile_brings_its_region_along_unless_the_request_names_another() {
    let root = tempfile::tempdir().unwrap();
    let profiles = Profiles::builder(root.path())
        .profile("work", Profile::new().max_size(2).region("eu"))
        .profile("home", Profile::new())
        .build()
        .unwrap();
    let pool =
        Pool::builder(Browsers::default()).policy(profiles).policy(regions()).build().unwrap();
    let region = async |request: Request| {
        let lease = pool.acquire_with(request).await.unwrap();
        lease.proxy.as_ref().map(|proxy| proxy.region().to_owned())
    };
    assert_eq!(region(profile("work")).await.as_deref(), Some("eu"));
    assert_eq!(region(profile("work").label("region", "us")).await.as_deref(), Some("us"));
    assert_eq!(region(profile("home")).await, None);
    let unknown = pool.acquire_with(profile("work").label("region", "mars")).await;
    assert_eq!(refusal(unknown), "unknown_region");
}

#[tokio::test(start_paused = true)]
async fn a_minimum_is_kept_where_requests_for_the_profile_will_look() {
    let root = tempfile::tempdir().unwrap();
    let work = Profile::new().min_size(1).region("eu");
    let profiles = Profiles::builder(root.path()).profile("work", work).build().unwrap();
    let pool =
        Pool::builder(Browsers::default()).policy(profiles).policy(regions()).build().unwrap();
    crate::support::until("the minimum is there", || pool.load().idle == 1).await;
    let lease = pool.acquire_with(profile("work")).await.unwrap();
    assert_eq!(lease.id, 1);
    assert_eq!(lease.proxy.as_ref().unwrap().region(), "eu");
}

#[tokio::test(start_paused = true)]
async fn a_minimum_of_one_policy_and_a_warm_number_of_another_hold_together() {
    let root = tempfile::tempdir().unwrap();
    let work = Profile::new().min_size(1).max_size(3);
    let pool = Pool::builder(Browsers::default())
        .policy(Profiles::builder(root.path()).profile("work", work).build().unwrap())
        .policy(Warming::new(WarmUp::new()).keep(2))
        .build()
        .unwrap();
    let work = || {
        let stats = pool.stats();
        let of = stats.classes.iter().find(|class| class.class.get("profile").is_some());
        of.map(|class| (class.min, class.load.max_size, class.warm, class.load.idle))
    };
    crate::support::until("two are ready", || work() == Some((1, 3, 2, 2))).await;
}

#[tokio::test(start_paused = true)]
async fn all_five_work_together() {
    let root = tempfile::tempdir().unwrap();
    let profiles = Profiles::builder(root.path())
        .profile("work", Profile::new().max_size(2).region("eu"))
        .build()
        .unwrap();
    let pool = Pool::builder(Browsers::default())
        .policy(profiles)
        .policy(regions())
        .policy(Priority::new())
        .policy(DynamicSizing::builder().build().unwrap())
        .policy(Warming::new(WarmUp::new()).keep(1))
        .min_size(1)
        .max_size(6)
        .build()
        .unwrap();
    let tasks: Vec<_> = (0..60_u8)
        .map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let request = match n % 3 {
                    0 => profile("work"),
                    1 => Request::new().label("region", "us"),
                    _ => Request::new(),
                };
                let lease = pool.acquire_with(request.priority(n % 10 + 1)).await.unwrap();
                assert_eq!(lease.warmed.len(), 1);
                assert_eq!(lease.profile.is_some(), n % 3 == 0);
                let region = lease.proxy.as_ref().map(|proxy| proxy.region().to_owned());
                assert_eq!(region.as_deref(), [Some("eu"), Some("us"), None][usize::from(n % 3)]);
                tokio::time::sleep(Duration::from_millis(100)).await;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(pool.stats().counters.released, 60);
    pool.close().await;
    assert_eq!(pool.driver().control.created(), pool.driver().control.closed());
}
