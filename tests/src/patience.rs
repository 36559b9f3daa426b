use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long something may take that makes no promise about time, on a machine that has much else
/// to do.
pub(crate) const GENEROUS: Duration = Duration::from_secs(60);

/// Asks again and again until `condition` holds, and returns how long that took.
///
/// # Panics
///
/// With `what` and the last `Err` if it does not hold within `limit`.
pub async fn eventually<E: Debug>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Result<(), E>,
) -> Duration {
    let began = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        let asked = began.elapsed();
        match condition().await {
            Ok(()) => return asked,
            Err(error) if asked > limit => {
                panic!("{what}: not so after {asked:.1?}: {error:?}")
            }
            Err(_) => sleep(pause).await,
        }
        // What comes soon is seen soon, and who waits long takes no time from whom it waits for.
        pause = (pause * 3 / 2).min(Duration::from_millis(200));
    }
}

/// Awaits something that must not take longer than this.
///
/// # Panics
///
/// With `what` if it does.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> T {
    match timeout(limit, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {limit:?}"),
    }
}

/// How often to repeat what is done at random moments: `few` times, or `many` times where
/// `POOL_TEST_LONG` is set.
#[must_use]
pub fn rounds(few: usize, many: usize) -> usize {
    if std::env::var_os("POOL_TEST_LONG").is_some() { many } else { few }
}
