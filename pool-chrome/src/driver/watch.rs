//! The watch over each Chromium: its death is noticed at once, and so is that it hangs.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::host::Host;
use crate::mux::{EndReason, Multiplexer};

/// Watches over a Chromium until it is gone. The task does not keep the host.
pub(super) fn watch(host: &Arc<Host>, hang_timeout: Duration) {
    let (weak, mux, exited) = (Arc::downgrade(host), host.mux.clone(), host.exited());
    tokio::spawn(async move {
        let why = tokio::select! {
            exit = exited => {
                mux.end(EndReason::Crashed);
                format!("the browser has ended: {exit}")
            }
            reason = mux.ended() => match reason {
                // Whoever closed it knows.
                EndReason::Closed => return,
                reason => reason.to_string(),
            },
            () = hung(&weak, &mux, hang_timeout) => {
                if let Some(host) = weak.upgrade() {
                    tracing::warn!(pid = host.pid, waited = ?hang_timeout, "a browser hangs and is killed");
                    host.kill(EndReason::Hung);
                }
                EndReason::Hung.to_string()
            }
        };
        if let Some(host) = weak.upgrade() {
            host.broken(&why);
        }
    });
}

/// How often an idle Chromium is asked. It costs some tenths of a millisecond.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// How long an idle one may be silent: nobody would miss it, and the next holder must not get it.
const IDLE_LIMIT: Duration = Duration::from_secs(3);

/// Returns when Chromium has neither answered nor said anything for the whole timeout.
///
/// One that is busy with a large answer keeps talking, and one that was stopped and goes on in
/// time is no case for us.
async fn hung(host: &Weak<Host>, mux: &Multiplexer, limit: Duration) {
    let params = json!({});
    loop {
        let leased = mux.has_clients();
        let pause = (limit / 8).clamp(Duration::from_millis(50), IDLE_PAUSE);
        sleep(if leased { pause } else { IDLE_PAUSE }).await;
        if host.strong_count() == 0 {
            // The last holder is gone: the process ends with it.
            std::future::pending::<()>().await;
        }
        let answer = mux.call(None, "Browser.getVersion", &params);
        tokio::pin!(answer);
        while timeout(pause, &mut answer).await.is_err() {
            if mux.is_held_back() {
                // Its answer may be there and is not read.
                continue;
            }
            let limit = if mux.has_clients() { limit } else { limit.min(IDLE_LIMIT) };
            if mux.last_heard().elapsed() >= limit {
                return;
            }
        }
    }
}
