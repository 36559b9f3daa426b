//! S04, S15, S16, S26: what can be sent, in an address, in JSON, and over CDP.

use std::time::Duration;

use browser_pool_tests::process::Process;
use browser_pool_tests::{Case, Cdp, CdpError, LeaseKind, Setup, case, for_both_kinds};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Message;

/// Stands in every vector that should reach no command line.
const INJECTED: &str = "inject9Zk";

/// What would be an argument, a path or a line of its own, if it were passed on.
const VECTORS: [&str; 15] = [
    "--inject9Zk",
    "--inject9Zk=1",
    "-inject9Zk",
    "x --inject9Zk",
    "x%20--inject9Zk",
    "x%00--inject9Zk",
    "x%0A--inject9Zk",
    "x\"--inject9Zk",
    "x'--inject9Zk",
    "$(inject9Zk)",
    "`inject9Zk`",
    "..%2F..%2Finject9Zk",
    "%2Fetc%2Finject9Zk",
    "inject9Zk%2F..%2F..",
    "inject9Zk%5C..",
];

/// Encodes what may not stand in an address.
fn encoded(vector: &str) -> String {
    vector.replace(' ', "%20").replace('"', "%22").replace('`', "%60")
}

#[tokio::test(flavor = "multi_thread")]
async fn s04_argument_injection() {
    let setup = Setup::new().size(1).set("pool.max_size", 3).set("profiles.on_demand", true);
    case(setup, async |case| {
        let mut tried = 0;
        for vector in VECTORS.map(encoded) {
            for path in [
                format!("/?profile={vector}"),
                format!("/?region={vector}"),
                format!("/?tenant={vector}"),
                format!("/?trackingId={vector}"),
                format!("/?launch={{\"args\":[\"{}\"]}}", vector.replace("%22", "")),
                format!("/?{vector}=1"),
                format!("/?args={vector}"),
                format!("/?timeout={vector}"),
            ] {
                let path = path.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
                tried += 1;
                match case.service.try_connect(&path).await {
                    // A name of plain characters may be one; then it is nothing but a name.
                    Ok(client) => {
                        assert_absent(case);
                        client.close().await;
                    }
                    Err(refused) => {
                        assert!((400..500).contains(&refused.status), "{path}: {refused:?}");
                    }
                }
            }
            for field in ["profile", "region", "tenant", "lease", "tracking_id", "args", "launch"] {
                tried += 1;
                let body = json!({ field: vector.replace("%20", " ").replace("%00", "\0") });
                let answer = case.service.post("/browser_pools/default/acquire", &body).await;
                let id = answer.json()["session_id"].clone();
                assert_absent(case);
                if answer.status == 200 {
                    let release = json!({ "session_id": id });
                    case.service.post("/browser_pools/default/release", &release).await;
                } else {
                    assert!((400..500).contains(&answer.status), "{body}: {answer:?}");
                }
            }
        }
        println!("{tried} attempts");
        assert_absent(case);
    })
    .await;
}

/// No process of ours was given it as an argument, or as a part of one that is no directory.
fn assert_absent(case: &Case) {
    for process in case.oracle.ours.chromium() {
        for argument in process.arguments() {
            let in_a_name =
                argument.starts_with("--user-data-dir=") && !argument.contains("--inject");
            assert!(in_a_name || !argument.contains(INJECTED), "{argument} of {}", process.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s26_profile_name_traversal() {
    let setup = Setup::new().size(1).set("pool.max_size", 3).set("profiles.on_demand", true);
    case(setup, async |case| {
        let names = [
            "..",
            ".",
            "../x",
            "..%2Fx",
            "%2e%2e",
            "%2e%2e%2fx",
            "%252e%252e",
            "x%2F..%2F..%2Fy",
            "%2Fetc",
            "x%00",
            ".hidden",
            ".quarantine",
            "-x",
            "~",
            "CON%3A",
            "x%5Cy",
        ];
        let before = entries(case);
        for name in names {
            match case.service.try_connect(&format!("/?profile={name}")).await {
                Ok(client) => {
                    let browser = case.service.browser_of(&client).await;
                    let process = Process::read(browser.pid).expect("it lives");
                    let inside =
                        format!("--user-data-dir={}/profiles/", case.home.state_dir().display());
                    let directory = process
                        .arguments()
                        .into_iter()
                        .find(|argument| argument.starts_with("--user-data-dir="))
                        .expect("every Chromium has one");
                    let rest = directory.strip_prefix(&inside);
                    let rest = rest.unwrap_or_else(|| panic!("{name} became {directory}"));
                    let escapes =
                        rest.split('/').any(|part| part.is_empty() || part.starts_with('.'));
                    assert!(!escapes, "{name} became {directory}");
                    client.close().await;
                }
                Err(refused) => {
                    assert!([400, 404].contains(&refused.status), "{name}: {refused:?}");
                }
            }
        }
        assert_eq!(entries(case), before, "something was made outside of the profiles");
    })
    .await;
}

/// What is in the home and in the state directory, but for what belongs there.
fn entries(case: &Case) -> Vec<String> {
    let mut names = Vec::new();
    for directory in [case.home.path().to_path_buf(), case.home.state_dir()] {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.retain(|name| name != "profiles");
    names.sort();
    names
}

for_both_kinds!(s15_reaching_another_lease, s16_json_tricks);

/// What a victim has that an attacker may know of.
struct Known {
    target: String,
    session: String,
    context: String,
}

async fn s15_reaching_another_lease(kind: LeaseKind) {
    let setup = match kind {
        LeaseKind::Exclusive => Setup::new(),
        // Both in one Chromium.
        LeaseKind::Shared => Setup::new().kind(kind).size(2),
    };
    case(setup, async |case| {
        let victim = case.service.connect("/").await;
        let page = victim.page(&case.site.at("/title/victim")).await;
        page.eval("document.cookie = 'secret=victim'; localStorage.secret = 'victim'").await;
        let info = victim.call("Target.getTargetInfo", json!({ "targetId": page.target })).await;
        let info = info.expect("its own target")["targetInfo"].clone();
        let known = Known {
            target: page.target.clone(),
            session: page.session.clone(),
            context: info["browserContextId"].as_str().unwrap_or_default().to_owned(),
        };

        let attacker = case.service.connect("/").await;
        let mut events = attacker.events();
        let own = attacker.page("about:blank").await;
        for session in [None, Some(own.session.clone())] {
            for (method, params) in attempts(&known) {
                let answer = attacker.call_in(session.as_deref(), method, params.clone()).await;
                assert_nothing_of(&known, method, &params, &answer);
            }
        }
        // With the victim's own session id.
        for method in ["Runtime.evaluate", "Page.captureScreenshot", "Page.close"] {
            let params = json!({ "expression": "document.cookie" });
            let answer = attacker.call_in(Some(&known.session), method, params).await;
            assert!(matches!(answer, Err(CdpError::Answer { .. })), "{method}: {answer:?}");
        }
        while let Ok(event) = events.try_recv() {
            let told = event.to_string();
            assert!(!told.contains(&known.target) && !told.contains("victim"), "{told}");
        }
        assert_eq!(page.eval("document.title + document.cookie").await, "victimsecret=victim");
        assert_eq!(page.eval("localStorage.secret").await, "victim");
        assert!(victim.has_closed().is_none());
        attacker.close().await;
        assert_eq!(page.eval("42").await, 42, "the attacker's end is not the victim's");
        victim.close().await;
    })
    .await;
}

fn attempts(known: &Known) -> Vec<(&'static str, Value)> {
    let Known { target, session, context } = known;
    vec![
        ("Target.getTargets", json!({})),
        ("Target.getTargets", json!({ "filter": [{}] })),
        ("Target.setDiscoverTargets", json!({ "discover": true, "filter": [{}] })),
        (
            "Target.setAutoAttach",
            json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true, "filter": [{}] }),
        ),
        ("Target.getTargetInfo", json!({ "targetId": target })),
        ("Target.attachToTarget", json!({ "targetId": target, "flatten": true })),
        ("Target.attachToTarget", json!({ "targetId": target, "flatten": false })),
        (
            "Target.sendMessageToTarget",
            json!({ "targetId": target, "message": "{\"id\":1,\"method\":\"Page.close\"}" }),
        ),
        (
            "Target.sendMessageToTarget",
            json!({ "sessionId": session, "message": "{\"id\":1,\"method\":\"Page.close\"}" }),
        ),
        ("Target.detachFromTarget", json!({ "sessionId": session })),
        ("Target.closeTarget", json!({ "targetId": target })),
        ("Target.activateTarget", json!({ "targetId": target })),
        ("Target.exposeDevToolsProtocol", json!({ "targetId": target })),
        ("Target.createTarget", json!({ "url": "about:blank", "browserContextId": context })),
        ("Target.disposeBrowserContext", json!({ "browserContextId": context })),
        ("Target.getBrowserContexts", json!({})),
        ("Storage.getCookies", json!({ "browserContextId": context })),
        (
            "Storage.setCookies",
            json!({ "browserContextId": context, "cookies": [{ "name": "a", "value": "b", "url": "http://x" }] }),
        ),
        ("Storage.clearCookies", json!({ "browserContextId": context })),
        ("Browser.setDownloadBehavior", json!({ "behavior": "deny", "browserContextId": context })),
        (
            "Browser.grantPermissions",
            json!({ "permissions": ["midi"], "browserContextId": context }),
        ),
        ("Browser.resetPermissions", json!({ "browserContextId": context })),
        ("Browser.getWindowForTarget", json!({ "targetId": target })),
        (
            "Target.autoAttachRelated",
            json!({ "targetId": target, "waitForDebuggerOnStart": false }),
        ),
        ("Target.openDevTools", json!({ "targetId": target })),
        ("Page.navigate", json!({ "url": "chrome://process-internals" })),
        ("Page.navigate", json!({ "url": "view-source:chrome://version" })),
    ]
}

/// No answer tells of the victim more than the ids that the attacker has sent.
fn assert_nothing_of(
    known: &Known,
    method: &str,
    params: &Value,
    answer: &Result<Value, CdpError>,
) {
    let told = format!("{answer:?}");
    assert!(!told.contains("victim"), "{method} {params}: {told}");
    if let Ok(result) = answer {
        let told = result.to_string();
        let leaks = told.contains(&known.target) || told.contains(&known.context);
        assert!(!leaks, "{method} {params}: {told}");
        let refused_only = params.to_string().contains(&known.target)
            && result.get("sessionId").is_some_and(Value::is_string);
        assert!(!refused_only, "{method} {params}: {told}");
    }
}

async fn s16_json_tricks(kind: LeaseKind) {
    let setup = match kind {
        LeaseKind::Exclusive => Setup::new(),
        LeaseKind::Shared => Setup::new().kind(kind).size(2),
    };
    case(setup, async |case| {
        let victim = case.service.connect("/").await;
        let page = victim.page(&case.site.at("/title/victim")).await;
        let session = page.session.clone();
        // Ids that none of the calls here has: an answer to a trick is no answer to them.
        let tricks = [
            format!(r#"{{"id":9001,"method":"Browser.getVersion","sessionId":"{session}"}}"#),
            format!(r#"{{"id":9001,"method":"Page.close","sessionId":"","sessionId":"{session}"}}"#),
            format!(r#"{{"id":9001,"method":"Page.close","sessionid":"{session}"}}"#),
            format!(r#"{{"id":9001,"method":"Page.close","\u0073essionId":"{session}"}}"#),
            r#"{"id":9001,"id":9002,"method":"Browser.getVersion"}"#.to_owned(),
            r#"{"id":9001,"method":"Browser.getVersion","method":"Browser.close"}"#.to_owned(),
            r#"{"id":1.5,"method":"Browser.getVersion"}"#.to_owned(),
            r#"{"id":99999999999999999999,"method":"Browser.getVersion"}"#.to_owned(),
            r#"{"id":-5,"method":"Browser.getVersion"}"#.to_owned(),
            r#"{"id":"1","method":"Browser.getVersion"}"#.to_owned(),
            r#"{"id":9001,"method":"Browser.getVersion","extra":1}"#.to_owned(),
            r#"{"id":9001,"method":"Browser.getVersion","params":[]}"#.to_owned(),
            r#"{"id":9001,"method":7}"#.to_owned(),
            r#"[{"id":9001,"method":"Browser.getVersion"}]"#.to_owned(),
            r#"{"id":9001,"method":"Browser.getVersion"}{"id":9002,"method":"Browser.close"}"#.to_owned(),
            "{\"id\":9001,\"method\":\"Browser.getVersion\"}\0{\"id\":9002,\"method\":\"Browser.close\"}"
                .to_owned(),
            r#"{"id":9001,"method":"Browser.getVersion\u0000"}"#.to_owned(),
            "{".to_owned(),
            "null".to_owned(),
            String::new(),
            "x".repeat(100_000),
            "[".repeat(100_000),
            format!(
                r#"{{"id":9001,"method":"Runtime.evaluate","params":{}1{}}}"#,
                "[".repeat(50_000),
                "]".repeat(50_000)
            ),
        ];
        for trick in &tricks {
            let attacker = case.service.connect("/").await;
            // Written or refused, both are an answer.
            let _ = attacker.write(trick).await;
            let after = attacker.call("Browser.getVersion", json!({})).await;
            let shown: String = trick.chars().take(80).collect();
            let told = format!("{:?}", attacker.strays());
            assert!(!told.contains("victim"), "{shown}: {told}");
            assert!(after.is_ok() || attacker.has_closed().is_some(), "{shown}: {after:?}");
            assert!(victim.has_closed().is_none(), "{shown}");
            attacker.close().await;
        }
        binary_frames(case).await;
        assert_eq!(page.eval("document.title").await, "victim");
        victim.close().await;
    })
    .await;
}

/// CDP is text; a binary frame ends its own connection and no other.
async fn binary_frames(case: &Case) {
    let attacker: Cdp = case.service.connect("/").await;
    attacker.write_message(Message::binary(vec![0, 1, 2])).await.expect("it is written");
    let closed = attacker.closed(Duration::from_secs(10)).await;
    assert_eq!(closed.code, 1003, "{closed:?}");
}
