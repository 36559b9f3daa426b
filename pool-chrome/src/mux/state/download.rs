//! Downloads: Chromium tells every session of all of them, so whose each one is must be found out.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::super::holder::FileUse;
use super::super::lease_options::LeaseKind;
use super::super::session_id::SessionId;
use super::super::suffix;
use super::super::target::Id;
use super::{ConnectionId, LeaseId, Owner, Reply, State};

/// The downloads whose owner a connection waits to learn.
#[derive(Debug, Default)]
pub(crate) struct Downloads {
    open: HashMap<Id, Open>,
}

#[derive(Debug)]
struct Open {
    frame: String,
    events: Vec<Bytes>,
    /// Number of pages that have not listed their frames yet.
    asked: usize,
}

/// Downloads that have not ended, as the root session is told of all of them.
#[derive(Debug, Default)]
pub(super) struct Running(HashMap<Id, Option<LeaseId>>);

/// Maximum number remembered. One whose end Chromium has not reported would stay for ever.
const MOST_RUNNING: usize = 1024;

#[derive(Deserialize)]
struct Progress {
    guid: Id,
    state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    guid: Id,
    #[serde(default)]
    frame_id: String,
}

impl State {
    /// A download of any lease begins.
    pub(super) fn download_begins(&mut self, params: &RawValue) {
        let Ok(Params { guid, frame_id }) = serde_json::from_str(params.get()) else { return };
        // A frame within a page is no target: then its lease is known when a client has asked.
        let target = self.targets.get(&*frame_id);
        let lease = target.and_then(|target| self.lease_of(target));
        let lease = lease.or_else(|| {
            self.leases.iter().find(|(_, lease)| lease.had(&frame_id)).map(|(id, _)| *id)
        });
        let context = target.and_then(|target| target.info.browser_context_id.clone());
        if self.running.0.len() < MOST_RUNNING {
            self.running.0.insert(guid, lease);
        }
        if let Some(lease) = lease {
            self.download_canceled(lease, context.as_ref());
        }
    }

    /// Tells the holder of a lease that a download which begins is canceled, if that follows from
    /// where it was to go. One of a page that is gone, or of a frame, may be of any context.
    fn download_canceled(&mut self, lease: LeaseId, context: Option<&Id>) {
        let canceled = self
            .contexts
            .iter()
            .filter(|(id, held)| held.lease == lease && context.is_none_or(|its| its == *id))
            .find_map(|(_, held)| held.no_downloads.clone());
        if let Some(path) = canceled {
            self.file_refused(lease, FileUse::Download, &path);
        }
    }

    /// A download of any lease goes on, or ends.
    pub(super) fn download_goes_on(&mut self, params: &RawValue) {
        let Ok(Progress { guid, state }) = serde_json::from_str(params.get()) else { return };
        if state != "inProgress" {
            self.running.0.remove(&guid);
        }
    }

    /// Returns `true` if a download of a lease has not ended.
    pub(super) fn is_downloading(&self, id: LeaseId) -> bool {
        let Some(lease) = self.leases.get(&id) else { return false };
        let alone = lease.options.kind == LeaseKind::Exclusive;
        self.running.0.iter().any(|(guid, its)| match its {
            Some(its) => *its == id,
            None => alone || lease.downloads.contains(guid),
        })
    }

    /// Forgets the downloads of a lease that is over.
    pub(super) fn forget_downloads(&mut self, id: LeaseId) {
        self.running.0.retain(|_, its| *its != Some(id));
    }

    pub(super) fn download_event(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        method: &str,
        params: &RawValue,
        message: &Bytes,
    ) {
        let Ok(Params { guid, frame_id }) = serde_json::from_str::<Params>(params.get()) else {
            return;
        };
        let root = matches!(
            self.sessions.get(&session).map(|held| held.owner),
            Some(Owner::Browser { root: true, .. })
        );
        let event: Bytes =
            if root { suffix::without_session(message).into() } else { message.clone() };
        let Some(client) = self.clients.get_mut(&connection) else { return };
        let lease = client.lease;
        if let Some(open) = client.downloads.open.get_mut(&guid) {
            open.events.push(event);
            return;
        }
        let Some(held) = self.leases.get_mut(&lease) else { return };
        let alone = held.options.kind == LeaseKind::Exclusive;
        let known = alone
            || held.downloads.contains(&guid)
            || held.had(&frame_id)
            || self.is_own_target(connection, &frame_id);
        if known {
            if let Some(held) = self.leases.get_mut(&lease) {
                held.downloads.insert(guid);
            }
            return self.deliver(connection, event);
        }
        if method == "Browser.downloadWillBegin" {
            self.ask_whose(connection, &guid, frame_id, event);
        }
    }

    /// A frame that is no target of its own: one of the client's pages may have it.
    fn ask_whose(&mut self, connection: ConnectionId, guid: &Id, frame: String, event: Bytes) {
        let pages: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, held)| held.owner == Owner::Page(connection))
            .filter(|(_, held)| {
                let target = held.target.as_ref().and_then(|id| self.targets.get(id));
                target.is_some_and(|target| matches!(&*target.info.kind, "page" | "iframe"))
            })
            .map(|(id, _)| *id)
            .collect();
        if pages.is_empty() {
            return;
        }
        let open = Open { frame, events: vec![event], asked: pages.len() };
        if let Some(client) = self.clients.get_mut(&connection) {
            client.downloads.open.insert(guid.clone(), open);
        }
        for page in pages {
            let reply = Reply::FrameTree { connection, guid: guid.clone() };
            self.own_command(Some(page), "Page.getFrameTree", &json!({}), reply);
        }
    }

    /// A page has said which frames it has.
    pub(super) fn frame_tree(&mut self, connection: ConnectionId, guid: &Id, frames: &str) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        let Some(open) = client.downloads.open.get_mut(guid) else { return };
        open.asked -= 1;
        // Quotes inside of names and addresses are escaped: this is a member or nothing.
        let own = frames.contains(&format!(r#""id":"{}""#, open.frame));
        if own {
            let lease = client.lease;
            let events = client.downloads.open.remove(guid).map(|open| open.events);
            if let Some(lease) = self.leases.get_mut(&lease) {
                lease.downloads.insert(guid.clone());
            }
            self.download_canceled(lease, None);
            for event in events.unwrap_or_default() {
                self.deliver(connection, event);
            }
        } else if open.asked == 0 {
            client.downloads.open.remove(guid);
        }
    }
}
