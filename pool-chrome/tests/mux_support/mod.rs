//! What the tests of the multiplexer and the driver share: a Chromium, and clients that speak raw
//! protocol.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

mod site;

use std::collections::VecDeque;
use std::time::Duration;

use pool_chrome::mux::{
    Budget, Connection, DefaultContext, EndReason, LeaseKind, LeaseOptions, Multiplexer, MuxLease,
};
use pool_chrome::process::{Chromium, Engine, LaunchOptions, StateDir};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

pub(crate) use site::Site;

/// A test on one engine is no test of the other.
pub(crate) const ENGINES: [Engine; 2] = [Engine::Shell, Engine::Chromium];

pub(crate) const KINDS: [LeaseKind; 2] = [LeaseKind::Exclusive, LeaseKind::Shared];

/// A lease of each kind, and one of a profile, whose default context is the real one.
pub(crate) fn every_lease() -> impl Iterator<Item = LeaseOptions> {
    let profile = LeaseOptions::new(LeaseKind::Exclusive).default_context(DefaultContext::Real);
    KINDS.into_iter().map(LeaseOptions::new).chain([profile])
}

/// Longer than anything takes, also on a machine that does three other things.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A Chromium with its multiplexer.
pub(crate) struct Rig {
    pub(crate) mux: Multiplexer,
    pub(crate) chromium: Chromium,
    _root: TempDir,
}

impl Rig {
    pub(crate) async fn new(engine: Engine) -> Self {
        Self::within(Budget::default(), engine).await
    }

    /// One whose clients have no more than this budget together.
    pub(crate) async fn within(budget: Budget, engine: Engine) -> Self {
        let root = tempfile::Builder::new().prefix("mux").tempdir().unwrap();
        let state = StateDir::open(root.path().join("s")).unwrap();
        let options = LaunchOptions::new().engine(engine);
        let (chromium, pipe) = Chromium::launch(options, &state).await.unwrap();
        let mux = Multiplexer::start_within(budget, pipe.reader, pipe.writer).await.unwrap();
        Self { mux, chromium, _root: root }
    }

    pub(crate) async fn lease(&self, kind: LeaseKind) -> MuxLease {
        self.mux.open_lease(LeaseOptions::new(kind)).await.unwrap()
    }

    pub(crate) async fn client(&self, kind: LeaseKind) -> (MuxLease, Client) {
        self.client_of(LeaseOptions::new(kind)).await
    }

    pub(crate) async fn client_of(&self, options: LeaseOptions) -> (MuxLease, Client) {
        let lease = self.mux.open_lease(options).await.unwrap();
        let client = Client::new(lease.connect().await.unwrap());
        (lease, client)
    }
}

/// A client of the raw protocol that remembers what it was told.
pub(crate) struct Client {
    connection: Connection,
    next_id: i32,
    /// Events that nobody has looked at yet.
    pub(crate) events: VecDeque<Value>,
}

impl Client {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, next_id: 0, events: VecDeque::new() }
    }

    pub(crate) async fn send(&mut self, session: Option<&str>, method: &str, params: Value) -> i32 {
        self.next_id += 1;
        let mut message = json!({ "id": self.next_id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        self.send_text(&message.to_string()).await;
        self.next_id
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.connection.send(text).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Option<Value> {
        let message = timeout(LONG, self.connection.recv()).await.expect("nothing came");
        message.map(|message| serde_json::from_slice(&message).unwrap())
    }

    /// The whole reply.
    pub(crate) async fn ask(
        &mut self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Value {
        let id = self.send(session, method, params).await;
        self.reply(id).await
    }

    pub(crate) async fn reply(&mut self, id: i32) -> Value {
        loop {
            let message = self.next().await.expect("the connection has ended");
            if message["id"] == json!(id) {
                return message;
            }
            self.events.push_back(message);
        }
    }

    /// The result of a command that must succeed.
    pub(crate) async fn ok(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        let reply = self.ask(session, method, params).await;
        assert!(reply.get("error").is_none(), "{method}: {reply}");
        reply["result"].clone()
    }

    /// The code and message of a command that must fail.
    pub(crate) async fn fails(
        &mut self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> (i64, String) {
        let reply = self.ask(session, method, params).await;
        let error = &reply["error"];
        assert!(error.is_object(), "{method} succeeded: {reply}");
        (error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_owned())
    }

    /// Waits for an event, the earliest that suits.
    pub(crate) async fn event(&mut self, method: &str, suits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let found = |event: &Value| event["method"] == json!(method) && suits(&event["params"]);
            if let Some(at) = self.events.iter().position(found) {
                return self.events.remove(at).unwrap();
            }
            let message = self.next().await.expect("the connection has ended");
            self.events.push_back(message);
        }
    }

    /// A page of its own, attached by hand. Returns target and session.
    pub(crate) async fn page(&mut self, url: &str) -> (String, String) {
        let made = self.ok(None, "Target.createTarget", json!({ "url": url })).await;
        let target = made["targetId"].as_str().unwrap().to_owned();
        let params = json!({ "targetId": target, "flatten": true });
        let attached = self.ok(None, "Target.attachToTarget", params).await;
        (target, attached["sessionId"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn evaluate(&mut self, session: &str, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.ok(Some(session), "Runtime.evaluate", params).await;
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression has a value, in a page that may still be on its way: what a navigation cuts off is
    /// asked again.
    pub(crate) async fn evaluates_to(&mut self, session: &str, expression: &str, value: &Value) {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        eventually(expression, async || {
            let reply = self.ask(Some(session), "Runtime.evaluate", params.clone()).await;
            let error = reply["error"]["message"].as_str();
            assert!(error.is_none_or(|error| CUT_OFF.contains(&error)), "{expression}: {reply}");
            reply["result"]["result"]["value"] == *value
        })
        .await;
    }

    /// Waits for the end of the connection and says why.
    pub(crate) async fn end(mut self) -> EndReason {
        while self.next().await.is_some() {}
        self.connection.end_reason().unwrap()
    }

    pub(crate) fn end_reason(&self) -> Option<EndReason> {
        self.connection.end_reason()
    }

    pub(crate) fn into_connection(self) -> Connection {
        self.connection
    }
}

/// Chromium's answers to an evaluation whose document goes while it is under way, or has not come yet.
const CUT_OFF: [&str; 3] = [
    "Inspected target navigated or closed",
    "Execution context was destroyed.",
    "Cannot find default execution context",
];

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
