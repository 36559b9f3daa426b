//! Notifications to systemd, if it has started this process (`Type=notify`).

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::time::interval;

use crate::gateway::Gateway;

/// Tells the state of the service.
pub(crate) fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the supervisor could not be told");
    }
}

/// Tells, as often as `WatchdogSec=` wants it, that the pool still answers.
pub(crate) async fn watch(gateway: Arc<Gateway>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = interval(patience / 2);
    loop {
        ticks.tick().await;
        // Takes the pool's lock: if that is never had again, nothing is told, and systemd acts.
        let _ = gateway.fleet().load();
        tell(&[NotifyState::Watchdog]);
    }
}
