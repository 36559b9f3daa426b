use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::connection::Link;

/// The size from which a frame is written from where it is instead of being copied into a batch.
pub(crate) const LARGE: usize = 64 * 1024;

/// A queue with more room than this is not kept when it is empty.
const ROOM: usize = 1024;

/// A frame for Chromium, with its NUL.
#[derive(Debug)]
pub(crate) struct Frame {
    head: Vec<u8>,
    /// Part of what a client sent, as it came in. Empty in most frames.
    body: Bytes,
    tail: Vec<u8>,
}

impl From<Vec<u8>> for Frame {
    fn from(head: Vec<u8>) -> Self {
        Self { head, body: Bytes::new(), tail: Vec::new() }
    }
}

impl Frame {
    /// A frame around bytes of a client's, which are not copied.
    pub(crate) fn around(head: Vec<u8>, body: Bytes, tail: Vec<u8>) -> Self {
        Self { head, body, tail }
    }

    pub(crate) fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    pub(crate) fn parts(&self) -> [&[u8]; 3] {
        [&self.head, &self.body, &self.tail]
    }
}

/// Commands that wait to be written to Chromium, ours before the clients'.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    own: VecDeque<Vec<u8>>,
    clients: VecDeque<(Arc<Link>, Frame)>,
}

/// A large frame on its way to Chromium. Its bytes count as unsent until it is dropped.
#[derive(Debug)]
pub(crate) struct LargeFrame {
    link: Arc<Link>,
    frame: Option<Frame>,
}

impl LargeFrame {
    pub(crate) fn parts(&self) -> [&[u8]; 3] {
        self.frame.as_ref().map_or([&[]; 3], Frame::parts)
    }
}

impl Drop for LargeFrame {
    fn drop(&mut self) {
        if let Some(frame) = self.frame.take() {
            let bytes = frame.len();
            // Gone before it is said to be.
            drop(frame);
            self.link.taken(bytes);
        }
    }
}

impl Outbox {
    pub(crate) fn push_own(&mut self, frame: Vec<u8>) {
        self.own.push_back(frame);
    }

    /// Queues a client's frame, whose bytes count as unsent until the writer takes them.
    pub(crate) fn push_client(&mut self, link: &Arc<Link>, frame: Frame) {
        link.sent(frame.len());
        self.clients.push_back((Arc::clone(link), frame));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.clients.is_empty()
    }

    /// Moves frames to `batch` until it holds `limit` bytes: all of ours, then clients' in the
    /// order they came. Small batches keep ours from waiting behind a client's flood.
    ///
    /// A large frame ends the batch and is returned, to be written behind it.
    pub(crate) fn take(&mut self, batch: &mut Vec<u8>, limit: usize) -> Option<LargeFrame> {
        for frame in self.own.drain(..) {
            batch.extend_from_slice(&frame);
        }
        while batch.len() < limit {
            let Some((link, frame)) = self.clients.pop_front() else { break };
            if frame.len() >= LARGE {
                return Some(LargeFrame { link, frame: Some(frame) });
            }
            for part in frame.parts() {
                batch.extend_from_slice(part);
            }
            link.taken(frame.len());
        }
        if self.clients.is_empty() && self.clients.capacity() > ROOM {
            self.clients = VecDeque::new();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_frames_overtake_those_of_clients() {
        let mut outbox = Outbox::default();
        let link = Link::new(&Arc::default(), &crate::mux::Budget::default());
        outbox.push_client(&link, b"client 1,".to_vec().into());
        outbox.push_own(b"own,".to_vec());
        outbox.push_client(&link, b"client 2,".to_vec().into());
        let mut batch = Vec::new();
        outbox.take(&mut batch, 10);
        assert_eq!(batch, b"own,client 1,");
        outbox.take(&mut batch, 100);
        assert!(batch.ends_with(b"client 2,") && outbox.is_empty());
    }

    #[test]
    fn a_large_frame_is_not_copied_and_keeps_its_place() {
        let mut outbox = Outbox::default();
        let link = Link::new(&Arc::default(), &crate::mux::Budget::default());
        let body = Bytes::from(vec![b'x'; LARGE]);
        let at = body.as_ptr();
        outbox.push_client(&link, b"first,".to_vec().into());
        outbox.push_client(&link, Frame::around(b"<".to_vec(), body, b">".to_vec()));
        outbox.push_client(&link, b"last".to_vec().into());
        let mut batch = Vec::new();
        let large = outbox.take(&mut batch, usize::MAX).expect("it is large");
        assert_eq!(batch, b"first,");
        assert_eq!(large.parts()[1].as_ptr(), at);
        assert_eq!(large.parts().map(<[u8]>::len), [1, LARGE, 1]);
        drop(large);
        assert!(outbox.take(&mut batch, usize::MAX).is_none());
        assert_eq!(batch, b"first,last");
    }
}
