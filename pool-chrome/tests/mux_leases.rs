//! Leases on real Chromium: what is theirs, what they see, and that they leave nothing.

mod mux_support;

use mux_support::{Client, ENGINES, KINDS, Rig, Site, eventually, every_lease};
use pool_chrome::mux::{Budget, EndReason, LeaseKind, LeaseTerms};
use serde_json::json;

#[tokio::test]
async fn an_ended_lease_leaves_no_context_and_no_target() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for kind in KINDS {
            let (lease, mut client) = rig.client(kind).await;
            client.page("data:text/html,<script>onbeforeunload=()=>1</script>").await;
            for dispose in [true, false] {
                let params = json!({ "disposeOnDetach": dispose });
                let made = client.ok(None, "Target.createBrowserContext", params).await;
                let params =
                    json!({ "url": "about:blank", "browserContextId": made["browserContextId"] });
                client.ok(None, "Target.createTarget", params).await;
            }
            assert_eq!(rig.mux.context_ids().await.unwrap().len(), 3);
            lease.end().await.unwrap();
            assert_eq!(rig.mux.context_ids().await.unwrap(), [""; 0]);
            assert_eq!(client.end().await, EndReason::Released);
        }
    }
}

#[tokio::test]
async fn a_dropped_lease_goes_as_well() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let (lease, client) = rig.client(LeaseKind::Shared).await;
        drop((lease, client));
        eventually("no context is left", async || rig.mux.context_ids().await.unwrap().is_empty())
            .await;
    }
}

#[tokio::test]
async fn two_leases_see_nothing_of_each_other() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let (_mine, mut me) = rig.client(LeaseKind::Shared).await;
        let (_theirs, mut they) = rig.client(LeaseKind::Shared).await;
        for client in [&mut me, &mut they] {
            let all = json!({ "discover": true, "filter": [{}] });
            client.ok(None, "Target.setDiscoverTargets", all).await;
            let params =
                json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true });
            client.ok(None, "Target.setAutoAttach", params).await;
        }
        let (target, session) = they.page("data:text/html,<title>theirs</title>").await;
        let mine = me.ok(None, "Target.getTargets", json!({ "filter": [{}] })).await;
        assert!(!mine.to_string().contains(&target), "{engine:?}: {mine}");
        let contexts = me.ok(None, "Target.getBrowserContexts", json!({})).await;
        let theirs = they.ok(None, "Target.getBrowserContexts", json!({})).await;
        assert_ne!(contexts["defaultBrowserContextId"], theirs["defaultBrowserContextId"]);
        for method in [
            "Target.attachToTarget",
            "Target.closeTarget",
            "Target.activateTarget",
            "Target.getTargetInfo",
        ] {
            let params = json!({ "targetId": target, "flatten": true });
            let (_, message) = me.fails(None, method, params).await;
            assert!(message.contains("No target"), "{method}: {message}");
        }
        let params = json!({ "expression": "1" });
        let (code, _) = me.fails(Some(&session), "Runtime.evaluate", params).await;
        assert_eq!(code, -32001);
        let params =
            json!({ "url": "about:blank", "browserContextId": theirs["defaultBrowserContextId"] });
        me.fails(None, "Target.createTarget", params).await;
        let events: Vec<String> = me.events.iter().map(ToString::to_string).collect();
        assert!(!events.join("").contains(&target), "{engine:?}: {events:?}");
        // The page is untouched.
        they.evaluates_to(&session, "document.title", &json!("theirs")).await;
    }
}

#[tokio::test]
async fn cookies_of_one_lease_are_not_in_the_next() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for kind in KINDS {
            let (lease, mut client) = rig.client(kind).await;
            let cookies = client.ok(None, "Storage.getCookies", json!({})).await;
            assert_eq!(cookies["cookies"], json!([]), "{engine:?} {kind:?}");
            let cookie = json!({ "name": "a", "value": "b", "domain": "example.org", "path": "/" });
            client.ok(None, "Storage.setCookies", json!({ "cookies": [cookie] })).await;
            let cookies = client.ok(None, "Storage.getCookies", json!({})).await;
            assert_eq!(cookies["cookies"].as_array().unwrap().len(), 1);
            lease.end().await.unwrap();
        }
    }
}

/// The pages that a client is told of when it asks.
async fn pages(client: &mut Client) -> Vec<String> {
    let targets = client.ok(None, "Target.getTargets", json!({})).await;
    let targets = targets["targetInfos"].as_array().unwrap().iter();
    let pages = targets.filter(|target| target["type"] == "page");
    pages.map(|page| page["targetId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_lease_begins_with_one_page_as_a_launched_browser_does() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for options in every_lease() {
            for made_ahead in [true, false] {
                let options = options.clone().warm_page(made_ahead);
                let lease = rig.mux.open_lease(options).await.unwrap();
                let mut client = Client::new(lease.connect().await.unwrap());
                let begins_with = pages(&mut client).await;
                let [first] = &begins_with[..] else {
                    panic!("not one page but {begins_with:?}, {engine:?}, made ahead: {made_ahead}")
                };
                let shown = lease.targets();
                assert_eq!(shown.len(), 1);
                assert_eq!((&*shown[0].id, &*shown[0].url), (&**first, "about:blank"));

                // Discovery tells of it, and auto-attach attaches to it before it is answered. It
                // does not stand still: it was there before.
                client.ok(None, "Target.setDiscoverTargets", json!({ "discover": true })).await;
                let about_it =
                    |params: &serde_json::Value| params["targetInfo"]["targetId"] == **first;
                let created = client.event("Target.targetCreated", about_it).await;
                assert_eq!(created["params"]["targetInfo"]["url"], "about:blank");
                let params =
                    json!({ "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true });
                client.ok(None, "Target.setAutoAttach", params).await;
                let attached = |event: &&serde_json::Value| {
                    event["method"] == "Target.attachedToTarget" && about_it(&event["params"])
                };
                let attached: Vec<_> = client.events.iter().filter(attached).cloned().collect();
                assert_eq!(attached.len(), 1, "{attached:?}");
                assert_eq!(attached[0]["params"]["waitingForDebugger"], json!(false));
                let session = attached[0]["params"]["sessionId"].as_str().unwrap();
                let seen = "[location.href, history.length, document.visibilityState]";
                let seen = client.evaluate(session, seen).await;
                assert_eq!(seen, json!(["about:blank", 1, "visible"]));

                // A second page is another one, and a second client finds both.
                let (second, _) = client.page("about:blank").await;
                let mut other = Client::new(lease.connect().await.unwrap());
                let mut found = pages(&mut other).await;
                found.sort();
                let mut expected = [first.clone(), second];
                expected.sort();
                assert_eq!(found, expected);

                // Closed, it is gone as any other, and the next client is given no new one.
                for page in expected {
                    client.ok(None, "Target.closeTarget", json!({ "targetId": page })).await;
                    client
                        .event("Target.targetDestroyed", |params| params["targetId"] == *page)
                        .await;
                }
                assert_eq!(pages(&mut client).await, [""; 0]);
                drop((client, other));
                let mut last = Client::new(lease.connect().await.unwrap());
                assert_eq!(pages(&mut last).await, [""; 0]);
                last.page("about:blank").await;
                lease.end().await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn the_terms_of_a_lease_are_set_once_and_before_its_first_connection() {
    let rig = Rig::new(ENGINES[0]).await;
    for (first, then, count) in [(true, false, 1), (false, true, 0)] {
        let lease = rig.lease(LeaseKind::Shared).await;
        for first_page in [first, then] {
            lease.begin(&LeaseTerms::new().first_page(first_page)).await.unwrap();
        }
        assert_eq!(lease.targets().len(), count);
        let mut client = Client::new(lease.connect().await.unwrap());
        assert_eq!(pages(&mut client).await.len(), count);
    }
}

#[tokio::test]
async fn a_lease_that_begins_with_no_page_has_its_first_new_page_ready() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for kind in KINDS {
            let lease = rig.lease(kind).await;
            lease.begin(&LeaseTerms::new().first_page(false)).await.unwrap();
            assert_eq!(lease.targets(), []);
            let mut client = Client::new(lease.connect().await.unwrap());
            client
                .ok(None, "Target.setDiscoverTargets", json!({ "discover": true, "filter": [{}] }))
                .await;
            let targets = client.ok(None, "Target.getTargets", json!({ "filter": [{}] })).await;
            assert!(!targets.to_string().contains(r#""page""#), "{engine:?}: {targets}");
            assert!(
                client
                    .events
                    .iter()
                    .all(|event| event["params"]["targetInfo"]["type"] == "browser")
            );
            let params =
                json!({ "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true });
            client.ok(None, "Target.setAutoAttach", params).await;
            assert!(client.events.iter().all(|event| event["method"] != "Target.attachedToTarget"));

            let made =
                client.ok(None, "Target.createTarget", json!({ "url": "about:blank" })).await;
            // Everything that a client must know of the page came before the reply.
            let target = made["targetId"].clone();
            let of_it =
                |event: &&serde_json::Value| event["params"]["targetInfo"]["targetId"] == target;
            let methods: Vec<_> =
                client.events.iter().filter(of_it).map(|event| event["method"].clone()).collect();
            assert!(methods.contains(&json!("Target.targetCreated")), "{methods:?}");
            assert!(methods.contains(&json!("Target.attachedToTarget")), "{methods:?}");
            let attached = client
                .event("Target.attachedToTarget", |params| {
                    params["targetInfo"]["targetId"] == target
                })
                .await;
            assert_eq!(attached["params"]["waitingForDebugger"], json!(true));
            let session = attached["params"]["sessionId"].as_str().unwrap().to_owned();
            client.ok(Some(&session), "Runtime.runIfWaitingForDebugger", json!({})).await;
            assert_eq!(client.evaluate(&session, "location.href").await, json!("about:blank"));
            assert_eq!(client.evaluate(&session, "history.length").await, json!(1));

            // A second page is a new one.
            let other =
                client.ok(None, "Target.createTarget", json!({ "url": "about:blank" })).await;
            assert_ne!(other["targetId"], target);
        }
    }
}

#[tokio::test]
async fn a_page_lives_on_in_its_lease_when_its_client_goes() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for kind in KINDS {
            let (lease, mut first) = rig.client(kind).await;
            let params =
                json!({ "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true });
            first.ok(None, "Target.setAutoAttach", params.clone()).await;
            // Left paused by its client, it must not stay so.
            let made = first
                .ok(
                    None,
                    "Target.createTarget",
                    json!({ "url": "data:text/html,<title>kept</title>" }),
                )
                .await;
            let target = made["targetId"].as_str().unwrap();
            let bound = json!({ "disposeOnDetach": true });
            let bound = first.ok(None, "Target.createBrowserContext", bound).await;
            drop(first);

            let mut second = Client::new(lease.connect().await.unwrap());
            second.ok(None, "Target.setAutoAttach", params).await;
            let attached = second
                .event("Target.attachedToTarget", |params| {
                    params["targetInfo"]["targetId"] == target
                })
                .await;
            let session = attached["params"]["sessionId"].as_str().unwrap().to_owned();
            // The page goes on.
            second.evaluates_to(&session, "document.title", &json!("kept")).await;
            eventually("what was bound to the connection is gone", async || {
                let contexts = rig.mux.context_ids().await.unwrap();
                !contexts.iter().any(|id| *id == bound["browserContextId"].as_str().unwrap())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn two_clients_of_one_lease_are_both_attached_to_its_pages() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let (lease, mut first) = rig.client(LeaseKind::Exclusive).await;
        let mut second = Client::new(lease.connect().await.unwrap());
        let params =
            json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true });
        first.ok(None, "Target.setAutoAttach", params.clone()).await;
        second.ok(None, "Target.setAutoAttach", params).await;
        for _ in 0..3 {
            // The reply comes when the one who asked is attached, whoever got the first session.
            let made =
                second.ok(None, "Target.createTarget", json!({ "url": "about:blank" })).await;
            let target = made["targetId"].clone();
            let is_it =
                |event: &serde_json::Value| event["params"]["targetInfo"]["targetId"] == target;
            let attached = second
                .events
                .iter()
                .find(|event| event["method"] == "Target.attachedToTarget" && is_it(event))
                .unwrap_or_else(|| panic!("not attached before the reply: {:?}", second.events));
            let session = attached["params"]["sessionId"].as_str().unwrap().to_owned();
            second.evaluate(&session, "1").await;
            let attached = first
                .event("Target.attachedToTarget", |params| {
                    params["targetInfo"]["targetId"] == target
                })
                .await;
            let session = attached["params"]["sessionId"].as_str().unwrap().to_owned();
            first.evaluate(&session, "1").await;
        }
    }
}

#[tokio::test]
async fn browser_close_ends_the_lease_and_not_the_browser() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for kind in KINDS {
            let (lease, mut client) = rig.client(kind).await;
            let (_, session) = client.page("about:blank").await;
            let on = if kind == LeaseKind::Shared { Some(session.as_str()) } else { None };
            assert_eq!(client.ok(on, "Browser.close", json!({})).await, json!({}));
            assert_eq!(client.end().await, EndReason::BrowserClosed);
            assert_eq!(lease.ended().await, EndReason::BrowserClosed);
            assert!(lease.connect().await.is_err());
            lease.end().await.unwrap();
            assert!(rig.mux.end_reason().is_none());
        }
    }
}

#[tokio::test]
async fn a_dead_browser_ends_its_clients_with_the_reason() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let (lease, client) = rig.client(LeaseKind::Shared).await;
        rig.chromium.kill();
        assert_eq!(client.end().await, EndReason::Crashed);
        assert_eq!(lease.ended().await, EndReason::Crashed);
        assert_eq!(rig.mux.ended().await, EndReason::Crashed);
    }
}

#[tokio::test]
async fn a_browser_that_the_kernel_ended_for_want_of_memory_says_so() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let (lease, client) = rig.client(LeaseKind::Shared).await;
        rig.mux.ask_at_death(|| true);
        rig.chromium.kill();
        assert_eq!(client.end().await, EndReason::OutOfMemory);
        assert_eq!(lease.ended().await, EndReason::OutOfMemory);
    }
}

/// Makes a page that talks without end, and does not read what it says.
async fn flood(client: &mut Client) {
    let (_, page) = client.page("about:blank").await;
    client.ok(Some(&page), "Runtime.enable", json!({})).await;
    let flood =
        "setInterval(() => { for (let i = 0; i < 200; i++) console.log('x'.repeat(4096)) }, 0)";
    client.send(Some(&page), "Runtime.evaluate", json!({ "expression": flood })).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_its_neighbour_is_not() {
    let budget = Budget::new(4 << 20);
    let rig = Rig::within(budget.clone(), ENGINES[0]).await;
    let lease = rig.lease(LeaseKind::Shared).await;
    let mut greedy = Client::new(lease.connect().await.unwrap());
    let (_neighbour, mut neighbour) = rig.client(LeaseKind::Shared).await;
    let (_, session) = neighbour.page("about:blank").await;

    flood(&mut greedy).await;
    eventually("it is cut off", async || {
        assert_eq!(neighbour.evaluate(&session, "6*7").await, json!(42));
        assert!(budget.used() <= budget.limit(), "{} bytes wait", budget.used());
        greedy_is_over(&greedy)
    })
    .await;
    assert_eq!(greedy.end().await, EndReason::SlowReader);
    assert_eq!(neighbour.evaluate(&session, "6*7").await, json!(42));
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn a_browser_whose_only_client_does_not_read_is_held_back_and_not_cut_off() {
    for engine in ENGINES {
        let budget = Budget::new(4 << 20);
        let rig = Rig::within(budget.clone(), engine).await;
        let (lease, mut client) = rig.client(LeaseKind::Exclusive).await;
        flood(&mut client).await;
        eventually("it is held back", async || rig.mux.is_held_back()).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(budget.used() <= budget.limit() / 2, "{} bytes wait", budget.used());
        assert_eq!(client.end_reason(), None);
        // What was held back comes when it is read, in order and whole.
        let (_, page) = client.page("about:blank").await;
        assert_eq!(client.evaluate(&page, "6*7").await, json!(42));
        let said =
            client.events.iter().filter(|event| event["method"] == "Runtime.consoleAPICalled");
        assert!(said.count() * 4096 > budget.limit() / 16, "what it said is lost");
        eventually("it is held back again", async || rig.mux.is_held_back()).await;
        lease.end().await.unwrap();
        assert!(!rig.mux.is_held_back());
        drop(client);
        assert_eq!(budget.used(), 0);
        let (_lease, mut next) = rig.client(LeaseKind::Exclusive).await;
        let (_, page) = next.page("about:blank").await;
        assert_eq!(next.evaluate(&page, "6*7").await, json!(42));
    }
}

fn greedy_is_over(client: &Client) -> bool {
    client.end_reason() == Some(EndReason::SlowReader)
}

#[tokio::test]
async fn a_chromium_that_pauses_new_pages_suits_shared_leases() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        assert!(!rig.mux.is_proven());
        let _lease = rig.lease(LeaseKind::Shared).await;
        assert!(rig.mux.is_proven());
        rig.mux.check_suited().unwrap();
    }
}

#[tokio::test]
async fn a_hundred_leases_leave_nothing_in_the_registry() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let mut before = None;
        for round in 0..25 {
            for kind in KINDS {
                let (lease, mut client) = rig.client(kind).await;
                let params =
                    json!({ "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true });
                client.ok(None, "Target.setAutoAttach", params).await;
                client.ok(None, "Target.setDiscoverTargets", json!({ "discover": true })).await;
                client.page("about:blank").await;
                client.ok(None, "Target.createBrowserContext", json!({})).await;
                if round % 2 == 0 {
                    drop(client);
                }
                lease.end().await.unwrap();
            }
            assert_eq!(rig.mux.context_ids().await.unwrap(), [""; 0]);
            eventually("what was on its way has come", async || {
                let census = rig.mux.census();
                (census.leases, census.connections, census.contexts, census.pending) == (0, 0, 0, 0)
            })
            .await;
            let census = rig.mux.census();
            assert_eq!(*before.get_or_insert(census), census, "{engine:?}, round {round}");
        }
    }
}

#[tokio::test]
async fn a_lease_that_ends_as_a_service_worker_registers_leaves_nothing() {
    let site = Site::start().await;
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for round in 0..10 {
            for kind in KINDS {
                let (lease, mut client) = rig.client(kind).await;
                let params =
                    json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true });
                client.ok(None, "Target.setAutoAttach", params).await;
                let (_, page) = client.page("about:blank").await;
                client.ok(Some(&page), "Page.enable", json!({})).await;
                let params = json!({ "url": site.url("/worker") });
                client.send(Some(&page), "Page.navigate", params).await;
                client.event("Page.loadEventFired", |_| true).await;
                let ended = lease.end().await;
                assert!(ended.is_ok(), "{engine:?} {kind:?}, round {round}: {ended:?}");
            }
        }
        let fresh = Rig::new(engine).await;
        fresh.lease(LeaseKind::Shared).await.end().await.unwrap();
        eventually("it holds as much as a Chromium that was just launched", async || {
            // A worker that comes up after its lease is over is found at the end of a later one.
            rig.lease(LeaseKind::Shared).await.end().await.unwrap();
            let census = rig.mux.census();
            assert_eq!((census.leases, census.contexts), (0, 0));
            census == fresh.mux.census()
        })
        .await;
    }
}

#[tokio::test]
async fn what_keys_open_in_the_window_is_closed_and_shown_to_nobody() {
    // Only the whole browser has a window behind its pages.
    let rig = Rig::new(ENGINES[1]).await;
    let (_lease, mut client) = rig.client(LeaseKind::Shared).await;
    client.ok(None, "Target.setDiscoverTargets", json!({ "discover": true, "filter": [{}] })).await;
    let (_, page) = client.page("about:blank").await;
    let before = rig.mux.census().targets;
    let mut most = before;
    for (key, modifiers) in [("n", 2), ("t", 2), ("n", 10), ("Delete", 10), ("F12", 0)] {
        let code = key.bytes().next().unwrap().to_ascii_uppercase();
        let code = match key {
            "Delete" => 46,
            "F12" => 123,
            _ => i64::from(code),
        };
        for kind in ["rawKeyDown", "keyUp"] {
            let params = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code,
                "nativeVirtualKeyCode": code, "modifiers": modifiers });
            client.ok(Some(&page), "Input.dispatchKeyEvent", params).await;
        }
        let until = tokio::time::Instant::now() + std::time::Duration::from_millis(500);
        while tokio::time::Instant::now() < until {
            most = most.max(rig.mux.census().targets);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    assert!(most > before, "the keys open nothing any more: is the rule still needed?");
    eventually("all of it is closed", async || rig.mux.census().targets <= before).await;
    for event in &client.events {
        let event = event.to_string();
        assert!(!event.contains("chrome:") && !event.contains("devtools:"), "{event}");
    }
    assert_eq!(client.evaluate(&page, "6*7").await, json!(42));
}

#[tokio::test]
async fn a_connection_to_a_page_speaks_to_it_without_a_session() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for kind in KINDS {
            let (lease, mut browser) = rig.client(kind).await;
            let (target, _) = browser.page("about:blank").await;
            let mut page = Client::new(lease.connect_page(Some(&target), None).await.unwrap());
            let sum = json!({ "expression": "6 * 7" });
            let answer = page.ok(None, "Runtime.evaluate", sum).await;
            assert_eq!(answer["result"]["value"], 42, "{engine:?} {kind:?}");
            assert!(answer["sessionId"].is_null(), "{answer}");
            // Events of the page and its children come as from a Chromium's own socket of it.
            page.ok(None, "Page.enable", json!({})).await;
            let attach =
                json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true });
            page.ok(None, "Target.setAutoAttach", attach).await;
            let url = "data:text/html,<script>new Worker('data:text/javascript,1')</script>";
            page.ok(None, "Page.navigate", json!({ "url": url })).await;
            let loaded = page.event("Page.loadEventFired", |_| true).await;
            assert!(loaded["sessionId"].is_null(), "{loaded}");
            let worker = page.event("Target.attachedToTarget", |_| true).await;
            assert!(worker["sessionId"].is_null(), "{worker}");
            let session = worker["params"]["sessionId"].as_str().unwrap().to_owned();
            assert_eq!(page.evaluate(&session, "6 * 7").await, 42);
            browser.ok(None, "Target.closeTarget", json!({ "targetId": target })).await;
            page.event("Inspector.detached", |_| true).await;
            assert_eq!(page.end().await, EndReason::PageClosed, "{engine:?} {kind:?}");
            assert_eq!(lease.end_reason(), None, "the lease goes on");
            // The first page that there is, and one that is not the lease's.
            let mut other = Client::new(lease.connect_page(None, None).await.unwrap());
            let answer = other.ok(None, "Runtime.evaluate", json!({ "expression": "1 + 1" })).await;
            assert_eq!(answer["result"]["value"], 2);
            assert!(lease.connect_page(Some(&target), None).await.is_err());
            lease.end().await.unwrap();
        }
    }
}
