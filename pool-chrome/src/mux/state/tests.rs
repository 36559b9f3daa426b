//! The state without a Chromium: whatever clients and Chromium say, nobody reaches another lease.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{ConnectionId, State};
use crate::mux::connection::Outgoing;
use crate::mux::lease_options::{LeaseKind, LeaseOptions};

/// A state with leases on it, whose Chromium is played by the test.
struct Stage {
    state: State,
    next_session: u32,
}

/// One lease with one client.
struct Actor {
    connection: ConnectionId,
    messages: UnboundedReceiver<Bytes>,
    context: String,
    page: String,
    session: String,
}

impl Stage {
    fn new() -> Self {
        Self { state: State::new(), next_session: 0 }
    }

    fn say(&mut self, message: &Value) {
        self.state.browser_message(message.to_string().into());
    }

    /// What was written to Chromium since the last time.
    fn written(&mut self) -> Vec<Value> {
        let mut batch = Vec::new();
        self.state.outbox.take(&mut batch, usize::MAX);
        batch
            .split(|byte| *byte == 0)
            .filter(|frame| !frame.is_empty())
            .map(|frame| serde_json::from_slice(frame).expect("what is written is JSON"))
            .collect()
    }

    fn session(&mut self) -> String {
        self.next_session += 1;
        format!("{:032X}", self.next_session)
    }

    /// Answers the last command with a result.
    fn answer(&mut self, result: &Value) {
        let command = self.written().pop().expect("a command to answer");
        let mut answer = json!({ "id": command["id"], "result": result });
        if let Some(session) = command["sessionId"].as_str() {
            answer = serde_json::from_str(&format!(
                r#"{{"id":{},"result":{result},"sessionId":"{session}"}}"#,
                command["id"]
            ))
            .expect("JSON");
        }
        self.say(&answer);
    }

    fn browser_session(&mut self, lease: super::LeaseId) -> crate::mux::SessionId {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        self.state.make_browser_session(lease, reply);
        let session = self.session();
        self.say(&json!({ "method": "Target.attachedToTarget", "params": {
            "sessionId": session, "waitingForDebugger": false,
            "targetInfo": { "targetId": format!("browser-{session}"), "type": "browser" } } }));
        self.answer(&json!({ "sessionId": session }));
        answer.try_recv().expect("answered").expect("a session")
    }

    fn actor(&mut self, name: &str) -> Actor {
        let (lease, _over) = self.state.new_lease(LeaseOptions::new(LeaseKind::Shared));
        let base = self.browser_session(lease);
        let (reply, mut made) = tokio::sync::oneshot::channel();
        self.state.make_default_context(lease, base, reply);
        let context = format!("context-{name}");
        self.answer(&json!({ "browserContextId": context }));
        made.try_recv().expect("answered").expect("a context");
        let root = self.browser_session(lease);
        let (outgoing, messages) = Outgoing::new(usize::MAX);
        let connection = self.state.open_connection(lease, root, outgoing).expect("a lease");
        let on = json!({ "id": 1, "method": "Target.setAutoAttach", "params": {
            "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true } });
        self.state.client_message(connection, &on.to_string());
        let (page, session) = (format!("page-{name}"), self.session());
        let info = json!({ "targetId": page, "type": "page", "title": "", "url": "about:blank",
            "attached": true, "browserContextId": context });
        self.say(&json!({ "method": "Target.targetCreated", "params": { "targetInfo": info } }));
        self.say(&json!({ "method": "Target.attachedToTarget", "params": {
            "sessionId": session, "targetInfo": info, "waitingForDebugger": true } }));
        self.written();
        Actor { connection, messages, context, page, session }
    }
}

impl Actor {
    fn heard(&mut self) -> Vec<String> {
        let mut heard = Vec::new();
        while let Ok(message) = self.messages.try_recv() {
            heard.push(String::from_utf8(message.to_vec()).expect("text"));
        }
        heard
    }
}

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
    stage.state.client_message(mine.connection, &ask.to_string());
    stage.say(&json!({ "method": "Target.detachedFromTarget",
        "params": { "sessionId": mine.session, "targetId": mine.page } }));
    let heard = mine.heard().concat();
    assert!(heard.contains(r#""id":7"#) && heard.contains("-32001"), "{heard}");
    assert_eq!(stage.state.census().pending, 0);
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

/// The params by which a command names something that may be another lease's. What a command has
/// no use for, Chromium ignores.
fn naming(method: &str) -> &'static [&'static str] {
    match method {
        "Target.createBrowserContext"
        | "Target.getBrowserContexts"
        | "Target.attachToBrowserTarget"
        | "Target.setAutoAttach"
        | "Target.getTargets"
        | "Browser.getVersion"
        | "Browser.getWindowBounds"
        | "Browser.setWindowBounds"
        | "Browser.setContentsSize" => &[],
        "Target.createTarget" | "Target.disposeBrowserContext" => &["browserContextId"],
        "Target.detachFromTarget" => &["sessionId"],
        _ if method.starts_with("Target.") => &["targetId"],
        "Browser.getWindowForTarget" => &["targetId"],
        _ if method.starts_with("Browser.") => &["browserContextId"],
        _ => &[],
    }
}

proptest! {
    #[test]
    fn no_command_names_what_is_another_leases(
        commands in proptest::collection::vec((methods(), params(), 0..3u8), 1..20)
    ) {
        let mut stage = Stage::new();
        let mut mine = stage.actor("mine");
        let mut theirs = stage.actor("theirs");
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
                _ => message["sessionId"] = json!(theirs.session),
            }
            stage.state.client_message(mine.connection, &message.to_string());
            for frame in stage.written() {
                let plain = frame["method"].as_str().unwrap_or_default();
                for key in naming(plain) {
                    let named = frame["params"][*key].as_str().unwrap_or_default();
                    let foreign = [&theirs.page, &theirs.context, &theirs.session];
                    prop_assert!(!foreign.iter().any(|id| *id == named), "{frame}");
                }
                prop_assert!(frame["sessionId"] != json!(theirs.session), "{frame}");
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
        stage.state.client_message(mine.connection, &text);
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
    let link =
        stage.state.clients.get(&mine.connection).map(|client| Arc::clone(&client.outgoing.link));
    stage.state.close_connection(mine.connection, crate::mux::EndReason::Revoked);
    assert_eq!(link.and_then(|link| link.reason()), Some(crate::mux::EndReason::Revoked));
}
