//! The two ways in which the shell waits that tokio does not offer as they are needed here.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer on the caller's runtime, or on `spare` where the caller has none: whoever only waits
/// for the pool need not be a task of tokio.
///
/// # Panics
///
/// If there is none around and the spare one has ended.
pub(crate) fn sleep(until: Instant, spare: &Handle) -> Sleep {
    let _guard = Handle::try_current().is_err().then(|| spare.enter());
    sleep_until(until)
}

/// Returns the result of `work`, or `None` if `end` completes first.
pub(crate) async fn unless<T>(
    end: impl Future<Output = ()>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let (mut end, mut work) = (pin!(end), pin!(work));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| None),
    })
    .await
}
