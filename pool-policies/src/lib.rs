//! Six policies for [`pool_core`], each usable alone and with any driver.
//!
//! | policy | what it does | what it asks of the driver |
//! |---|---|---|
//! | [`Profiles`] | a class per profile, with a directory of its own for each resource | [`ProfileSpec`] |
//! | [`Priority`] | serves waiters by priority, and lets them age, so that nobody starves | nothing |
//! | [`Tenants`] | limits what each tenant may have, and shares the leases between those that wait | nothing |
//! | [`GeoProxy`] | a class per region, spread over the region's healthy proxies | [`ProxySpec`], [`ProxyResource`] |
//! | [`DynamicSizing`] | keeps more or fewer resources, by the waits and the utilization | nothing |
//! | [`Warming`] | uses a new resource once before anybody gets it | [`Warm`] |
//!
//! Policies stack in the order in which they are added, and this is the order to add them in:
//! [`Profiles`] before [`GeoProxy`], since a profile may name a default region; both before
//! [`Warming`], since a proxy should be probed before a page is loaded through it. [`Tenants`] come
//! before [`Priority`], since a tenant's priorities are clamped.
//!
//! # Examples
//!
//! ```
//! use pool_core::testing::FakeDriver;
//! use pool_core::{Pool, Request};
//! use pool_policies::Priority;
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Pool::builder(FakeDriver::default())
//!     .policy(Priority::new().step(Duration::from_secs(10)))
//!     .max_size(2)
//!     .build()?;
//! let lease = pool.acquire_with(Request::new().priority(1)).await?;
//! # drop(lease);
//! # Ok(())
//! # }
//! ```

/// The examples of the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod dynamic_sizing;
mod error;
mod geo_proxy;
mod part;
mod priority;
mod profiles;
mod tenants;
mod warming;

pub use dynamic_sizing::{DynamicSizing, DynamicSizingBuilder, SizingRules};
pub use error::PolicyError;
pub use geo_proxy::{
    ConnectProbe, GeoProxy, GeoProxyBuilder, Proxy, ProxyAssignment, ProxyProbe, ProxyResource,
    ProxyScheme, ProxySpec, ProxyStatus, Region,
};
pub use priority::Priority;
pub use profiles::{Profile, ProfileInstance, ProfileMode, ProfileSpec, Profiles, ProfilesBuilder};
pub use tenants::{Tenant, Tenants};
pub use warming::{Warm, WarmUp, Warming};
