//! The pool as its users see it, on paused time, with a driver that does what it is told.

mod support;

mod backoff;
mod cancel;
mod creation;
mod handoff;
mod timeouts;
