//! The pool as its users see it, on paused time, with a driver that does what it is told.

mod support;

mod backoff;
mod cancel;
mod check;
mod classes;
mod creation;
mod expiry;
mod handoff;
mod hold_limit;
mod replacement;
mod resize;
mod timeouts;
