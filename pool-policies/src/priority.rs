use std::time::Duration;

use async_trait::async_trait;
use pool_core::{Driver, Policy, Rejection, RejectionKind, Request};

use crate::PolicyError;

/// Most urgent.
const FIRST: u8 = 1;
/// Least urgent.
const LAST: u8 = 10;

/// Serves waiters by priority, 1 (most urgent) to 10, and lets them age so that nobody starves.
///
/// One level of priority is worth one [`step`](Self::step) of waiting: with the default of 10 s, a
/// request of priority 9 that has waited for 81 s goes before one of priority 1 that has just
/// arrived. Requests that rank equal are served in order of arrival. A request's place in the queue
/// is determined once, when it joins, so a long queue costs nothing extra.
///
/// A request whose priority is out of range is refused with the code `invalid_priority`: taking 0
/// or 11 for something else would hide a mistake.
///
/// # Examples
///
/// ```
/// use pool_core::testing::FakeDriver;
/// use pool_core::{AcquireError, Pool, Request};
/// use pool_policies::Priority;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder(FakeDriver::default())
///     .policy(Priority::new().step(Duration::from_secs(30)))
///     .build()?;
/// let urgent = pool.acquire_with(Request::new().priority(1)).await?;
/// let refused = pool.acquire_with(Request::new().priority(0)).await.unwrap_err();
/// assert!(matches!(refused, AcquireError::Rejected(why) if why.code == "invalid_priority"));
/// # drop(urgent);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Priority {
    step: Duration,
    default: u8,
}

impl Default for Priority {
    fn default() -> Self {
        Self { step: Duration::from_secs(10), default: 5 }
    }
}

impl Priority {
    /// Creates the policy with a step of 10 s, and priority 5 for requests that have none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how much waiting one level of priority is worth. Default: 10 s.
    ///
    /// Zero makes all requests equal. A step longer than any wait makes priority strict: less
    /// urgent requests then wait for as long as more urgent ones keep coming.
    #[must_use]
    pub fn step(mut self, step: Duration) -> Self {
        self.step = step;
        self
    }

    /// Sets the priority of requests that have none. Default: 5.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Setting`] if it is not 1 to 10.
    pub fn default_priority(mut self, priority: u8) -> Result<Self, PolicyError> {
        if !(FIRST..=LAST).contains(&priority) {
            return Err(PolicyError::Setting {
                setting: "default_priority",
                why: "must be 1 to 10",
            });
        }
        self.default = priority;
        Ok(self)
    }
}

#[async_trait]
impl<D: Driver> Policy<D> for Priority {
    fn watches(&self) -> bool {
        false
    }

    fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
        match *request.priority.get_or_insert(self.default) {
            FIRST..=LAST => Ok(()),
            priority => Err(Rejection::new(
                RejectionKind::Invalid,
                "invalid_priority",
                format!("priority {priority} is out of range: 1 is the most urgent, 10 the least"),
            )),
        }
    }

    fn rank(&self, request: &Request) -> Option<Duration> {
        let levels = request.priority.unwrap_or(self.default).saturating_sub(FIRST);
        // A step of years must not overflow: all that counts is that it is longer than any wait.
        Some(self.step.saturating_mul(u32::from(levels)))
    }
}
