//! A policy of your own: first in ten lines, then one that does something for a living.
//!
//! ```sh
//! cargo run --example custom_policy
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use browser_pool_examples::Rooms;
use pool_core::{
    Class, Driver, Event, Limits, Meta, Policy, Pool, Rejection, RejectionKind, Request, Verdict,
    async_trait,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

// ---- Ten lines -------------------------------------------------------------------------------

/// Large jobs stand in the queue as if they had come two seconds later than they did.
struct SmallJobsFirst;

#[async_trait]
impl<D: Driver> Policy<D> for SmallJobsFirst {
    fn rank(&self, request: &Request) -> Option<Duration> {
        (request.get("size") == Some("large")).then_some(Duration::from_secs(2))
    }
}

// ---- A fuller one ----------------------------------------------------------------------------

/// Each tenant has resources that no other tenant ever touches, may lease two of them at a time,
/// and has an allowance of time to use them.
///
/// Nothing here is counted up and down: what is spent only grows, and how many are leased is known
/// to the pool. A policy that kept such a number itself would get it wrong with the first caller
/// that gives up waiting.
struct Tenants {
    allowance: Duration,
    spent: Mutex<HashMap<String, Duration>>,
}

impl Tenants {
    fn new(names: &[&str], allowance: Duration) -> Self {
        let spent = names.iter().map(|name| ((*name).to_owned(), Duration::ZERO)).collect();
        Self { allowance, spent: Mutex::new(spent) }
    }

    fn spent(&self, tenant: &str) -> Option<Duration> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).copied()
    }
}

#[async_trait]
impl<D: Driver> Policy<D> for Tenants {
    /// Called by whoever acquires, before it stands in the queue.
    fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
        let tenant = request.require("tenant")?;
        match self.spent(tenant) {
            None => Err(Rejection::new(
                RejectionKind::Unknown,
                "unknown_tenant",
                format!("there is no tenant {tenant:?}"),
            )),
            Some(spent) if spent >= self.allowance => {
                let message = format!("{tenant} has used {spent:?} of {:?}", self.allowance);
                Err(Rejection::new(RejectionKind::Exhausted, "allowance_spent", message)
                    .retry_after(Duration::from_secs(3600)))
            }
            Some(_) => Ok(()),
        }
    }

    /// Resources of one class are interchangeable; those of two tenants are not.
    fn classify(&self, request: &Request, class: &mut Class) {
        if let Some(tenant) = request.labels.value("tenant") {
            class.insert("tenant", tenant.clone());
        }
    }

    /// Asked once for each class. A third request of one tenant waits, and delays nobody else.
    fn limit(&self, class: &Class) -> Option<Limits> {
        class.get("tenant").map(|_| Limits { max: Some(2), ..Limits::default() })
    }

    /// What was used is known when a lease ends.
    fn event(&self, event: &Event) {
        if let Event::Released { class, held, .. } = event
            && let Some(tenant) = class.get("tenant")
        {
            let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
            *spent.entry(tenant.to_owned()).or_default() += *held;
        }
    }

    /// Comes after the event. A tenant that may not ask again needs nothing kept warm.
    fn released(&self, meta: &Meta) -> Verdict {
        match meta.class.get("tenant").and_then(|tenant| self.spent(tenant)) {
            Some(spent) if spent >= self.allowance => Verdict::Discard,
            _ => Verdict::Keep,
        }
    }
}

// ---- What they are good for ------------------------------------------------------------------

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::builder(Rooms).policy(SmallJobsFirst).max_size(1).build()?;
    let taken = pool.acquire().await?;
    let mut jobs = JoinSet::new();
    for (name, size) in [("a report", "large"), ("a thumbnail", "small"), ("an icon", "small")] {
        let pool = pool.clone();
        jobs.spawn(async move {
            let _room = pool.acquire_with(Request::new().label("size", size)).await;
            name
        });
    }
    while pool.load().waiting < 3 {
        tokio::task::yield_now().await;
    }
    drop(taken);
    println!("small jobs first: {}", jobs.join_all().await.join(", "));

    let tenants = Tenants::new(&["ada", "bob"], Duration::from_millis(50));
    let pool = Pool::builder(Rooms).policy(tenants).build()?;
    let request = |tenant: &str| Request::new().label("tenant", tenant);

    let both = (pool.acquire_with(request("ada")).await?, pool.acquire_with(request("ada")).await?);
    let third = pool.acquire_with(request("ada").timeout(Duration::from_millis(10))).await;
    println!("ada has two rooms and asks for another: {}", third.err().ok_or("it was refused")?);
    sleep(Duration::from_millis(30)).await;
    drop(both);

    for tenant in ["ada", "bob", "eve"] {
        match pool.acquire_with(request(tenant)).await {
            Ok(room) => {
                println!("{tenant}: here is room {} of {}", room.meta().id, room.meta().class);
            }
            Err(refused) => println!("{tenant}: {refused}"),
        }
    }
    Ok(())
}
