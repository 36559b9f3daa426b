//! Commands about targets, contexts and windows: their owners, and their creation.

use serde_json::{Map, Value, json};
use url::Url;

use super::attach::AutoAttachParams;
use super::client::{INVALID_PARAMS, NO_TARGET, Params, Request, SERVER_ERROR, write};
use super::{LeaseId, Owner, Reply, State, Warm, Watch};
use crate::mux::address::Judgement;
use crate::mux::lease_options::{ClientProxies, DefaultContext};
use crate::mux::target::{Id, SessionId};

impl State {
    pub(super) fn target_info(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let Some(named) = params.get("targetId").and_then(Value::as_str) else {
            return self.pass(request);
        };
        match self.registry.target(named) {
            Some(target) if self.is_own_target(request.connection, named) => {
                if target.invented {
                    let info = format!(r#"{{"targetInfo":{}}}"#, target.raw);
                    self.answer(&request.relay(), &info);
                } else {
                    self.send(request, &params);
                }
            }
            _ => self.refuse(request, INVALID_PARAMS, NO_TARGET),
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
        let Some(held) = self.leases.get_mut(request.lease) else { return };
        if matches!(held.warm, Warm::Creating | Warm::Attached { .. }) {
            // Otherwise its pages could not be told apart. It takes some milliseconds.
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
                if is_slow(&address)
                    && !in_tab
                    && !self.sessions.waits_for_debugger(request.connection)
                {
                    params.insert("url".to_owned(), json!(BLANK));
                    going = Some(address);
                }
            }
            Judgement::StandIn(page) => drop(params.insert("url".to_owned(), json!(page))),
            Judgement::Invalid if address.contains(':') => {
                return self.refuse(request, SERVER_ERROR, "Failed to create web contents");
            }
            // Chromium makes an empty page for an address without a scheme.
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

    /// Notes that a page was made empty for a client that named an address: the page goes there
    /// once its client has had its say.
    pub(super) fn depart(&mut self, page: &Id, address: String) {
        self.registry.depart(page, address);
        self.effects.depart(page);
    }

    /// Returns how many commands its clients have sent to a page that has yet to go to its address.
    pub(crate) fn commands_to(&self, page: &Id) -> Option<u32> {
        self.registry.commands_to(page)
    }

    /// Takes the address of a page that is leaving the empty document with this loader.
    pub(crate) fn leave_for_address(&mut self, page: &Id, loader: &str) -> Option<String> {
        self.registry.leave(page, loader)
    }

    /// Notes that a page has left for its address, or stays where it is.
    pub(crate) fn departed(&mut self, page: &Id, stays: bool) {
        let withheld = self.registry.end_departure(page);
        if stays {
            for (connection, event) in withheld {
                self.deliver(connection, event);
            }
        }
    }

    pub(super) fn attach(&mut self, request: &Request<'_>) {
        let Some(mut params) = self.read::<Params>(request) else { return };
        let Some(nested) = self.takes_nested(request, &mut params) else { return };
        let named = params.get("targetId").and_then(Value::as_str).unwrap_or_default();
        let own_browser = self
            .sessions
            .browser(request.session)
            .is_some_and(|browser| browser.own_target.as_deref() == Some(named));
        let target = if own_browser {
            named.into()
        } else {
            let Some((_, own)) = self.own_target(request, NO_TARGET) else { return };
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
        let held = session.and_then(|session| Some((session, self.sessions.get(session)?)));
        let held = held.filter(|(_, held)| held.owner.connection() == Some(request.connection));
        let owned = held.and_then(|(session, held)| match held.owner {
            Owner::Tab { page, .. } => Some(page),
            Owner::Page(_) | Owner::Browser { root: false, .. } => Some(session),
            Owner::Browser { root: true, .. } | Owner::Own => None,
        });
        let Some(held) = owned.and_then(|session| self.sessions.get(session)) else {
            return self.refuse(request, INVALID_PARAMS, "No session with given id");
        };
        // In the client's order: Puppeteer resumes a service worker right before.
        let params = json!({ "sessionId": owned.map(|id| id.to_string()) }).to_string();
        let maker = held.maker;
        let reply = Reply::Relay(request.relay(), Watch::Nothing);
        self.relay(request.connection, maker, "Target.detachFromTarget", Some(&params), reply);
    }
}

/// The address of an empty page.
const BLANK: &str = "about:blank";

/// Returns `true` if a page may have to wait for the first byte of this address. While it does,
/// Chromium passes no command on to it.
fn is_slow(address: &str) -> bool {
    Url::parse(address).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

/// The bypass list that exempts nothing: otherwise loopback would bypass a proxy.
pub(super) const BYPASS_NONE: &str = "<-loopback>";

const NO_CLIENT_PROXY: &str = "a context of this lease may not name a proxy or a bypass list of its own: \
     its traffic goes through the pool's, see `client_proxies`";

/// The context that a command names is not one of the lease's.
struct ForeignContext(String);

impl State {
    /// Sets the context of a command that names none, and checks one that is named. The real
    /// default context is never named: Chromium does not accept it as a context.
    fn set_context(
        &self,
        lease: LeaseId,
        params: &mut Map<String, Value>,
    ) -> Result<Id, ForeignContext> {
        const KEY: &str = "browserContextId";
        let foreign = |named: &str| ForeignContext(named.to_owned());
        let held = self.leases.get(lease).ok_or_else(|| foreign(""))?;
        let default = held.default.clone().ok_or_else(|| foreign(""))?;
        let context = match params.get(KEY) {
            None | Some(Value::Null) => default.clone(),
            Some(Value::String(named)) if named.is_empty() => default.clone(),
            Some(Value::String(named)) if self.registry.is_context_of(lease, named) => {
                named.as_str().into()
            }
            Some(Value::String(named)) => return Err(foreign(named)),
            Some(other) => return Err(foreign(&other.to_string())),
        };
        if context == default && held.options.default_context == DefaultContext::Real {
            params.remove(KEY);
        } else {
            params.insert(KEY.to_owned(), json!(&*context));
        }
        Ok(context)
    }

    /// Returns the answer to `Target.getBrowserContexts`, in which the default context is separate.
    pub(super) fn context_list(&self, lease: LeaseId) -> String {
        let default = self.leases.get(lease).and_then(|lease| lease.default.clone());
        let others = self.registry.contexts_of(lease).filter(|id| Some(*id) != default.as_ref());
        let mut others: Vec<&str> = others.map(|id| &**id).collect();
        others.sort_unstable();
        json!({ "browserContextIds": others, "defaultBrowserContextId": default.as_deref() })
            .to_string()
    }

    /// Reads params that name a context, which must be the lease's own.
    pub(super) fn in_context(&mut self, request: &Request<'_>, code: i32) -> Option<(Params, Id)> {
        let mut params: Params = self.read(request)?;
        match self.set_context(request.lease, &mut params) {
            Ok(context) => Some((params, context)),
            Err(ForeignContext(named)) => {
                let which = if code == INVALID_PARAMS { "for" } else { "with" };
                let message = format!("Failed to find browser context {which} id {named}");
                self.refuse(request, code, &message);
                None
            }
        }
    }

    pub(super) fn create_context(&mut self, request: &Request<'_>) {
        let Some(mut params) = self.read::<Params>(request) else { return };
        if let Err(message) = self.set_proxy(request.lease, &mut params) {
            return self.refuse(request, INVALID_PARAMS, message);
        }
        // A context that its client did not bind to its own connection belongs to the lease: a
        // client that comes back finds it, and nothing outlives the lease.
        let bound = params.get("disposeOnDetach") == Some(&json!(true));
        params.insert("disposeOnDetach".to_owned(), json!(true));
        let base = self.leases.get(request.lease).and_then(|lease| lease.base);
        let maker = if bound { request.session } else { base.unwrap_or(request.session) };
        let params = write(&params);
        let reply = Reply::Relay(request.relay(), Watch::Context(maker));
        self.relay(request.connection, Some(maker), &request.method, Some(&params), reply);
    }

    /// Sets the proxy of a context that names none to the lease's own, and checks one that is
    /// named: requests that go through a proxy of the pool's must not bypass it.
    fn set_proxy(&self, lease: LeaseId, params: &mut Params) -> Result<(), &'static str> {
        let Some(held) = self.leases.get(lease) else { return Ok(()) };
        let own = held.options.proxy.as_deref();
        let (server, bypass) = (params.get("proxyServer"), params.get("proxyBypassList"));
        let names_none = |value: Option<&Value>| value.is_none_or(Value::is_null);
        let proxy = match (&held.options.client_proxies, server) {
            (_, server) if names_none(server) && names_none(bypass) => own,
            (ClientProxies::Any, _) => None,
            (proxies @ ClientProxies::Only(_), Some(Value::String(server)))
                if proxies.allows(server)
                    && (names_none(bypass) || bypass == Some(&json!(BYPASS_NONE))) =>
            {
                Some(server.as_str())
            }
            (ClientProxies::Only(_), _) => return Err(NO_CLIENT_PROXY),
        };
        if let Some(proxy) = proxy.map(ToOwned::to_owned) {
            params.insert("proxyServer".to_owned(), json!(proxy));
            params.insert("proxyBypassList".to_owned(), json!(BYPASS_NONE));
        }
        Ok(())
    }

    pub(super) fn dispose_context(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let named = params.get("browserContextId").and_then(Value::as_str).unwrap_or_default();
        let default = self.leases.get(request.lease).and_then(|lease| lease.default.as_deref());
        if !self.registry.is_context_of(request.lease, named) || default == Some(named) {
            let message = format!("Failed to find context with id {named}");
            return self.refuse(request, SERVER_ERROR, &message);
        }
        let watch = Watch::Disposed(named.into());
        self.send_watched(request, Some(&params), watch);
    }
}

impl State {
    /// Returns `true` if a command names a window of the lease.
    pub(super) fn is_own_window(&self, lease: LeaseId, params: &Map<String, Value>) -> bool {
        let window = params.get("windowId").and_then(Value::as_i64);
        let lease = self.leases.get(lease);
        window.zip(lease).is_some_and(|(window, lease)| lease.windows.contains(&window))
    }

    pub(super) fn window_of_target(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        // Without a target, it is the session's own. On a browser session, the headless shell
        // crashes if it is given an unknown target.
        let named = params.get("targetId").and_then(Value::as_str);
        if named.is_some_and(|named| !self.is_own_page(request, named)) {
            return self.refuse(request, SERVER_ERROR, "No target with given id");
        }
        self.send_watched(request, Some(&params), Watch::Window);
    }

    fn is_own_page(&self, request: &Request<'_>, target: &str) -> bool {
        let page = self.registry.target(target);
        page.is_some_and(|target| target.info.kind == "page" && !target.invented)
            && self.is_own_target(request.connection, target)
    }
}
