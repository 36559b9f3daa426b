//! The pool as its users see it, on paused time, with a driver that does what it is told.

mod support;

mod backoff;
mod broken;
mod cancel;
mod check;
mod classes;
mod conformance;
mod creation;
mod drain;
mod driver_panics;
mod elsewhere;
mod errors;
mod events;
mod expiry;
mod grid;
mod groups;
mod guide;
mod handoff;
mod hold_limit;
mod invalidate;
mod policies;
mod replacement;
mod resize;
mod runtime;
mod stats;
mod storm;
mod timeouts;
