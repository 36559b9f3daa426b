use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep};

use super::EndReason;
use super::budget::Budget;
use super::framing::{FrameReader, Taken};
use super::hub::Hub;
use super::state::{Census, LeaseId, State};
use super::target::{Id, SessionId};
use crate::cdp::CdpError;

/// Many clients over the one pipe of a Chromium. Clones share it.
///
/// It ends when Chromium closes the pipe, or by [`end`](Self::end); everything that depends on it
/// ends with the same [`EndReason`]. When the last clone and the last lease are dropped, the pipe
/// is closed, and Chromium then exits by itself.
#[derive(Clone, Debug)]
pub struct Multiplexer {
    hub: Arc<Hub>,
    /// Dropped with the last handle: ends the writer, which closes the pipe.
    _alive: Arc<Alive>,
}

#[derive(Debug)]
struct Alive(Arc<Hub>);

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
    /// [`CdpError`] if Chromium does not follow the protocol, or ends.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the pipe is closed, and Chromium then exits by itself.
    pub async fn start<R, W>(reader: R, writer: W) -> Result<Self, CdpError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        Self::start_within(Budget::default(), reader, writer).await
    }

    /// As [`start`](Self::start), with a budget that is shared with other Chromiums.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    ///
    /// # Cancel safety
    ///
    /// As with [`start`](Self::start).
    pub async fn start_within<R, W>(budget: Budget, reader: R, writer: W) -> Result<Self, CdpError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (hub, pages) = Hub::new(budget);
        let hub = Arc::new(hub);
        let mux = Self { hub: hub.clone(), _alive: Arc::new(Alive(hub.clone())) };
        tokio::spawn(send_off(Arc::downgrade(&hub), pages));
        tokio::spawn(write_frames(hub.clone(), writer));
        tokio::spawn(read_frames(hub, reader));
        mux.take_control().await?;
        Ok(mux)
    }

    async fn take_control(&self) -> Result<(), CdpError> {
        let discover = json!({ "discover": true, "filter": [{}] });
        let attach = json!({ "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true });
        // Clients' own settings come later and stay in force; this only lets us hear of all
        // downloads.
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
        self.hub.update(|state| state.set_real_context(real));
        Ok(())
    }

    /// Checks that this Chromium behaves as virtual browsers need it to, as far as that has been
    /// seen. The first warm page shows all of it.
    ///
    /// # Errors
    ///
    /// [`CdpError::Unsuited`], saying what is different.
    pub fn check_suited(&self) -> Result<(), CdpError> {
        self.hub.look(State::check_suited)
    }

    /// Returns `true` if [`check_suited`](Self::check_suited) rests on a page that was really made.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.hub.look(State::is_proven)
    }

    /// Sends a command of our own, on the root session or on a session of ours, and waits for its
    /// result. It is written before anything that clients have sent.
    ///
    /// # Errors
    ///
    /// [`CdpError::Refused`] with Chromium's error, [`CdpError::Ended`] if it is gone.
    ///
    /// # Cancel safety
    ///
    /// The command is sent at the first poll, and is not taken back: if this is dropped after that,
    /// Chromium carries it out, the results stay, and its answer is discarded.
    pub async fn call(
        &self,
        session: Option<SessionId>,
        method: &str,
        params: &Value,
    ) -> Result<Value, CdpError> {
        self.hub.call(session, method, params).await
    }

    /// Attaches to a target alongside everyone else, to look at it.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call); a target that is gone is refused.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the session is closed as soon as it is there.
    pub async fn attach(&self, target: &str) -> Result<SessionId, CdpError> {
        self.hub.attach(target).await
    }

    /// Attaches to a target as [`attach`](Self::attach) does, until the result is dropped.
    pub(crate) async fn look_at(&self, target: &str) -> Result<Look<'_>, CdpError> {
        Ok(Look { mux: self, session: self.attach(target).await? })
    }

    /// Detaches from a target that [`attach`](Self::attach) attached to, without waiting.
    pub fn detach(&self, session: SessionId) {
        self.hub.update(|state| state.detach_own(session));
    }

    /// Makes a context for pages of our own, behind a proxy or with the same way out as the
    /// Chromium's own requests.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the context is disposed of as soon as it is made.
    pub(crate) async fn own_context(&self, proxy: Option<&str>) -> Result<String, CdpError> {
        const METHOD: &str = "Target.createBrowserContext";
        let mut params = json!({ "disposeOnDetach": true });
        if let Some(proxy) = proxy {
            params["proxyServer"] = json!(proxy);
            params["proxyBypassList"] = json!("<-loopback>");
        }
        let hub = Arc::clone(&self.hub);
        let make = async move {
            let made = hub.call(None, METHOD, &params).await?;
            let context = made["browserContextId"].as_str();
            let context =
                context.ok_or_else(|| CdpError::unexpected(METHOD, "no browserContextId"))?;
            hub.update(|state| state.adopt_context(context));
            Ok(context.to_owned())
        };
        self.hub.make(make, |state, context| state.dispose_context_now(context)).await
    }

    /// Disposes of a context of our own, without waiting.
    pub(crate) fn dispose_context(&self, context: &str) {
        self.hub.update(|state| state.dispose_context_now(context));
    }

    /// Returns `true` if a lease has clients: connected now, or expected back.
    #[must_use]
    pub fn has_clients(&self) -> bool {
        self.hub.look(State::has_clients)
    }

    /// Returns the present contexts of Chromium, except its real default one.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing has changed.
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
        self.hub.look(State::census)
    }

    /// Returns when Chromium was last heard; any message counts.
    #[must_use]
    pub fn last_heard(&self) -> Instant {
        self.hub.last_heard()
    }

    /// Returns when bytes last moved: Chromium said something, or took something that had to wait
    /// for it.
    #[must_use]
    pub fn last_moved(&self) -> Instant {
        self.hub.last_took().max(self.last_heard())
    }

    /// Returns `true` if Chromium is not being read, since no client of its exclusive lease takes
    /// its messages. Its silence then means nothing.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        self.hub.gate().is_shut()
    }

    /// Sets how to find out, when Chromium closes the pipe, whether the kernel has killed it for
    /// lack of memory. Only the first call counts; without one, it counts as
    /// [crashed](EndReason::Crashed).
    pub fn ask_at_death(&self, is_out_of_memory: impl Fn() -> bool + Send + Sync + 'static) {
        self.hub.ask_at_death(is_out_of_memory);
    }

    /// Ends all leases and connections, for a Chromium that is about to be killed or closed.
    pub fn end(&self, reason: EndReason) {
        self.hub.update(|state| state.end_all(reason));
    }

    /// Waits until the Chromium is gone, and returns why.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing has changed.
    pub async fn ended(&self) -> EndReason {
        self.hub.ending().wait().await
    }

    /// Returns why the Chromium is gone, if it is.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.hub.ending().reason()
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(super) async fn browser_session(&self, lease: LeaseId) -> Result<SessionId, CdpError> {
        self.hub.ask(|state, reply| state.make_browser_session(lease, reply)).await?
    }
}

/// A session of ours on a target, which is closed when this is dropped: the caller may be gone
/// before the target answers.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    mux: &'a Multiplexer,
    session: SessionId,
}

impl Look<'_> {
    pub(crate) fn session(&self) -> SessionId {
        self.session
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.mux.detach(self.session);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contexts {
    browser_context_ids: Vec<String>,
    #[serde(default)]
    default_browser_context_id: Option<String>,
}

/// Number of bytes written to Chromium at once. Our own commands wait for at most this much and one
/// large frame.
const BATCH: usize = 64 * 1024;

/// Reads what Chromium writes until it ends. The lock is taken once for all frames of one read.
async fn read_frames<R: AsyncRead + Unpin>(hub: Arc<Hub>, reader: R) {
    let (ending, gate) = (hub.ending(), hub.gate());
    let mut frames = FrameReader::new(reader, hub.budget());
    loop {
        if gate.is_shut() {
            tracing::debug!("the clients of a browser read nothing: the browser is held back");
            tokio::select! {
                () = gate.opened() => {}
                _ = ending.wait() => return,
            }
            // It was not being read, so its silence means nothing.
            hub.hear();
        }
        tokio::select! {
            filled = frames.fill() => match filled {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "the pipe from Chromium broke");
                    break;
                }
            },
            _ = ending.wait() => return,
        }
        hub.hear();
        let mut next = frames.next_frame();
        if next.is_none() {
            continue;
        }
        hub.update(|state| {
            while let Some(taken) = next {
                match taken {
                    Taken::Frame(frame) => state.browser_message(frame),
                    Taken::End(end) => state.lost_message(&end),
                }
                next = frames.next_frame();
            }
        });
    }
    let reason = hub.cause_of_death();
    hub.update(|state| state.end_all(reason));
}

/// Writes bytes, and notes when some were taken that had to wait: as much as fits into the pipe is
/// accepted whether anybody reads or not.
async fn write<W: AsyncWrite + Unpin>(
    hub: &Hub,
    writer: &mut W,
    mut bytes: &[u8],
) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut waited = false;
        let written = poll_fn(|cx| {
            let written = Pin::new(&mut *writer).poll_write(cx, bytes);
            waited |= written.is_pending();
            written
        });
        let written = written.await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if waited {
            hub.take_notice();
        }
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Writes what is queued until the end, then closes the pipe.
async fn write_frames<W: AsyncWrite + Unpin>(hub: Arc<Hub>, mut writer: W) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let (large, is_over) = hub.take_batch(&mut batch, BATCH);
        if is_over {
            break;
        }
        if batch.is_empty() && large.is_none() {
            hub.work().await;
            continue;
        }
        let parts = large.as_ref().map_or([&[][..]; 3], |large| large.parts());
        let write = async {
            write(&hub, &mut writer, &batch).await?;
            for part in parts {
                write(&hub, &mut writer, part).await?;
            }
            writer.flush().await
        };
        // A Chromium that hangs does not read.
        let written: io::Result<()> = tokio::select! {
            written = write => written,
            _ = hub.ending().wait() => Ok(()),
        };
        if let Err(error) = written {
            // The reader also sees the end of the stream, after the last words of Chromium.
            tracing::debug!(%error, "the pipe to Chromium broke");
            break;
        }
        batch.clear();
        // A large batch must not keep its memory for ever.
        batch.shrink_to(BATCH);
    }
    let _ = writer.shutdown().await;
}

/// Pause between two looks at whether a page may go.
const LOOK: Duration = Duration::from_millis(10);

/// Number of looks without a further command after which its client is taken to have had its say.
const SAID: u32 = 3;

/// The same for a client that has sent none.
const SILENT: u32 = 20;

/// Number of looks after which the page goes at the latest.
const LONGEST: u32 = 100;

/// Attempts to make the history forget the empty page, which is refused while the page is
/// navigating: for five seconds, since on a busy machine the navigation is answered long before it
/// is shown.
const RESETS: usize = 500;

/// Sends pages to their addresses, each in its own time. It ends with the multiplexer's state.
async fn send_off(hub: Weak<Hub>, mut departing: UnboundedReceiver<Id>) {
    while let Some(page) = departing.recv().await {
        let Some(hub) = hub.upgrade() else { return };
        tokio::spawn(async move {
            // A page that is already gone goes nowhere.
            let Ok(session) = hub.attach(&page).await else { return };
            let _ = send(&hub, &page, session).await;
            hub.update(|state| {
                state.departed(&page, false);
                state.detach_own(session);
            });
        });
    }
}

async fn send(hub: &Hub, page: &Id, session: SessionId) -> Result<(), CdpError> {
    let commands = || hub.look(|state| state.commands_to(page));
    let nothing = json!({ "expression": "0" });
    let (mut seen, mut quiet) = (0, 0);
    for _ in 0..LONGEST {
        // Once it is answered, even with an error, everything that the client sent before has been
        // too.
        let _ = hub.call(Some(session), "Runtime.evaluate", &nothing).await;
        sleep(LOOK).await;
        let Some(now) = commands() else { return Ok(()) };
        quiet = if now == seen { quiet + 1 } else { 0 };
        seen = now;
        if quiet >= if seen > 0 { SAID } else { SILENT } {
            break;
        }
    }
    let tree = hub.call(Some(session), "Page.getFrameTree", &json!({})).await?;
    let loader = tree["frameTree"]["frame"]["loaderId"].as_str().unwrap_or_default();
    let address = hub.update(|state| state.leave_for_address(page, loader));
    let Some(address) = address else { return Ok(()) };
    let went = hub.call(Some(session), "Page.navigate", &json!({ "url": address })).await?;
    // Chromium answers like this if there is nothing to show: a download, or a 204.
    let stays = went["errorText"] == "net::ERR_ABORTED";
    hub.update(|state| state.departed(page, stays));
    for _ in 0..RESETS {
        // So that it looks as if it had been made with the address.
        let reset = hub.call(Some(session), "Page.resetNavigationHistory", &json!({})).await;
        if reset.is_ok() {
            break;
        }
        sleep(LOOK).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, Signal, kill_process};
    use tokio::time::timeout;

    use super::*;
    use crate::process::{Chromium, Engine, LaunchOptions, StateDir};

    /// Asks a Chromium, which is stopped meanwhile, for something that its caller gives up halfway.
    async fn give_up<T>(chromium: &Chromium, asked: impl Future<Output = T>) {
        let pid = chromium.pid().try_into().ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        assert!(
            timeout(Duration::from_millis(100), asked).await.is_err(),
            "it did not stand still"
        );
        kill_process(pid, Signal::CONT).unwrap();
    }

    /// Waits until only one of our contexts is left.
    async fn settled(mux: &Multiplexer) {
        let is_so = |census: Census| census.sessions == 0 && census.pending == 0;
        let look = async {
            while mux.context_ids().await.unwrap().len() != 1 || !is_so(mux.census()) {
                sleep(LOOK).await;
            }
        };
        let late = timeout(Duration::from_secs(10), look).await.is_err();
        assert!(!late, "{:?}, {:?}", mux.context_ids().await, mux.census());
    }

    #[tokio::test]
    async fn what_was_asked_for_by_a_caller_that_gave_up_goes_again() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path().join("s")).unwrap();
        for engine in [Engine::Shell, Engine::Chromium] {
            let options = LaunchOptions::new().engine(engine);
            let (chromium, pipe) = Chromium::launch(options, &state).await.unwrap();
            let mux = Multiplexer::start(pipe.reader, pipe.writer).await.unwrap();
            let context = mux.own_context(None).await.unwrap();
            let params = json!({ "url": "about:blank", "browserContextId": context });
            let made = mux.call(None, "Target.createTarget", &params).await.unwrap();
            let target = made["targetId"].as_str().unwrap();
            // The session that was attached automatically is closed as soon as the page has been
            // resumed.
            settled(&mux).await;

            give_up(&chromium, mux.attach(target)).await;
            give_up(&chromium, mux.own_context(None)).await;
            // Answers come in order: once this one is here, both were made.
            mux.call(None, "Browser.getVersion", &json!({})).await.unwrap();
            settled(&mux).await;
            chromium.close(Duration::from_secs(5)).await;
        }
    }
}
