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
mod capture;
mod crew;
mod files;
mod job;
mod journal;
mod options;
mod output;
mod progress;
mod queue;
mod record;
mod run;
mod summary;
mod table;
mod taken;
mod url_list;
mod visitor;

pub(crate) use browsers::Browsers;
pub(crate) use crew::Crew;
pub(crate) use files::{FileKind, Files};
pub(crate) use job::Job;
pub(crate) use journal::Journal;
pub(crate) use options::Options;
pub(crate) use output::{Output, Results};
pub(crate) use progress::Progress;
pub(crate) use queue::{Manners, Queue};
pub(crate) use record::{Record, RecordError};
pub(crate) use run::Run;
pub(crate) use summary::Summary;
pub(crate) use table::Table;
pub(crate) use taken::{Extract, Take, Taken};
pub(crate) use url_list::{BadLine, UrlList};
