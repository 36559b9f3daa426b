//! Three tenants flood a pool of four, and get leases by their shares; one of them may hold only one
//! at a time.
//!
//! ```sh
//! cargo run --example tenants
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use browser_pool_examples::Rooms;
use pool_core::{AcquireError, Pool, Request};
use pool_policies::{Priority, Tenant, Tenants};
use tokio::time::sleep;

/// Leases of each tenant so far.
type Count = Arc<Mutex<BTreeMap<&'static str, u32>>>;

fn of(tenant: &'static str) -> Request {
    Request::new().label("tenant", tenant)
}

/// Asks again and again, and holds what it gets for five milliseconds.
async fn client(pool: Pool<Rooms>, tenant: &'static str, count: Count) {
    while let Ok(lease) = pool.acquire_with(of(tenant)).await {
        *count.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant).or_default() += 1;
        sleep(Duration::from_millis(5)).await;
        drop(lease);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let tenants = Tenants::new([
        Tenant::new("small"),
        Tenant::new("large").share(4.0),
        Tenant::new("modest").share(4.0).max_leases(1),
    ])?;
    let pool = Pool::builder(Rooms).policy(tenants).policy(Priority::new()).max_size(4).build()?;

    let held = pool.acquire_with(of("modest")).await?;
    match pool.acquire_with(of("modest").timeout(Duration::ZERO)).await {
        Err(AcquireError::GroupFull { group, .. }) => {
            println!("modest has {} lease, and may not have more", group.leased);
        }
        other => return Err(format!("not refused: {other:?}").into()),
    }
    drop(held);

    let count = Count::default();
    for tenant in ["small", "large", "modest"] {
        for _ in 0..20 {
            tokio::spawn(client(pool.clone(), tenant, Arc::clone(&count)));
        }
    }
    sleep(Duration::from_secs(1)).await;
    let count = count.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for (tenant, leases) in &count {
        println!("{tenant} got {leases} leases");
    }
    let (small, large) = (f64::from(count["small"]), f64::from(count["large"]));
    println!("large got {:.1} times what small got", large / small);
    pool.close().await;
    Ok(())
}
