//! A site and two proxies for the tests about egress, all on loopback.
#![allow(dead_code, reason = "each test file uses a part of it")]

mod http_proxy;
mod site;
mod socks_proxy;

pub(crate) use http_proxy::{HttpProxy, Manner};
pub(crate) use site::Site;
pub(crate) use socks_proxy::SocksProxy;

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// In no log, no argument and no environment may this be found.
pub(crate) const PASSWORD: &str = "canary-5f1c";

/// `user:canary-5f1c` in Base64.
pub(crate) const BASIC: &str = "Basic dXNlcjpjYW5hcnktNWYxYw==";

pub(crate) const SOON: Duration = Duration::from_secs(10);

/// An address at which nobody listens. A port that was free a moment ago may be another test's by now.
pub(crate) const NOBODY: &str = "127.0.0.1:1";

/// The first line of a message and its headers, up to the empty line; `None` at the end.
pub(crate) async fn read_head(
    stream: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<Head>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    Ok(Some(Head(lines)))
}

#[derive(Clone, Debug)]
pub(crate) struct Head(pub(crate) Vec<String>);

impl Head {
    /// A word of the first line.
    pub(crate) fn word(&self, index: usize) -> &str {
        self.0[0].split(' ').nth(index).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.0[1..].iter().find_map(|line| {
            let (held, value) = line.split_once(':')?;
            held.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn length(&self) -> usize {
        self.header("content-length").map_or(0, |value| value.parse().unwrap())
    }
}

/// Sends a request to a forwarder and reads the answer with its body; an error if there is none.
pub(crate) async fn exchange(stream: &mut TcpStream, request: &str) -> io::Result<(Head, Vec<u8>)> {
    stream.write_all(request.as_bytes()).await?;
    let mut stream = tokio::io::BufReader::new(stream);
    let head = read_head(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut body = vec![0; head.length()];
    stream.read_exact(&mut body).await?;
    Ok((head, body))
}
