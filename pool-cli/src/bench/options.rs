/// Options of a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Sessions of each contestant.
    pub(crate) sessions: usize,
    /// Sessions at the same time.
    pub(crate) concurrency: usize,
    /// The address and the token of the pool that is measured; `None` for one of its own.
    pub(crate) pool: Option<(String, Option<String>)>,
    /// The kind of lease to ask that pool for; `None` for what it gives.
    pub(crate) lease: Option<String>,
}
