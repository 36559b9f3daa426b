//! A real NATS server on a free loopback port, and a pool of numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool_core::{Driver, Meta, Pool, Reporter, async_trait};
use pool_fleet::engine::Waiting;
use pool_fleet::{Connection, Fleet, Member, NatsOptions, NatsTransport, Transport, Wanted};
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// Returns the path of a server; installs it where it is missing.
pub(crate) fn server(name: &str) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(top.join("target"), PathBuf::from);
    let server = target.join("nats").join(name).join("nats-server");
    if !server.exists() {
        let installed = Command::new(top.join("scripts/install-nats")).arg(name).status().unwrap();
        assert!(installed.success(), "scripts/install-nats {name} failed");
    }
    server
}

/// A server with a port and a directory of its own, which outlive a restart.
pub(crate) struct Nats {
    program: PathBuf,
    config: String,
    child: Option<Child>,
    /// Keeps the port from everybody who asks for a free one: it is taken, and nobody listens at it
    /// while the server is gone.
    port: TcpSocket,
    dir: TempDir,
}

impl Nats {
    /// Starts the current version.
    pub(crate) fn start() -> Self {
        Self::start_with("current", "")
    }

    /// Starts a version with more lines in its configuration.
    pub(crate) fn start_with(name: &str, config: &str) -> Self {
        let port = TcpSocket::new_v4().unwrap();
        // The server, which does the same, can listen beside it.
        port.set_reuseaddr(true).unwrap();
        port.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut nats =
            Self { program: server(name), config: config.to_owned(), child: None, port, dir };
        nats.restart();
        nats
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.local_addr().unwrap().port()
    }

    /// Starts it again on its port, with what it has stored.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let config = self.dir.path().join("nats.conf");
        let store = self.dir.path().join("store");
        let text = format!(
            "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?}, max_mem: 64MB, max_file: 1GB }}\n{}\n",
            self.port(),
            store,
            self.config
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
            if log.contains("Server is ready") {
                return;
            }
            assert!(Instant::now() < deadline, "the server does not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again with nothing stored. Returns when a client that was connected is so again.
    pub(crate) async fn restart_empty(&mut self, client: &NatsTransport) {
        let mut connection = client.connection();
        self.kill();
        // Or it would be taken for connected before it has noticed anything.
        connection.wait_for(|connection| !connection.is_connected()).await.unwrap();
        std::fs::remove_dir_all(self.dir.path().join("store")).unwrap();
        self.restart();
        connection.wait_for(Connection::is_connected).await.unwrap();
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) async fn connect(&self) -> Arc<NatsTransport> {
        NatsTransport::connect(NatsOptions::new([self.url()])).await.unwrap()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A network cable to a port of loopback, which can be cut.
pub(crate) struct Cable {
    port: u16,
    cut: tokio::sync::watch::Sender<bool>,
}

impl Cable {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = listener.local_addr().unwrap().port();
        let cut = tokio::sync::watch::Sender::new(false);
        let told = cut.subscribe();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut told = told.clone();
                tokio::spawn(async move {
                    if *told.borrow() {
                        return;
                    }
                    let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await
                    else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = told.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        Self { port: near, cut }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

/// Bytes that end in an error, as those of a broken disk.
pub(crate) struct Failing {
    rest: &'static [u8],
}

impl Failing {
    pub(crate) fn after(read: &'static [u8]) -> Self {
        Self { rest: read }
    }
}

impl tokio::io::AsyncRead for Failing {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if self.rest.is_empty() {
            return std::task::Poll::Ready(Err(std::io::Error::other("broken")));
        }
        let (read, rest) = self.rest.split_at(buffer.remaining().min(self.rest.len()));
        buffer.put_slice(read);
        self.rest = rest;
        std::task::Poll::Ready(Ok(()))
    }
}

/// Makes numbers, each of which is held by one at a time.
pub(crate) struct Numbers {
    pub(crate) node: &'static str,
}

/// A resource that notices if two hold it.
#[derive(Debug)]
pub(crate) struct Number {
    pub(crate) name: String,
    held: std::sync::atomic::AtomicBool,
}

impl Number {
    /// Takes it; panics if somebody has it.
    pub(crate) fn hold(&self) {
        let before = self.held.swap(true, std::sync::atomic::Ordering::SeqCst);
        assert!(!before, "{} has two holders", self.name);
    }

    pub(crate) fn let_go(&self) {
        assert!(self.held.swap(false, std::sync::atomic::Ordering::SeqCst));
    }
}

#[async_trait]
impl Driver for Numbers {
    type Spec = ();
    type Resource = Arc<Number>;
    type Error = std::io::Error;

    async fn create(&self, _: &(), meta: &Meta, _: Reporter) -> Result<Arc<Number>, Self::Error> {
        let name = format!("{}/{}", self.node, meta.id);
        Ok(Arc::new(Number { name, held: false.into() }))
    }
}

/// Returns a request for a number.
pub(crate) fn wanted(timeout: Duration) -> Waiting {
    let request = Wanted { class: "default".into(), labels: BTreeMap::new(), ..Wanted::default() };
    Waiting::new(Arc::new(request), timeout)
}

pub(crate) type NumberFleet = Fleet<Pool<Numbers>>;

/// Joins a node with so many numbers.
pub(crate) async fn join(
    node: &'static str,
    places: usize,
    transport: Arc<dyn Transport>,
) -> NumberFleet {
    let pool = Pool::builder(Numbers { node })
        .max_size(places)
        .max_waiting(1_000_000)
        .acquire_timeout(None)
        .build()
        .unwrap();
    Fleet::join(Member::new("test", node, node), pool, transport).await.unwrap()
}

/// Waits until each of the nodes hears all the others.
pub(crate) async fn acquainted(nodes: &[&NumberFleet]) {
    for node in nodes {
        let mut heard = node.nodes();
        heard.wait_for(|names| names.len() + 1 >= nodes.len()).await.unwrap();
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
