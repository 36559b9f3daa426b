use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Record;

/// Totals of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    visited: usize,
    /// Failures by their code.
    failed: BTreeMap<String, usize>,
    retried: usize,
    /// Done by an earlier run.
    before: usize,
    /// Lines that name a URL for the second time.
    repeated: usize,
    took: Duration,
}

impl Summary {
    /// Of a run that leaves out what was done before, and what was given for the second time.
    pub(crate) fn new(before: usize, repeated: usize) -> Self {
        Self { before, repeated, ..Self::default() }
    }

    /// The run took this long.
    pub(crate) fn ended(&mut self, took: Duration) {
        self.took = took;
    }

    /// Counts a record.
    pub(crate) fn add(&mut self, record: &Record) {
        self.visited += 1;
        if let Some(error) = &record.error {
            *self.failed.entry(error.code.clone()).or_default() += 1;
        }
        if record.attempts > 1 {
            self.retried += 1;
        }
    }

    /// Number of URLs with a record of this run.
    pub(crate) fn visited(&self) -> usize {
        self.visited
    }

    /// Number of URLs that failed.
    pub(crate) fn failed(&self) -> usize {
        self.failed.values().sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = if self.visited == 1 { "URL" } else { "URLs" };
        write!(f, "{} {pages} in {:.1} s", self.visited, self.took.as_secs_f64())?;
        if self.visited > 1 && !self.took.is_zero() {
            write!(f, " ({:.1}/s)", self.visited as f64 / self.took.as_secs_f64())?;
        }
        if self.failed() > 0 {
            let kinds = self.failed.iter().map(|(code, count)| format!("{count} {code}"));
            write!(f, ", {} failed ({})", self.failed(), kinds.collect::<Vec<_>>().join(", "))?;
        }
        for (count, what) in [
            (self.retried, "tried again"),
            (self.before, "done before"),
            (self.repeated, "given twice"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::RecordError;
    use super::*;

    #[test]
    fn the_summary_counts_what_failed_and_why() {
        let mut summary = Summary::new(3, 0);
        summary.ended(Duration::from_secs(2));
        let good = Record { attempts: 2, ..Record::default() };
        let error = RecordError { code: "timeout".to_owned(), message: String::new() };
        let bad = Record { error: Some(error), attempts: 1, ..Record::default() };
        for record in [&good, &bad, &bad] {
            summary.add(record);
        }
        assert_eq!(
            summary.to_string(),
            "3 URLs in 2.0 s (1.5/s), 2 failed (2 timeout), 1 tried again, 3 done before"
        );
    }
}
