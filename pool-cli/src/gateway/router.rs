use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::handler::Handler;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, delete, get, patch, post, put};
use axum::{Extension, Router};

use super::bridge::Handshake;
use super::compat::chromium::{self, Change};
use super::compat::{browserless, kernel};
use super::who::{Need, Who};
use super::{Code, Gateway, Problem, address, api, connect, dashboard, fleet, relay, work};
use crate::api::{Fleet, Node};
use crate::fleet::Relayed;

/// Returns all routes, behind their guards. Requests for `/json/version` in its many spellings must
/// have been through [`address::find`] before.
pub(super) fn router(gateway: &Arc<Gateway>) -> Router {
    let reads = Router::new()
        .route("/", get(connect::lease))
        .route("/chromium", get(connect::lease))
        .route(address::NEW_PAGE, get(connect::lease))
        .route("/json", get(chromium::list))
        .route("/json/list", get(chromium::list))
        .route(address::VERSION, get(chromium::version))
        .route(address::PROTOCOL, get(chromium::protocol))
        .route("/openapi.json", get(chromium::openapi))
        .route("/meta", get(browserless::meta))
        .route("/active", get(browserless::active))
        .route("/pressure", get(browserless::pressure))
        .route("/sessions", get(browserless::sessions))
        .route("/browser_pools", get(kernel::pools))
        .route("/browser_pools/{name}", get(kernel::pool))
        .route("/browsers", get(kernel::browsers))
        .route("/browsers/{id}", get(kernel::browser))
        .route("/browsers/{id}/{*rest}", any(kernel::not_offered))
        .route("/profiles", any(kernel::not_offered))
        .route("/profiles/{*rest}", any(kernel::not_offered))
        .route("/metrics", get(metrics))
        .route("/api/state", get(api::state))
        .route("/api/history", get(api::history))
        .route("/api/usage", get(api::usage))
        .route("/api/stream", get(api::stream))
        .route("/api/autoscale", get(fleet::autoscale))
        .route("/api/fleet", get(fleet::fleet))
        .route("/api/browsers/{id}/page", get(api::page))
        .route("/api/browsers/{id}/screenshot", get(api::screenshot))
        .fallback(unknown_route)
        .route_layer(from_fn_with_state(gateway.clone(), may_read));
    let changes = Router::new()
        .route("/json/new", put(chromium::new))
        .route(
            "/json/activate/{page}",
            changing(chromium::change).layer(Extension(Change::ACTIVATE)),
        )
        .route("/json/close/{page}", changing(chromium::change).layer(Extension(Change::CLOSE)))
        .route(
            "/kill/{id}",
            get(browserless::kill).post(browserless::kill).delete(browserless::kill),
        )
        .route("/browser_pools/{name}", patch(kernel::update))
        .route("/browsers/{id}", delete(kernel::delete))
        .route("/browser_pools/{name}/acquire", post(kernel::acquire))
        .route("/browser_pools/{name}/release", post(kernel::release))
        .route("/browser_pools/{name}/flush", post(kernel::flush))
        .route("/api/browsers/{id}/retire", post(api::retire))
        .route("/api/leases/{id}/kill", post(browserless::kill))
        .route("/api/resize", post(api::resize))
        .route("/api/flush", post(api::flush))
        .route("/api/drain", post(api::drain))
        .route("/api/reload", post(api::reload))
        .route("/api/fleet/{node}/drain", post(fleet::drain))
        .route("/api/fleet/{node}/undrain", post(fleet::undrain))
        .route("/api/profiles/{profile}/make-new", post(fleet::make_new))
        .merge(work::routes())
        .route_layer(from_fn_with_state(gateway.clone(), may_change));
    Router::new()
        .merge(reads)
        .merge(changes)
        // They are the same for everybody, and contain nothing of this pool.
        .route("/dashboard/{*file}", get(dashboard::file))
        // The address itself replaces the token.
        .route("/devtools/browser/{lease}", get(connect::reconnect))
        .route("/devtools/browser/{lease}/json", get(chromium::list_of_lease))
        .route("/devtools/browser/{lease}/json/list", get(chromium::list_of_lease))
        .route("/devtools/browser/{lease}/json/version", get(chromium::version_of_lease))
        .route("/devtools/browser/{lease}/json/protocol", get(chromium::protocol))
        .route("/devtools/browser/{lease}/json/new", put(chromium::new_in_lease))
        .route(
            "/devtools/browser/{lease}/json/activate/{page}",
            changing(chromium::change_in_lease).layer(Extension(Change::ACTIVATE)),
        )
        .route(
            "/devtools/browser/{lease}/json/close/{page}",
            changing(chromium::change_in_lease).layer(Extension(Change::CLOSE)),
        )
        .route("/devtools/page/{page}", get(connect::page))
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(gateway.clone(), relay::send))
        .layer(from_fn_with_state(gateway.clone(), is_ours))
        .layer(from_fn_with_state(gateway.clone(), relay::receive))
        .route("/livez", get(livez))
        .route("/healthz", get(livez))
        .route("/readyz", get(readyz))
        .layer(map_response(as_it_is))
        .with_state(gateway.clone())
}

/// Routes a change that Chromium also accepts by GET, if the request has the token or the lease's
/// address.
fn changing<H, T>(handler: H) -> MethodRouter<Arc<Gateway>>
where
    H: Handler<T, Arc<Gateway>>,
    T: 'static,
{
    put(handler.clone()).post(handler.clone()).get(handler)
}

/// Lets a request through unless a foreign web page has sent it.
async fn is_ours(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    if request.extensions().get::<Arc<Relayed>>().is_some() {
        // The node that passed it on has checked it.
        return next.run(request).await;
    }
    let peer = request.extensions().get::<SocketAddr>();
    if peer.is_some_and(|peer| gateway.pool().is_a_browser(*peer)) {
        let detail = "a browser of this pool may not reach the pool";
        return Problem::new(Code::OwnBrowser, detail).into_response();
    }
    let upgrade = Handshake::is_wanted(request.headers());
    match gateway.settings().check_source(request.headers(), upgrade) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn may_read(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    // The page asks for the token itself, and has nothing to show without it.
    if dashboard::is_wanted(&request) {
        return next.run(request).await;
    }
    match gateway.settings().check_token(request.headers(), request.uri()) {
        Ok(who) => admit(who, request, next).await,
        Err(why) => gateway.guesses.refuse(peer(&request), why).await.into_response(),
    }
}

async fn may_change(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let settings = gateway.settings();
    let who = match settings.check_token(request.headers(), request.uri()) {
        Ok(who) => who,
        Err(why) => return gateway.guesses.refuse(peer(&request), why).await.into_response(),
    };
    match settings.check_change(request.headers(), request.method()) {
        Ok(()) => admit(who, request, next).await,
        Err(problem) => problem.into_response(),
    }
}

/// Runs a route for those who may use it, and passes on to it who they are.
async fn admit(who: Who, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if let Err(problem) = who.check(Need::of(request.method(), path)) {
        return problem.into_response();
    }
    request.extensions_mut().insert(who);
    next.run(request).await
}

fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<SocketAddr>().map(SocketAddr::ip)
}

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Adds headers so that nothing is cached, mistaken for another type, or shown inside a page of
/// another site: the screen of a browser is a picture like any other.
async fn as_it_is(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn metrics(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    let stats = gateway.stats();
    let tenants = gateway.tenant_numbers(&stats);
    let fleet = gateway.see_fleet().await;
    let (memory, requests) = (gateway.memory(), gateway.pool().requests());
    let metrics = gateway.observer().metrics();
    let text = metrics.render(&stats, memory, requests, &tenants, fleet.as_ref());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn unknown_route(State(gateway): State<Arc<Gateway>>, request: Request) -> Problem {
    match gateway.settings().check_token(request.headers(), request.uri()) {
        Ok(_) => {
            let detail = "there is nothing here; clients connect to /";
            Problem::new(Code::UnknownRoute, detail)
        }
        Err(why) => gateway.guesses.refuse(peer(&request), why).await,
    }
}

async fn wrong_method() -> Problem {
    let detail = "this route does not exist for this method";
    Problem::new(Code::WrongMethod, detail)
}

/// Answers that the process is alive. Nothing else is checked: restarting a pool because its proxy
/// is down would end the leases that work.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Answers whether new leases are given.
pub(super) async fn readyz(State(gateway): State<Arc<Gateway>>) -> (StatusCode, &'static str) {
    if gateway.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    let fleet = gateway.see_fleet().await;
    if fleet.as_ref().and_then(Fleet::own).is_some_and(Node::is_draining) {
        return (StatusCode::SERVICE_UNAVAILABLE, "this node of the fleet was drained\n");
    }
    let mut others = fleet.iter().flat_map(|fleet| &fleet.nodes).filter(|node| !node.own);
    let is_served = others.any(|node| node.is_running() && node.places > 0);
    let stats = gateway.pool().stats();
    if stats.load.max_size == 0 && !is_served {
        return (StatusCode::SERVICE_UNAVAILABLE, "no live node with browsers is known\n");
    }
    let usable = stats.load.total() - stats.load.closing - stats.load.creating;
    let failing = stats.classes.iter().any(|class| class.class.is_default() && class.failing);
    if failing && usable == 0 && !is_served {
        return (StatusCode::SERVICE_UNAVAILABLE, "no browser can be launched\n");
    }
    (StatusCode::OK, "ok\n")
}
