//! Connections that leave a lease, and what the next one finds: everything that was left, and
//! nothing that stands still.

mod mux_support;

use std::sync::Arc;

use mux_support::{Client, ENGINES, KINDS, Rig, eventually};
use pool_chrome::mux::{HolderCommands, LeaseKind, LeaseOptions};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How a client came to its session on a page.
#[derive(Clone, Copy, Debug)]
enum By {
    /// Auto-attach, as Playwright and Puppeteer.
    AutoAttach,
    /// `Target.attachToTarget`, as chromiumoxide.
    Hand,
}

/// A client of a new lease with a page, left by `leave`; then what the next client finds there.
async fn left(leave: impl AsyncFn(&mut Client, &str), find: impl AsyncFn(&mut Client, &str)) {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for kind in KINDS {
            for by in [By::AutoAttach, By::Hand] {
                println!("{engine:?} {kind:?} {by:?}");
                let (lease, mut client) = rig.client(kind).await;
                let (target, session) = page(&mut client, by).await;
                leave(&mut client, &session).await;
                drop(client);
                let mut next = Client::new(lease.connect().await.unwrap());
                let session = attach(&mut next, &target).await;
                find(&mut next, &session).await;
                lease.end().await.unwrap();
            }
        }
    }
}

async fn page(client: &mut Client, by: By) -> (String, String) {
    match by {
        By::Hand => client.page("about:blank").await,
        By::AutoAttach => {
            auto_attach(client, None, true).await;
            let made =
                client.ok(None, "Target.createTarget", json!({ "url": "about:blank" })).await;
            let is_it = |params: &Value| params["targetInfo"]["targetId"] == made["targetId"];
            let attached = client.event("Target.attachedToTarget", is_it).await;
            let session = text(&attached["params"]["sessionId"]);
            client.ok(Some(&session), "Runtime.runIfWaitingForDebugger", json!({})).await;
            (text(&made["targetId"]), session)
        }
    }
}

async fn auto_attach(client: &mut Client, session: Option<&str>, wait: bool) {
    let params = json!({ "autoAttach": true, "waitForDebuggerOnStart": wait, "flatten": true });
    client.ok(session, "Target.setAutoAttach", params).await;
}

async fn attach(client: &mut Client, target: &str) -> String {
    let params = json!({ "targetId": target, "flatten": true });
    text(&client.ok(None, "Target.attachToTarget", params).await["sessionId"])
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Runs a script in the page that nobody waits for.
async fn run(client: &mut Client, session: &str, script: &str) {
    let params = json!({ "expression": format!("setTimeout(() => {{ {script} }}); 1") });
    client.ok(Some(session), "Runtime.evaluate", params).await;
}

/// Resolves when the page has come to the line that sets `after`.
const AFTER: &str = "new Promise(done => { \
    const look = () => window.after ? done(window.after) : setTimeout(look, 5); look() })";

#[tokio::test]
async fn a_request_that_was_paused_goes_on() {
    left(
        async |client, page| {
            client.ok(Some(page), "Fetch.enable", json!({})).await;
            let script = "fetch('http://127.0.0.1:1/').catch(() => { window.after = 1 })";
            run(client, page, script).await;
            client.event("Fetch.requestPaused", |_| true).await;
        },
        async |next, page| assert_eq!(next.evaluate(page, AFTER).await, 1),
    )
    .await;
}

#[tokio::test]
async fn a_script_that_was_stopped_by_the_debugger_goes_on() {
    left(
        async |client, page| {
            client.ok(Some(page), "Debugger.enable", json!({})).await;
            run(client, page, "debugger; window.after = 1").await;
            client.event("Debugger.paused", |_| true).await;
        },
        async |next, page| assert_eq!(next.evaluate(page, AFTER).await, 1),
    )
    .await;
}

#[tokio::test]
async fn a_dialog_that_was_open_is_closed() {
    left(
        async |client, page| {
            client.ok(Some(page), "Page.enable", json!({})).await;
            run(client, page, "window.after = confirm('?') ? 'yes' : 'no'").await;
            client.event("Page.javascriptDialogOpening", |_| true).await;
        },
        async |next, page| assert_eq!(next.evaluate(page, AFTER).await, "no"),
    )
    .await;
}

#[tokio::test]
async fn a_worker_that_waited_for_the_debugger_starts() {
    left(
        async |client, page| {
            auto_attach(client, Some(page), true).await;
            let script = "const url = URL.createObjectURL(new Blob(['postMessage(1)']));
                new Worker(url).onmessage = () => { window.after = 1 }";
            run(client, page, script).await;
            client.event("Target.attachedToTarget", is_waiting("worker")).await;
        },
        async |next, page| assert_eq!(next.evaluate(page, AFTER).await, 1),
    )
    .await;
}

#[tokio::test]
async fn a_popup_that_waited_for_the_debugger_starts() {
    left(
        async |client, page| {
            auto_attach(client, None, true).await;
            let params = json!({ "expression": "open(); 1" });
            // It is answered when the popup goes on.
            client.send(Some(page), "Runtime.evaluate", params).await;
            client.event("Target.attachedToTarget", is_waiting("page")).await;
        },
        async |next, _| {
            let targets = next.ok(None, "Target.getTargets", json!({})).await;
            let targets = targets["targetInfos"].as_array().expect("a list").clone();
            assert_eq!(targets.len(), 3, "the first page, ours and its popup: {targets:?}");
            for target in targets {
                let session = attach(next, &text(&target["targetId"])).await;
                assert_eq!(next.evaluate(&session, "6*7").await, 42);
            }
        },
    )
    .await;
}

fn is_waiting(kind: &str) -> impl Fn(&Value) -> bool {
    move |params| params["targetInfo"]["type"] == kind && params["waitingForDebugger"] == true
}

#[tokio::test]
async fn a_page_that_was_busy_is_not_held_by_its_last_client() {
    left(
        async |client, page| {
            client.ok(Some(page), "Fetch.enable", json!({})).await;
            run(client, page, "const end = Date.now() + 1500; while (Date.now() < end);").await;
        },
        async |next, page| {
            let script = "fetch('http://127.0.0.1:1/').catch(() => 'not paused')";
            assert_eq!(next.evaluate(page, script).await, "not paused");
        },
    )
    .await;
}

#[tokio::test]
async fn a_page_that_has_crashed_is_not_held_by_its_last_client() {
    left(
        async |client, page| {
            client.ok(Some(page), "Fetch.enable", json!({})).await;
            client.send(Some(page), "Page.crash", json!({})).await;
            client.ok(None, "Target.setDiscoverTargets", json!({ "discover": true })).await;
            client.event("Target.targetCrashed", |_| true).await;
        },
        async |next, page| {
            let url = "data:text/html,<title>back</title>";
            next.ok(Some(page), "Page.navigate", json!({ "url": url })).await;
            let script = "fetch('http://127.0.0.1:1/').catch(() => document.title)";
            next.evaluates_to(page, script, &json!("back")).await;
        },
    )
    .await;
}

#[tokio::test]
async fn what_a_client_made_stays_but_for_what_it_bound_to_its_connection() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for kind in KINDS {
            let (lease, mut client) = rig.client(kind).await;
            let (target, session) = client.page("about:blank").await;
            client.evaluate(&session, "window.mark = 7; document.title = 'left'").await;
            let mut contexts = Vec::new();
            for bound in [true, false] {
                let params = json!({ "disposeOnDetach": bound });
                let made = client.ok(None, "Target.createBrowserContext", params).await;
                contexts.push(made["browserContextId"].clone());
            }
            drop(client);
            let mut next = Client::new(lease.connect().await.unwrap());
            let listed = next.ok(None, "Target.getBrowserContexts", json!({})).await;
            let left = json!([contexts[1]]);
            assert_eq!(listed["browserContextIds"], left, "{engine:?} {kind:?}");
            let session = attach(&mut next, &target).await;
            assert_eq!(next.evaluate(&session, "document.title + mark").await, "left7");
            lease.end().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_lease_is_busy_while_a_command_is_not_answered() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for kind in KINDS {
            let (lease, mut client) = rig.client(kind).await;
            let (theirs, mut neighbour) = rig.client(kind).await;
            let (_, calm) = neighbour.page("about:blank").await;
            assert!(!lease.is_busy(), "{engine:?} {kind:?}");
            let (_, page) = client.page("about:blank").await;
            client.fails(Some(&page), "Runtime.evaluate", json!({})).await;
            client.fails(None, "Browser.crash", json!({})).await;
            client.ok(None, "Target.getTargets", json!({})).await;
            client.send_text("nonsense").await;
            client.send_text(r#"{"id":-5,"method":"Page.enable","sessionId":"none"}"#).await;
            neighbour.evaluate(&calm, "1").await;
            assert!(!lease.is_busy(), "all is answered: {engine:?} {kind:?}");

            let forever = json!({ "expression": "new Promise(() => 1)", "awaitPromise": true });
            let slow = json!({ "expression": "new Promise(done => window.go = done)",
                "awaitPromise": true });
            let waits = client.send(Some(&page), "Runtime.evaluate", slow).await;
            client.evaluate(&page, "1").await;
            assert!(lease.is_busy() && !theirs.is_busy(), "{engine:?} {kind:?}");
            client.send(Some(&page), "Runtime.evaluate", json!({ "expression": "go(1)" })).await;
            client.reply(waits).await;
            eventually("both are answered", async || !lease.is_busy()).await;

            let (target, other) = client.page("about:blank").await;
            client.send(Some(&other), "Runtime.evaluate", forever.clone()).await;
            client.ok(None, "Target.closeTarget", json!({ "targetId": target })).await;
            eventually("nothing waits on a page that is closed", async || !lease.is_busy()).await;

            client.ok(None, "Target.setDiscoverTargets", json!({ "discover": true })).await;
            client.send(Some(&page), "Runtime.evaluate", forever).await;
            client.send(Some(&page), "Page.crash", json!({})).await;
            client.event("Target.targetCrashed", |_| true).await;
            eventually("nothing waits on a page that crashed", async || !lease.is_busy()).await;
            lease.end().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_lease_is_busy_while_a_download_runs() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for kind in KINDS {
            for in_frame in [false, true] {
                let (site, finish) = slow_download().await;
                let directory = tempfile::tempdir().unwrap();
                let options = LeaseOptions::new(kind).directory(directory.path());
                let lease = rig.mux.open_lease(options).await.unwrap();
                let mut client = Client::new(lease.connect().await.unwrap());
                let (neighbour, mut other) = rig.client(kind).await;
                other.page("about:blank").await;
                // A frame's download is told apart by its client's asking for events.
                let params = json!({ "behavior": "allow", "eventsEnabled": in_frame,
                    "downloadPath": directory.path() });
                client.ok(None, "Browser.setDownloadBehavior", params).await;
                let (_, page) = client.page("about:blank").await;
                let script = if in_frame {
                    format!("document.body.innerHTML = '<iframe src={site}></iframe>'; 1")
                } else {
                    format!("location = '{site}'; 1")
                };
                client.evaluate(&page, &script).await;
                eventually("the download runs", async || lease.is_busy()).await;
                if kind == LeaseKind::Shared {
                    assert!(!neighbour.is_busy(), "{engine:?}");
                }
                finish.send(()).unwrap();
                eventually("the download has ended", async || !lease.is_busy()).await;
                lease.end().await.unwrap();
            }
        }
    }
}

/// A server of one file, whose last byte comes when it is told.
async fn slow_download() -> (String, watch::Sender<()>) {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
        Content-Disposition: attachment; filename=file\r\nContent-Length: 4097\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    let (finish, told) = watch::channel(());
    tokio::spawn(async move {
        // More than one: the browser may connect ahead.
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut told = told.clone();
            tokio::spawn(async move {
                if stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                    stream.write_all(HEAD.as_bytes()).await.unwrap();
                    stream.write_all(&[b'x'; 4096]).await.unwrap();
                    let _ = told.changed().await;
                    let _ = stream.write_all(b"x").await;
                }
            });
        }
    });
    (url, finish)
}

#[derive(Debug)]
struct Answers;

impl HolderCommands for Answers {
    fn call(&self, method: &str, params: &Map<String, Value>) -> Option<Result<Value, String>> {
        match method {
            "Browserless.reconnect" => Some(Ok(json!({ "heard": params }))),
            "Browserless.no" => Some(Err("not now".into())),
            _ => None,
        }
    }
}

#[tokio::test]
async fn commands_that_no_chromium_has_are_answered_by_the_holder_of_the_lease() {
    let rig = Rig::new(ENGINES[0]).await;
    for kind in KINDS {
        let lease = rig.lease(kind).await;
        let mut client = Client::new(lease.connect_with(Arc::new(Answers)).await.unwrap());
        let (_, page) = client.page("about:blank").await;
        for session in [None, Some(page.as_str())] {
            let params = json!({ "timeout": 1 });
            let result = client.ok(session, "Browserless.reconnect", params).await;
            assert_eq!(result, json!({ "heard": { "timeout": 1 } }));
            let refused = client.fails(session, "Browserless.no", json!({})).await;
            assert_eq!(refused, (-32000, "not now".to_owned()));
            let unknown = client.fails(session, "Browserless.other", json!({})).await;
            assert_eq!(unknown, (-32601, "'Browserless.other' wasn't found".to_owned()));
        }
        let mut plain = Client::new(lease.connect().await.unwrap());
        assert_eq!(plain.fails(None, "Browserless.reconnect", json!({})).await.0, -32601);
    }
}
