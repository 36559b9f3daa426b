use pool_core::Pool;
use pool_core::testing::FakeDriver;

use super::*;
use crate::transport::memory::MemoryNetwork;

/// Joins a node with one place.
async fn join(network: &MemoryNetwork, node: &str) -> Fleet<Pool<FakeDriver>> {
    let pool = Pool::builder(FakeDriver::new()).max_size(1).build().unwrap();
    Fleet::join(Member::new("test", node, node), pool, network.member(node)).await.unwrap()
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
