//! What a client of a shared lease tries against another lease: it learns nothing and changes
//! nothing.

mod mux_support;

use mux_support::{Client, ENGINES, KINDS, Rig, eventually};
use pool_chrome::mux::{ClientProxies, LeaseKind, LeaseOptions};
use serde_json::{Value, json};

/// The victim: a page with a cookie, a window, a download directory, and all that could be named.
struct Witness {
    client: Client,
    target: String,
    session: String,
    context: String,
    window: Value,
}

impl Witness {
    async fn new(rig: &Rig) -> (pool_chrome::mux::MuxLease, Self) {
        let (lease, mut client) = rig.client(LeaseKind::Shared).await;
        let (target, session) = client.page("data:text/html,<title>witness</title>").await;
        client.evaluates_to(&session, "document.title", &json!("witness")).await;
        let contexts = client.ok(None, "Target.getBrowserContexts", json!({})).await;
        let context = contexts["defaultBrowserContextId"].as_str().unwrap().to_owned();
        let params = json!({ "targetId": target });
        let window =
            client.ok(None, "Browser.getWindowForTarget", params).await["windowId"].clone();
        let cookie =
            json!({ "name": "witness", "value": "1", "domain": "example.org", "path": "/" });
        client.ok(None, "Storage.setCookies", json!({ "cookies": [cookie] })).await;
        (lease, Self { client, target, session, context, window })
    }

    /// Everything about it that an attack could have changed.
    async fn state(&mut self) -> Value {
        let cookies = self.client.ok(None, "Storage.getCookies", json!({})).await;
        let targets = self.client.ok(None, "Target.getTargets", json!({ "filter": [{}] })).await;
        let mut targets: Vec<String> = targets["targetInfos"]
            .as_array()
            .unwrap()
            .iter()
            .map(|target| format!("{} {} {}", target["type"], target["title"], target["url"]))
            .collect();
        targets.sort();
        let window = json!({ "windowId": self.window });
        let bounds = self.client.ok(None, "Browser.getWindowBounds", window).await;
        let page = self.client.evaluate(
            &self.session,
            "(async () => [document.title, location.href, document.visibilityState, navigator.userAgent, \
              Intl.DateTimeFormat().resolvedOptions().timeZone, screen.width, innerWidth, \
              navigator.onLine, window.injected, \
              (await navigator.permissions.query({name: 'geolocation'})).state].join())()",
        );
        json!({ "cookies": cookies, "targets": targets, "bounds": bounds, "page": page.await })
    }

    /// A string that must not reach anybody else.
    fn secrets(&self) -> [&str; 4] {
        [&self.target, &self.session, &self.context, "witness"]
    }
}

/// Commands that name something of the witness, for any session.
fn attacks(witness: &Witness) -> Vec<(&'static str, Value)> {
    let Witness { target, session, context, window, .. } = witness;
    let cookie = json!([{ "name": "evil", "value": "1", "domain": "example.org", "path": "/" }]);
    vec![
        ("Target.attachToTarget", json!({ "targetId": target, "flatten": true })),
        ("Target.attachToTarget", json!({ "targetId": target, "flatten": false })),
        ("Target.attachToTarget", json!({ "targetId": target })),
        ("Target.closeTarget", json!({ "targetId": target })),
        ("Target.activateTarget", json!({ "targetId": target })),
        ("Target.getTargetInfo", json!({ "targetId": target })),
        ("Target.detachFromTarget", json!({ "sessionId": session })),
        ("Target.detachFromTarget", json!({ "targetId": target })),
        (
            "Target.sendMessageToTarget",
            json!({ "sessionId": session, "message": r#"{"id":1,"method":"Page.close"}"# }),
        ),
        (
            "Target.sendMessageToTarget",
            json!({ "targetId": target, "message": r#"{"id":1,"method":"Page.close"}"# }),
        ),
        ("Target.exposeDevToolsProtocol", json!({ "targetId": target })),
        ("Target.autoAttachRelated", json!({ "targetId": target, "waitForDebuggerOnStart": true })),
        ("Target.getDevToolsTarget", json!({ "targetId": target })),
        ("Target.openDevTools", json!({ "targetId": target })),
        ("Target.setRemoteLocations", json!({ "locations": [{ "host": "127.0.0.1", "port": 1 }] })),
        ("Target.createTarget", json!({ "url": "about:blank", "browserContextId": context })),
        ("Target.disposeBrowserContext", json!({ "browserContextId": context })),
        ("Target.createTarget", json!({ "url": "chrome://inspect" })),
        ("Target.createTarget", json!({ "url": " CHROME:settings" })),
        ("Target.createTarget", json!({ "url": "view-source:file:///etc/passwd" })),
        ("Target.createTarget", json!({ "url": "file:///etc/passwd" })),
        ("Browser.setDownloadBehavior", json!({ "behavior": "deny", "browserContextId": context })),
        (
            "Browser.grantPermissions",
            json!({ "permissions": ["geolocation"], "browserContextId": context }),
        ),
        (
            "Browser.setPermission",
            json!({ "permission": { "name": "geolocation" }, "setting": "granted", "browserContextId": context }),
        ),
        ("Browser.resetPermissions", json!({ "browserContextId": context })),
        ("Browser.cancelDownload", json!({ "guid": "x", "browserContextId": context })),
        ("Browser.getWindowForTarget", json!({ "targetId": target })),
        ("Browser.getWindowForTarget", json!({ "targetId": "no-such-target" })),
        ("Browser.getWindowBounds", json!({ "windowId": window })),
        ("Browser.setWindowBounds", json!({ "windowId": window, "bounds": { "width": 333 } })),
        ("Browser.setContentsSize", json!({ "windowId": window, "width": 333 })),
        ("Browser.crash", json!({})),
        ("Browser.crashGpuProcess", json!({})),
        ("Browser.getBrowserCommandLine", json!({})),
        ("Browser.getHistograms", json!({})),
        ("Browser.executeBrowserCommand", json!({ "commandId": "openTabSearch" })),
        ("Storage.getCookies", json!({ "browserContextId": context })),
        ("Storage.setCookies", json!({ "cookies": cookie, "browserContextId": context })),
        ("Storage.clearCookies", json!({ "browserContextId": context })),
        ("Tracing.start", json!({})),
        ("Tracing.requestMemoryDump", json!({})),
        ("Memory.simulatePressureNotification", json!({ "level": "critical" })),
        ("Memory.getBrowserSamplingProfile", json!({})),
        ("Emulation.addScreen", json!({ "left": 0, "top": 0, "width": 100, "height": 100 })),
        ("Extensions.loadUnpacked", json!({ "path": "/tmp" })),
        ("Tethering.bind", json!({ "port": 0 })),
        ("BluetoothEmulation.enable", json!({ "state": "powered-on", "leSupported": true })),
        ("PWA.install", json!({ "manifestId": "https://example.org" })),
        ("Cast.enable", json!({})),
        ("SystemInfo.getProcessInfo", json!({})),
        ("MadeUp.tomorrow", json!({})),
    ]
}

/// The same for sessions of pages only.
fn page_attacks(witness: &Witness) -> Vec<(&'static str, Value)> {
    let mut attacks: Vec<(&str, Value)> = [
        "chrome://settings",
        " chrome://version",
        "chrome:history",
        "CHROME://EXTENSIONS",
        "\u{1f}chrome://inspect",
        "ch\trome://gpu",
        "view-source:chrome://version",
        "view-source:file:///etc/passwd",
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "devtools://devtools/bundled/inspector.html",
        "filesystem:https://example.org/temporary/x",
        "chrome-untrusted://print/",
    ]
    .into_iter()
    .map(|url| ("Page.navigate", json!({ "url": url })))
    .collect();
    attacks.extend([
        ("DOM.setFileInputFiles", json!({ "files": ["/etc/passwd"], "backendNodeId": 1 })),
        ("DOM.setFileInputFiles", json!({ "files": ["/tmp/../etc/passwd"], "backendNodeId": 1 })),
        ("Target.createBrowserContext", json!({})),
        ("Target.getBrowserContexts", json!({})),
        ("Target.setDiscoverTargets", json!({ "discover": true, "filter": [{}] })),
        ("Target.attachToBrowserTarget", json!({})),
        ("Page.captureScreenshot", json!({ "sessionId": witness.session })),
    ]);
    attacks
}

#[tokio::test]
async fn nothing_of_another_lease_is_learned_or_changed() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let (_lease, mut witness) = Witness::new(&rig).await;
        // A page that has no title is called by its address, a moment after it is there.
        eventually("every page of the witness has its title", async || {
            let targets = witness.state().await["targets"].clone();
            targets
                .as_array()
                .unwrap()
                .iter()
                .all(|target| !target.as_str().unwrap().contains("\"\""))
        })
        .await;
        let before = witness.state().await;

        let (_own, mut attacker) = rig.client(LeaseKind::Shared).await;
        let all = json!({ "discover": true, "filter": [{}] });
        attacker.ok(None, "Target.setDiscoverTargets", all).await;
        let (own, page) = attacker.page("about:blank").await;
        let child = attacker.ok(None, "Target.attachToBrowserTarget", json!({})).await;
        let child = child["sessionId"].as_str().unwrap().to_owned();
        let nested = json!({ "targetId": own, "flatten": true });
        let nested = attacker.ok(Some(&page), "Target.attachToTarget", nested).await;
        let nested = nested["sessionId"].as_str().unwrap().to_owned();

        let within = json!({ "targetId": own });
        let within = attacker.ok(None, "Target.attachToTarget", within).await;
        let within = within["sessionId"].as_str().unwrap().to_owned();

        let mut tried = 0;
        for session in [None, Some(&child), Some(&page), Some(&nested), Some(&within)] {
            let session = session.map(String::as_str);
            let mut list = attacks(&witness);
            if ![None, Some(child.as_str())].contains(&session) {
                list.extend(page_attacks(&witness));
            }
            for (method, params) in list {
                let reply = if session == Some(&within) {
                    ask_within(&mut attacker, &within, method, &params).await
                } else {
                    attacker.ask(session, method, params.clone()).await
                };
                // What the attacker itself has said may be repeated to it.
                let reply = without(&reply.to_string(), &params);
                for secret in witness.secrets() {
                    assert!(
                        !reply.contains(secret),
                        "{engine:?} {session:?} {method} {params}: {reply}"
                    );
                }
                tried += 1;
            }
        }
        for session in [&witness.session, "", "0", "7EA8539A0034C78D11E68DEDA3A7AA39"] {
            let text = json!({ "id": 7, "method": "Runtime.evaluate", "sessionId": session,
                "params": { "expression": "document.title = 'changed'" } });
            attacker.send_text(&text.to_string()).await;
            attacker.reply(7).await;
            tried += 1;
        }
        assert!(tried >= 60, "{tried}");
        for event in &attacker.events {
            let event = event.to_string();
            for secret in witness.secrets() {
                assert!(!event.contains(secret), "{engine:?}: {event}");
            }
        }
        assert_eq!(witness.state().await, before, "{engine:?}");
        assert!(rig.mux.end_reason().is_none());
    }
}

/// The reply to a command in a session that is not flattened.
async fn ask_within(client: &mut Client, session: &str, method: &str, params: &Value) -> Value {
    let message = json!({ "id": 7, "method": method, "params": params }).to_string();
    let outer = json!({ "sessionId": session, "message": message });
    client.ok(None, "Target.sendMessageToTarget", outer).await;
    let inner = |params: &Value| -> Value {
        serde_json::from_str(params["message"].as_str().unwrap()).unwrap()
    };
    let reply = |params: &Value| inner(params)["id"] == 7 && params["sessionId"] == session;
    inner(&client.event("Target.receivedMessageFromTarget", reply).await["params"])
}

#[tokio::test]
async fn no_message_reaches_chromium_unjudged_however_deep_it_lies() {
    let rig = Rig::new(ENGINES[0]).await;
    let (_lease, mut witness) = Witness::new(&rig).await;
    let (_own, mut attacker) = rig.client(LeaseKind::Shared).await;
    let made = attacker.ok(None, "Target.createTarget", json!({ "url": "about:blank" })).await;
    let attach = json!({ "targetId": made["targetId"] });
    let attached = attacker.ok(None, "Target.attachToTarget", attach.clone()).await;
    let mut path = vec![attached["sessionId"].as_str().unwrap().to_owned()];
    let attached = ask_within(&mut attacker, &path[0], "Target.attachToTarget", &attach).await;
    path.push(attached["result"]["sessionId"].as_str().unwrap().to_owned());

    let inner = |session: &str, message: &str| {
        json!({ "id": 8, "method": "Target.sendMessageToTarget",
            "params": { "sessionId": session, "message": message } })
        .to_string()
    };
    for method in ["Tracing.start", "Browser.crash", "Target.exposeDevToolsProtocol"] {
        // Two deep, by the way that is right.
        let deep = json!({ "id": 9, "method": method }).to_string();
        let params = json!({ "sessionId": path[1], "message": deep });
        let method = "Target.sendMessageToTarget";
        let sent = ask_within(&mut attacker, &path[0], method, &params).await;
        assert!(sent.get("error").is_none(), "{sent}");
        let refused = |params: &Value| {
            let message = params["message"].as_str().unwrap();
            message.contains("receivedMessage") && message.contains("error")
        };
        attacker.event("Target.receivedMessageFromTarget", refused).await;
        // In itself, in what lies above it, and in the witness.
        for wrong in [&path[0], &witness.session, &witness.target] {
            let params = json!({ "sessionId": wrong, "message": deep });
            let sent = ask_within(&mut attacker, &path[0], method, &params).await;
            assert!(sent["error"].is_object(), "{wrong}: {sent}");
        }
    }
    let victim = witness.session.clone();
    let close = r#"{"id":1,"method":"Page.close"}"#;
    let mut turned = close.to_owned();
    for level in 0..16 {
        turned = inner(&path[level % 2], &turned);
    }
    for trick in [
        inner(&victim, close),
        format!(r#"{{"id":1,"method":"Page.close","sessionId":"{victim}"}}"#),
        format!("{close}\0{close}"),
        format!("{close}{close}"),
        "{\"id\":1,\"method\":\"Page.cl\\u006fse\",\"params\":{\"x\":".to_owned(),
        format!("[{close}]"),
        "[".repeat(100_000),
        r#"{"id":1,"method":"#.repeat(10_000),
        "\u{0}".to_owned(),
        "\u{feff}{}".to_owned(),
        r#"{"id":-1000001,"method":"Page.close"}"#.to_owned(),
        turned,
    ] {
        let params = json!({ "sessionId": path[0], "message": trick });
        attacker.ok(None, "Target.sendMessageToTarget", params).await;
        let refused = |params: &Value| params.to_string().contains("error");
        attacker.event("Target.receivedMessageFromTarget", refused).await;
    }
    // Where two are named, the session counts; of two members of one name the last.
    let both = json!({ "sessionId": victim, "targetId": made["targetId"], "message": close });
    attacker.fails(None, "Target.sendMessageToTarget", both).await;
    let both = format!(
        r#"{{"id":77,"method":"Target.sendMessageToTarget","params":{{"sessionId":"{}","sessionId":"{victim}","message":"{{}}"}}}}"#,
        path[0]
    );
    attacker.send_text(&both).await;
    assert!(attacker.reply(77).await["error"].is_object());

    for event in &attacker.events {
        for secret in witness.secrets() {
            assert!(!event.to_string().contains(secret), "{event}");
        }
    }
    assert_eq!(witness.client.evaluate(&victim, "6*7").await, json!(42));
    let one = json!({ "expression": "1" });
    let alive = ask_within(&mut attacker, &path[0], "Runtime.evaluate", &one).await;
    assert_eq!(alive["result"]["result"]["value"], 1);
    assert!(rig.mux.end_reason().is_none());
}

fn without(reply: &str, params: &Value) -> String {
    let mut reply = reply.to_owned();
    for value in params.as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str()) {
        reply = reply.replace(value, "");
    }
    reply
}

#[tokio::test]
async fn tricks_with_the_envelope_are_refused_and_harm_nobody() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let (_lease, mut witness) = Witness::new(&rig).await;
        let (_own, mut attacker) = rig.client(LeaseKind::Shared).await;
        let victim = witness.session.clone();
        let tricks = [
            format!(
                r#"{{"id":1,"method":"Browser.getVersion","sessionId":"","sessionId":"{victim}"}}"#
            ),
            format!(
                r#"{{"id":1,"method":"Browser.getVersion","method":"Browser.crash","sessionId":"{victim}"}}"#
            ),
            r#"{"id":1,"method":"Browser.getVersion"}{"id":2,"method":"Browser.crash"}"#.to_owned(),
            "{\"id\":1,\"method\":\"Browser.getVersion\"}\0{\"id\":2,\"method\":\"Browser.crash\"}"
                .to_owned(),
            "{\"id\":1,\"method\":\"Browser.getVersion\\u0000\",\"x\":1}".to_owned(),
            r#"[{"id":1,"method":"Browser.crash"}]"#.to_owned(),
            r#"{"id":-1000001,"method":"Browser.getVersion"}"#.to_owned(),
            r#"{"id":1e3,"method":"Browser.getVersion"}"#.to_owned(),
            r#"{"id":1,"method":"Browser.getVersion","params":{"#.to_owned(),
            r#"{"id":1,"method":"Browser.getVersion","extra":{}}"#.to_owned(),
            "{".repeat(100_000),
            "\u{feff}{}".to_owned(),
        ];
        for trick in tricks {
            attacker.send_text(&trick).await;
            let reply = attacker.next().await.unwrap();
            let code = reply["error"]["code"].as_i64();
            assert!(matches!(code, Some(-32700 | -32600)), "{trick:.100}: {reply}");
        }
        // The last of two members in params counts, for us as for Chromium.
        let twice = format!(
            r#"{{"id":9,"method":"Target.getTargetInfo","params":{{"targetId":"x","targetId":"{}"}}}}"#,
            witness.target
        );
        attacker.send_text(&twice).await;
        assert!(attacker.reply(9).await["error"].is_object());
        // A method is what it says after its escapes are read.
        attacker.send_text(r#"{"id":10,"method":"Browser.cr\u0061sh"}"#).await;
        assert!(attacker.reply(10).await["error"].is_object());
        assert_eq!(witness.client.evaluate(&victim, "6*7").await, json!(42));
    }
}

#[tokio::test]
async fn an_exclusive_lease_cannot_end_or_open_its_chromium_either() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let (_lease, mut client) = rig.client(LeaseKind::Exclusive).await;
        let (target, page) = client.page("about:blank").await;
        for method in ["Browser.crash", "Tethering.bind", "Target.exposeDevToolsProtocol"] {
            client.fails(None, method, json!({ "targetId": target, "port": 0 })).await;
        }
        // The headless shell dies of a target that it does not know.
        client.fails(None, "Browser.getWindowForTarget", json!({ "targetId": "x" })).await;
        for url in ["chrome://settings", "chrome://history", "chrome://extensions", "chrome://quit"]
        {
            let went = client.ok(Some(&page), "Page.navigate", json!({ "url": url })).await;
            assert_eq!(went["errorText"], "net::ERR_BLOCKED_BY_ADMINISTRATOR", "{url}");
        }
        assert_eq!(client.evaluate(&page, "6*7").await, json!(42));
    }
}

#[tokio::test]
async fn s06_no_number_and_no_window_state_ends_a_neighbour() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let (_lease, mut witness) = Witness::new(&rig).await;
        let (_own, mut client) = rig.client(LeaseKind::Shared).await;
        let (target, page) = client.page("data:text/html,<body style='height:9000px'>x").await;
        client.evaluates_to(&page, "document.body.style.height", &json!("9000px")).await;
        let window = json!({ "targetId": target });
        let window =
            client.ok(None, "Browser.getWindowForTarget", window).await["windowId"].clone();
        let huge = 10_000_000;
        let clip = |side: i64, scale: i64| json!({ "x": 0, "y": 0, "width": side, "height": side, "scale": scale });
        for (method, params) in [
            (
                "Target.createTarget",
                json!({ "url": "about:blank", "newWindow": true, "width": huge, "height": huge }),
            ),
            (
                "Target.createTarget",
                json!({ "url": "about:blank", "width": 16384, "height": 16384 }),
            ),
            ("Target.createTarget", json!({ "url": "about:blank", "width": huge })),
            ("Target.createTarget", json!({ "url": "about:blank", "left": huge, "top": -huge })),
            (
                "Target.createTarget",
                json!({ "url": "about:blank", "background": true, "newWindow": true, "windowState": "fullscreen" }),
            ),
            ("Target.createTarget", json!({ "url": "about:blank", "windowState": "maximized" })),
            (
                "Browser.setWindowBounds",
                json!({ "windowId": window, "bounds": { "width": huge, "height": huge } }),
            ),
            (
                "Browser.setWindowBounds",
                json!({ "windowId": window, "bounds": { "height": 16384 } }),
            ),
            (
                "Browser.setWindowBounds",
                json!({ "windowId": window, "bounds": { "windowState": "fullscreen" } }),
            ),
            (
                "Browser.setContentsSize",
                json!({ "windowId": window, "width": huge, "height": huge }),
            ),
        ] {
            for session in [None, Some(page.as_str())] {
                let (code, message) = client.fails(session, method, params.clone()).await;
                assert_eq!(code, -32602, "{engine:?} {method} {params}: {message}");
            }
        }
        let metrics = |width: i64, scale: i64| json!({ "width": width, "height": width, "deviceScaleFactor": scale, "mobile": false });
        for (method, params) in [
            ("Emulation.setDeviceMetricsOverride", metrics(huge, 1)),
            ("Emulation.setDeviceMetricsOverride", metrics(1000, huge)),
            ("Page.setDeviceMetricsOverride", metrics(huge, 1)),
            (
                "Page.captureScreenshot",
                json!({ "clip": clip(16384, 1), "captureBeyondViewport": true }),
            ),
            ("Page.captureScreenshot", json!({ "clip": clip(100, huge) })),
            ("Page.startScreencast", json!({ "maxWidth": huge, "maxHeight": huge })),
            ("Page.printToPDF", json!({ "paperWidth": huge, "paperHeight": huge })),
            ("Page.printToPDF", json!({ "pageRanges": "1-2,".repeat(100_000) })),
            ("HeapProfiler.startSampling", json!({ "samplingInterval": 1 })),
            ("Profiler.setSamplingInterval", json!({ "interval": 1 })),
            ("IO.read", json!({ "handle": "1", "size": 2_147_483_647 })),
            (
                "Input.imeSetComposition",
                json!({ "text": "x", "selectionStart": 1, "selectionEnd": 1, "replacementStart": -1 }),
            ),
            (
                "Storage.overrideQuotaForOrigin",
                json!({ "origin": "http://127.0.0.1", "quotaSize": 9e15 }),
            ),
        ] {
            let (code, message) = client.fails(Some(&page), method, params.clone()).await;
            assert_eq!(code, -32602, "{engine:?} {method} {params}: {message}");
        }
        // The pixels of an emulated screen count: the same picture is four times as large on it.
        let picture = json!({ "clip": clip(8192, 1), "captureBeyondViewport": true });
        client.ok(Some(&page), "Emulation.setDeviceMetricsOverride", metrics(800, 2)).await;
        client.fails(Some(&page), "Page.captureScreenshot", picture.clone()).await;
        // Not when it is emulated no more.
        client.ok(Some(&page), "Emulation.clearDeviceMetricsOverride", json!({})).await;
        client.ok(Some(&page), "Page.captureScreenshot", picture).await;
        // A size of 0 is the window's own, which may be large; and a window may hold dense pages.
        let large = json!({ "windowId": window, "bounds": { "width": 7680, "height": 4320 } });
        client.ok(Some(&page), "Emulation.setDeviceMetricsOverride", metrics(0, 3)).await;
        client.fails(None, "Browser.setWindowBounds", large.clone()).await;
        client.ok(Some(&page), "Emulation.clearDeviceMetricsOverride", json!({})).await;
        client.ok(None, "Browser.setWindowBounds", large).await;
        client.fails(Some(&page), "Emulation.setDeviceMetricsOverride", metrics(0, 3)).await;
        // And what people ask for is given.
        let bounds = json!({ "windowId": window, "bounds": { "width": 1280, "height": 720 } });
        client.ok(None, "Browser.setWindowBounds", bounds).await;
        let state = json!({ "windowId": window, "bounds": { "windowState": "minimized" } });
        client.ok(None, "Browser.setWindowBounds", state).await;
        let state = json!({ "windowId": window, "bounds": { "windowState": "normal" } });
        client.ok(None, "Browser.setWindowBounds", state).await;
        let made =
            json!({ "url": "about:blank", "newWindow": true, "width": 1920, "height": 1080 });
        client.ok(None, "Target.createTarget", made).await;
        client.ok(Some(&page), "Page.captureScreenshot", json!({ "clip": clip(1000, 1) })).await;

        assert_eq!(witness.client.evaluate(&witness.session, "6*7").await, json!(42), "{engine:?}");
        witness.client.page("about:blank").await;
        assert!(rig.mux.end_reason().is_none(), "{engine:?}");
    }
}

#[tokio::test]
async fn s11_no_context_is_led_round_the_proxy_of_its_lease() {
    let rig = Rig::new(ENGINES[0]).await;
    for kind in KINDS {
        let round = [
            json!({ "proxyServer": "direct://" }),
            json!({ "proxyServer": "" }),
            json!({ "proxyServer": "127.0.0.1:9" }),
            json!({ "proxyServer": "proxy.example:3128,direct://" }),
            json!({ "proxyServer": "proxy.example:3128", "proxyBypassList": "*" }),
            json!({ "proxyServer": "proxy.example:3128", "proxyBypassList": "" }),
            json!({ "proxyBypassList": "*" }),
            json!({ "proxyBypassList": "<-loopback>" }),
            json!({ "proxyServer": ["direct://"] }),
        ];
        let allowed = json!({ "proxyServer": "proxy.example:3128" });
        for patterns in [vec![], vec!["proxy.example:*".parse().unwrap()]] {
            let allows = !patterns.is_empty();
            let mut options = LeaseOptions::new(kind);
            options.client_proxies = ClientProxies::Only(patterns);
            let lease = rig.mux.open_lease(options).await.unwrap();
            let mut client = Client::new(lease.connect().await.unwrap());
            for params in &round {
                let refused =
                    client.fails(None, "Target.createBrowserContext", params.clone()).await;
                assert!(refused.1.contains("client_proxies"), "{kind:?} {params}: {refused:?}");
            }
            let named = client.ask(None, "Target.createBrowserContext", allowed.clone()).await;
            assert_eq!(named.get("error").is_none(), allows, "{kind:?}: {named}");
            client.ok(None, "Target.createBrowserContext", json!({})).await;
            // An extension may set a proxy for everything.
            let loaded =
                client.fails(None, "Extensions.loadUnpacked", json!({ "path": "/x" })).await;
            assert!(loaded.1.contains("not available"), "{kind:?}: {loaded:?}");
            // It looks for devices by itself.
            let cast = client.fails(None, "Cast.enable", json!({})).await;
            assert!(cast.1.contains("not available"), "{kind:?}: {cast:?}");
        }
        let (_lease, mut free) = rig.client(kind).await;
        for params in &round[..7] {
            free.ok(None, "Target.createBrowserContext", params.clone()).await;
        }
    }
}
