use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::budget::Expected;
use super::connection::Connection;
use super::end::Ending;
use super::link::Link;
use super::multiplexer::Multiplexer;
use super::state::{LeaseId, Remains, State};
use super::target::Id;
use super::{EndReason, HolderCommands, LeaseKind, LeaseOptions, LeaseTerms};
use crate::cdp::CdpError;

/// Maximum time that the parts of a lease may take to be gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// Maximum time that a worker may take to answer; a live one would have gone already.
const GHOST: Duration = Duration::from_millis(100);

/// A virtual browser: one holder's part of a Chromium, until it ends.
///
/// Dropping it ends it in the background, unchecked; [`end`](Self::end) waits and checks.
#[derive(Debug)]
pub struct MuxLease {
    mux: Multiplexer,
    id: LeaseId,
    kind: LeaseKind,
    /// Outlives the lease's entry in the registry, so that its holder can learn the reason at any
    /// time.
    over: Arc<Ending>,
    /// The pages and sessions that must be gone before a closed lease is gone.
    remains: OnceLock<Remains>,
}

/// A target of a lease, as its holder's overview shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseTarget {
    /// Its id.
    pub id: String,
    /// `page`, `iframe`, `worker`, `service_worker` or another word of the protocol's.
    pub kind: String,
    /// Its title, which a page chooses.
    pub title: String,
    /// Its address.
    pub url: String,
}

impl Multiplexer {
    /// Opens a lease: a default context and, if wanted, a page made ahead.
    ///
    /// # Errors
    ///
    /// [`CdpError::Unsuited`] for a shared lease in a Chromium that does not behave as virtual
    /// browsers need it to; otherwise any error of the commands.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing of the lease stays.
    pub async fn open_lease(&self, options: LeaseOptions) -> Result<MuxLease, CdpError> {
        let (kind, warm_page) = (options.kind, options.warm_page);
        let (id, over) = self.hub().update(|state| state.new_lease(options));
        let lease = MuxLease::new(self.clone(), id, kind, over);
        let base = self.browser_session(id).await?;
        let (made, spare) = tokio::join!(
            self.hub().ask(|state, reply| state.make_default_context(id, base, reply)),
            self.browser_session(id),
        );
        made??;
        let spare = spare?;
        self.hub().update(|state| state.set_spare(id, spare));
        if warm_page {
            lease.warm_up().await?;
        }
        if kind == LeaseKind::Shared {
            self.check_suited()?;
        }
        Ok(lease)
    }
}

impl MuxLease {
    fn new(mux: Multiplexer, id: LeaseId, kind: LeaseKind, over: Arc<Ending>) -> Self {
        Self { mux, id, kind, over, remains: OnceLock::new() }
    }

    /// Sets the terms of the lease, before its first connection. Only the first call counts;
    /// [`connect`](Self::connect) sets the default ones if nobody has.
    ///
    /// # Errors
    ///
    /// The error that kept the first page from being made, if it was not made ahead.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the terms apply all the same, and the first page is still made.
    pub async fn begin(&self, terms: &LeaseTerms) -> Result<(), CdpError> {
        if self.mux.hub().update(|state| state.begin_lease(self.id, terms)) {
            self.warm_up().await?;
        }
        Ok(())
    }

    /// Opens a connection for a client. There may be several, at once or one after another: each
    /// has sessions, discovery and auto-attach of its own, and they share the default context.
    ///
    /// # Errors
    ///
    /// [`CdpError::Ended`] if the lease is over.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, there is no connection. The lease has begun all the same, and a
    /// browser session that was being made for the connection ends with the lease.
    pub async fn connect(&self) -> Result<Connection, CdpError> {
        self.open(None).await
    }

    /// Opens a connection for a client; commands that no Chromium has, such as
    /// `Browserless.reconnect`, are answered by the caller. See [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// As with [`connect`](Self::connect).
    pub async fn connect_with(
        &self,
        commands: Arc<dyn HolderCommands>,
    ) -> Result<Connection, CdpError> {
        self.open(Some(commands)).await
    }

    /// Opens a connection whose root is a page of the lease rather than the browser, as with the
    /// sockets at `/devtools/page/` of a Chromium: commands without a session go to the page.
    /// Without a name, it is the first page of the lease, or a new one if there is none. When the
    /// page is closed, the connection ends with [`EndReason::PageClosed`].
    ///
    /// # Errors
    ///
    /// [`CdpError::Unexpected`] if the lease has no such page, [`CdpError::Ended`] if it is over.
    ///
    /// # Cancel safety
    ///
    /// As with [`connect`](Self::connect). A page that is being made for it stays in the lease.
    pub async fn connect_page(
        &self,
        page: Option<&str>,
        commands: Option<Arc<dyn HolderCommands>>,
    ) -> Result<Connection, CdpError> {
        const METHOD: &str = "Target.createTarget";
        let connection = self.open(commands).await?;
        let (hub, id) = (self.mux.hub(), connection.id());
        let first = page.map(Into::into).or_else(|| hub.look(|state| state.first_page(id)));
        let page: Id = match first {
            Some(page) => page,
            None => {
                let made = hub.ask(|state, reply| state.make_page(id, reply)).await??;
                let made: serde_json::Value = serde_json::from_str(made.get()).unwrap_or_default();
                let made = made["targetId"].as_str();
                made.ok_or_else(|| CdpError::unexpected(METHOD, "no targetId"))?.into()
            }
        };
        hub.ask(|state, reply| state.bind_page(id, &page, reply)).await??;
        Ok(connection)
    }

    async fn open(
        &self,
        commands: Option<Arc<dyn HolderCommands>>,
    ) -> Result<Connection, CdpError> {
        let hub = self.mux.hub();
        if let Some(reason) = self.end_reason() {
            return Err(CdpError::Ended(reason));
        }
        self.begin(&LeaseTerms::default()).await?;
        let over = || CdpError::Ended(self.end_reason().unwrap_or(EndReason::Released));
        // Until the connection is there, answers to requests for it must be read.
        let _expected = Expected::new(hub.gate());
        let spare = hub.update(|state| state.take_spare(self.id)).ok_or_else(over)?;
        let root = match spare {
            Some(spare) => spare,
            None => self.mux.browser_session(self.id).await?,
        };
        let link = Link::new(hub.gate(), hub.budget());
        let open =
            |state: &mut State| state.open_connection(self.id, root, Arc::clone(&link), commands);
        let id = hub.update(open).ok_or_else(over)?;
        Ok(Connection::new(Arc::clone(hub), id, link))
    }

    /// Makes the warm page, if there is none and no client has used the lease yet.
    ///
    /// # Errors
    ///
    /// The error that kept the page from being made.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the page is made all the same.
    pub async fn warm_up(&self) -> Result<(), CdpError> {
        self.mux.hub().ask(|state, reply| state.make_warm_page(self.id, reply)).await?
    }

    /// Asks the warm page, if there is one, whether it is there. That changes nothing about it:
    /// even a page that is paused before its first script can add numbers.
    pub(crate) async fn probe_warm_page(&self) -> Result<(), CdpError> {
        let warm = self.mux.hub().look(|state| state.warm_session(self.id));
        let Some(session) = warm else { return Ok(()) };
        let params = json!({ "expression": "6*7" });
        let answer = self.mux.call(Some(session), "Runtime.evaluate", &params).await?;
        if answer["result"]["value"] == json!(42) {
            Ok(())
        } else {
            Err(CdpError::unexpected("Runtime.evaluate", format!("6*7 is {answer}")))
        }
    }

    /// Ends the lease: its connections close, everything of it is removed, and that is checked.
    ///
    /// # Errors
    ///
    /// [`CdpError::Leftover`] if something stayed; then this Chromium must not be used again.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, everything of the lease is removed all the same, unchecked.
    pub async fn end(&self) -> Result<(), CdpError> {
        self.end_with(EndReason::Released).await
    }

    /// Ends the lease for a reason given by the caller. See [`end`](Self::end).
    ///
    /// # Errors
    ///
    /// As [`end`](Self::end).
    ///
    /// # Cancel safety
    ///
    /// As with [`end`](Self::end).
    pub async fn end_with(&self, reason: EndReason) -> Result<(), CdpError> {
        let remains = self.close(reason);
        if let Some(gone) = self.mux.end_reason() {
            return Err(CdpError::Ended(gone));
        }
        let gone_by = Instant::now() + PATIENCE;
        loop {
            let contexts = self.mux.context_ids().await?;
            self.forget_ghosts(&contexts).await;
            let Some(left) = self.leftover(remains, &contexts) else { break };
            if Instant::now() >= gone_by {
                return Err(CdpError::Leftover(left));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if remains.screens {
            self.remove_screens().await?;
        }
        Ok(())
    }

    /// Returns anything of the lease that is still there. Both engines dispose of a session's
    /// contexts before they answer that it is detached, and answers come in order: so nothing is
    /// left at the first look unless something is wrong or slow.
    fn leftover(&self, remains: &Remains, contexts: &[String]) -> Option<String> {
        let is_its = |id: &&String| remains.contexts.iter().any(|own| **own == ***id);
        if let Some(context) = contexts.iter().find(is_its) {
            return Some(format!("the context {context}"));
        }
        let targets = self.mux.hub().look(|state| state.left_of(remains));
        targets.first().map(|target| format!("the target {target}"))
    }

    /// Forgets the workers that Chromium still lists in contexts that it no longer lists.
    ///
    /// A worker that is paused for the debugger when its context goes (such as one that was
    /// registered a moment ago) never starts: it has no process, answers nothing, and can be
    /// neither resumed nor closed. A running one goes with its context, whatever it does, before
    /// the answer that the context is gone. So a worker that does not answer is nothing but an
    /// entry in a list.
    async fn forget_ghosts(&self, contexts: &[String]) {
        let workers = self.mux.hub().look(|state| state.workers_outside(contexts));
        let looks = workers.into_iter().map(async |worker| {
            let look = async {
                let look = self.mux.look_at(&worker).await?;
                let params = json!({ "expression": "1" });
                self.mux.call(Some(look.session()), "Runtime.evaluate", &params).await
            };
            if tokio::time::timeout(GHOST, look).await.is_err() {
                tracing::debug!(%worker, "a worker that never began is left in a list");
                self.mux.hub().update(|state| state.forget_ghost(&worker));
            }
        });
        futures_util::future::join_all(looks).await;
    }

    /// Closes the lease, unless it is closed already. What the first call found is what must be
    /// gone.
    fn close(&self, reason: EndReason) -> &Remains {
        self.remains.get_or_init(|| {
            self.mux.hub().update(|state| {
                let remains = state.close_lease(self.id, reason);
                state.dispose(&remains);
                remains
            })
        })
    }

    /// Removes the screens that an exclusive lease has added, since they belong to the whole
    /// Chromium.
    async fn remove_screens(&self) -> Result<(), CdpError> {
        let infos = self.mux.call(None, "Emulation.getScreenInfos", &json!({})).await?;
        let screens = infos["screenInfos"].as_array().cloned().unwrap_or_default();
        for screen in screens.iter().filter(|screen| screen["isPrimary"] != json!(true)) {
            let params = json!({ "screenId": screen["id"] });
            self.mux.call(None, "Emulation.removeScreen", &params).await?;
        }
        Ok(())
    }

    /// Closes the lease's connections for a reason given by the caller; after that it can only be
    /// ended.
    pub fn revoke(&self, reason: EndReason) {
        self.close(reason);
    }

    /// Waits until the lease is over, and returns why: its client sent `Browser.close`, it was
    /// ended, or its Chromium is gone.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing has changed.
    pub async fn ended(&self) -> EndReason {
        self.over.wait().await
    }

    /// Returns why the lease is over, if it is.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.over.reason()
    }

    /// Returns the kind of the lease: with others in its Chromium, or alone.
    #[must_use]
    pub fn kind(&self) -> LeaseKind {
        self.kind
    }

    /// Returns `true` if a client used a command whose effects outlive the lease, so that this
    /// Chromium must not be used for another one.
    #[must_use]
    pub fn is_tainted(&self) -> bool {
        self.mux.hub().look(|state| state.is_tainted(self.id))
    }

    /// Returns `true` if one of the lease's renderers has died.
    #[must_use]
    pub fn has_crashed_page(&self) -> bool {
        self.mux.hub().look(|state| state.has_crashed_page(self.id))
    }

    /// Returns `true` if it has something to do for its clients: a command that has not been
    /// answered, or a download that has not ended. A client that is silent is then waiting.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.mux.hub().look(|state| state.is_busy(self.id))
    }

    /// Returns the open targets of the lease, for an overview. None of them is disturbed.
    #[must_use]
    pub fn targets(&self) -> Vec<LeaseTarget> {
        self.mux.hub().look(|state| {
            state
                .shown_targets(self.id)
                .map(|target| LeaseTarget {
                    id: target.info.target_id.to_string(),
                    kind: target.info.kind.clone(),
                    title: target.info.title.clone(),
                    url: target.info.url.clone(),
                })
                .collect()
        })
    }

    /// Returns the multiplexer that the lease belongs to.
    #[must_use]
    pub fn multiplexer(&self) -> &Multiplexer {
        &self.mux
    }
}

impl Drop for MuxLease {
    fn drop(&mut self) {
        self.close(EndReason::Released);
    }
}
