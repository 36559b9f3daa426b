use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ProfileError;

/// A profile that went from the store to a node or back, or was to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transfer {
    /// Direction in which it went.
    pub direction: TransferDirection,
    /// Outcome of it.
    pub outcome: TransferOutcome,
    /// Size of what arrived, packed; 0 if it did not.
    pub bytes: u64,
    /// Time that it took, packing and unpacking included.
    pub took: Duration,
}

/// Direction of a [`Transfer`], as the node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferDirection {
    /// From the store to the node.
    In,
    /// From the node to the store.
    Out,
}

/// End of a [`Transfer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferOutcome {
    /// All of it arrived.
    Ok,
    /// The store or the disk failed. A save that is tried again is another transfer.
    Error,
    /// Its client has gone, or its node ends.
    Cancelled,
}

/// Reports transfers to whoever counts them.
#[derive(Clone, Default)]
pub(super) struct Transfers(Option<Arc<Report>>);

type Report = dyn Fn(&Transfer) + Send + Sync;

impl Transfers {
    pub(super) fn told_to(report: impl Fn(&Transfer) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(report)))
    }

    /// Awaits what moves a profile, reports it, and returns the first part of its value; the second
    /// part is the size in bytes.
    pub(super) async fn count<T>(
        &self,
        direction: TransferDirection,
        moving: impl Future<Output = Result<(T, u64), ProfileError>>,
    ) -> Result<T, ProfileError> {
        let mut under_way = UnderWay {
            report: self,
            direction,
            began: Instant::now(),
            end: (TransferOutcome::Cancelled, 0),
        };
        let moved = moving.await;
        under_way.end = match &moved {
            Ok((_, bytes)) => (TransferOutcome::Ok, *bytes),
            Err(_) => (TransferOutcome::Error, 0),
        };
        moved.map(|(what, _)| what)
    }
}

impl fmt::Debug for Transfers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transfers").field(&self.0.is_some()).finish()
    }
}

/// A transfer that is reported when it is dropped, however that comes.
struct UnderWay<'a> {
    report: &'a Transfers,
    direction: TransferDirection,
    began: Instant,
    end: (TransferOutcome, u64),
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let Some(report) = &self.report.0 else { return };
        let (outcome, bytes) = self.end;
        let took = self.began.elapsed();
        report(&Transfer { direction: self.direction, outcome, bytes, took });
    }
}
