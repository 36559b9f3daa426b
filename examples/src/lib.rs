//! The common parts of the examples: a site to visit, so that they run offline, and a driver for
//! those that are about policies alone.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;

use axum::Router;
use pool_core::{Driver, Meta, Reporter, async_trait};
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

/// Serves a site on a free port of loopback until the program ends, and returns its address.
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

/// A driver of nothing much: policies work with any.
#[derive(Debug)]
pub struct Rooms;

#[async_trait]
impl Driver for Rooms {
    type Spec = ();
    type Resource = ();
    type Error = Infallible;

    async fn create(&self, _: &(), _: &Meta, _: Reporter) -> Result<(), Infallible> {
        Ok(())
    }
}
