use std::collections::VecDeque;

/// Bytes kept of a Chromium's stderr.
const KEPT: usize = 8 * 1024;

/// Complaints of every Chromium on a server, which say nothing about why it ended.
const NOISE: [&str; 4] =
    ["dbus/bus.cc", "dbus/object_proxy.cc", "scaling_cur_freq", "scaling_max_freq"];

/// The end of a stream of text, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct StderrTail(VecDeque<u8>);

impl StderrTail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(KEPT)..];
        let excess = (self.0.len() + bytes.len()).saturating_sub(KEPT);
        self.0.drain(..excess);
        self.0.extend(bytes);
    }

    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| !NOISE.iter().any(|noise| line.contains(noise)));
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_its_end() {
        let mut tail = StderrTail::default();
        for i in 0..10_000 {
            tail.push(format!("line {i}\n").as_bytes());
        }
        assert!(tail.0.len() <= KEPT);
        assert!(tail.text().ends_with("line 9998\nline 9999"));
        tail.push(&[b'x'; 3 * KEPT]);
        assert_eq!(tail.text(), "x".repeat(KEPT));
    }

    #[test]
    fn the_usual_noise_is_left_out() {
        let mut tail = StderrTail::default();
        tail.push(b"[1:2:ERROR:dbus/bus.cc:405] Failed to connect\nno usable sandbox!\n");
        assert_eq!(tail.text(), "no usable sandbox!");
    }
}
