use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::LeaseId;
use super::session::Session;

/// How many leases that are over are remembered, to answer 410 rather than 404.
const REMEMBERED: usize = 10_000;

/// The leases that clients hold.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    held: Mutex<Held>,
    gone: Notify,
}

#[derive(Debug, Default)]
struct Held {
    sessions: HashMap<LeaseId, Arc<Session>>,
    over: HashSet<LeaseId>,
    /// The same, oldest first.
    over_in_order: VecDeque<LeaseId>,
}

/// What an id stands for.
pub(super) enum Known {
    Held(Arc<Session>),
    Over,
    Never,
}

impl Sessions {
    pub(super) fn add(&self, session: &Arc<Session>) {
        self.lock().sessions.insert(session.id, Arc::clone(session));
    }

    /// Takes a session out, since it is over.
    pub(super) fn remove(&self, id: LeaseId) {
        {
            let mut held = self.lock();
            held.sessions.remove(&id);
            if held.over.insert(id) {
                held.over_in_order.push_back(id);
            }
            if held.over_in_order.len() > REMEMBERED
                && let Some(oldest) = held.over_in_order.pop_front()
            {
                held.over.remove(&oldest);
            }
        }
        self.gone.notify_waiters();
    }

    pub(super) fn find(&self, id: LeaseId) -> Known {
        let held = self.lock();
        match held.sessions.get(&id) {
            Some(session) if session.has_ended().is_none() => Known::Held(Arc::clone(session)),
            Some(_) => Known::Over,
            None if held.over.contains(&id) => Known::Over,
            None => Known::Never,
        }
    }

    /// All that are held, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        let mut all: Vec<_> = self.lock().sessions.values().cloned().collect();
        all.sort_by_key(|session| session.began);
        all
    }

    pub(super) fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Waits until none is held.
    pub(super) async fn none(&self) {
        loop {
            let gone = self.gone.notified();
            tokio::pin!(gone);
            // Registered before the look, so that the last one cannot go unseen in between.
            gone.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            gone.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
