use std::fmt;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// Result of one check, with its remedy.
#[derive(Debug, Serialize)]
pub(super) struct Diagnosis {
    name: &'static str,
    pub(super) verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// The pool works, but not as well as it could, or not for long.
    Warn,
    /// The pool does not work.
    Fail,
}

impl Diagnosis {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), remedy: None }
    }

    pub(super) fn warn(
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Warn, remedy: Some(remedy.into()), ..Self::ok(name, found) }
    }

    pub(super) fn fail(
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Fail, remedy: Some(remedy.into()), ..Self::ok(name, found) }
    }
}

impl fmt::Display for Diagnosis {
    /// One line, and one more for the remedy; with `{:#}` in colour.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_colour = f.alternate();
        let style = |style: Style| if in_colour { style } else { Style::new() };
        let (word, colour) = match self.verdict {
            Verdict::Ok => ("ok", style(AnsiColor::Green.on_default())),
            Verdict::Warn => ("warn", style(AnsiColor::Yellow.on_default().bold())),
            Verdict::Fail => ("fail", style(AnsiColor::Red.on_default().bold())),
        };
        writeln!(f, "{colour}{word:<4}{colour:#}  {:<13}  {}", self.name, self.found)?;
        match &self.remedy {
            Some(remedy) => {
                let hint = style(AnsiColor::Cyan.on_default().bold());
                writeln!(f, "      {hint}hint:{hint:#} {remedy}")
            }
            None => Ok(()),
        }
    }
}
