use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use pool_cli::config::Secret;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::PATIENCE;

/// A server whose every path is a webhook.
pub(crate) struct Hooks {
    address: SocketAddr,
    calls: mpsc::UnboundedReceiver<Call>,
    shared: Shared,
}

/// More than there are at a time.
const CALLS: usize = 1000;

/// A webhook that was called.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

#[derive(Clone)]
struct Shared {
    told: mpsc::UnboundedSender<Call>,
    statuses: Arc<Mutex<VecDeque<u16>>>,
    gate: Arc<Semaphore>,
}

impl Hooks {
    /// Answers with these statuses, one after another, and with 200 from then on.
    pub(crate) async fn start(statuses: &[u16]) -> Self {
        let (told, calls) = mpsc::unbounded_channel();
        let statuses = Arc::new(Mutex::new(statuses.iter().copied().collect()));
        let gate = Arc::new(Semaphore::new(CALLS));
        let shared = Shared { told, statuses, gate };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let app = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { address, calls, shared }
    }

    /// The address of one of them.
    pub(crate) fn url(&self, path: &str) -> Option<Secret> {
        Some(Secret::new(format!("http://{}/{path}", self.address)))
    }

    /// From now on calls are heard and not answered.
    pub(crate) fn shut(&self) {
        self.shared.gate.forget_permits(CALLS);
    }

    /// Answers those that wait, and all that come.
    pub(crate) fn open(&self) {
        self.shared.gate.add_permits(CALLS);
    }

    /// The next call.
    pub(crate) async fn next(&mut self) -> Call {
        let call = timeout(PATIENCE, self.calls.recv()).await.expect("a call in time");
        call.expect("the server runs")
    }

    /// The calls that nobody has asked for yet.
    pub(crate) fn unread(&mut self) -> usize {
        self.calls.len()
    }
}

async fn answer(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> StatusCode {
    let body = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let call = Call { path: uri.path().to_owned(), headers, body };
    // Before it is told of: who then shuts the gate means the calls after this one.
    let passed = shared.gate.try_acquire().map(drop);
    shared.told.send(call).expect("the test runs");
    if passed.is_err() {
        let _passed = shared.gate.acquire().await.expect("it is never closed");
    }
    let status = shared.statuses.lock().expect("nobody panics").pop_front();
    StatusCode::from_u16(status.unwrap_or(200)).expect("it is one")
}
