use crate::loader::Blame;

/// A URL that is to be visited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// The URL as it was given.
    pub(crate) url: String,
    /// Attempts begun so far.
    pub(crate) attempts: u32,
    /// Attempts that failed and count against it.
    failures: u32,
    /// A Chromium died while it was in it: it gets one to itself, to show whose fault it was.
    pub(crate) suspect: bool,
}

impl Job {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), attempts: 0, failures: 0, suspect: false }
    }

    /// Returns `true` if it is to be tried once more after an attempt that failed; `alone` if it
    /// had its Chromium to itself.
    pub(crate) fn try_again(&mut self, blame: Blame, alone: bool, retries: u32) -> bool {
        if blame == Blame::Unknown && !alone {
            // At most once: from now on it is alone.
            self.suspect = true;
            return true;
        }
        self.failures += 1;
        blame != Blame::Permanent && self.failures <= retries
    }

    /// Failures that count against it.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_its_retries_and_then_no_more() {
        let mut job = Job::new("http://a/");
        assert!(job.try_again(Blame::Retry, false, 1));
        assert!(!job.try_again(Blame::Retry, false, 1));
    }

    #[test]
    fn the_death_of_a_shared_browser_counts_against_nobody_but_suspects_everybody() {
        let mut job = Job::new("http://a/");
        assert!(job.try_again(Blame::Unknown, false, 0));
        assert!(job.suspect);
        assert!(!job.try_again(Blame::Unknown, true, 0), "alone it is its own fault");
    }

    #[test]
    fn what_is_permanent_is_not_tried_again() {
        assert!(!Job::new("http://a/").try_again(Blame::Permanent, false, 5));
    }
}
