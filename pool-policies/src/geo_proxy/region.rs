use super::Proxy;

/// The proxies of one region, and how many resources may use them.
///
/// # Examples
///
/// ```
/// use pool_policies::{Proxy, Region};
///
/// # fn main() -> Result<(), pool_policies::PolicyError> {
/// let region = Region::new()
///     .proxy(Proxy::parse("http://eu-1.example:8080")?)
///     .proxy(Proxy::parse("http://eu-2.example:8080")?)
///     .max_size(5)
///     .fallback("us-east");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Region {
    pub(super) proxies: Vec<Proxy>,
    pub(super) fallback: Vec<String>,
    pub(super) min: usize,
    pub(super) max: Option<usize>,
    pub(super) warm: Option<usize>,
}

impl Region {
    /// A region without proxies; it takes at least one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a proxy.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxies.push(proxy);
        self
    }

    /// Adds a region whose proxies are taken when all of this one are out, after those added
    /// before. Its own fallback regions do not count. Default: none, and then it is an error.
    #[must_use]
    pub fn fallback(mut self, region: impl Into<String>) -> Self {
        self.fallback.push(region.into());
        self
    }

    /// Sets how many resources are kept at least. Default: 0.
    #[must_use]
    pub fn min_size(mut self, min: usize) -> Self {
        self.min = min;
        self
    }

    /// Sets how many resources there may be. Default: only the pool's own maximum.
    #[must_use]
    pub fn max_size(mut self, max: usize) -> Self {
        self.max = Some(max);
        self
    }

    /// Sets how many idle resources are kept ready beyond those in use. Default: 0, or what
    /// [`Warming::keep`](crate::Warming::keep) says.
    #[must_use]
    pub fn warm(mut self, warm: usize) -> Self {
        self.warm = Some(warm);
        self
    }
}
