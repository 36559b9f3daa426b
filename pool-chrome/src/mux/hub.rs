use std::fmt;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::EndReason;
use super::budget::{Budget, Gate};
use super::end::Ending;
use super::link::LargeFrame;
use super::state::State;
use super::target::{Id, SessionId};
use crate::cdp::CdpError;

/// The state behind its lock, for the handles, leases, connections and tasks.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    ending: Arc<Ending>,
    gate: Arc<Gate>,
    budget: Budget,
    /// Receives the pages that must be sent to their addresses.
    departing: UnboundedSender<Id>,
    /// Notified when there is something to write.
    wake: Notify,
    /// Time at which Chromium was last heard.
    heard: Mutex<Instant>,
    /// Time at which Chromium last took something that had to wait for it.
    took: Mutex<Instant>,
    /// Asked when the pipe closes.
    out_of_memory: OnceLock<OutOfMemory>,
}

/// Finds out whether the kernel has killed a Chromium for lack of memory.
struct OutOfMemory(Box<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutOfMemory")
    }
}

/// Something made in Chromium that is undone unless it is kept.
#[derive(Debug)]
struct Made<T> {
    hub: Arc<Hub>,
    what: Option<T>,
    undo: fn(&mut State, &T),
}

impl<T> Made<T> {
    fn keep(mut self) -> T {
        self.what.take().expect("it is taken out once, here")
    }
}

impl<T> Drop for Made<T> {
    fn drop(&mut self) {
        if let Some(what) = self.what.take() {
            self.hub.update(|state| (self.undo)(state, &what));
        }
    }
}

impl Hub {
    /// Creates a hub, and the channel of pages that must be sent to their addresses.
    pub(super) fn new(budget: Budget) -> (Self, UnboundedReceiver<Id>) {
        let (departing, pages) = unbounded_channel();
        let (gate, ending): (Arc<Gate>, Arc<Ending>) = Default::default();
        let state = State::new(budget.clone(), Arc::clone(&gate), Arc::clone(&ending));
        let hub = Self {
            state: Mutex::new(state),
            ending,
            gate,
            budget,
            departing,
            wake: Notify::new(),
            heard: Mutex::new(Instant::now()),
            took: Mutex::new(Instant::now()),
            out_of_memory: OnceLock::new(),
        };
        (hub, pages)
    }

    /// Returns the handle to the end of the Chromium.
    pub(super) fn ending(&self) -> &Arc<Ending> {
        &self.ending
    }

    /// Returns the valve in front of what Chromium says.
    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Returns the bytes that may wait for clients.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Sets how to find out whether the kernel has killed Chromium; only the first call counts.
    pub(super) fn ask_at_death(&self, is_so: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.out_of_memory.set(OutOfMemory(Box::new(is_so)));
    }

    /// Returns why Chromium has closed the pipe.
    pub(super) fn cause_of_death(&self) -> EndReason {
        match self.out_of_memory.get() {
            Some(OutOfMemory(is_so)) if is_so() => EndReason::OutOfMemory,
            _ => EndReason::Crashed,
        }
    }

    /// Reads the state.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state. Once the lock is released, it wakes and answers those concerned, and
    /// wakes the writer if there is now something to write.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let write = state.has_output();
        let effects = state.take_effects();
        drop(state);
        effects.run(&self.departing);
        if write {
            self.wake.notify_one();
        }
        result
    }

    /// Sends something whose answer comes over a channel, and waits for the answer.
    pub(crate) async fn ask<T>(
        &self,
        send: impl FnOnce(&mut State, oneshot::Sender<T>),
    ) -> Result<T, CdpError> {
        let (reply, answer) = oneshot::channel();
        let gone = self.update(|state| {
            let gone = state.end_reason();
            if gone.is_none() {
                send(state, reply);
            }
            gone
        });
        if let Some(reason) = gone {
            return Err(CdpError::Ended(reason));
        }
        answer
            .await
            .map_err(|_| CdpError::Ended(self.ending.reason().unwrap_or(EndReason::Released)))
    }

    /// See [`Multiplexer::call`](super::Multiplexer::call).
    pub(super) async fn call(
        &self,
        session: Option<SessionId>,
        method: &str,
        params: &Value,
    ) -> Result<Value, CdpError> {
        let send = |state: &mut State, reply| state.call(session, method, params, reply);
        let result = self.ask(send).await??;
        serde_json::from_str(result.get())
            .map_err(|error| CdpError::unexpected(method, error.to_string()))
    }

    /// See [`Multiplexer::attach`](super::Multiplexer::attach).
    pub(super) async fn attach(self: &Arc<Self>, target: &str) -> Result<SessionId, CdpError> {
        const METHOD: &str = "Target.attachToTarget";
        let (hub, target) = (Arc::clone(self), target.to_owned());
        let attach = async move {
            hub.update(|state| state.expect_attach(&target));
            let params = json!({ "targetId": target, "flatten": true });
            let result = hub.call(None, METHOD, &params).await;
            // If it succeeds, the session was announced before the answer.
            if result.is_err() {
                hub.update(|state| state.forget_attach(&target));
            }
            let session = result?["sessionId"].as_str().and_then(SessionId::parse);
            session.ok_or_else(|| CdpError::unexpected(METHOD, "no sessionId"))
        };
        self.make(attach, |state, session| state.detach_own(*session)).await
    }

    /// Makes something in Chromium to the end, even if the caller gives up in the meantime. In that
    /// case it is undone afterwards: Chromium makes it whether or not anybody waits for the answer.
    pub(super) async fn make<T: Send + 'static>(
        self: &Arc<Self>,
        making: impl Future<Output = Result<T, CdpError>> + Send + 'static,
        undo: fn(&mut State, &T),
    ) -> Result<T, CdpError> {
        let hub = Arc::clone(self);
        let made = tokio::spawn(async move {
            let what = making.await?;
            Ok(Made { hub, what: Some(what), undo })
        });
        match made.await {
            Ok(made) => made.map(Made::keep),
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime is ending, and the pipe with it.
            Err(_) => Err(CdpError::Ended(EndReason::Closed)),
        }
    }

    /// Returns when Chromium was last heard.
    pub(super) fn last_heard(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when Chromium last took something that had to wait for it.
    pub(super) fn last_took(&self) -> Instant {
        *self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that Chromium has said something.
    pub(super) fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Notes that Chromium has taken something that had to wait for it.
    pub(super) fn take_notice(&self) {
        *self.took.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Moves output to `batch`, up to `limit` bytes. Returns the large frame that follows it, and
    /// `true` once the end has come.
    pub(super) fn take_batch(
        &self,
        batch: &mut Vec<u8>,
        limit: usize,
    ) -> (Option<LargeFrame>, bool) {
        let mut state = self.lock();
        let large = state.take_output(batch, limit);
        let is_over = state.end_reason().is_some();
        let effects = state.take_effects();
        drop(state);
        effects.run(&self.departing);
        (large, is_over)
    }

    /// Waits until there is something to write, or the end has come.
    pub(super) async fn work(&self) {
        self.wake.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent after every method; one that panicked has at most left a message
        // undone.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
