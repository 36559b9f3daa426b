use std::time::Duration;

use super::{Files, Wait};
use crate::config::LeaseKind;

/// How pages are visited.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Pages that load at the same time.
    pub(crate) concurrency: usize,
    /// How often a URL is tried again.
    pub(crate) retries: u32,
    /// How long an attempt may take.
    pub(crate) timeout: Duration,
    /// When a page counts as loaded.
    pub(crate) wait: Wait,
    /// The size of a page, in CSS pixels.
    pub(crate) viewport: [u32; 2],
    /// The user agent, if not Chromium's own.
    pub(crate) user_agent: Option<String>,
    /// What is stored of each page.
    pub(crate) files: Files,
    /// Screenshots show the whole page, not only what is in view.
    pub(crate) full_page: bool,
    /// What kind of lease each page has.
    pub(crate) lease: LeaseKind,
    /// The profile that pages are visited with.
    pub(crate) profile: Option<String>,
    /// The region that pages are visited from.
    pub(crate) region: Option<String>,
}

impl Options {
    /// How many pages are made ready while others load.
    ///
    /// Half as many as load: making one takes about half of what loading a plain page does. With
    /// whole browsers one must do, each of them costs more than it saves.
    pub(crate) fn ahead(&self) -> usize {
        if self.has_browsers_of_its_own() { 1 } else { self.concurrency.div_ceil(2) }
    }

    /// How many URLs are worked on: those that load, and those that are made ready.
    pub(crate) fn workers(&self) -> usize {
        self.concurrency + self.ahead()
    }

    /// Whether each page has a Chromium to itself anyway.
    pub(crate) fn has_browsers_of_its_own(&self) -> bool {
        self.lease == LeaseKind::Exclusive || self.profile.is_some()
    }
}
