//! Questions to the kernel about the connection of a client: to notice when the client's machine is
//! gone, even if data was on its way to it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
    sockopt,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Pause between two looks at whether a client still acknowledges what it is sent.
const LOOK: Duration = Duration::from_secs(2);

/// Time without an acknowledgement after which a client counts as gone, if something was on its way
/// to it.
const SILENCE: Duration = Duration::from_secs(20);

/// Makes small messages go out at once, and a peer whose machine is gone be noticed. If nothing is
/// on its way to the peer, the kernel asks for a sign of life, and notices within 20 s. If
/// something is, the kernel does not ask, but would send that again and again for a quarter of an
/// hour; see [`half_open`].
pub(crate) fn prepare(stream: &TcpStream) {
    let prepared = stream.set_nodelay(true).and_then(|()| {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, Duration::from_secs(10))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
        sockopt::set_tcp_keepcnt(stream, 2)?;
        Ok(())
    });
    if let Err(error) = prepared {
        tracing::debug!(%error, "not all options of a socket could be set");
    }
}

/// The two ends of a connection, by which the kernel knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    local: SocketAddr,
    peer: SocketAddr,
}

impl Ends {
    pub(crate) fn of(stream: &TcpStream) -> io::Result<Self> {
        Ok(Self { local: stream.local_addr()?, peer: stream.peer_addr()? })
    }
}

/// Returns when the other end of a connection is gone: something was sent to it, and nothing at all
/// was acknowledged for 22 s. A peer that is merely busy acknowledges that it has no room, and one
/// that is idle acknowledges the signs of life that the kernel asks for.
///
/// `TCP_USER_TIMEOUT` is not used, since it also ends a peer that has no room for some time.
pub(super) async fn half_open(ends: Option<Ends>) {
    let Some(ends) = ends else { return std::future::pending().await };
    let mut looks = interval_at(Instant::now() + LOOK, LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waited = false;
    loop {
        looks.tick().await;
        let info = match TcpInfo::of(ends) {
            Ok(info) => info,
            Err(error) => {
                // The kernel or a sandbox does not tell; or the connection has just ended, which
                // others notice.
                tracing::trace!(%error, "the kernel has no information about a connection");
                waited = false;
                continue;
            }
        };
        // Twice in a row: what was sent a moment ago has not been acknowledged yet, and a client
        // that only sends need not have acknowledged anything for long.
        let waits = info.since_ack >= SILENCE && (info.unacknowledged > 0 || info.probes > 0);
        if waits && waited {
            tracing::debug!(peer = %ends.peer, ?info, "a client's machine is gone");
            return;
        }
        waited = waits;
    }
}

/// The fields that are read from the kernel's `struct tcp_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TcpInfo {
    /// Number of segments that were sent and not acknowledged.
    unacknowledged: u32,
    /// Number of unanswered probes of a closed window.
    probes: u8,
    /// Time since anything was acknowledged.
    since_ack: Duration,
}

/// Constants of the kernel from `linux/netlink.h`, `sock_diag.h` and `inet_diag.h`.
mod kernel {
    pub(super) const HEADER: usize = 16;
    pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
    pub(super) const NLM_F_REQUEST: u16 = 1;
    pub(super) const IPPROTO_TCP: u8 = 6;
    pub(super) const INET_DIAG_INFO: u16 = 2;
    /// The length of `struct inet_diag_msg`, after which the attributes come.
    pub(super) const INET_DIAG_MSG: usize = 72;
    pub(super) const AF_INET: u8 = 2;
    pub(super) const AF_INET6: u8 = 10;
}

impl TcpInfo {
    fn of(ends: Ends) -> io::Result<Self> {
        static SOCKET: OnceLock<io::Result<OwnedFd>> = OnceLock::new();
        let socket = SOCKET.get_or_init(|| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let protocol = Some(netlink::SOCK_DIAG);
            Ok(socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?)
        });
        let Ok(socket) = socket else { return Err(io::ErrorKind::Unsupported.into()) };
        // One question at a time: the kernel answers before the send returns.
        static ASKING: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _asking = ASKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let to_kernel = SocketAddrNetlink::new(0, 0);
        sendto(socket, &question(ends), SendFlags::empty(), &to_kernel)?;
        let mut answer = [0; 1024];
        let (length, _) = recv(socket, &mut answer[..], RecvFlags::empty())?;
        Self::read(&answer[..length]).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Reads the fields from the answer; `None` if that is an error, or lacks them.
    fn read(answer: &[u8]) -> Option<Self> {
        let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
        if kind != kernel::SOCK_DIAG_BY_FAMILY {
            return None;
        }
        let mut attributes = answer.get(kernel::HEADER + kernel::INET_DIAG_MSG..)?;
        loop {
            let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
            let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
            let info = attributes.get(4..length)?;
            if kind == kernel::INET_DIAG_INFO {
                let word =
                    |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
                return Some(Self {
                    unacknowledged: word(24)?,
                    probes: *info.get(3)?,
                    since_ack: Duration::from_millis(word(56)?.into()),
                });
            }
            attributes = attributes.get(length.next_multiple_of(4)..)?;
        }
    }
}

/// Returns the question about one connection: `struct inet_diag_req_v2` after a header.
fn question(ends: Ends) -> Vec<u8> {
    const LENGTH: u32 = 72;
    let family = if ends.local.is_ipv4() { kernel::AF_INET } else { kernel::AF_INET6 };
    let address = |ip: IpAddr| {
        let mut bytes = [0; 16];
        match ip {
            IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.copy_from_slice(&ip.octets()),
        }
        bytes
    };
    let mut question = Vec::with_capacity(LENGTH as usize);
    question.extend(LENGTH.to_ne_bytes());
    question.extend(kernel::SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    question.extend(kernel::NLM_F_REQUEST.to_ne_bytes());
    // Neither a sequence number nor a port: there is only one question at a time.
    question.extend([0; 8]);
    question.extend([family, kernel::IPPROTO_TCP, 1 << (kernel::INET_DIAG_INFO - 1), 0]);
    question.extend(u32::MAX.to_ne_bytes());
    question.extend(ends.local.port().to_be_bytes());
    question.extend(ends.peer.port().to_be_bytes());
    question.extend(address(ends.local.ip()));
    question.extend(address(ends.peer.ip()));
    // No interface, and no cookie.
    question.extend(0_u32.to_ne_bytes());
    question.extend([0xFF; 8]);
    question
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).await.unwrap();
        let to = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(listener.accept(), TcpStream::connect(to));
        (ours.unwrap().0, theirs.unwrap())
    }

    #[tokio::test]
    async fn the_kernel_tells_about_connections_of_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (mut ours, mut theirs) = pair(address).await;
            let ends = Ends::of(&ours).unwrap();
            ours.write_all(b"there?").await.unwrap();
            theirs.read_exact(&mut [0; 6]).await.unwrap();
            let info = TcpInfo::of(ends).unwrap();
            assert_eq!((info.unacknowledged, info.probes), (0, 0), "{address}");
            assert!(info.since_ack < Duration::from_secs(5), "{address}: {info:?}");
            drop((ours, theirs));
        }
    }

    #[tokio::test]
    async fn a_mapped_address_is_found_too() {
        let listener = TcpListener::bind("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port));
        let (ours, theirs) = tokio::join!(listener.accept(), client);
        let (ours, _) = ours.unwrap();
        let ends = Ends::of(&ours).unwrap();
        TcpInfo::of(ends).unwrap();
        drop((ours, theirs));
    }

    #[tokio::test]
    async fn a_connection_that_is_gone_is_told_of_as_an_error() {
        let (ours, theirs) = pair("127.0.0.1:0").await;
        let ends =
            Ends { local: Ends::of(&ours).unwrap().local, peer: "127.0.0.1:1".parse().unwrap() };
        assert!(TcpInfo::of(ends).is_err());
        drop((ours, theirs));
    }
}
