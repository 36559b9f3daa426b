//! Counts of a run.

use std::collections::HashMap;
use std::time::Duration;

use pool_fleet::{Incarnation, Message, NodeName};

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) came: u64,
    pub(crate) served: u64,
    pub(crate) remote: u64,
    pub(crate) refused: u64,
    /// Older requests that still waited when one was served, in sum.
    pub(crate) passed: u64,
    pub(crate) asks: u64,
    pub(crate) answers: u64,
    pub(crate) cancels: u64,
    pub(crate) offers: u64,
    pub(crate) replies: u64,
    /// Beats that were heard.
    pub(crate) beats: u64,
    /// Leases that could not be connected to.
    pub(crate) missed: u64,
    /// Messages that one request has cost: asks, answers, offers, replies, cancels.
    asked: HashMap<(NodeName, Incarnation, u64), u32>,
    pub(crate) most: u32,
    /// Messages that each node has heard and sent in each second.
    seconds: Vec<Vec<u32>>,
}

impl Counts {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { seconds: vec![Vec::new(); nodes], ..Self::default() }
    }

    pub(crate) fn more(&mut self, nodes: usize) {
        self.seconds.resize(self.seconds.len().max(nodes), Vec::new());
    }

    /// Forgets all that was counted, but for what requests have cost so far.
    pub(crate) fn restart(&mut self) {
        let (asked, seconds) = (std::mem::take(&mut self.asked), std::mem::take(&mut self.seconds));
        *self = Self { asked, seconds, most: self.most, ..Self::default() };
    }

    pub(crate) fn heard(&mut self, node: usize, at: Duration) {
        self.second(node, at);
    }

    pub(crate) fn sent(&mut self, node: usize, at: Duration) {
        self.second(node, at);
    }

    fn second(&mut self, node: usize, at: Duration) {
        let second = at.as_secs() as usize;
        let seconds = &mut self.seconds[node];
        if seconds.len() <= second {
            seconds.resize(second + 1, 0);
        }
        seconds[second] += 1;
    }

    /// Returns the most messages that one node had in a second from then on.
    pub(crate) fn busiest(&self, from: Duration) -> u32 {
        let from = from.as_secs() as usize;
        self.seconds
            .iter()
            .flat_map(|seconds| seconds.iter().skip(from))
            .copied()
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn message(&mut self, message: &Message) {
        match message {
            Message::Ask(ask) => {
                self.asks += 1;
                self.spent(&ask.gateway, ask.incarnation, ask.id);
            }
            Message::Cancel(cancel) => {
                self.cancels += 1;
                for &id in &cancel.ids {
                    self.spent(&cancel.gateway, cancel.incarnation, id);
                }
            }
            Message::Answer(_) => self.answers += 1,
            _ => {}
        }
    }

    pub(crate) fn spent(&mut self, gateway: &NodeName, run: Incarnation, ask: u64) {
        let spent = self.asked.entry((gateway.clone(), run, ask)).or_default();
        *spent += 1;
        self.most = self.most.max(*spent);
    }

    /// Returns asks, answers, offers, replies and cancels.
    pub(crate) fn messages(&self) -> u64 {
        self.asks + self.answers + self.cancels + self.offers + self.replies
    }
}
