//! Commands about files, addresses and certificates.

use serde_json::{Value, json};

use super::super::address::{Judgement, NOWHERE};
use super::super::holder::FileUse;
use super::super::lease_options::LeaseKind;
use super::super::parameters::{self, Screen};
use super::super::paths;
use super::super::session_id::SessionId;
use super::super::target::Id;
use super::client::Request;
use super::command::{INVALID_PARAMS, Params, SERVER_ERROR};
use super::{LeaseId, Owner, State, Watch};

/// The most refused files of a lease that its holder is told of, and the letters of each path.
const MOST_REFUSED: usize = 64;
const LONGEST_PATH: usize = 1024;

impl State {
    pub(super) fn download_behavior(&mut self, request: &Request<'_>) {
        let Some((params, _)) = self.in_context(request, INVALID_PARAMS) else { return };
        self.download_to(request, params);
    }

    /// Sends a command that sets where downloads go. Where a path is outside of a shared lease's
    /// directories, the command succeeds and downloads are canceled: Playwright names a directory
    /// of its own as it connects, and could do nothing at all if that were refused; every client
    /// says of a canceled download that it is.
    ///
    /// The pool's own directories are refused to exclusive leases, which may name all others: what
    /// is written into a Chromium's profile would be there for its next lease.
    pub(super) fn download_to(&mut self, request: &Request<'_>, mut params: Params) {
        let path = params.get("downloadPath").and_then(Value::as_str);
        if request.kind == LeaseKind::Exclusive
            && path.is_some_and(|path| self.is_reserved(request, path))
        {
            let message = "downloads may not go into the pool's own directories";
            return self.refuse(request, INVALID_PARAMS, message);
        }
        let path = path.unwrap_or_default().to_owned();
        let is_saved = |behavior: &Value| behavior == "allow" || behavior == "allowAndName";
        let is_saved = params.get("behavior").is_some_and(is_saved);
        let is_allowed = self.is_path_allowed(request, params.get("downloadPath"));
        if !is_allowed {
            params.remove("downloadPath");
            if is_saved {
                params.insert("behavior".to_owned(), json!("deny"));
            }
        }
        let context = match params.get("browserContextId").and_then(Value::as_str) {
            Some(context) => Some(context.into()),
            None => self
                .target_of_mut(request.session)
                .and_then(|on| on.info.browser_context_id.clone()),
        };
        if let Some(context) = context.and_then(|id: Id| self.contexts.get_mut(&id)) {
            context.no_downloads = (is_saved && !is_allowed).then_some(path);
        }
        self.send(request, &params);
    }

    /// Refuses a file that a shared lease may not name, and tells the holder of the lease.
    fn refuse_file(&mut self, request: &Request<'_>, file: Option<&Value>) {
        const MESSAGE: &str = "this file is outside of the directories that shared leases may \
            name (`[chrome] directories`): send what is in it, as a buffer, or have its directory \
            added there";
        let path = file.and_then(Value::as_str).unwrap_or_default();
        self.file_refused(request.lease, FileUse::Upload, path);
        self.refuse(request, INVALID_PARAMS, MESSAGE);
    }

    /// Tells the holder of a lease that a file was refused, once for each.
    pub(super) fn file_refused(&mut self, lease: LeaseId, file: FileUse, path: &str) {
        let Some(held) = self.leases.get_mut(&lease) else { return };
        let path: String = path.chars().take(LONGEST_PATH).collect();
        let told = &mut held.refused_files;
        if told.len() >= MOST_REFUSED || !told.insert((file, path.clone())) {
            return;
        }
        let holder = self
            .clients
            .values()
            .filter(|client| client.lease == lease)
            .find_map(|client| client.commands.clone());
        if let Some(holder) = holder {
            holder.file_refused(file, &path);
        }
    }

    pub(super) fn cancel_download(&mut self, request: &Request<'_>) {
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

    pub(super) fn ignore_certificate_errors(&mut self, request: &Request<'_>) {
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

    pub(super) fn navigate(&mut self, request: &Request<'_>) {
        let Some(mut params) = self.read::<Params>(request) else { return };
        let Some(rule) = self.leases.get(&request.lease).map(|lease| lease.address_rule()) else {
            return;
        };
        if let Some(target) =
            self.sessions.get(&request.session).and_then(|held| held.target.as_ref())
        {
            // Its client goes elsewhere before it could go where it was made for.
            self.departures.remove(target);
        }
        let address = params.get("url").and_then(Value::as_str);
        match address.map_or(Judgement::Allowed, |address| rule.judge(address)) {
            Judgement::Allowed => self.send(request, &params),
            Judgement::StandIn(page) => {
                params.insert("url".to_owned(), json!(page));
                self.send(request, &params);
            }
            Judgement::Invalid => {
                self.refuse(request, SERVER_ERROR, "Cannot navigate to invalid URL");
            }
            Judgement::Refused => {
                // It fails as a navigation does: a client that waits for the events of the page
                // that shows the error is not kept waiting.
                params.insert("url".to_owned(), json!(NOWHERE));
                self.send_watched(request, Some(&params), Watch::RefusedNavigation);
            }
        }
    }

    pub(super) fn files(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let files = params.get("files").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        match files.iter().find(|file| !self.is_path_allowed(request, Some(file))) {
            None => self.send(request, &params),
            outside => self.refuse_file(request, outside),
        }
    }

    /// Takes what is dragged onto a page. Its files open to the page when they are dropped, and
    /// what no page takes is opened by the browser, whatever it is.
    pub(super) fn drag(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let list = |name| parameters::at(&params, name).and_then(Value::as_array);
        let files = list("data.files").map_or(&[][..], Vec::as_slice);
        let outside = files.iter().find(|file| !self.is_path_allowed(request, Some(file)));
        if outside.is_some() {
            return self.refuse_file(request, outside);
        }
        let items = list("data.items").map_or(&[][..], Vec::as_slice);
        if !items.iter().all(|item| self.is_item_allowed(request, item)) {
            let message = "a dragged address is not allowed in this lease";
            return self.refuse(request, INVALID_PARAMS, message);
        }
        self.send(request, &params);
    }

    /// Returns `true` if something may be dragged: a list of addresses only if all could be visited. The
    /// headless shell opens them, whatever they are.
    fn is_item_allowed(&self, request: &Request<'_>, item: &Value) -> bool {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
        if !text("mimeType").to_ascii_lowercase().contains("uri-list") {
            return true;
        }
        let rule = self.leases.get(&request.lease).map(|lease| lease.address_rule());
        // Lines that begin with # are comments.
        let mut lines = text("data").lines().filter(|line| !line.starts_with('#'));
        rule.is_some_and(|rule| lines.all(|line| rule.allows(line)))
    }

    /// Sends a command whose numbers and addresses are within the bounds of a shared lease.
    pub(super) fn judged(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        if !self.is_within_bounds(request, &params) {
            return;
        }
        // Cleared, or without a number, it is the screen's own.
        if request.method.ends_with("DeviceMetricsOverride")
            && let Some(target) = self.target_of_mut(request.session)
        {
            let density = params.get("deviceScaleFactor").and_then(Value::as_f64);
            target.density = density.filter(|density| *density > 0.0).unwrap_or(1.0);
        }
        self.send(request, &params);
    }

    /// Returns `true` if the parameters of a command are within the bounds; if not, the client is told.
    pub(super) fn is_within_bounds(&mut self, request: &Request<'_>, params: &Params) -> bool {
        if request.kind == LeaseKind::Exclusive {
            return true;
        }
        let density = self.target_of_mut(request.session).map_or(1.0, |target| target.density);
        let names_window = parameters::names_window(&request.method);
        // Windows are not told by their pages: the densest counts for each of them.
        let densest = || {
            let own = self.targets.values();
            let own = own.filter(|it| self.is_own_target(request.connection, &it.info.target_id));
            own.map(|target| target.density).fold(1.0, f64::max)
        };
        let density = if names_window { densest() } else { density };
        let Some(lease) = self.leases.get_mut(&request.lease) else { return false };
        let rule = lease.address_rule();
        let screen = Screen { density, window: lease.window };
        match parameters::judge(&request.method, params, screen, |address| rule.allows(address)) {
            Ok(pixels) => {
                if names_window {
                    lease.window = lease.window.max(pixels);
                }
                true
            }
            Err(why) => {
                self.refuse(request, INVALID_PARAMS, &why.to_string());
                false
            }
        }
    }

    /// Returns `true` if a path may be named. An exclusive lease may name any.
    pub(super) fn is_path_allowed(&self, request: &Request<'_>, path: Option<&Value>) -> bool {
        match (request.kind, path) {
            (LeaseKind::Exclusive, _) | (LeaseKind::Shared, None) => true,
            (LeaseKind::Shared, Some(Value::String(path))) => {
                let Some(lease) = self.leases.get(&request.lease) else { return false };
                let directories = &lease.options.directories;
                let own = &directories[..directories.len().min(1)];
                paths::is_inside(path, directories)
                    && (paths::is_inside(path, own) || !self.is_reserved(request, path))
            }
            (LeaseKind::Shared, Some(_)) => false,
        }
    }

    fn is_reserved(&self, request: &Request<'_>, path: &str) -> bool {
        let lease = self.leases.get(&request.lease);
        lease.is_none_or(|lease| paths::is_reserved(path, &lease.options.reserved))
    }
}
