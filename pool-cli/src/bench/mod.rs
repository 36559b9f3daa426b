//! `bench`: what a lease costs, beside launching a Chromium per client.
//!
//! A [`Run`] lets two contestants do the same work in turn, with the same raw client ([`Cdp`]): the
//! [`Pool`], over its gateway, and a [`Launcher`], which starts a Chromium for each client with the
//! flags that the pool's have. They go round by round, so that whatever else the machine does costs
//! both of them alike: only the ratios of one run mean something on another machine.
//!
//! Of shared leases, `shared` tells what each further client takes and what the
//! way through the gateway costs.
//!
//! A [`Report`] is what people see; every figure of it is one line of JSON.

mod cdp;
mod launcher;
mod pool;
mod report;
mod run;
mod shared;

pub(crate) use cdp::{Cdp, Page, Transport};
pub(crate) use launcher::{Direct, Launcher};
pub(crate) use pool::Pool;
pub(crate) use report::Report;
pub(crate) use run::{Options, Run, Step, Steps};
