use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::budget::Budget;
use super::lease::MuxLease;
use super::outbox::LargeFrame;
use super::pipe::{read_frames, write_frames};
use super::session_id::SessionId;
use super::state::{LeaseId, Reply, State};
use super::target::Id;
use super::{EndReason, LeaseKind, LeaseOptions, departures};
use crate::cdp::CdpError;

/// Many clients over the one pipe of a Chromium. Clones share it.
///
/// It ends when Chromium closes the pipe, or by [`end`](Self::end); everything that hangs on it
/// ends with the same [`EndReason`]. When the last clone and the last lease are dropped, the pipe is
/// closed, at which Chromium exits by itself.
#[derive(Clone, Debug)]
pub struct Multiplexer {
    shared: Arc<Shared>,
    /// Dropped with the last handle: ends the writer, which closes the pipe.
    _alive: Arc<Alive>,
}

/// Number of things a [`Multiplexer`] holds, for metrics and to find leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Leases that have not ended.
    pub leases: usize,
    /// Connections of clients.
    pub connections: usize,
    /// Browser contexts of leases.
    pub contexts: usize,
    /// Targets of all kinds, the browser's own included.
    pub targets: usize,
    /// Sessions, our own included.
    pub sessions: usize,
    /// Commands of our own that are not answered yet.
    pub pending: usize,
}

/// State shared by the handles and the two tasks.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    wake: Notify,
    /// When Chromium was last heard.
    heard: Mutex<Instant>,
    /// When Chromium last took something that had to wait for it.
    took: Mutex<Instant>,
    /// Asked when the pipe closes.
    out_of_memory: OnceLock<OutOfMemory>,
}

/// Tells whether the kernel has ended a Chromium for want of memory.
struct OutOfMemory(Box<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutOfMemory")
    }
}

#[derive(Debug)]
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.update(|state| state.end_all(EndReason::Closed));
    }
}

impl Multiplexer {
    /// Takes over the pipe of a Chromium and sets up the control session.
    ///
    /// # Errors
    ///
    /// [`CdpError`] if Chromium does not answer as the protocol has it, or ends.
    pub async fn start<R, W>(reader: R, writer: W) -> Result<Self, CdpError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        Self::start_within(Budget::default(), reader, writer).await
    }

    /// As [`start`](Self::start), with a budget for what waits that other Chromiums have a part in.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_within<R, W>(budget: Budget, reader: R, writer: W) -> Result<Self, CdpError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let mut state = State::new(budget);
        let pages = state.departing();
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Notify::new(),
            heard: Mutex::new(Instant::now()),
            took: Mutex::new(Instant::now()),
            out_of_memory: OnceLock::new(),
        });
        let mux = Self { shared: shared.clone(), _alive: Arc::new(Alive(shared.clone())) };
        if let Some(pages) = pages {
            tokio::spawn(departures::send_off(Arc::downgrade(&shared), pages));
        }
        tokio::spawn(write_frames(shared.clone(), writer));
        tokio::spawn(read_frames(shared, reader));
        mux.take_control().await?;
        Ok(mux)
    }

    async fn take_control(&self) -> Result<(), CdpError> {
        let discover = json!({ "discover": true, "filter": [{}] });
        let attach = json!({ "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true });
        // Clients' own settings come later and stay; this only makes us hear of all downloads.
        let downloads = json!({ "behavior": "default", "eventsEnabled": true });
        let (discovered, attached, told, contexts) = tokio::join!(
            self.call(None, "Target.setDiscoverTargets", &discover),
            self.call(None, "Target.setAutoAttach", &attach),
            self.call(None, "Browser.setDownloadBehavior", &downloads),
            self.contexts(),
        );
        discovered?;
        attached?;
        told?;
        let real: Option<Id> = contexts?.default_browser_context_id.map(Into::into);
        self.shared.update(|state| state.real_context = real);
        Ok(())
    }

    /// Opens a lease: a default context and, if wanted, a page made ahead.
    ///
    /// # Errors
    ///
    /// [`CdpError::Unsuited`] for a shared lease in a Chromium that does not behave as virtual
    /// browsers need it; else whatever went wrong with the commands.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing of the lease stays.
    pub async fn open_lease(&self, options: LeaseOptions) -> Result<MuxLease, CdpError> {
        let (kind, warm_page) = (options.kind, options.warm_page);
        let (id, over) = self.shared.update(|state| state.new_lease(options));
        let lease = MuxLease::new(self.clone(), id, over);
        let base = self.browser_session(id).await?;
        let (made, spare) = tokio::join!(
            self.shared.ask(|state, reply| state.make_default_context(id, base, reply)),
            self.browser_session(id),
        );
        made??;
        let spare = spare?;
        self.shared.update(|state| match state.leases.get_mut(&id) {
            Some(lease) => lease.spare = Some(spare),
            None => state.detach_own(spare),
        });
        if warm_page {
            lease.warm_up().await?;
        }
        if kind == LeaseKind::Shared {
            self.check_suited()?;
        }
        Ok(lease)
    }

    /// Returns `true` if this Chromium behaves as virtual browsers need it, as far as it has shown it. The
    /// first warm page shows all of it.
    ///
    /// # Errors
    ///
    /// [`CdpError::Unsuited`], saying what is different.
    pub fn check_suited(&self) -> Result<(), CdpError> {
        self.shared.look(|state| state.assumptions.check())
    }

    /// Returns `true` if [`check_suited`](Self::check_suited) rests on a page that was really made.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.shared.look(|state| state.assumptions.is_proven())
    }

    /// Sends a command of our own, on the root session or on a session of ours, and awaits its
    /// result. It is written before what clients have sent.
    ///
    /// # Errors
    ///
    /// [`CdpError::Refused`] with Chromium's error, [`CdpError::Ended`] if it is gone.
    pub async fn call(
        &self,
        session: Option<SessionId>,
        method: &str,
        params: &Value,
    ) -> Result<Value, CdpError> {
        self.shared.call(session, method, params).await
    }

    /// Attaches to a target beside whoever else is attached, for a look at it.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call); a target that is gone is refused.
    pub async fn attach(&self, target: &str) -> Result<SessionId, CdpError> {
        self.shared.attach(target).await
    }

    /// Leaves a target that [`attach`](Self::attach) attached to, without waiting.
    pub fn detach(&self, session: SessionId) {
        self.shared.update(|state| state.detach_own(session));
    }

    /// Makes a context for pages of our own, behind a proxy or where the Chromium's own requests
    /// go.
    pub(crate) async fn own_context(&self, proxy: Option<&str>) -> Result<String, CdpError> {
        const METHOD: &str = "Target.createBrowserContext";
        let mut params = json!({ "disposeOnDetach": true });
        if let Some(proxy) = proxy {
            params["proxyServer"] = json!(proxy);
            params["proxyBypassList"] = json!("<-loopback>");
        }
        let made = self.call(None, METHOD, &params).await?;
        let context = made["browserContextId"].as_str();
        let context = context.ok_or_else(|| CdpError::unexpected(METHOD, "no browserContextId"))?;
        self.shared.update(|state| state.adopt_context(context));
        Ok(context.to_owned())
    }

    /// Disposes a context of our own, without waiting.
    pub(crate) fn dispose_context(&self, context: &str) {
        self.shared.update(|state| state.dispose_context_now(context));
    }

    /// Returns `true` if a lease has clients: connected now, or expected back.
    #[must_use]
    pub fn has_clients(&self) -> bool {
        self.shared.look(State::has_clients)
    }

    /// The contexts that Chromium has at this moment, but for its real default one.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn context_ids(&self) -> Result<Vec<String>, CdpError> {
        Ok(self.contexts().await?.browser_context_ids)
    }

    async fn contexts(&self) -> Result<Contexts, CdpError> {
        const METHOD: &str = "Target.getBrowserContexts";
        let result = self.call(None, METHOD, &json!({})).await?;
        serde_json::from_value(result)
            .map_err(|error| CdpError::unexpected(METHOD, error.to_string()))
    }

    /// Returns how much the registry holds.
    #[must_use]
    pub fn census(&self) -> Census {
        self.shared.look(State::census)
    }

    /// When Chromium was last heard: any message counts.
    #[must_use]
    pub fn last_heard(&self) -> Instant {
        *self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When bytes last moved: Chromium said something, or took what had to wait for it.
    #[must_use]
    pub fn last_moved(&self) -> Instant {
        let took = *self.shared.took.lock().unwrap_or_else(PoisonError::into_inner);
        took.max(self.last_heard())
    }

    /// Returns `true` if Chromium is not listened to, since no client of its exclusive lease takes what it
    /// says. Its silence then says nothing.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        self.shared.look(|state| state.gate.is_shut())
    }

    /// Sets how to find out, when Chromium closes the pipe, that the kernel has ended it for want of
    /// memory. Only the first call counts; without one it has [crashed](EndReason::Crashed).
    pub fn ask_at_death(&self, is_out_of_memory: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.shared.out_of_memory.set(OutOfMemory(Box::new(is_out_of_memory)));
    }

    /// Ends all leases and connections, for a Chromium that is about to be killed or closed.
    pub fn end(&self, reason: EndReason) {
        self.shared.update(|state| state.end_all(reason));
    }

    /// Waits until the Chromium is gone, and says why.
    pub async fn ended(&self) -> EndReason {
        let mut ended = self.shared.look(|state| state.ended.subscribe());
        let reason = ended.wait_for(Option::is_some).await.map(|reason| *reason);
        reason.ok().flatten().unwrap_or(EndReason::Closed)
    }

    /// Returns why the Chromium is gone, if it is.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.shared.look(State::end_reason)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) async fn browser_session(&self, lease: LeaseId) -> Result<SessionId, CdpError> {
        self.shared.ask(|state, reply| state.make_browser_session(lease, reply)).await?
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contexts {
    browser_context_ids: Vec<String>,
    #[serde(default)]
    default_browser_context_id: Option<String>,
}

impl Shared {
    /// Returns why Chromium has closed the pipe.
    pub(super) fn cause_of_death(&self) -> EndReason {
        match self.out_of_memory.get() {
            Some(OutOfMemory(is_so)) if is_so() => EndReason::OutOfMemory,
            _ => EndReason::Crashed,
        }
    }

    /// Looks at the state.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state, and wakes the writer if there is something to write by now.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let write = !state.outbox.is_empty() || state.end_reason().is_some();
        drop(state);
        if write {
            self.wake.notify_one();
        }
        result
    }

    /// Sends something whose answer comes by a channel, and awaits that.
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
        answer.await.map_err(|_| {
            CdpError::Ended(self.look(State::end_reason).unwrap_or(EndReason::Released))
        })
    }

    /// See [`Multiplexer::call`].
    pub(super) async fn call(
        &self,
        session: Option<SessionId>,
        method: &str,
        params: &Value,
    ) -> Result<Value, CdpError> {
        let send =
            |state: &mut State, reply| state.call(session, method, params, Reply::Call(reply));
        let result = self.ask(send).await??;
        serde_json::from_str(result.get())
            .map_err(|error| CdpError::unexpected(method, error.to_string()))
    }

    /// See [`Multiplexer::attach`].
    pub(super) async fn attach(&self, target: &str) -> Result<SessionId, CdpError> {
        const METHOD: &str = "Target.attachToTarget";
        self.update(|state| state.expect_attach(target));
        let params = json!({ "targetId": target, "flatten": true });
        let result = self.call(None, METHOD, &params).await;
        // One that succeeded was told of before it was answered.
        if result.is_err() {
            self.update(|state| state.forget_attach(target));
        }
        let session = result?["sessionId"].as_str().and_then(SessionId::parse);
        session.ok_or_else(|| CdpError::unexpected(METHOD, "no sessionId"))
    }

    /// Chromium has said something.
    pub(super) fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Chromium has taken something that had to wait for it.
    pub(super) fn take_notice(&self) {
        *self.took.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Moves what is to be written to `batch`, up to `limit` bytes, and a large frame behind it.
    /// Whether the end has come.
    pub(super) fn take_batch(
        &self,
        batch: &mut Vec<u8>,
        limit: usize,
    ) -> (Option<LargeFrame>, bool) {
        let mut state = self.lock();
        let large = state.outbox.take(batch, limit);
        (large, state.end_reason().is_some())
    }

    /// Waits until there is something to write, or the end has come.
    pub(super) async fn work(&self) {
        self.wake.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every method; one that panicked has left a message undone.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
