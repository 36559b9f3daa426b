//! The body of a request for a lease by REST.

use std::collections::BTreeMap;
use std::time::Duration;

use pool_chrome::egress::Pattern;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::query::{domains, kind, pages, some_milliseconds, word};
use super::{LeaseQuery, Problem};

/// Fields of Kernel's clients that have no meaning here: a request that has them is granted, and its
/// answer lists them.
const IGNORED: [&str; 13] = [
    "chrome_policy",
    "extensions",
    "fill_rate_per_minute",
    "gpu",
    "headless",
    "invocation_id",
    "kiosk_mode",
    "persistence",
    "proxy_id",
    "refresh_on_profile_update",
    "stealth",
    "telemetry",
    "viewport",
];

/// The most tags of a browser, and the longest key, value and address.
const MAX_TAGS: usize = 50;
const MAX_TAG: usize = 255;
const MAX_ADDRESS: usize = 8192;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A request for a lease; the names of the query hold here too.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Acquire {
    acquire_timeout_seconds: Option<f64>,
    /// Maximum silence of its clients, as Kernel has it.
    timeout_seconds: Option<f64>,
    profile: Option<Profile>,
    region: Option<String>,
    priority: Option<u8>,
    tenant: Option<String>,
    tracking_id: Option<String>,
    /// Maximum time that the lease lasts.
    timeout: Option<u64>,
    acquire_timeout: Option<u64>,
    lease: Option<String>,
    /// Number of pages that the lease begins with: 0 or 1.
    pages: Option<u64>,
    session: Option<String>,
    keep: Option<u64>,
    idle_timeout: Option<u64>,
    /// A list, or a text with commas as in the query.
    allow_domains: Option<Domains>,
    name: Option<String>,
    start_url: Option<String>,
    tags: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(super) more: Map<String, Value>,
}

/// A name, or what Kernel has for one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Profile {
    Name(String),
    Kernel { id: Option<String>, name: Option<String> },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Domains {
    Text(String),
    List(Vec<String>),
}

/// The name, tags and first address that a lease by REST was acquired with.
#[derive(Clone, Debug, Default)]
pub(super) struct Label {
    pub(super) name: Option<String>,
    pub(super) start_url: Option<String>,
    pub(super) tags: BTreeMap<String, String>,
}

/// Returns what a body holds and has no meaning here.
///
/// # Errors
///
/// If there is something that nobody knows.
pub(super) fn ignored(more: &Map<String, Value>, known: &[&str]) -> Result<Vec<String>, Problem> {
    let unknown =
        |name: &&String| !IGNORED.contains(&name.as_str()) && !known.contains(&name.as_str());
    match more.keys().find(unknown) {
        None => Ok(more.keys().cloned().collect()),
        Some(name) => {
            let shown: String = name.chars().take(64).collect();
            Err(Problem::bad_request("bad_body", format!("unknown field {shown:?}")))
        }
    }
}

impl Acquire {
    pub(super) fn label(&mut self) -> Result<Label, Problem> {
        let bad = |detail: String| Err(Problem::bad_request("bad_parameter", detail));
        let name = self.name.take().map(|name| word("name", &name)).transpose()?;
        let start_url = self.start_url.take().filter(|address| !address.is_empty());
        if start_url.as_ref().is_some_and(|address| address.len() > MAX_ADDRESS) {
            return bad(format!("start_url has {MAX_ADDRESS} bytes at most"));
        }
        let tags = std::mem::take(&mut self.tags);
        let is_long = |(tag, value): (&String, &String)| tag.len().max(value.len()) > MAX_TAG;
        if tags.len() > MAX_TAGS || tags.iter().any(is_long) {
            return bad(format!("there are {MAX_TAGS} tags at most, of {MAX_TAG} bytes each"));
        }
        Ok(Label { name, start_url, tags })
    }

    pub(super) fn into_query(self) -> Result<LeaseQuery, Problem> {
        let checked =
            |name, value: Option<String>| value.map(|value| word(name, &value)).transpose();
        let some = |name: &str, value: Option<u64>| {
            value.map(|value| some_milliseconds(name, &value.to_string())).transpose()
        };
        if self.priority.is_some_and(|priority| !(1..=10).contains(&priority)) {
            return Err(Problem::bad_request("bad_parameter", "priority must be 1 to 10"));
        }
        let idle = seconds("timeout_seconds", self.timeout_seconds)?;
        if idle.is_some_and(|idle| idle.is_zero()) {
            let detail = "timeout_seconds must be longer than 0";
            return Err(Problem::bad_request("bad_parameter", detail));
        }
        let wait = self.acquire_timeout.map(Duration::from_millis);
        let wait_seconds = seconds("acquire_timeout_seconds", self.acquire_timeout_seconds)?;
        Ok(LeaseQuery {
            profile: checked("profile", self.profile.and_then(Profile::name))?,
            region: checked("region", self.region)?,
            tenant: checked("tenant", self.tenant)?,
            tracking_id: checked("tracking_id", self.tracking_id)?,
            priority: self.priority,
            timeout: some("timeout", self.timeout)?,
            acquire_timeout: wait.map(|wait| wait.min(DAY)).or(wait_seconds),
            lease: self.lease.map(|value| kind(&value)).transpose()?,
            pages: self.pages.map(|value| pages(&value.to_string())).transpose()?,
            session: checked("session", self.session)?,
            keep: self.keep.map(Duration::from_millis),
            idle_timeout: some("idle_timeout", self.idle_timeout)?.or(idle),
            allow_domains: self.allow_domains.map(Domains::read).transpose()?,
        })
    }
}

impl Profile {
    fn name(self) -> Option<String> {
        match self {
            Self::Name(name) => Some(name),
            // Here they are the same; an empty one is Kernel's for none.
            Self::Kernel { id, name } => name.or(id).filter(|name| !name.is_empty()),
        }
    }
}

impl Domains {
    fn read(self) -> Result<Vec<Pattern>, Problem> {
        match self {
            Self::Text(text) => domains(&text),
            Self::List(list) => domains(&list.join(",")),
        }
    }
}

fn seconds(name: &str, value: Option<f64>) -> Result<Option<Duration>, Problem> {
    let valid = |seconds: &f64| (0.0..=DAY.as_secs_f64()).contains(seconds);
    match value {
        None => Ok(None),
        Some(seconds) if valid(&seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
        Some(_) => {
            let detail = format!("{name} must be a number of seconds, a day's at most");
            Err(Problem::bad_request("bad_parameter", detail))
        }
    }
}
