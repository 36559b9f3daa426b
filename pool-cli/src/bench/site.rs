use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A page with something of everything that makes a page, and of a size that costs little.
const PAGE: &str = "<!doctype html><meta charset=utf-8><title>bench</title>
<style>body { font: 16px/1.5 sans-serif; margin: 2em }</style>
<h1>A page</h1><p>It has a style, a script and some text.</p><ol id=list></ol>
<script>
  for (let i = 0; i < 100; i++) {
    const item = document.createElement('li');
    item.textContent = `item ${i}`;
    list.append(item);
  }
</script>";

/// Serves the page of the benchmark on loopback until it is dropped.
#[derive(Debug)]
pub(crate) struct Site {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Site {
    /// Begins to serve on a free port.
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/", get(|| async { Html(PAGE) }));
        let task = tokio::spawn(async move {
            // It serves until the task is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, task })
    }

    /// The address of the page.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}
