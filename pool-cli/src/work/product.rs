use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::members::{DebugOptions, Element};
use crate::loader::{Answer, Page, Pdf, Picture, PictureFormat, PictureOptions, Trouble};

/// The kind of work: the product that is taken from a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WorkKind {
    /// Its HTML.
    Content,
    /// A picture.
    Screenshot,
    /// A PDF.
    Pdf,
    /// Text and attributes of some of its elements.
    Scrape,
}

impl WorkKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 4] = [Self::Content, Self::Screenshot, Self::Pdf, Self::Scrape];

    /// Returns its word in routes, commands, metrics and logs.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Screenshot => "screenshot",
            Self::Pdf => "pdf",
            Self::Scrape => "scrape",
        }
    }
}

/// A call that was carried out.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) product: Product,
    /// The answer of the page's server.
    pub(crate) answer: Option<Answer>,
}

/// Data taken from a page.
#[derive(Debug)]
pub(crate) enum Product {
    Html(String),
    Picture(Picture),
    /// A picture as text.
    Base64(String),
    /// It is still in the browser.
    Pdf(Box<Pdf>),
    Json(Value),
}

impl Product {
    pub(super) fn base64(picture: &Picture) -> Self {
        Self::Base64(BASE64_STANDARD.encode(&picture.bytes))
    }

    /// Returns its content type.
    pub(crate) fn mime(&self) -> &'static str {
        match self {
            Self::Html(_) => "text/html; charset=utf-8",
            Self::Picture(picture) => picture.format.mime(),
            Self::Base64(_) => "text/plain; charset=utf-8",
            Self::Pdf(_) => "application/pdf",
            Self::Json(_) => "application/json",
        }
    }
}

/// Default maximum time for an element to appear.
const PATIENCE: Duration = Duration::from_secs(30);

/// Interval at which the page is asked for missing elements.
const OFTEN: Duration = Duration::from_millis(50);

/// Elements to take from a page.
#[derive(Debug)]
pub(super) struct Scrape {
    elements: Vec<Element>,
    debug: Option<DebugOptions>,
}

impl Scrape {
    pub(super) fn new(elements: Vec<Element>, debug: Option<DebugOptions>) -> Self {
        Self { elements, debug }
    }

    pub(super) fn debug(&self) -> DebugOptions {
        self.debug.unwrap_or_default()
    }

    /// Returns `true` if a record of what the page does is requested.
    pub(super) fn takes_notes(&self) -> bool {
        self.debug().console || self.debug().network
    }

    /// Waits for the elements, and takes their contents.
    pub(super) async fn take(&self, page: &mut Page, best_attempt: bool) -> Result<Value, Trouble> {
        self.wait(page, best_attempt).await?;
        let selectors = json!(self.selectors());
        let expression = format!(
            "{selectors}.map(selector => ({{ selector, \
             results: [...document.querySelectorAll(selector)].map(element => {{ \
             const {{ left, top }} = element.getBoundingClientRect(); \
             return {{ attributes: [...element.attributes].map(({{ name, value }}) => \
             ({{ name, value }})), height: element.offsetHeight, html: element.innerHTML, left, \
             text: element.innerText, top, width: element.offsetWidth }}; }}) }}))"
        );
        let data = page.evaluate(&expression).await?;
        let debug = match self.debug {
            Some(debug) => Some(report(page, debug).await?),
            None => None,
        };
        Ok(json!({ "data": data, "debug": debug }))
    }

    fn selectors(&self) -> Vec<&str> {
        self.elements.iter().map(|element| &*element.selector).collect()
    }

    /// Waits until each selector matches something.
    async fn wait(&self, page: &mut Page, best_attempt: bool) -> Result<(), Trouble> {
        let selectors = json!(self.selectors());
        let expression =
            format!("{selectors}.map(selector => document.querySelector(selector) !== null)");
        let began = Instant::now();
        loop {
            let there = page.evaluate(&expression).await.map_err(|trouble| match trouble {
                Trouble::Script { error } => Trouble::Unfit {
                    member: "elements",
                    why: format!("has a selector that the page does not understand: {error}"),
                },
                trouble => trouble,
            })?;
            let missing = |i: &usize| there[*i] != true;
            let mut waits = false;
            for i in (0..self.elements.len()).filter(missing) {
                let Element { selector, timeout } = &self.elements[i];
                let waited = timeout.map_or(PATIENCE, |timeout| timeout.0);
                if began.elapsed() < waited {
                    waits = true;
                } else if !best_attempt {
                    let what = format!("elements[{i}]: nothing matched {selector:?}");
                    return Err(Trouble::Wait { what, waited });
                }
            }
            if !waits {
                return Ok(());
            }
            page.pause(OFTEN).await?;
        }
    }
}

/// Returns the debug output of a call.
async fn report(page: &mut Page, debug: DebugOptions) -> Result<Value, Trouble> {
    let html = if debug.html { Some(page.html().await?) } else { None };
    let screenshot = if debug.screenshot {
        let options = PictureOptions {
            format: PictureFormat::Jpeg,
            quality: Some(20.0),
            full_page: true,
            ..PictureOptions::default()
        };
        let picture = page.picture(&options, None).await?;
        Some(BASE64_STANDARD.encode(picture.bytes))
    } else {
        None
    };
    let cookies = if debug.cookies {
        let mut answer = page.call("Network.getCookies", json!({})).await?;
        answer["cookies"].take()
    } else {
        Value::Null
    };
    let notes = page.notes();
    let (inbound, outbound) =
        if debug.network { (notes.inbound, notes.outbound) } else { Default::default() };
    Ok(json!({
        "console": if debug.console { notes.console } else { Vec::new() },
        "cookies": cookies,
        "html": html,
        "network": { "inbound": inbound, "outbound": outbound },
        "screenshot": screenshot,
    }))
}
