use pool_core::{Class, Policy, Request};
use pool_policies::{GeoProxy, Priority, Profile, Profiles, Proxy, Region};

use crate::support::Browsers;

/// What the pool does with a request that it has seen the like of before.
fn decide(policies: &[&dyn Policy<Browsers>], request: &Request) -> Class {
    let mut request = request.clone();
    let mut class = Class::default();
    for policy in policies {
        policy.admit(&mut request).unwrap();
    }
    for policy in policies {
        policy.classify(&request, &mut class);
        policy.rank(&request);
    }
    class
}

#[test]
fn the_hooks_of_an_acquire_allocate_nothing() {
    let root = tempfile::tempdir().unwrap();
    let profiles = Profiles::builder(root.path())
        .profile("work", Profile::new())
        .on_demand(Profile::new())
        .build()
        .unwrap();
    let proxy = Proxy::parse("http://eu.example:1").unwrap();
    let regions = GeoProxy::builder().region("eu", Region::new().proxy(proxy)).build().unwrap();
    let policies: [&dyn Policy<Browsers>; 3] = [&profiles, &Priority::new(), &regions];
    for request in [
        Request::new().priority(1),
        Request::new().label("profile", "work"),
        Request::new().label("profile", "made-on-demand"),
        Request::new().label("region", "eu"),
        Request::new().label("profile", "work").label("region", "eu").priority(3),
    ] {
        let first = decide(&policies, &request);
        let mut again = Class::default();
        let allocated = allocation_counter::measure(|| again = decide(&policies, &request));
        assert_eq!(allocated.count_total, 0, "{first}");
        assert_eq!(first, again);
    }
}
