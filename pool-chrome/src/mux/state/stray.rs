//! Pages that nobody asked for.
//!
//! In `chromium` the keys that a client presses reach the window as well: Ctrl+N opens a page in
//! the real profile, Ctrl+T the new tab page, F12 the developer tools. What is in no lease is
//! closed, or it would stay for ever; what a shared lease may not be sent to is closed before its
//! client learns of it.

use serde_json::json;

use super::super::lease_options::LeaseKind;
use super::super::target::{Id, Info};
use super::{Reply, State};

/// The schemes of Chromium's own pages. Not `chrome-error`, which is where a page is that did not
/// load.
const OWN_SCHEMES: &[&str] = &["chrome", "chrome-untrusted", "chrome-search", "devtools"];

impl State {
    /// A context of the multiplexer's own, for a page of ours.
    pub(crate) fn adopt_context(&mut self, context: &str) {
        self.own_contexts.insert(context.into());
    }

    /// Whether a new target is a page in a context that is nobody's.
    pub(super) fn is_stray(&self, info: &Info) -> bool {
        let nobodys = |context: &Id| {
            !self.contexts.contains_key(context) && !self.own_contexts.contains(context)
        };
        matches!(&*info.kind, "page" | "other")
            && info.browser_context_id.as_ref().is_some_and(nobodys)
    }

    /// Bans a target that has come to show what its lease may not see. `true` if it is banned.
    pub(super) fn ban_if_forbidden(&mut self, id: &Id) -> bool {
        let Some(target) = self.targets.get(id) else { return false };
        if target.banned {
            return true;
        }
        let shared = self
            .lease_of(target)
            .and_then(|lease| self.leases.get(&lease))
            .is_some_and(|lease| lease.options.kind == LeaseKind::Shared);
        let scheme = target.info.url.split(':').next().unwrap_or_default();
        if !shared || !OWN_SCHEMES.contains(&scheme) {
            return false;
        }
        if let Some(target) = self.targets.get_mut(id) {
            target.banned = true;
        }
        self.close_stray(id);
        true
    }

    pub(super) fn close_stray(&mut self, target: &Id) {
        let params = json!({ "targetId": &**target });
        self.own_command(None, "Target.closeTarget", &params, Reply::Nothing);
    }
}
