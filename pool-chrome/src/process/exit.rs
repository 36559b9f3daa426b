use std::collections::VecDeque;
use std::fmt;
use std::process::ExitStatus;
use std::sync::Arc;

/// The end of a Chromium's process. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Exit {
    status: Option<ExitStatus>,
    stderr: Arc<str>,
    is_out_of_memory: bool,
}

impl Exit {
    pub(super) fn new(status: Option<ExitStatus>, stderr: impl Into<Arc<str>>) -> Self {
        Self { status, stderr: stderr.into(), is_out_of_memory: false }
    }

    pub(super) fn out_of_memory(mut self, is_out_of_memory: bool) -> Self {
        self.is_out_of_memory = is_out_of_memory;
        self
    }

    /// Returns `true` if the kernel has killed it because it needed more memory than its
    /// [limit](super::KernelLimits::memory).
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        self.is_out_of_memory
    }

    /// Returns the exit status of the process; `None` if the operating system would not report it.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// Returns the last 8 KiB of what it wrote to stderr, without the usual noise.
    #[must_use]
    pub fn stderr(&self) -> &str {
        &self.stderr
    }
}

/// The status and the last three lines of stderr: short enough for an error message.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("its status is unknown")?,
        }
        if self.is_out_of_memory {
            f.write_str(", out of memory")?;
        }
        let last = last_lines(&self.stderr);
        if last.is_empty() { Ok(()) } else { write!(f, "; it wrote: {last}") }
    }
}

pub(super) fn last_lines(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

/// Number of bytes kept of a Chromium's stderr.
const KEPT: usize = 8 * 1024;

/// Complaints of every Chromium on a server, which do not explain why it ended.
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
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_message_ends_with_the_last_lines_of_stderr() {
        let exit = Exit::new(Some(ExitStatus::from_raw(21 << 8)), "a\nb\n\nc\nno display\n");
        assert_eq!(exit.to_string(), "exit status: 21; it wrote: b | c | no display");
    }

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
