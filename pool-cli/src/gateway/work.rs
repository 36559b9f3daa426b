//! `/content`, `/screenshot`, `/pdf` and `/scrape`, as in browserless 2: one call is one lease.
//!
//! A call is read completely before it waits for a browser, and its answer is sent in pieces. If a
//! client goes away, its browser is given back, whatever the page is doing at that moment.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use futures_util::stream;
use pool_chrome::cdp::Client;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};
use url::form_urlencoded;

use super::connect::{ATTEMPTS, Unmet};
use super::lease::{Attached, ClientLease, NotConnected};
use super::leasing::{Caller, NoLease, Start, not_connected, over};
use super::problem::draining;
use super::request::{PATIENCE, collect, is_json};
use super::who::Who;
use super::{Code, Gateway, LeaseEnd, LeaseQuery, Problem};
use crate::config::LeaseKind;
use crate::loader::{Answer, Pdf, Trouble};
use crate::metrics::{Metrics, WorkOutcome};
use crate::work::{BadOrder, Done, Order, Product, WorkKind};

/// Maximum length of a body; browserless has the same.
const BODY: usize = 10 * 1024 * 1024;

/// Number of bytes of an answer that are sent at a time.
const PIECE: usize = 64 * 1024;

/// Number of pieces of an answer that may wait for its client.
const PIECES: usize = 4;

/// Maximum time for which a client may take nothing of its answer, as over a WebSocket.
const STALL: Duration = Duration::from_secs(30);

/// Returns the routes, which are also available under `/chromium`.
pub(super) fn routes() -> Router<Arc<Gateway>> {
    let mut routes = Router::new();
    for base in ["", "/chromium"] {
        for kind in WorkKind::ALL {
            routes = routes.route(&format!("{base}/{}", kind.word()), route(kind));
        }
        for name in ["function", "download", "performance"] {
            routes = routes.route(&format!("{base}/{name}"), any(not_offered));
        }
    }
    routes
}

/// Returns the route of a kind of work.
fn route(kind: WorkKind) -> MethodRouter<Arc<Gateway>> {
    let call = move |State(gateway), request| answer(kind, gateway, request);
    match kind {
        WorkKind::Content | WorkKind::Screenshot | WorkKind::Pdf => get(call).post(call),
        WorkKind::Scrape => post(call),
    }
}

/// Answers `/function`, `/download` and `/performance` of browserless, which are not offered.
async fn not_offered() -> Problem {
    let detail = "this route of browserless runs code in Node, which this pool does not have: \
                  connect your own client to /, or see /content, /screenshot, /pdf and /scrape";
    Problem::new(Code::NotOffered, detail)
}

/// A failed call: the outcome that it counts as, and the problem that its client is told.
struct Fault(WorkOutcome, Problem);

impl Fault {
    fn invalid(problem: Problem) -> Self {
        Self(WorkOutcome::Invalid, problem)
    }

    fn refused(problem: Problem) -> Self {
        Self(WorkOutcome::Refused, problem)
    }
}

async fn answer(kind: WorkKind, gateway: Arc<Gateway>, request: Request) -> Response {
    let readable = takes_problem(request.headers());
    let tally = Tally::new(gateway.observer().metrics(), kind);
    match call(kind, &gateway, request).await {
        Ok(answer) => answer.into_response(tally),
        Err(Fault(outcome, problem)) => {
            tally.end(outcome);
            if readable { problem.into_response() } else { as_text(problem) }
        }
    }
}

/// Counts a call when it has ended; a call that nobody ended has lost its client.
struct Tally {
    metrics: Arc<Metrics>,
    kind: WorkKind,
    began: Instant,
    outcome: WorkOutcome,
}

impl Tally {
    fn new(metrics: &Arc<Metrics>, kind: WorkKind) -> Self {
        let outcome = WorkOutcome::Cancelled;
        Self { metrics: Arc::clone(metrics), kind, began: Instant::now(), outcome }
    }

    fn end(mut self, outcome: WorkOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.metrics.work_ended(self.kind, self.outcome, self.began.elapsed());
    }
}

async fn call(kind: WorkKind, gateway: &Arc<Gateway>, request: Request) -> Result<Ready, Fault> {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let caller = Caller::of(&parts);
    let (asked, order, _room) = match parts.method {
        Method::POST => {
            let asked = lease_query(query).map_err(Fault::invalid)?;
            let (order, room) = read(kind, gateway, &parts.headers, body, &caller).await?;
            (asked, order, room)
        }
        Method::GET => {
            let (url, query) = split_url(query).map_err(Fault::invalid)?;
            let asked = lease_query(&query).map_err(Fault::invalid)?;
            let room = gateway.room.of(url.len()).await;
            (asked, Order::of_url(kind, url).map_err(bad_body)?, room)
        }
        _ => {
            let detail = "this route accepts only GET and POST";
            let problem = Problem::new(Code::WrongMethod, detail);
            return Err(Fault::invalid(problem));
        }
    };
    let mut asked = gateway.of_work(asked);
    let who = parts.extensions.get::<Who>().expect("the guard has put it there");
    gateway.settings().attribute(who, &mut asked).map_err(Fault::invalid)?;
    let (session, client, attached) = enter(gateway, &asked, &caller, kind).await?;
    let done = tokio::select! {
        biased;
        end = session.ended() => return Err(ended(gateway, &session, end)),
        done = order.carry_out(&client) => done,
    };
    let Done { product, answer } = match done {
        Ok(done) => done,
        Err(trouble) => return Err(failed(gateway, &session, attached, trouble).await),
    };
    let mime = product.mime();
    let rest = match product {
        Product::Pdf(mut pdf) => {
            // A call that fails completely is reported by the status.
            let first = tokio::select! {
                biased;
                end = session.ended() => return Err(ended(gateway, &session, end)),
                first = pdf.next() => first,
            };
            match first {
                Ok(first) => Rest::Pdf { first: first.unwrap_or_default(), pdf, attached, client },
                Err(trouble) => return Err(failed(gateway, &session, attached, trouble).await),
            }
        }
        product => {
            let bytes = bytes(product);
            // Without room it waits with its browser, until its own deadline ends it.
            let room = tokio::select! {
                biased;
                end = session.ended() => return Err(ended(gateway, &session, end)),
                room = gateway.room.of(bytes.len()) => room,
            };
            attached.detach(LeaseEnd::Released);
            Rest::Bytes(bytes, room)
        }
    };
    Ok(Ready { mime, answer, rest })
}

/// Reads the query of a call, without parameters that only make sense for a lease that is connected
/// to.
fn lease_query(query: &str) -> Result<LeaseQuery, Problem> {
    let asked = LeaseQuery::parse(query)?;
    let senseless = [
        ("keep", asked.keep.is_some()),
        ("session", asked.session.is_some()),
        ("idle_timeout", asked.idle_timeout.is_some()),
        ("pages", asked.pages.is_some()),
    ];
    match senseless.into_iter().find(|(_, is)| *is) {
        None => Ok(asked),
        Some((name, _)) => {
            let detail = format!("the parameter {name:?} has no meaning for a single call");
            Err(Problem::new(Code::BadParameter, detail))
        }
    }
}

/// Takes the parameter `url` out of a query.
fn split_url(query: &str) -> Result<(String, String), Problem> {
    let mut urls = Vec::new();
    let mut rest = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name == "url" {
            urls.push(value.into_owned());
        } else {
            rest.append_pair(&name, &value);
        }
    }
    match <[String; 1]>::try_from(urls) {
        Ok([url]) => Ok((url, rest.finish())),
        Err(_) => {
            let detail = "the parameter \"url\" must say, once, what to load; for more than that, \
                          POST a body of JSON";
            Err(Problem::new(Code::BadParameter, detail))
        }
    }
}

async fn read(
    kind: WorkKind,
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Body,
    caller: &Caller,
) -> Result<(Order, OwnedSemaphorePermit), Fault> {
    if !is_json(headers) {
        let detail = "the body must be JSON: Content-Type: application/json";
        return Err(Fault::invalid(Problem::new(Code::NotJson, detail)));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(BODY).min(BODY);
    let room = timeout(PATIENCE, gateway.room.of(length)).await.map_err(|_| {
        let detail = "other calls take up all the room for bodies and answers";
        let problem = Problem::new(Code::QueueFull, detail);
        Fault::refused(problem.retry_after(Duration::from_secs(1)))
    })?;
    let bytes = collect(body, BODY).await.map_err(Fault::invalid)?;
    if let Some(detour) = &caller.detour {
        detour.keep(&bytes);
    }
    Ok((Order::read(kind, &bytes).map_err(bad_body)?, room))
}

fn bad_body(why: BadOrder) -> Fault {
    Fault::invalid(Problem::new(Code::BadBody, why.0))
}

impl Gateway {
    /// Gives a call that does not ask for a kind of lease a shared one, if the pool has both kinds.
    fn of_work(&self, mut asked: LeaseQuery) -> LeaseQuery {
        if self.settings().lease_choice && asked.profile.is_none() {
            asked.lease.get_or_insert(LeaseKind::Shared);
        }
        asked
    }
}

/// Leases a browser and connects to it.
async fn enter(
    gateway: &Arc<Gateway>,
    asked: &LeaseQuery,
    caller: &Caller,
    kind: WorkKind,
) -> Result<(Arc<ClientLease>, Client, Attached), Fault> {
    let mut attempt = 1;
    loop {
        let leased = gateway.lease(asked.clone(), caller.clone(), Start::Work(kind), None).await;
        let session = leased.map_err(|no: NoLease| Fault::refused(no.into()))?;
        let unmet = Unmet::new(&session);
        let connected = session.drive().await;
        unmet.met();
        match connected {
            Ok((client, attached)) => return Ok((session, client, attached)),
            Err(NotConnected::Over(end)) if end.is_of_the_browser() && attempt < ATTEMPTS => {
                attempt += 1;
            }
            Err(why) => {
                session.end(LeaseEnd::Revoked);
                return Err(Fault::refused(not_connected(&why)));
            }
        }
    }
}

/// Returns the fault of a call whose lease has ended during it.
fn ended(gateway: &Gateway, session: &ClientLease, end: LeaseEnd) -> Fault {
    match end {
        LeaseEnd::LeaseLimit => {
            let limit = session.limit.unwrap_or_default();
            let detail = format!(
                "the call did not finish within {limit:?}: set ?timeout=, in ms, to allow more"
            );
            let problem = Problem::new(Code::WorkTimeout, detail);
            Fault(WorkOutcome::Timeout, problem)
        }
        LeaseEnd::Drained => Fault::refused(draining(gateway.settings().drain_timeout())),
        end if end.is_of_the_browser() => Fault(WorkOutcome::Failed, Problem::browser_ended(end)),
        end => Fault(WorkOutcome::Failed, over(end)),
    }
}

/// Returns the fault of a call whose page failed, and gives the browser back.
async fn failed(
    gateway: &Gateway,
    session: &ClientLease,
    attached: Attached,
    trouble: Trouble,
) -> Fault {
    if matches!(trouble, Trouble::Browser(_)) {
        // The reason will be known in a moment.
        let end = timeout(Duration::from_secs(1), session.ended()).await;
        let end = end.unwrap_or_else(|_| attached.detach(LeaseEnd::BrowserCrashed));
        return ended(gateway, session, end);
    }
    attached.detach(LeaseEnd::Released);
    let (outcome, code) = match &trouble {
        Trouble::Timeout { .. } => (WorkOutcome::Timeout, Code::GotoTimeout),
        Trouble::Wait { .. } => (WorkOutcome::Timeout, Code::WaitTimeout),
        Trouble::Unfit { .. } | Trouble::TooLarge { .. } => (WorkOutcome::Invalid, Code::BadBody),
        Trouble::Net { .. } => (WorkOutcome::Failed, Code::PageUnreachable),
        Trouble::PageCrashed => (WorkOutcome::Failed, Code::PageCrashed),
        Trouble::PageClosed => (WorkOutcome::Failed, Code::PageClosed),
        Trouble::Flooded
        | Trouble::Script { .. }
        | Trouble::Browser(_)
        | Trouble::NoBrowser(_)
        | Trouble::Protocol(_)
        | Trouble::Capture { .. } => (WorkOutcome::Failed, Code::PageFailed),
    };
    let detail = match &trouble {
        Trouble::Timeout { .. } => format!("{trouble} (gotoOptions.timeout)"),
        Trouble::TooLarge { member, .. } => format!("the member {member:?}: {trouble}"),
        Trouble::Wait { .. }
        | Trouble::Unfit { .. }
        | Trouble::Script { .. }
        | Trouble::Flooded
        | Trouble::Net { .. }
        | Trouble::PageCrashed
        | Trouble::PageClosed
        | Trouble::Browser(_)
        | Trouble::NoBrowser(_)
        | Trouble::Protocol(_)
        | Trouble::Capture { .. } => trouble.to_string(),
    };
    Fault(outcome, Problem::new(code, detail))
}

fn bytes(product: Product) -> Bytes {
    match product {
        Product::Html(text) | Product::Base64(text) => text.into(),
        Product::Picture(picture) => picture.bytes.into(),
        Product::Json(value) => value.to_string().into(),
        Product::Pdf(_) => Bytes::new(),
    }
}

/// An answer whose first piece is available.
struct Ready {
    mime: &'static str,
    answer: Option<Answer>,
    rest: Rest,
}

enum Rest {
    /// The whole answer, and the room that it takes.
    Bytes(Bytes, OwnedSemaphorePermit),
    /// It is still in the browser, which is leased until the answer has been taken.
    Pdf { first: Vec<u8>, pdf: Box<Pdf>, attached: Attached, client: Client },
}

impl Ready {
    fn into_response(self, tally: Tally) -> Response {
        let (sender, receiver) = mpsc::channel(PIECES);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.mime));
        if let Rest::Bytes(bytes, _) = &self.rest {
            headers.insert(header::CONTENT_LENGTH, bytes.len().into());
        }
        for (name, value) in self.answer.iter().flat_map(told) {
            headers.insert(name, value);
        }
        tokio::spawn(send(self.rest, sender, tally));
        let pieces = stream::unfold(receiver, |mut receiver| async move {
            let piece: io::Result<Bytes> = receiver.recv().await?;
            Some((piece, receiver))
        });
        (headers, Body::from_stream(pieces)).into_response()
    }
}

/// Returns headers that describe the answer of the page's server.
fn told(answer: &Answer) -> Vec<(HeaderName, HeaderValue)> {
    let url: String = answer.url.chars().take(1000).collect();
    let told = [
        ("x-response-code", Some(answer.status.to_string())),
        ("x-response-status", Some(answer.text.clone())),
        ("x-response-url", Some(url)),
        ("x-response-ip", answer.ip.clone()),
        ("x-response-port", answer.port.map(|port| port.to_string())),
    ];
    let header = |(name, value): (&'static str, Option<String>)| {
        // A value that is not valid in a header is left out.
        let value = HeaderValue::try_from(value?).ok()?;
        Some((HeaderName::from_static(name), value))
    };
    told.into_iter().filter_map(header).collect()
}

/// Sends an answer until its client has all of it, has gone, or takes nothing for too long.
async fn send(rest: Rest, sender: mpsc::Sender<io::Result<Bytes>>, tally: Tally) {
    let sent = match rest {
        Rest::Bytes(bytes, _room) => send_bytes(bytes, &sender).await,
        Rest::Pdf { first, mut pdf, attached, client: _client } => {
            let sent = send_pdf(first, &mut pdf, &attached, &sender).await;
            attached.detach(match sent {
                Ok(()) | Err(Unsent::Failed) => LeaseEnd::Released,
                Err(Unsent::Stalled) => LeaseEnd::SlowReader,
                Err(Unsent::Gone) => LeaseEnd::ClientGone,
            });
            sent
        }
    };
    match sent {
        Ok(()) => tally.end(WorkOutcome::Ok),
        Err(Unsent::Gone | Unsent::Stalled) => drop(tally),
        Err(Unsent::Failed) => tally.end(WorkOutcome::Failed),
    }
}

/// Reasons why an answer was not sent completely.
enum Unsent {
    /// Its client has gone.
    Gone,
    /// Its client took nothing for too long.
    Stalled,
    /// The rest of it was not available.
    Failed,
}

async fn send_bytes(
    mut bytes: Bytes,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), Unsent> {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(PIECE));
        send_piece(piece, sender).await?;
    }
    Ok(())
}

async fn send_pdf(
    first: Vec<u8>,
    pdf: &mut Pdf,
    attached: &Attached,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), Unsent> {
    let mut piece = first;
    loop {
        send_piece(piece.into(), sender).await?;
        let next = tokio::select! {
            next = pdf.next() => next.map_err(|trouble| trouble.to_string()),
            end = attached.session().ended() => Err(end.to_string()),
            () = sender.closed() => return Err(Unsent::Gone),
        };
        piece = match next {
            Ok(Some(next)) => next,
            Ok(None) => return Ok(()),
            Err(why) => {
                // Only a broken answer can show that it is incomplete.
                let _ = sender.send(Err(io::Error::other(why))).await;
                return Err(Unsent::Failed);
            }
        };
    }
}

async fn send_piece(piece: Bytes, sender: &mpsc::Sender<io::Result<Bytes>>) -> Result<(), Unsent> {
    match timeout(STALL, sender.send(Ok(piece))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Unsent::Gone),
        Err(_) => {
            // Without an error, the end would look like that of a complete answer.
            let _ = sender.try_send(Err(io::ErrorKind::TimedOut.into()));
            Err(Unsent::Stalled)
        }
    }
}

/// Returns `true` if a client accepts a problem as JSON; without a preference it accepts anything.
fn takes_problem(headers: &HeaderMap) -> bool {
    let mut accepts = headers.get_all(header::ACCEPT).iter().peekable();
    let known = ["application/problem+json", "application/json", "application/*", "*/*"];
    let mut takes = accepts.peek().is_none();
    for accept in accepts {
        let ranges = accept.to_str().unwrap_or_default().split(',');
        takes |= ranges
            .map(|range| range.split(';').next().unwrap_or_default().trim())
            .any(|range| known.contains(&range));
    }
    takes
}

/// Returns a problem in browserless' form: a sentence.
fn as_text(problem: Problem) -> Response {
    let detail = problem.detail().to_owned();
    let (mut parts, _) = problem.into_response().into_parts();
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    parts.headers.insert(header::CONTENT_TYPE, kind);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_json_for_those_who_take_it() {
        for (accept, takes) in [
            (None, true),
            (Some("*/*"), true),
            (Some("image/png, application/json;q=0.5"), true),
            (Some("image/png"), false),
            (Some("text/plain"), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(takes_problem(&headers), takes, "{accept:?}");
        }
    }

    #[test]
    fn the_address_of_a_get_is_taken_out_of_its_query() {
        let (url, rest) = split_url("priority=1&url=http%3A%2F%2Fa%2F%3Fb%3D1&token=t")
            .expect("it has an address");
        assert_eq!((&*url, &*rest), ("http://a/?b=1", "priority=1&token=t"));
        for wrong in ["", "url=a&url=b"] {
            assert!(split_url(wrong).is_err(), "{wrong}");
        }
    }
}
