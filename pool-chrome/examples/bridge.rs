//! A Chromium behind a WebSocket, for any client of the Chrome DevTools Protocol.
//!
//! `cargo run -p pool-chrome --example bridge -- [exclusive|shared] [auto|shell|chromium]` prints
//! the address of a lease. Each line on standard input ends it and prints a new one. Further
//! arguments are switches for Chromium, and directories that the client may use for its files.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use pool_chrome::loopback::LoopbackServer;
use pool_chrome::mux::{LeaseKind, LeaseOptions, Multiplexer};
use pool_chrome::process::{Chromium, LaunchOptions, StateDir};
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let kind = match args.next().as_deref() {
        Some("shared") => LeaseKind::Shared,
        _ => LeaseKind::Exclusive,
    };
    let engine = args.next().as_deref().unwrap_or("auto").parse()?;
    let (switches, directories): (Vec<_>, Vec<_>) = args.partition(|arg| arg.starts_with("--"));
    let mut options = LeaseOptions::new(kind);
    options.directories.extend(directories.into_iter().map(Into::into));

    let directory = std::env::temp_dir().join(format!("bridge-{}", std::process::id()));
    let state = StateDir::open(&directory)?;
    let launch = LaunchOptions::new().engine(engine).args(switches);
    let (chromium, pipe) = Chromium::launch(launch, &state).await?;
    let mux = Multiplexer::start(pipe.reader, pipe.writer).await?;
    let server = LoopbackServer::start().await?;

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        let lease = Arc::new(mux.open_lease(options.clone()).await?);
        let published = server.publish(&lease);
        println!("{}", published.url());
        let more = lines.next_line().await?.is_some();
        lease.end().await?;
        if !more {
            break;
        }
    }
    chromium.close(Duration::from_secs(2)).await;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
