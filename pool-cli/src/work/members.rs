//! The members of a body, with browserless' names.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::loader::{Cookie, Credentials, Interceptor, ResourceType, UserAgent, Viewport, Wait};

/// A mistake in a body: a sentence that names the member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadOrder(pub(crate) String);

impl BadOrder {
    pub(super) fn member(member: &str, why: impl fmt::Display) -> Self {
        Self(format!("the member {member:?} {why}"))
    }
}

impl fmt::Display for BadOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All members that a body may have, for any of the routes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Members {
    pub(super) url: Option<String>,
    pub(super) html: Option<String>,
    pub(super) goto_options: GotoOptions,
    pub(super) wait_for_event: Option<WaitForEvent>,
    pub(super) wait_for_function: Option<WaitForFunction>,
    pub(super) wait_for_selector: Option<WaitForSelector>,
    pub(super) wait_for_timeout: Option<Milliseconds>,
    pub(super) add_script_tag: Vec<Tag>,
    pub(super) add_style_tag: Vec<Tag>,
    pub(super) authenticate: Option<Credentials>,
    pub(super) cookies: Vec<Cookie>,
    #[serde(rename = "setExtraHTTPHeaders")]
    pub(super) headers: BTreeMap<String, String>,
    pub(super) user_agent: Option<GivenAgent>,
    pub(super) viewport: Option<Viewport>,
    pub(super) emulate_media_type: Option<String>,
    pub(super) reject_request_pattern: Vec<Pattern>,
    pub(super) reject_resource_types: Vec<ResourceType>,
    pub(super) request_interceptors: Vec<GivenInterceptor>,
    #[serde(rename = "setJavaScriptEnabled")]
    pub(super) javascript: Option<bool>,
    pub(super) best_attempt: bool,
    /// The options of a picture or of a PDF, depending on the route.
    pub(super) options: Option<Value>,
    pub(super) selector: Option<String>,
    pub(super) scroll_page: Option<bool>,
    pub(super) elements: Option<Vec<Element>>,
    pub(super) debug_opts: Option<DebugOptions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct GotoOptions {
    pub(super) referer: Option<String>,
    /// No limit if it is 0.
    pub(super) timeout: Option<Milliseconds>,
    pub(super) wait_until: Option<WaitUntil>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected load, domcontentloaded, networkidle0, networkidle2 or a list of them"
)]
pub(super) enum WaitUntil {
    One(Wait),
    All(Vec<Wait>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitForEvent {
    pub(super) event: String,
    pub(super) timeout: Option<Milliseconds>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitForFunction {
    #[serde(rename = "fn")]
    pub(super) function: String,
    pub(super) polling: Option<Polling>,
    pub(super) timeout: Option<Milliseconds>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "expected raf, mutation or a number of milliseconds")]
pub(super) enum Polling {
    Named(NamedPolling),
    Every(Milliseconds),
}

/// Both mean often: the difference between them in Puppeteer's page does not exist here.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum NamedPolling {
    Raf,
    Mutation,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitForSelector {
    pub(super) selector: String,
    #[serde(default)]
    pub(super) hidden: bool,
    #[serde(default)]
    pub(super) visible: bool,
    pub(super) timeout: Option<Milliseconds>,
}

/// A script or a stylesheet that is added to the page.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tag {
    pub(super) url: Option<String>,
    pub(super) content: Option<String>,
    pub(super) path: Option<Value>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string, or an object with the member userAgent")]
pub(super) enum GivenAgent {
    Text(String),
    Whole(Box<UserAgent>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GivenInterceptor {
    pattern: Pattern,
    response: Response,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Response {
    status: Option<u16>,
    headers: BTreeMap<String, String>,
    content_type: Option<String>,
    body: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Element {
    pub(super) selector: String,
    pub(super) timeout: Option<Milliseconds>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DebugOptions {
    pub(super) console: bool,
    pub(super) cookies: bool,
    pub(super) html: bool,
    pub(super) network: bool,
    pub(super) screenshot: bool,
}

/// A number of milliseconds, up to a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct Milliseconds(pub(super) Duration);

impl TryFrom<f64> for Milliseconds {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        const DAY: f64 = 86_400_000.0;
        if (0.0..=DAY).contains(&number) {
            return Ok(Self(Duration::from_secs_f64(number / 1000.0)));
        }
        Err(format!("{number} is not a number of milliseconds from 0 to a day"))
    }
}

/// A regular expression that is searched for in an address.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Pattern(pub(super) Regex);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // Maximum size of a pattern, so that a body with many of them takes little.
        const SIZE: usize = 256 * 1024;
        let pattern = RegexBuilder::new(&text).size_limit(SIZE).build();
        pattern.map(Self).map_err(|error| {
            // Its first lines show the place, one below the other.
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let shown: String = text.chars().take(80).collect();
            format!("{shown:?} is not a pattern: {why}")
        })
    }
}

impl From<GivenInterceptor> for Interceptor {
    fn from(given: GivenInterceptor) -> Self {
        let Response { status, mut headers, content_type, body } = given.response;
        if let Some(kind) = content_type {
            headers.insert("content-type".to_owned(), kind);
        }
        let body = body.map(|text| match BASE64_STANDARD.decode(&text) {
            // As in browserless: anything that can be base64 is.
            Ok(bytes) => bytes,
            Err(_) => text.into_bytes(),
        });
        Self {
            pattern: given.pattern.0,
            status: status.unwrap_or(200),
            headers,
            body: body.unwrap_or_default(),
        }
    }
}

/// Reads a part of a body; `within` is the member that it is, with a dot at its end.
pub(super) fn read<'de, T: DeserializeOwned>(
    within: &str,
    text: impl serde::Deserializer<'de, Error = serde_json::Error>,
) -> Result<T, BadOrder> {
    serde_path_to_error::deserialize(text).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // If a text broke off, no member is to blame.
        if inner.is_syntax() || inner.is_eof() {
            return BadOrder(format!("the body is not JSON: {inner}"));
        }
        let why = inner.to_string();
        // The position in the text means nothing to those whose library wrote it.
        let why = why.split(" at line ").next().unwrap_or_default().to_owned();
        let member = format!("{within}{}", if path == "." { "" } else { &path });
        match member.trim_end_matches('.') {
            "" => BadOrder(format!("the body is wrong: {why}")),
            member => BadOrder::member(member, format!("is wrong: {why}")),
        }
    })
}
