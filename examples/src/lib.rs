//! What the examples have in common: a site to visit, so that they run offline.

use std::io;
use std::net::Ipv4Addr;

use axum::Router;
use tokio::net::TcpListener;

/// Serves a site on a free port of loopback until the program ends, and says where.
///
/// # Errors
///
/// If there is no free port.
pub async fn serve(site: Router) -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, site).await });
    Ok(url)
}
