//! The state without a Chromium: whatever clients and Chromium say, nobody reaches another lease.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::stage::Stage;

#[test]
fn a_page_is_attached_for_its_own_client_only() {
    let mut stage = Stage::new();
    let mut mine = stage.actor("mine");
    let mut theirs = stage.actor("theirs");
    assert!(mine.heard().concat().contains("page-mine"));
    let heard = theirs.heard().concat();
    assert!(heard.contains("page-theirs") && !heard.contains("mine"), "{heard}");
}

#[test]
fn page_traffic_is_passed_on_byte_by_byte() {
    let mut stage = Stage::new();
    let mut mine = stage.actor("mine");
    mine.heard();
    let frame = format!(
        r#"{{"method":"Network.dataReceived","params":{{"a" : 1.50,"b":"é"}},"sessionId":"{}"}}"#,
        mine.session
    );
    stage.state.browser_message(Bytes::from(frame.clone()));
    assert_eq!(mine.heard(), [frame]);
}

#[test]
fn what_waits_on_a_session_that_ends_is_answered() {
    let mut stage = Stage::new();
    let mut mine = stage.actor("mine");
    let ask = json!({ "id": 7, "method": "Target.getTargets", "sessionId": mine.session });
    stage.hear(&mine, &ask.to_string());
    stage.say(&json!({ "method": "Target.detachedFromTarget",
        "params": { "sessionId": mine.session, "targetId": mine.page } }));
    let heard = mine.heard().concat();
    assert!(heard.contains(r#""id":7"#) && heard.contains("-32001"), "{heard}");
    assert_eq!(stage.state.census().pending, 0);
}

/// On a loaded machine the look at a worker that never began can be over before it is attached.
#[test]
fn an_attach_that_comes_after_its_worker_was_forgotten_leaves_nothing() {
    let mut stage = Stage::new();
    let worker = json!({ "targetId": "worker", "type": "service_worker", "title": "",
        "url": "http://a/", "attached": false, "browserContextId": "gone" });
    let before = stage.state.census();
    stage.say(&json!({ "method": "Target.targetCreated", "params": { "targetInfo": worker } }));
    stage.state.expect_attach("worker");
    stage.state.forget_ghost(&"worker".into());
    let session = "0123456789ABCDEF0123456789ABCDEF";
    stage.say(&json!({ "method": "Target.attachedToTarget", "params": {
        "sessionId": session, "targetInfo": worker, "waitingForDebugger": false } }));
    let written = stage.written();
    assert!(
        written.iter().any(|it| it["method"] == "Target.detachFromTarget"
            && it["params"] == json!({ "sessionId": session })),
        "{written:?}"
    );
    for command in written {
        stage.say(&json!({ "id": command["id"], "result": {} }));
    }
    assert_eq!(stage.state.census(), before);
}

#[test]
fn what_shows_a_file_is_closed_and_cannot_be_read_until_it_is() {
    for url in ["file:///etc/passwd", "chrome://version/", "view-source:http://a/", "filesystem:x"]
    {
        let mut stage = Stage::new();
        let mut mine = stage.actor("mine");
        mine.heard();
        let info = json!({ "targetId": mine.page, "type": "page", "title": "", "url": url,
            "attached": true, "browserContextId": "context-mine" });
        stage.say(
            &json!({ "method": "Target.targetInfoChanged", "params": { "targetInfo": info } }),
        );
        let closed = json!({ "targetId": mine.page });
        let written = stage.written();
        assert!(
            written.iter().any(|it| it["method"] == "Target.closeTarget" && it["params"] == closed),
            "{url}: {written:?}"
        );
        let told = mine.heard().concat();
        assert!(told.contains("Target.detachedFromTarget") && !told.contains(url), "{told}");
        let read = json!({ "id": 7, "method": "Runtime.evaluate", "sessionId": mine.session });
        stage.hear(&mine, &read.to_string());
        assert!(stage.written().is_empty());
        assert!(mine.heard().concat().contains("-32001"));
    }
    for url in ["http://a/", "data:,x", "about:blank", "chrome-error://chromewebdata/", ""] {
        let mut stage = Stage::new();
        let mine = stage.actor("mine");
        let info = json!({ "targetId": mine.page, "type": "page", "title": "", "url": url,
            "attached": true, "browserContextId": "context-mine" });
        stage.say(
            &json!({ "method": "Target.targetInfoChanged", "params": { "targetInfo": info } }),
        );
        assert!(stage.written().is_empty(), "{url}");
    }
}

fn methods() -> impl Strategy<Value = String> {
    let mut known: Vec<String> = super::super::rules::methods().map(ToOwned::to_owned).collect();
    known.extend(
        ["Runtime.evaluate", "Page.close", "Fetch.enable", "X.y", ""].map(ToOwned::to_owned),
    );
    prop_oneof![8 => proptest::sample::select(known), 1 => "[A-Za-z.\\PC]{0,20}"]
}

fn ids() -> impl Strategy<Value = String> {
    let known = [
        "page-mine",
        "page-theirs",
        "context-mine",
        "context-theirs",
        "",
        "MINE",
        "THEIRS",
        "about:blank",
        "chrome://settings",
        "/etc/passwd",
    ];
    prop_oneof![
        8 => proptest::sample::select(known.to_vec()).prop_map(ToOwned::to_owned),
        1 => "\\PC{0,12}",
    ]
}

fn params() -> impl Strategy<Value = Value> {
    let keys = [
        "targetId",
        "browserContextId",
        "sessionId",
        "url",
        "windowId",
        "guid",
        "files",
        "downloadPath",
        "autoAttach",
        "waitForDebuggerOnStart",
        "flatten",
        "discover",
        "filter",
        "ignore",
        "disposeOnDetach",
    ];
    let value = prop_oneof![
        4 => ids().prop_map(|id| json!(id)),
        1 => any::<bool>().prop_map(|it| json!(it)),
        1 => any::<i64>().prop_map(|it| json!(it)),
        1 => ids().prop_map(|id| json!([id])),
        1 => Just(json!([{}])),
        1 => Just(Value::Null),
    ];
    proptest::collection::hash_map(proptest::sample::select(keys.to_vec()), value, 0..6)
        .prop_map(|map| json!(map))
}

#[test]
fn what_a_nested_session_is_told_is_wrapped_and_its_commands_are_not() {
    let mut stage = Stage::new();
    let mut mine = stage.actor("mine");
    let nested = stage.nest(&mine);
    mine.heard();
    let message = r#"{"id":3,"method":"Page.enable","params":{}}"#;
    let send = json!({ "id": 7, "method": "Target.sendMessageToTarget",
        "params": { "sessionId": nested, "message": message } });
    stage.hear(&mine, &send.to_string());
    let command = json!({ "id": 3, "method": "Page.enable", "params": {}, "sessionId": nested });
    assert_eq!(stage.written(), [command]);
    let answer = format!(r#"{{"id":3,"result":{{"a":"\\\"é"}},"sessionId":"{nested}"}}"#);
    stage.state.browser_message(Bytes::from(answer));
    let received = json!({ "sessionId": nested, "targetId": "page-mine",
        "message": r#"{"id":3,"result":{"a":"\\\"é"}}"# });
    let heard = mine.heard();
    assert_eq!(heard[0], r#"{"id":7,"result":{}}"#);
    let heard: Value = serde_json::from_str(&heard[1]).unwrap();
    assert_eq!(heard["params"], received);
}

proptest! {
    #[test]
    fn no_command_names_what_is_another_leases(
        commands in proptest::collection::vec((methods(), params(), 0..4u8), 1..20)
    ) {
        let mut stage = Stage::new();
        let mut mine = stage.actor("mine");
        let mut theirs = stage.actor("theirs");
        let nested = stage.nest(&mine);
        mine.heard();
        theirs.heard();
        for (id, (method, params, on)) in commands.into_iter().enumerate() {
            let text = params.to_string()
                .replace("\"MINE\"", &format!("{:?}", mine.session))
                .replace("\"THEIRS\"", &format!("{:?}", theirs.session));
            let mut message = json!({ "id": id, "method": method });
            message["params"] = serde_json::from_str(&text).expect("still JSON");
            match on {
                0 => {}
                1 => message["sessionId"] = json!(mine.session),
                2 => {
                    let params = json!({ "sessionId": nested, "message": message.to_string() });
                    message["method"] = json!("Target.sendMessageToTarget");
                    message["params"] = params;
                }
                _ => message["sessionId"] = json!(theirs.session),
            }
            stage.hear(&mine, &message.to_string());
            for frame in stage.written() {
                prop_assert!(!theirs.is_named_by(&frame), "{frame}");
            }
        }
        prop_assert!(theirs.heard().is_empty());
        let heard = mine.heard().concat();
        prop_assert!(!heard.contains(r#""targetId":"page-theirs""#), "{heard}");
    }

    #[test]
    fn no_text_of_a_client_and_no_bytes_of_chromium_break_it(
        text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        let mut stage = Stage::new();
        let mine = stage.actor("mine");
        stage.hear(&mine, &text);
        stage.state.browser_message(bytes.clone().into());
        let mut suffixed = bytes;
        suffixed.extend_from_slice(format!(r#","sessionId":"{}"}}"#, mine.session).as_bytes());
        stage.state.browser_message(suffixed.into());
        let _ = stage.written();
    }
}

#[test]
fn a_link_outlives_its_connection() {
    let mut stage = Stage::new();
    let mine = stage.actor("mine");
    stage.state.close_connection(mine.connection, crate::mux::EndReason::Revoked);
    assert_eq!(mine.link.reason(), Some(crate::mux::EndReason::Revoked));
}
