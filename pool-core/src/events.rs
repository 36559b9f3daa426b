use tokio::sync::broadcast;

use crate::Event;

/// The events of a pool from the moment it was made, from [`Pool::events`](crate::Pool::events).
#[derive(Debug)]
pub struct EventStream {
    receiver: broadcast::Receiver<Event>,
    missed: u64,
}

impl EventStream {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self { receiver, missed: 0 }
    }

    /// The next event, or `None` once the pool is gone.
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => self.missed += missed,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next event that is already there.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(broadcast::error::TryRecvError::Lagged(missed)) => self.missed += missed,
                Err(_) => return None,
            }
        }
    }

    /// Returns the number of events dropped because this reader was too slow for the pool's
    /// [`event_capacity`](crate::PoolBuilder::event_capacity).
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }
}
