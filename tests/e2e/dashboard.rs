//! What a person sees who opens the pool's address in a browser.

use std::time::Duration;

use browser_pool_tests::sockets::unused_port;
use browser_pool_tests::{Case, Cdp, Script, Setup, case, eventually};
use serde_json::{Value, json};

const TOKEN: &str = "canary-dashboard-token";

/// What a page of a client does to whoever looks at it.
const MARKUP: &str = "<img src=x onerror=pwned=1><b>bold</b>";

/// The background of the page that is looked at.
const COLOR: [u8; 3] = [200, 40, 120];

/// The one step of this name.
fn step<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    let found = lines.iter().find(|line| line["step"] == name);
    found.unwrap_or_else(|| panic!("no step {name}: {lines:?}"))
}

async fn until_waiting(case: &Case, wanted: u64) {
    eventually("they wait", Duration::from_secs(30), async || {
        let waiting = case.service.state().await["load"]["waiting"].as_u64();
        if waiting == Some(wanted) { Ok(()) } else { Err(waiting) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_shows_the_pool_and_acts_on_it() {
    let setup = Setup::new().set("gateway.token", TOKEN).tokened(TOKEN);
    case(setup, async |case| {
        let case: &Case = case;
        let looked_at = case.service.connect("/?tenant=shop&trackingId=looked-at").await;
        let page = looked_at.page(&case.site.at("/title.html")).await;
        let [red, green, blue] = COLOR;
        let dress = format!(
            "document.title = {}; document.body.style.background = 'rgb({red} {green} {blue})'; \
             window.seen = []; \
             for (const kind of ['blur', 'focus', 'resize', 'pagehide', 'scroll']) \
               addEventListener(kind, () => seen.push(kind)); \
             document.addEventListener('visibilitychange', () => seen.push('visibility'))",
            json!(MARKUP)
        );
        page.eval(&dress).await;
        let ended = case.service.connect("/?tenant=ci&trackingId=ended&priority=2").await;
        let late = async {
            case.service.connect("/?tenant=late&priority=9").await.close().await;
        };

        let watch = async {
            until_waiting(case, 1).await;
            let sessions = case.service.sessions().await;
            let leased = case.service.metric("browserpool_browsers", "state=\"leased\"").await;
            let pending = case.service.metric("browserpool_pending_requests", "").await;
            let mut events = looked_at.events();
            let lease = |client: &Cdp| client.lease.clone().expect("the pool tells it");
            let outcome = Script::new("dashboard.mjs")
                .args([&format!("http://{}/", case.service.address), "--token", TOKEN])
                .args(["--look", &lease(&looked_at), "--end", &lease(&ended)])
                .run(Duration::from_secs(300))
                .await;
            assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
            let lines = outcome.lines;

            // Nothing of the live view reached the client whose browser was looked at.
            let mut told = Vec::new();
            while let Ok(event) = events.try_recv() {
                told.push(event["method"].clone());
            }
            assert!(told.is_empty(), "{told:?}");
            assert_eq!(page.eval("seen").await, json!([]));

            tables_agree(step(&lines, "tables"), &sessions, leased, pending);
            live_view_shows_the_page(step(&lines, "live"), &case.site.at("/title.html"));
            plots_move(step(&lines, "plots"));
            page_is_sound(step(&lines, "page"), &case.service.address);
            let lost = &step(&lines, "lost")["text"];
            assert!(lost.as_str().is_some_and(|text| text.starts_with("not connected")), "{lost}");
            let breach = json!(["img-src: http://elsewhere.invalid/"]);
            assert_eq!(step(&lines, "policy")["violations"], breach);
            let notice = &step(&lines, "action")["notice"];
            assert!(notice.as_str().is_some_and(|text| text.ends_with("has ended.")), "{notice}");
        };
        tokio::join!(late, watch);
        let closed = ended.closed(Duration::from_secs(5)).await;
        assert_eq!(closed.code, 1000, "{closed:?}");
        assert!(closed.reason.contains("operator"), "{closed:?}");
        assert_eq!(case.service.metric("browserpool_leases_ended_total", "killed").await, 1.0);
        looked_at.close().await;
    })
    .await;
}

/// Without NATS a node is alone, says so, and can be drained all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_of_a_node_shows_its_fleet_and_drains_it() {
    // Nobody listens there.
    let nowhere = unused_port();
    let setup = Setup::new()
        .set("fleet.nats", vec![format!("nats://127.0.0.1:{nowhere}")])
        .set("fleet.node", "worker-7.test")
        .set("fleet.secret", "the secret of a fleet in a test")
        .set("fleet.labels.zone", "eu-1a");
    case(setup, async |case| {
        let url = format!("http://{}/", case.service.address);
        let script = Script::new("dashboard-nodes.mjs").args([&url, "--node", "worker-7.test"]);
        let outcome = script.run(Duration::from_secs(300)).await;
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let lines = outcome.lines;
        let alone = step(&lines, "alone");
        assert_eq!(alone["about"], "alone: NATS is disconnected");
        let row = |name: &str, label: &str| step(&lines, name)["nodes"][0][label].clone();
        assert_eq!(row("alone", "Node"), "worker-7.testthis one");
        assert_eq!(
            (row("alone", "Labels"), row("alone", "Waiting")),
            ("zone: eu-1a".into(), "0".into())
        );
        assert_eq!(
            (row("alone", "Phase"), row("drained", "Phase")),
            ("running".into(), "draining".into())
        );
        assert_eq!(
            (row("drained", "Actions"), row("back", "Actions")),
            ("Undrain".into(), "Drain".into())
        );
        assert_eq!(step(&lines, "page"), &json!({"step": "page", "violations": 0, "errors": []}));
    })
    .await;
}

/// Two browsers with their holders and one waiter, as `/sessions` and `/metrics` have them.
fn tables_agree(shown: &Value, sessions: &[Value], leased: f64, pending: f64) {
    let browsers = shown["browsers"].as_array().expect("a list");
    assert_eq!(browsers.len() as f64, leased, "{shown}");
    assert_eq!(sessions.len(), browsers.len(), "{shown}");
    for session in sessions {
        let id = session["browserId"].to_string();
        let row = browsers.iter().find(|row| row["Browser"] == *id);
        let row = row.unwrap_or_else(|| panic!("no browser {id}: {shown}"));
        let text = |label: &str| row[label].as_str().unwrap_or_default().to_owned();
        assert!(text("State").starts_with("leased"), "{row}");
        assert_eq!(row["Class"], session["class"], "{row}");
        for word in ["tenant", "trackingId", "peer"] {
            let word = session[word].as_str().expect("it was given");
            assert!(text("Held by").contains(word), "{row} without {word}");
        }
    }
    let waiters = shown["waiters"].as_array().expect("a list");
    assert_eq!(waiters.len() as f64, pending, "{shown}");
    assert_eq!((&waiters[0]["Position"], &waiters[0]["Priority"]), (&json!("1"), &json!("9")));
}

fn live_view_shows_the_page(live: &Value, url: &str) {
    assert_eq!((&live["title"], &live["elements"]), (&json!(MARKUP), &json!(0)), "{live}");
    assert_eq!(live["url"], url);
    assert_eq!(live["color"], json!(COLOR), "{live}");
    assert_eq!(live["after_close"], 0, "pictures are taken for nobody");
}

/// A line in each, another picture later, and the values of before and after a lease was ended.
fn plots_move(plots: &Value) {
    let names = ["Connections", "Waiting queue", "Wait", "Utilization"];
    for name in names {
        assert_eq!(plots["drawn"][name], true, "{name}: {plots}");
        assert_eq!(plots["moved"][name], true, "{name}: {plots}");
        assert_ne!(plots["before"][name], plots["after"][name], "{name}");
    }
    let [connections, queue, _, utilization] = names.map(|name| &plots["before"][name]);
    assert_eq!(connections, "active 2idle 0");
    assert_eq!(queue, "waiting 1");
    assert_eq!(utilization, "leased 100 %");
}

/// Everything came from the pool, nothing broke the policy, no markup became an element.
fn page_is_sound(page: &Value, address: &str) {
    assert_eq!(page["origins"], json!([format!("http://{address}")]));
    assert_eq!(page["tokens_in_urls"], 0);
    assert_eq!(page["violations"], json!([]));
    assert_eq!(page["errors"], json!([]));
    assert_eq!(page["injected"], false);
}
