//! Nodes that lease to each other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pool_fleet::{
    Faults, Grant, JoinError, Member, MemoryNetwork, Message, NatsOptions, NatsTransport, Phase,
    Reason, Transport,
};

use crate::support::{Cable, Nats, NumberFleet, acquainted, join, until, wanted};

/// Longer than any of these tests.
const LONG: Duration = Duration::from_secs(60);

/// Leases a number at one of two nodes through one of them, holds it, and gives it back.
async fn lease_once(through: &NumberFleet, other: &NumberFleet, hold: Duration) -> bool {
    let mut waiter = through.acquire(wanted(LONG));
    loop {
        let (lease, here) = match waiter.next().await.expect("nobody is refused") {
            Grant::Here { lease, .. } => (lease, true),
            Grant::There(remote) => {
                assert_eq!(*remote.node, **other.node());
                let Some(lease) = other.take(&remote.id).await else {
                    waiter.failed();
                    continue;
                };
                waiter.connected();
                lease.hold();
                tokio::time::sleep(hold).await;
                lease.let_go();
                return false;
            }
            _ => unreachable!("there is no third place"),
        };
        lease.hold();
        tokio::time::sleep(hold).await;
        lease.let_go();
        return here;
    }
}

/// Waits until neither node has leases, waits or asks, and every place is accounted for.
async fn all_is_back(nodes: &[&NumberFleet]) {
    until("every place is back", Duration::from_secs(10), async || {
        for node in nodes {
            let snapshot = node.snapshot().await.unwrap();
            let load = node.pool().load();
            let busy = load.leased + load.waiting + load.recycling + load.checking + load.closing;
            if busy + snapshot.clients + snapshot.remote > 0 {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_acquires_over_two_nodes_of_one_place_never_have_two_holders() {
    let nats = Nats::start();
    let (a, b) = tokio::join!(async { join("a", 1, nats.connect().await).await }, async {
        join("b", 1, nats.connect().await).await
    },);
    acquainted(&[&a, &b]).await;
    let here = AtomicUsize::new(0);
    let clients = (0..100).map(|client| {
        let (a, b, here) = (&a, &b, &here);
        async move {
            for round in 0..100 {
                let (through, other) = if (client + round) % 2 == 0 { (a, b) } else { (b, a) };
                if lease_once(through, other, Duration::ZERO).await {
                    here.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    let started = Instant::now();
    futures_util::future::join_all(clients).await;
    println!(
        "10,000 acquires in {:?}, {} of them at the client's own node",
        started.elapsed(),
        here.into_inner()
    );
    all_is_back(&[&a, &b]).await;
    for node in [&a, &b] {
        let counters = node.snapshot().await.unwrap().counters;
        assert_eq!((counters.refused, counters.unreadable), (0, 0), "{counters:?}");
    }
}

#[tokio::test]
async fn a_client_gets_what_is_free_at_another_node_at_once() {
    let nats = Nats::start();
    let (a, b) = tokio::join!(async { join("a", 1, nats.connect().await).await }, async {
        join("b", 4, nats.connect().await).await
    },);
    acquainted(&[&a, &b]).await;
    let mut own = a.acquire(wanted(LONG));
    let Ok(Grant::Here { lease, .. }) = own.next().await else { panic!("its own comes first") };
    let mut waits: Vec<Duration> = Vec::new();
    for _ in 0..20 {
        let started = Instant::now();
        assert!(!lease_once(&a, &b, Duration::ZERO).await);
        waits.push(started.elapsed());
    }
    waits.sort();
    println!("a grant at another node: {:?} at the median", waits[10]);
    // What waits for a timer, such as that of the next beat, waits for half a second at least.
    assert!(waits[10] < Duration::from_millis(250), "{waits:?}");
    drop(lease);
    all_is_back(&[&a, &b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equals_are_served_in_the_order_of_their_coming_within_one_place() {
    let nats = Nats::start();
    let (a, b) = tokio::join!(async { join("a", 1, nats.connect().await).await }, async {
        join("b", 1, nats.connect().await).await
    },);
    acquainted(&[&a, &b]).await;
    let served = std::sync::Mutex::new(Vec::new());
    let clients = (0..30_u64).map(|client| {
        let (a, b, served) = (&a, &b, &served);
        async move {
            tokio::time::sleep(Duration::from_millis(60) * client as u32).await;
            let mut waiter = a.acquire(wanted(LONG));
            let lease = match waiter.next().await.unwrap() {
                Grant::Here { lease, .. } => lease,
                Grant::There(remote) => {
                    let lease = b.take(&remote.id).await.unwrap();
                    waiter.connected();
                    lease
                }
                _ => unreachable!("there is no third place"),
            };
            served.lock().unwrap().push(client);
            // For much longer than it takes to connect to the other node: who is granted a place there
            // is on the way when a place here serves the next.
            tokio::time::sleep(Duration::from_millis(180)).await;
            drop(lease);
        }
    });
    futures_util::future::join_all(clients).await;
    let served = served.into_inner().unwrap();
    for (place, client) in served.iter().enumerate() {
        assert!(
            (place as u64).abs_diff(*client) <= 1,
            "{client} was served as {place}: {served:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_gone_each_node_goes_on_alone_and_joins_again_within_five_seconds() {
    let mut nats = Nats::start();
    let (a, b) = tokio::join!(async { join("a", 1, nats.connect().await).await }, async {
        join("b", 1, nats.connect().await).await
    },);
    acquainted(&[&a, &b]).await;
    let mut first = a.acquire(wanted(LONG));
    let Ok(Grant::Here { lease: held, .. }) = first.next().await else { panic!("it is free") };
    held.hold();

    nats.kill();
    let mut connection = a.transport().connection();
    connection.wait_for(|connection| !connection.is_connected()).await.unwrap();
    // The lease is untouched, the other node serves its own, and who waits is told in time.
    assert!(lease_once(&b, &a, Duration::ZERO).await);
    let mut waiter = a.acquire(wanted(Duration::from_secs(1)));
    let started = Instant::now();
    let refused = waiter.next().await.unwrap_err();
    assert_eq!(refused.reason, Reason::Timeout);
    let late = started.elapsed().saturating_sub(Duration::from_secs(1));
    assert!(late < Duration::from_millis(500), "{late:?} after its deadline");
    let mut patient = a.acquire(wanted(LONG));
    until("the other node is gone", LONG, async || a.snapshot().await.unwrap().nodes.is_empty())
        .await;

    nats.restart();
    let returned = Instant::now();
    let Ok(Grant::There(remote)) = patient.next().await else { panic!("its own is held") };
    assert!(returned.elapsed() < Duration::from_secs(5), "{:?}", returned.elapsed());
    let lease = b.take(&remote.id).await.unwrap();
    patient.connected();
    drop(lease);
    held.let_go();
    drop(held);
    all_is_back(&[&a, &b]).await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_and_free_again_after_a_goodbye() {
    let nats = Nats::start();
    let a = join("a", 1, nats.connect().await).await;
    let pool = || pool_core::Pool::builder(crate::support::Numbers { node: "a" }).build().unwrap();
    let second = |transport| {
        pool_fleet::Fleet::join(Member::new("test", "a", "elsewhere:1"), pool(), transport)
    };
    let refused = second(nats.connect().await).await.unwrap_err();
    assert!(
        matches!(&refused, JoinError::NameTaken { other } if other.incarnation == a.incarnation())
    );
    assert_eq!(refused.to_string(), "the name a is taken by a node at a");
    a.leave().await;
    assert!(a.acquire(wanted(LONG)).next().await.is_err(), "it has left");
    let again = second(nats.connect().await).await.unwrap();
    assert!(again.incarnation() > a.incarnation());
    assert!(again.take("a.0123").await.is_none(), "a lease of the run before is nobody's");
}

#[tokio::test]
async fn a_goodbye_is_heard_from_a_program_that_ends_at_once() {
    let nats = Nats::start();
    let watcher = nats.connect().await;
    let mut beats = watcher.subscribe("bp.test.beat.>").await.unwrap();
    for round in 0..30 {
        let options = NatsOptions::new([nats.url()]);
        let program = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let run = runtime.block_on(async {
                let node = join("a", 1, NatsTransport::connect(options).await.unwrap()).await;
                node.leave().await;
                node.incarnation()
            });
            // As the end of a process: nothing more is done.
            runtime.shutdown_background();
            run
        });
        let run = program.await.unwrap();
        let goodbye = async {
            loop {
                let heard = beats.next().await.unwrap();
                match Message::decode(&heard.payload) {
                    Ok(Message::Beat(beat)) if beat.incarnation != run => {}
                    Ok(Message::Beat(beat)) if beat.phase == Phase::Gone => return,
                    Ok(_) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        // One that was not sent never comes.
        let heard = tokio::time::timeout(LONG, goodbye).await;
        assert!(heard.is_ok(), "no goodbye in round {round}");
    }
}

#[tokio::test]
async fn a_node_that_drains_offers_nothing_until_it_is_told_to() {
    let nats = Nats::start();
    let (a, b) = tokio::join!(async { join("a", 1, nats.connect().await).await }, async {
        join("b", 1, nats.connect().await).await
    },);
    acquainted(&[&a, &b]).await;
    let mut own = a.acquire(wanted(LONG));
    let Ok(Grant::Here { lease, .. }) = own.next().await else { panic!("its own comes first") };
    b.drain();
    let mut waiter = a.acquire(wanted(Duration::from_secs(2)));
    assert!(waiter.next().await.is_err());
    // Clients of its own are served all the same.
    assert!(lease_once(&b, &a, Duration::ZERO).await);
    b.undrain();
    assert!(!lease_once(&a, &b, Duration::ZERO).await);
    drop(lease);
    all_is_back(&[&a, &b]).await;
}

#[tokio::test]
async fn an_offer_that_nobody_connects_to_goes_to_the_next() {
    let nats = Nats::start();
    let (a, b) = tokio::join!(async { join("a", 1, nats.connect().await).await }, async {
        join("b", 1, nats.connect().await).await
    },);
    acquainted(&[&a, &b]).await;
    let mut own = a.acquire(wanted(LONG));
    let Ok(Grant::Here { lease: _held, .. }) = own.next().await else { panic!("it is free") };
    let mut slow = a.acquire(wanted(LONG));
    let Ok(Grant::There(remote)) = slow.next().await else { panic!("its own is held") };
    assert_eq!(b.pool().load().leased, 1);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(b.take(&remote.id).await.is_none(), "two seconds are over");
    // The slow one waits on, with its age.
    slow.failed();
    let Ok(Grant::There(again)) = slow.next().await else { panic!("its own is held") };
    assert_ne!(again.id, remote.id);
    assert!(b.take("b.0").await.is_none());
    assert!(b.take(&again.id).await.is_some());
    slow.connected();
    assert_eq!(b.pool().stats().counters.created, 1, "it came back untouched");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_every_queue() {
    let nats = Nats::start();
    let (a, b) = tokio::join!(async { join("a", 1, nats.connect().await).await }, async {
        join("b", 1, nats.connect().await).await
    },);
    acquainted(&[&a, &b]).await;
    let mut held = Vec::new();
    for node in [&a, &b] {
        let mut own = node.acquire(wanted(LONG));
        let Ok(Grant::Here { lease, .. }) = own.next().await else { panic!("it is free") };
        held.push(lease);
    }
    let mut waiter = a.acquire(wanted(LONG));
    let waiting = tokio::time::timeout(Duration::from_millis(300), waiter.next()).await;
    assert!(waiting.is_err(), "everything is held");
    until("it stands in the other queue", LONG, async || b.snapshot().await.unwrap().remote == 1)
        .await;
    drop(waiter);
    until("it stands nowhere", Duration::from_secs(3), async || {
        let (here, there) = (a.snapshot().await.unwrap(), b.snapshot().await.unwrap());
        here.clients + there.remote == 0 && a.pool().load().waiting + b.pool().load().waiting == 0
    })
    .await;
    drop(held);
    all_is_back(&[&a, &b]).await;
}

/// Runs clients of two nodes until all are served, and looks whether every place comes back.
async fn serve_all(a: &NumberFleet, b: &NumberFleet, clients: u32) {
    let leases = (0..clients).map(|client| async move {
        let (through, other) = if client % 2 == 0 { (a, b) } else { (b, a) };
        lease_once(through, other, Duration::from_millis(5)).await;
    });
    futures_util::future::join_all(leases).await;
    all_is_back(&[a, b]).await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_lost_doubled_and_late_cost_no_place_and_no_client() {
    for seed in 0..10 {
        let network = MemoryNetwork::new();
        let (a, b) =
            tokio::join!(join("a", 2, network.member("a")), join("b", 2, network.member("b")));
        acquainted(&[&a, &b]).await;
        let late = Duration::from_millis(700);
        let faults = Faults::none().loss(0.2).doubling(0.2).delay(Duration::ZERO, late);
        network.set_faults(faults, seed);
        serve_all(&a, &b, 60).await;
        network.set_faults(Faults::none(), seed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_from_the_server_goes_on_alone_and_comes_back() {
    let nats = Nats::start();
    let cable = Cable::to(nats.port()).await;
    let far = NatsTransport::connect(NatsOptions::new([cable.url()])).await.unwrap();
    let (a, b) = tokio::join!(async { join("a", 1, nats.connect().await).await }, async {
        join("b", 1, far).await
    },);
    acquainted(&[&a, &b]).await;
    let over = AtomicBool::new(false);
    let clients = (0..8).map(|client| {
        let (a, b, over) = (&a, &b, &over);
        async move {
            while !over.load(Ordering::Relaxed) {
                let (through, other) = if client % 2 == 0 { (a, b) } else { (b, a) };
                lease_once(through, other, Duration::from_millis(10)).await;
            }
        }
    });
    let cutting = async {
        for _ in 0..2 {
            cable.cut(true);
            for node in [&a, &b] {
                let mut heard = node.nodes();
                within("it hears nobody", heard.wait_for(|names| names.is_empty())).await.unwrap();
            }
            assert!(!b.transport().connection().borrow().is_connected());
            for (node, other) in [(&a, &b), (&b, &a)] {
                let own = lease_once(node, other, Duration::ZERO);
                assert!(within("it serves its clients alone", own).await);
            }
            cable.cut(false);
            within("they hear each other again", acquainted(&[&a, &b])).await;
            // With eight clients for two places, some are served by the other node.
            let there = async { while lease_once(&a, &b, Duration::ZERO).await {} };
            within("they lease to each other again", there).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(futures_util::future::join_all(clients), cutting);
    all_is_back(&[&a, &b]).await;
}

/// Waits for something that takes a few seconds at most.
async fn within<T>(what: &str, something: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(15);
    let in_time = tokio::time::timeout(limit, something).await;
    in_time.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

#[tokio::test]
async fn the_example_shares_three_lathes_between_three_processes() {
    let nats = Nats::start();
    // Next to the directory of this program.
    let tests = std::env::current_exe().unwrap();
    let example = tests.parent().unwrap().with_file_name("examples").join("fleet");
    let ran = tokio::process::Command::new(example).env("NATS_URL", nats.url()).output();
    let ran = tokio::time::timeout(LONG, ran).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(said.lines().count(), 6, "{said}");
    for node in ["a", "b", "c"] {
        assert!(said.contains(&format!("lathe 1 of node {node}")), "{said}");
    }
}
