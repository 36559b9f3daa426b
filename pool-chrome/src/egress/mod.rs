//! The way out of a proxied Chromium: a forwarder on loopback that adds the credentials.
//!
//! Chromium takes no credentials in `--proxy-server`, and there everybody could read them in the
//! process list. So each proxied Chromium talks to a [`Forwarder`] of its own, which passes
//! everything on to the [`Upstream`] proxy and never goes anywhere else.
//!
//! # What a page sees when the proxy fails
//!
//! The forwarder has a choice only where Chromium leaves one, and takes what no client can take
//! for a page:
//!
//! | | `https:`, `wss:`, `ws:` | `http:` |
//! |---|---|---|
//! | proxy down, silent, or refuses our credentials | 502 to the `CONNECT`: `net::ERR_TUNNEL_CONNECTION_FAILED` | the connection is closed: `net::ERR_EMPTY_RESPONSE` |
//! | proxy works, the site cannot be reached | the same | what the proxy answers, usually a page with status 502 or 503; with SOCKS, which has no pages, closed |
//!
//! A 407 of the proxy is never shown to Chromium: it would ask the client for credentials that
//! are the operator's business. Which failure it was is told by [`Forwarder::last_error`].
//!
//! # Who may use it
//!
//! It listens on 127.0.0.1 only, on a port that the system picks, and serves nothing but proxy
//! requests: a web page that guesses the port can send it none. Other users of the same machine
//! can; where those are not trusted, run the pool in a network namespace of its own, as a
//! container has it.

mod auth;
mod error;
mod forwarder;
mod http;
mod meter;
mod session;
mod socks5;
mod tunnel;
mod upstream;

pub use error::ProxyError;
pub use forwarder::Forwarder;
pub use meter::Traffic;
pub use upstream::Upstream;
