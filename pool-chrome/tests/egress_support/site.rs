use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{Head, read_head};

/// A site that remembers what it was asked. `/echo` answers with the body, `/socket` is a
/// WebSocket that echoes, everything else is a page with the path as its title.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Head>>>,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let requests = Arc::clone(&site.requests);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&requests)));
            }
        });
        site
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Head> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, requests: Arc<Mutex<Vec<Head>>>) {
    let mut stream = BufReader::new(stream);
    while let Ok(Some(head)) = read_head(&mut stream).await {
        requests.lock().unwrap().push(head.clone());
        let mut body = vec![0; head.length()];
        stream.read_exact(&mut body).await.unwrap();
        if let Some(key) = head.header("sec-websocket-key") {
            let accept =
                tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            return echo(stream).await;
        }
        let path = head.word(1);
        if path != "/echo" {
            body = format!("<!doctype html><title>{path}</title>").into_bytes();
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let written = stream.write_all(&[answer.as_bytes(), &body].concat()).await;
        if written.is_err() {
            return;
        }
    }
}

/// One short text frame after the other, unmasked.
async fn echo(mut stream: BufReader<TcpStream>) {
    loop {
        let mut start = [0; 6];
        if stream.read_exact(&mut start).await.is_err() || start[0] != 0x81 {
            return;
        }
        let mut text = vec![0; usize::from(start[1] & 0x7f)];
        stream.read_exact(&mut text).await.unwrap();
        for (at, byte) in text.iter_mut().enumerate() {
            *byte ^= start[2 + at % 4];
        }
        let length = u8::try_from(text.len()).unwrap();
        stream.write_all(&[&[0x81, length], &text[..]].concat()).await.unwrap();
    }
}
