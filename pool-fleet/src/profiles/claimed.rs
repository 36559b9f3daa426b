use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::claim::{Hold, Record, Standing, Version};
use super::copies::{Mark, ProfileId, private_dir};
use super::pack::{Scratch, unpack};
use super::{Busy, Inner, ProfileError, TransferDirection, boot_time, chain, lock};
use crate::transport::TransportError;

/// A profile that this node holds, renewed in the background.
///
/// [`release`](Self::release) saves it. If it is dropped instead, a task gives it up as it was, and
/// changes made since are lost.
#[derive(Debug)]
pub struct ClaimedProfile {
    pub(super) shared: Arc<Claimed>,
    renewal: AbortHandle,
    released: bool,
}

pub(super) struct Claimed {
    busy: Arc<Busy>,
    hold: Mutex<Hold>,
    /// Lets one write through at a time, since each names the revision of the one before.
    writing: tokio::sync::Mutex<()>,
    lost: watch::Sender<bool>,
}

impl ClaimedProfile {
    pub(super) fn start(hold: Hold, busy: Arc<Busy>) -> Self {
        busy.hold();
        let shared = Arc::new(Claimed {
            busy,
            hold: Mutex::new(hold),
            writing: tokio::sync::Mutex::default(),
            lost: watch::Sender::new(false),
        });
        let renewing = Arc::clone(&shared);
        let renewal = tokio::spawn(async move { renewing.renew().await }).abort_handle();
        Self { shared, renewal, released: false }
    }

    /// Returns the instance.
    #[must_use]
    pub fn id(&self) -> &ProfileId {
        self.shared.id()
    }

    /// Returns the directory, for as long as the profile is held.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.shared.inner().copies.directory(self.shared.id())
    }

    /// Returns the number of times the profile has been saved since it was made anew.
    #[must_use]
    pub fn content(&self) -> u64 {
        lock(&self.shared.hold).record().content
    }

    /// Returns `true` once the claim has not been renewed for so long that another node may soon
    /// have the profile. The call is cheap; check before doing anything with the profile.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.shared.is_lost()
    }

    /// Waits until [`is_lost`](Self::is_lost) is true.
    pub async fn lost(&self) {
        let mut lost = self.shared.lost.subscribe();
        // The sender lives in `shared`, which `self` holds.
        lost.wait_for(|lost| *lost).await.ok();
    }

    /// Saves the profile and gives it up. Nothing may use the directory any more.
    ///
    /// It keeps trying while the store cannot be reached, for at most `patience`: a claim that has
    /// only run out of time can still be saved if nobody has taken it. Returns the new content.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Lost`] if somebody else has taken it, [`ProfileError::Io`], and
    /// [`ProfileError::Unavailable`] after `patience`. The copy is then discarded.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a task goes on to save the profile and gives it up.
    pub async fn release(self, patience: Duration) -> Result<u64, ProfileError> {
        let deadline = Instant::now() + patience;
        let releasing = tokio::spawn(async move {
            // The whole value, which gives the profile up when it is dropped.
            let mut claimed = self;
            let released = claimed.shared.save(deadline).await;
            claimed.released = released.is_ok();
            released
        });
        releasing.await.map_err(io::Error::other)?
    }

    /// Gives the profile up as it was; the directory was not used.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Lost`], [`ProfileError::Unavailable`] and [`ProfileError::Io`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a task goes on to give the profile up.
    pub async fn release_untouched(self) -> Result<(), ProfileError> {
        let releasing = tokio::spawn(async move {
            let mut claimed = self;
            claimed.renewal.abort();
            let released = claimed.shared.release_untouched().await;
            claimed.released = released.is_ok();
            released
        });
        releasing.await.map_err(io::Error::other)?
    }
}

impl Drop for ClaimedProfile {
    fn drop(&mut self) {
        self.renewal.abort();
        if self.released {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Without a runtime, the claim ends by not being renewed.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { shared.write(|hold| hold.release(None)).await });
        }
    }
}

impl Claimed {
    fn inner(&self) -> &Arc<Inner> {
        &self.busy.inner
    }

    fn id(&self) -> &ProfileId {
        &self.busy.id
    }

    fn is_lost(&self) -> bool {
        let lost = lock(&self.hold).is_lost(boot_time());
        if lost {
            self.lost.send_if_modified(|told| !std::mem::replace(told, true));
        }
        lost
    }

    /// Renews the claim until somebody else has it.
    async fn renew(&self) {
        let times = self.inner().settings.times;
        loop {
            let left = lock(&self.hold).time_left(boot_time());
            let pause = if self.is_lost() { times.renew } else { times.renew.min(left) };
            sleep(pause).await;
            let left = lock(&self.hold).time_left(boot_time());
            // A write that hangs must not hide that the claim is lost in the meantime.
            let bound = if self.is_lost() { times.renew } else { left.max(times.look) };
            match timeout(bound, self.write(Hold::renewal)).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(ProfileError::Lost)) => return,
                Ok(Err(error)) => tracing::debug!(
                    profile = self.id().profile,
                    error = chain(&error),
                    "the claim of a profile was not renewed"
                ),
            }
            self.is_lost();
        }
    }

    /// Writes a record over the last one, and does so again if an earlier, unconfirmed write was
    /// applied.
    async fn write(&self, make: impl Fn(&Hold) -> Record) -> Result<(), ProfileError> {
        let _turn = self.writing.lock().await;
        let mut refused = 0;
        loop {
            let sent = boot_time();
            let (record, expected) = {
                let hold = lock(&self.hold);
                (make(&hold), hold.revision())
            };
            match self.inner().write(self.id(), &record, expected).await {
                Ok(revision) => {
                    lock(&self.hold).written(record, revision, sent);
                    return Ok(());
                }
                Err(TransportError::Conflict { .. }) if refused < 3 => refused += 1,
                Err(error) => return Err(ProfileError::Unavailable(error)),
            }
            let entry = self.inner().read(self.id()).await?;
            if let Some((revision, stands)) = &entry
                && stands.is_like(&record)
                && record.holder.is_none()
            {
                lock(&self.hold).written(record, *revision, sent);
                return Ok(());
            }
            match lock(&self.hold).refused(entry) {
                Standing::Held | Standing::Absent => {}
                Standing::Taken => {
                    self.lost.send_replace(true);
                    return Err(ProfileError::Lost);
                }
            }
        }
    }

    /// Updates the directory to the claimed content.
    pub(super) async fn fetch(&self) -> Result<(), ProfileError> {
        let object = lock(&self.hold).record().object.clone();
        let claimed = object.clone();
        let missing = self.busy.on_disk(move |copies, id| {
            copies.prepare(id)?;
            let Some(object) = claimed else {
                return copies.replace(id, None).map(|()| false);
            };
            if copies.mark(id)?.is_some_and(|mark| mark.object == object) {
                return copies.unmark(id).map(|()| false);
            }
            Ok(true)
        });
        let missing = missing.await?;
        let Some(object) = object.filter(|_| missing) else { return Ok(()) };
        let transfers = &self.inner().settings.transfers;
        transfers.count(TransferDirection::In, self.fetch_object(&object)).await
    }

    /// Puts the content of an object in the place of the copy. Returns its size.
    async fn fetch_object(&self, object: &str) -> Result<((), u64), ProfileError> {
        let inner = self.inner();
        let source = inner.store.object(&inner.bucket(), object).await;
        let Some(mut source) = source.map_err(ProfileError::Unavailable)? else {
            return Err(ProfileError::ContentLost);
        };
        let packed = Scratch(inner.copies.scratch(self.id(), "fetched"));
        let mut file = tokio::fs::File::create(&packed.0).await?;
        let bytes = tokio::io::copy(&mut source, &mut file).await?;
        file.sync_all().await?;
        drop(file);
        let from = packed.0.clone();
        let unpacking = self.busy.on_disk(move |copies, id| {
            let unpacked = copies.scratch(id, "unpacked");
            private_dir(&unpacked)?;
            unpack(&from, &unpacked)?;
            copies.replace(id, Some(&unpacked))
        });
        unpacking.await?;
        Ok(((), bytes))
    }

    async fn mark(&self, version: Version, object: String) -> io::Result<()> {
        let mark = Mark { version, object };
        self.busy.on_disk(move |copies, id| copies.set_mark(id, &mark)).await
    }

    /// Marks the directory as a copy again, and gives the profile up as it was.
    async fn release_untouched(&self) -> Result<(), ProfileError> {
        let record = lock(&self.hold).record().clone();
        let version = record.version();
        if let Some(object) = record.object {
            self.mark(version, object).await?;
        }
        self.write(|hold| hold.release(None)).await
    }

    /// Packs and stores the directory, and gives the profile up with that content.
    async fn save(&self, deadline: Instant) -> Result<u64, ProfileError> {
        let inner = self.inner();
        let mut packed = None;
        let mut object = None;
        loop {
            let stored = async {
                let name = match &object {
                    Some(name) => String::clone(name),
                    None => {
                        let storing = async {
                            let packed = match &mut packed {
                                Some(packed) => packed,
                                none => none.insert(inner.pack(&self.busy).await?),
                            };
                            inner.store_packed(self.id(), &packed.0).await
                        };
                        let transfers = &inner.settings.transfers;
                        let stored = transfers.count(TransferDirection::Out, storing).await?;
                        object.insert(stored).clone()
                    }
                };
                self.write(|hold| hold.release(Some(name.clone()))).await?;
                Ok(name)
            };
            match stored.await {
                Ok(object) => {
                    let version = lock(&self.hold).record().version();
                    self.mark(version, object).await?;
                    return Ok(version.content);
                }
                Err(ProfileError::Unavailable(error)) if Instant::now() < deadline => {
                    tracing::warn!(
                        profile = self.id().profile,
                        error = chain(&error),
                        "a profile is not saved yet"
                    );
                    sleep(inner.settings.times.renew / 2).await;
                    if let Some(name) = &object
                        && let Ok(None) = inner.store.object(&inner.bucket(), name).await
                    {
                        // A server that came back empty has lost the object as well.
                        object = None;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claimed")
            .field("id", self.id())
            .field("hold", &self.hold)
            .finish_non_exhaustive()
    }
}
