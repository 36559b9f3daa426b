use std::fmt;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

/// Size of the steps in which bytes are counted, so that connections with little waiting never
/// touch the counter that all of them share.
const STEP: usize = 64 * 1024;

/// Fraction of the budget that is the largest share of a connection.
const SHARES: usize = 16;

/// The number of bytes that may wait in all connections of a driver together: messages that clients
/// have not taken yet, commands that Chromium has not taken yet, and partly received messages of
/// both.
///
/// When it is spent, the connection that holds the most is cut, so that a pool stays within its
/// memory whatever its clients and their pages do. Clones share the budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: AtomicUsize,
    used: AtomicUsize,
    /// Number of open connections, which determines their shares.
    connections: AtomicUsize,
    /// Searched when the budget is spent, and cleaned up when somebody joins.
    holders: Mutex<Vec<Weak<dyn Holder>>>,
}

/// Something that holds bytes of the budget.
pub(crate) trait Holder: fmt::Debug + Send + Sync {
    fn account(&self) -> &Account;

    /// Returns its claim to the bytes that it holds.
    fn standing(&self) -> Standing;

    /// Gives up what it can at once, and the rest soon. It wakes nobody, since others are locked.
    fn give_way(&self);

    /// Wakes those who wait for what has given way. Called without any lock.
    fn tell(&self);
}

/// Claim of a [`Holder`] to the bytes that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Its connection is open.
    Open,
    /// Its connection is cut and only waits to report that: the first to give way.
    Cut,
    /// It was told to let go of everything and is about to do so.
    Leaving,
}

impl Budget {
    /// The default: 256 MiB, which is what Chromium itself lets wait for a client of its debugging
    /// port.
    pub const DEFAULT: usize = 256 * 1024 * 1024;

    /// Creates a budget of this many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            holders: Mutex::default(),
        }))
    }

    /// Changes the limit. If more than a smaller limit is waiting, it stays until more comes.
    pub fn set_limit(&self, bytes: usize) {
        self.0.limit.store(bytes, Relaxed);
    }

    /// Returns the limit in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.limit.load(Relaxed)
    }

    /// Returns the number of waiting bytes, give or take 64 KiB for each connection.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Relaxed)
    }

    /// Returns how much a connection may have waiting for its client before it is held back, if
    /// that is possible. All shares together leave half of the budget for connections that cannot
    /// be held back.
    pub(crate) fn share(&self) -> usize {
        let connections = self.0.connections.load(Relaxed);
        self.limit() / SHARES.max(2 * connections)
    }

    /// Registers a holder, which may be asked to give way.
    pub(crate) fn join(&self, holder: Weak<dyn Holder>) {
        let mut holders = self.0.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if holders.len() == holders.capacity() {
            holders.retain(|holder| holder.strong_count() > 0);
        }
        holders.push(holder);
    }

    pub(crate) fn connected(&self) {
        self.0.connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn disconnected(&self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }

    /// Makes the largest holders give way, until the others are within the limit.
    ///
    /// Must not be called under any lock, since it wakes those who wait for what has given way.
    pub(crate) fn make_room(&self) {
        // One caller at a time: two would make two holders give way where one is enough.
        let known = self.0.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let holders: Vec<_> = known.iter().filter_map(Weak::upgrade).collect();
        let mut gave_way = Vec::new();
        while let Some(worst) = self.worst_of(&holders) {
            worst.give_way();
            gave_way.push(worst);
        }
        // This may also drop the last handle of a holder.
        drop(known);
        for holder in gave_way {
            holder.tell();
        }
    }

    /// Returns the holder that must give way next, if one must.
    fn worst_of<'a>(&self, holders: &'a [Arc<dyn Holder>]) -> Option<&'a Arc<dyn Holder>> {
        let mut leaving = 0;
        let mut worst = None;
        for holder in holders {
            let (standing, held) = (holder.standing(), holder.account().held());
            if standing == Standing::Leaving {
                leaving += held;
            } else if held >= STEP && worst.is_none_or(|(s, h, _)| (standing, held) > (s, h)) {
                worst = Some((standing, held, holder));
            }
        }
        let (standing, held, holder) = worst?;
        if self.used().saturating_sub(leaving) <= self.limit() {
            return None;
        }
        tracing::debug!(held, ?standing, "the budget for what waits is spent");
        Some(holder)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

/// One holder's part of a [`Budget`].
#[derive(Debug)]
pub(crate) struct Account {
    budget: Budget,
    held: AtomicUsize,
}

impl Account {
    pub(crate) fn new(budget: Budget) -> Self {
        Self { budget, held: AtomicUsize::new(0) }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Takes bytes out of the budget. Returns `true` if that has spent it:
    /// [room](Budget::make_room) must then be made as soon as no lock is held.
    #[must_use = "room must be made once no lock is held"]
    pub(crate) fn add(&self, bytes: usize) -> bool {
        let before = self.held.fetch_add(bytes, Relaxed);
        let steps = whole_steps(before + bytes) - whole_steps(before);
        steps > 0 && self.budget.0.used.fetch_add(steps, Relaxed) + steps > self.budget.limit()
    }

    /// Takes bytes out of the budget, and makes room if that has spent it, possibly at this
    /// account's own expense.
    pub(crate) fn add_with_room(&self, bytes: usize) {
        if self.add(bytes) {
            self.budget.make_room();
        }
    }

    /// Puts bytes back.
    pub(crate) fn sub(&self, bytes: usize) {
        let before = self.held.fetch_sub(bytes, Relaxed);
        let steps = whole_steps(before) - whole_steps(before - bytes);
        if steps > 0 {
            self.budget.0.used.fetch_sub(steps, Relaxed);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let held = self.held();
        self.sub(held);
    }
}

/// Rounds bytes down to whole steps; the first is free.
fn whole_steps(bytes: usize) -> usize {
    bytes / STEP * STEP
}

/// A valve for what a Chromium says.
///
/// The pipe is not read while every connection of its exclusive lease has more waiting than its
/// share: Chromium then keeps the rest. A pipe with shared leases is always read, since one client
/// must not hold back the others.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// No lease on the pipe is shared.
    may_shut: AtomicBool,
    connections: AtomicUsize,
    /// Connections that are over their share.
    over: AtomicUsize,
    changed: Notify,
}

impl Gate {
    /// Sets whether it may be shut at all; [tell](Self::tell) must be called afterwards.
    pub(crate) fn allow(&self, may_shut: bool) {
        self.may_shut.store(may_shut, SeqCst);
    }

    /// Makes the reader look again.
    pub(crate) fn tell(&self) {
        self.changed.notify_waiters();
    }

    pub(crate) fn is_shut(&self) -> bool {
        let over = self.over.load(SeqCst);
        over > 0 && over >= self.connections.load(SeqCst) && self.may_shut.load(SeqCst)
    }

    /// Waits until the pipe may be read.
    pub(crate) async fn opened(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before checking, so that a change in between is not missed.
            changed.as_mut().enable();
            if !self.is_shut() {
                return;
            }
            changed.await;
        }
    }

    /// Notes that a connection begins or is about to, so that its answers are read.
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

    /// Notes that a connection has taken enough; [tell](Self::tell) must be called afterwards.
    pub(crate) fn one_less(&self) {
        self.over.fetch_sub(1, SeqCst);
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
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[derive(Debug)]
    struct Hoard {
        account: Account,
        /// Bytes that go at once when it gives way.
        loose: AtomicUsize,
        cut: AtomicBool,
        leaving: AtomicBool,
        told: AtomicUsize,
    }

    impl Hoard {
        fn new(budget: &Budget, loose: usize, rest: usize) -> Arc<Self> {
            let hoard = Arc::new(Self {
                account: Account::new(budget.clone()),
                loose: AtomicUsize::new(loose),
                cut: AtomicBool::new(false),
                leaving: AtomicBool::new(false),
                told: AtomicUsize::new(0),
            });
            let weak: Weak<dyn Holder> = Arc::downgrade(&hoard) as _;
            budget.join(weak);
            hoard.account.add_with_room(loose + rest);
            hoard
        }
    }

    impl Holder for Hoard {
        fn account(&self) -> &Account {
            &self.account
        }

        fn standing(&self) -> Standing {
            match (self.cut.load(Relaxed), self.leaving.load(Relaxed)) {
                (_, true) => Standing::Leaving,
                (true, false) => Standing::Cut,
                (false, false) => Standing::Open,
            }
        }

        fn give_way(&self) {
            if self.cut.swap(true, Relaxed) {
                self.leaving.store(true, Relaxed);
            } else {
                self.account.sub(self.loose.swap(0, Relaxed));
            }
        }

        fn tell(&self) {
            assert!(self.account.budget().0.holders.try_lock().is_ok(), "the budget is locked");
            self.told.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn the_worst_gives_way_and_those_that_are_cut_come_first() {
        let budget = Budget::new(10 * STEP);
        let small = Hoard::new(&budget, 2 * STEP, 0);
        let large = Hoard::new(&budget, 4 * STEP, 2 * STEP);
        assert_eq!(large.standing(), Standing::Open);
        let other = Hoard::new(&budget, 3 * STEP, 0);
        assert_eq!((large.standing(), large.account.held()), (Standing::Cut, 2 * STEP));
        // What is left of the one that was cut goes before anybody else is.
        other.account.add_with_room(4 * STEP);
        assert_eq!(large.standing(), Standing::Leaving);
        assert_eq!((small.standing(), other.standing()), (Standing::Open, Standing::Open));
    }

    #[test]
    fn those_who_wait_are_told_once_the_budget_is_unlocked() {
        let budget = Budget::new(2 * STEP);
        let hoards = [3, 4].map(|steps| Hoard::new(&budget, steps * STEP, 0));
        assert_eq!(hoards.map(|hoard| hoard.told.load(Relaxed)), [1, 1]);
    }

    #[test]
    fn little_is_not_counted_and_everything_comes_back() {
        let budget = Budget::new(STEP);
        let account = Account::new(budget.clone());
        assert!(!account.add(STEP - 1));
        assert_eq!(budget.used(), 0);
        assert!(!account.add(STEP));
        assert_eq!(budget.used(), STEP);
        account.sub(STEP);
        assert_eq!(budget.used(), 0);
        assert!(account.add(9 * STEP));
        drop(account);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn shares_get_smaller_so_that_half_of_the_budget_stays() {
        let budget = Budget::new(3200);
        assert_eq!(budget.share(), 200);
        for _ in 0..16 {
            budget.connected();
        }
        assert_eq!(budget.share(), 100);
        (0..16).for_each(|_| budget.disconnected());
        assert_eq!(budget.share(), 200);
    }

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
            gate.tell();
        };
        tokio::join!(gate.opened(), taken);
    }
}
