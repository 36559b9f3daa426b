//! What the examples have in common: a site to visit, so that they run offline.

use std::io;
use std::net::Ipv4Addr;

use axum::Router;
use tokio::net::TcpListener;

/// The code in the guides compiles, and runs where it needs no Chromium.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../README.md")]
    struct Readme;

    #[doc = include_str!("../../docs/policies.md")]
    struct Policies;

    #[doc = include_str!("../../pool-core/README.md")]
    struct PoolCore;

    #[doc = include_str!("../../pool-chrome/README.md")]
    struct PoolChrome;
}

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
