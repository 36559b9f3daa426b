use std::sync::Arc;

use tokio::sync::watch;

/// Those who follow `/api/stream`: all get the same text, which is made once a second and only
/// while there is somebody.
#[derive(Debug)]
pub(super) struct Watchers(watch::Sender<Arc<str>>);

impl Default for Watchers {
    fn default() -> Self {
        Self(watch::Sender::new(Arc::from("")))
    }
}

impl Watchers {
    pub(super) fn publish(&self, text: impl FnOnce() -> Arc<str>) {
        if self.0.receiver_count() > 0 {
            self.0.send_replace(text());
        }
    }

    /// One more; one that reads too slowly skips what came meanwhile.
    pub(super) fn join(&self) -> watch::Receiver<Arc<str>> {
        self.0.subscribe()
    }
}
