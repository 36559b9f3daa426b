//! Answers to commands of our own.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::client::{Params, write};
use super::{LeaseId, Owner, Relay, Reply, State, Unanswered, Warm, Watch};
use crate::cdp::CdpError;
use crate::mux::envelope;
use crate::mux::target::{Id, Message, SessionId};

#[derive(Deserialize)]
struct ErrorBody {
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    #[serde(default)]
    target_id: Option<Id>,
    #[serde(default)]
    browser_context_id: Option<Id>,
    #[serde(default)]
    session_id: Option<String>,
    #[serde(default)]
    window_id: Option<i64>,
}

/// The error for an answer that has neither a result nor an error.
const NO_ANSWER: (i32, &str) = (-32603, "The browser's answer could not be read");

impl State {
    pub(super) fn own_reply(&mut self, pending: Unanswered, message: &Bytes) {
        let Ok(parsed) = serde_json::from_slice::<Message<'_>>(message) else {
            return self.unanswered(pending, NO_ANSWER);
        };
        let result = match (parsed.result, parsed.error) {
            (Some(result), _) => Ok(result),
            (None, Some(error)) => {
                let body = serde_json::from_str::<ErrorBody>(error.get());
                let body = body.unwrap_or(ErrorBody { code: 0, message: String::new() });
                if body.code == -32601
                    && !matches!(pending.reply, Reply::Relay(..) | Reply::Call(_))
                {
                    self.assumptions.unknown_command(&pending.method);
                }
                Err((error, body))
            }
            (None, None) => return self.unanswered(pending, NO_ANSWER),
        };
        let Unanswered { method, reply, .. } = pending;
        let refused = |body: ErrorBody| CdpError::Refused {
            method: method.clone(),
            code: body.code,
            message: body.message,
        };
        match reply {
            Reply::Nothing => {}
            Reply::Call(reply) => {
                let result = result.map(ToOwned::to_owned).map_err(|(_, body)| refused(body));
                self.effects.call(reply, result);
            }
            Reply::Release(session) => {
                self.detach(session);
            }
            Reply::Relay(relay, watch) => match result {
                Ok(result) => self.relayed(&relay, watch, result),
                Err((error, _)) => {
                    let frame = envelope::raw_error(relay.id, error.get(), relay.session);
                    self.deliver(relay.connection, frame);
                }
            },
            Reply::AutoAttached { browser, target } => self.auto_attached(browser, &target),
            Reply::BrowserSession { lease, reply } => {
                let session = result.map_err(|(_, body)| refused(body)).and_then(|result| {
                    let named = named(result).session_id;
                    let session = named.as_deref().and_then(SessionId::parse);
                    session.ok_or_else(|| CdpError::unexpected(&method, "no sessionId"))
                });
                self.browser_session_made(lease, session, reply);
            }
            Reply::DefaultContext { lease, maker, reply } => {
                let made = result.map_err(|(_, body)| refused(body)).and_then(|result| {
                    let context = named(result).browser_context_id;
                    context.ok_or_else(|| CdpError::unexpected(&method, "no browserContextId"))
                });
                let made = made.map(|context| {
                    self.registry.insert_context(context.clone(), lease, maker);
                    if let Some(lease) = self.leases.get_mut(lease) {
                        lease.default = Some(context);
                    }
                });
                self.effects.done(reply, made);
            }
            Reply::Warm { lease, reply } => {
                let made = result.map(|_| ()).map_err(|(_, body)| refused(body));
                self.warm_page_made(lease);
                self.effects.done(reply, made);
            }
            Reply::FrameTree { connection, guid } => {
                let frames = result.map(RawValue::get).unwrap_or_default();
                self.frame_tree(connection, &guid, frames);
            }
        }
    }

    /// Fails a command whose session is gone.
    pub(super) fn orphaned(&mut self, pending: Unanswered) {
        self.unanswered(pending, (-32001, "Session with given id not found."));
    }

    /// Fails a command that will get no answer.
    fn unanswered(&mut self, pending: Unanswered, (code, message): (i32, &str)) {
        let ended = || CdpError::unexpected(&pending.method, message);
        match pending.reply {
            Reply::Relay(relay, _) => {
                let frame = envelope::error(Some(relay.id), code, message, relay.session);
                self.deliver(relay.connection, frame);
            }
            Reply::AutoAttached { browser, target } => self.auto_attached(browser, &target),
            Reply::FrameTree { connection, guid } => self.frame_tree(connection, &guid, ""),
            Reply::Warm { lease, reply } => {
                let error = ended();
                self.warm_page_made(lease);
                self.effects.done(reply, Err(error));
            }
            Reply::Call(reply) => self.effects.call(reply, Err(ended())),
            Reply::BrowserSession { reply, .. } => self.effects.session(reply, Err(ended())),
            Reply::DefaultContext { reply, .. } => self.effects.done(reply, Err(ended())),
            Reply::Nothing | Reply::Release(_) => {}
        }
    }

    fn relayed(&mut self, relay: &Relay, watch: Watch, result: &RawValue) {
        let Some(client) = self.leases.client(relay.connection) else { return };
        let lease = client.lease;
        match watch {
            Watch::Nothing | Watch::Attached { .. } => {}
            Watch::Target { going } => {
                if let Some(target) = named(result).target_id {
                    if let Some(address) = going {
                        self.depart(&target, address);
                    }
                    return self.answer_made(relay, &target);
                }
            }
            Watch::RefusedNavigation => return self.answer(relay, &refused(result)),
            Watch::Context(maker) => {
                if let Some(context) = named(result).browser_context_id {
                    self.registry.insert_context(context, lease, maker);
                }
            }
            Watch::Disposed(context) => {
                self.registry.remove_context(&context);
            }
            Watch::Targets => {
                let result = self.filter_targets(relay, result);
                return self.answer(relay, &result);
            }
            Watch::Window => {
                let lease = self.leases.get_mut(lease);
                if let (Some(window), Some(lease)) = (named(result).window_id, lease) {
                    lease.windows.insert(window);
                }
            }
        }
        self.answer(relay, result.get());
    }

    /// Answers a client.
    pub(super) fn answer(&mut self, relay: &Relay, result: &str) {
        self.deliver(relay.connection, envelope::result(relay.id, result, relay.session));
    }

    /// Answers `Target.createTarget`, but not before the client is attached if it auto-attaches.
    pub(super) fn answer_made(&mut self, relay: &Relay, target: &Id) {
        let result = json!({ "targetId": &**target }).to_string();
        let frame = envelope::result(relay.id, &result, relay.session);
        if self.sessions.is_attaching(relay.connection, target) {
            if let Some(client) = self.leases.client_mut(relay.connection) {
                client.held.push((target.clone(), frame));
            }
        } else {
            self.deliver(relay.connection, frame);
        }
    }

    /// Returns the reply to `Target.getTargets`, with the client's own targets only.
    fn filter_targets(&self, relay: &Relay, result: &RawValue) -> String {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Targets<'a> {
            #[serde(borrow)]
            target_infos: Vec<&'a RawValue>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Named {
            target_id: Id,
        }
        let Ok(targets) = serde_json::from_str::<Targets<'_>>(result.get()) else {
            return r#"{"targetInfos":[]}"#.to_owned();
        };
        let own: Vec<&str> = targets
            .target_infos
            .iter()
            .filter(|info| {
                serde_json::from_str::<Named>(info.get())
                    .is_ok_and(|named| self.is_own_target(relay.connection, &named.target_id))
            })
            .map(|info| info.get())
            .collect();
        format!(r#"{{"targetInfos":[{}]}}"#, own.join(","))
    }

    /// Handles the creation of a browser session for a lease. If the lease is gone by now, the
    /// session must go too.
    fn browser_session_made(
        &mut self,
        lease: LeaseId,
        session: Result<SessionId, CdpError>,
        reply: oneshot::Sender<Result<SessionId, CdpError>>,
    ) {
        if let Ok(made) = session {
            let target = self.sessions.browser_target(made);
            self.sessions.insert(made, Owner::Own, target, None);
            match self.leases.get_mut(lease) {
                Some(lease) => drop(lease.made.insert(made)),
                None => self.detach(made),
            }
        }
        // If the caller is gone, the session ends with its lease.
        self.effects.session(reply, session);
    }

    /// Notes that the warm page is there, or could not be made; commands that waited for it go on.
    fn warm_page_made(&mut self, lease: LeaseId) {
        let Some(held) = self.leases.get_mut(lease) else { return };
        held.warm = match std::mem::take(&mut held.warm) {
            Warm::Attached { target, session, waiting } => Warm::Ready { target, session, waiting },
            Warm::Creating => {
                self.assumptions.page_not_attached();
                Warm::None
            }
            Warm::None | Warm::Ready { .. } => Warm::None,
        };
        self.show_first_page(lease);
        let Some(held) = self.leases.get_mut(lease) else { return };
        for (connection, within, message) in std::mem::take(&mut held.waiting_for_warm) {
            self.client_message_in(connection, within, &message, None);
        }
    }
}

/// Returns the result of a failed navigation, with the reason.
fn refused(result: &RawValue) -> String {
    let mut result: Params = serde_json::from_str(result.get()).unwrap_or_default();
    result.insert("errorText".to_owned(), json!("net::ERR_BLOCKED_BY_ADMINISTRATOR"));
    write(&result)
}

fn named(result: &RawValue) -> Named {
    serde_json::from_str(result.get()).unwrap_or(Named {
        target_id: None,
        browser_context_id: None,
        session_id: None,
        window_id: None,
    })
}
