use std::sync::Arc;
use std::time::Duration;

use pool_chrome::cdp::Client;
use serde_json::{Value, json};
use tokio::time::timeout;
use url::Url;

use super::members::{
    BadOrder, GivenAgent, Members, Milliseconds, NamedPolling, Polling, Tag, WaitForEvent,
    WaitForFunction, WaitForSelector, WaitUntil, read,
};
use super::product::Scrape;
use super::{Done, Product, WorkKind};
use crate::loader::{
    Encoding, Filter, Furniture, Page, PdfOptions, PictureOptions, Trouble, UserAgent, Wait,
};

/// Default maximum time of each wait for a page: for its load, for a tag that is added to it, for
/// an event, a function or a selector; as in Puppeteer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Maximum length of each list; more is a mistake.
const MOST: usize = 1_000;

/// The longest side of a view, and its largest area, in device pixels: the limits of a shared
/// lease.
const SIDE: f64 = 16_384.0;
const AREA: f64 = 67_108_864.0;

/// The order of a call.
#[derive(Debug)]
pub(crate) struct Order {
    content: Content,
    furniture: Arc<Furniture>,
    /// Maximum time that the page may load; `None` for as long as the call may last.
    patience: Option<Duration>,
    styles: Vec<Tag>,
    scripts: Vec<Tag>,
    waits: Waits,
    best_attempt: bool,
    task: Task,
}

#[derive(Debug)]
enum Content {
    Url(String),
    Html(String),
}

/// The product to take from the page, with its options.
#[derive(Debug)]
enum Task {
    Content,
    Screenshot { options: PictureOptions, selector: Option<String>, scroll: bool },
    Pdf(PdfOptions),
    Scrape(Scrape),
}

impl Order {
    /// Reads the body of a call.
    ///
    /// # Errors
    ///
    /// A sentence that names the wrong member.
    pub(crate) fn read(kind: WorkKind, body: &[u8]) -> Result<Self, BadOrder> {
        // Lists would also be accepted as structures, by the order of their members.
        if body.trim_ascii_start().first() == Some(&b'[') {
            return Err(BadOrder("the body must be an object with members".to_owned()));
        }
        Self::new(kind, read("", &mut serde_json::Deserializer::from_slice(body))?)
    }

    /// Returns the order of a call that has only an address.
    ///
    /// # Errors
    ///
    /// If a page cannot be sent to it.
    pub(crate) fn of_url(kind: WorkKind, url: String) -> Result<Self, BadOrder> {
        Self::new(kind, Members { url: Some(url), ..Members::default() })
    }

    fn new(kind: WorkKind, mut members: Members) -> Result<Self, BadOrder> {
        let content = content(&mut members)?;
        let task = task(kind, &mut members)?;
        members.check()?;
        let styles = std::mem::take(&mut members.add_style_tag);
        let scripts = std::mem::take(&mut members.add_script_tag);
        let patience = match members.goto_options.timeout {
            None => Some(PATIENCE),
            Some(wait) => Some(wait.0).filter(|wait| !wait.is_zero()),
        };
        let console = matches!(&task, Task::Scrape(scrape) if scrape.debug().console);
        Ok(Self {
            patience,
            styles,
            scripts,
            waits: Waits {
                event: members.wait_for_event.take(),
                function: members.wait_for_function.take(),
                selector: members.wait_for_selector.take(),
                time: members.wait_for_timeout.map(|wait| wait.0),
            },
            best_attempt: members.best_attempt,
            furniture: Arc::new(furniture(members, &content, console)?),
            content,
            task,
        })
    }

    /// Loads the page in the lease that this client is connected to, and takes the requested
    /// product from it. The caller limits how long that may take in all.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the page stays as it is, and ends with its lease.
    pub(crate) async fn carry_out(&self, client: &Client) -> Result<Done, Trouble> {
        let (content, written) = match &self.content {
            Content::Url(url) => (url, false),
            Content::Html(html) => (html, true),
        };
        let mut page = Page::first(client, content, written, &self.furniture).await?;
        if matches!(&self.task, Task::Scrape(scrape) if scrape.takes_notes()) {
            page.take_notes();
        }
        let loaded = match self.patience {
            Some(waited) => {
                let loaded = timeout(waited, page.load()).await;
                loaded.unwrap_or(Err(Trouble::Timeout { waited }))
            }
            None => page.load().await,
        };
        if loaded.is_err() && self.best_attempt {
            page.give_up().await?;
        }
        self.attempt(loaded.map(drop))?;
        let answer = page.answer().cloned();
        for style in &self.styles {
            add(&mut page, "addStyleTag", style).await?;
        }
        for script in &self.scripts {
            add(&mut page, "addScriptTag", script).await?;
        }
        self.waits.wait(&mut page, |waited| self.attempt(waited)).await?;
        let product = self.take(page).await?;
        Ok(Done { product, answer })
    }

    /// Ignores a failure if as much as possible is wanted.
    fn attempt(&self, outcome: Result<(), Trouble>) -> Result<(), Trouble> {
        match outcome {
            Err(
                Trouble::Timeout { .. }
                | Trouble::Wait { .. }
                | Trouble::Net { .. }
                | Trouble::Script { .. },
            ) if self.best_attempt => Ok(()),
            outcome => outcome,
        }
    }

    async fn take(&self, mut page: Page) -> Result<Product, Trouble> {
        match &self.task {
            Task::Content => Ok(Product::Html(page.html().await?)),
            Task::Screenshot { options, selector, scroll } => {
                if *scroll {
                    page.scroll_through().await?;
                }
                let picture = page.picture(options, selector.as_deref()).await?;
                Ok(match options.encoding {
                    Encoding::Binary => Product::Picture(picture),
                    Encoding::Base64 => Product::base64(&picture),
                })
            }
            Task::Pdf(options) => Ok(Product::Pdf(Box::new(page.pdf(options).await?))),
            Task::Scrape(scrape) => {
                Ok(Product::Json(scrape.take(&mut page, self.best_attempt).await?))
            }
        }
    }
}

fn content(members: &mut Members) -> Result<Content, BadOrder> {
    match (members.url.take(), members.html.take()) {
        (Some(url), None) => {
            check_address("url", &url)?;
            Ok(Content::Url(url))
        }
        (None, Some(html)) => Ok(Content::Html(html)),
        (Some(_), Some(_)) => {
            Err(BadOrder("the members \"url\" and \"html\" exclude each other".to_owned()))
        }
        (None, None) => Err(BadOrder(
            "one of the members \"url\" and \"html\" must say what to load".to_owned(),
        )),
    }
}

fn check_address(member: &str, address: &str) -> Result<(), BadOrder> {
    let scheme = Url::parse(address).map(|url| url.scheme().to_owned());
    match scheme.as_deref() {
        Ok("http" | "https" | "data") => Ok(()),
        Ok(scheme) => Err(BadOrder::member(
            member,
            format!("may be an address of http, https or data, not of {scheme}"),
        )),
        Err(_) => Err(BadOrder::member(member, "must be an address such as https://example.org/")),
    }
}

/// Takes the members of one kind of work, and refuses those of another.
fn task(kind: WorkKind, members: &mut Members) -> Result<Task, BadOrder> {
    let (options, selector) = (members.options.take(), members.selector.take());
    let (scroll, elements) = (members.scroll_page.take(), members.elements.take());
    let debug = members.debug_opts.take();
    let has = |is: bool, member: &str, at: &str| match is {
        true => Err(BadOrder::member(member, format!("is not for /{}, but for {at}", kind.word()))),
        false => Ok(()),
    };
    if kind != WorkKind::Screenshot {
        has(selector.is_some(), "selector", "/screenshot")?;
        has(scroll.is_some(), "scrollPage", "/screenshot")?;
    }
    if kind != WorkKind::Scrape {
        has(elements.is_some(), "elements", "/scrape")?;
        has(debug.is_some(), "debugOpts", "/scrape")?;
    }
    match kind {
        WorkKind::Content => {
            has(options.is_some(), "options", "/screenshot and /pdf")?;
            Ok(Task::Content)
        }
        WorkKind::Screenshot => {
            if options.as_ref().is_some_and(|options| options.get("path").is_some()) {
                return Err(path("options.path"));
            }
            let options: Option<PictureOptions> =
                options.map(|options| read("options.", options)).transpose()?;
            let options = options.unwrap_or_default();
            options.check().map_err(|trouble| BadOrder(trouble.to_string()))?;
            Ok(Task::Screenshot { options, selector, scroll: scroll.unwrap_or_default() })
        }
        WorkKind::Pdf => {
            if options.as_ref().is_some_and(|options| options.get("path").is_some()) {
                return Err(path("options.path"));
            }
            let options = options.map(|options| read("options.", options)).transpose()?;
            Ok(Task::Pdf(options.unwrap_or_default()))
        }
        WorkKind::Scrape => {
            has(options.is_some(), "options", "/screenshot and /pdf")?;
            let elements = elements.filter(|elements| !elements.is_empty());
            let elements = elements
                .ok_or_else(|| BadOrder::member("elements", "must list what to look for"))?;
            few("elements", elements.len())?;
            Ok(Task::Scrape(Scrape::new(elements, debug)))
        }
    }
}

fn path(member: &str) -> BadOrder {
    BadOrder::member(member, "is refused: pages may not read files on the pool's machine")
}

fn few(member: &str, count: usize) -> Result<(), BadOrder> {
    if count > MOST {
        return Err(BadOrder::member(
            member,
            format!("lists {count}, but may list at most {MOST}"),
        ));
    }
    Ok(())
}

impl Members {
    fn check(&self) -> Result<(), BadOrder> {
        few("rejectRequestPattern", self.reject_request_pattern.len())?;
        few("rejectResourceTypes", self.reject_resource_types.len())?;
        few("requestInterceptors", self.request_interceptors.len())?;
        few("cookies", self.cookies.len())?;
        for (member, tags) in
            [("addScriptTag", &self.add_script_tag), ("addStyleTag", &self.add_style_tag)]
        {
            few(member, tags.len())?;
            tags.iter()
                .enumerate()
                .try_for_each(|(i, tag)| tag.check(&format!("{member}[{i}]")))?;
        }
        if let Some(view) = &self.viewport {
            let (width, height) = (f64::from(view.width), f64::from(view.height));
            let density = view.device_scale_factor;
            if !(width >= 1.0 && height >= 1.0 && (0.0..=100.0).contains(&density)) {
                let why = "must have a width and a height of at least 1, and a deviceScaleFactor \
                           of at most 100";
                return Err(BadOrder::member("viewport", why));
            }
            let density = if density == 0.0 { 1.0 } else { density };
            let (width, height) = (width * density, height * density);
            if width.max(height) > SIDE || width * height > AREA {
                let why = format!(
                    "is {width} by {height} pixels, but may have at most {SIDE} per side and \
                     {AREA} in all"
                );
                return Err(BadOrder::member("viewport", why));
            }
        }
        match &self.emulate_media_type {
            Some(media) if media != "screen" && media != "print" => {
                Err(BadOrder::member("emulateMediaType", "may be screen or print"))
            }
            _ => Ok(()),
        }
    }
}

impl Tag {
    fn check(&self, member: &str) -> Result<(), BadOrder> {
        if self.path.is_some() {
            return Err(path(&format!("{member}.path")));
        }
        match (&self.url, &self.content) {
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err(BadOrder::member(member, "must have either url or content")),
        }
    }
}

fn furniture(
    mut members: Members,
    content: &Content,
    console: bool,
) -> Result<Furniture, BadOrder> {
    for (i, cookie) in members.cookies.iter_mut().enumerate() {
        if cookie.url.is_some() || cookie.domain.is_some() {
            continue;
        }
        match content {
            // It is clear which page it is for.
            Content::Url(url) => cookie.url = Some(url.clone()),
            Content::Html(_) => {
                let why = "needs a url or a domain, since the page has no address";
                return Err(BadOrder::member(&format!("cookies[{i}]"), why));
            }
        }
    }
    let filter = Filter {
        patterns: members.reject_request_pattern.into_iter().map(|pattern| pattern.0).collect(),
        types: members.reject_resource_types,
        hosts: Vec::new(),
        interceptors: members.request_interceptors.into_iter().map(Into::into).collect(),
        credentials: members.authenticate,
    };
    Ok(Furniture {
        waits: match members.goto_options.wait_until {
            None => vec![Wait::Load],
            Some(WaitUntil::One(wait)) => vec![wait],
            Some(WaitUntil::All(waits)) if waits.is_empty() => vec![Wait::Load],
            Some(WaitUntil::All(waits)) => waits,
        },
        referrer: members.goto_options.referer,
        media: members.emulate_media_type,
        cookies: members.cookies,
        viewport: members.viewport.unwrap_or_default(),
        user_agent: members.user_agent.map(|agent| match agent {
            GivenAgent::Text(text) => UserAgent::new(text),
            GivenAgent::Whole(agent) => *agent,
        }),
        headers: members.headers,
        without_javascript: members.javascript == Some(false),
        filter,
        console,
        har: false,
        unreported: false,
        blank: None,
    })
}

/// Adds a script or a stylesheet to the page, and waits until it is loaded.
async fn add(page: &mut Page, member: &'static str, tag: &Tag) -> Result<(), Trouble> {
    let style = member == "addStyleTag";
    let element = match (style, &tag.url) {
        (true, Some(_)) => "link",
        (true, None) => "style",
        (false, _) => "script",
    };
    let mut properties = json!({});
    for (name, value) in [("id", &tag.id), ("type", &tag.kind), ("textContent", &tag.content)] {
        if let Some(value) = value {
            properties[name] = json!(value);
        }
    }
    if let Some(url) = &tag.url {
        properties[if style { "href" } else { "src" }] = json!(url);
        if style {
            properties["rel"] = json!("stylesheet");
        }
    }
    // With content of its own it is there as soon as it is added; a script has run.
    let loaded = tag.url.is_none();
    let expression = format!(
        "new Promise((resolve, reject) => {{ \
         const tag = Object.assign(document.createElement('{element}'), {properties}); \
         tag.onload = () => resolve(0); tag.onerror = () => reject('it could not be loaded'); \
         (document.head ?? document.documentElement).append(tag); if ({loaded}) resolve(0); }})"
    );
    let added = timeout(PATIENCE, page.evaluate(&expression)).await;
    match added {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Trouble::Script { error })) => {
            let error = error.trim_start_matches("Uncaught (in promise) ");
            Err(Trouble::Unfit { member, why: format!("has one that failed: {error}") })
        }
        Ok(Err(trouble)) => Err(trouble),
        Err(_) => Err(Trouble::Wait {
            what: format!("what {member} adds was not loaded"),
            waited: PATIENCE,
        }),
    }
}

/// Interval at which a page is asked.
const OFTEN: Duration = Duration::from_millis(50);

/// Waits after a page is loaded, in this order.
#[derive(Debug, Default)]
struct Waits {
    event: Option<WaitForEvent>,
    function: Option<WaitForFunction>,
    selector: Option<WaitForSelector>,
    time: Option<Duration>,
}

impl Waits {
    /// Waits for one after the other; `attempt` says whether to continue after a failure.
    async fn wait(
        &self,
        page: &mut Page,
        attempt: impl Fn(Result<(), Trouble>) -> Result<(), Trouble> + Send + Sync,
    ) -> Result<(), Trouble> {
        if let Some(event) = &self.event {
            attempt(for_event(page, event).await)?;
        }
        if let Some(function) = &self.function {
            attempt(for_function(page, function).await)?;
        }
        if let Some(selector) = &self.selector {
            attempt(for_selector(page, selector).await)?;
        }
        if let Some(time) = self.time {
            page.pause(time).await?;
        }
        Ok(())
    }
}

async fn for_event(page: &mut Page, wait: &WaitForEvent) -> Result<(), Trouble> {
    let event = json!(wait.event);
    let expression = format!(
        "new Promise(resolve => {{ for (const target of [document, window]) \
         target.addEventListener({event}, () => resolve(0), {{ once: true }}); }})"
    );
    let come = async { page.evaluate(&expression).await.map(drop) };
    let what = || format!("waitForEvent: the event {event} did not occur");
    within(wait.timeout, what, come).await
}

async fn for_function(page: &mut Page, wait: &WaitForFunction) -> Result<(), Trouble> {
    let expression = format!(
        "(async () => {{ const given = ({}\n); \
         return Boolean(await (typeof given === 'function' ? given() : given)); }})()",
        wait.function.trim().trim_end_matches(';')
    );
    let every = match wait.polling {
        Some(Polling::Every(every)) => every.0.max(Duration::from_millis(10)),
        Some(Polling::Named(NamedPolling::Raf | NamedPolling::Mutation)) | None => OFTEN,
    };
    let what = || "waitForFunction: it did not return a truthy value".to_owned();
    let come = until(page, "waitForFunction", &expression, every);
    within(wait.timeout, what, come).await
}

async fn for_selector(page: &mut Page, wait: &WaitForSelector) -> Result<(), Trouble> {
    let WaitForSelector { selector, hidden, visible, timeout } = wait;
    let text = json!(selector);
    let wanted = match (hidden, visible) {
        (false, false) => "Boolean(element)",
        (false, true) => "Boolean(element) && seen",
        (true, _) => "!element || !seen",
    };
    let expression = format!(
        "(() => {{ const element = document.querySelector({text}); \
         const style = element && getComputedStyle(element); \
         const box = element && element.getBoundingClientRect(); \
         const seen = element && !['hidden', 'collapse'].includes(style.visibility) \
         && box.width > 0 && box.height > 0; return {wanted}; }})()"
    );
    let what = || match (hidden, visible) {
        (true, _) => format!("waitForSelector: what matches {text} was not hidden"),
        (false, true) => format!("waitForSelector: nothing that matches {text} was visible"),
        (false, false) => format!("waitForSelector: nothing matched {text}"),
    };
    within(*timeout, what, until(page, "waitForSelector", &expression, OFTEN)).await
}

/// Asks the page again and again until it says yes.
async fn until(
    page: &mut Page,
    member: &'static str,
    expression: &str,
    every: Duration,
) -> Result<(), Trouble> {
    loop {
        match page.evaluate(expression).await {
            Ok(Value::Bool(true)) => return Ok(()),
            Ok(_) => page.pause(every).await?,
            Err(Trouble::Script { error }) => {
                return Err(Trouble::Unfit { member, why: format!("failed in the page: {error}") });
            }
            Err(trouble) => return Err(trouble),
        }
    }
}

/// Gives up when the time is over; 0 means no limit.
async fn within(
    asked: Option<Milliseconds>,
    what: impl FnOnce() -> String,
    come: impl Future<Output = Result<(), Trouble>>,
) -> Result<(), Trouble> {
    let waited = asked.map_or(PATIENCE, |asked| asked.0);
    if waited.is_zero() {
        return come.await;
    }
    timeout(waited, come).await.unwrap_or_else(|_| Err(Trouble::Wait { what: what(), waited }))
}
