//! Routes in the shape of other services, for the clients that know them.

pub(super) mod browserless;
pub(super) mod chromium;
pub(super) mod kernel;
