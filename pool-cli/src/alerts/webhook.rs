use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::time::sleep;
use ureq::Agent;

use super::AlertKind;
use super::tally::Happened;
use crate::config::Secret;

/// Longer reasons end with a browser's stderr, which the log has.
const MAX_REASON: usize = 500;

/// The pause after the first attempt that failed; each next one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// The message for a webhook.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Message {
    /// All of it in a sentence, under the name under which chats look for it.
    text: String,
    alert: &'static str,
    pool: String,
    /// Number of occurrences.
    count: u64,
    /// Since when, in milliseconds since 1970.
    since_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Number of times by tenant.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tenants: BTreeMap<String, u64>,
}

impl Message {
    pub(super) fn new(pool: &str, kind: AlertKind, happened: &Happened) -> Self {
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
pub(super) enum Failure {
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Io(std::io::Error),
    /// Not the error itself, which may repeat the address.
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

/// Posts a message, again after a pause where that may help.
pub(super) async fn call(
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
        // Another address than the operator's would get what is meant for his.
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
