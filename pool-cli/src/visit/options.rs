use std::sync::Arc;
use std::time::Duration;

use pool_chrome::egress::Pattern;
use pool_chrome::mux::LeaseTerms;

use super::{Files, Manners, Take};
use crate::config::LeaseKind;
use crate::loader::{Furniture, PictureOptions};

/// Options of a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Pages that load at the same time.
    pub(crate) concurrency: usize,
    /// Number of retries of a URL.
    pub(crate) retries: u32,
    /// Limits for the sake of the hosts that are visited.
    pub(crate) manners: Manners,
    /// Timeout of an attempt.
    pub(crate) timeout: Duration,
    /// What holds in each page before its first request.
    pub(crate) furniture: Arc<Furniture>,
    /// Data to take of each page for its record.
    pub(crate) take: Take,
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
    /// Domains that pages may reach, if not all that the configuration allows.
    pub(crate) allow_domains: Option<Vec<Pattern>>,
}

impl Options {
    /// Returns the terms of each lease: its page is made with its address.
    pub(crate) fn terms(&self) -> LeaseTerms {
        LeaseTerms::new().first_page(false).allow_domains(self.allow_domains.clone())
    }

    /// Returns the options of pictures.
    pub(crate) fn picture(&self) -> PictureOptions {
        PictureOptions { full_page: self.full_page, ..PictureOptions::default() }
    }

    /// Returns how long an attempt may take: what is waited for on the page says by itself that it did not
    /// come in time.
    pub(crate) fn patience(&self) -> Duration {
        match self.take.wait_for {
            Some(_) => self.timeout + Duration::from_secs(1),
            None => self.timeout,
        }
    }

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
