use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::host::Host;
use crate::ChromeError;
use crate::egress::{Forwarder, Pass};
use crate::mux::DefaultContext;

/// The way out of one lease, or of one page of ours, in a Chromium that has none of its own.
///
/// It is closed until it is opened, and from its drop on. What is dropped before everything that
/// could use it is known to be gone keeps its port as long as the Chromium lives: nobody else may
/// be found there.
#[derive(Debug)]
pub(super) struct Gate {
    forwarder: Arc<Forwarder>,
    host: Weak<Host>,
    is_open: AtomicBool,
}

impl Gate {
    /// Makes a gate where the Chromium is guarded or proxied. A lease that has the Chromium's real
    /// default context has the Chromium's own forwarder.
    pub(super) async fn new(
        host: &Arc<Host>,
        context: DefaultContext,
    ) -> Result<Option<Self>, ChromeError> {
        let Some(own) = &host.forwarder else { return Ok(None) };
        let forwarder = match context {
            DefaultContext::Fresh => Arc::new(own.another().await?),
            DefaultContext::Real => Arc::clone(own),
        };
        let is_open = AtomicBool::new(false);
        Ok(Some(Self { forwarder, host: Arc::downgrade(host), is_open }))
    }

    /// Opens it; only the first time counts.
    pub(super) fn open(&self, pass: impl FnOnce() -> Pass) {
        if !self.is_open.swap(true, Ordering::Relaxed) {
            self.forwarder.open(pass());
        }
    }

    /// Closes it, and cuts what goes through it.
    pub(super) fn close(&self) {
        self.forwarder.close();
    }

    pub(super) fn proxy_server(&self) -> String {
        self.forwarder.proxy_server()
    }

    pub(super) fn forwarder(&self) -> &Arc<Forwarder> {
        &self.forwarder
    }

    /// Gives its port back: nothing is left that could ask there.
    pub(super) fn finish(mut self) {
        self.host = Weak::new();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.forwarder.close();
        if let Some(host) = self.host.upgrade() {
            host.keep(Arc::clone(&self.forwarder));
        }
    }
}
