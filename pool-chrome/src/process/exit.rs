use std::fmt;
use std::process::ExitStatus;
use std::sync::Arc;

/// End of a Chromium's process. Clones are cheap.
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

    /// Returns `true` if the kernel has ended it because it needed more memory than its
    /// [limit](super::KernelLimits::memory).
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        self.is_out_of_memory
    }

    /// The exit status of the process; `None` if the operating system would not tell.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// The last 8 KiB of what it wrote to stderr, without the usual noise.
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_message_ends_with_the_last_lines_of_stderr() {
        let exit = Exit::new(Some(ExitStatus::from_raw(21 << 8)), "a\nb\n\nc\nno display\n");
        assert_eq!(exit.to_string(), "exit status: 21; it wrote: b | c | no display");
    }
}
