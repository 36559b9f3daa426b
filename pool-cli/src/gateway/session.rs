use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pool_core::{Class, Meta};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::traceparent::TraceParent;
use super::{LeaseEnd, LeaseId, LeaseQuery};
use crate::config::LeaseKind;
use crate::pool::{Leased, Wire};

/// A lease of a client: what it asked for, what it got, and its connections.
///
/// It is over when [`end`](Self::end) was called first, by whomever; then its connections close
/// and the browser goes back to the pool.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: LeaseId,
    pub(super) asked: LeaseQuery,
    pub(super) kind: LeaseKind,
    pub(super) peer: Option<SocketAddr>,
    /// The trace that the client's request belongs to.
    pub(super) trace: Option<TraceParent>,
    pub(super) browser: u64,
    pub(super) class: Class,
    pub(super) waited: Duration,
    pub(super) began: Instant,
    pub(super) began_at: SystemTime,
    /// How long it may last.
    pub(super) limit: Option<Duration>,
    /// How long its clients may be silent.
    pub(super) idle_limit: Option<Duration>,
    /// Whether it goes on without any connection, until it is released: a lease by REST.
    pub(super) detached: bool,
    pub(super) traffic: Traffic,
    /// `None` once it is over: then nothing may use the browser any more.
    leased: Mutex<Option<Arc<dyn Leased>>>,
    connections: AtomicUsize,
    end: watch::Sender<Option<LeaseEnd>>,
}

/// What went over the connections of a session.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// When a client was last heard, in milliseconds after the session began.
    heard: AtomicU64,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// What a session is made with besides the lease.
pub(super) struct Terms {
    pub(super) asked: LeaseQuery,
    pub(super) kind: LeaseKind,
    pub(super) peer: Option<SocketAddr>,
    pub(super) trace: Option<TraceParent>,
    pub(super) limit: Option<Duration>,
    pub(super) idle_limit: Option<Duration>,
    pub(super) detached: bool,
}

/// More connections than this to one lease are a mistake of its client.
const MAX_CONNECTIONS: usize = 32;

/// Why a connection to a session was not made.
pub(super) enum NotConnected {
    Over(LeaseEnd),
    TooMany,
}

impl Session {
    pub(super) fn new(leased: Arc<dyn Leased>, terms: Terms) -> Arc<Self> {
        let Meta { id, class, .. } = leased.meta();
        Arc::new(Self {
            id: LeaseId::random(),
            asked: terms.asked,
            kind: terms.kind,
            peer: terms.peer,
            trace: terms.trace,
            browser: id.get(),
            class: class.clone(),
            waited: leased.waited(),
            began: Instant::now(),
            began_at: SystemTime::now(),
            limit: terms.limit,
            idle_limit: terms.idle_limit,
            detached: terms.detached,
            traffic: Traffic::default(),
            leased: Mutex::new(Some(leased)),
            connections: AtomicUsize::new(0),
            end: watch::Sender::new(None),
        })
    }

    /// Ends it; the first reason stands. Says which one does.
    pub(super) fn end(&self, end: LeaseEnd) -> LeaseEnd {
        self.end.send_if_modified(|held| {
            let first = held.is_none();
            held.get_or_insert(end);
            first
        });
        self.has_ended().unwrap_or(end)
    }

    /// How it has ended, if it has.
    pub(super) fn has_ended(&self) -> Option<LeaseEnd> {
        *self.end.borrow()
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> LeaseEnd {
        let mut end = self.end.subscribe();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| *end).unwrap_or(LeaseEnd::Revoked)
    }

    /// The browser, unless the session is over.
    pub(super) fn leased(&self) -> Option<Arc<dyn Leased>> {
        self.leased.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets go of the browser.
    pub(super) fn give_back(&self) {
        let leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Outside of the lock: the drop of a lease does the pool's work.
        drop(leased);
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Opens a connection to the browser.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<(Wire, Attached), NotConnected> {
        let attached = self.attach()?;
        let over = || self.has_ended().unwrap_or(LeaseEnd::Revoked);
        let Some(leased) = self.leased() else { return Err(NotConnected::Over(over())) };
        let wire = tokio::select! {
            wire = leased.browser().connect() => wire,
            end = self.ended() => return Err(NotConnected::Over(end)),
        };
        match wire {
            Ok(wire) => Ok((wire, attached)),
            Err(end) => Err(NotConnected::Over(attached.detach(end.into()))),
        }
    }

    fn attach(self: &Arc<Self>) -> Result<Attached, NotConnected> {
        if self.connections.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            return Err(NotConnected::TooMany);
        }
        self.traffic.heard_at(self.began.elapsed());
        Ok(Attached { session: Arc::clone(self), end: LeaseEnd::ClientGone })
    }

    /// Waits until its clients have been silent for too long.
    pub(super) async fn idle(&self) {
        let Some(limit) = self.idle_limit else { return std::future::pending().await };
        loop {
            let heard = Duration::from_millis(self.traffic.heard.load(Ordering::Relaxed));
            let until = self.began + heard + limit;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// Waits until it has lasted as long as it may.
    pub(super) async fn outlived(&self) {
        match self.limit {
            Some(limit) => sleep_until(self.began + limit).await,
            None => std::future::pending().await,
        }
    }

    /// How long its clients have been silent.
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
    pub(super) fn heard(&self, session: &Session, bytes: usize) {
        self.heard_at(session.began.elapsed());
        self.messages_in.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A client has sent a ping of its own.
    pub(super) fn pinged(&self, session: &Session) {
        self.heard_at(session.began.elapsed());
    }

    /// Counts messages to a client.
    pub(super) fn told(&self, messages: u64, bytes: u64) {
        self.messages_out.fetch_add(messages, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Messages in, messages out, bytes in, bytes out.
    pub(super) fn totals(&self) -> [u64; 4] {
        [&self.messages_in, &self.messages_out, &self.bytes_in, &self.bytes_out]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

/// One connection of a session; the drop of the last one ends the session, unless that goes on
/// without.
#[derive(Debug)]
pub(super) struct Attached {
    session: Arc<Session>,
    /// How the session ends if this is the last connection.
    end: LeaseEnd,
}

impl Attached {
    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Ends this connection, and with it the session where that follows. Says how the session
    /// ended, or else why the connection did.
    pub(super) fn detach(mut self, end: LeaseEnd) -> LeaseEnd {
        let session = Arc::clone(&self.session);
        self.end = end;
        match end {
            // A client that leaves, or breaks the rules, ends its own connection.
            LeaseEnd::ClientGone
            | LeaseEnd::Released
            | LeaseEnd::NotText
            | LeaseEnd::TooLong
            | LeaseEnd::BadFrame => drop(self),
            // What the browser or the pool ends is over for all.
            _ => {
                session.end(end);
            }
        }
        session.has_ended().unwrap_or(end)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let left = self.session.connections.fetch_sub(1, Ordering::AcqRel) - 1;
        self.session.traffic.heard_at(self.session.began.elapsed());
        if left == 0 && !self.session.detached {
            self.session.end(self.end);
        }
    }
}
