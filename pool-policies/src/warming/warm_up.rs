use std::time::Duration;

/// Steps that a new resource goes through once before its first lease.
///
/// It is written for browsers; a driver of something else uses what means something to it.
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
    /// An empty page of 1280 × 720.
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

    /// Sets what the page loads.
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

    /// Sets how long all of it may take; the pool's
    /// [`create_timeout`](pool_core::Config::create_timeout) bounds it together with the creation.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
