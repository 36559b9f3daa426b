//! `bench`: the cost of a lease, compared with launching a Chromium for each client.
//!
//! A [`Run`] lets two contestants do the same work in turn, with the same raw client ([`Cdp`]): the
//! [`Pool`], over its gateway, and a [`Launcher`], which starts a Chromium for each client with the
//! same flags as the pool's. They alternate round by round, so that other load on the machine
//! affects both alike: only the ratios within one run mean something on another machine.
//!
//! For shared leases, `shared` measures the memory of each additional client and the cost of going
//! through the gateway.
//!
//! A [`Report`] is for people; each of its figures is one line of JSON.

mod cdp;
mod launcher;
mod pool;
mod report;
mod run;
mod shared;

use std::time::{Duration, Instant};

use crate::exit::Failure;

pub(crate) use cdp::{Cdp, Page, Transport};
pub(crate) use launcher::{Direct, Launcher};
pub(crate) use pool::Pool;
pub(crate) use report::Report;
pub(crate) use run::{Options, Run};

/// The steps of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// From nothing to the browser's first answer.
    Connect,
    /// From nothing, including connecting, to the first answer of the page that the browser begins
    /// with. A launched Chromium is launched without one, which is faster.
    FirstPage,
    /// From nothing, including connecting, to the first answer of a page that the client opens
    /// without using the first one.
    NewPage,
    /// From there until another page is loaded.
    Goto,
    /// From closing the connection until the next client could have the same: until the browser is
    /// back in the pool, clean and idle, or until nothing is left of the one that was launched.
    Release,
}

impl Step {
    pub(crate) const ALL: [Self; 5] =
        [Self::Connect, Self::FirstPage, Self::NewPage, Self::Goto, Self::Release];

    /// Its name in figures.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::FirstPage => "first_page",
            Self::NewPage => "new_page",
            Self::Goto => "goto",
            Self::Release => "release",
        }
    }
}

/// Durations of each step, session by session.
#[derive(Debug, Default)]
pub(crate) struct Steps([Vec<Duration>; 5]);

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

    /// Takes a client that has just connected to a lease through all steps but the release.
    pub(crate) async fn walk_leased(
        &mut self,
        began: Instant,
        cdp: &mut Cdp,
        url: &str,
    ) -> Result<(), Failure> {
        self.connected(began, cdp).await?;
        let page = cdp.first_page().await?;
        self.add(Step::FirstPage, began.elapsed());
        self.go(cdp, &page, url).await
    }

    /// Does the same with a launched Chromium, where the first page is a new one.
    pub(crate) async fn walk_launched(
        &mut self,
        began: Instant,
        cdp: &mut Cdp,
        url: &str,
    ) -> Result<(), Failure> {
        self.connected(began, cdp).await?;
        let page = cdp.open_page().await?;
        self.add(Step::FirstPage, began.elapsed());
        self.add(Step::NewPage, began.elapsed());
        self.go(cdp, &page, url).await
    }

    async fn connected(&mut self, began: Instant, cdp: &mut Cdp) -> Result<(), Failure> {
        cdp.product().await?;
        self.add(Step::Connect, began.elapsed());
        Ok(())
    }

    async fn go(&mut self, cdp: &mut Cdp, page: &Page, url: &str) -> Result<(), Failure> {
        let left = Instant::now();
        cdp.goto(page, url).await?;
        self.add(Step::Goto, left.elapsed());
        Ok(())
    }
}
