//! Clients of one Chromium that is played: for tests and fuzz targets.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ConnectionId, State};
use crate::mux::Budget;
use crate::mux::connection::Link;
use crate::mux::lease_options::{LeaseKind, LeaseOptions};

/// A state with leases on it, whose Chromium is played by the test.
pub(crate) struct Stage {
    pub(super) state: State,
    next_session: u32,
}

/// One lease with one client.
pub(crate) struct Actor {
    pub(super) connection: ConnectionId,
    pub(super) link: Arc<Link>,
    context: String,
    pub(super) page: String,
    pub(crate) session: String,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { state: State::new(Budget::default()), next_session: 0 }
    }

    pub(crate) fn say(&mut self, message: &Value) {
        self.state.browser_message(message.to_string().into());
    }

    /// A client sends something.
    pub(crate) fn hear(&mut self, actor: &Actor, message: &str) {
        self.state.client_message(actor.connection, message, None);
    }

    /// Returns what was written to Chromium since the last time.
    pub(crate) fn written(&mut self) -> Vec<Value> {
        let mut batch = Vec::new();
        while let Some(large) = self.state.outbox.take(&mut batch, usize::MAX) {
            large.parts().iter().for_each(|part| batch.extend_from_slice(part));
        }
        batch
            .split(|byte| *byte == 0)
            .filter(|frame| !frame.is_empty())
            .map(|frame| serde_json::from_slice(frame).expect("what is written is JSON"))
            .collect()
    }

    /// A session on a client's page that is not flattened.
    #[cfg(test)]
    pub(super) fn nest(&mut self, actor: &Actor) -> String {
        let attach = json!({ "id": 2, "method": "Target.attachToTarget",
            "params": { "targetId": actor.page } });
        self.hear(actor, &attach.to_string());
        let command = self.written().pop().expect("it is handed on");
        assert_eq!(command["params"]["flatten"], json!(true));
        let nested = self.session();
        let on = command["sessionId"].as_str().expect("on the client's root");
        let info = json!({ "targetId": actor.page, "type": "page", "title": "",
            "url": "about:blank", "attached": true, "browserContextId": actor.context });
        let params =
            json!({ "sessionId": nested, "targetInfo": info, "waitingForDebugger": false });
        let attached = format!(
            r#"{{"method":"Target.attachedToTarget","params":{params},"sessionId":"{on}"}}"#
        );
        self.state.browser_message(attached.into());
        let id = &command["id"];
        let answer =
            format!(r#"{{"id":{id},"result":{{"sessionId":"{nested}"}},"sessionId":"{on}"}}"#);
        self.state.browser_message(answer.into());
        nested
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

    pub(crate) fn actor(&mut self, name: &str) -> Actor {
        let (lease, _over) = self.state.new_lease(LeaseOptions::new(LeaseKind::Shared));
        let base = self.browser_session(lease);
        let (reply, mut made) = tokio::sync::oneshot::channel();
        self.state.make_default_context(lease, base, reply);
        let context = format!("context-{name}");
        self.answer(&json!({ "browserContextId": context }));
        made.try_recv().expect("answered").expect("a context");
        let root = self.browser_session(lease);
        let link = Link::new(&self.state.gate, &self.state.budget);
        let connection = self.state.open_connection(lease, root, Arc::clone(&link), None);
        let connection = connection.expect("a lease");
        let on = json!({ "id": 1, "method": "Target.setAutoAttach", "params": {
            "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true } });
        self.state.client_message(connection, &on.to_string(), None);
        let (page, session) = (format!("page-{name}"), self.session());
        let info = json!({ "targetId": page, "type": "page", "title": "", "url": "about:blank",
            "attached": true, "browserContextId": context });
        self.say(&json!({ "method": "Target.targetCreated", "params": { "targetInfo": info } }));
        self.say(&json!({ "method": "Target.attachedToTarget", "params": {
            "sessionId": session, "targetInfo": info, "waitingForDebugger": true } }));
        self.written();
        Actor { connection, link, context, page, session }
    }
}

impl Actor {
    /// Returns `true` if a command to Chromium is about something of this client's.
    pub(crate) fn is_named_by(&self, frame: &Value) -> bool {
        let own = [&self.page, &self.context, &self.session];
        let method = frame["method"].as_str().unwrap_or_default();
        let named = |key: &&str| own.iter().any(|id| frame["params"][*key] == **id);
        frame["sessionId"] == self.session || naming(method).iter().any(named)
    }

    pub(crate) fn heard(&mut self) -> Vec<String> {
        let mut heard = Vec::new();
        self.link.take(usize::MAX, |message| {
            heard.push(String::from_utf8(message.to_vec()).expect("text"));
        });
        heard
    }
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
