//! The rules, applied.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::attach::DiscoverParams;
use super::client::{INVALID_PARAMS, NO_TARGET, NOT_FOUND, Params, Request, SERVER_ERROR, write};
use super::{Reply, State, Watch};
use crate::mux::lease_options::{ClientProxies, LeaseKind};
use crate::mux::link::{Frame, LARGE};
use crate::mux::rules::{self, Rule, SessionKind};
use crate::mux::target::Id;
use crate::mux::{EndReason, envelope};
use crate::protocol;

impl State {
    pub(super) fn apply(&mut self, rule: Rule, request: &Request<'_>) {
        match rule {
            Rule::Pass => self.pass(request),
            Rule::Taint => {
                if let Some(lease) = self.leases.get_mut(request.lease) {
                    lease.tainted = true;
                }
                self.pass(request);
            }
            Rule::Screens => {
                if let Some(lease) = self.leases.get_mut(request.lease) {
                    lease.screens = true;
                }
                self.pass(request);
            }
            Rule::Refuse | Rule::NotAllowed if !protocol::has_command(&request.method) => {
                let message = format!("'{}' wasn't found", request.method);
                self.refuse(request, NOT_FOUND, &message);
            }
            Rule::Refuse => self.refuse_method(request),
            Rule::NotAllowed => self.refuse(request, SERVER_ERROR, "Not allowed"),
            Rule::Nothing => self.answer(&request.relay(), "{}"),
            Rule::Holder => self.ask_holder(request),

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
            Rule::AttachBelow => self.auto_attach_below(request),
            Rule::Message => self.send_to_target(request),
            Rule::OwnTarget => {
                let Some((params, _)) = self.own_target(request, NO_TARGET) else { return };
                self.send(request, &params);
            }
            Rule::CloseTarget => {
                let Some((params, target)) = self.own_target(request, NO_TARGET) else { return };
                self.note_closing(&target);
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
                if !self.is_own_window(request.lease, &params) {
                    self.refuse(request, SERVER_ERROR, "Browser window not found");
                } else if self.is_within_bounds(request, &params) {
                    self.send(request, &params);
                }
            }
            Rule::IgnoreCertificates => self.ignore_certificate_errors(request),
            Rule::Navigate => self.navigate(request),
            Rule::Files => self.files(request),
            Rule::Drag => self.drag(request),
            Rule::DownloadPath => {
                let Some(params) = self.read::<Params>(request) else { return };
                self.download_to(request, params);
            }
            Rule::Judged => self.judged(request),
            Rule::LeadsRound => {
                let held = self.leases.get(request.lease);
                let rule = match held.map(|lease| &lease.options.client_proxies) {
                    Some(ClientProxies::Any) => Rule::Taint,
                    Some(ClientProxies::Only(_)) | None => Rule::Refuse,
                };
                self.apply(rule, request);
            }
        }
    }

    /// Sends a command as it is: its reply finds the client by itself, since ids are per session.
    pub(super) fn pass(&mut self, request: &Request<'_>) {
        let params = request.params.map(|params| params.get());
        match (request.whole, params) {
            (Some(whole), Some(params)) => {
                self.forward_large(request, whole.slice_ref(params.as_bytes()));
            }
            _ => self.forward(request, params),
        }
    }

    /// Passes a command on under the client's own id, and counts that it waits for an answer.
    fn forward(&mut self, request: &Request<'_>, params: Option<&str>) {
        let frame = envelope::write(request.id, &request.method, params, Some(request.session));
        self.forward_frame(request, frame.into());
    }

    /// Does the same with params that are too large to be copied.
    fn forward_large(&mut self, request: &Request<'_>, params: Bytes) {
        let (head, tail) =
            envelope::around_params(request.id, &request.method, Some(request.session));
        self.forward_frame(request, Frame::around(head, params, tail));
    }

    fn forward_frame(&mut self, request: &Request<'_>, frame: Frame) {
        if let Some(session) = self.sessions.get_mut(request.session) {
            session.unanswered += 1;
        }
        self.push_client(request.connection, frame);
    }

    /// Sends a command with the params that the rules have read, rewritten: Chromium gets exactly
    /// what was judged.
    pub(super) fn send(&mut self, request: &Request<'_>, params: &Params) {
        let params = write(params);
        if params.len() < LARGE {
            self.forward(request, Some(&params));
        } else {
            self.forward_large(request, params.into());
        }
    }

    /// Does the same, but its reply is examined on the way back.
    pub(super) fn send_watched(
        &mut self,
        request: &Request<'_>,
        params: Option<&Params>,
        watch: Watch,
    ) {
        let written = params.map(write);
        let params = written.as_deref().or(request.params.map(|params| params.get()));
        let reply = Reply::Relay(request.relay(), watch);
        self.relay(request.connection, Some(request.session), &request.method, params, reply);
    }

    /// Answers a command that only the lease's holder knows.
    fn ask_holder(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let holder = self.leases.client(request.connection).and_then(|it| it.commands.clone());
        match holder.and_then(|holder| holder.call(&request.method, &params)) {
            Some(Ok(result)) => self.answer(&request.relay(), &result.to_string()),
            Some(Err(message)) => self.refuse(request, SERVER_ERROR, &message),
            None => {
                let message = format!("'{}' wasn't found", request.method);
                self.refuse(request, NOT_FOUND, &message);
            }
        }
    }

    /// Refuses a command that Chromium has. If it is about a page, the client has forgotten to name
    /// its session, and the message says so.
    fn refuse_method(&mut self, request: &Request<'_>) {
        let method = &request.method;
        if request.on == SessionKind::Browser && rules::is_of_pages(method, request.kind) {
            let message = format!(
                "'{method}' wasn't found: it applies to a page, but the message does not name the \
                 session of one (\"sessionId\")"
            );
            return self.refuse(request, NOT_FOUND, &message);
        }
        let place = match request.kind {
            LeaseKind::Shared => "a shared browser lease",
            LeaseKind::Exclusive => "a browser lease",
        };
        let message = format!("'{method}' is not available in {place}");
        self.refuse(request, SERVER_ERROR, &message);
    }

    pub(super) fn refuse(&mut self, request: &Request<'_>, code: i32, message: &str) {
        let error = envelope::error(Some(request.id), code, message, request.visible);
        self.deliver(request.connection, error);
    }

    /// Reads the params of a command, or sends the client an error.
    pub(super) fn read<T: DeserializeOwned>(&mut self, request: &Request<'_>) -> Option<T> {
        let text = request.params.map_or("{}", |params| params.get());
        // Serde would also accept a JSON array for a struct.
        let params = text.starts_with('{').then(|| {
            let read = serde_json::from_str(text);
            read.or_else(|_| serde_json::from_str(&without_lone_surrogates(text))).ok()
        });
        match params.flatten() {
            Some(params) => Some(params),
            None => {
                self.refuse(request, INVALID_PARAMS, "Invalid parameters");
                None
            }
        }
    }

    /// Reads params that name a target, which must be the lease's own.
    pub(super) fn own_target(
        &mut self,
        request: &Request<'_>,
        message: &str,
    ) -> Option<(Params, Id)> {
        let mut params: Params = self.read(request)?;
        let named = params.get("targetId").and_then(Value::as_str).unwrap_or_default();
        let own = self
            .registry
            .target(named)
            .filter(|target| target.info.kind != "browser")
            .filter(|_| self.is_own_target(request.connection, named));
        // A tab that Chromium does not know stands for its page.
        let own = own.map(|target| {
            let id = &target.info.target_id;
            let page = self
                .registry
                .targets()
                .find(|page| target.invented && page.tab.as_ref() == Some(id));
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
}

/// Returns JSON whose strings are valid text: half a surrogate pair becomes the replacement
/// character, as in Chromium.
fn without_lone_surrogates(text: &str) -> String {
    let escape = |at: usize| {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut written = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let end = match (escape(at), escape(at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at + 12,
            (Some(0xD800..=0xDFFF), _) => {
                written.push_str("\\ufffd");
                at += 6;
                continue;
            }
            // The backslash that is escaped does not begin another escape.
            _ if rest.starts_with('\\') => {
                at + 1 + rest[1..].chars().next().map_or(0, char::len_utf8)
            }
            _ => at + rest.chars().next().map_or(0, char::len_utf8),
        };
        written.push_str(&text[at..end]);
        at = end;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_pair_of_surrogates_is_replaced_and_nothing_else() {
        for (text, expected) in [
            (r#"{"url":"http://\ud800"}"#, r#"{"url":"http://\ufffd"}"#),
            (r#""\ude00\ud83d\ude00\ud83d""#, r#""\ufffd\ud83d\ude00\ufffd""#),
            (r#""\\ud800 ü \u00fc \"""#, r#""\\ud800 ü \u00fc \"""#),
            ("", ""),
        ] {
            assert_eq!(without_lone_surrogates(text), expected);
        }
    }
}
