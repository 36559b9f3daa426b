//! Talks to a running pool: the shared part of `exec`, `status`, `resize` and the like.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use ureq::http::Response;
use ureq::{Agent, BodyReader, RequestBuilder};
use url::Url;

use crate::config::Secret;
use crate::exit::Failure;

/// Timeout of a request that may wait for a browser: longer than a pool lets anybody wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3700);

/// Heading of the options in help texts. It is set on each of them: on the struct, it would apply
/// to everything that follows in the command.
const HEADING: &str = "Pool";

/// The pool to talk to; flattened into the arguments of each command that does.
#[derive(Clone, Debug, clap::Args)]
pub struct ClientArgs {
    /// Address of the pool.
    #[arg(long, value_name = "URL", env = "POOL_URL", default_value = "http://127.0.0.1:3000", help_heading = HEADING)]
    pub url: String,
    /// Token of the pool; prefer the environment, where `ps` does not show it.
    #[arg(long, value_name = "TOKEN", env = "POOL_TOKEN", hide_env_values = true, help_heading = HEADING)]
    pub token: Option<String>,
}

/// The pool that runs, if there is one to use; flattened into the arguments of each command that
/// otherwise starts one of its own.
#[derive(Clone, Debug, clap::Args)]
pub struct RunningPoolArgs {
    /// Use the running pool at this address; by default one is started.
    #[arg(long, value_name = "URL", env = "POOL_URL", help_heading = HEADING)]
    url: Option<String>,
    /// Token of that pool; prefer the environment, where `ps` does not show it.
    #[arg(long, value_name = "TOKEN", env = "POOL_TOKEN", hide_env_values = true, help_heading = HEADING)]
    token: Option<String>,
}

impl RunningPoolArgs {
    /// Returns the client of that pool, if there is one; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// If the address is not valid.
    pub fn client(&self) -> Result<Option<Client>, Failure> {
        self.url.as_deref().map(|url| Client::new(url, self.token.as_deref())).transpose()
    }
}

/// A client of a running pool.
#[derive(Debug)]
pub struct Client {
    base: String,
    token: Option<Secret>,
    agent: Agent,
}

impl ClientArgs {
    /// Returns the client; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// If the address is not valid.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.url, self.token.as_deref())
    }
}

impl Client {
    /// Creates a client of the pool at this address: `http`, `https`, `ws` or `wss`.
    ///
    /// # Errors
    ///
    /// If the address is not valid.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, Failure> {
        let wrong = || {
            Failure::new(format!("{url:?} is not the address of a pool"))
                .hint("write one such as http://127.0.0.1:3000")
        };
        let mut parsed = Url::parse(url).map_err(|_| wrong())?;
        let scheme = match parsed.scheme() {
            "http" | "ws" => "http",
            "https" | "wss" => "https",
            _ => return Err(wrong()),
        };
        let in_query = parsed.query_pairs().find(|(name, _)| name == "token");
        let in_query = in_query.map(|(_, token)| token.into_owned());
        parsed.set_query(None);
        let rest = parsed.as_str().split_once(':').ok_or_else(wrong)?.1;
        let base = format!("{scheme}:{}", rest.trim_end_matches('/'));
        let agent = Agent::config_builder().http_status_as_error(false).build().new_agent();
        Ok(Self { base, token: token.map(Secret::new).or(in_query.map(Secret::new)), agent })
    }

    /// Gets a JSON answer.
    ///
    /// # Errors
    ///
    /// If nobody answers, or the answer is a refusal.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answer = self.ask(path)?;
        self.read(answer)?.ok_or_else(|| Failure::new("the pool's answer is empty"))
    }

    /// Follows the state of the pool; the first state comes at once.
    ///
    /// # Errors
    ///
    /// If nobody answers, or the answer is a refusal.
    pub(crate) fn stream(&self) -> Result<Stream, Failure> {
        Ok(Stream::new(self.ask("/api/stream")?.into_body()))
    }

    /// Returns the address of the pool, without its token.
    pub(crate) fn address(&self) -> &str {
        &self.base
    }

    /// Posts JSON; `None` for an answer without a body.
    ///
    /// # Errors
    ///
    /// If nobody answers within `patience`, or the answer is a refusal.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<Option<T>, Failure> {
        let answer = self.send(path, body, patience)?;
        self.read(answer)
    }

    /// Posts JSON, and returns the answer as it arrives.
    ///
    /// # Errors
    ///
    /// If nobody answers within `patience`, or the answer is a refusal.
    pub(crate) fn fetch(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<BodyReader<'static>, Failure> {
        Ok(self.send(path, body, patience)?.into_body().into_reader())
    }

    fn ask(&self, path: &str) -> Result<Response<ureq::Body>, Failure> {
        let request = self.agent.get(format!("{}{path}", self.base));
        self.granted(self.with_token(request).call())
    }

    fn send(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<Response<ureq::Body>, Failure> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.config().timeout_global(Some(patience)).build();
        self.granted(self.with_token(request).send_json(body))
    }

    fn with_token<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match self.bearer() {
            Some(bearer) => request.header("authorization", bearer),
            None => request,
        }
    }

    /// Returns the value of the header `authorization`, if there is a token.
    fn bearer(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("Bearer {}", token.expose()))
    }

    /// Returns the answer unless it is a refusal.
    fn granted(
        &self,
        answer: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<Response<ureq::Body>, Failure> {
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        Err(self.refused(answer.status().as_u16(), &text))
    }

    /// Returns the request for a WebSocket, with the query of a lease.
    ///
    /// # Errors
    ///
    /// If the pool is behind TLS, which is not supported here.
    pub(crate) fn websocket(&self, query: &str) -> Result<Request, Failure> {
        let rest = self.base.strip_prefix("http:").ok_or_else(|| {
            Failure::new(format!(
                "{} is behind TLS, which this command does not support",
                self.base
            ))
            .hint("give the address of the pool itself, such as http://127.0.0.1:3000")
        })?;
        let mut request = format!("ws:{rest}/?{query}").into_client_request()?;
        if let Some(bearer) = self.bearer() {
            request.headers_mut().insert("authorization", bearer.parse()?);
        }
        Ok(request)
    }

    fn read<T: DeserializeOwned>(
        &self,
        mut answer: Response<ureq::Body>,
    ) -> Result<Option<T>, Failure> {
        let text = answer.body_mut().read_to_string().map_err(|error| self.unreachable(&error))?;
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = serde_json::from_str(&text);
        parsed.map(Some).map_err(|error| {
            Failure::new(format!("the pool's answer could not be understood: {error}"))
        })
    }

    /// Turns a refusal of the pool into a failure, using its body.
    pub(crate) fn refused(&self, status: u16, text: &str) -> Failure {
        let problem: Value = serde_json::from_str(text).unwrap_or_default();
        match problem["detail"].as_str() {
            Some(detail) if status == 401 => {
                Failure::new(detail).hint("set POOL_TOKEN to the pool's token")
            }
            Some(detail) => Failure::new(detail),
            None => Failure::new(format!("{} answered with status {status}", self.base))
                .hint("is this the address of a pool?"),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        Failure::new(format!("no pool answers at {}: {error}", self.base))
            .hint("start one with pool-cli run, or give its address: --url http://HOST:PORT")
    }
}

/// The states of a pool, one a second, as JSON; made by [`Client::stream`](Client::stream).
///
/// It ends when the pool does. Each step waits for as long as the connection lives.
pub(crate) struct Stream<R = BufReader<BodyReader<'static>>> {
    lines: std::io::Lines<R>,
}

impl Stream {
    fn new(body: ureq::Body) -> Self {
        Self { lines: BufReader::new(body.into_reader()).lines() }
    }
}

impl<R: BufRead> Iterator for Stream<R> {
    type Item = Result<String, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        // Of server-sent events, the pool only sends ones with a single line of data, and comments
        // in between.
        loop {
            match self.lines.next()? {
                Ok(line) => {
                    if let Some(data) = line.strip_prefix("data:") {
                        return Some(Ok(data.trim_start().to_owned()));
                    }
                }
                Err(error) => {
                    return Some(Err(Failure::new(format!(
                        "the connection to the pool was lost: {error}"
                    ))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_of_a_pool_will_do() {
        for (url, base) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("ws://127.0.0.1:3000/", "http://127.0.0.1:3000"),
            ("wss://pool.example/base/?token=x", "https://pool.example/base"),
        ] {
            let client = Client::new(url, None).expect("it is an address");
            assert_eq!(client.base, base);
        }
        assert!(Client::new("ftp://pool", None).is_err());
        assert!(Client::new("pool", None).is_err());
    }

    #[test]
    fn the_token_of_a_pasted_address_is_used_and_not_shown() {
        let client = Client::new("ws://127.0.0.1:3000/?token=s3cret", None).expect("an address");
        assert_eq!(client.token.as_ref().map(Secret::expose), Some("s3cret"));
        assert!(!format!("{client:?}").contains("s3cret"));
    }

    #[test]
    fn comments_and_empty_lines_are_no_states() {
        let text = ": keep alive\n\ndata: {\"a\":1}\n\ndata:{\"a\":2}\n\n";
        let stream = Stream { lines: text.as_bytes().lines() };
        let states: Vec<String> = stream.map(|state| state.expect("it is whole")).collect();
        assert_eq!(states, ["{\"a\":1}", "{\"a\":2}"]);
    }
}
