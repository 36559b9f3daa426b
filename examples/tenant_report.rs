//! A report by tenant: who holds how many resources, and how long each has waited for them.
//!
//! It is a policy that only watches: the labels of a request come with the events about it.
//!
//! ```sh
//! cargo run --example tenant_report
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use browser_pool_examples::Rooms;
use pool_core::{Driver, Event, Labels, Policy, Pool, Request, ResourceId, async_trait};
use tokio::time::sleep;

/// What is known of one tenant.
#[derive(Clone, Debug, Default)]
struct Tenant {
    holds: Vec<ResourceId>,
    leases: u32,
    waited: Duration,
    refused: u32,
}

/// Watches leases begin and end, by the label `tenant` of their requests. Clones share one report.
#[derive(Clone, Debug, Default)]
struct TenantReport(Arc<Mutex<BTreeMap<String, Tenant>>>);

impl TenantReport {
    fn update(&self, labels: &Labels, change: impl FnOnce(&mut Tenant)) {
        let name = labels.get("tenant").unwrap_or("nobody").to_owned();
        change(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default());
    }

    fn read(&self) -> BTreeMap<String, Tenant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl<D: Driver> Policy<D> for TenantReport {
    fn event(&self, event: &Event) {
        match event {
            Event::Leased { id, waited, labels, .. } => self.update(labels, |tenant| {
                tenant.holds.push(*id);
                tenant.leases += 1;
                tenant.waited += *waited;
            }),
            Event::Refused { labels, .. } => self.update(labels, |tenant| tenant.refused += 1),
            Event::Released { id, .. } => {
                for tenant in self.0.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
                    tenant.holds.retain(|held| held != id);
                }
            }
            _ => {}
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let report = TenantReport::default();
    let pool = Pool::builder(Rooms).policy(report.clone()).max_size(2).build()?;
    let request = |tenant: &str| Request::new().label("tenant", tenant);

    let first = pool.acquire_with(request("ada")).await?;
    let second = pool.acquire_with(request("ada")).await?;
    let waiting = pool.acquire_with(request("bob"));
    let (bobs, ()) = tokio::join!(waiting, async {
        sleep(Duration::from_millis(50)).await;
        drop(first);
    });
    let bobs = bobs?;
    let refused = pool.acquire_with(request("eve").timeout(Duration::ZERO)).await;
    println!("eve: {}", refused.err().ok_or("both rooms are taken")?);

    for (name, tenant) in report.read() {
        let Tenant { holds, leases, waited, refused } = tenant;
        println!(
            "{name}: holds {}, had {leases}, waited {} ms in all, refused {refused}",
            holds.len(),
            waited.as_millis(),
        );
    }
    drop((second, bobs));
    Ok(())
}
