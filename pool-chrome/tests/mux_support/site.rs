use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A site whose pages have their path as title. `/silent` never gets an answer, `/nothing` is a 204,
/// and `/worker` is a page that registers a service worker.
pub(crate) struct Site {
    address: SocketAddr,
    silent: Arc<AtomicUsize>,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Self { address: listener.local_addr().unwrap(), silent: Arc::default() };
        let silent = Arc::clone(&site.silent);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&silent)));
            }
        });
        site
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How often it was asked for what it does not answer.
    pub(crate) fn silences(&self) -> usize {
        self.silent.load(SeqCst)
    }
}

async fn serve(stream: TcpStream, silent: Arc<AtomicUsize>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(stream.read_line(&mut head).await, Ok(1..)) {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (kind, body) = match path {
            "/silent" => {
                silent.fetch_add(1, SeqCst);
                return std::future::pending().await;
            }
            "/nothing" => {
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                continue;
            }
            "/worker.js" => ("text/javascript", "onfetch = () => {}".to_owned()),
            "/worker" => (
                "text/html",
                "<script>navigator.serviceWorker.register('/worker.js')</script>".to_owned(),
            ),
            path => ("text/html", format!("<!doctype html><title>{path}</title>")),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
