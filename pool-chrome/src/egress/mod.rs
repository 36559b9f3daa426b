//! The way out of a Chromium: a forwarder on loopback, which adds credentials and enforces rules.
//!
//! Each guarded or proxied Chromium, and each lease in it, talks to a [`Forwarder`] of its own,
//! which leads out directly or through an [`Upstream`] proxy and never goes anywhere else. Chromium
//! accepts no credentials in `--proxy-server`, where everybody could read them in the process list;
//! the forwarder adds them instead.
//!
//! Requests of browsers are judged by the [`Guard`] of the pool. It resolves a name once, judges
//! **all** its addresses, and connects to one of those that were judged, so that no name can lead
//! elsewhere between the judgement and the connection. If a proxy resolves the names, they are
//! judged by their spelling, and literal addresses as addresses.
//!
//! # What a page sees of a failure
//!
//! The forwarder has a choice only where Chromium leaves one, and picks what no client can mistake
//! for a page:
//!
//! | | `https:`, `wss:`, `ws:` | `http:` |
//! |---|---|---|
//! | against the rules | 403 to the `CONNECT`: `net::ERR_TUNNEL_CONNECTION_FAILED` | a page with status 403 that names the rule |
//! | the site cannot be reached directly | 502: the same | the connection is closed: `net::ERR_EMPTY_RESPONSE` |
//! | proxy down, silent, or refuses our credentials | 502: the same | the connection is closed |
//! | proxy works, the site cannot be reached | 502: the same | what the proxy answers, usually a page with status 502 or 503; with SOCKS, which has no pages, closed |
//!
//! A 407 of the proxy is never shown to Chromium: it would ask the client for credentials that are
//! the operator's business. [`Forwarder::last_error`] tells which failure it was.
//!
//! # Who may use it
//!
//! It listens on 127.0.0.1 only, on a port that the system picks, and serves nothing but proxy
//! requests: a web page that guesses the port cannot send it any, and one behind a guard cannot
//! even reach it. Other users of the same machine can; if they are not trusted, run the pool in a
//! network namespace of its own, such as that of a container.

mod dial;
mod exit;
mod forwarder;
mod guard;
mod pattern;
mod rules;
mod target;
mod upstream;

pub use dial::Traffic;
pub use exit::Pass;
pub use forwarder::Forwarder;
pub use guard::{Guard, Requests};
pub use pattern::{Pattern, PatternError};
pub use rules::{Private, Refusal, Rules};
pub use upstream::{ProxyError, Upstream};
