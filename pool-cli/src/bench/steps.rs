use std::time::{Duration, Instant};

use super::{Cdp, Page};
use crate::exit::Failure;

/// The steps of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// From nothing to the first answer of the browser.
    Connect,
    /// From nothing to the first answer of a page: connecting is part of it.
    FirstPage,
    /// From there until another page is loaded.
    Goto,
    /// From closing the connection until the next client could have what this one had: until the
    /// pool has the browser back, clean and idle, or until nothing is left of the one that was
    /// launched.
    Release,
}

impl Step {
    pub(crate) const ALL: [Self; 4] = [Self::Connect, Self::FirstPage, Self::Goto, Self::Release];

    /// Its name in figures.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::FirstPage => "first_page",
            Self::Goto => "goto",
            Self::Release => "release",
        }
    }
}

/// Durations of each step, session by session.
#[derive(Debug, Default)]
pub(crate) struct Steps([Vec<Duration>; 4]);

impl Steps {
    pub(crate) fn add(&mut self, step: Step, took: Duration) {
        self.0[step as usize].push(took);
    }

    pub(crate) fn of(&self, step: Step) -> &[Duration] {
        &self.0[step as usize]
    }

    pub(crate) fn append(&mut self, other: Self) {
        for (all, more) in self.0.iter_mut().zip(other.0) {
            all.extend(more);
        }
    }

    /// Takes a client that has just connected through the steps up to the last one but release.
    pub(crate) async fn walk(
        &mut self,
        began: Instant,
        cdp: &mut Cdp,
        url: &str,
    ) -> Result<Page, Failure> {
        cdp.product().await?;
        self.add(Step::Connect, began.elapsed());
        let page = cdp.open_page().await?;
        self.add(Step::FirstPage, began.elapsed());
        let left = Instant::now();
        cdp.goto(&page, url).await?;
        self.add(Step::Goto, left.elapsed());
        Ok(page)
    }
}
