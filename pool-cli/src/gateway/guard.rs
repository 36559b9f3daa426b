//! The checks before every route except the probes.
//!
//! They protect against a web page in a browser on the same machine (DNS rebinding, cross-site
//! WebSockets and forms) as much as against strangers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, Method, Uri, header};
use tokio::time::{Instant, sleep};
use url::form_urlencoded;

use super::request::is_json;
use super::who::{Who, is_token};
use super::{Code, Problem, Settings};

/// Reasons why a request is not authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoToken {
    /// It has no token.
    Missing,
    /// It has a wrong one.
    Wrong,
}

impl NoToken {
    pub(super) fn problem(self) -> Problem {
        let detail = match self {
            Self::Missing => "send the token as ?token=… or in a header: Authorization: Bearer …",
            Self::Wrong => "the token is not valid for this pool",
        };
        Problem::new(Code::Unauthorized, detail)
    }
}

impl Settings {
    /// Refuses a request that a foreign web page has made.
    pub(super) fn check_source(&self, headers: &HeaderMap, upgrade: bool) -> Result<(), Problem> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        if let Some(host) = host
            && !self.is_own_host(host)
        {
            let detail = "this host is not one of the pool's: add it to allowed_hosts";
            return Err(Problem::new(Code::ForeignHost, detail));
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            // A CDP client sends no Origin. Our own dashboard does, but opens no WebSocket.
            let own = !upgrade && host.is_some_and(|host| is_origin_of(origin, host));
            if !own && !self.allowed_origins.iter().any(|allowed| allowed == origin) {
                let detail = "web pages of this origin may not connect: add it to allowed_origins";
                return Err(Problem::new(Code::ForeignOrigin, detail));
            }
        }
        Ok(())
    }

    /// Returns the sender of a request, by its token; refuses a request without a valid one, if one is
    /// required.
    pub(super) fn check_token(&self, headers: &HeaderMap, uri: &Uri) -> Result<Who, NoToken> {
        let Some(token) = &self.token else { return Ok(Who::Operator) };
        let in_query = query_token(uri);
        let shown = [bearer(headers), in_query.as_deref()];
        let shown = || shown.into_iter().flatten();
        if shown().any(|given| is_token(token, given)) {
            return Ok(Who::Operator);
        }
        if let Some(tenant) = shown().find_map(|given| self.tenants.of(given)) {
            return Ok(Who::Tenant(Arc::clone(tenant)));
        }
        Err(if shown().next().is_some() { NoToken::Wrong } else { NoToken::Missing })
    }

    /// Refuses a request that changes state, or uses up a lease, if any web page could have sent
    /// it.
    ///
    /// With a token this cannot happen: a page does not know it. Without one, a page can send GET,
    /// HEAD and the POST of a form to every address, through images, frames, popups and redirects,
    /// and nothing in such a request distinguishes it from that of a program: browsers leave out
    /// `Origin` for links and `Sec-Fetch-Site` for addresses such as `0.0.0.0`, and say `none`
    /// after a redirect. For other methods and for JSON they ask the server first, which never
    /// agrees.
    pub(super) fn check_change(&self, headers: &HeaderMap, method: &Method) -> Result<(), Problem> {
        if self.token.is_some() {
            return Ok(());
        }
        let forged = |detail| Err(Problem::new(Code::CrossSite, detail));
        match *method {
            Method::PUT | Method::PATCH | Method::DELETE => Ok(()),
            Method::GET | Method::HEAD => forged(
                "any web page could send this GET: use POST with Content-Type: application/json, \
                 or configure a token and send it",
            ),
            _ if is_json(headers) => Ok(()),
            _ => forged(
                "any web page could send this: add the header Content-Type: application/json, or \
                 configure a token and send it",
            ),
        }
    }

    /// Returns `true` if a `Host` is one by which this gateway is meant to be reached.
    ///
    /// A page that rebinds its name to our address still sends its own name. Addresses are on a
    /// list just like names, since `0.0.0.0`, `[::ffff:127.0.0.1]` and the like lead here as well,
    /// and browsers do not treat them as loopback. Only spellings are compared, not what they stand
    /// for.
    fn is_own_host(&self, host: &str) -> bool {
        self.token.is_some()
            || without_port(host)
                .is_some_and(|host| self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)))
    }
}

/// Returns the host of `host` or `host:port`; `None` if the port is not a number.
fn without_port(authority: &str) -> Option<&str> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => {
            port.parse::<u16>().is_ok_and(|_| !port.starts_with('+')).then_some(host)
        }
        _ => Some(authority),
    }
}

/// Returns `true` if an origin is that of a page served by this host, over http or through a proxy
/// that speaks https.
fn is_origin_of(origin: &str, host: &str) -> bool {
    ["http://", "https://"]
        .into_iter()
        .filter_map(|scheme| origin.strip_prefix(scheme))
        .any(|authority| authority.eq_ignore_ascii_case(host))
}

/// Returns the token of an `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn query_token(uri: &Uri) -> Option<String> {
    let query = uri.query()?;
    let found = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "token");
    found.map(|(_, token)| token.into_owned())
}

/// Number of wrong tokens that are answered at once, as they may be a person's mistakes.
const FREE: u32 = 4;

/// Delay of the first answer after those; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(100);

/// Longest delay of an answer.
const LONGEST: Duration = Duration::from_secs(5);

/// Time without a guess after which half of a peer's guesses are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Maximum number of answers that wait for one peer; its further guesses are refused at once, so
/// that they do not take connections from others.
const WAITING: u32 = 16;

/// Maximum number of answers that wait for all peers.
const WAITING_IN_ALL: u32 = 1024;

/// Number of peers in each of the two generations that are remembered: the recent ones, and those
/// before.
const REMEMBERED: usize = 2048;

/// Slows down peers that guess the token, the more the more often they have guessed.
///
/// A right token is never delayed, whoever has guessed from the same address: behind a balancer,
/// all clients have the same one. So this slows guessing down, and makes a flood of guesses
/// visible; but it is the length of the token that makes guessing hopeless.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<Peers>);

#[derive(Debug, Default)]
struct Peers {
    recent: HashMap<IpAddr, Guessed>,
    older: HashMap<IpAddr, Guessed>,
    waiting: u32,
}

#[derive(Clone, Copy, Debug)]
struct Guessed {
    wrong: u32,
    last: Instant,
    waiting: u32,
}

/// An answer that is being delayed.
struct Turn<'a> {
    guesses: &'a Guesses,
    peer: IpAddr,
}

impl Guesses {
    /// Returns the refusal of a request without the right token, with a delay if its peer has
    /// guessed.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the guess counts all the same.
    pub(super) async fn refuse(&self, peer: Option<IpAddr>, why: NoToken) -> Problem {
        if let (NoToken::Wrong, Some(peer)) = (why, peer) {
            let peer = network(peer);
            let (delay, turn) = self.count(peer);
            if !delay.is_zero() {
                let Some(_turn) = turn else { return too_many(delay) };
                sleep(delay).await;
            }
        }
        why.problem()
    }

    /// Counts a guess. Returns the delay of its answer, and the turn to wait for it.
    fn count(&self, peer: IpAddr) -> (Duration, Option<Turn<'_>>) {
        let now = Instant::now();
        let mut peers = self.lock();
        let in_all = peers.waiting;
        let held = peers.of(peer, now);
        let halvings = now.duration_since(held.last).as_secs() / FORGOTTEN.as_secs();
        let left = u32::try_from(halvings).ok().and_then(|by| held.wrong.checked_shr(by));
        held.wrong = left.unwrap_or(0).saturating_add(1);
        held.last = now;
        let Some(doublings) = held.wrong.checked_sub(FREE + 1) else {
            return (Duration::ZERO, None);
        };
        let delay = FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST);
        if held.waiting >= WAITING || in_all >= WAITING_IN_ALL {
            return (delay, None);
        }
        held.waiting += 1;
        peers.waiting += 1;
        (delay, Some(Turn { guesses: self, peer }))
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peers {
    /// Finds a peer, or makes room for it.
    fn of(&mut self, peer: IpAddr, now: Instant) -> &mut Guessed {
        if !self.recent.contains_key(&peer) {
            if self.recent.len() >= REMEMBERED {
                self.older = std::mem::take(&mut self.recent);
            }
            let known = self.older.remove(&peer);
            let fresh = Guessed { wrong: 0, last: now, waiting: 0 };
            self.recent.insert(peer, known.unwrap_or(fresh));
        }
        self.recent.get_mut(&peer).expect("it was put there if it was missing")
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut peers = self.guesses.lock();
        peers.waiting -= 1;
        let Peers { recent, older, .. } = &mut *peers;
        // A peer that was forgotten in the meantime starts again.
        if let Some(held) = recent.get_mut(&self.peer).or_else(|| older.get_mut(&self.peer)) {
            held.waiting = held.waiting.saturating_sub(1);
        }
    }
}

/// Returns the range of addresses that one attacker commonly has: with IPv6, a whole network.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(peer) => IpAddr::V4(peer),
        IpAddr::V6(peer) => IpAddr::V6(Ipv6Addr::from_bits(peer.to_bits() >> 64 << 64)),
    }
}

fn too_many(delay: Duration) -> Problem {
    let detail = "too many wrong tokens come from this address";
    Problem::new(Code::TooManyWrongTokens, detail).retry_after(delay)
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::config::{Config, Secret};

    fn settings(change: impl FnOnce(&mut Config)) -> Settings {
        let mut config = Config::default();
        change(&mut config);
        Settings::new(&config).expect("it is valid")
    }

    fn headers<const N: usize>(pairs: [(&'static str, &str); N]) -> HeaderMap {
        pairs
            .into_iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    }

    #[test]
    fn hosts_are_a_list_and_each_has_one_spelling() {
        let settings = settings(|config| {
            config.gateway.listen = "127.8.8.8:3000".parse().expect("an address");
            config.gateway.external_url = Some("wss://pool.example/base".into());
            config.gateway.allowed_hosts = vec!["Build.Internal".into(), "192.0.2.9".into()];
        });
        for own in [
            "127.0.0.1:3000",
            "127.8.8.8:3000",
            "[::1]:3000",
            "[::1]",
            "localhost:3000",
            "LOCALHOST",
            "pool.example",
            "build.internal:9",
            "192.0.2.9",
        ] {
            assert!(settings.check_source(&headers([("host", own)]), false).is_ok(), "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:3000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "pool.localhost",
            "evil.example@127.0.0.1",
            "evil.example/@127.0.0.1",
            "",
            ":3000",
            "192.0.2.7",
            "0.0.0.0:3000",
            "0",
            "0:3000",
            "127.1",
            "127.0.1",
            "127.0.0.2",
            "127.0.0.1.",
            "127.0.0.1:",
            "127.0.0.1:+3000",
            "127.0.0.1:70000",
            "0127.0.0.1",
            "0177.0.0.1",
            "0x7f000001",
            "2130706433",
            "localhost.",
            "[::]",
            "::1",
            "[::1",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]:3000",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
        ] {
            let refused = settings.check_source(&headers([("host", foreign)]), false);
            assert_eq!(refused.map_err(|no| no.code()), Err("foreign_host"), "{foreign}");
        }
    }

    #[test]
    fn an_upgrade_with_an_origin_is_refused_unless_it_is_allowed() {
        let settings = settings(|config| {
            config.gateway.allowed_origins = vec!["https://tools.example".into()];
        });
        let check = |origin, upgrade| {
            let headers = headers([("host", "127.0.0.1:3000"), ("origin", origin)]);
            settings.check_source(&headers, upgrade).is_ok()
        };
        assert!(check("https://tools.example", true));
        assert!(check("http://127.0.0.1:3000", false));
        for origin in ["http://127.0.0.1:3000", "https://evil.example", "null", ""] {
            assert!(!check(origin, true), "{origin}");
        }
        for origin in ["http://127.0.0.1:3001", "https://evil.example", "null"] {
            assert!(!check(origin, false), "{origin}");
        }
    }

    #[test]
    fn the_token_is_shown_in_a_header_or_in_the_query() {
        let settings = settings(|config| config.gateway.token = Some(Secret::new("s3cret")));
        let in_query = |query: &str| {
            let uri: Uri = format!("/kill/all?{query}").parse().expect("a uri");
            settings.check_token(&HeaderMap::new(), &uri).is_ok()
        };
        assert!(in_query("token=s3cret"));
        assert!(!in_query("token=s3cre"));
        assert!(!in_query("token="));
        for (value, right) in [
            ("Bearer s3cret", true),
            ("bearer s3cret", true),
            ("Bearer s3cre", false),
            ("Bearer s3crett", false),
            ("Basic s3cret", false),
            ("s3cret", false),
            ("Bearer ", false),
        ] {
            let headers = headers([("authorization", value)]);
            let answer = settings.check_token(&headers, &Uri::from_static("/kill/all"));
            assert_eq!(answer.is_ok(), right, "{value}");
        }
    }

    #[test]
    fn what_a_page_can_send_unasked_changes_nothing_without_a_token() {
        let open = settings(|_| ());
        let tokened = settings(|config| config.gateway.token = Some(Secret::new("s3cret")));
        let json = "application/json; charset=utf-8";
        for (method, kind, allowed) in [
            (Method::GET, None, false),
            (Method::HEAD, None, false),
            (Method::GET, Some(json), false),
            (Method::POST, None, false),
            (Method::POST, Some("text/plain"), false),
            (Method::POST, Some("text/plain; a=application/json"), false),
            (Method::POST, Some("application/x-www-form-urlencoded"), false),
            (Method::POST, Some("multipart/form-data; boundary=x"), false),
            (Method::POST, Some("application/jsonx"), false),
            (Method::POST, Some("text/plain, application/json"), false),
            (Method::POST, Some(json), true),
            (Method::POST, Some("Application/JSON"), true),
            (Method::PUT, None, true),
            (Method::PATCH, None, true),
            (Method::DELETE, None, true),
        ] {
            let headers: HeaderMap = kind
                .map(|kind| (header::CONTENT_TYPE, kind.parse().expect("a value")))
                .into_iter()
                .collect();
            let answer = open.check_change(&headers, &method);
            assert_eq!(answer.is_ok(), allowed, "{method} {kind:?}");
            assert!(tokened.check_change(&headers, &method).is_ok(), "{method} {kind:?}");
        }
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn guess(guesses: &Guesses, peer: IpAddr) -> (u16, Duration) {
        let began = Instant::now();
        let problem = guesses.refuse(Some(peer), NoToken::Wrong).await;
        (problem.status().as_u16(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn each_wrong_token_takes_longer_up_to_a_bound_and_is_forgotten() {
        let guesses = Guesses::default();
        let mut took = Vec::new();
        for _ in 0..12 {
            took.push(guess(&guesses, PEER).await.1.as_millis());
        }
        assert_eq!(took, [0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(guess(&guesses, "192.0.2.1".parse().unwrap()).await.1, Duration::ZERO);
        sleep(FORGOTTEN * 2).await;
        assert_eq!(guess(&guesses, PEER).await.1.as_millis(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_token_is_no_guess() {
        let guesses = Guesses::default();
        let began = Instant::now();
        for _ in 0..100 {
            guesses.refuse(Some(PEER), NoToken::Missing).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn few_answers_wait_at_once_and_little_is_remembered() {
        let guesses = Guesses::default();
        let all = join_all((0..100).map(|_| guess(&guesses, PEER))).await;
        let waited = all.iter().filter(|(status, took)| *status == 401 && !took.is_zero());
        assert_eq!(waited.count(), WAITING as usize);
        assert_eq!(all.iter().filter(|(status, _)| *status == 429).count(), 80);
        assert_eq!(guesses.lock().waiting, 0);
        for number in 0..20_000_u128 {
            guess(&guesses, Ipv6Addr::from_bits(number << 64 | number).into()).await;
        }
        let peers = guesses.lock();
        assert!(peers.recent.len() + peers.older.len() <= 2 * REMEMBERED);
    }
}
