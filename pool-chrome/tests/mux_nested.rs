//! Sessions that are not flattened, as a client has them with a Chromium of its own.

mod mux_support;

use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use mux_support::{Client, ENGINES, KINDS, LONG, Rig, Site, every_lease};
use pool_chrome::mux::{LeaseKind, LeaseOptions};
use pool_chrome::process::Engine;
use serde_json::{Value, json};

static NEXT: AtomicI32 = AtomicI32::new(1000);

/// Sends a command in the last of these sessions, each of which is nested in the one before.
async fn send_in(client: &mut Client, path: &[&str], method: &str, params: Value) -> i32 {
    let id = NEXT.fetch_add(1, Relaxed);
    let message = json!({ "id": id, "method": method, "params": params });
    send_text_in(client, path, message.to_string()).await;
    id
}

async fn send_text_in(client: &mut Client, path: &[&str], mut message: String) {
    let (outer, inner) = path.split_first().unwrap();
    for session in inner.iter().rev() {
        let params = json!({ "sessionId": session, "message": message });
        let id = NEXT.fetch_add(1, Relaxed);
        message = json!({ "id": id, "method": "Target.sendMessageToTarget", "params": params })
            .to_string();
    }
    let params = json!({ "sessionId": outer, "message": message });
    client.ok(None, "Target.sendMessageToTarget", params).await;
}

/// Returns the message that an event has for the last of these sessions, if any.
fn message_in(params: &Value, path: &[&str]) -> Option<Value> {
    let (outer, inner) = path.split_first()?;
    if params["sessionId"] != json!(outer) {
        return None;
    }
    let message: Value = serde_json::from_str(params["message"].as_str()?).unwrap();
    match inner {
        [] => Some(message),
        inner if message["method"] == "Target.receivedMessageFromTarget" => {
            message_in(&message["params"], inner)
        }
        _ => None,
    }
}

/// The next message in the last of these sessions that suits.
async fn next_in(
    client: &mut Client,
    path: &[&str],
    suits: impl Fn(&Value) -> bool + Send + Sync,
) -> Value {
    let suits = |params: &Value| message_in(params, path).is_some_and(|message| suits(&message));
    let event = client.event("Target.receivedMessageFromTarget", suits).await;
    message_in(&event["params"], path).unwrap()
}

async fn ask_in(client: &mut Client, path: &[&str], method: &str, params: Value) -> Value {
    let id = send_in(client, path, method, params).await;
    next_in(client, path, |message| message["id"] == json!(id)).await
}

async fn ok_in(client: &mut Client, path: &[&str], method: &str, params: Value) -> Value {
    let reply = ask_in(client, path, method, params).await;
    assert!(reply.get("error").is_none(), "{method}: {reply}");
    reply["result"].clone()
}

async fn event_in(client: &mut Client, path: &[&str], method: &str) -> Value {
    next_in(client, path, |message| message["method"] == json!(method)).await["params"].clone()
}

async fn fails_in(client: &mut Client, path: &[&str], method: &str, params: Value) -> String {
    let reply = ask_in(client, path, method, params).await;
    reply["error"]["message"].as_str().unwrap_or_else(|| panic!("{method}: {reply}")).to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

/// A page, and a session on it that is not flattened.
async fn nested_page(client: &mut Client, url: &str) -> (String, String) {
    let made = client.ok(None, "Target.createTarget", json!({ "url": url })).await;
    let target = text(&made["targetId"]);
    let attached = client.ok(None, "Target.attachToTarget", json!({ "targetId": target })).await;
    (target, text(&attached["sessionId"]))
}

const WORKER: &str = "new Worker(URL.createObjectURL(new Blob(['self.x = 7']))); 1";

#[tokio::test]
async fn a_session_that_is_not_flattened_talks_inside_of_its_parent() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for options in every_lease() {
            let (lease, mut client) = rig.client_of(options).await;
            let (target, session) = nested_page(&mut client, "about:blank").await;
            let told = client.event("Target.attachedToTarget", |_| true).await;
            assert_eq!(told["params"]["sessionId"], json!(session));

            let two = json!({ "expression": "1 + 1" });
            let id = send_in(&mut client, &[&session], "Runtime.evaluate", two.clone()).await;
            let heard = client.event("Target.receivedMessageFromTarget", |_| true).await;
            let message = format!(
                r#"{{"id":{id},"result":{{"result":{{"type":"number","value":2,"description":"2"}}}}}}"#
            );
            let params = json!({ "sessionId": session, "message": message, "targetId": target });
            assert_eq!(heard["params"], params);
            assert!(heard.get("sessionId").is_none(), "{heard}");

            // A target may be named instead of its session, as long as that is the only one.
            let message = r#"{"id":5,"method":"Target.getTargetInfo"}"#;
            let params = json!({ "targetId": target, "message": message });
            client.ok(None, "Target.sendMessageToTarget", params.clone()).await;
            let info = next_in(&mut client, &[&session], |message| message["id"] == 5).await;
            assert_eq!(info["result"]["targetInfo"]["targetId"], json!(target));
            let second = json!({ "targetId": target, "flatten": false });
            let second = text(&client.ok(None, "Target.attachToTarget", second).await["sessionId"]);
            let several = client.fails(None, "Target.sendMessageToTarget", params).await;
            assert_eq!(several, (-32000, "Multiple sessions attached, specify id.".to_owned()));
            let three = json!({ "expression": "3" });
            let three = ok_in(&mut client, &[&second], "Runtime.evaluate", three).await;
            assert_eq!(three["result"]["value"], 3);

            let leave = json!({ "sessionId": second });
            client.ok(None, "Target.detachFromTarget", leave).await;
            let gone = client.event("Target.detachedFromTarget", |_| true).await;
            assert_eq!(gone["params"], json!({ "sessionId": second, "targetId": target }));
            client.ok(None, "Target.closeTarget", json!({ "targetId": target })).await;
            let gone = client.event("Target.detachedFromTarget", |_| true).await;
            assert_eq!(gone["params"], json!({ "sessionId": session, "targetId": target }));
            drop(lease);
        }
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_answered_in_the_words_of_chromium() {
    let rig = Rig::new(Engine::Shell).await;
    for kind in KINDS {
        let (_lease, mut client) = rig.client(kind).await;
        let (target, session) = nested_page(&mut client, "about:blank").await;
        let params = json!({ "targetId": target, "flatten": true });
        let flat = text(&client.ok(None, "Target.attachToTarget", params).await["sessionId"]);
        let method = "Target.sendMessageToTarget";
        for (params, code, words) in [
            (json!({ "message": "{}" }), -32602, "Session id must be specified"),
            (json!({ "sessionId": session }), -32602, "Invalid parameters"),
            (json!({ "sessionId": session, "message": 5 }), -32602, "Invalid parameters"),
            (json!({ "sessionId": "x", "message": "{}" }), -32602, "No session with given id"),
            (json!({ "targetId": "x", "message": "{}" }), -32602, "No session for given target id"),
            (
                json!({ "sessionId": flat, "message": "{}" }),
                -32000,
                "When using flat protocol, messages are routed to the target via the sessionId \
                 attribute.",
            ),
        ] {
            let failed = client.fails(None, method, params).await;
            assert_eq!(failed, (code, words.to_owned()));
        }
        let params = json!({ "targetId": target, "flatten": "x" });
        let failed = client.fails(None, "Target.attachToTarget", params).await;
        assert_eq!(failed, (-32602, "Invalid parameters".to_owned()));
        // A nested session is not one that a message can name.
        let failed = client.fails(Some(&session), "Runtime.evaluate", json!({})).await;
        assert_eq!(failed, (-32001, "Session with given id not found.".to_owned()));

        for (message, code) in [
            (r#"{"id":3"#.to_owned(), -32700),
            (String::new(), -32700),
            ("[1]".to_owned(), -32600),
            (r#"{"id":3,"method":""}"#.to_owned(), -32600),
            (r#"{"id":3,"method":"Foo.bar"}"#.to_owned(), -32601),
            (format!(r#"{{"id":3,"method":"Page.enable","sessionId":"{session}"}}"#), -32001),
            (format!(r#"{{"id":3,"method":"Page.enable","sessionId":"{flat}"}}"#), -32001),
            (
                format!(r#"{{"id":3,"method":"Page.enable","sessionId":"{}"}}"#, "0".repeat(32)),
                -32001,
            ),
        ] {
            send_text_in(&mut client, &[&session], message.clone()).await;
            let reply = next_in(&mut client, &[&session], |it| it["error"].is_object()).await;
            assert_eq!(reply["error"]["code"], json!(code), "{message}: {reply}");
        }
    }
}

#[tokio::test]
async fn what_attaches_by_itself_below_a_page_is_nested_as_its_client_asks() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for kind in KINDS {
            let (_lease, mut client) = rig.client(kind).await;
            let (_, page) = nested_page(&mut client, "about:blank").await;
            let path = [page.as_str()];
            let on = json!({ "autoAttach": true, "waitForDebuggerOnStart": true });
            ok_in(&mut client, &path, "Target.setAutoAttach", on).await;
            ok_in(&mut client, &path, "Runtime.evaluate", json!({ "expression": WORKER })).await;
            let attached = event_in(&mut client, &path, "Target.attachedToTarget").await;
            assert_eq!(attached["targetInfo"]["type"], "worker");
            let worker = text(&attached["sessionId"]);
            let path = [page.as_str(), worker.as_str()];
            ok_in(&mut client, &path, "Runtime.runIfWaitingForDebugger", json!({})).await;
            event_in(&mut client, &path, "Inspector.workerScriptLoaded").await;
            let x = json!({ "expression": "self.x" });
            let x = ok_in(&mut client, &path, "Runtime.evaluate", x).await;
            assert_eq!(x["result"]["value"], 7);

            // Those that are flat lie beside it, named by the messages within their page's.
            let path = [page.as_str()];
            let on =
                json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true });
            ok_in(&mut client, &path, "Target.setAutoAttach", on).await;
            ok_in(&mut client, &path, "Runtime.evaluate", json!({ "expression": WORKER })).await;
            let flat = event_in(&mut client, &path, "Target.attachedToTarget").await;
            let flat = &flat["sessionId"];
            let loaded = next_in(&mut client, &path, |message| {
                message["method"] == "Inspector.workerScriptLoaded"
            })
            .await;
            assert_eq!(&loaded["sessionId"], flat);
            let ask = json!({ "id": 9, "method": "Runtime.evaluate", "sessionId": flat,
                "params": { "expression": "self.x" } });
            send_text_in(&mut client, &path, ask.to_string()).await;
            let x = next_in(&mut client, &path, |message| message["id"] == 9).await;
            assert_eq!((&x["result"]["result"]["value"], &x["sessionId"]), (&json!(7), flat));
        }
    }
}

#[tokio::test]
async fn a_flattened_page_may_have_workers_that_are_not() {
    let rig = Rig::new(Engine::Shell).await;
    for kind in KINDS {
        let (_lease, mut client) = rig.client(kind).await;
        let (_, page) = client.page("about:blank").await;
        let on = json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": false });
        client.ok(Some(&page), "Target.setAutoAttach", on).await;
        client.evaluate(&page, WORKER).await;
        let attached = |params: &Value| params["targetInfo"]["type"] == "worker";
        let attached = client.event("Target.attachedToTarget", attached).await;
        assert_eq!(attached["sessionId"], json!(page));
        let worker = text(&attached["params"]["sessionId"]);
        let message = r#"{"id":3,"method":"Runtime.evaluate","params":{"expression":"self.x"}}"#;
        let params = json!({ "sessionId": worker, "message": message });
        client.ok(Some(&page), "Target.sendMessageToTarget", params.clone()).await;
        let answer = |params: &Value| {
            message_in(params, &[&worker]).is_some_and(|message| message["id"] == 3)
        };
        let heard = client.event("Target.receivedMessageFromTarget", answer).await;
        assert_eq!(heard["sessionId"], json!(page));
        // It is the page's, not the browser's.
        client.fails(None, "Target.sendMessageToTarget", params).await;
    }
}

#[tokio::test]
async fn nested_sessions_lie_four_deep_at_most() {
    let rig = Rig::new(Engine::Shell).await;
    for kind in KINDS {
        let (_lease, mut client) = rig.client(kind).await;
        let (target, session) = nested_page(&mut client, "about:blank").await;
        let again = json!({ "targetId": target });
        let mut path = vec![session];
        while path.len() < 4 {
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            let made = ok_in(&mut client, &names, "Target.attachToTarget", again.clone()).await;
            path.push(text(&made["sessionId"]));
        }
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        let value = ok_in(&mut client, &names, "Runtime.evaluate", json!({ "expression": "4" }));
        assert_eq!(value.await["result"]["value"], 4);
        let on = json!({ "autoAttach": true, "waitForDebuggerOnStart": false });
        for (method, params) in [("Target.attachToTarget", again), ("Target.setAutoAttach", on)] {
            let words = fails_in(&mut client, &names, method, params.clone()).await;
            assert!(words.contains("4 deep at most"), "{words}");
            let mut params = params;
            params["flatten"] = json!(true);
            ok_in(&mut client, &names, method, params).await;
        }
    }
}

#[tokio::test]
async fn a_nested_page_loads_its_address_and_tells_of_it() {
    let site = Site::start().await;
    let rig = Rig::new(Engine::Shell).await;
    for kind in KINDS {
        let (_lease, mut client) = rig.client(kind).await;
        let (_, page) = nested_page(&mut client, &site.url("/nested")).await;
        let path = [page.as_str()];
        ok_in(&mut client, &path, "Page.enable", json!({})).await;
        let on = json!({ "enabled": true });
        ok_in(&mut client, &path, "Page.setLifecycleEventsEnabled", on).await;
        let loaded = next_in(&mut client, &path, |message| {
            message["method"] == "Page.lifecycleEvent" && message["params"]["name"] == "load"
        });
        loaded.await;
        let title = json!({ "expression": "document.title" });
        let title = ok_in(&mut client, &path, "Runtime.evaluate", title).await;
        assert_eq!(title["result"]["value"], "/nested");

        // What ends up nowhere is told of as well, and in the same way.
        let (_, page) = nested_page(&mut client, &site.url("/nothing")).await;
        let path = [page.as_str()];
        ok_in(&mut client, &path, "Page.enable", json!({})).await;
        let on = json!({ "enabled": true });
        ok_in(&mut client, &path, "Page.setLifecycleEventsEnabled", on).await;
        next_in(&mut client, &path, |message| {
            message["method"] == "Page.lifecycleEvent" && message["params"]["name"] == "load"
        })
        .await;
        assert!(client.events.iter().all(|event| event["method"] != "Page.lifecycleEvent"));
    }
}

#[tokio::test]
async fn nothing_of_a_nested_session_that_is_gone_is_taken_for_an_answer() {
    let rig = Rig::new(Engine::Shell).await;
    for kind in KINDS {
        let (_lease, mut client) = rig.client(kind).await;
        let (target, page) = nested_page(&mut client, "about:blank").await;
        let never = json!({ "expression": "new Promise(() => {})", "awaitPromise": true });
        send_in(&mut client, &[&page], "Runtime.evaluate", never).await;
        send_in(&mut client, &[&page], "Target.getTargets", json!({})).await;
        client.ok(None, "Target.closeTarget", json!({ "targetId": target })).await;
        client.event("Target.detachedFromTarget", |_| true).await;
        client.ok(None, "Browser.getVersion", json!({})).await;
        let stray = client.events.iter().find(|event| event.get("id").is_some());
        assert!(stray.is_none(), "{stray:?}");
    }
}

#[tokio::test]
async fn a_browser_session_may_be_nested_and_have_pages() {
    let rig = Rig::new(Engine::Shell).await;
    for kind in KINDS {
        let (_lease, mut client) = rig.client(kind).await;
        let own = client.ok(None, "Target.attachToBrowserTarget", json!({})).await;
        let own = text(&own["sessionId"]);
        let made =
            client.ok(Some(&own), "Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": made["targetId"] });
        let page = client.ok(Some(&own), "Target.attachToTarget", attach).await;
        let page = text(&page["sessionId"]);
        let message = r#"{"id":3,"method":"Runtime.evaluate","params":{"expression":"9"}}"#;
        let params = json!({ "sessionId": page, "message": message });
        client.fails(None, "Target.sendMessageToTarget", params.clone()).await;
        client.ok(Some(&own), "Target.sendMessageToTarget", params).await;
        let heard = client.event("Target.receivedMessageFromTarget", |_| true).await;
        assert_eq!(heard["sessionId"], json!(own));
    }
}

#[tokio::test]
async fn a_large_answer_comes_whole_through_a_nested_session() {
    let rig = Rig::new(Engine::Shell).await;
    for kind in KINDS {
        let (_lease, mut client) = rig.client(kind).await;
        let (_, page) = nested_page(&mut client, "about:blank").await;
        let expression = format!("'{}'.length", "é\\\\\\n\"".repeat(600_000));
        let length = json!({ "expression": expression });
        let length = ok_in(&mut client, &[&page], "Runtime.evaluate", length).await;
        assert_eq!(length["result"]["value"], 4 * 600_000);
        let back = json!({ "expression": "'é\\\\\\n\"'.repeat(600000)" });
        let back = ok_in(&mut client, &[&page], "Runtime.evaluate", back).await;
        assert_eq!(text(&back["result"]["value"]), "é\\\n\"".repeat(600_000));
    }
}

#[tokio::test]
async fn a_message_that_grows_beyond_the_budget_by_being_wrapped_ends_its_connection_alone() {
    let rig = Rig::within(pool_chrome::mux::Budget::new(4 << 20), Engine::Shell).await;
    let (_theirs, mut neighbour) = rig.client(LeaseKind::Shared).await;
    let (_lease, mut client) = rig.client(LeaseKind::Shared).await;
    let (target, session) = nested_page(&mut client, "about:blank").await;
    let attach = json!({ "targetId": target });
    let second = ok_in(&mut client, &[&session], "Target.attachToTarget", attach).await;
    let second = text(&second["sessionId"]);
    let expression = json!({ "expression": "'\\\\'.repeat(1 << 20)" });
    send_in(&mut client, &[&session, &second], "Runtime.evaluate", expression).await;
    let ended = tokio::time::timeout(LONG, client.end()).await.unwrap();
    assert_eq!(ended, pool_chrome::mux::EndReason::SlowReader);
    neighbour.ok(None, "Browser.getVersion", json!({})).await;
}

#[tokio::test]
async fn params_may_be_left_out_in_every_way_that_chromium_takes() {
    let rig = Rig::new(Engine::Shell).await;
    for kind in KINDS {
        let (_lease, mut client) = rig.client(kind).await;
        let (_, page) = client.page("about:blank").await;
        for params in [json!([]), json!([1, 2]), Value::Null] {
            client.ok(None, "Browser.getVersion", params.clone()).await;
            client.ok(None, "Target.getBrowserContexts", params.clone()).await;
            client.ok(Some(&page), "Runtime.enable", params.clone()).await;
        }
        for method in ["Target.createTarget", "Target.getTargets", "Target.setDiscoverTargets"] {
            let (code, message) = client.fails(None, method, json!([])).await;
            assert_eq!((code, &*message), (-32602, "Invalid parameters"), "{method}");
        }
        let (code, _) = client.fails(None, "Browser.getVersion", json!(5)).await;
        assert_eq!(code, -32600);
    }
}

#[tokio::test]
async fn an_unknown_method_is_told_apart_from_a_refused_one_and_a_forgotten_session() {
    let rig = Rig::new(Engine::Shell).await;
    for kind in KINDS {
        let (_lease, mut client) = rig.client_of(LeaseOptions::new(kind)).await;
        let (_, page) = client.page("about:blank").await;
        for on in [None, Some(page.as_str())] {
            for method in ["Foo.bar", "Target.fooBar", "Page.fooBar", "Tracing.fooBar", "foo"] {
                let failed = client.fails(on, method, json!({})).await;
                assert_eq!(failed, (-32601, format!("'{method}' wasn't found")), "{on:?}");
            }
            let (code, _) = client.fails(on, "", json!({})).await;
            assert_eq!(code, -32600);
        }
        let (code, words) = client.fails(None, "Page.navigate", json!({ "url": "x:" })).await;
        assert_eq!(code, -32601);
        assert!(words.starts_with("'Page.navigate' wasn't found") && words.contains("sessionId"));
        let (code, words) = client.fails(None, "Browser.crash", json!({})).await;
        assert!(code == -32000 && words.contains("is not available in a "), "{words}");
        if kind == LeaseKind::Shared {
            for method in ["Runtime.evaluate", "DOM.getDocument", "Network.enable"] {
                let (code, words) = client.fails(None, method, json!({})).await;
                assert!(code == -32601 && words.contains("sessionId"), "{method}: {words}");
            }
            for on in [None, Some(page.as_str())] {
                let (code, words) = client.fails(on, "Tracing.start", json!({})).await;
                assert_eq!((code, words.contains("is not available in")), (-32000, true));
            }
        }
    }
}
