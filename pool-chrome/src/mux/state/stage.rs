//! Clients of a simulated Chromium, for tests and fuzz targets; and tests that, whatever clients
//! and Chromium say, nobody reaches another lease.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{ConnectionId, State};
use crate::mux::Budget;
use crate::mux::budget::Gate;
use crate::mux::lease_options::{LeaseKind, LeaseOptions};
use crate::mux::link::Link;
use crate::mux::target::Id;

/// A state with leases, whose Chromium is played by the test.
pub(crate) struct Stage {
    pub(super) state: State,
    gate: Arc<Gate>,
    budget: Budget,
    departing: UnboundedSender<Id>,
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
        Self::within(Budget::default())
    }

    fn within(budget: Budget) -> Self {
        let (gate, (departing, _)) = (Arc::default(), unbounded_channel());
        let state = State::new(budget.clone(), Arc::clone(&gate), Arc::default());
        Self { state, gate, budget, departing, next_session: 0 }
    }

    pub(crate) fn say(&mut self, message: &Value) {
        self.state.browser_message(message.to_string().into());
        self.run();
    }

    /// Carries out the effects of the state, as whoever holds its lock does.
    pub(super) fn run(&mut self) {
        self.state.take_effects().run(&self.departing);
    }

    /// Makes a client send something.
    pub(crate) fn hear(&mut self, actor: &Actor, message: &str) {
        self.state.client_message(actor.connection, message, None);
        self.run();
    }

    /// Returns what was written to Chromium since the last call.
    pub(crate) fn written(&mut self) -> Vec<Value> {
        let mut batch = Vec::new();
        while let Some(large) = self.state.take_output(&mut batch, usize::MAX) {
            large.parts().iter().for_each(|part| batch.extend_from_slice(part));
        }
        batch
            .split(|byte| *byte == 0)
            .filter(|frame| !frame.is_empty())
            .map(|frame| serde_json::from_slice(frame).expect("what is written is JSON"))
            .collect()
    }

    /// Returns a session on a client's page that is not flattened.
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
        let link = Link::new(&self.gate, &self.budget);
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

/// Returns the params by which a command names something that may be another lease's. Chromium
/// ignores params that a command does not use.
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

/// Counts how often it is woken.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Woken(std::sync::atomic::AtomicUsize);

#[cfg(test)]
impl Woken {
    pub(super) fn times(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Waker};

    use bytes::Bytes;
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;
    use crate::mux::EndReason;
    use crate::mux::lease_options::{FileUse, HolderCommands};
    use crate::mux::state::client::Params;

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

    #[test]
    fn an_answer_with_neither_result_nor_error_is_one_that_failed() {
        let mut stage = Stage::new();
        let mut mine = stage.actor("mine");
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        stage.state.call(None, "Browser.getVersion", &json!({}), reply);
        let ask = json!({ "id": 7, "method": "Runtime.evaluate", "sessionId": mine.session,
            "params": { "expression": "1" } });
        stage.hear(&mine, &ask.to_string());
        let waited = stage.state.census().pending;
        let written = stage.written();
        mine.heard();
        for command in &written {
            stage.say(&json!({ "id": command["id"], "sessionId": command["sessionId"] }));
        }
        assert!(stage.state.census().pending < waited, "{written:?}");
        assert!(matches!(answer.try_recv(), Ok(Err(_))), "whoever awaits it learns nothing");
    }

    /// On a loaded machine, the search for a worker that never started can be over before it is
    /// attached.
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
        for url in
            ["file:///etc/passwd", "chrome://version/", "view-source:http://a/", "filesystem:x"]
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
                written
                    .iter()
                    .any(|it| it["method"] == "Target.closeTarget" && it["params"] == closed),
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

    #[test]
    fn a_page_that_changes_documents_as_it_is_closed_is_closed_again() {
        let mut stage = Stage::new();
        let mine = stage.actor("mine");
        let goes = |stage: &mut Stage, url: &str, title: &str| {
            let info = json!({ "targetId": mine.page, "type": "page", "title": title, "url": url,
                "attached": true, "browserContextId": "context-mine" });
            stage.say(
                &json!({ "method": "Target.targetInfoChanged", "params": { "targetInfo": info } }),
            );
            let written = stage.written();
            written.iter().filter(|it| it["method"] == "Target.closeTarget").count()
        };
        assert_eq!(goes(&mut stage, "http://a/", "a"), 0, "nobody has closed it");
        let close = json!({ "id": 7, "method": "Target.closeTarget",
            "params": { "targetId": mine.page } });
        stage.hear(&mine, &close.to_string());
        assert_eq!(stage.written().len(), 1);
        assert_eq!(goes(&mut stage, "http://a/", "another"), 0, "the same document");
        assert_eq!(goes(&mut stage, "http://b/", "b"), 1);
    }

    #[test]
    fn what_a_client_has_sent_is_done_before_its_sessions_end() {
        let close = |actor: &Actor| {
            json!({ "id": 7, "method": "Target.closeTarget", "params": { "targetId": actor.page } })
                .to_string()
        };
        let places = |stage: &mut Stage| {
            let written = stage.written();
            let place = |method: &str| written.iter().position(|it| it["method"] == method);
            let places = [place("Target.closeTarget"), place("Target.detachFromTarget")];
            places.map(|place| place.unwrap_or_else(|| panic!("not sent: {written:?}")))
        };
        let mut stage = Stage::new();
        let [mine, other] = ["mine", "other"].map(|name| stage.actor(name));
        stage.hear(&mine, &close(&mine));
        stage.state.close_connection(mine.connection, EndReason::ClientClosed);
        assert!(places(&mut stage).is_sorted(), "it closed a page and left");

        stage.hear(&other, &close(&other));
        let off = json!({ "id": 8, "method": "Target.setAutoAttach", "params": {
            "autoAttach": false, "waitForDebuggerOnStart": false, "flatten": true } });
        stage.hear(&other, &off.to_string());
        assert!(places(&mut stage).is_sorted(), "it wants no sessions any more");
    }

    fn methods() -> impl Strategy<Value = String> {
        let mut known: Vec<String> = crate::mux::rules::methods().map(ToOwned::to_owned).collect();
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
        let command =
            json!({ "id": 3, "method": "Page.enable", "params": {}, "sessionId": nested });
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
        stage.state.close_connection(mine.connection, EndReason::Revoked);
        assert_eq!(mine.link.reason(), Some(EndReason::Revoked));
    }

    #[test]
    fn a_client_that_is_cut_for_room_is_woken_once_the_state_is_left() {
        let budget = Budget::new(1 << 20);
        let mut stage = Stage::within(budget.clone());
        let mine = stage.actor("mine");
        let greedy = Link::new(&Arc::default(), &budget);
        greedy.receiving(1 << 20);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let nothing = greedy.poll_take(&mut Context::from_waker(&waker), 1, drop);
        assert!(nothing.is_pending());
        let text = "x".repeat(100_000);
        let event =
            format!(r#"{{"method":"X.y","params":["{text}"],"sessionId":"{}"}}"#, mine.session);
        stage.state.browser_message(event.into());
        assert_eq!((greedy.reason(), woken.times()), (None, 0));
        stage.run();
        assert_eq!((greedy.reason(), woken.times()), (Some(EndReason::SlowReader), 1));
    }

    #[test]
    fn a_client_that_may_send_again_is_woken_once_the_state_is_left() {
        let mut stage = Stage::new();
        let mine = stage.actor("mine");
        let text = "x".repeat(30_000);
        let command = json!({ "id": 7, "method": "Runtime.evaluate", "sessionId": mine.session,
            "params": { "expression": text } });
        while mine.link.room().now_or_never().is_some() {
            stage.hear(&mine, &command.to_string());
        }
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut room = pin!(mine.link.room());
        assert!(room.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        stage.written();
        assert_eq!(woken.times(), 0);
        stage.run();
        assert_eq!(woken.times(), 1);
        assert!(room.now_or_never().is_some_and(|room| room.is_ok()));
    }

    /// Records what it is told, and panics.
    #[derive(Debug, Default)]
    struct Startled(Mutex<Vec<String>>);

    impl HolderCommands for Startled {
        fn call(&self, _: &str, _: &Params) -> Option<Result<Value, String>> {
            None
        }

        fn file_refused(&self, _: FileUse, path: &str) {
            self.0.lock().expect("it is not held in a panic").push(path.to_owned());
            panic!("it cannot bear {path}");
        }
    }

    #[test]
    fn a_holder_is_told_of_a_refused_file_outside_the_state_and_may_panic() {
        let mut stage = Stage::new();
        let mut mine = stage.actor("mine");
        mine.heard();
        let holder = Arc::new(Startled::default());
        let client = stage.state.leases.client_mut(mine.connection).expect("it is connected");
        client.commands = Some(holder.clone());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let nothing = mine.link.poll_take(&mut Context::from_waker(&waker), 1, drop);
        assert!(nothing.is_pending());
        let upload = json!({ "id": 7, "method": "DOM.setFileInputFiles", "sessionId": mine.session,
            "params": { "files": ["/etc/passwd"] } });
        stage.state.client_message(mine.connection, &upload.to_string(), None);
        assert!(holder.0.lock().unwrap().is_empty(), "the state is locked");
        stage.run();
        assert_eq!(*holder.0.lock().unwrap(), ["/etc/passwd"]);
        assert_eq!(woken.times(), 1);
        assert!(mine.heard().concat().contains("outside of the directories"));
    }
}
