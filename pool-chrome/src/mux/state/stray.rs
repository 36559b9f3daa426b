//! Pages that nobody asked for.
//!
//! In `chromium` the keys that a client presses reach the window as well: Ctrl+N opens a page in
//! the real profile, Ctrl+T the new tab page, F12 the developer tools. What is in no lease is
//! closed, or it would stay for ever; what a shared lease may not be sent to is closed before its
//! client learns of it.

use serde_json::json;

use super::super::lease_options::LeaseKind;
use super::super::session_id::SessionId;
use super::super::target::{Id, Info};
use super::{Lease, Owner, Reply, Session, State};

/// The schemes of Chromium's own pages. Not `chrome-error`, which is where a page is that did not
/// load.
const OWN_SCHEMES: &[&str] = &["chrome", "chrome-untrusted", "chrome-search", "devtools"];

/// The schemes of pages that need no further look, and what a page has that has loaded nothing yet.
const LOADED: &[&str] = &["http", "https", "data", "blob", "about", "chrome-error", ""];

impl State {
    /// A context of the multiplexer's own, for a page of ours.
    pub(crate) fn adopt_context(&mut self, context: &str) {
        self.own_contexts.insert(context.into());
    }

    /// Returns `true` if a new target is a page in a context that is nobody's.
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
            .filter(|lease| lease.options.kind == LeaseKind::Shared);
        let Some(rule) = shared.map(Lease::address_rule) else { return false };
        let url = target.info.url.as_str();
        let scheme = url.split(':').next().unwrap_or_default();
        let may_show = match &*target.info.kind {
            "page" => LOADED.contains(&scheme) || rule.allows(url),
            _ => !OWN_SCHEMES.contains(&scheme) && (scheme != "file" || rule.files),
        };
        if may_show {
            return false;
        }
        if let Some(target) = self.targets.get_mut(id) {
            target.banned = true;
        }
        self.close_stray(id);
        // It must not be read until it is closed.
        let on_it = |held: &Session| {
            held.target.as_ref() == Some(id) && matches!(held.owner, Owner::Page(_))
        };
        let sessions: Vec<SessionId> =
            self.sessions.iter().filter(|(_, held)| on_it(held)).map(|(id, _)| *id).collect();
        for session in sessions {
            self.session_gone(session);
        }
        true
    }

    pub(super) fn close_stray(&mut self, target: &Id) {
        let params = json!({ "targetId": &**target });
        self.own_command(None, "Target.closeTarget", &params, Reply::Nothing);
    }
}
