use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{BASIC, Head, read_head};

/// How a proxy behaves; may be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Serves whoever has the password.
    Good,
    /// Wants other credentials.
    Denies,
    /// Accepts, and never says a word.
    Silent,
    /// Accepts, and closes.
    Closes,
    /// Talks nonsense.
    Babbles,
}

/// An HTTP proxy that requires credentials and remembers what it was asked.
pub(crate) struct HttpProxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _accepting: JoinSet<()>,
}

struct State {
    manner: Mutex<Manner>,
    requests: Mutex<Vec<Head>>,
    connections: Mutex<usize>,
}

impl HttpProxy {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            manner: Mutex::new(manner),
            requests: Mutex::default(),
            connections: Mutex::default(),
        });
        let served = Arc::clone(&state);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                *served.connections.lock().unwrap() += 1;
                connections.spawn(serve(stream, Arc::clone(&served)));
            }
        });
        Self { address, state, _accepting: accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    pub(crate) fn requests(&self) -> Vec<Head> {
        self.state.requests.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.state.connections.lock().unwrap()
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let mut stream = BufReader::new(stream);
    let mut onward: Option<BufReader<TcpStream>> = None;
    while let Ok(Some(head)) = read_head(&mut stream).await {
        state.requests.lock().unwrap().push(head.clone());
        let manner = *state.manner.lock().unwrap();
        let answer = match manner {
            Manner::Good if head.header("proxy-authorization") == Some(BASIC) => None,
            Manner::Good | Manner::Denies => Some(
                "HTTP/1.1 407 Proxy Authentication Required\r\n\
                 Proxy-Authenticate: Basic realm=\"p\"\r\nContent-Length: 2\r\n\r\nno",
            ),
            Manner::Silent => return std::future::pending().await,
            Manner::Closes => return,
            Manner::Babbles => Some("hello there\r\n\r\n"),
        };
        if let Some(answer) = answer {
            stream.write_all(answer.as_bytes()).await.unwrap();
            return;
        }
        if head.word(0) == "CONNECT" {
            let Ok(mut site) = TcpStream::connect(head.word(1)).await else {
                stream.write_all(b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                return;
            };
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            // How it ends is between the two.
            let _ = copy_bidirectional(&mut stream, &mut site).await;
            return;
        }
        let url = head.word(1).strip_prefix("http://").expect("absolute form").to_owned();
        let (authority, path) = url.split_at(url.find('/').unwrap());
        if onward.is_none() {
            onward = TcpStream::connect(authority).await.ok().map(BufReader::new);
        }
        let Some(site) = &mut onward else {
            stream.write_all(b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            return;
        };
        let mut body = vec![0; head.length()];
        stream.read_exact(&mut body).await.unwrap();
        let mut request = format!("{} {path} HTTP/1.1\r\n", head.word(0));
        for line in &head.0[1..] {
            if !line.to_ascii_lowercase().starts_with("proxy-") {
                request.push_str(&format!("{line}\r\n"));
            }
        }
        site.write_all(&[request.as_bytes(), b"\r\n", &body].concat()).await.unwrap();
        let answer = read_head(site).await.unwrap().expect("the site answers");
        let mut body = vec![0; answer.length()];
        site.read_exact(&mut body).await.unwrap();
        let head = format!("{}\r\n\r\n", answer.0.join("\r\n"));
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    }
}
