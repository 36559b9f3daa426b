//! Webhooks that are called when clients wait, are refused, or browsers fail.
//!
//! They are for deployments without Prometheus; `ops/prometheus/alerts.yml` sees more. The pool only
//! counts; one task for each kind of alert makes the calls, so that no webhook, however slow, holds
//! up the pool or the other webhooks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use pool_core::{CloseReason, Event, Refusal};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};
use ureq::Agent;

use crate::config::{AlertKind, AlertsConfig, Secret};
use crate::exit::chain;

impl AlertKind {
    /// Describes, for people, what has happened this many times.
    fn sentence(self, count: u64) -> String {
        let clients = if count == 1 { "1 client".to_owned() } else { format!("{count} clients") };
        let browsers =
            if count == 1 { "1 browser".to_owned() } else { format!("{count} browsers") };
        match self {
            Self::Queue => format!("{clients} had to wait for a browser"),
            Self::Reject => format!("{clients} refused"),
            Self::Timeout => format!("{clients} timed out waiting for a browser"),
            Self::Error => format!("{browsers} could not be launched, crashed or hung"),
            Self::FailedHealth => format!("{browsers} failed the health check"),
        }
    }

    /// Returns the kind of alert that an event triggers, if any.
    fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Enqueued { .. } => Some(Self::Queue),
            Event::Refused { outcome: Refusal::Rejected, .. } => Some(Self::Reject),
            Event::Refused { outcome: Refusal::Timeout, .. } => Some(Self::Timeout),
            Event::CreateFailed { .. } => Some(Self::Error),
            Event::Closing { reason: CloseReason::Broken(_), .. } => Some(Self::Error),
            Event::Closing { reason: CloseReason::CheckFailed(_), .. } => Some(Self::FailedHealth),
            _ => None,
        }
    }
}

/// Returns the label `tenant` of the request that the event is about, if it has one.
fn tenant(event: &Event) -> Option<&str> {
    match event {
        Event::Enqueued { labels, .. } | Event::Refused { labels, .. } => labels.get("tenant"),
        _ => None,
    }
}

/// Returns the reason, if the event has one.
fn reason(event: &Event) -> Option<String> {
    match event {
        Event::CreateFailed { error, .. } => Some(chain(error.get())),
        Event::Closing { reason: CloseReason::Broken(what), .. } => Some(what.clone()),
        Event::Closing { reason: CloseReason::CheckFailed(error), .. } => Some(chain(error.get())),
        _ => None,
    }
}

/// Occurrences since the last message.
///
/// It is a single entry, however much happens, so that a webhook that is down costs no memory.
#[derive(Debug, Default)]
struct Tally {
    happened: Mutex<Option<Happened>>,
    news: Notify,
}

#[derive(Clone, Debug, PartialEq)]
struct Happened {
    /// Number of occurrences.
    count: u64,
    /// Time of the first one.
    since: SystemTime,
    /// The most recent known reason.
    reason: Option<String>,
    /// Number of occurrences by configured tenant.
    tenants: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts one occurrence, with the tenant that it concerns.
    fn add(&self, reason: Option<String>, tenant: Option<&str>) {
        let mut happened = self.happened.lock().unwrap_or_else(PoisonError::into_inner);
        let tenants = BTreeMap::new();
        let first = Happened { count: 0, since: SystemTime::now(), reason: None, tenants };
        let happened = happened.get_or_insert(first);
        happened.count += 1;
        if let Some(tenant) = tenant {
            *happened.tenants.entry(tenant.to_owned()).or_default() += 1;
        }
        happened.reason = reason.or_else(|| happened.reason.take());
        self.news.notify_one();
    }

    /// Waits until something has happened, and takes it.
    async fn take(&self) -> Happened {
        loop {
            let taken = self.happened.lock().unwrap_or_else(PoisonError::into_inner).take();
            match taken {
                Some(happened) => return happened,
                // An occurrence that is added in between leaves a permit behind.
                None => self.news.notified().await,
            }
        }
    }
}

/// The alerts of one pool: counts the events that deserve one, and calls the configured webhooks.
#[derive(Debug)]
pub struct Alerts {
    pool: String,
    settings: RwLock<Arc<AlertsConfig>>,
    /// The configured tenants: names that clients give themselves are not reported.
    tenants: RwLock<BTreeSet<String>>,
    tallies: [Tally; AlertKind::ALL.len()],
}

impl Alerts {
    /// Creates the alerts of the pool with this name, without any webhook yet.
    #[must_use]
    pub fn new(pool: &str) -> Self {
        Self {
            pool: pool.to_owned(),
            settings: RwLock::default(),
            tenants: RwLock::default(),
            tallies: std::array::from_fn(|_| Tally::default()),
        }
    }

    /// Calls these webhooks from now on. A call under way is finished as it was begun.
    pub fn configure(&self, settings: &AlertsConfig) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings.clone());
    }

    /// Reports these tenants separately from now on.
    pub fn set_tenants<'a>(&self, names: impl IntoIterator<Item = &'a String>) {
        let names = names.into_iter().cloned().collect();
        *self.tenants.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Makes the calls until the set is dropped.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use = "dropping the set ends the calls"]
    pub fn run(self: &Arc<Self>) -> JoinSet<()> {
        AlertKind::ALL.into_iter().map(|kind| tell(Arc::clone(self), kind)).collect()
    }

    /// Counts an event, if there is a webhook for it. Never waits.
    pub(crate) fn observe(&self, event: &Event) {
        let Some(kind) = AlertKind::of(event) else { return };
        if self.settings().url(kind).is_some() {
            let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
            let tenant = tenant(event).filter(|name| tenants.contains(*name));
            self.tally(kind).add(reason(event), tenant);
        }
    }

    fn settings(&self) -> Arc<AlertsConfig> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn tally(&self, kind: AlertKind) -> &Tally {
        &self.tallies[kind as usize]
    }
}

/// Reports the first event of a kind at once, and later ones once per interval.
async fn tell(alerts: Arc<Alerts>, kind: AlertKind) {
    loop {
        let happened = alerts.tally(kind).take().await;
        let settings = alerts.settings();
        // A reload may have removed the webhook in the meantime.
        let Some(url) = settings.url(kind) else { continue };
        let message = Message::new(&alerts.pool, kind, &happened);
        // Neither the address nor the answer is logged: both may hold a secret.
        match call(url, &message, settings.request_timeout, settings.attempts).await {
            Ok(()) => debug!(alert = kind.code(), count = happened.count, "webhook called"),
            Err(failure) => {
                warn!(alert = kind.code(), count = happened.count, "webhook not called: {failure}");
            }
        }
        sleep(settings.interval).await;
    }
}

/// Maximum length of a reason: longer ones end with a browser's stderr, which is in the log.
const MAX_REASON: usize = 500;

/// Pause after the first failed attempt; it doubles with each further one.
const PAUSE: Duration = Duration::from_secs(1);

/// The message for a webhook.
#[derive(Clone, Debug, Serialize)]
struct Message {
    /// The whole message in a sentence, under the key in which chat programs look for it.
    text: String,
    alert: &'static str,
    pool: String,
    /// Number of occurrences.
    count: u64,
    /// Time of the first occurrence, in milliseconds since 1970.
    since_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Number of occurrences by tenant.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tenants: BTreeMap<String, u64>,
}

impl Message {
    fn new(pool: &str, kind: AlertKind, happened: &Happened) -> Self {
        let reason: Option<String> =
            happened.reason.as_ref().map(|reason| reason.chars().take(MAX_REASON).collect());
        let since = happened.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut text = format!("browser pool \"{pool}\": {}", kind.sentence(happened.count));
        if let Some(reason) = &reason {
            text.push_str(": ");
            text.push_str(reason);
        }
        Self {
            text,
            alert: kind.code(),
            pool: pool.to_owned(),
            count: happened.count,
            since_ms: since.as_millis() as u64,
            reason,
            tenants: happened.tenants.clone(),
        }
    }
}

/// Error of delivering a message to a webhook.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Io(std::io::Error),
    /// The error itself is left out, since it may repeat the address.
    #[error("it could not be reached")]
    Unreachable,
}

impl Failure {
    /// Returns `true` if another attempt may succeed.
    fn may_pass(&self) -> bool {
        match self {
            Self::Status(status) => matches!(status, 408 | 429 | 500..),
            Self::Timeout | Self::Io(_) | Self::Unreachable => true,
        }
    }
}

/// Posts a message; tries again after a pause if that may help.
async fn call(
    url: &Secret,
    message: &Message,
    patience: Duration,
    attempts: usize,
) -> Result<(), Failure> {
    let mut pause = PAUSE;
    let mut left = attempts;
    loop {
        let (url, message) = (url.clone(), message.clone());
        let posted = tokio::task::spawn_blocking(move || post(&url, &message, patience)).await;
        let failure = match posted {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => failure,
            Err(panicked) => Failure::Io(std::io::Error::other(panicked)),
        };
        left = left.saturating_sub(1);
        if left == 0 || !failure.may_pass() {
            return Err(failure);
        }
        sleep(pause).await;
        pause *= 2;
    }
}

fn post(url: &Secret, message: &Message, patience: Duration) -> Result<(), Failure> {
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        // A redirect would send the operator's message to somebody else's address.
        .max_redirects(0)
        .user_agent(concat!("browser-pool/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let answer = agent.post(url.expose()).send_json(message).map_err(|error| match error {
        ureq::Error::Timeout(_) => Failure::Timeout,
        ureq::Error::Io(error) => Failure::Io(error),
        _ => Failure::Unreachable,
    })?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(Failure::Status(status.as_u16())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_happens_before_it_is_told_is_counted_with_the_last_reason() {
        let tally = Tally::default();
        tally.add(Some("first".to_owned()), None);
        tally.add(Some("second".to_owned()), Some("ada"));
        tally.add(None, Some("ada"));
        let happened = tally.take().await;
        assert_eq!((happened.count, happened.reason.as_deref()), (3, Some("second")));
        assert_eq!(happened.tenants, BTreeMap::from([("ada".to_owned(), 2)]));
        tally.add(None, None);
        assert_eq!(tally.take().await.count, 1);
    }
}
