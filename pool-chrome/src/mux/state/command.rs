//! The rules, carried out.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::super::lease_options::LeaseKind;
use super::super::paths;
use super::super::rules::Rule;
use super::super::session_id::SessionId;
use super::super::target::Id;
use super::attach::AutoAttachParams;
use super::browser::DiscoverParams;
use super::client::Request;
use super::context::ForeignContext;
use super::lease::Warm;
use super::{Owner, Reply, State, Watch};
use crate::mux::EndReason;
use crate::mux::envelope;

/// The protocol's codes for what a caller did wrong.
const SERVER_ERROR: i32 = -32000;
const INVALID_PARAMS: i32 = -32602;

type Params = Map<String, Value>;

impl State {
    pub(super) fn apply(&mut self, rule: Rule, request: &Request<'_>) {
        match rule {
            Rule::Pass => self.pass(request),
            Rule::Taint => {
                if let Some(lease) = self.leases.get_mut(&request.lease) {
                    lease.tainted = true;
                }
                self.pass(request);
            }
            Rule::Screens => {
                if let Some(lease) = self.leases.get_mut(&request.lease) {
                    lease.screens = true;
                }
                self.pass(request);
            }
            Rule::Refuse => {
                let place = match request.kind {
                    LeaseKind::Shared => "a shared browser lease",
                    LeaseKind::Exclusive => "a browser lease",
                };
                let message = format!("'{}' is not available in {place}", request.method);
                self.refuse(request, SERVER_ERROR, &message);
            }
            Rule::NotAllowed => self.refuse(request, SERVER_ERROR, "Not allowed"),
            Rule::Nothing => self.answer(&request.relay(), "{}"),

            Rule::Contexts => {
                let list = self.context_list(request.lease);
                self.answer(&request.relay(), &list);
            }
            Rule::CreateContext => self.create_context(request),
            Rule::DisposeContext => self.dispose_context(request),
            Rule::Targets => self.send_watched(request, None, Watch::Targets),
            Rule::TargetInfo => self.target_info(request),
            Rule::Discover => {
                let Some(params) = self.read::<DiscoverParams>(request) else { return };
                self.set_discover(request.session, params);
                self.answer(&request.relay(), "{}");
            }
            Rule::AutoAttach => self.auto_attach(request),
            Rule::CreateTarget => self.create_target(request),
            Rule::Attach => self.attach(request),
            Rule::OwnTarget => {
                let Some((params, _)) = self.own_target(request, "No target with given id found")
                else {
                    return;
                };
                self.send(request, &params);
            }
            Rule::Detach => self.client_detach(request),
            Rule::AttachBrowser => self.send_watched(request, None, Watch::Nothing),

            Rule::Close => {
                self.answer(&request.relay(), "{}");
                self.close_connection(request.connection, EndReason::BrowserClosed);
            }
            Rule::Context => {
                let Some((params, _)) = self.in_context(request, INVALID_PARAMS) else { return };
                self.send(request, &params);
            }
            Rule::Downloads => self.download_behavior(request),
            Rule::CancelDownload => self.cancel_download(request),
            Rule::WindowOfTarget => self.window_of_target(request),
            Rule::Window => {
                let Some(params) = self.read::<Params>(request) else { return };
                if self.is_own_window(request.lease, &params) {
                    self.send(request, &params);
                } else {
                    self.refuse(request, SERVER_ERROR, "Browser window not found");
                }
            }
            Rule::IgnoreCertificates => self.ignore_certificate_errors(request),
            Rule::Navigate => self.navigate(request),
            Rule::Files => self.files(request),
            Rule::DownloadPath => {
                let Some(params) = self.read::<Params>(request) else { return };
                self.download_to(request, params);
            }
        }
    }

    /// Sends a command as it is: its reply finds the client by itself, ids are per session.
    fn pass(&mut self, request: &Request<'_>) {
        let params = request.params.map(|params| params.get());
        let frame = envelope::write(request.id, &request.method, params, Some(request.session));
        self.push_client(request.connection, frame);
    }

    /// Sends a command with the params that the rules have read, written anew: what was judged is
    /// what Chromium gets.
    fn send(&mut self, request: &Request<'_>, params: &Params) {
        let params = write(params);
        let frame = envelope::write(request.id, &request.method, Some(&params), Some(request.session));
        self.push_client(request.connection, frame);
    }

    /// The same, but its reply is seen on its way back.
    fn send_watched(&mut self, request: &Request<'_>, params: Option<&Params>, watch: Watch) {
        let written = params.map(write);
        let params = written.as_deref().or(request.params.map(|params| params.get()));
        let reply = Reply::Relay(request.relay(), watch);
        self.relay(request.connection, Some(request.session), &request.method, params, reply);
    }

    fn refuse(&mut self, request: &Request<'_>, code: i32, message: &str) {
        let error = envelope::error(Some(request.id), code, message, request.visible);
        self.deliver(request.connection, error);
    }

    /// Reads the params of a command, or tells the client that it cannot be done.
    fn read<T: DeserializeOwned>(&mut self, request: &Request<'_>) -> Option<T> {
        let text = request.params.map_or("{}", |params| params.get());
        match serde_json::from_str(text) {
            Ok(params) => Some(params),
            Err(_) => {
                self.refuse(request, INVALID_PARAMS, "Invalid parameters");
                None
            }
        }
    }

    /// Reads params that name a context, which must be the lease's own.
    fn in_context(&mut self, request: &Request<'_>, code: i32) -> Option<(Params, Id)> {
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

    /// Reads params that name a target, which must be the lease's own.
    fn own_target(&mut self, request: &Request<'_>, message: &str) -> Option<(Params, Id)> {
        let mut params: Params = self.read(request)?;
        let named = params.get("targetId").and_then(Value::as_str).unwrap_or_default();
        let own = self
            .targets
            .get(named)
            .filter(|target| target.info.kind != "browser")
            .filter(|_| self.is_own_target(request.connection, named));
        // A tab that Chromium does not know of stands for its page.
        let own = own.map(|target| {
            let id = &target.info.target_id;
            let page = self.targets.values().find(|page| target.invented && page.tab.as_ref() == Some(id));
            page.unwrap_or(target).info.target_id.clone()
        });
        match own {
            Some(id) => {
                params.insert("targetId".to_owned(), json!(&*id));
                Some((params, id))
            }
            None => {
                self.refuse(request, INVALID_PARAMS, message);
                None
            }
        }
    }

    fn create_context(&mut self, request: &Request<'_>) {
        let Some(mut params) = self.read::<Params>(request) else { return };
        // What its client did not bind to its own connection belongs to the lease: a client that
        // comes back finds it, and nothing outlives the lease.
        let bound = params.get("disposeOnDetach") == Some(&json!(true));
        params.insert("disposeOnDetach".to_owned(), json!(true));
        let base = self.leases.get(&request.lease).and_then(|lease| lease.base);
        let maker = if bound { request.session } else { base.unwrap_or(request.session) };
        let params = write(&params);
        let reply = Reply::Relay(request.relay(), Watch::Context(maker));
        self.relay(request.connection, Some(maker), &request.method, Some(&params), reply);
    }

    fn dispose_context(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let named = params.get("browserContextId").and_then(Value::as_str).unwrap_or_default();
        let default = self.leases.get(&request.lease).and_then(|lease| lease.default.as_deref());
        if !self.is_own_context(request.lease, named) || default == Some(named) {
            let message = format!("Failed to find context with id {named}");
            return self.refuse(request, SERVER_ERROR, &message);
        }
        let watch = Watch::Disposed(named.into());
        self.send_watched(request, Some(&params), watch);
    }

    fn target_info(&mut self, request: &Request<'_>) {
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

    fn auto_attach(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<AutoAttachParams>(request) else { return };
        if params.auto_attach && !params.flatten {
            let message = "Only flatten protocol is supported with browser level auto-attach";
            return self.refuse(request, INVALID_PARAMS, message);
        }
        self.set_auto_attach(request.session, params, request.relay());
    }

    fn create_target(&mut self, request: &Request<'_>) {
        let Some(held) = self.leases.get_mut(&request.lease) else { return };
        if matches!(held.warm, Warm::Creating | Warm::Attached { .. }) {
            // Which page is whose could not be told apart. It takes some milliseconds.
            held.waiting_for_warm.push((request.connection, request.text.to_owned()));
            return;
        }
        let rule = held.address_rule();
        let default = held.default.clone();
        let Some((params, context)) = self.in_context(request, SERVER_ERROR) else { return };
        let address = match params.get("url") {
            Some(Value::String(address)) => address.as_str(),
            _ => return self.refuse(request, INVALID_PARAMS, "Invalid parameters"),
        };
        if !rule.allows(address) {
            let message = "net::ERR_BLOCKED_BY_ADMINISTRATOR: the address is not allowed in this lease";
            return self.refuse(request, SERVER_ERROR, message);
        }
        let blank = address.is_empty() || address == "about:blank";
        let plain = |(name, value): (&String, &Value)| {
            matches!(name.as_str(), "url" | "browserContextId")
                || value.is_null()
                || value == &json!(false)
        };
        if blank
            && Some(context) == default
            && params.iter().all(plain)
            && let Some(page) = self.take_warm(request)
        {
            return self.answer_made(&request.relay(), &page);
        }
        self.send_watched(request, Some(&params), Watch::Target);
    }

    /// Brings the warm page into sight as if it had just been made.
    fn take_warm(&mut self, request: &Request<'_>) -> Option<Id> {
        let held = self.leases.get_mut(&request.lease)?;
        let Warm::Ready { .. } = held.warm else { return None };
        let Warm::Ready { target, session, waiting } = std::mem::take(&mut held.warm) else {
            return None;
        };
        let tab = self.targets.get(&target)?.tab.clone();
        for id in tab.iter().chain([&target]) {
            if let Some(target) = self.targets.get_mut(id) {
                target.hidden = false;
            }
            self.announce(id, "Target.targetCreated");
        }
        self.offer(request.lease, session, &target, waiting, Some(request.connection));
        Some(target)
    }

    fn attach(&mut self, request: &Request<'_>) {
        let missing = "No target with given id found";
        let Some(params) = self.read::<Params>(request) else { return };
        let named = params.get("targetId").and_then(Value::as_str).unwrap_or_default();
        let own_browser = self
            .browsers
            .get(&request.session)
            .is_some_and(|browser| browser.own_target.as_deref() == Some(named));
        let mut params = if own_browser {
            params
        } else {
            let Some((params, _)) = self.own_target(request, missing) else { return };
            params
        };
        params.insert("flatten".to_owned(), json!(true));
        self.send_watched(request, Some(&params), Watch::Nothing);
    }

    fn client_detach(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let session = match (params.get("sessionId"), params.get("targetId")) {
            (Some(Value::String(named)), _) => SessionId::parse(named),
            (None, Some(Value::String(target))) => self.session_on(request, target),
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

    /// The session that a command's session has on a target.
    fn session_on(&self, request: &Request<'_>, target: &str) -> Option<SessionId> {
        self.sessions
            .iter()
            .find(|(_, held)| {
                held.parent == Some(request.session) && held.target.as_deref() == Some(target)
            })
            .map(|(id, _)| *id)
    }

    fn download_behavior(&mut self, request: &Request<'_>) {
        let Some((params, _)) = self.in_context(request, INVALID_PARAMS) else { return };
        self.download_to(request, params);
    }

    /// Sends a command that sets where downloads go. A path elsewhere becomes the lease's own
    /// directory: Playwright always names one of its own machine, and fails if it is refused.
    fn download_to(&mut self, request: &Request<'_>, mut params: Params) {
        if !self.is_path_allowed(request, params.get("downloadPath")) {
            let lease = self.leases.get(&request.lease);
            let Some(own) = lease.and_then(|lease| lease.options.directories.first()) else {
                let message = "the path is outside of the lease's directories";
                return self.refuse(request, INVALID_PARAMS, message);
            };
            let own = own.to_string_lossy().into_owned();
            params.insert("downloadPath".to_owned(), Value::String(own));
        }
        self.send(request, &params);
    }

    fn cancel_download(&mut self, request: &Request<'_>) {
        let Some((params, _)) = self.in_context(request, INVALID_PARAMS) else { return };
        let guid = params.get("guid").and_then(Value::as_str).unwrap_or_default();
        let held = self.leases.get(&request.lease);
        let known = held.is_some_and(|lease| lease.downloads.contains(guid));
        if known || request.kind == LeaseKind::Exclusive {
            self.send(request, &params);
        } else {
            self.answer(&request.relay(), "{}");
        }
    }

    fn window_of_target(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        // Without a target it is the session's own. On a browser session the headless shell dies
        // of a target that it does not know.
        let named = params.get("targetId").and_then(Value::as_str);
        if named.is_some_and(|named| !self.is_own_page(request, named)) {
            return self.refuse(request, SERVER_ERROR, "No target with given id");
        }
        self.send_watched(request, Some(&params), Watch::Window);
    }

    fn is_own_page(&self, request: &Request<'_>, target: &str) -> bool {
        let page = self.targets.get(target);
        page.is_some_and(|target| target.info.kind == "page" && !target.invented)
            && self.is_own_target(request.connection, target)
    }

    fn ignore_certificate_errors(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let Some(Value::Bool(ignore)) = params.get("ignore") else {
            return self.refuse(request, INVALID_PARAMS, "Invalid parameters");
        };
        if let Some(client) = self.clients.get_mut(&request.connection) {
            client.ignore_certificates = *ignore;
        }
        let pages: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, held)| held.owner == Owner::Page(request.connection))
            .map(|(id, _)| *id)
            .collect();
        for page in pages {
            self.ignore_certificates(page, *ignore);
        }
        self.answer(&request.relay(), "{}");
    }

    fn navigate(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let address = params.get("url").and_then(Value::as_str);
        let rule = self.leases.get(&request.lease).map(|lease| lease.address_rule());
        if address.zip(rule).is_none_or(|(address, rule)| rule.allows(address)) {
            return self.send(request, &params);
        }
        // As a failed navigation: Playwright and Puppeteer make a clean error of it.
        let target = self.sessions.get(&request.session).and_then(|held| held.target.clone());
        let frame = params.get("frameId").and_then(Value::as_str).map(Arc::from).or(target);
        let error = "net::ERR_BLOCKED_BY_ADMINISTRATOR";
        let result = json!({ "frameId": frame.as_deref().unwrap_or_default(), "errorText": error });
        self.answer(&request.relay(), &result.to_string());
    }

    fn files(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let files = params.get("files").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if files.iter().all(|file| self.is_path_allowed(request, Some(file))) {
            self.send(request, &params);
        } else {
            self.refuse(request, INVALID_PARAMS, "a file is outside of the lease's directories");
        }
    }

    /// Whether a path may be named. An exclusive lease may name any.
    fn is_path_allowed(&self, request: &Request<'_>, path: Option<&Value>) -> bool {
        match (request.kind, path) {
            (LeaseKind::Exclusive, _) | (LeaseKind::Shared, None) => true,
            (LeaseKind::Shared, Some(Value::String(path))) => self
                .leases
                .get(&request.lease)
                .is_some_and(|lease| paths::is_inside(path, &lease.options.directories)),
            (LeaseKind::Shared, Some(_)) => false,
        }
    }
}

fn write(params: &Params) -> String {
    serde_json::to_string(params).expect("a JSON object can always be written to memory")
}
