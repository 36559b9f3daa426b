use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::claim::{Claimant, Hold, Holder, Record, Step};
use super::copies::ProfileId;
use super::{Busy, Found, Inner, ProfileError, boot_time, generation_after, lock};
use crate::transport::TransportError;

/// A claim being made. If it is dropped while it may have been written, it is withdrawn.
pub(super) struct Attempt {
    inner: Arc<Inner>,
    id: ProfileId,
    me: Holder,
    /// A write was sent, and it is not known whether it was applied.
    in_doubt: bool,
    /// The revision that it replaces.
    expected: Option<u64>,
    /// Time at which the first write was sent: a write that turns out to have been applied may
    /// be that old.
    first_sent: Option<Duration>,
}

impl Attempt {
    pub(super) fn new(busy: &Busy) -> Self {
        let inner = Arc::clone(&busy.inner);
        let me = Holder {
            node: Arc::clone(&inner.node),
            incarnation: inner.incarnation,
            claim: inner.claims.fetch_add(1, Ordering::Relaxed) + 1,
        };
        let id = busy.id.clone();
        Self { inner, id, me, in_doubt: false, expected: None, first_sent: None }
    }

    /// Claims the instance in the store.
    pub(super) async fn claim(
        mut self,
        busy: &Arc<Busy>,
        deadline: Instant,
    ) -> Result<Hold, ProfileError> {
        let inner = Arc::clone(&self.inner);
        let mut claimant = Claimant::new(self.me.clone(), inner.settings.times);
        loop {
            let entry = inner.read(&busy.id).await?;
            let holder = entry.as_ref().and_then(|(_, record)| record.holder.clone());
            self.saw(holder.as_ref());
            let now = boot_time();
            let (record, expected) = match claimant.look(entry, now) {
                Step::Claimed { record, revision } => {
                    let sent = self.first_sent.unwrap_or(now);
                    return Ok(self.hold(record, revision, sent));
                }
                Step::Claim { record, expected } => (record, Some(expected)),
                Step::Wait => {
                    self.pause(deadline, || ProfileError::Busy { holder }).await?;
                    continue;
                }
                Step::Search { expected, generation } => match inner
                    .search(&busy.id, generation)
                    .await
                {
                    Found::Nowhere if expected.is_some() => return Err(ProfileError::ContentLost),
                    Found::Nowhere if inner.has_settled() => {
                        (claimant.claimed(Record::new(generation_after(0))), None)
                    }
                    Found::Silent(nodes) => {
                        self.pause(deadline, || ProfileError::Unknown { nodes }).await?;
                        continue;
                    }
                    Found::Here => {
                        inner.publish_copy(busy, expected).await?;
                        continue;
                    }
                    Found::There(node) => {
                        inner.ask(&node, &busy.id, true).await;
                        self.pause(deadline, || ProfileError::Busy { holder }).await?;
                        continue;
                    }
                    Found::Held | Found::Nowhere => {
                        self.pause(deadline, || ProfileError::Busy { holder }).await?;
                        continue;
                    }
                },
            };
            if let Some(hold) = self.write(record, expected).await? {
                return Ok(hold);
            }
        }
    }

    /// Notes the holder that it waits for.
    fn saw(&self, holder: Option<&Holder>) {
        let mut holders = lock(&self.inner.holders);
        match holder {
            Some(holder) => holders.insert(self.id.clone(), Arc::clone(&holder.node)),
            None => holders.remove(&self.id),
        };
    }

    /// Waits before the next look, unless the time is up.
    async fn pause(
        &self,
        deadline: Instant,
        error: impl FnOnce() -> ProfileError,
    ) -> Result<(), ProfileError> {
        if Instant::now() >= deadline {
            return Err(error());
        }
        sleep(self.inner.settings.times.look).await;
        Ok(())
    }

    /// Writes the claim over a revision. Returns `None` if it was refused, or if no answer came.
    async fn write(
        &mut self,
        record: Record,
        expected: Option<u64>,
    ) -> Result<Option<Hold>, ProfileError> {
        let sent = boot_time();
        self.first_sent.get_or_insert(sent);
        let doubted = std::mem::replace(&mut self.in_doubt, true);
        self.expected = expected;
        match self.inner.write(&self.id, &record, expected).await {
            Ok(revision) => Ok(Some(self.hold(record, revision, sent))),
            Err(TransportError::Conflict { .. }) => {
                // The conflict may be with the write before, which may have been applied.
                self.in_doubt = doubted;
                Ok(None)
            }
            Err(TransportError::TimedOut) => Ok(None),
            Err(error) => Err(ProfileError::Unavailable(error)),
        }
    }

    fn hold(&mut self, record: Record, revision: u64, sent: Duration) -> Hold {
        self.in_doubt = false;
        Hold::new(self.me.clone(), self.inner.settings.times, record, revision, sent)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.saw(None);
        if !self.in_doubt {
            return;
        }
        // Without a runtime, the claim ends by not being renewed.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (inner, id, me) = (Arc::clone(&self.inner), self.id.clone(), self.me.clone());
            let expected = self.expected;
            runtime.spawn(async move { withdraw(&inner, &id, &me, expected).await });
        }
    }
}

/// Gives up a claim whose write was not confirmed, until it is certain that it does not stand. One
/// that is applied after that ends by not being renewed.
async fn withdraw(inner: &Inner, id: &ProfileId, me: &Holder, expected: Option<u64>) {
    let times = inner.settings.times;
    let until = Instant::now() + times.takeover;
    let mut pause = times.look;
    while Instant::now() < until {
        match inner.read(id).await {
            Ok(Some((revision, record))) if record.holder.as_ref() == Some(me) => {
                let free = Record { holder: None, renewals: record.renewals + 1, ..record };
                if inner.write(id, &free, Some(revision)).await.is_ok() {
                    return;
                }
            }
            Ok(entry) if entry.as_ref().map(|(revision, _)| *revision) != expected => return,
            // The write may still be on its way.
            Ok(_) | Err(_) => {}
        }
        sleep(std::mem::replace(&mut pause, times.renew)).await;
    }
}
