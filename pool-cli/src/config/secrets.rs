use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeValue;

use super::finding::Place;
use super::source::{Problem, Sources};
use super::suggest::nearest;

/// Looks up what `{ env = "NAME" }` and `{ file = "PATH" }` name.
pub(super) struct Secrets<'a> {
    pub(super) variables: &'a BTreeMap<String, String>,
    pub(super) sources: &'a Sources,
}

impl Secrets<'_> {
    /// The secret as a string, with a warning if it stands where others can read it.
    pub(super) fn resolve<'s>(
        &self,
        name: &str,
        value: DeValue<'s>,
        span: &Range<usize>,
    ) -> Result<(DeValue<'s>, Option<Problem>), Problem> {
        let mut warning = None;
        let secret = match value {
            DeValue::String(text) => {
                warning = exposed(name, &self.sources.place(span)).map(|message| {
                    Problem::warning(span.clone(), message)
                        .hint("write { env = \"NAME\" } or { file = \"PATH\" }")
                });
                text
            }
            DeValue::Table(table) => {
                let mut entries = table.iter();
                let (Some((key, source)), None) = (entries.next(), entries.next()) else {
                    return Err(form(name, span));
                };
                let Some(source_text) = source.get_ref().as_str() else {
                    return Err(form(name, span));
                };
                match key.get_ref().as_ref() {
                    "env" => Cow::Owned(self.variable(source_text, &source.span())?),
                    "file" => Cow::Owned(read(source_text, &source.span())?),
                    other => {
                        let problem = form(name, &key.span());
                        return Err(match nearest(other, ["env", "file"]) {
                            Some(near) => problem.hint(format!("did you mean `{near}`?")),
                            None => problem,
                        });
                    }
                }
            }
            _ => return Err(form(name, span)),
        };
        if secret.is_empty() {
            let problem = Problem::error(span.clone(), format!("`{name}` is empty"));
            return Err(problem.hint("leave the key out if there is none"));
        }
        Ok((DeValue::String(secret), warning))
    }

    fn variable(&self, variable: &str, span: &Range<usize>) -> Result<String, Problem> {
        self.variables.get(variable).cloned().ok_or_else(|| {
            let shown = variable.escape_debug();
            Problem::error(span.clone(), format!("environment variable `{shown}` is not set"))
                .hint(format!("export {shown}=… before the start, or leave the key out"))
        })
    }
}

/// Returns who can read a secret that is written out at a place.
fn exposed(name: &str, place: &Place) -> Option<String> {
    match place {
        Place::File { .. } => Some(format!("`{name}` stands in the file for all who can read it")),
        Place::Flag { .. } => Some(format!("`{name}` stands in the list of processes for all")),
        Place::Default | Place::Environment { .. } => None,
    }
}

/// Without the line feed at its end, which editors and `echo` add.
fn read(path: &str, span: &Range<usize>) -> Result<String, Problem> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Problem::error(span.clone(), format!("cannot read {path}: {}", io_reason(&error)))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The reason of an I/O error in our own style: lower case, without the number.
pub(super) fn io_reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    text.to_lowercase()
}

fn form(name: &str, span: &Range<usize>) -> Problem {
    Problem::error(
        span.clone(),
        format!("`{name}` must be a string, {{ env = \"NAME\" }} or {{ file = \"PATH\" }}"),
    )
}
