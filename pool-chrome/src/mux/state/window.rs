//! Windows: only those that a lease has learned of by one of its own targets.

use serde_json::{Map, Value};

use super::client::Request;
use super::command::{Params, SERVER_ERROR};
use super::{LeaseId, State, Watch};

impl State {
    /// Returns `true` if a command names a window of the lease.
    pub(super) fn is_own_window(&self, lease: LeaseId, params: &Map<String, Value>) -> bool {
        let window = params.get("windowId").and_then(Value::as_i64);
        let lease = self.leases.get(&lease);
        window.zip(lease).is_some_and(|(window, lease)| lease.windows.contains(&window))
    }

    pub(super) fn window_of_target(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        // Without a target it is the session's own. On a browser session the headless shell dies
        // of a target that it does not know.
        let named = params.get("targetId").and_then(Value::as_str);
        if named.is_some_and(|named| !self.is_own_page(request, named)) {
            return self.refuse(request, SERVER_ERROR, "No target with given id");
        }
        self.send_watched(request, Some(&params), Watch::Window);
    }

    pub(super) fn is_own_page(&self, request: &Request<'_>, target: &str) -> bool {
        let page = self.targets.get(target);
        page.is_some_and(|target| target.info.kind == "page" && !target.invented)
            && self.is_own_target(request.connection, target)
    }
}
