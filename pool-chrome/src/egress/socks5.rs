//! The client's side of SOCKS5 (RFC 1928) with user name and password (RFC 1929).

use std::io;
use std::sync::Arc;

use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use url::Host;

use super::ProxyError;
use super::auth::Credentials;
use super::target::Target;
use super::upstream::Upstream;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USERNAME_PASSWORD: u8 = 2;

/// Reasons why a handshake failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The proxy wants credentials, or others.
    Credentials,
    /// The proxy does not connect to the target; its reply in words.
    Refused(&'static str),
    /// The connection or the protocol broke.
    Broken(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Agrees on a version and a method, and authenticates.
pub(super) async fn greet<S>(
    stream: &mut S,
    credentials: Option<&Credentials>,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    match credentials {
        None => stream.write_all(&[VERSION, 1, NO_AUTHENTICATION]).await?,
        Some(_) => {
            stream.write_all(&[VERSION, 2, NO_AUTHENTICATION, USERNAME_PASSWORD]).await?;
        }
    }
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    match (chosen, credentials) {
        ([VERSION, NO_AUTHENTICATION], _) => Ok(()),
        ([VERSION, USERNAME_PASSWORD], Some(credentials)) => {
            authenticate(stream, credentials).await
        }
        ([VERSION, _], _) => Err(Failure::Credentials),
        _ => Err(unexpected("it does not speak SOCKS5")),
    }
}

async fn authenticate<S>(stream: &mut S, credentials: &Credentials) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut message = vec![1];
    for secret in [&credentials.username, &credentials.password] {
        let secret = secret.expose_secret().as_bytes();
        let length = u8::try_from(secret.len()).map_err(|_| unexpected("credentials too long"))?;
        message.push(length);
        message.extend_from_slice(secret);
    }
    stream.write_all(&message).await?;
    let mut reply = [0; 2];
    stream.read_exact(&mut reply).await?;
    if reply[1] == 0 { Ok(()) } else { Err(Failure::Credentials) }
}

/// Asks a proxy that has been greeted to connect to a target, by name where it has one.
pub(super) async fn connect<S>(stream: &mut S, target: &Target) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut message = vec![VERSION, 1, 0];
    match &target.host {
        Host::Ipv4(address) => {
            message.push(1);
            message.extend_from_slice(&address.octets());
        }
        Host::Domain(name) => {
            let length =
                u8::try_from(name.len()).map_err(|_| Failure::Refused("its name is too long"))?;
            message.extend_from_slice(&[3, length]);
            message.extend_from_slice(name.as_bytes());
        }
        Host::Ipv6(address) => {
            message.push(4);
            message.extend_from_slice(&address.octets());
        }
    }
    message.extend_from_slice(&target.port.to_be_bytes());
    stream.write_all(&message).await?;

    let mut reply = [0; 4];
    stream.read_exact(&mut reply).await?;
    if reply[0] != VERSION {
        return Err(unexpected("its reply is not of SOCKS5"));
    }
    if reply[1] != 0 {
        return Err(Failure::Refused(reason(reply[1])));
    }
    // The address that it connected from, which nobody here wants to know.
    let length = match reply[3] {
        1 => 4,
        3 => usize::from(stream.read_u8().await?),
        4 => 16,
        _ => return Err(unexpected("its reply holds an unknown kind of address")),
    };
    let mut bound = vec![0; length + 2];
    stream.read_exact(&mut bound).await?;
    Ok(())
}

fn reason(reply: u8) -> &'static str {
    match reply {
        2 => "its rules forbid it",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the connection was refused",
        6 => "the connection timed out",
        7 | 8 => "it cannot do that",
        _ => "it failed",
    }
}

/// The same as an error of this proxy.
pub(super) fn named(
    upstream: &Upstream,
    target: impl std::fmt::Display,
    failure: Failure,
) -> ProxyError {
    let proxy = upstream.name();
    match failure {
        Failure::Credentials => {
            ProxyError::Credentials { proxy, given: upstream.credentials.is_some() }
        }
        Failure::Refused(reason) => {
            let target = target.to_string().into();
            ProxyError::Refused { proxy, target, reason: reason.into() }
        }
        Failure::Broken(source) => ProxyError::Broken { proxy, source: Arc::new(source) },
    }
}

fn unexpected(what: &'static str) -> Failure {
    Failure::Broken(io::Error::new(io::ErrorKind::InvalidData, what))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn greeted(
        answer: &[u8],
        credentials: Option<Credentials>,
    ) -> (Result<(), Failure>, Vec<u8>) {
        let (mut ours, mut theirs) = duplex(1024);
        theirs.write_all(answer).await.unwrap();
        let result = greet(&mut ours, credentials.as_ref()).await;
        drop(ours);
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        (result, sent)
    }

    fn credentials() -> Option<Credentials> {
        let (username, password) = ("me".to_owned().into(), "pw".to_owned().into());
        Some(Credentials { username, password })
    }

    #[tokio::test]
    async fn credentials_are_sent_when_the_proxy_asks_for_them() {
        let (result, sent) = greeted(&[5, 2, 1, 0], credentials()).await;
        result.unwrap();
        assert_eq!(sent, b"\x05\x02\x00\x02\x01\x02me\x02pw");
    }

    #[tokio::test]
    async fn credentials_stay_here_when_the_proxy_does_not_ask() {
        let (result, sent) = greeted(&[5, 0], credentials()).await;
        result.unwrap();
        assert_eq!(sent, b"\x05\x02\x00\x02");
    }

    #[tokio::test]
    async fn every_refusal_of_credentials_is_told_apart_from_a_broken_proxy() {
        for (answer, given) in
            [(&[5, 2, 1, 1][..], credentials()), (&[5, 0xff], credentials()), (&[5, 0xff], None)]
        {
            assert!(matches!(greeted(answer, given).await.0, Err(Failure::Credentials)));
        }
        for answer in [&b"HTTP/1.1 400"[..], &[4, 0]] {
            assert!(matches!(greeted(answer, None).await.0, Err(Failure::Broken(_))));
        }
    }

    #[tokio::test]
    async fn a_target_is_named_and_not_resolved() {
        let (mut ours, mut theirs) = duplex(1024);
        theirs.write_all(&[5, 0, 0, 3, 2, b'h', b'i', 0, 80]).await.unwrap();
        let target = Target { host: Host::Domain("site.example".to_owned()), port: 443 };
        connect(&mut ours, &target).await.unwrap();
        drop(ours);
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"\x05\x01\x00\x03\x0csite.example\x01\xbb");
    }
}
