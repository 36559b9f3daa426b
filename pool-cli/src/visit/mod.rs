//! `visit`: many URLs through the pool, each in a virtual browser of its own.
//!
//! A [`UrlList`] becomes a [`Queue`] of jobs. As many workers as there may be pages at once, and
//! some more, take jobs from it; each leases a browser and [stages](crate::loader::Page::stage) a page in it. The
//! page goes to its address when it is its turn, so that making one browser and cleaning another
//! overlap with what is loading. What came of a URL is a [`Record`], one line in the [`Journal`].
//!
//! The cost of a visit was measured before this was cut. On two cores nearly all of it is processor
//! time of Chromium's, half of it for making and ending a context with its renderer; flags make no
//! difference. A page that is made with its address costs a seventh less than one that is made
//! empty and sent there, where Chromium can hold it until somebody listens: the shell can.
//! `chromium` spends more on the window of a new context than on the page in it, but a page without
//! a window is never drawn, so that scripts that wait for a frame, screenshots and PDFs would fail.

mod browsers;
mod crew;
mod files;
mod queue;
mod record;
mod results;
mod robots;
mod run;
mod url_list;

pub(crate) use browsers::{Browsers, size_of};
pub(crate) use crew::Crew;
pub(crate) use files::Files;
pub(crate) use queue::{Job, Manners, Queue, origin};
pub(crate) use record::{Extract, Record, RecordError, Take};
pub(crate) use results::{Journal, Output, Results, Table};
pub(crate) use run::{Isolation, Options, Place, Run};
pub(crate) use url_list::{BadLine, UrlList};
