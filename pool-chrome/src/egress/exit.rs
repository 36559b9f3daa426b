//! The way out of a browser, and the permission to use it.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::dial::{Io, Meter, Metered, open};
use super::guard::Direct;
use super::rules::Failure;
use super::target::Target;
use super::upstream::Upstream;
use super::{Guard, Pattern, ProxyError, Refusal};

/// Number of different refusals of a lease that are logged; a page can ask for anything, any number
/// of times.
const LOGGED: usize = 100;

/// The way out of a browser, through a proxy or directly, as far as its guard allows, with counts
/// of its use.
#[derive(Debug)]
pub(super) struct Exit {
    pub(super) guard: Arc<Guard>,
    pub(super) upstream: Option<Upstream>,
    pub(super) meter: Arc<Meter>,
    last_error: Mutex<Option<ProxyError>>,
}

impl Exit {
    pub(super) fn new(guard: Arc<Guard>, upstream: Option<Upstream>) -> Self {
        Self { guard, upstream, meter: Arc::default(), last_error: Mutex::default() }
    }

    /// Connects to a target, by either way, if that is allowed.
    pub(super) async fn open(&self, target: &Target, pass: &Pass) -> Result<Box<dyn Io>, Failure> {
        match &self.upstream {
            None => {
                let Direct { stream, mark } = self.guard.connect(target, pass.allowed()).await?;
                Ok(Box::new(Metered::new(stream, Arc::clone(&self.meter)).marked(mark)))
            }
            Some(upstream) => {
                self.guard.admit(target, pass.allowed())?;
                Ok(open(upstream, &self.meter, target).await?)
            }
        }
    }

    pub(super) fn worked(&self) {
        if self.upstream.is_some() {
            *self.lock() = None;
        }
    }

    pub(super) fn failed(&self, error: ProxyError) {
        let mut last = self.lock();
        let news = last.as_ref().is_none_or(|last| !last.blames_proxy());
        // Once per outage, since a page makes hundreds of requests.
        if news && error.blames_proxy() {
            tracing::warn!(%error, "an egress proxy does not work");
        }
        *last = Some(error);
    }

    pub(super) fn last_error(&self) -> Option<ProxyError> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<ProxyError>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Permission for an open forwarder: everything that the rules of its guard allow, or less.
#[derive(Default)]
pub struct Pass {
    domains: Option<Vec<Pattern>>,
    holder: Option<String>,
    logged: Mutex<HashSet<(Target, Refusal)>>,
}

impl Pass {
    /// Allows whatever the rules allow.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows nothing but these domains.
    #[must_use]
    pub fn domains(mut self, domains: impl Into<Option<Vec<Pattern>>>) -> Self {
        self.domains = domains.into();
        self
    }

    /// Names the holder in the log.
    #[must_use]
    pub fn holder(mut self, holder: impl Into<Option<String>>) -> Self {
        self.holder = holder.into();
        self
    }

    pub(super) fn allowed(&self) -> Option<&[Pattern]> {
        self.domains.as_deref()
    }

    /// Logs a refusal, unless it has been logged already.
    pub(super) fn log(&self, target: &Target, refusal: Refusal) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= LOGGED || !logged.insert((target.clone(), refusal)) {
            return;
        }
        let last = logged.len() == LOGGED;
        drop(logged);
        let lease = self.holder.as_deref();
        tracing::info!(lease, %target, rule = refusal.code(), "egress refused: {refusal}");
        if last {
            tracing::info!(lease, "further refusals of this lease are only counted");
        }
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("domains", &self.domains).finish_non_exhaustive()
    }
}
