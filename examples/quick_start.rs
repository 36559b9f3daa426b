//! A pool of something that is slow to make. `pool-core` does not know what a browser is.
//!
//! ```sh
//! cargo run --example quick_start
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use pool_core::{AcquireError, Driver, Meta, Pool, Reporter, Request, async_trait};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Slow to set up, quick to use, and dirty afterwards.
struct Press {
    ink: Vec<u32>,
}

struct Workshop;

#[async_trait]
impl Driver for Workshop {
    type Spec = ();
    type Resource = Press;
    type Error = Infallible;

    async fn create(&self, _: &(), _: &Meta, _: Reporter) -> Result<Press, Infallible> {
        sleep(Duration::from_millis(300)).await;
        Ok(Press { ink: Vec::new() })
    }

    /// Runs between two leases. What cannot be cleaned is never leased again.
    async fn recycle(&self, press: &mut Press, _: &Meta) -> Result<(), Infallible> {
        press.ink.clear();
        Ok(())
    }
}

// One thread, so that the jobs queue in the order in which they are spawned.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::builder(Workshop).max_size(2).build()?;

    let begun = Instant::now();
    let mut jobs = JoinSet::new();
    for job in 1..=8 {
        // A handle to the same pool: clones are cheap.
        let pool = pool.clone();
        jobs.spawn(async move {
            let mut press = pool.acquire().await?;
            assert!(press.ink.is_empty(), "somebody's ink is still on it");
            press.ink.push(job);
            sleep(Duration::from_millis(50)).await;
            Ok::<_, AcquireError>((job, press.meta().id, press.waited()))
            // The lease ends here: to drop it is to give it back.
        });
    }
    while let Some(done) = jobs.join_next().await {
        let (job, press, waited) = done??;
        println!("job {job} printed on press {press}, having waited {} ms", waited.as_millis());
    }
    let made = pool.stats().counters.created;
    println!("8 jobs took {} ms and {made} presses", begun.elapsed().as_millis());

    // Every wait has an end. The error says how long it was and what the pool looked like.
    let _both = (pool.acquire().await?, pool.acquire().await?);
    let hurried = Request::new().timeout(Duration::from_millis(100));
    if let Err(error) = pool.acquire_with(hurried).await {
        println!("a third one at once: {error}");
    }
    Ok(())
}
