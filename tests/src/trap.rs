use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// A server that notices whoever comes near it, by TCP or UDP, to one port.
///
/// It answers every request with something of the kind that the end of the path says, and
/// `/redirect?to=URL` with a redirect there.
#[derive(Debug)]
pub struct Trap {
    /// Where it is.
    pub address: SocketAddr,
    caught: Arc<Caught>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Caught {
    connections: AtomicUsize,
    open: AtomicUsize,
    datagrams: AtomicUsize,
    paths: Mutex<BTreeSet<String>>,
}

impl Trap {
    /// Sets one up at this address, at a port that is free or at a given one.
    ///
    /// # Panics
    ///
    /// If the port is taken.
    pub async fn set(address: impl Into<IpAddr>, port: u16) -> Self {
        let at = SocketAddr::new(address.into(), port);
        let (listener, datagrams) = loop {
            let listener = TcpListener::bind(at).await.expect("the port is free");
            let address = listener.local_addr().expect("it is bound");
            match UdpSocket::bind(address).await {
                Ok(datagrams) => break (listener, datagrams),
                // One that is free for TCP may be somebody's for UDP.
                Err(error) => assert!(port == 0, "the port is free: {error}"),
            }
        };
        let address = listener.local_addr().expect("it is bound");
        let caught = Arc::<Caught>::default();
        let mut tasks = JoinSet::new();
        let heard = Arc::clone(&caught);
        tasks.spawn(async move {
            while datagrams.recv_from(&mut [0; 2048]).await.is_ok() {
                heard.datagrams.fetch_add(1, Ordering::Relaxed);
            }
        });
        let noticed = Arc::clone(&caught);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                noticed.connections.fetch_add(1, Ordering::Relaxed);
                let caught = Arc::clone(&noticed);
                connections.spawn(async move {
                    caught.open.fetch_add(1, Ordering::Relaxed);
                    // Whoever goes away in the middle has been noticed.
                    let _ = serve(stream, &caught).await;
                    caught.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, caught, _tasks: tasks }
    }

    /// Its address as that of a page.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.caught.connections.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.caught.open.load(Ordering::Relaxed)
    }

    /// Datagrams so far.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.caught.datagrams.load(Ordering::Relaxed)
    }

    /// The paths that were asked for, without queries; `tls` for what was no request.
    #[must_use]
    pub fn paths(&self) -> BTreeSet<String> {
        self.caught.paths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut stream: TcpStream, caught: &Caught) -> io::Result<()> {
    let mut head = Vec::new();
    let mut chunk = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut chunk).await?;
        head.extend_from_slice(&chunk[..read]);
        // TLS begins with this, and waits for an answer.
        if read == 0 || head.first() == Some(&0x16) {
            break;
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let target = match text.split(' ').nth(1) {
        Some(target) if target.starts_with('/') => target,
        _ if head.is_empty() => return Ok(()),
        _ => "tls",
    };
    let path = target.split('?').next().unwrap_or_default();
    caught.paths.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
    if path == "/stays" {
        let stays = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                     Access-Control-Allow-Origin: *\r\n\r\ndata: here\n\n";
        stream.write_all(stays.as_bytes()).await?;
        stream.read_to_end(&mut head).await?;
        return Ok(());
    }
    let (status, more) = match target.split_once("/redirect?to=") {
        Some((_, to)) => ("302 Found", format!("Location: {to}\r\n")),
        None => ("200 OK", String::new()),
    };
    let (kind, body) = content(path);
    let answer = format!(
        "HTTP/1.1 {status}\r\n{more}Content-Type: {kind}\r\nContent-Length: {}\r\n\
         Access-Control-Allow-Origin: *\r\nService-Worker-Allowed: /\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn content(path: &str) -> (&'static str, &'static str) {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("js") => ("text/javascript", "export default 1"),
        Some("css") => ("text/css", "body {}"),
        Some("bin") => ("application/octet-stream", "downloaded"),
        // Fetches what its own address says, as soon as it is installed.
        Some("worker") => (
            "text/javascript",
            "const to = decodeURIComponent((self.location.hash || self.location.search).slice(1)); \
             if (self.clients) self.addEventListener('install', event => event.waitUntil( \
               fetch(to, { mode: 'no-cors' }).catch(() => 0))); \
             else fetch(to, { mode: 'no-cors' }).catch(() => 0);",
        ),
        _ => ("text/html", "<!doctype html><title>caught</title>"),
    }
}
