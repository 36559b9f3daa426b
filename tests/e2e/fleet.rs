//! Several machines that are one pool: what clients of one of them see, which is one pool.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use browser_pool_tests::{
    Cdp, Fleet, Holders, LeaseKind, Response, Script, Setup, eventually, fleet, request, rounds,
    within,
};
use chromiumoxide::Browser;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::iter;
use serde_json::{Value, json};
use tokio::sync::Mutex as AsyncMutex;

/// Maximum time of a session on a machine that does much else, its time in the queue included.
const PATIENCE: Duration = Duration::from_secs(120);

fn node(browsers: i64) -> Setup {
    Setup::new().size(browsers).set("pool.acquire_timeout", "2m")
}

/// An answer that must be there.
async fn good(answer: impl Future<Output = Response>) -> Response {
    let answer = answer.await;
    assert!((200..300).contains(&answer.status), "{answer:?}");
    answer
}

/// The path and query of an address, which must be one of this gateway.
fn path_at(url: &Value, gateway: &str) -> String {
    let url = url.as_str().expect("an address");
    let here = format!("ws://{gateway}");
    let path = url.strip_prefix(&here);
    path.unwrap_or_else(|| panic!("{url} is not at the gateway {here}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_clients_at_one_gateway_are_served_in_order_by_all_six_browsers_of_a_fleet() {
    const PATIENT: usize = 23;
    const URGENT: usize = 99;
    fleet([node(2), node(2), node(2)], async |fleet| {
        let fleet: &Fleet = fleet;
        let (front, holders) = (&fleet.nodes[0], Holders::default());
        let mut held = Vec::new();
        for client in fleet.lease(0, 6).await {
            held.push((fleet.node_of(&client), holders.hold(&client).await, client));
        }
        held.sort_by_key(|(node, ..)| *node);
        let nodes: Vec<usize> = held.iter().map(|(node, ..)| *node).collect();
        assert_eq!(nodes, [0, 0, 1, 1, 2, 2], "all six browsers work");

        let served = Mutex::new(Vec::new());
        let mut waiting = Vec::new();
        for name in 0..PATIENT {
            waiting.push((name, front.asks("/?priority=9")));
            front.until_waiting(name + 1).await;
        }
        waiting.push((URGENT, front.asks("/?priority=1")));
        front.until_waiting(PATIENT + 1).await;
        let clients = waiting.into_iter().map(|(name, asked)| {
            let (served, holders) = (&served, &holders);
            async move {
                let client = asked.await.expect("it does not panic").expect("it is served");
                served.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                drop(holders.hold(&client).await);
                client.close().await;
            }
        });
        // One browser, of another machine, goes round; the other five are held meanwhile.
        let (_, mark, client) = held.pop().expect("there are six");
        let release = async {
            drop(mark);
            client.close().await;
        };
        tokio::join!(within("all are served", PATIENCE, join_all(clients)), release);
        let order = served.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(order.first(), Some(&URGENT), "{order:?}");
        for (place, name) in order[1..].iter().enumerate() {
            assert!(place.abs_diff(*name) <= 1, "more than one place out of order: {order:?}");
        }
        for (_, mark, client) in held {
            drop(mark);
            client.close().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unmodified_clients_at_one_gateway_use_every_browser_of_a_fleet() {
    fleet([node(2), node(2), node(2)], async |fleet| {
        let fleet: &Fleet = fleet;
        let (url, count) = (fleet.nodes[0].service.url("/"), rounds(5, 30));
        let sessions = count.to_string();
        let script = async |client: &str| {
            let outcome = Script::new("load.mjs")
                .args([&url, &fleet.site.url])
                .args(["--client", client, "--sessions", &sessions, "--concurrency", &sessions])
                .args(["--timeout", &PATIENCE.as_millis().to_string()])
                .run(Duration::from_secs(300))
                .await;
            let summary = outcome.lines.last().expect("it ends with a summary");
            assert_eq!(summary["ok"], count, "{outcome:?}");
            assert_eq!(summary["leaks"], 0, "{outcome:?}");
        };
        let oxide = iter(0..count).for_each_concurrent(count, |_| chromiumoxide(fleet, &url));
        tokio::join!(script("playwright"), script("puppeteer"), oxide);
        for node in &fleet.nodes {
            let state = node.service.state().await;
            let browsers = state["browsers"].as_array().expect("a list");
            let worked = browsers.iter().filter(|it| it["uses"].as_u64() > Some(1)).count();
            assert_eq!(worked, 2, "{}: {browsers:?}", node.name);
        }
    })
    .await;
}

async fn chromiumoxide(fleet: &Fleet, url: &str) {
    let (mut browser, mut handler) = Browser::connect(url).await.expect("it is served");
    let handling = tokio::spawn(async move { while handler.next().await.is_some() {} });
    let page = browser.new_page(fleet.site.at("/title.html")).await.expect("a page");
    let title = page.get_title().await.expect("it has a title");
    assert_eq!(title.as_deref(), Some("A page with a title"));
    page.close().await.expect("it closes");
    browser.close().await.expect("it gives its browser back");
    handling.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_handed_out_are_those_of_the_gateway() {
    fleet([node(0).without_browsers(), node(1)], async |fleet| {
        let (gateway, owner) = (&fleet.nodes[0], &fleet.nodes[1]);
        let front = gateway.address();
        let version = gateway.service.get("/json/version").await.json();
        path_at(&version["webSocketDebuggerUrl"], &front);

        let client = gateway.service.connect("/?session=mine&keep=20000").await;
        let own = path_at(&client.lease_url.clone().into(), &front);
        let page = client.page(&fleet.site.at("/title/Here")).await;
        // Found by name, by the address of the lease, and page by page, all through the gateway.
        let by_name = gateway.service.get("/json/list?session=mine").await.json();
        let by_lease = gateway.service.get(&format!("{own}/json/list")).await.json();
        let ids = |list: &Value| {
            let pages = list.as_array().expect("a list").iter();
            pages.map(|page| page["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&by_name), ids(&by_lease));
        for listed in [&by_name, &by_lease] {
            let listed = listed.as_array().expect("a list").iter();
            let own = listed.clone().find(|it| it["id"] == *page.target).expect("its page");
            let socket = path_at(&own["webSocketDebuggerUrl"], &front);
            let socket = gateway.service.connect(&socket).await;
            let title = json!({ "expression": "document.title" });
            let title = socket.call("Runtime.evaluate", title).await.expect("it is a page");
            assert_eq!(title["result"]["value"], "Here");
        }

        drop(client);
        eventually("it is left", Duration::from_secs(10), async || {
            let sessions = owner.service.sessions().await;
            if sessions[0]["state"] == "waiting" { Ok(()) } else { Err(sessions) }
        })
        .await;
        let back = gateway.service.connect(&own).await;
        let targets = back.call("Target.getTargets", json!({})).await.expect("it is the same");
        assert!(targets.to_string().contains("/title/Here"), "{targets}");
        back.call("Browser.close", json!({})).await.expect("it is answered");
        back.closed(Duration::from_secs(10)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rest_lease_of_one_gateway_is_used_and_released_through_another() {
    fleet([node(0).without_browsers(), node(1), node(0).without_browsers()], async |fleet| {
        let [one, owner, other] = [0, 1, 2].map(|node| &fleet.nodes[node]);
        let acquire = json!({ "acquire_timeout_seconds": 20 });
        let acquired = one.service.post("/browser_pools/default/acquire", &acquire);
        let acquired = good(acquired).await.json();
        let path = path_at(&acquired["cdp_ws_url"], &one.address());
        let id = acquired["session_id"].as_str().expect("an id").to_owned();
        let client = other.service.connect(&path).await;
        assert_eq!(client.page("about:blank").await.eval("6 * 7").await, 42);
        let details = good(other.service.get(&format!("/browsers/{id}"))).await.json();
        path_at(&details["cdp_ws_url"], &other.address());
        let release = json!({ "session_id": id });
        good(other.service.post("/browser_pools/default/release", &release)).await;
        assert_eq!(client.closed(Duration::from_secs(5)).await.code, 1000);
        owner.until_released(Duration::from_secs(10)).await;
        let over = one.service.try_connect(&path).await.expect_err("it is over");
        assert!([404, 410].contains(&over.status), "{over:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_printed_where_a_browser_is_free_and_a_lease_is_ended_from_anywhere() {
    fleet([node(1), node(1)], async |fleet| {
        let [front, other] = [0, 1].map(|node| &fleet.nodes[node]);
        // Both, as the first one may be the other's: only that is free afterwards.
        let mut both = fleet.lease(0, 2).await;
        both.sort_by_key(|client| fleet.node_of(client));
        let [own, theirs] = both.try_into().expect("there are two");
        assert_eq!([&own, &theirs].map(|client| fleet.node_of(client)), [0, 1]);
        theirs.close().await;
        let order = json!({ "url": fleet.site.at("/title/Printed") });
        let pdf = good(front.service.post("/pdf", &order)).await;
        assert!(pdf.body.starts_with(b"%PDF"), "{pdf:?}");
        assert_eq!(pdf.header("x-response-code"), Some("200"));
        let pictured = json!({ "html": "<h1>Here</h1>" });
        let picture = good(front.service.post("/screenshot", &pictured)).await;
        assert!(picture.body.starts_with(b"\x89PNG"), "{picture:?}");
        other.until_released(Duration::from_secs(10)).await;
        let bad = front.service.post("/pdf", &json!({ "url": "about:nothing" })).await;
        assert_eq!((bad.status, &bad.json()["code"]), (400, &json!("bad_body")), "{bad:?}");

        let id = own.lease.clone().expect("the pool tells it");
        good(other.service.post(&format!("/kill/{id}"), &json!({}))).await;
        let closed = own.closed(Duration::from_secs(5)).await;
        assert_eq!(closed.code, 1000, "{closed:?}");
        assert!(closed.reason.starts_with("killed"), "{closed:?}");
        let unknown = other.service.post("/kill/nowhere.test.0123", &json!({})).await;
        assert_eq!(unknown.status, 404, "{unknown:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_drained_from_another_gets_no_leases_until_it_is_undrained() {
    let front = node(0).without_browsers();
    fleet([front, node(1), node(1)], async |fleet| {
        let front = &fleet.nodes[0];
        let change = |what: &str| format!("/api/fleet/{}/{what}", fleet.nodes[1].name);
        let held = fleet.lease(0, 2).await;
        good(front.service.post(&change("drain"), &json!({}))).await;
        for client in &held {
            client.page("about:blank").await;
        }
        join_all(held.into_iter().map(Cdp::close)).await;
        let other = front.service.connect("/").await;
        assert_eq!(fleet.node_of(&other), 2);
        let refused = front.service.try_connect("/?acquire_timeout=1500").await;
        assert_eq!(refused.expect_err("one has it, one is drained").status, 408);
        let waits = front.asks("/");
        fleet.nodes[2].until_waiting(1).await;
        good(front.service.post(&change("undrain"), &json!({}))).await;
        let served = within("it serves again", Duration::from_secs(10), waits).await;
        let served = served.expect("it does not panic").expect("it is served");
        assert_eq!(fleet.node_of(&served), 1);
        served.close().await;
        other.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_no_node_has_signed_takes_no_lease() {
    fleet([node(1), node(1)], async |fleet| {
        let address = fleet.nodes[1].address();
        let forged = "v1.eyJnYXRld2F5Ijoibm9kZS0wLnRlc3QifQ.\
                      0000000000000000000000000000000000000000000000000000000000000000";
        for value in [forged, "v1..", "v9.e30.00", "nonsense"] {
            let headers = [("browser-pool-relay", value)];
            let refused = Cdp::open(&address, "/", &headers).await.expect_err("it is no relay");
            assert!([400, 401, 403].contains(&refused.status), "{value}: {refused:?}");
            let answer = request(&address, "GET", "/sessions", &headers, "").await;
            let answer = answer.expect("an answer");
            assert!([400, 401, 403].contains(&answer.status), "{value}: {answer:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_another_node_is_for_those_that_show_the_token() {
    const TOKEN: &str = "the token of all nodes";
    let set = |node: Setup| node.set("gateway.token", TOKEN).tokened(TOKEN);
    fleet([set(node(0).without_browsers()), set(node(1))], async |fleet| {
        let front = &fleet.nodes[0];
        let client = front.service.connect("/").await;
        assert_eq!(client.page("about:blank").await.eval("6 * 7").await, 42);
        let id = client.lease.clone().expect("the pool tells it");
        for headers in [&[][..], &[("authorization", "Bearer another")]] {
            let refused = Cdp::open(&front.address(), "/", headers).await;
            assert_eq!(refused.expect_err("it shows no token").status, 401);
            for (method, path) in [("GET", "/browsers/"), ("POST", "/kill/")] {
                let path = format!("{path}{id}");
                let answer = request(&front.address(), method, &path, headers, "").await;
                assert_eq!(answer.expect("an answer").status, 401, "{path}");
            }
        }
        // The address of a lease stands for the token, here as at its node.
        let own = format!("/devtools/browser/{id}");
        let again = Cdp::open(&front.address(), &own, &[]).await.expect("it is the lease's own");
        assert_eq!(again.lease, client.lease);
        drop(again);
        client.close().await;
        for node in &fleet.nodes {
            assert!(!node.home.log().contains(TOKEN), "the token is in the log of {}", node.name);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_leases_of_another_node_are_as_good_as_exclusive_ones() {
    fleet([node(0).without_browsers(), node(0).kind(LeaseKind::Shared)], async |fleet| {
        let fleet: &Fleet = fleet;
        let clients = fleet.lease(0, 4).await;
        // Large answers, all at the same time, and what one client does none of the others sees.
        join_all(clients.iter().enumerate().map(|(number, client)| async move {
            let page = client.page(&fleet.site.at("/title.html")).await;
            let mark = format!("document.cookie = 'mark={number}'; document.cookie");
            assert_eq!(page.eval(&mark).await, format!("mark={number}"));
            let large = page.eval("'x'.repeat(8 * 1024 * 1024)").await;
            assert_eq!(large.as_str().map(str::len), Some(8 * 1024 * 1024));
        }))
        .await;
        assert_eq!(fleet.nodes[1].oracle.ours.browsers().len(), 2);
        join_all(clients.into_iter().map(Cdp::close)).await;
    })
    .await;
}

/// Number of acquires in a default run; `POOL_TEST_ACQUIRES` sets another.
const ACQUIRES: usize = 120;

#[tokio::test(flavor = "multi_thread")]
async fn many_acquires_over_two_gateways_and_two_browsers_of_a_fleet_never_have_two_holders() {
    const CLIENTS: usize = 20;
    let told = std::env::var("POOL_TEST_ACQUIRES").ok();
    let acquires = told.map_or(ACQUIRES, |told| told.parse().expect("it is a number"));
    let front = || node(0).without_browsers();
    fleet([front(), front(), node(1), node(1)], async |fleet| {
        let fleet: &Fleet = fleet;
        let (holders, browsers) = (Holders::default(), AsyncMutex::new(BTreeSet::new()));
        iter(0..acquires)
            .for_each_concurrent(CLIENTS, |number| {
                let (holders, browsers) = (&holders, &browsers);
                let gateway = &fleet.nodes[number % 2].service;
                async move {
                    let client = gateway.connect("/").await;
                    let held = holders.hold(&client).await;
                    browsers.lock().await.insert((fleet.node_of(&client), held.browser));
                    drop(held);
                    // Some say goodbye, and some are gone.
                    if number % 3 == 0 { drop(client) } else { client.close().await }
                }
            })
            .await;
        let browsers = browsers.into_inner();
        let nodes: BTreeSet<usize> = browsers.iter().map(|(node, _)| *node).collect();
        assert_eq!(nodes, BTreeSet::from([2, 3]), "{browsers:?}");
        for node in &fleet.nodes[2..] {
            node.until_released(Duration::from_secs(10)).await;
        }
        eventually("every lease is counted", Duration::from_secs(10), async || {
            let ended = fleet.nodes[2..]
                .iter()
                .map(|node| node.service.metric("browserpool_leases_ended_total", ""));
            let ended = join_all(ended).await.iter().sum::<f64>() as usize;
            // And those of the oracle, which leases each browser once before.
            if ended == acquires + 2 { Ok(()) } else { Err(ended) }
        })
        .await;
    })
    .await;
}
