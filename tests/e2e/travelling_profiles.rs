//! A login that goes from node to node of a fleet, whatever breaks on the way.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use browser_pool_tests::{
    Cdp, Engine, Fleet, Refused, Setup, SmallDisk, eventually, fleet, rounds, within,
};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use toml::Table;

/// Time in which a client gets a profile that another node holds no longer.
const SOON: Duration = Duration::from_secs(15);

/// Time after which a holder that cannot renew its claim ends its lease, and in which the client must know.
const LOST: Duration = Duration::from_secs(7);
const TOLD: Duration = Duration::from_secs(10);

/// A node with one place, and a profile that travels.
fn node() -> Setup {
    one_place().set("profiles.work", Table::new())
}

/// Without a browser that is kept ready, which would take the place for a moment.
fn one_place() -> Setup {
    let setup = Setup::new().set("pool.min_size", 0).set("pool.max_size", 1);
    setup.set("warming.min_idle", 0)
}

/// Gets the profile through a node, in a task of its own.
fn asks(fleet: &Fleet, gateway: usize) -> tokio::task::JoinHandle<Result<Cdp, Refused>> {
    fleet.nodes[gateway].asks("/?profile=work")
}

/// Gets the profile through a node, which must be at `expected` then.
async fn leased(fleet: &Fleet, gateway: usize, expected: usize) -> Cdp {
    let client = within("the profile is free", SOON, asks(fleet, gateway)).await;
    let client = client.expect("it does not panic");
    let client = client.unwrap_or_else(|refused| panic!("the profile is refused: {refused:?}"));
    assert_eq!(fleet.node_of(&client), expected);
    client
}

/// Sets a cookie that outlives the browser.
async fn log_in(fleet: &Fleet, client: &Cdp, name: &str) {
    let set = format!("/cookie?name={name}&value=me&attributes=HttpOnly;%20Max-Age=86400");
    client.page(&fleet.site.at(&set)).await;
}

/// Returns the names of the cookies that a site gets.
async fn logins(fleet: &Fleet, client: &Cdp) -> Vec<String> {
    let page = client.page(&fleet.site.at("/cookie")).await;
    let sent = page.eval("JSON.parse(document.body.textContent).cookie").await;
    let sent = sent.as_str().unwrap_or_default().to_owned();
    let mut names: Vec<String> =
        sent.split("; ").filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).collect();
    names.sort();
    names
}

/// Logs in once more, through a node at itself.
async fn save(fleet: &Fleet, node: usize, name: &str) {
    let client = leased(fleet, node, node).await;
    log_in(fleet, &client, name).await;
    client.close().await;
    saved(fleet, node).await;
}

/// Takes the only place of a node. A browser that is ready at another one would be taken first.
async fn occupied(fleet: &Fleet, node: usize) -> Cdp {
    let mut others = Vec::new();
    let client = loop {
        let client = fleet.nodes[node].service.connect("/").await;
        if fleet.node_of(&client) == node {
            break client;
        }
        others.push(client);
    };
    join_all(others.into_iter().map(Cdp::close)).await;
    client
}

/// The directory of a node's copies.
fn copies(fleet: &Fleet, node: usize) -> PathBuf {
    fleet.nodes[node].home.state_dir().join("profiles/.travelling")
}

/// Waits until a node has saved the profile, and the others know that it has room.
async fn saved(fleet: &Fleet, node: usize) {
    let mark = copies(fleet, node).join("work.0/mark");
    eventually("the profile is saved", SOON, async || {
        if mark.exists() { Ok(()) } else { Err("there is no mark") }
    })
    .await;
    fleet.nodes[node].until_released(SOON).await;
    let saver = &*fleet.nodes[node].name;
    // One that was killed is told when it starts again.
    for told in fleet.nodes.iter().filter(|node| node.service.is_running()) {
        eventually("its place is known to be free", SOON, async || {
            let heard = told.service.get("/api/fleet").await.json();
            let nodes = heard["nodes"].as_array().cloned().unwrap_or_default();
            let has_room = nodes.iter().any(|it| it["name"] == saver && it["room"] == 1);
            if has_room { Ok(()) } else { Err(heard) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_goes_to_another_node_and_back() {
    fleet([node(), node()], async |fleet| {
        let client = leased(fleet, 0, 0).await;
        assert_eq!(logins(fleet, &client).await, [""; 0]);
        log_in(fleet, &client, "first").await;
        client.close().await;

        let other = occupied(fleet, 0).await;
        let client = leased(fleet, 1, 1).await;
        assert_eq!(logins(fleet, &client).await, ["first"], "at the other node");
        log_in(fleet, &client, "second").await;
        client.close().await;
        other.close().await;

        let other = occupied(fleet, 1).await;
        let client = leased(fleet, 1, 0).await;
        assert_eq!(logins(fleet, &client).await, ["first", "second"], "back at the first node");
        client.close().await;
        other.close().await;
        saved(fleet, 0).await;
        for (node, saves) in [(0, 2.0), (1, 1.0)] {
            let service = &fleet.nodes[node].service;
            let transfers = async |labels| {
                service.metric("browserpool_fleet_profile_transfers_total", labels).await
            };
            assert_eq!(transfers(r#"direction="out",outcome="ok""#).await, saves, "{node}");
            assert!(transfers(r#"direction="in",outcome="ok""#).await >= 1.0, "{node}");
            let bytes = service.metric("browserpool_fleet_profile_transfer_bytes_total", "").await;
            assert!(bytes > 0.0, "{node}");
        }

        // The node that has the newest copy is asked before the own one.
        let client = leased(fleet, 1, 0).await;
        assert_eq!(logins(fleet, &client).await, ["first", "second"]);
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_in_use_once_in_the_whole_fleet() {
    let on_demand = || one_place().set("pool.max_size", 2).set("profiles.on_demand", true);
    fleet([on_demand(), on_demand()], async |fleet| {
        let holder = leased(fleet, 0, 0).await;
        log_in(fleet, &holder, "first").await;
        for gateway in [0, 1] {
            let path = "/?profile=work&acquire_timeout=1500";
            let refused = fleet.nodes[gateway].service.try_connect(path).await;
            let refused = refused.expect_err("somebody else has it");
            assert_eq!((refused.status, refused.code()), (408, "acquire_timeout"), "{refused:?}");
        }
        let mut waiting: FuturesUnordered<_> =
            [0, 1, 1].map(|gateway| asks(fleet, gateway)).into_iter().collect();
        sleep(Duration::from_millis(500)).await;
        assert!(waiting.iter().all(|asked| !asked.is_finished()), "they wait");
        // One that gives up leaves nothing behind.
        let gone = fleet.nodes[1].asks("/?profile=work");
        sleep(Duration::from_millis(200)).await;
        gone.abort();
        holder.close().await;
        let begun = Instant::now();
        let mut visits = 0;
        while let Some(client) = within("somebody's turn", SOON, waiting.next()).await {
            let client = client.expect("it does not panic");
            let client = client.unwrap_or_else(|refused| panic!("{refused:?}"));
            assert_eq!(logins(fleet, &client).await, ["first"], "after {visits}");
            visits += 1;
            client.close().await;
        }
        assert_eq!(visits, 3);
        println!("three more leases took {:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_has_not_saved_when_it_is_killed_is_nowhere() {
    fleet([node(), node()], async |fleet| {
        save(fleet, 0, "saved").await;
        let lost = leased(fleet, 0, 0).await;
        log_in(fleet, &lost, "lost").await;
        fleet.nodes[0].service.kill().await;
        let killed = Instant::now();
        let client = leased(fleet, 1, 1).await;
        println!("another node has it {:?} after the death of its holder", killed.elapsed());
        assert_eq!(logins(fleet, &client).await, ["saved"], "the last state that was saved");
        log_in(fleet, &client, "later").await;
        client.close().await;
        saved(fleet, 1).await;

        fleet.restart(0).await;
        let other = occupied(fleet, 1).await;
        let client = leased(fleet, 0, 0).await;
        assert_eq!(logins(fleet, &client).await, ["later", "saved"], "its own copy is discarded");
        client.close().await;
        other.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_was_stopped_saves_and_forwards_nothing_when_it_wakes() {
    fleet([node(), node()], async |fleet| {
        save(fleet, 0, "saved").await;
        let stopped = leased(fleet, 0, 0).await;
        let page = stopped.page("about:blank").await;
        log_in(fleet, &stopped, "lost").await;
        fleet.nodes[0].service.signal(Signal::STOP);
        let client = leased(fleet, 1, 1).await;
        assert_eq!(logins(fleet, &client).await, ["saved"]);
        log_in(fleet, &client, "later").await;

        fleet.site.forget();
        let url = fleet.site.at("/echo?late");
        let late = page.call("Page.navigate", json!({ "url": url }));
        let woken = async {
            sleep(Duration::from_millis(200)).await;
            fleet.nodes[0].service.signal(Signal::CONT);
        };
        let (answer, ()) = tokio::join!(late, woken);
        let closed = stopped.closed(TOLD).await;
        assert_eq!(closed.code, 4500, "{closed:?}");
        assert!(closed.reason.starts_with("profile_lost"), "{closed:?}");
        answer.expect_err("it came after the profile was lost");
        assert!(fleet.site.seen().is_empty(), "{:?}", fleet.site.seen());

        // The one that woke tries to save, and must not.
        fleet.nodes[0].until_released(SOON).await;
        eventually("it knows that it cannot save", SOON, async || {
            let log = fleet.nodes[0].home.log();
            if log.contains("a profile was not saved") { Ok(()) } else { Err("not yet") }
        })
        .await;
        client.close().await;
        saved(fleet, 1).await;
        let other = occupied(fleet, 1).await;
        let client = leased(fleet, 0, 0).await;
        assert_eq!(logins(fleet, &client).await, ["later", "saved"]);
        client.close().await;
        other.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_profiles_are_refused_and_what_live_nodes_have_comes_back_to_an_empty_one()
 {
    fleet([node(), node()], async |fleet| {
        save(fleet, 1, "saved").await;
        let holder = leased(fleet, 0, 1).await;
        log_in(fleet, &holder, "last").await;
        let began = Instant::now();
        fleet.nats.kill().await;
        for gateway in [0, 1] {
            eventually("the store is out of reach", SOON, async || {
                let path = "/?profile=work&acquire_timeout=500";
                let refused = fleet.nodes[gateway].service.try_connect(path).await;
                let refused = refused.expect_err("nobody can say whose the profile is");
                assert!(refused.retry_after.is_some(), "{refused:?}");
                match (refused.status, refused.code()) {
                    (503, "profile_store_unavailable") => Ok(()),
                    _ => Err(refused),
                }
            })
            .await;
        }
        // Leases of other kinds go on.
        occupied(fleet, 0).await.close().await;
        let closed = holder.closed(TOLD).await;
        assert_eq!(closed.code, 4500, "{closed:?}");
        assert!(closed.reason.starts_with("profile_lost"), "{closed:?}");
        let held = closed.at - began;
        assert!(held > LOST - Duration::from_secs(3), "it could not be renewed for {held:?}");

        // Nobody else has had it meanwhile, so that nothing is lost; not even with the store.
        fleet.nats.restart_empty().await;
        eventually("the store is back", SOON, async || {
            let asked =
                fleet.nodes[1].service.try_connect("/?profile=work&acquire_timeout=2000").await;
            let client = asked.map_err(|refused| refused.code().to_owned())?;
            let found = logins(fleet, &client).await;
            client.close().await;
            assert_eq!(found, ["last", "saved"]);
            Ok::<_, String>(())
        })
        .await;
        saved(fleet, 1).await;

        // Now nobody holds it, and only the copies of the nodes are left.
        fleet.nats.restart_empty().await;
        let other = occupied(fleet, 1).await;
        eventually("a copy was put back", SOON, async || {
            let asked =
                fleet.nodes[0].service.try_connect("/?profile=work&acquire_timeout=2000").await;
            let client = asked.map_err(|refused| refused.code().to_owned())?;
            assert_eq!(fleet.node_of(&client), 0);
            let found = logins(fleet, &client).await;
            client.close().await;
            assert_eq!(found, ["last", "saved"], "at a node that has never had it");
            Ok::<_, String>(())
        })
        .await;
        other.close().await;
        fleet.acquainted().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_comes_too_late_for_one_client_is_the_next_ones() {
    let slow = TempDir::new().expect("a directory for a script");
    let script = slow.path().join("chromium-headless-shell");
    let body = format!("#!/bin/sh\nsleep 2; exec {} \"$@\"\n", Engine::any_executable().display());
    fs::write(&script, body).expect("it is ours");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("it is ours");
    let node = node().set("chrome.executable", script.display().to_string());
    fleet([node], async |fleet| {
        save(fleet, 0, "saved").await;
        let pool = &fleet.nodes[0].service;
        let late = pool.try_connect("/?profile=work&acquire_timeout=1000").await;
        assert_eq!(late.expect_err("no launch is that quick").code(), "acquire_timeout");
        let client = leased(fleet, 0, 0).await;
        let held = pool.sessions().await;
        assert_eq!(held[0]["browserId"], 2, "the one that was launched for the first: {held:?}");
        assert_eq!(logins(fleet, &client).await, ["saved"]);
        log_in(fleet, &client, "last").await;
        client.close().await;
        saved(fleet, 0).await;
        let client = leased(fleet, 0, 0).await;
        assert_eq!(logins(fleet, &client).await, ["last", "saved"], "it is saved");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_finds_no_room_to_be_packed_stays_as_it_was() {
    if rounds(0, 1) == 0 {
        return eprintln!("not tested without POOL_TEST_LONG");
    }
    fleet([node(), node()], async |fleet| {
        let Some(disk) = SmallDisk::on(&copies(fleet, 0)) else {
            return eprintln!("not tested: only root can mount");
        };
        save(fleet, 0, "saved").await;
        let client = leased(fleet, 0, 0).await;
        log_in(fleet, &client, "lost").await;
        let filler = disk.fill();
        client.close().await;
        eventually("it is told", SOON, async || {
            let log = fleet.nodes[0].home.log();
            let told = log.contains("a profile was not saved") && log.contains("No space left");
            if told { Ok(()) } else { Err("not yet") }
        })
        .await;
        // The node serves others, and the profile is free for other nodes.
        let other = occupied(fleet, 0).await;
        let client = leased(fleet, 0, 1).await;
        assert_eq!(logins(fleet, &client).await, ["saved"]);
        log_in(fleet, &client, "later").await;
        client.close().await;
        saved(fleet, 1).await;
        other.close().await;

        disk.empty(filler);
        let other = occupied(fleet, 1).await;
        let client = leased(fleet, 0, 0).await;
        assert_eq!(logins(fleet, &client).await, ["later", "saved"], "once there is room");
        client.close().await;
        saved(fleet, 0).await;
        other.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_with_a_home_is_served_there_and_nowhere_else() {
    let at_home = || node().set("profiles.work.home", "node-1.test");
    fleet([at_home(), at_home()], async |fleet| {
        let client = leased(fleet, 0, 1).await;
        log_in(fleet, &client, "first").await;
        client.close().await;
        let client = leased(fleet, 1, 1).await;
        assert_eq!(logins(fleet, &client).await, ["first"]);
        client.close().await;
        fleet.nodes[1].until_released(SOON).await;
        let other = occupied(fleet, 1).await;
        let refused =
            fleet.nodes[0].service.try_connect("/?profile=work&acquire_timeout=1500").await;
        let refused = refused.expect_err("its home is full, and the other node is free");
        assert_eq!((refused.status, refused.code()), (408, "acquire_timeout"), "{refused:?}");
        other.close().await;
        assert!(!copies(fleet, 1).join("work.0").exists(), "nothing of it travels");

        let node = &mut fleet.nodes[1];
        node.setup = node.setup.clone().set("profiles.work", Table::new());
        node.service.signal(Signal::TERM);
        node.service.exit(Duration::from_secs(20)).await;
        fleet.restart(1).await;
        let client = leased(fleet, 1, 1).await;
        assert_eq!(logins(fleet, &client).await, ["first"], "it travels from now on");
        client.close().await;
        saved(fleet, 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_saves_its_profiles_first() {
    if rounds(0, 1) == 0 {
        return eprintln!("not tested without POOL_TEST_LONG");
    }
    fleet([node(), node()], async |fleet| {
        let client = leased(fleet, 0, 0).await;
        log_in(fleet, &client, "first").await;
        fleet.nodes[0].service.signal(Signal::TERM);
        client.close().await;
        let exit = fleet.nodes[0].service.exit(Duration::from_secs(20)).await;
        assert_eq!(exit.code, Some(0));
        // At once, not when the claim of the dead would be taken over.
        let asked = Instant::now();
        let client = leased(fleet, 1, 1).await;
        assert_eq!(logins(fleet, &client).await, ["first"]);
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
        client.close().await;
        fleet.restart(0).await;
    })
    .await;
}
