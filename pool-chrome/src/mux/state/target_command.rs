//! Commands about targets: whose they are, and what is made of them.

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use url::Url;

use super::super::address::Judgement;
use super::super::departures::Departure;
use super::super::session_id::SessionId;
use super::super::target::Id;
use super::attach::{AutoAttachParams, wants};
use super::browser::AutoAttach;
use super::client::Request;
use super::command::{INVALID_PARAMS, Params, SERVER_ERROR};
use super::lease::Warm;
use super::{ConnectionId, Owner, Reply, State, Watch};

impl State {
    pub(super) fn target_info(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let Some(named) = params.get("targetId").and_then(Value::as_str) else {
            return self.pass(request);
        };
        match self.targets.get(named) {
            Some(target) if self.is_own_target(request.connection, named) => {
                if target.invented {
                    let info = format!(r#"{{"targetInfo":{}}}"#, target.raw);
                    self.answer(&request.relay(), &info);
                } else {
                    self.send(request, &params);
                }
            }
            _ => self.refuse(request, INVALID_PARAMS, "No target with given id found"),
        }
    }

    pub(super) fn auto_attach(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<AutoAttachParams>(request) else { return };
        if params.auto_attach && !params.flatten {
            let message = "Only flatten protocol is supported with browser level auto-attach";
            return self.refuse(request, INVALID_PARAMS, message);
        }
        self.set_auto_attach(request.session, params, request.relay());
    }

    pub(super) fn create_target(&mut self, request: &Request<'_>) {
        let Some(held) = self.leases.get_mut(&request.lease) else { return };
        if matches!(held.warm, Warm::Creating | Warm::Attached { .. }) {
            // Which page is whose could not be told apart. It takes some milliseconds.
            let text = request.text.to_owned();
            held.waiting_for_warm.push((request.connection, request.within, text));
            return;
        }
        let rule = held.address_rule();
        let default = held.default.clone();
        let Some((mut params, context)) = self.in_context(request, SERVER_ERROR) else { return };
        let Some(Value::String(address)) = params.get("url").cloned() else {
            return self.refuse(request, INVALID_PARAMS, "Invalid parameters");
        };
        let mut going = None;
        match rule.judge(&address) {
            Judgement::Allowed => {
                let in_tab = params.get("forTab") == Some(&json!(true));
                if is_slow(&address) && !in_tab && !self.waits_for_debugger(request.connection) {
                    params.insert("url".to_owned(), json!(BLANK));
                    going = Some(address);
                }
            }
            Judgement::StandIn(page) => drop(params.insert("url".to_owned(), json!(page))),
            Judgement::Invalid if address.contains(':') => {
                return self.refuse(request, SERVER_ERROR, "Failed to create web contents");
            }
            // Chromium makes an empty page of what has no scheme.
            Judgement::Invalid => drop(params.insert("url".to_owned(), json!(BLANK))),
            Judgement::Refused => {
                let message =
                    "net::ERR_BLOCKED_BY_ADMINISTRATOR: the address is not allowed in this lease";
                return self.refuse(request, SERVER_ERROR, message);
            }
        }
        if !self.is_within_bounds(request, &params) {
            return;
        }
        let blank = params.get("url").is_some_and(|url| url == "" || url == BLANK);
        let plain = |(name, value): (&String, &Value)| {
            matches!(name.as_str(), "url" | "browserContextId")
                || value.is_null()
                || value == &json!(false)
        };
        if blank
            && Some(context) == default
            && params.iter().all(plain)
            && let Some(page) = self.show_warm(request.lease, Some(request.connection))
        {
            if let Some(address) = going {
                self.depart(&page, address);
            }
            return self.answer_made(&request.relay(), &page);
        }
        self.send_watched(request, Some(&params), Watch::Target { going });
    }

    /// Returns `true` if a client has new pages stand still until it resumes them.
    fn waits_for_debugger(&self, connection: ConnectionId) -> bool {
        let waits = |auto: &AutoAttach| auto.wait && wants(auto, "page");
        self.browsers
            .values()
            .filter(|browser| browser.connection == connection)
            .any(|browser| browser.auto_attach.as_ref().is_some_and(waits))
    }

    /// A page was made empty for a client that named an address: it goes there once its client has
    /// had its say.
    pub(super) fn depart(&mut self, page: &Id, address: String) {
        self.departures.insert(page.clone(), Departure::new(address));
        // Nobody is there to send it only when the multiplexer is gone.
        let _ = self.departing.0.send(page.clone());
    }

    /// A page has left for its address, or stays where it is.
    pub(crate) fn departed(&mut self, page: &Id, stays: bool) {
        let Some(departure) = self.departures.remove(page) else { return };
        if stays {
            for (connection, event) in departure.withheld {
                self.deliver(connection, event);
            }
        }
    }

    /// The pages that are to be sent to their addresses, for whoever does it.
    pub(crate) fn departing(&mut self) -> Option<UnboundedReceiver<Id>> {
        self.departing.1.take()
    }

    pub(super) fn attach(&mut self, request: &Request<'_>) {
        let missing = "No target with given id found";
        let Some(mut params) = self.read::<Params>(request) else { return };
        let Some(nested) = self.takes_nested(request, &mut params) else { return };
        let named = params.get("targetId").and_then(Value::as_str).unwrap_or_default();
        let own_browser = self
            .browsers
            .get(&request.session)
            .is_some_and(|browser| browser.own_target.as_deref() == Some(named));
        let target = if own_browser {
            named.into()
        } else {
            let Some((_, own)) = self.own_target(request, missing) else { return };
            params.insert("targetId".to_owned(), json!(&*own));
            own
        };
        self.send_watched(request, Some(&params), Watch::Attached { target, nested });
    }

    pub(super) fn client_detach(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let session = match (params.get("sessionId"), params.get("targetId")) {
            (Some(Value::String(named)), _) => SessionId::parse(named),
            (None, Some(Value::String(target))) => match self.only_session_on(request, target) {
                Ok(session) => Some(session),
                Err((code, message)) => return self.refuse(request, code, message),
            },
            _ => return self.refuse(request, INVALID_PARAMS, "Session id must be specified"),
        };
        let held = session.and_then(|session| Some((session, self.sessions.get(&session)?)));
        let owned = held.and_then(|(session, held)| match held.owner {
            Owner::Tab { connection, page } if connection == request.connection => Some(page),
            Owner::Page(connection) | Owner::Browser { connection, root: false }
                if connection == request.connection =>
            {
                Some(session)
            }
            _ => None,
        });
        let Some(held) = owned.and_then(|session| self.sessions.get(&session)) else {
            return self.refuse(request, INVALID_PARAMS, "No session with given id");
        };
        // In the client's turn: Puppeteer resumes a service worker right before.
        let params = json!({ "sessionId": owned.map(|id| id.to_string()) }).to_string();
        let maker = held.maker;
        let reply = Reply::Relay(request.relay(), Watch::Nothing);
        self.relay(request.connection, maker, "Target.detachFromTarget", Some(&params), reply);
    }
}

/// The address of an empty page.
const BLANK: &str = "about:blank";

/// Returns `true` if a page may have to wait for the first byte of this address. While it does, Chromium
/// hands no command on to it.
fn is_slow(address: &str) -> bool {
    Url::parse(address).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}
