use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// Where a setting comes from, or where a mistake is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Place {
    /// It is not set anywhere.
    Default,
    /// A place in the file; line and column are counted from 1, columns in characters.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        name: String,
    },
    /// A flag on the command line.
    Flag {
        /// The flag, with its dashes.
        name: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Environment { name } => write!(f, "environment variable {name}"),
            Self::Flag { name } => write!(f, "flag {name}"),
        }
    }
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is started.
    Error,
    /// It works, but probably not as meant.
    Warning,
}

/// One mistake in a configuration, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Severity of the mistake.
    pub severity: Severity,
    /// Description of the mistake: lower case, without a full stop.
    pub message: String,
    /// Remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where it is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    #[serde(skip)]
    pub(super) excerpt: Option<Excerpt>,
}

/// The line of a file that a finding is about, without the secrets in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub(super) line: String,
    /// The marked part of the line, in characters from 0.
    pub(super) marked: Range<usize>,
}

impl Finding {
    /// Returns `true` if it does not prevent a start.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        self.severity == Severity::Warning
    }
}

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const MARGIN: Style = AnsiColor::Blue.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

impl fmt::Display for Finding {
    /// Several lines, the last with its line feed; with `{:#}` in colour.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = |style: Style| if f.alternate() { style } else { Style::new() };
        let (word, colour) = match self.severity {
            Severity::Error => ("error", style(ERROR)),
            Severity::Warning => ("warning", style(WARNING)),
        };
        let (margin, hint) = (style(MARGIN), style(HINT));
        writeln!(f, "{colour}{word}:{colour:#} {}", self.message)?;
        let number = match &self.place {
            Some(Place::File { line, .. }) => line.to_string(),
            Some(Place::Default | Place::Environment { .. } | Place::Flag { .. }) | None => {
                " ".to_owned()
            }
        };
        let pad = " ".repeat(number.len());
        if let Some(place) = &self.place {
            writeln!(f, "{pad}{margin}-->{margin:#} {place}")?;
        }
        if let Some(Excerpt { line, marked }) = &self.excerpt {
            // Tabs are repeated, so that the caret is under its character.
            let indent: String = line
                .chars()
                .take(marked.start)
                .map(|char| if char == '\t' { '\t' } else { ' ' })
                .collect();
            let carets = "^".repeat(marked.len().max(1));
            writeln!(f, "{pad} {margin}|{margin:#}")?;
            writeln!(f, "{margin}{number} |{margin:#} {line}")?;
            writeln!(f, "{pad} {margin}|{margin:#} {indent}{colour}{carets}{colour:#}")?;
        }
        if let Some(text) = &self.hint {
            writeln!(f, "{hint}hint:{hint:#} {text}")?;
        }
        Ok(())
    }
}

/// Everything that was found in an unusable configuration; at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings(pub(super) Vec<Finding>);

impl Findings {
    /// Iterates over the findings, in the order of the file; those of the environment and of flags
    /// follow.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.0.iter()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            fmt::Display::fmt(finding, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Findings {}

/// Returns the candidate that is nearest to a misspelt word, if it is near enough.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let distance = |candidate: &str| {
        strsim::damerau_levenshtein(&word, &candidate.to_lowercase().replace('-', "_"))
    };
    let prefix = |candidate: &str| {
        word.len() >= 3 && (candidate.starts_with(&word) || candidate.ends_with(&word))
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= (candidate.len().max(word.len()) / 3).max(1)
                || prefix(candidate)
                || strsim::jaro_winkler(&word, candidate) >= 0.88
        })
        // If two are equally near, the one that begins with the word wins: `of` means `off` rather
        // than `on`.
        .min_by_key(|(distance, candidate)| (*distance, !candidate.starts_with(&word)))
        .map(|(_, candidate)| candidate)
}

/// Returns the hint that suggests a candidate.
pub(super) fn did_you_mean(candidate: &str) -> String {
    format!("did you mean `{candidate}`?")
}

/// Joins words: `a`, `a or b`, `a, b or c`.
pub(super) fn or(words: &[impl AsRef<str>]) -> String {
    match words {
        [] => String::new(),
        [only] => only.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} or {}", first.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let keys = ["min_size", "max_size", "max_waiting", "lease_timeout"];
        assert_eq!(nearest("max_sise", keys), Some("max_size"));
        assert_eq!(nearest("MaxSize", keys), Some("max_size"));
        assert_eq!(nearest("max-size", keys), Some("max_size"));
        assert_eq!(nearest("waiting", keys), Some("max_waiting"));
        assert_eq!(nearest("of", ["on", "off"]), Some("off"));
        assert_eq!(nearest("chrome", ["auto", "shell", "chromium"]), Some("chromium"));
    }

    #[test]
    fn another_word_is_not() {
        assert_eq!(nearest("colour", ["min_size", "max_size", "listen"]), None);
    }
}
