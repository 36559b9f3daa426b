use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

/// An HTTP proxy that requires credentials, marks what it passes on, and fails as it is told.
#[derive(Debug)]
pub struct Proxy {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// How a proxy fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyFault {
    /// Not at all.
    None,
    /// It takes connections and never answers.
    BlackHole,
    /// It wants other credentials than it was given.
    Unauthorized,
    /// It answers each request with 502.
    BadGateway,
    /// It waits for a second before it passes anything on.
    Slow,
    /// It closes every connection at once.
    Close,
}

#[derive(Debug)]
struct Shared {
    credentials: String,
    fault: Mutex<ProxyFault>,
    served: AtomicUsize,
    open: Mutex<Vec<AbortHandle>>,
}

impl Proxy {
    /// The header by which an origin sees that a request came through here.
    pub const MARK: &str = "x-through-proxy";

    /// Begins to serve; wants `user:password`, in base64 as it stands in the header.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub async fn start(credentials: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let shared = Arc::new(Shared {
            credentials: format!("Basic {credentials}"),
            fault: Mutex::new(ProxyFault::None),
            served: AtomicUsize::new(0),
            open: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { url, shared, task }
    }

    /// Fails in this way from now on, on open connections too.
    pub fn fail(&self, fault: ProxyFault) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        self.shared.cut();
    }

    /// Requests passed on.
    #[must_use]
    pub fn served(&self) -> usize {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Ends: its port refuses connections from now on.
    pub async fn stop(self) {
        self.task.abort();
        self.shared.cut();
        // Only when the task is gone is the listener.
        while !self.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.cut();
    }
}

impl Shared {
    fn cut(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        open.iter().for_each(AbortHandle::abort);
    }

    fn fault(&self) -> ProxyFault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const BAD_GATEWAY: &[u8] =
    b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let serving = tokio::spawn(serve(stream, Arc::clone(&shared))).abort_handle();
        let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| !other.is_finished());
        open.push(serving);
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let fault = shared.fault();
    if fault == ProxyFault::Close {
        return Ok(());
    }
    let head = head(&mut client).await?;
    match fault {
        ProxyFault::BlackHole => std::future::pending().await,
        ProxyFault::BadGateway => {
            return client.write_all(BAD_GATEWAY).await;
        }
        ProxyFault::Slow => tokio::time::sleep(Duration::from_secs(1)).await,
        _ => {}
    }
    if fault == ProxyFault::Unauthorized || !shared.is_authorized(&head) {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\
            proxy-authenticate: Basic realm=\"proxy\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return client.write_all(refusal).await;
    }
    shared.served.fetch_add(1, Ordering::Relaxed);
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if method == "CONNECT" {
        let Ok(mut origin) = TcpStream::connect(target).await else {
            return client.write_all(BAD_GATEWAY).await;
        };
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        copy_bidirectional(&mut client, &mut origin).await?;
        return Ok(());
    }
    let rest = target.strip_prefix("http://").unwrap_or(target);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Ok(mut origin) = TcpStream::connect(authority).await else {
        return client.write_all(BAD_GATEWAY).await;
    };
    let mut request = format!("{method} /{path} HTTP/1.1\r\n{}: yes\r\n", Proxy::MARK);
    for line in head.lines().skip(1).filter(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        // One request a connection, so that each is looked at.
        if !["proxy-authorization", "proxy-connection", "connection"].contains(&&*name) {
            request.push_str(line);
            request.push_str("\r\n");
        }
    }
    request.push_str("connection: close\r\n\r\n");
    origin.write_all(request.as_bytes()).await?;
    copy_bidirectional(&mut client, &mut origin).await?;
    Ok(())
}

impl Shared {
    fn is_authorized(&self, head: &str) -> bool {
        head.lines().any(|line| {
            let Some((name, value)) = line.split_once(':') else { return false };
            name.eq_ignore_ascii_case("proxy-authorization") && value.trim() == self.credentials
        })
    }
}

/// The lines up to the empty one. The clients of a test send no body with them.
async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
