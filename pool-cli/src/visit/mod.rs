//! `visit`: many URLs through the pool, each in a virtual browser of its own.
//!
//! A [`UrlList`] becomes a [`Queue`] of jobs. As many workers as there may be pages at once, and
//! some more, take jobs from it; each leases a browser and [stages](crate::loader::Page::stage) a
//! page in it. The page goes to its address when its turn has come, so that making one browser and
//! cleaning another overlap with loading. The result of a URL is a [`Record`], one line in the
//! [`Journal`].
//!
//! The cost of a visit was measured before this design was chosen. On two cores nearly all of it is
//! processor time of Chromium's, half of it for making and ending a context with its renderer;
//! flags make no difference. A page that is made with its address costs a seventh less than one
//! that is made empty and sent there, provided that Chromium can hold it until somebody listens,
//! which the shell can. `chromium` spends more on the window of a new context than on the page in
//! it, but a page without a window is never drawn, so scripts that wait for a frame, screenshots
//! and PDFs would fail.

mod browsers;
mod crew;
mod files;
mod queue;
mod record;
mod results;
mod robots;
mod run;
mod url_list;

use std::sync::Arc;
use std::time::Duration;

use pool_chrome::egress::Pattern;
use pool_chrome::mux::LeaseTerms;

use crate::config::LeaseKind;
use crate::loader::Furniture;

pub(crate) use browsers::{Browsers, size_of};
pub(crate) use crew::Crew;
pub(crate) use files::Files;
pub(crate) use queue::{Job, Manners, Queue, origin};
pub(crate) use record::{Extract, Record, RecordError, Take};
pub(crate) use results::{Journal, Output, Results, Table};
pub(crate) use run::{Place, Run};
pub(crate) use url_list::{BadLine, UrlList};

/// Isolation of the pages of a run from each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Isolation {
    /// Each page has a context of its own.
    #[default]
    Context,
    /// Pages of one origin reuse a context, which is cleared and verified in between or replaced.
    Wiped,
    /// All pages share one context: they see each other's cookies and storage.
    None,
}

/// Options of a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Number of pages that load at the same time.
    pub(crate) concurrency: usize,
    /// Number of retries of a URL.
    pub(crate) retries: u32,
    /// Isolation of pages from each other.
    pub(crate) isolation: Isolation,
    /// Maximum number of pages of one host in progress at the same time; `None` for no limit.
    pub(crate) per_host: Option<usize>,
    /// Minimum time between two pages of one host.
    pub(crate) delay: Duration,
    /// The name under which the `robots.txt` of hosts is read, if that is wanted.
    pub(crate) robots: Option<String>,
    /// Timeout of an attempt.
    pub(crate) timeout: Duration,
    /// State of each page before its first request.
    pub(crate) furniture: Arc<Furniture>,
    /// Data to take from each page for its record.
    pub(crate) take: Take,
    /// Files stored of each page.
    pub(crate) files: Files,
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
    /// Returns the limits that protect the visited hosts.
    pub(crate) fn manners(&self) -> Manners {
        Manners {
            per_host: self.per_host,
            delay: self.delay,
            robots: self.robots.is_some(),
            sites: self.isolation == Isolation::Wiped,
        }
    }

    /// Returns the terms of each lease: no first page, since its page is made with its address.
    pub(crate) fn terms(&self) -> LeaseTerms {
        LeaseTerms::new().first_page(false).allow_domains(self.allow_domains.clone())
    }

    /// Returns the maximum time of an attempt. If an element of a page does not appear in time, the
    /// page must be able to report that first.
    pub(crate) fn patience(&self) -> Duration {
        match self.take.wait_for {
            Some(_) => self.timeout + Duration::from_secs(1),
            None => self.timeout,
        }
    }

    /// Returns the number of pages to prepare while others load, in a pool that nobody else uses.
    ///
    /// It is half the number of loading pages: making one takes about half of the time that loading
    /// a plain page does. With whole browsers one must be enough, since each of them costs more
    /// than it saves. Pages that share a context are there already.
    pub(crate) fn ahead(&self) -> usize {
        if self.isolation == Isolation::None {
            0
        } else if self.has_browsers_of_its_own() {
            1
        } else {
            self.concurrency.div_ceil(2)
        }
    }

    /// Returns `true` if each page has a Chromium to itself in any case.
    pub(crate) fn has_browsers_of_its_own(&self) -> bool {
        self.lease == LeaseKind::Exclusive || self.profile.is_some()
    }

    /// Returns `true` if a page has its Chromium to itself; with `asked_alone`, it must.
    pub(crate) fn is_alone(&self, asked_alone: bool) -> bool {
        let shares = self.isolation == Isolation::None;
        asked_alone || (self.has_browsers_of_its_own() && !shares)
    }
}
