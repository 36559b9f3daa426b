//! Windows: only those that a lease has learned of by one of its own targets.

use serde_json::{Map, Value};

use super::{LeaseId, State};

impl State {
    /// Whether a command names a window of the lease.
    pub(super) fn is_own_window(&self, lease: LeaseId, params: &Map<String, Value>) -> bool {
        let window = params.get("windowId").and_then(Value::as_i64);
        let lease = self.leases.get(&lease);
        window.zip(lease).is_some_and(|(window, lease)| lease.windows.contains(&window))
    }
}
