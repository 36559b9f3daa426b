use std::future::pending;

use pool_core::Pool;
use pool_core::testing::FakeDriver;
use tokio::time::Instant;

use super::*;
use crate::message::Wanted;
use crate::transport::memory::MemoryNetwork;

const LONG: Duration = Duration::from_secs(60);

/// Joins a node with one place.
async fn join(network: &MemoryNetwork, node: &str) -> Fleet<Pool<FakeDriver>> {
    let pool = Pool::builder(FakeDriver::new()).max_size(1).build().unwrap();
    Fleet::join(Member::new("test", node, node), pool, network.member(node)).await.unwrap()
}

fn waiting() -> Waiting {
    let request = Wanted { class: "default".into(), ..Wanted::default() };
    Waiting::new(Arc::new(request), LONG)
}

#[tokio::test(start_paused = true)]
async fn the_other_nodes_are_sorted_by_name() {
    let network = MemoryNetwork::new();
    let first = join(&network, "m").await;
    let mut others = Vec::new();
    for name in ["k", "z", "b", "x", "a", "q", "c", "y"] {
        others.push(join(&network, name).await);
    }
    let expected = ["a", "b", "c", "k", "q", "x", "y", "z"];
    let mut heard = first.nodes();
    let names = heard.wait_for(|names| names.len() == others.len()).await.unwrap().clone();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), expected);
    let snapshot = first.snapshot().await.unwrap();
    let names: Vec<&str> = snapshot.nodes.iter().map(|beat| &*beat.node).collect();
    assert_eq!(names, expected);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_too_long_is_given_up_and_the_client_waits_on() {
    let network = MemoryNetwork::new();
    let (a, b) = (join(&network, "a").await, join(&network, "b").await);
    a.nodes().wait_for(|names| names.len() == 1).await.unwrap();
    b.nodes().wait_for(|names| names.len() == 1).await.unwrap();
    let Ok(Grant::Here { lease: _held, .. }) = a.acquire(waiting()).next().await else {
        panic!("its own comes first");
    };
    let (started, mut offered) = (Instant::now(), Vec::new());
    let acquired = a.acquire_with(waiting(), async |remote| {
        offered.push(Arc::clone(&remote.id));
        if offered.len() == 1 {
            pending::<()>().await;
        }
        b.take(&remote.id).await.ok_or("too late")
    });
    let Ok(Acquired::There { remote, .. }) = acquired.await else { panic!("b has one") };
    assert_eq!(offered.len(), 2, "{offered:?}");
    assert_eq!(offered[1], remote.id);
    assert_ne!(offered[0], remote.id, "the first went back to its node");
    let connect = Settings::default().connect;
    let waited = started.elapsed();
    assert!(waited >= connect && waited < connect * 2, "{waited:?}");
    let counters = a.snapshot().await.unwrap().counters;
    assert_eq!((counters.connections_failed, counters.granted_there), (1, 1));
}
