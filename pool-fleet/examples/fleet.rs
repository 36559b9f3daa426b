//! One pool of lathes over three processes and a NATS server.
//!
//!     cargo run -p pool-fleet --example fleet
//!
//! Each process is a node with one lathe. Six jobs come to the first node at the same time; all three
//! lathes work on them, and no job knows where its lathe is. The server is the one of `NATS_URL`, or
//! one that is started for the example: `nats-server` on the path, or what `scripts/install-nats` has
//! put into `target/nats`.

use std::error::Error;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool_core::{Driver, Lease, Meta, Pool, Reporter, async_trait};
use pool_fleet::engine::Waiting;
use pool_fleet::{Acquired, Fleet, Member, NatsOptions, NatsTransport, RemoteLease, Wanted};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The pooled resource: slow to make, and of use to one job at a time.
struct Lathe {
    name: String,
}

impl Lathe {
    async fn turn(&self, part: &str) -> String {
        tokio::time::sleep(Duration::from_millis(200)).await;
        format!("{part} was turned on {}", self.name)
    }
}

struct Lathes {
    node: String,
}

#[async_trait]
impl Driver for Lathes {
    type Spec = ();
    type Resource = Lathe;
    type Error = std::io::Error;

    async fn create(&self, _: &(), meta: &Meta, _: Reporter) -> std::io::Result<Lathe> {
        Ok(Lathe { name: format!("lathe {} of node {}", meta.id, self.node) })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(node), Some(nats)) => serve(&node, &nats).await,
        _ => show().await,
    }
}

/// Runs a node until its standard input ends.
async fn serve(node: &str, nats: &str) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    // Made ahead, so that the others hear that it is free.
    let pool = Pool::builder(Lathes { node: node.to_owned() }).min_size(1).max_size(1).build()?;
    let transport = NatsTransport::connect(NatsOptions::new([nats]).name(node)).await?;
    let fleet = Fleet::join(Member::new("workshop", node, &address), pool, transport).await?;

    // The way in for the other nodes.
    let served = fleet.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let fleet = served.clone();
            tokio::spawn(async move { work_for_another(&fleet, stream).await });
        }
    });

    // Alone it would do all jobs itself.
    fleet.nodes().wait_for(|others| others.len() == NODES.len() - 1).await?;
    println!("ready");

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(part) = lines.next_line().await? {
        let fleet = fleet.clone();
        tokio::spawn(async move {
            match turn(&fleet, &part).await {
                Ok(done) => println!("{done}"),
                Err(error) => println!("{part} was not turned: {error}"),
            }
        });
    }
    fleet.leave().await;
    Ok(())
}

/// Does a job of this node's own on whichever lathe is free first.
async fn turn(fleet: &Fleet<Pool<Lathes>>, part: &str) -> Result<String> {
    let wanted = Wanted { class: "default".into(), ..Wanted::default() };
    let waiting = Waiting::new(Arc::new(wanted), Duration::from_secs(10));
    match fleet.acquire_with(waiting, connect).await? {
        Acquired::Here { lease, .. } => Ok(lease.turn(part).await),
        Acquired::There { connection, .. } => {
            let mut stream = connection;
            stream.write_all(format!("{part}\n").as_bytes()).await?;
            let mut done = String::new();
            stream.read_to_string(&mut done).await?;
            Ok(done)
        }
        _ => Err("a lease of a kind that this program does not know".into()),
    }
}

/// Connects to the lease of another node: names it, and reads whether it is still ours.
async fn connect(remote: &RemoteLease) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(&*remote.address).await?;
    stream.write_all(format!("{}\n", remote.id).as_bytes()).await?;
    match stream.read_u8().await? {
        b'+' => Ok(stream),
        _ => Err(std::io::Error::other("the lease is somebody else's by now")),
    }
}

/// Lets another node have the lease that it was offered.
async fn work_for_another(fleet: &Fleet<Pool<Lathes>>, stream: TcpStream) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let id = lines.next_line().await?.unwrap_or_default();
    let lease: Lease<Lathes> = match fleet.take(&id).await {
        Some(lease) => lease,
        None => return Ok(write.write_all(b"-").await?),
    };
    write.write_all(b"+").await?;
    if let Some(part) = lines.next_line().await? {
        write.write_all(lease.turn(&part).await.as_bytes()).await?;
    }
    Ok(())
}

const NODES: [&str; 3] = ["a", "b", "c"];

/// Starts three nodes, and brings six jobs to the first one.
async fn show() -> Result<()> {
    let (url, _server) = server().await?;
    let (mut nodes, mut outputs) = (Vec::new(), Vec::new());
    for name in NODES {
        let mut node = Command::new(std::env::current_exe()?)
            .args([name, &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = node.stdout.take().ok_or("a node without an output")?;
        outputs.push(BufReader::new(output).lines());
        nodes.push(node);
    }
    // They ask for a second whether their names are free, and then hear each other.
    for output in &mut outputs {
        output.next_line().await?.ok_or("a node has ended")?;
    }

    let started = Instant::now();
    let jobs = nodes[0].stdin.as_mut().ok_or("a node without an input")?;
    jobs.write_all(b"a bolt\na nut\na shaft\na wheel\na screw\na bell\n").await?;
    for _ in 0..6 {
        let line = tokio::time::timeout(Duration::from_secs(10), outputs[0].next_line()).await??;
        println!("{:4} ms  {}", started.elapsed().as_millis(), line.ok_or("the node has ended")?);
    }
    for node in &mut nodes {
        drop(node.stdin.take());
        node.wait().await?;
    }
    Ok(())
}

/// Returns the address of a NATS server, and the server if it was started for this.
async fn server() -> Result<(String, Option<Child>)> {
    if let Ok(url) = std::env::var("NATS_URL") {
        return Ok((url, None));
    }
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let installed =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/nats/current/nats-server"));
    let program = if installed.exists() { installed } else { PathBuf::from("nats-server") };
    let server = Command::new(&program)
        .args(["-a", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}; try scripts/install-nats", program.display()))?;
    for _ in 0..100 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Ok((format!("nats://127.0.0.1:{port}"), Some(server)));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err("the NATS server does not start".into())
}
