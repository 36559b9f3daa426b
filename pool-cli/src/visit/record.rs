use serde::{Deserialize, Serialize};

use super::{Job, Taken};
use crate::loader::Trouble;

/// Result of a URL: one line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The URL as it was given.
    pub(crate) url: String,
    /// Where the page was in the end, after redirects.
    pub(crate) final_url: Option<String>,
    /// The HTTP status of the page; none for a `data:` URL.
    pub(crate) status: Option<u16>,
    /// The page's title.
    pub(crate) title: Option<String>,
    /// Duration of the last attempt, from the first request until the page was loaded, in
    /// milliseconds.
    pub(crate) ms: u64,
    /// The reason why it could not be visited.
    pub(crate) error: Option<RecordError>,
    /// Number of attempts.
    pub(crate) attempts: u32,
    /// The file with its screenshot, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) screenshot: Option<String>,
    /// The file with its PDF, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pdf: Option<String>,
    /// The file with its HTML, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) html: Option<String>,
    /// What was taken of it, as far as it was asked for.
    #[serde(flatten)]
    pub(crate) taken: Taken,
}

/// Reason why a URL could not be visited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordError {
    /// A stable word, in snake case.
    pub(crate) code: String,
    /// A sentence for people.
    pub(crate) message: String,
}

impl Record {
    /// The record of a URL that is given up.
    pub(crate) fn failed(job: &Job, ms: u64, trouble: &Trouble) -> Self {
        let error = RecordError { code: trouble.code().into_owned(), message: trouble.to_string() };
        Self {
            url: job.url.clone(),
            ms,
            error: Some(error),
            attempts: job.attempts,
            ..Self::default()
        }
    }

    /// The line, with its end.
    pub(crate) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("a record is made of texts and numbers");
        line.push('\n');
        line
    }
}
