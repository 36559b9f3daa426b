use std::collections::VecDeque;
use std::sync::Arc;

use super::connection::Link;

/// What waits to be written to Chromium, ours before the clients'.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    own: VecDeque<Vec<u8>>,
    clients: VecDeque<(Arc<Link>, Vec<u8>)>,
}

impl Outbox {
    pub(crate) fn push_own(&mut self, frame: Vec<u8>) {
        self.own.push_back(frame);
    }

    /// Queues a client's frame, whose bytes count as unsent until the writer takes them.
    pub(crate) fn push_client(&mut self, link: &Arc<Link>, frame: Vec<u8>) {
        link.sent(frame.len());
        self.clients.push_back((Arc::clone(link), frame));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.clients.is_empty()
    }

    /// Moves frames to `batch` until it holds `limit` bytes: all of ours, then clients' in the
    /// order they came. Small batches keep ours from waiting behind a client's flood.
    pub(crate) fn take(&mut self, batch: &mut Vec<u8>, limit: usize) {
        for frame in self.own.drain(..) {
            batch.extend_from_slice(&frame);
        }
        while batch.len() < limit {
            let Some((link, frame)) = self.clients.pop_front() else { break };
            link.taken(frame.len());
            batch.extend_from_slice(&frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_frames_overtake_those_of_clients() {
        let mut outbox = Outbox::default();
        let link = Arc::default();
        outbox.push_client(&link, b"client 1,".to_vec());
        outbox.push_own(b"own,".to_vec());
        outbox.push_client(&link, b"client 2,".to_vec());
        let mut batch = Vec::new();
        outbox.take(&mut batch, 10);
        assert_eq!(batch, b"own,client 1,");
        outbox.take(&mut batch, 100);
        assert!(batch.ends_with(b"client 2,") && outbox.is_empty());
    }
}
