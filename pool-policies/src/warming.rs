use std::time::Duration;

use async_trait::async_trait;
use pool_core::{Adjustment, BoxError, Class, Driver, Limits, Meta, Policy, Stats};
use tokio::time::timeout;

use crate::PolicyError;
use crate::part::Announce;

/// A resource that can be warmed: before its first lease it does once what is slow the first time.
///
/// [`Warming`] calls it from the pool's creating task, when the driver has made the resource and
/// nobody has it yet. Anything that the warm-up opens (a context, a page) it also closes: the first
/// holder must find no trace of it. Dropping the future must leave nothing behind that closing the
/// resource does not clean up; after an error or a timeout the resource is closed.
///
/// # Examples
///
/// ```
/// use pool_core::{BoxError, async_trait};
/// use pool_policies::{Warm, WarmUp};
///
/// struct Connection {
///     warm: bool,
/// }
///
/// #[async_trait]
/// impl Warm for Connection {
///     async fn warm(&mut self, how: &WarmUp) -> Result<(), BoxError> {
///         assert_eq!(how.viewport, Some((1280, 720)));
///         self.warm = true;
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Warm: Send {
    /// Goes once through what a holder will do.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the time is up or the pool drains; then the resource is closed.
    async fn warm(&mut self, how: &WarmUp) -> Result<(), BoxError>;
}

/// Warms new resources before their first lease, and keeps a number of them ready.
///
/// A warm-up that fails, or that takes longer than [`WarmUp::timeout`], is a failed creation: the
/// resource is closed and the pool tries again with its backoff. So nobody gets a resource that
/// could not do even this much.
///
/// [`keep`](Self::keep) is the number of idle resources that are kept ready in addition to those in
/// use, so that a request does not wait for a creation. It applies to the default class, and is the
/// default of every other class; profiles and regions may have a number of their own
/// ([`Profile::warm`](crate::Profile::warm), [`Region::warm`](crate::Region::warm)), which takes
/// precedence if their policy is added before this one.
///
/// # Examples
///
/// ```
/// use pool_core::{BoxError, Driver, Meta, Pool, Reporter, async_trait};
/// use pool_policies::{Warm, WarmUp, Warming};
///
/// #[derive(Default)]
/// struct Connection { primed: bool }
///
/// #[async_trait]
/// impl Warm for Connection {
///     async fn warm(&mut self, _: &WarmUp) -> Result<(), BoxError> {
///         self.primed = true;
///         Ok(())
///     }
/// }
///
/// struct Connections;
///
/// #[async_trait]
/// impl Driver for Connections {
///     type Spec = ();
///     type Resource = Connection;
///     type Error = std::io::Error;
///
///     async fn create(&self, _: &(), _: &Meta, _: Reporter) -> Result<Connection, Self::Error> {
///         Ok(Connection::default())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder(Connections).policy(Warming::new(WarmUp::new()).keep(1)).build()?;
/// assert!(pool.acquire().await?.primed);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Warming {
    warm_up: WarmUp,
    keep: usize,
    announce: Announce,
}

impl Warming {
    /// Creates a policy that warms every new resource in this way, and keeps none ready.
    #[must_use]
    pub fn new(warm_up: WarmUp) -> Self {
        Self { warm_up, keep: 0, announce: Announce::new([]) }
    }

    /// Sets how many idle resources of each class are kept ready. Default: 0.
    #[must_use]
    pub fn keep(mut self, keep: usize) -> Self {
        self.keep = keep;
        self.announce = Announce::new([(Class::default(), self.limits())]);
        self
    }

    fn limits(&self) -> Limits {
        Limits { warm: Some(self.keep), ..Limits::default() }
    }
}

#[async_trait]
impl<D> Policy<D> for Warming
where
    D: Driver,
    D::Resource: Warm,
{
    fn watches(&self) -> bool {
        false
    }

    fn limit(&self, _: &Class) -> Option<Limits> {
        (self.keep > 0).then(|| self.limits())
    }

    fn tick(&self, _: &Stats) -> Vec<Adjustment> {
        self.announce.take()
    }

    async fn prepare(&self, resource: &mut D::Resource, _: &Meta) -> Result<(), BoxError> {
        let limit = self.warm_up.timeout;
        match timeout(limit, resource.warm(&self.warm_up)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(PolicyError::WarmUpFailed { source }.into()),
            Err(_) => Err(PolicyError::TookTooLong { what: "the warm-up", limit }.into()),
        }
    }
}

/// Steps that a new resource goes through once before its first lease.
///
/// It is written for browsers; a driver for something else uses the parts that apply to it.
///
/// # Examples
///
/// ```
/// use pool_policies::WarmUp;
/// use std::time::Duration;
///
/// let warm_up = WarmUp::new()
///     .viewport(1920, 1080)
///     .url("https://example.com/")
///     .script("document.title")
///     .timeout(Duration::from_secs(5));
/// assert_eq!(warm_up.url, "https://example.com/");
/// assert_eq!(warm_up.user_agent, None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmUp {
    /// Width and height of the page, in CSS pixels. Default: 1280 × 720.
    pub viewport: Option<(u32, u32)>,
    /// The user agent of the page. Default: the browser's own.
    pub user_agent: Option<String>,
    /// Address that the page loads. Default: `about:blank`.
    pub url: String,
    /// JavaScript that is run once in the page when it has loaded. Default: none.
    pub script: Option<String>,
    /// Timeout of all steps together. Default: 10 s.
    pub timeout: Duration,
}

impl Default for WarmUp {
    fn default() -> Self {
        Self {
            viewport: Some((1280, 720)),
            user_agent: None,
            url: "about:blank".to_owned(),
            script: None,
            timeout: Duration::from_secs(10),
        }
    }
}

impl WarmUp {
    /// Creates a warm-up with an empty page of 1280 × 720.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets width and height of the page, in CSS pixels.
    #[must_use]
    pub fn viewport(mut self, width: u32, height: u32) -> Self {
        self.viewport = Some((width, height));
        self
    }

    /// Sets the user agent of the page.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = Some(user_agent.into());
        self
    }

    /// Sets the address that the page loads.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// Sets the JavaScript that is run once in the page when it has loaded.
    #[must_use]
    pub fn script(mut self, script: impl Into<String>) -> Self {
        self.script = Some(script.into());
        self
    }

    /// Sets the timeout of all steps together; the pool's
    /// [`create_timeout`](pool_core::Config::create_timeout) also bounds it, together with the
    /// creation.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
