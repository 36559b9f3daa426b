use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

/// Occurrences since the last message.
///
/// It is one entry, however much happens, so that a webhook that is down costs no memory.
#[derive(Debug, Default)]
pub(super) struct Tally {
    happened: Mutex<Option<Happened>>,
    news: Notify,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Happened {
    /// Number of occurrences.
    pub(super) count: u64,
    /// When first.
    pub(super) since: SystemTime,
    /// The most recent known reason.
    pub(super) reason: Option<String>,
    /// Number of times by tenant of the configuration.
    pub(super) tenants: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts one, with the tenant that it happened to.
    pub(super) fn add(&self, reason: Option<String>, tenant: Option<&str>) {
        let mut happened = self.happened.lock().unwrap_or_else(PoisonError::into_inner);
        let tenants = BTreeMap::new();
        let first = Happened { count: 0, since: SystemTime::now(), reason: None, tenants };
        let happened = happened.get_or_insert(first);
        happened.count += 1;
        if let Some(tenant) = tenant {
            *happened.tenants.entry(tenant.to_owned()).or_default() += 1;
        }
        happened.reason = reason.or_else(|| happened.reason.take());
        self.news.notify_one();
    }

    /// Waits until something has happened, and takes it.
    pub(super) async fn take(&self) -> Happened {
        loop {
            let taken = self.happened.lock().unwrap_or_else(PoisonError::into_inner).take();
            match taken {
                Some(happened) => return happened,
                // What is added in between leaves a permit behind.
                None => self.news.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_happens_before_it_is_told_is_counted_with_the_last_reason() {
        let tally = Tally::default();
        tally.add(Some("first".to_owned()), None);
        tally.add(Some("second".to_owned()), Some("ada"));
        tally.add(None, Some("ada"));
        let happened = tally.take().await;
        assert_eq!((happened.count, happened.reason.as_deref()), (3, Some("second")));
        assert_eq!(happened.tenants, BTreeMap::from([("ada".to_owned(), 2)]));
        tally.add(None, None);
        assert_eq!(tally.take().await.count, 1);
    }
}
