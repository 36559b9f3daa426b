use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::PASSWORD;

/// A SOCKS5 proxy that requires credentials and remembers the targets it was given.
pub(crate) struct SocksProxy {
    pub(crate) address: SocketAddr,
    targets: Arc<Mutex<Vec<String>>>,
    _accepting: JoinSet<()>,
}

impl SocksProxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let targets: Arc<Mutex<Vec<String>>> = Arc::default();
        let remembered = Arc::clone(&targets);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let targets = Arc::clone(&remembered);
                connections.spawn(async move {
                    // A client that goes away is no failure of the test.
                    let _ = serve(stream, &targets).await;
                });
            }
        });
        Self { address, targets, _accepting: accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("socks5://{}", self.address)
    }

    pub(crate) fn targets(&self) -> Vec<String> {
        self.targets.lock().unwrap().clone()
    }
}

async fn string(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8(text).unwrap())
}

async fn serve(mut stream: TcpStream, targets: &Mutex<Vec<String>>) -> std::io::Result<()> {
    assert_eq!(stream.read_u8().await?, 5);
    let methods = string(&mut stream).await?;
    if !methods.contains('\u{2}') {
        return stream.write_all(&[5, 0xff]).await;
    }
    stream.write_all(&[5, 2]).await?;
    assert_eq!(stream.read_u8().await?, 1);
    let (user, password) = (string(&mut stream).await?, string(&mut stream).await?);
    if (user.as_str(), password.as_str()) != ("user", PASSWORD) {
        return stream.write_all(&[1, 1]).await;
    }
    stream.write_all(&[1, 0]).await?;
    let mut request = [0; 4];
    stream.read_exact(&mut request).await?;
    let host = match request[3] {
        1 => {
            let mut octets = [0; 4];
            stream.read_exact(&mut octets).await?;
            std::net::Ipv4Addr::from(octets).to_string()
        }
        3 => string(&mut stream).await?,
        kind => panic!("an address of kind {kind}"),
    };
    let port = stream.read_u16().await?;
    targets.lock().unwrap().push(format!("{host}:{port}"));
    // Names are this proxy's business: those of the test lead to loopback.
    let host = if host.ends_with(".example") { "127.0.0.1" } else { &host };
    let Ok(mut site) = TcpStream::connect((host, port)).await else {
        return stream.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    };
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    copy_bidirectional(&mut stream, &mut site).await?;
    Ok(())
}
