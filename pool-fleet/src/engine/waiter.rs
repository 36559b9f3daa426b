use std::time::Instant;

use super::{Settings, Waiting};
use crate::message::{Cannot, NodeName, Reason};

/// Messages that an offer takes: itself and the reply.
pub(super) const OFFER: u32 = 2;
/// Messages reserved for those that cross a change, such as the answer to an earlier ask.
const LATE: u32 = 2;

/// A client that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) waiting: Waiting,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    /// Number of its asks at other nodes. It gets a new one if a lease could not be connected to.
    pub(super) ask: u64,
    pub(super) revision: u32,
    pub(super) own: Own,
    /// Other nodes in whose queues it stands.
    pub(super) asked: Vec<NodeName>,
    /// Nodes that have refused it, and the time until which each is not asked again.
    pub(super) refused_by: Vec<(NodeName, Instant)>,
    /// The worst reason so far.
    pub(super) worst: Option<Cannot>,
    pub(super) creator: Option<Creator>,
    /// A resource is being created for it, as far as is known.
    pub(super) launching: bool,
    /// Number of messages that it has cost.
    pub(super) spent: u32,
    /// More than one node was asked.
    pub(super) spread: bool,
    /// Time at which others are asked, if only one was.
    pub(super) spread_at: Option<Instant>,
    /// Time at which another node may create, if the one that may does not answer.
    pub(super) silence_at: Option<Instant>,
    /// It has accepted an offer, and the connection is being made.
    pub(super) connecting: bool,
}

/// Standing of a waiter in the pool of its own node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// It does not wait there: another node was named.
    Barred,
    /// It waits for the pool's answer, or in its queue.
    Waits { ticket: u64, creates: bool },
    /// The pool has refused it.
    Refused(Reason),
}

/// The one place that may create a resource for a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Creator {
    Own,
    Node(NodeName),
}

impl Waiter {
    /// Returns the rank by which the queues of all nodes order it.
    pub(super) fn rank(&self) -> Instant {
        self.since + self.waiting.handicap
    }

    pub(super) fn stands_at(&self, node: &str) -> bool {
        self.asked.iter().any(|asked| **asked == *node)
    }

    pub(super) fn was_refused_by(&self, node: &str, now: Instant) -> bool {
        self.refused_by.iter().any(|(refused, until)| **refused == *node && *until > now)
    }

    pub(super) fn may_ask(&self, node: &str) -> bool {
        self.waiting.only.as_deref().is_none_or(|only| only == node)
    }

    /// Returns `true` if this many more messages fit into those that a client may cost. Each node
    /// at which it stands may still make an offer and get a reply, and the one that may create
    /// still answers.
    pub(super) fn can_afford(&self, more: u32, settings: &Settings) -> bool {
        let standing = u32::try_from(self.asked.len()).unwrap_or(u32::MAX);
        let open = standing * OFFER + u32::from(self.silence_at.is_some());
        self.spent + open + more + LATE <= settings.messages
    }

    pub(super) fn note(&mut self, cannot: Cannot) {
        if self.worst.as_ref().is_none_or(|worst| worst.reason < cannot.reason) {
            self.worst = Some(cannot);
        }
    }
}
