//! Who is served first when everything is taken, and why nobody waits for ever.
//!
//! ```sh
//! cargo run --example priorities
//! ```

use std::error::Error;
use std::time::Duration;

use browser_pool_examples::Rooms;
use pool_core::{Pool, Request};
use pool_policies::Priority;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// One level of priority is worth this much waiting. The default is 10 s; this is for the
/// impatient.
const STEP: Duration = Duration::from_millis(50);

// One thread, so that the requests of this program come in the order in which it spawns them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::builder(Rooms).policy(Priority::new().step(STEP)).max_size(1).build()?;
    the_urgent_go_first(&pool).await?;
    nobody_starves(&pool).await?;
    Ok(())
}

/// Five crawlers are in the queue when a customer comes.
async fn the_urgent_go_first(pool: &Pool<Rooms>) -> Result<(), Box<dyn Error>> {
    let taken = pool.acquire().await?;
    let mut served = JoinSet::new();
    for crawler in 1..=5 {
        ask(&mut served, pool, 9, format!("crawler {crawler}"));
    }
    ask(&mut served, pool, 1, "customer".to_owned());
    while pool.load().waiting < 6 {
        tokio::task::yield_now().await;
    }

    println!("in the queue, next one first:");
    for waiter in pool.waiters() {
        println!("  priority {}", waiter.priority.unwrap_or_default());
    }
    drop(taken);
    println!("served: {}", served.join_all().await.join(", "));
    Ok(())
}

/// Customers come faster than they can be served, for ever. A crawler gets its turn all the same.
async fn nobody_starves(pool: &Pool<Rooms>) -> Result<(), Box<dyn Error>> {
    let (begun, mut served) = (Instant::now(), JoinSet::new());
    let taken = pool.acquire().await?;
    ask(&mut served, pool, 9, "crawler".to_owned());
    let customers = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut customers = JoinSet::new();
            for customer in 1.. {
                ask(&mut customers, &pool, 1, format!("customer {customer}"));
                sleep(Duration::from_millis(10)).await;
            }
        }
    });
    sleep(Duration::from_millis(20)).await;
    drop(taken);

    let crawler = served.join_next().await.ok_or("the crawler has asked")??;
    let queue = pool.load().waiting;
    // 9 - 1 = 8 levels: customers who came up to 8 steps after it went first, later ones do not.
    println!(
        "{crawler} was served after {} ms, before {queue} customers in the queue",
        begun.elapsed().as_millis(),
    );
    customers.abort();
    Ok(())
}

/// Stands in the queue, holds a room for 20 ms, and answers with the name.
fn ask(served: &mut JoinSet<String>, pool: &Pool<Rooms>, priority: u8, name: String) {
    let pool = pool.clone();
    served.spawn(async move {
        let _room = pool.acquire_with(Request::new().priority(priority)).await;
        sleep(Duration::from_millis(20)).await;
        name
    });
}
