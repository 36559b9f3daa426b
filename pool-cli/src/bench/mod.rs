//! `bench`: what a lease costs, beside launching a Chromium per client.
//!
//! A [`Run`] lets two contestants do the same work in turn, with the same raw client ([`Cdp`]): the
//! [`Pool`], over its gateway, and a [`Launcher`], which starts a Chromium for each client with the
//! flags that the pool's have. They go round by round, so that whatever else the machine does costs
//! both of them alike: only the ratios of one run mean something on another machine.
//!
//! Of shared leases, [`memory`] and [`round_trip`] tell what a client more takes and what the way
//! through the gateway costs.
//!
//! Every [`Figure`] is one line of JSON; a [`Report`] is what people see.

mod cdp;
mod direct;
mod figure;
mod launcher;
pub(crate) mod memory;
mod options;
mod pool;
mod report;
pub(crate) mod round_trip;
mod run;
mod site;
mod steps;
mod transport;

pub(crate) use cdp::{Cdp, Page};
pub(crate) use direct::Direct;
pub(crate) use figure::{Figure, Spread};
pub(crate) use launcher::Launcher;
pub(crate) use options::Options;
pub(crate) use pool::Pool;
pub(crate) use report::Report;
pub(crate) use run::Run;
pub(crate) use site::Site;
pub(crate) use steps::{Step, Steps};
pub(crate) use transport::Transport;
