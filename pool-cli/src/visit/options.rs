use std::time::Duration;

use super::{Files, Wait};
use crate::config::LeaseKind;

/// Options of a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Pages that load at the same time.
    pub(crate) concurrency: usize,
    /// Number of retries of a URL.
    pub(crate) retries: u32,
    /// Timeout of an attempt.
    pub(crate) timeout: Duration,
    /// Event after which a page counts as loaded.
    pub(crate) wait: Wait,
    /// The size of a page, in CSS pixels.
    pub(crate) viewport: [u32; 2],
    /// The user agent, if not Chromium's own.
    pub(crate) user_agent: Option<String>,
    /// Files stored of each page.
    pub(crate) files: Files,
    /// Screenshots show the whole page, not only what is in view.
    pub(crate) full_page: bool,
    /// Kind of lease of each page.
    pub(crate) lease: LeaseKind,
    /// The profile that pages are visited with.
    pub(crate) profile: Option<String>,
    /// The region that pages are visited from.
    pub(crate) region: Option<String>,
}

impl Options {
    /// Number of pages made ready while others load.
    ///
    /// Half as many as load: making one takes about half of what loading a plain page does. With
    /// whole browsers one must do, each of them costs more than it saves.
    pub(crate) fn ahead(&self) -> usize {
        if self.has_browsers_of_its_own() { 1 } else { self.concurrency.div_ceil(2) }
    }

    /// Number of URLs in work: those that load, and those that are made ready.
    pub(crate) fn workers(&self) -> usize {
        self.concurrency + self.ahead()
    }

    /// Each page has a Chromium to itself anyway.
    pub(crate) fn has_browsers_of_its_own(&self) -> bool {
        self.lease == LeaseKind::Exclusive || self.profile.is_some()
    }
}
