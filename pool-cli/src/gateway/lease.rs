use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use pool_chrome::cdp::Client;
use pool_chrome::mux::HolderCommands;
use pool_core::{Class, Meta};
use pool_fleet::SessionEntry;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{LeaseEnd, LeaseQuery};
use crate::config::LeaseKind;
use crate::pool::{Leased, NoConnection, OpenPage, Wire};
use crate::telemetry::TraceParent;
use crate::work::WorkKind;

/// A lease of a client: its request, its browser, and its connections.
///
/// It is over once [`end`](Self::end) has been called, by anybody; then its connections close and
/// the browser goes back to the pool.
#[derive(Debug)]
pub(super) struct ClientLease {
    pub(super) id: LeaseId,
    /// The id as others see it: in a fleet, it includes the node that has the lease.
    pub(super) public_id: String,
    /// Its name in the fleet.
    pub(super) entry: Option<SessionEntry>,
    pub(super) asked: LeaseQuery,
    pub(super) kind: LeaseKind,
    pub(super) peer: Option<SocketAddr>,
    /// The kind of work, if the lease belongs to one call.
    pub(super) work: Option<WorkKind>,
    /// The trace that the client's request belongs to.
    pub(super) trace: Option<TraceParent>,
    pub(super) browser: u64,
    pub(super) class: Class,
    pub(super) waited: Duration,
    pub(super) began: Instant,
    pub(super) began_at: SystemTime,
    /// Maximum time that it may last.
    pub(super) limit: Option<Duration>,
    /// Maximum time that its clients may be silent.
    pub(super) idle_limit: Option<Duration>,
    /// The end of the previous lease with its name, if one is remembered.
    pub(super) renewed: Option<LeaseEnd>,
    /// The label that its holder gave it, by REST.
    pub(super) label: OnceLock<Label>,
    pub(super) traffic: Traffic,
    /// The part of its use that is already in its tenant's books.
    booked: Mutex<Use>,
    /// `None` once it is over: from then on nothing may use the browser.
    leased: Mutex<Option<Arc<dyn Leased>>>,
    presence: watch::Sender<Presence>,
    end: watch::Sender<Option<LeaseEnd>>,
}

/// The name, tags and first address that a lease acquired over REST was given.
#[derive(Clone, Debug, Default)]
pub(super) struct Label {
    pub(super) name: Option<String>,
    pub(super) start_url: Option<String>,
    pub(super) tags: BTreeMap<String, String>,
}

/// The use that a lease makes of a browser.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Use {
    pub(super) held_ms: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// Time that a lease goes on without a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// For this long; if it is zero, the lease ends with its last connection.
    For(Duration),
    /// Until it is released: a lease acquired over REST.
    Held,
}

/// Number of connections to a lease, and the time for which it goes on without any.
#[derive(Clone, Copy, Debug)]
struct Presence {
    connections: usize,
    keep: Keep,
    /// Time since which it has been without a connection.
    left: Option<Instant>,
}

impl Presence {
    /// Returns the time at which the lease ends unless a client comes.
    fn over_at(&self) -> Option<Instant> {
        match self.keep {
            Keep::For(keep) => self.left.map(|left| left + keep),
            Keep::Held => None,
        }
    }
}

/// Traffic over the connections of a session.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Time at which a client was last heard, or had something to wait for, in milliseconds after
    /// the session began.
    heard: AtomicU64,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// The terms with which a lease is made.
pub(super) struct Terms {
    pub(super) id: LeaseId,
    pub(super) public_id: String,
    pub(super) entry: Option<SessionEntry>,
    pub(super) asked: LeaseQuery,
    pub(super) kind: LeaseKind,
    pub(super) peer: Option<SocketAddr>,
    pub(super) work: Option<WorkKind>,
    pub(super) trace: Option<TraceParent>,
    pub(super) limit: Option<Duration>,
    pub(super) idle_limit: Option<Duration>,
    pub(super) keep: Keep,
    /// Set if it begins without a connection.
    pub(super) unattended: bool,
    pub(super) renewed: Option<LeaseEnd>,
}

/// Maximum number of connections to one lease; more are a mistake of its client.
const MAX_CONNECTIONS: usize = 32;

/// Reasons why a connection to a session was not made.
pub(super) enum NotConnected {
    Over(LeaseEnd),
    TooMany,
    /// It has no such page.
    NoPage,
}

/// The target of a client's messages that name no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Browser,
    /// The first page, or a new one if there is none.
    FirstPage,
    /// The page with this id.
    Page(String),
}

impl ClientLease {
    pub(super) fn new(leased: Arc<dyn Leased>, terms: Terms) -> Arc<Self> {
        let Meta { id, class, .. } = leased.meta();
        let began = Instant::now();
        let left = terms.unattended.then_some(began);
        Arc::new(Self {
            id: terms.id,
            public_id: terms.public_id,
            entry: terms.entry,
            asked: terms.asked,
            kind: terms.kind,
            peer: terms.peer,
            work: terms.work,
            trace: terms.trace,
            browser: id.get(),
            class: class.clone(),
            waited: leased.waited(),
            began,
            began_at: SystemTime::now(),
            limit: terms.limit,
            idle_limit: terms.idle_limit,
            renewed: terms.renewed,
            label: OnceLock::new(),
            traffic: Traffic::default(),
            booked: Mutex::default(),
            leased: Mutex::new(Some(leased)),
            presence: watch::Sender::new(Presence { connections: 0, keep: terms.keep, left }),
            end: watch::Sender::new(None),
        })
    }

    /// Ends the lease. The first reason counts, and is returned.
    pub(super) fn end(&self, end: LeaseEnd) -> LeaseEnd {
        self.end.send_if_modified(|held| {
            let first = held.is_none();
            held.get_or_insert(end);
            first
        });
        self.has_ended().unwrap_or(end)
    }

    /// Returns how it has ended, if it has.
    pub(super) fn has_ended(&self) -> Option<LeaseEnd> {
        *self.end.borrow()
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> LeaseEnd {
        let mut end = self.end.subscribe();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| *end).unwrap_or(LeaseEnd::Revoked)
    }

    /// Returns the browser, unless the session is over.
    pub(super) fn leased(&self) -> Option<Arc<dyn Leased>> {
        self.leased.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the browser back.
    pub(super) fn give_back(&self) {
        let leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Outside of the lock, since dropping a lease does the pool's work.
        drop(leased);
    }

    /// Returns its use since the last call, for the books of its tenant.
    pub(super) fn take_use(&self) -> Use {
        let [_, _, bytes_in, bytes_out] = self.traffic.totals();
        let held_ms = self.began.elapsed().as_millis() as u64;
        let now = Use { held_ms, bytes_in, bytes_out };
        let mut booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *booked, now);
        Use {
            held_ms: now.held_ms.saturating_sub(before.held_ms),
            bytes_in: now.bytes_in.saturating_sub(before.bytes_in),
            bytes_out: now.bytes_out.saturating_sub(before.bytes_out),
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.presence.borrow().connections
    }

    /// Returns how long it goes on without a connection; `None` if until it is released.
    pub(super) fn keep(&self) -> Option<Duration> {
        match self.presence.borrow().keep {
            Keep::For(keep) => Some(keep),
            Keep::Held => None,
        }
    }

    /// Returns how much longer it will go on if no client comes.
    pub(super) fn kept_for(&self) -> Option<Duration> {
        Some(self.presence.borrow().over_at()?.saturating_duration_since(Instant::now()))
    }

    /// Sets how long it goes on without a connection; a lease acquired over REST is held until it
    /// is released.
    pub(super) fn set_keep(&self, keep: Duration) {
        self.presence.send_modify(|presence| {
            if presence.keep != Keep::Held {
                presence.keep = Keep::For(keep);
            }
        });
    }

    /// Opens a connection to the browser or to one of its pages, for a client; commands that no
    /// Chromium has are answered by `commands`.
    pub(super) async fn connect(
        self: &Arc<Self>,
        root: &Root,
        commands: Arc<dyn HolderCommands>,
    ) -> Result<(Wire, Attached), NotConnected> {
        let connect = |leased: Arc<dyn Leased>| async move {
            let browser = leased.browser();
            match root {
                Root::Browser => browser.connect(commands).await.map_err(NoConnection::Ended),
                Root::FirstPage => browser.connect_page(None, commands).await,
                Root::Page(page) => browser.connect_page(Some(page), commands).await,
            }
        };
        self.open(connect).await
    }

    /// Opens a connection to the browser for the gateway's own use.
    pub(super) async fn drive(self: &Arc<Self>) -> Result<(Client, Attached), NotConnected> {
        let drive = |leased: Arc<dyn Leased>| async move {
            leased.browser().drive().await.map_err(NoConnection::Ended)
        };
        self.open(drive).await
    }

    async fn open<T, F>(
        self: &Arc<Self>,
        connect: impl FnOnce(Arc<dyn Leased>) -> F,
    ) -> Result<(T, Attached), NotConnected>
    where
        F: Future<Output = Result<T, NoConnection>>,
    {
        let attached = self.attach()?;
        let over = || self.has_ended().unwrap_or(LeaseEnd::Revoked);
        let Some(leased) = self.leased() else { return Err(NotConnected::Over(over())) };
        let connected = tokio::select! {
            connected = connect(leased) => connected,
            end = self.ended() => return Err(NotConnected::Over(end)),
        };
        match connected {
            Ok(connected) => Ok((connected, attached)),
            Err(NoConnection::NoPage) => Err(NotConnected::NoPage),
            Err(NoConnection::Ended(end)) => Err(NotConnected::Over(attached.detach(end))),
        }
    }

    /// Returns its pages, oldest first; none once it is over.
    pub(super) async fn pages(&self) -> Vec<OpenPage> {
        match self.leased() {
            Some(leased) => leased.browser().pages().await,
            None => Vec::new(),
        }
    }

    /// Returns `true` if it has a page with this id.
    pub(super) fn has_page(&self, id: &str) -> bool {
        self.leased().is_some_and(|leased| leased.browser().has_page(id))
    }

    fn attach(self: &Arc<Self>) -> Result<Attached, NotConnected> {
        let mut attached = Ok(());
        self.presence.send_if_modified(|presence| {
            // Under the lock under which it ends when its time without a connection is up.
            attached = match self.has_ended() {
                Some(end) => Err(NotConnected::Over(end)),
                None if presence.connections >= MAX_CONNECTIONS => Err(NotConnected::TooMany),
                None => Ok(()),
            };
            if attached.is_ok() {
                self.traffic.heard_at(self.began.elapsed());
                presence.connections += 1;
                presence.left = None;
            }
            attached.is_ok()
        });
        attached.map(|()| Attached { session: Arc::clone(self), end: LeaseEnd::ClientGone })
    }

    /// Waits until its clients have been silent for too long, with nothing to wait for.
    ///
    /// While no client is connected, the time for which it is kept counts instead.
    pub(super) async fn idle(&self) {
        let Some(limit) = self.idle_limit else { return std::future::pending().await };
        let look = (limit / 8).clamp(Duration::from_millis(20), Duration::from_secs(5));
        let mut waited = false;
        loop {
            let now = Instant::now();
            let waits = self.is_busy() || self.presence.borrow().over_at().is_some();
            // Even if that has only just ended: slightly too late is better than too early.
            if std::mem::replace(&mut waited, waits) || waits {
                self.traffic.heard_at(self.began.elapsed());
            }
            let heard = Duration::from_millis(self.traffic.heard.load(Ordering::Relaxed));
            let until = self.began + heard + limit;
            if now >= until {
                return;
            }
            sleep_until(until.min(now + look)).await;
        }
    }

    /// Returns `true` if a client's command has not been answered, or a download has not ended.
    fn is_busy(&self) -> bool {
        self.leased().is_some_and(|leased| leased.browser().is_busy())
    }

    /// Waits until it has been without a connection for as long as it is kept, and ends it.
    pub(super) async fn unclaimed(&self) {
        let mut presence = self.presence.subscribe();
        loop {
            let over_at = presence.borrow_and_update().over_at();
            let changed = presence.changed();
            // The sender lives as long as `self`, so this can only mean a change.
            let late = match over_at {
                Some(over_at) => timeout_at(over_at, changed).await.is_err(),
                None => changed.await.is_err(),
            };
            if late && self.end_unclaimed() {
                return;
            }
        }
    }

    fn end_unclaimed(&self) -> bool {
        let mut over = false;
        self.presence.send_if_modified(|presence| {
            over = presence.over_at().is_some_and(|at| at <= Instant::now());
            if over {
                self.end(LeaseEnd::KeepOver);
            }
            false
        });
        over
    }

    /// Waits until it has lasted as long as it is allowed to.
    pub(super) async fn outlived(&self) {
        match self.limit {
            Some(limit) => sleep_until(self.began + limit).await,
            None => std::future::pending().await,
        }
    }

    /// Returns how long its clients have been silent.
    pub(super) fn silent_for(&self) -> Duration {
        let heard = Duration::from_millis(self.traffic.heard.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(heard)
    }
}

impl Traffic {
    fn heard_at(&self, elapsed: Duration) {
        self.heard.store(elapsed.as_millis() as u64, Ordering::Relaxed);
    }

    /// Counts a message from a client.
    pub(super) fn heard(&self, session: &ClientLease, bytes: usize) {
        self.heard_at(session.began.elapsed());
        self.messages_in.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes that a client has sent a ping of its own.
    pub(super) fn pinged(&self, session: &ClientLease) {
        self.heard_at(session.began.elapsed());
    }

    /// Counts messages sent to a client.
    pub(super) fn told(&self, messages: u64, bytes: u64) {
        self.messages_out.fetch_add(messages, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns messages in, messages out, bytes in, bytes out.
    pub(super) fn totals(&self) -> [u64; 4] {
        [&self.messages_in, &self.messages_out, &self.bytes_in, &self.bytes_out]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

/// A connection of a session; dropping the last one ends the session, unless that is kept.
#[derive(Debug)]
pub(super) struct Attached {
    session: Arc<ClientLease>,
    /// The end of the lease if this is its last connection.
    end: LeaseEnd,
}

impl Attached {
    pub(super) fn session(&self) -> &Arc<ClientLease> {
        &self.session
    }

    /// Ends this connection, and the lease too if that follows. Returns the end of the lease, or
    /// else of the connection.
    pub(super) fn detach(mut self, end: LeaseEnd) -> LeaseEnd {
        let session = Arc::clone(&self.session);
        self.end = end;
        if end.is_for_all() {
            session.end(end);
        } else {
            drop(self);
        }
        session.has_ended().unwrap_or(end)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let session = &self.session;
        session.traffic.heard_at(session.began.elapsed());
        let mut last = false;
        session.presence.send_modify(|presence| {
            presence.connections -= 1;
            if presence.connections == 0 {
                last = presence.keep == Keep::For(Duration::ZERO);
                presence.left = (!last).then(Instant::now);
            }
        });
        if last {
            session.end(self.end);
        }
    }
}

/// The name of a lease in addresses: 128 random bits that nobody can guess.
///
/// Anybody who knows it can connect to the lease, so `Debug` and logs show only its beginning.
///
/// # Examples
///
/// ```
/// use pool_cli::gateway::LeaseId;
///
/// let id = LeaseId::random();
/// assert_eq!(id.to_string().parse(), Ok(id));
/// assert_eq!(id.short().len(), 8);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(u128);

/// The text is not a lease id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id of a lease is 32 hexadecimal digits")]
pub struct NotALeaseId;

impl LeaseId {
    /// Creates a new id.
    ///
    /// # Panics
    ///
    /// If the operating system has no random numbers, without which no lease would be safe.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
        Self(u128::from_be_bytes(bytes))
    }

    /// Returns the first 8 digits: enough to find it in a log, not enough to connect to it.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseId({}…)", self.short())
    }
}

impl FromStr for LeaseId {
    type Err = NotALeaseId;

    fn from_str(text: &str) -> Result<Self, NotALeaseId> {
        let canonical = text.len() == 32
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        // Only one spelling is accepted, so that a lease has only one address.
        if !canonical {
            return Err(NotALeaseId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NotALeaseId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_give_the_lease_away() {
        let id = LeaseId::random();
        assert!(!format!("{id:?}").contains(&id.to_string()));
    }

    #[test]
    fn other_spellings_are_no_lease() {
        for text in ["", "../../etc", "+0000000000000000000000000000001", &"F".repeat(32)] {
            assert_eq!(text.parse::<LeaseId>(), Err(NotALeaseId), "{text}");
        }
    }
}
