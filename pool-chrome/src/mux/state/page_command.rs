//! Commands about files, addresses and certificates.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::lease_options::LeaseKind;
use super::super::paths;
use super::super::session_id::SessionId;
use super::client::Request;
use super::command::{INVALID_PARAMS, Params};
use super::{Owner, State};

impl State {
    pub(super) fn download_behavior(&mut self, request: &Request<'_>) {
        let Some((params, _)) = self.in_context(request, INVALID_PARAMS) else { return };
        self.download_to(request, params);
    }

    /// Sends a command that sets where downloads go. A path elsewhere becomes the lease's own
    /// directory: Playwright always names one of its own machine, and fails if it is refused.
    pub(super) fn download_to(&mut self, request: &Request<'_>, mut params: Params) {
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

    pub(super) fn files(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let files = params.get("files").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if files.iter().all(|file| self.is_path_allowed(request, Some(file))) {
            self.send(request, &params);
        } else {
            self.refuse(request, INVALID_PARAMS, "a file is outside of the lease's directories");
        }
    }

    /// Whether a path may be named. An exclusive lease may name any.
    pub(super) fn is_path_allowed(&self, request: &Request<'_>, path: Option<&Value>) -> bool {
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
