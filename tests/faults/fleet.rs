//! F60 to F73: of several nodes that are one pool, one dies, stands still, is cut off or has a wrong clock.
//!
//! In most of them node 0 is a gateway without browsers, so that whatever it leases is elsewhere.

use std::time::Duration;

use browser_pool_tests::{
    CableState, Cdp, Closed, FarMachine, Fleet, Holders, Node, Refused, Service, Setup, Site,
    eventually, fleet, request, rounds, within,
};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::support::works;

/// Maximum time until a client knows that its node is lost.
const TOLD: Duration = Duration::from_secs(2);

/// Maximum time until a client that nothing holds up is served, on a machine that has much else to do.
const SERVED: Duration = Duration::from_secs(5);

/// Maximum time until nodes hear each other again once they can: five seconds, and two beats.
const TOGETHER: Duration = Duration::from_secs(7);

/// Maximum time until a fleet is whole again, once what was broken is mended.
const MENDED: Duration = Duration::from_secs(15);

/// Maximum time until the client of a call of six seconds knows that its node says nothing: ten
/// seconds more, and some for the machine.
const CALL_LOST: Duration = Duration::from_secs(25);

/// Size of an answer that the sockets on its way cannot hold, in bytes.
const LARGE: usize = 40_000_000;

/// A node with one browser.
fn one() -> Setup {
    Setup::new().size(1).set("pool.acquire_timeout", "1m")
}

/// A node with none.
fn gateway() -> Setup {
    one().without_browsers()
}

/// The lease that a client has asked for.
async fn served(asked: JoinHandle<Result<Cdp, Refused>>, limit: Duration) -> Cdp {
    let answer = within("a client is served", limit, asked).await.expect("it does not panic");
    answer.unwrap_or_else(|refused| panic!("a client that waits is served: {refused:?}"))
}

/// Leases the browser of every node through node 0, in the order of the nodes.
async fn one_of_each(fleet: &Fleet) -> Vec<Cdp> {
    let with_browsers = fleet.nodes.iter().filter(|node| node.setup.min_size() > 0).count();
    let mut leases = fleet.lease(0, with_browsers).await;
    leases.sort_by_key(|lease| fleet.node_of(lease));
    let nodes: Vec<usize> = leases.iter().map(|lease| fleet.node_of(lease)).collect();
    assert!(nodes.is_sorted_by(|one, next| one < next), "two at one node: {nodes:?}");
    leases
}

fn is_lost(closed: &Closed) {
    assert_eq!(closed.code, 4500, "{closed:?}");
    assert!(closed.reason.starts_with("node_lost"), "{closed:?}");
}

/// Asks for a lease that cannot be had, and is told so by its deadline.
async fn is_told_in_time(fleet: &Fleet, gateway: usize) {
    let asked = Instant::now();
    let refused = fleet.nodes[gateway].service.try_connect("/?acquire_timeout=1500").await;
    let refused = refused.expect_err("no browser can be reached");
    assert_eq!((refused.status, refused.code()), (408, "acquire_timeout"), "{refused:?}");
    let took = asked.elapsed();
    assert!(took < Duration::from_millis(2500), "told after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f60_node_killed_and_started_again_under_its_name() {
    fleet([gateway(), one(), one()], async |fleet| {
        let [lost, kept] = one_of_each(fleet).await.try_into().expect("of two nodes");
        let waits = fleet.nodes[0].asks("/");
        fleet.nodes[2].until_waiting(1).await;
        let killed = Instant::now();
        fleet.nodes[1].service.kill().await;
        let closed = lost.closed(TOLD).await;
        println!("told {:?} after the kill: {closed:?}", closed.at - killed);
        is_lost(&closed);
        fleet.nodes[1].oracle.gone(TOLD).await;
        works(&kept).await.expect("a lease elsewhere goes on");
        kept.close().await;
        let other = served(waits, SERVED).await;
        assert_eq!(fleet.node_of(&other), 2);
        works(&other).await.expect("the client that waited has a browser");

        fleet.restart(1).await;
        let id = lost.lease.clone().expect("the pool tells it");
        let gone = fleet.nodes[0].service.try_connect(&format!("/devtools/browser/{id}")).await;
        let gone = gone.expect_err("a lease of an earlier run is nobody's");
        assert!([404, 410].contains(&gone.status), "{gone:?}");
        let killed = fleet.nodes[0].service.post(&format!("/kill/{id}"), &json!({})).await;
        assert_eq!(killed.status, 404, "{killed:?}");
        let again = served(fleet.nodes[0].asks("/"), SERVED).await;
        assert_eq!(fleet.node_of(&again), 1, "the new run serves");
        works(&again).await.expect("and well");
        again.close().await;
        other.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f61_idle_node_stopped() {
    fleet([gateway(), one(), one()], async |fleet| {
        let holders = Holders::default();
        fleet.nodes[1].service.signal(Signal::STOP);
        // Whichever is asked first, the one that answers serves.
        let first = served(fleet.nodes[0].asks("/"), SERVED).await;
        let held = holders.hold(&first).await;
        assert_eq!(fleet.node_of(&first), 2);
        is_told_in_time(fleet, 0).await;
        let others = [0, 2].map(|node| fleet.nodes[node].name.clone());
        fleet.nodes[0].hears(others.iter().map(String::as_str)).await;
        let waits = fleet.nodes[0].asks("/");
        fleet.nodes[1].service.signal(Signal::CONT);
        let second = served(waits, MENDED).await;
        assert_eq!(fleet.node_of(&second), 1);
        drop((holders.hold(&second).await, held));
        first.close().await;
        second.close().await;
        fleet.acquainted().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f61_node_stopped_while_it_has_a_lease() {
    fleet([gateway(), one(), one()], async |fleet| {
        let [stopped, kept] = one_of_each(fleet).await.try_into().expect("of two nodes");
        fleet.nodes[1].service.signal(Signal::STOP);
        // Not missed yet, and asked about its lease: answered all the same.
        let id = stopped.lease.clone().expect("the pool tells it");
        let (address, path) = (fleet.nodes[0].address(), format!("/browsers/{id}"));
        let about = tokio::spawn(async move { request(&address, "GET", &path, &[], "").await });
        let waits = fleet.nodes[0].asks("/");
        fleet.nodes[2].until_waiting(1).await;
        kept.close().await;
        let other = served(waits, SERVED).await;
        assert_eq!(fleet.node_of(&other), 2);
        let about = within("a call is answered", MENDED, about).await.expect("it does not panic");
        let about = about.expect("an answer");
        assert_eq!((about.status, &about.json()["code"]), (503, &json!("node_lost")), "{about:?}");
        let others = [0, 2].map(|node| fleet.nodes[node].name.clone());
        fleet.nodes[0].hears(others.iter().map(String::as_str)).await;
        fleet.nodes[1].service.signal(Signal::CONT);
        // Told that its node was lost, or served by it: never left without a word.
        match works(&stopped).await {
            Ok(()) => stopped.close().await,
            Err(error) => {
                println!("the client of the stopped node: {error}");
                is_lost(&stopped.closed(TOLD).await);
            }
        }
        other.close().await;
        fleet.acquainted().await;
        fleet.nodes[1].until_released(MENDED).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f61_node_stopped_during_a_call() {
    fleet([gateway(), one()], async |fleet| {
        let site = Site::start().await;
        let address = fleet.nodes[0].address();
        let body = json!({ "url": site.at("/hang") }).to_string();
        let call = tokio::spawn(async move {
            let json = [("content-type", "application/json")];
            request(&address, "POST", "/content?timeout=6000", &json, &body).await
        });
        fleet.nodes[1].until_leased(1).await;
        // The call is the other node's by now, and not merely offered to it.
        eventually("the page loads", SERVED, async || {
            if site.seen().is_empty() { Err("nothing was asked for") } else { Ok(()) }
        })
        .await;
        fleet.nodes[1].service.signal(Signal::STOP);
        let told = within("its client is told", CALL_LOST, call).await.expect("it does not panic");
        let told = told.expect("an answer");
        assert_eq!((told.status, &told.json()["code"]), (503, &json!("node_lost")), "{told:?}");
        fleet.nodes[1].service.signal(Signal::CONT);
        fleet.nodes[1].until_released(MENDED).await;
        fleet.acquainted().await;
        works(&fleet.lease(0, 1).await[0]).await.expect("the node serves again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f61_node_stopped_during_an_answer() {
    fleet([gateway(), one()], async |fleet| {
        let address = fleet.nodes[0].address();
        let html = format!("<script>document.write(`<!--${{'x'.repeat({LARGE})}}-->`)</script>");
        let body = json!({ "html": html }).to_string();
        let mut client = TcpStream::connect(&address).await.expect("it listens");
        let head = format!(
            "POST /content?timeout=6000 HTTP/1.1\r\nhost: {address}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        client.write_all((head + &body).as_bytes()).await.expect("it takes a request");
        let mut status = [0; 12];
        let begun = within("its answer begins", MENDED, client.read_exact(&mut status)).await;
        begun.expect("an answer");
        assert_eq!(&status, b"HTTP/1.1 200");
        fleet.nodes[1].service.signal(Signal::STOP);
        let mut rest = Vec::new();
        let ended = within("its answer ends", CALL_LOST, client.read_to_end(&mut rest)).await;
        println!("the answer of the stopped node: {} bytes, {ended:?}", rest.len());
        assert!(rest.len() < LARGE, "all of it was on its way: nothing was held up");
        fleet.nodes[1].service.signal(Signal::CONT);
        fleet.nodes[1].until_released(MENDED).await;
        fleet.acquainted().await;
        works(&fleet.lease(0, 1).await[0]).await.expect("the node serves again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f62_gateway_killed() {
    fleet([gateway(), one()], async |fleet| {
        let theirs = fleet.nodes[0].service.connect("/").await;
        let also_theirs = fleet.nodes[0].asks("/");
        fleet.nodes[1].until_waiting(1).await;
        let own = fleet.nodes[1].asks("/");
        fleet.nodes[1].until_waiting(2).await;
        fleet.nodes[0].service.kill().await;
        assert_eq!(theirs.closed(TOLD).await.code, 1006, "there is nobody to say anything");
        let refused = also_theirs.await.expect("it does not panic").expect_err("it is dead");
        assert_eq!(refused.status, 0, "{refused:?}");
        // The browser is back, and the dead gateway's request does not stand before it for long.
        let own = served(own, SERVED).await;
        works(&own).await.expect("the node's own client is served");
        fleet.nodes[1].until_waiting(0).await;
        own.close().await;
        fleet.restart(0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f62_gateway_stopped_with_many_requests_at_the_head_of_a_queue() {
    const REQUESTS: usize = 5;
    fleet([gateway(), one()], async |fleet| {
        let holders = Holders::default();
        let holder = fleet.nodes[1].service.connect("/").await;
        let mut theirs = Vec::new();
        for request in 0..REQUESTS {
            theirs.push(fleet.nodes[0].asks("/"));
            fleet.nodes[1].until_waiting(request + 1).await;
        }
        let own = fleet.nodes[1].asks("/");
        fleet.nodes[1].until_waiting(REQUESTS + 1).await;
        let before = unanswered(&fleet.nodes[1]).await;
        fleet.nodes[0].service.signal(Signal::STOP);
        holder.close().await;
        let began = Instant::now();
        let own = served(own, SERVED).await;
        println!("served {:?} after the release", began.elapsed());
        // Half a second each, whatever else takes time.
        let lost = unanswered(&fleet.nodes[1]).await - before;
        assert!(lost <= 1, "{lost} offers to it were waited for");
        let held = holders.hold(&own).await;
        fleet.nodes[0].service.signal(Signal::CONT);
        sleep(Duration::from_secs(1)).await;
        drop(held);
        own.close().await;
        for request in theirs {
            let client = served(request, MENDED).await;
            drop(holders.hold(&client).await);
            client.close().await;
        }
    })
    .await;
}

/// The offers of a node that were not answered so far.
async fn unanswered(node: &Node) -> u64 {
    let fleet = node.service.get("/api/fleet").await.json();
    fleet["counters"]["offers_unanswered"].as_u64().unwrap_or_else(|| panic!("{fleet}"))
}

/// Faults of the NATS server, and the way in which it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    Killed,
    Emptied,
    Stopped,
}

#[tokio::test(flavor = "multi_thread")]
async fn f63_nats_killed_and_started_again_empty_or_as_it_was() {
    for outage in [Outage::Emptied, Outage::Killed].into_iter().take(rounds(1, 2)) {
        nats_fails(outage).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f63_nats_stopped() {
    nats_fails(Outage::Stopped).await;
}

async fn nats_fails(outage: Outage) {
    fleet([one(), one()], async |fleet| {
        let holders = Holders::default();
        let [here, there] = one_of_each(fleet).await.try_into().expect("of two nodes");
        let waits = fleet.nodes[0].asks("/");
        fleet.nodes[1].until_waiting(1).await;
        match outage {
            Outage::Killed | Outage::Emptied => fleet.nats.kill().await,
            Outage::Stopped => fleet.nats.signal(Signal::STOP),
        }
        for lease in [&here, &there] {
            works(lease).await.expect("leases go on");
        }
        is_told_in_time(fleet, 1).await;
        // Each node goes on alone with what it has.
        there.close().await;
        let own = served(fleet.nodes[1].asks("/"), MENDED).await;
        assert_eq!(fleet.node_of(&own), 1);
        let held = holders.hold(&own).await;
        for node in &fleet.nodes {
            node.hears([&*node.name]).await;
        }
        match outage {
            Outage::Killed => fleet.nats.restart().await,
            Outage::Emptied => fleet.nats.restart_empty().await,
            Outage::Stopped => fleet.nats.signal(Signal::CONT),
        }
        let took = fleet.acquainted().await;
        println!("together again {took:?} after it was back");
        assert!(took < TOGETHER, "{took:?}");
        drop(held);
        own.close().await;
        let waited = served(waits, MENDED).await;
        assert_eq!(fleet.node_of(&waited), 1, "it has waited all the time");
        works(&waited).await.expect("it is relayed again");
        waited.close().await;
        here.close().await;
    })
    .await;
}

/// The ways to node 1 that are cut, and how.
#[derive(Clone, Copy, Debug)]
struct Cuts {
    nats: bool,
    link: bool,
    how: CableState,
}

impl Cuts {
    fn make(self, fleet: &Fleet, state: CableState) {
        let node = &fleet.nodes[1];
        for (is_cut, cable) in [(self.nats, &node.nats), (self.link, &node.link)] {
            if is_cut {
                cable.set(state);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f64_node_cut_from_nats() {
    // Without being told, which is the harder one, and told.
    for how in [CableState::Silent, CableState::Cut].into_iter().take(rounds(1, 2)) {
        node_is_cut_off(Cuts { nats: true, link: false, how }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f64_node_cut_from_the_other_nodes() {
    node_is_cut_off(Cuts { nats: false, link: true, how: CableState::Cut }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f64_node_cut_from_both() {
    node_is_cut_off(Cuts { nats: true, link: true, how: CableState::Cut }).await;
}

async fn node_is_cut_off(cuts: Cuts) {
    fleet([one(), one()], async |fleet| {
        let holders = Holders::default();
        let [here, there] = one_of_each(fleet).await.try_into().expect("of two nodes");
        cuts.make(fleet, cuts.how);
        works(&here).await.expect("what is not relayed goes on");
        if cuts.link {
            is_lost(&there.closed(TOLD).await);
            // The node has lost its client, and has its browser back.
            fleet.nodes[1].until_released(SERVED).await;
        } else {
            works(&there).await.expect("a relay needs no NATS");
            there.close().await;
        }
        // The node's own clients have its browser, those of the other node are told.
        is_told_in_time(fleet, 0).await;
        let own = served(fleet.nodes[1].asks("/"), SERVED).await;
        assert_eq!(fleet.node_of(&own), 1);
        let held = holders.hold(&own).await;
        if cuts.nats {
            for node in &fleet.nodes {
                node.hears([&*node.name]).await;
            }
        }
        let waits = fleet.nodes[0].asks("/");
        cuts.make(fleet, CableState::Whole);
        let took = fleet.acquainted().await;
        println!("together again {took:?} after {cuts:?} were mended");
        assert!(took < TOGETHER, "{took:?}");
        drop(held);
        own.close().await;
        let remote = served(waits, MENDED).await;
        assert_eq!(fleet.node_of(&remote), 1);
        drop(holders.hold(&remote).await);
        remote.close().await;
        here.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f65_an_offer_accepted_late() {
    fleet([gateway(), one()], async |fleet| {
        let holders = Holders::default();
        let holder = fleet.nodes[1].service.connect("/").await;
        let late = fleet.nodes[0].asks("/");
        fleet.nodes[1].until_waiting(1).await;
        let own = fleet.nodes[1].asks("/");
        fleet.nodes[1].until_waiting(2).await;
        fleet.nodes[0].nats.set(CableState::Silent);
        holder.close().await;
        // Offered to the older one first, who cannot hear it.
        let own = served(own, SERVED).await;
        let held = holders.hold(&own).await;
        fleet.nodes[0].nats.set(CableState::Whole);
        // The offer arrives, is accepted, and is of nothing: its browser has a holder.
        let waiting = timeout(Duration::from_secs(2), async {
            while !late.is_finished() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(waiting.await.is_err(), "it was served with what another holds, or refused");
        works(&own).await.expect("its holder has it alone");
        drop(held);
        own.close().await;
        let late = served(late, MENDED).await;
        drop(holders.hold(&late).await);
        late.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f65_an_offer_that_is_redeemed_late() {
    fleet([gateway(), one()], async |fleet| {
        let holders = Holders::default();
        fleet.nodes[1].link.set(CableState::Silent);
        let remote = fleet.nodes[0].asks("/");
        // Accepted, and on its way for longer than the two seconds that the lease is kept for it.
        fleet.nodes[1].until_leased(1).await;
        sleep(Duration::from_millis(2500)).await;
        assert!(!remote.is_finished(), "it was not given what it cannot reach");
        fleet.nodes[1].link.set(CableState::Whole);
        let remote = served(remote, MENDED).await;
        let held = holders.hold(&remote).await;
        let own = fleet.nodes[1].asks("/");
        fleet.nodes[1].until_waiting(1).await;
        works(&remote).await.expect("it has the browser alone");
        drop(held);
        remote.close().await;
        let own = served(own, SERVED).await;
        drop(holders.hold(&own).await);
        own.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f66_two_nodes_with_one_name() {
    fleet([one()], async |fleet| {
        let (exit, log) = fleet.namesake_of(0).await;
        assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}\n{log}");
        let node = &fleet.nodes[0];
        assert!(log.contains(&node.name), "without its name: {log}");
        let address = node.link.port.to_string();
        assert!(log.contains(&address), "without the address of the other: {log}");
        works(&node.service.connect("/").await).await.expect("the first one serves");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f67_drain_during_a_burst() {
    const CLIENTS: usize = 12;
    fleet([one(), one(), one()], async |fleet| {
        let holders = Holders::default();
        let served = std::sync::atomic::AtomicUsize::new(0);
        let burst = join_all((0..CLIENTS).map(|client| {
            let node = &fleet.nodes[if client % 2 == 0 { 0 } else { 2 }];
            let (holders, served) = (&holders, &served);
            async move {
                for _ in 0..rounds(3, 50) {
                    let client = node.service.connect("/").await;
                    let held = holders.hold(&client).await;
                    works(&client).await.expect("a lease is not cut off");
                    drop(held);
                    client.close().await;
                    served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
        }));
        let drain = async {
            eventually("the burst goes on", MENDED, async || {
                let so_far = served.load(std::sync::atomic::Ordering::Relaxed);
                if so_far > CLIENTS / 2 { Ok(()) } else { Err(so_far) }
            })
            .await;
            fleet.nodes[1].service.signal(Signal::TERM);
        };
        tokio::join!(burst, drain);
        let exit = fleet.nodes[1].service.exit(MENDED).await;
        assert_eq!(exit.code, Some(0), "{exit:?}");
        // It has said goodbye: nobody has to miss it first.
        let others = [0, 2].map(|node| fleet.nodes[node].name.clone());
        fleet.nodes[0].hears(others.iter().map(String::as_str)).await;
        fleet.restart(1).await;
        let leases = one_of_each(fleet).await;
        join_all(leases.into_iter().map(Cdp::close)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f67_drain_of_a_gateway_that_relays() {
    // Long enough for all that is done before the rest is cut off.
    let gateway = gateway().set("gateway.drain_timeout", "8s");
    fleet([gateway, one().size(2)], async |fleet| {
        let [ends, stays] = fleet.lease(0, 2).await.try_into().expect("there are two");
        fleet.nodes[0].service.signal(Signal::TERM);
        eventually("it drains", SERVED, async || {
            let ready = fleet.nodes[0].service.get("/readyz").await;
            if ready.status == 503 { Ok(()) } else { Err(ready) }
        })
        .await;
        let refused = fleet.nodes[0].service.try_connect("/").await.expect_err("no new ones");
        assert_eq!((refused.status, refused.code()), (503, "draining"), "{refused:?}");
        works(&ends).await.expect("what is relayed goes on");
        ends.close().await;
        works(&stays).await.expect("and so does the other");
        let closed = stays.closed(MENDED).await;
        assert_eq!(closed.code, 1001, "{closed:?}");
        assert!(closed.reason.starts_with("drained"), "{closed:?}");
        let exit = fleet.nodes[0].service.exit(SERVED).await;
        assert_eq!(exit.code, Some(0), "{exit:?}");
        fleet.nodes[1].until_released(SERVED).await;
        fleet.restart(0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f68_gateway_without_browsers_in_front() {
    fleet([gateway(), one()], async |fleet| {
        assert!(fleet.nodes[0].oracle.ours.chromium().is_empty());
        for node in [0, 1] {
            fleet.nodes[node].service.signal(Signal::TERM);
            let exit = fleet.nodes[node].service.exit(MENDED).await;
            assert_eq!(exit.code, Some(0), "{exit:?}");
        }
        let front = &mut fleet.nodes[0];
        front.service = Service::listening(&front.home, &front.setup).await;
        let ready = front.service.get("/readyz").await;
        assert_eq!(ready.status, 503, "ready with nobody to serve: {ready:?}");
        assert_eq!(front.service.get("/livez").await.status, 200);
        is_told_in_time_by_nobody(&front.service).await;
        fleet.restart(1).await;
        fleet.nodes[0].service.until_ready().await;
        works(&fleet.nodes[0].service.connect("/").await).await.expect("it serves by another");
        fleet.nodes[1].until_released(SERVED).await;
    })
    .await;
}

/// A gateway that has not heard of anybody says so, by the deadline.
async fn is_told_in_time_by_nobody(gateway: &Service) {
    let asked = Instant::now();
    let refused = gateway.try_connect("/?acquire_timeout=1500").await;
    let refused = refused.expect_err("there is no browser");
    assert!([408, 503].contains(&refused.status), "{refused:?}");
    assert!(!refused.detail().is_empty(), "{refused:?}");
    let took = asked.elapsed();
    assert!(took < Duration::from_millis(2500), "told after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f69_two_gateways_ask_for_one_session_name_at_once() {
    fleet([one(), one()], async |fleet| {
        for round in 0..rounds(4, 50) {
            let path = format!("/?session=round-{round}");
            let (one, other) = tokio::join!(
                fleet.nodes[0].service.connect(&path),
                fleet.nodes[1].service.connect(&path),
            );
            assert_eq!(one.lease, other.lease, "a name has two leases");
            let mut sessions = fleet.nodes[0].service.sessions().await;
            sessions.extend(fleet.nodes[1].service.sessions().await);
            assert_eq!(sessions.len(), 1, "{sessions:?}");
            for client in [&one, &other] {
                works(client).await.expect("both have it");
            }
            // Joined while it is held, through either.
            let again = fleet.nodes[round % 2].service.connect(&path).await;
            assert_eq!(again.lease, one.lease);
            let id = one.lease.clone().expect("the pool tells it");
            let kill = format!("/kill/{id}");
            let killed = fleet.nodes[round % 2].service.post(&kill, &json!({})).await;
            assert_eq!(killed.status, 200, "{killed:?}");
            for client in [one, other, again] {
                assert_eq!(client.closed(TOLD).await.code, 1000);
            }
            for node in &fleet.nodes {
                node.until_released(SERVED).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f70_the_room_for_a_new_browser_is_elsewhere() {
    let empty = one().set("pool.min_size", 0).set("warming.min_idle", 0);
    fleet([gateway(), one(), empty], async |fleet| {
        let holders = Holders::default();
        let full = fleet.nodes[1].service.connect("/").await;
        let held = holders.hold(&full).await;
        assert_eq!(fleet.node_of(&full), 1);
        let new = served(fleet.nodes[0].asks("/"), MENDED).await;
        assert_eq!(fleet.node_of(&new), 2, "launched where there is room");
        drop((holders.hold(&new).await, held));
        full.close().await;
        new.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f71_the_end_of_a_relayed_lease_is_told_on_both_sides() {
    fleet([gateway(), one()], async |fleet| {
        let owner = &fleet.nodes[1];
        let client = fleet.nodes[0].service.connect("/").await;
        owner.service.browser_of(&client).await.signal(Signal::KILL);
        let closed = client.closed(TOLD).await;
        assert_eq!(closed.code, 4500, "{closed:?}");
        assert!(closed.reason.starts_with("browser_crashed"), "{closed:?}");

        let limited = served(fleet.nodes[0].asks("/?timeout=1500"), MENDED).await;
        let closed = limited.closed(SERVED).await;
        assert_eq!(closed.code, 4410, "{closed:?}");

        let gone = served(fleet.nodes[0].asks("/"), SERVED).await;
        let waits = fleet.nodes[0].asks("/");
        owner.until_waiting(1).await;
        waits.abort();
        owner.until_waiting(0).await;
        let own = owner.asks("/");
        owner.until_waiting(1).await;
        let lease = gone.lease.clone();
        drop(gone);
        eventually("the lease of a client that vanished is over", TOLD, async || {
            let sessions = owner.service.sessions().await;
            let held = sessions.iter().any(|it| it["id"].as_str() == lease.as_deref());
            if held { Err(sessions) } else { Ok(()) }
        })
        .await;
        let own = served(own, SERVED).await;
        works(&own).await.expect("the browser of a client that vanished is back");
        own.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f72_node_vanishes_with_its_machine() {
    const TOKEN: &str = "the token of all nodes";
    /// As for a client's machine.
    const NOTICED: Duration = Duration::from_secs(25);
    let Some(far) = FarMachine::connect() else {
        assert!(!rustix::process::geteuid().is_root(), "root can lay a cable: is iproute2 there?");
        println!("skipped: there is no second machine to be had here");
        return;
    };
    let set = |node: Setup| node.set("gateway.token", TOKEN).tokened(TOKEN);
    fleet([set(gateway()), set(one().size(2)).on(&far)], async |fleet| {
        let [quiet, talks] = fleet.lease(0, 2).await.try_into().expect("there are two");
        let id = quiet.lease.clone().expect("the pool tells it");
        works(&quiet).await.expect("it is relayed");
        far.cut();
        let cut = Instant::now();
        // One with something on its way, one without, and a call that is about a lease there.
        let said = talks.begin(None, "Browser.getVersion", json!({})).await;
        let _answer = said.expect("it is on its way");
        let kill = format!("/kill/{id}");
        let nothing = json!({});
        let asked = fleet.nodes[0].service.post(&kill, &nothing);
        let (answer, one, other) =
            tokio::join!(asked, quiet.closed(NOTICED), talks.closed(NOTICED));
        println!("told {:?} and {:?} after the cut", one.at - cut, other.at - cut);
        is_lost(&one);
        is_lost(&other);
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (503, &json!("node_lost")),
            "{answer:?}"
        );
        far.mend();
        fleet.acquainted().await;
        fleet.nodes[1].until_released(NOTICED).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f73_clock_of_a_node_is_a_day_off() {
    for by in ["+1d", "-1d"] {
        fleet([gateway(), one().clock_off(by), one()], async |fleet| {
            let day = |node: usize| {
                let log = fleet.nodes[node].home.log();
                let (_, from) = log.split_once(r#""timestamp":""#).expect("it is in JSON");
                from[.."2026-11-29".len()].to_owned()
            };
            assert_ne!(day(1), day(2), "the clock is off");
            let [off, right] = one_of_each(fleet).await.try_into().expect("of two nodes");
            // Who came first counts at every node, whatever its clock says.
            let first = fleet.nodes[0].asks("/");
            fleet.nodes[1].until_waiting(1).await;
            fleet.nodes[2].until_waiting(1).await;
            let second = fleet.nodes[1].asks("/");
            fleet.nodes[2].until_waiting(2).await;
            off.close().await;
            let first = served(first, SERVED).await;
            assert_eq!(fleet.node_of(&first), 1);
            works(&first).await.expect("it is as good as any");
            right.close().await;
            let second = served(second, SERVED).await;
            assert_eq!(fleet.node_of(&second), 2);
            first.close().await;
            second.close().await;

            // Its next run seems to be a day older, or younger, than the one that was killed.
            let node = &mut fleet.nodes[1];
            node.service.kill().await;
            node.oracle.gone(TOLD).await;
            node.setup = node.setup.clone().clock_right();
            fleet.restart(1).await;
            for lease in one_of_each(fleet).await {
                works(&lease).await.expect("both nodes serve");
                lease.close().await;
            }
        })
        .await;
    }
}
