//! Commands about files, addresses and certificates, and the resulting downloads: Chromium reports
//! all of them to every session, so their owners must be found.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::{INVALID_PARAMS, Params, Request, SERVER_ERROR};
use super::{ConnectionId, LeaseId, Owner, Reply, State, Watch};
use crate::mux::address::{Judgement, NOWHERE};
use crate::mux::lease_options::{FileUse, LeaseKind};
use crate::mux::parameters::{self, Screen};
use crate::mux::target::{Id, SessionId};
use crate::mux::{address, framing};

/// Maximum number of refused files of a lease that its holder is told of, and of characters of each
/// path.
const MOST_REFUSED: usize = 64;
const LONGEST_PATH: usize = 1024;

impl State {
    pub(super) fn download_behavior(&mut self, request: &Request<'_>) {
        let Some((params, _)) = self.in_context(request, INVALID_PARAMS) else { return };
        self.download_to(request, params);
    }

    /// Sends a command that sets where downloads go. If a path is outside of a shared lease's
    /// directories, the command succeeds and downloads are canceled: Playwright names a directory
    /// of its own when it connects, and could do nothing at all if that were refused; every client
    /// reports a canceled download as such.
    ///
    /// The pool's own directories are refused even to exclusive leases, which may name any others:
    /// anything written into a Chromium's profile would be there for its next lease.
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
        if let Some(context) = context {
            let context: Id = context;
            self.registry.set_no_downloads(&context, (is_saved && !is_allowed).then_some(path));
        }
        self.send(request, &params);
    }

    /// Refuses a file that a shared lease may not name, and tells the holder of the lease.
    fn refuse_file(&mut self, request: &Request<'_>, file: Option<&Value>) {
        const MESSAGE: &str = "this file is outside of the directories that shared leases may \
            name (`[chrome] directories`): send its content as a buffer, or have its \
            directory added there";
        let path = file.and_then(Value::as_str).unwrap_or_default();
        self.file_refused(request.lease, FileUse::Upload, path);
        self.refuse(request, INVALID_PARAMS, MESSAGE);
    }

    /// Tells the holder of a lease that a file was refused, once for each.
    pub(super) fn file_refused(&mut self, lease: LeaseId, file: FileUse, path: &str) {
        let Some(held) = self.leases.get_mut(lease) else { return };
        let path: String = path.chars().take(LONGEST_PATH).collect();
        let told = &mut held.refused_files;
        if told.len() >= MOST_REFUSED || !told.insert((file, path.clone())) {
            return;
        }
        if let Some(holder) = self.leases.holder_of(lease) {
            self.effects.file_refused(holder, file, path);
        }
    }

    pub(super) fn cancel_download(&mut self, request: &Request<'_>) {
        let Some((params, _)) = self.in_context(request, INVALID_PARAMS) else { return };
        let guid = params.get("guid").and_then(Value::as_str).unwrap_or_default();
        let held = self.leases.get(request.lease);
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
        if let Some(client) = self.leases.client_mut(request.connection) {
            client.ignore_certificates = *ignore;
        }
        for page in self.sessions.pages_of(request.connection) {
            self.ignore_certificates(page, *ignore);
        }
        self.answer(&request.relay(), "{}");
    }

    pub(super) fn navigate(&mut self, request: &Request<'_>) {
        let Some(mut params) = self.read::<Params>(request) else { return };
        let Some(rule) = self.leases.get(request.lease).map(|lease| lease.address_rule()) else {
            return;
        };
        if let Some(target) = self.sessions.target_of(request.session) {
            // Its client navigates before the page could go to the address that it was made for.
            self.registry.end_departure(target);
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
                // It fails like a navigation, so that a client that waits for the events of the
                // error page is not kept waiting.
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

    /// Handles what is dragged onto a page. The page can open its files when they are dropped, and
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

    /// Returns `true` if something may be dragged: a list of addresses only if all of them may be
    /// visited. The headless shell opens them, whatever they are.
    fn is_item_allowed(&self, request: &Request<'_>, item: &Value) -> bool {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
        if !text("mimeType").to_ascii_lowercase().contains("uri-list") {
            return true;
        }
        let rule = self.leases.get(request.lease).map(|lease| lease.address_rule());
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
        // If it is cleared, or without a number, it is the screen's own.
        if request.method.ends_with("DeviceMetricsOverride")
            && let Some(target) = self.target_of_mut(request.session)
        {
            let density = params.get("deviceScaleFactor").and_then(Value::as_f64);
            target.density = density.filter(|density| *density > 0.0).unwrap_or(1.0);
        }
        self.send(request, &params);
    }

    /// Returns `true` if the parameters of a command are within the bounds; otherwise the client
    /// gets an error.
    pub(super) fn is_within_bounds(&mut self, request: &Request<'_>, params: &Params) -> bool {
        if request.kind == LeaseKind::Exclusive {
            return true;
        }
        let density = self.target_of_mut(request.session).map_or(1.0, |target| target.density);
        let names_window = parameters::names_window(&request.method);
        // A window does not say which pages it shows, so the densest one counts.
        let densest = || {
            let own = self.registry.targets();
            let own = own.filter(|it| self.is_own_target(request.connection, &it.info.target_id));
            own.map(|target| target.density).fold(1.0, f64::max)
        };
        let density = if names_window { densest() } else { density };
        let Some(lease) = self.leases.get_mut(request.lease) else { return false };
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

    /// Returns `true` if a path may be named. An exclusive lease may name any path.
    fn is_path_allowed(&self, request: &Request<'_>, path: Option<&Value>) -> bool {
        match (request.kind, path) {
            (LeaseKind::Exclusive, _) | (LeaseKind::Shared, None) => true,
            (LeaseKind::Shared, Some(Value::String(path))) => {
                let Some(lease) = self.leases.get(request.lease) else { return false };
                let directories = &lease.options.directories;
                let own = &directories[..directories.len().min(1)];
                address::is_inside(path, directories)
                    && (address::is_inside(path, own) || !self.is_reserved(request, path))
            }
            (LeaseKind::Shared, Some(_)) => false,
        }
    }

    fn is_reserved(&self, request: &Request<'_>, path: &str) -> bool {
        let lease = self.leases.get(request.lease);
        lease.is_none_or(|lease| address::is_reserved(path, &lease.options.reserved))
    }
}

#[derive(Deserialize)]
struct Progress {
    guid: Id,
    state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DownloadParams {
    guid: Id,
    #[serde(default)]
    frame_id: String,
}

impl State {
    /// Handles the beginning of a download of any lease.
    pub(super) fn download_begins(&mut self, params: &RawValue) {
        let Ok(DownloadParams { guid, frame_id }) = serde_json::from_str(params.get()) else {
            return;
        };
        // A frame within a page is not a target: its lease is known once a client has asked.
        let target = self.registry.target(&frame_id);
        let lease = target.and_then(|target| self.registry.lease_of(target));
        let lease = lease.or_else(|| self.leases.that_had(&frame_id));
        let context = target.and_then(|target| target.info.browser_context_id.clone());
        self.leases.download_begun(guid, lease);
        if let Some(lease) = lease {
            self.download_canceled(lease, context.as_ref());
        }
    }

    /// Tells the holder of a lease that a new download is canceled, if its destination implies
    /// that. The context is unknown if the page is gone, or if a frame began the download.
    fn download_canceled(&mut self, lease: LeaseId, context: Option<&Id>) {
        let canceled = self.registry.no_downloads(lease, context);
        if let Some(path) = canceled {
            self.file_refused(lease, FileUse::Download, &path);
        }
    }

    /// Handles the progress or the end of a download of any lease.
    pub(super) fn download_goes_on(&mut self, params: &RawValue) {
        let Ok(Progress { guid, state }) = serde_json::from_str(params.get()) else { return };
        if state != "inProgress" {
            self.leases.download_ended(&guid);
        }
    }

    pub(super) fn download_event(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        method: &str,
        params: &RawValue,
        message: &Bytes,
    ) {
        let Ok(DownloadParams { guid, frame_id }) =
            serde_json::from_str::<DownloadParams>(params.get())
        else {
            return;
        };
        let root = matches!(
            self.sessions.get(session).map(|held| held.owner),
            Some(Owner::Browser { root: true, .. })
        );
        let event: Bytes = if root { framing::without_session(message) } else { message.clone() };
        let Some(client) = self.leases.client_mut(connection) else { return };
        let lease = client.lease;
        let Some(event) = client.downloads.keep(&guid, event) else { return };
        let Some(held) = self.leases.get_mut(lease) else { return };
        let alone = held.options.kind == LeaseKind::Exclusive;
        let known = alone
            || held.downloads.contains(&guid)
            || held.had(&frame_id)
            || self.is_own_target(connection, &frame_id);
        if known {
            if let Some(held) = self.leases.get_mut(lease) {
                held.downloads.insert(guid);
            }
            return self.deliver(connection, event);
        }
        if method == "Browser.downloadWillBegin" {
            self.ask_whose(connection, &guid, frame_id, event);
        }
    }

    /// Asks the client's pages which of them has a frame that is not a target of its own.
    fn ask_whose(&mut self, connection: ConnectionId, guid: &Id, frame: String, event: Bytes) {
        let mut pages = self.sessions.pages_of(connection);
        pages.retain(|page| {
            let target = self.sessions.target_of(*page).and_then(|id| self.registry.target(id));
            target.is_some_and(|target| matches!(&*target.info.kind, "page" | "iframe"))
        });
        if pages.is_empty() {
            return;
        }
        if let Some(client) = self.leases.client_mut(connection) {
            client.downloads.ask(guid.clone(), frame, event, pages.len());
        }
        for page in pages {
            let reply = Reply::FrameTree { connection, guid: guid.clone() };
            self.own_command(Some(page), "Page.getFrameTree", &json!({}), reply);
        }
    }

    /// Handles a page's answer to which frames it has.
    pub(super) fn frame_tree(&mut self, connection: ConnectionId, guid: &Id, frames: &str) {
        let Some(client) = self.leases.client_mut(connection) else { return };
        let lease = client.lease;
        let Some(events) = client.downloads.listed(guid, frames) else { return };
        if let Some(lease) = self.leases.get_mut(lease) {
            lease.downloads.insert(guid.clone());
        }
        self.download_canceled(lease, None);
        for event in events {
            self.deliver(connection, event);
        }
    }
}
