use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Record, RecordError};

/// Progress display: a bar on a terminal, and a line for each failure.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    failed: usize,
}

impl Progress {
    /// Of so many URLs, of which some were done before.
    pub(crate) fn new(total: usize, done: usize) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr_with_hz(8))
        } else {
            ProgressBar::hidden()
        };
        let template = "{bar:30} {pos}/{len}  {per_sec}  {msg}  {elapsed} (left: {eta})";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
        bar.set_position(done as u64);
        bar.reset_eta();
        Self { bar, failed: 0 }
    }

    /// One more is done.
    pub(crate) fn count(&self) {
        self.bar.inc(1);
    }

    /// Shows a record.
    pub(crate) fn add(&mut self, record: &Record) {
        self.count();
        if let Some(RecordError { code, message }) = &record.error {
            self.failed += 1;
            self.bar.set_message(format!("{} failed", self.failed));
            self.line(&format!("{}: {code}: {message}", shown(&record.url)));
        }
    }

    /// Writes a line above the bar.
    pub(crate) fn line(&self, text: &str) {
        self.bar.suspend(|| anstream::eprintln!("{text}"));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A URL for a line of a terminal: no control characters, and not a whole document in `data:`.
pub(crate) fn shown(url: &str) -> String {
    const LONGEST: usize = 200;
    let mut text: String = url.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    if text.len() < url.len() && url.chars().count() > LONGEST {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_cannot_steer_the_terminal() {
        assert_eq!(shown("http://a/\u{1b}[2J\u{7}"), "http://a/[2J");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), 201);
    }
}
