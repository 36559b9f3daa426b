use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use tokio::sync::Notify;

/// Whether what a Chromium says is read.
///
/// Its pipe is not read while every connection of its exclusive lease has more waiting than its
/// share: Chromium then keeps the rest. A pipe that leases share is always read, since one client
/// must not hold back the others.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// No lease on the pipe is a shared one.
    may_shut: AtomicBool,
    connections: AtomicUsize,
    /// Connections that are over their share.
    over: AtomicUsize,
    changed: Notify,
}

impl Gate {
    pub(crate) fn allow(&self, may_shut: bool) {
        self.may_shut.store(may_shut, SeqCst);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_shut(&self) -> bool {
        let over = self.over.load(SeqCst);
        over > 0 && over >= self.connections.load(SeqCst) && self.may_shut.load(SeqCst)
    }

    /// Waits until the pipe is to be read.
    pub(crate) async fn opened(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the look, so that a change in between is not missed.
            changed.as_mut().enable();
            if !self.is_shut() {
                return;
            }
            changed.await;
        }
    }

    /// A connection begins, or is about to: its answers are read for.
    pub(crate) fn enter(&self) {
        self.connections.fetch_add(1, SeqCst);
        self.changed.notify_waiters();
    }

    pub(crate) fn leave(&self) {
        self.connections.fetch_sub(1, SeqCst);
    }

    pub(crate) fn one_over(&self) {
        self.over.fetch_add(1, SeqCst);
    }

    pub(crate) fn one_less(&self) {
        self.over.fetch_sub(1, SeqCst);
        self.changed.notify_waiters();
    }
}

/// Keeps the gate open while a connection is being made.
#[derive(Debug)]
pub(crate) struct Expected(Arc<Gate>);

impl Expected {
    pub(crate) fn new(gate: &Arc<Gate>) -> Self {
        gate.enter();
        Self(Arc::clone(gate))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shut_while_all_are_over_and_none_is_about_to_come() {
        let gate = Arc::new(Gate::default());
        gate.allow(true);
        assert!(!gate.is_shut());
        gate.enter();
        gate.enter();
        gate.one_over();
        assert!(!gate.is_shut());
        gate.one_over();
        assert!(gate.is_shut());
        let expected = Expected::new(&gate);
        assert!(!gate.is_shut());
        drop(expected);
        assert!(gate.is_shut());
        gate.allow(false);
        assert!(!gate.is_shut());
    }

    #[tokio::test]
    async fn it_opens_when_one_has_taken_enough() {
        let gate = Gate::default();
        gate.allow(true);
        gate.enter();
        gate.one_over();
        let taken = async {
            tokio::task::yield_now().await;
            gate.one_less();
        };
        tokio::join!(gate.opened(), taken);
    }
}
