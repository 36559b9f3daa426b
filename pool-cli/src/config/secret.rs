use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use toml::de::DeValue;

use super::finding::{Place, nearest};
use super::source::{Problem, Sources};

/// A value that is never printed: `Debug` and `Serialize` show `(hidden)`, except within
/// [`revealed`].
///
/// In the file it is `{ env = "NAME" }`, `{ file = "PATH" }`, or, with a warning, the value
/// itself; it is looked up while the configuration is loaded.
#[derive(Clone)]
pub struct Secret(SecretString);

/// Text shown instead of a secret wherever configuration is shown.
pub(super) const HIDDEN: &str = "(hidden)";

impl Secret {
    /// Hides a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// Returns the value, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

thread_local! {
    static REVEALED: Cell<bool> = const { Cell::new(false) };
}

/// Hides the secrets again when it is dropped, even if the serialization panics.
struct Revealed;

impl Drop for Revealed {
    fn drop(&mut self) {
        REVEALED.set(false);
    }
}

/// Serializes something including its secrets, to compare it or to read it back. The result must
/// not be shown.
pub(crate) fn revealed<T>(serialize: impl FnOnce() -> T) -> T {
    let _revealed = Revealed;
    REVEALED.set(true);
    serialize()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl PartialEq for Secret {
    /// Compares without constant time: it tells whether a reload changed a setting, not whether a
    /// client knows a token.
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if REVEALED.get() { self.expose() } else { HIDDEN })
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// Takes the value itself: references have already been replaced by what they refer to.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kind": "secret",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "env": { "type": "string" } },
                    "required": ["env"],
                    "additionalProperties": false
                },
                {
                    "type": "object",
                    "properties": { "file": { "type": "string" } },
                    "required": ["file"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

/// Looks up what `{ env = "NAME" }` and `{ file = "PATH" }` refer to.
pub(super) struct Secrets<'a> {
    pub(super) variables: &'a BTreeMap<String, String>,
    pub(super) sources: &'a Sources,
}

impl Secrets<'_> {
    /// Returns the secret as a string, with a warning if it is where others can read it.
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

/// Returns a warning about a secret that is written where others can read it.
fn exposed(name: &str, place: &Place) -> Option<String> {
    match place {
        Place::File { .. } => {
            Some(format!("`{name}` can be read by anybody who can read the file"))
        }
        Place::Flag { .. } => {
            Some(format!("`{name}` can be read by anybody in the list of processes"))
        }
        Place::Default | Place::Environment { .. } => None,
    }
}

/// Reads a file, without the line feed at its end, which editors and `echo` add.
fn read(path: &str, span: &Range<usize>) -> Result<String, Problem> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Problem::error(span.clone(), format!("cannot read {path}: {}", io_reason(&error)))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Returns the reason of an I/O error in our own style: lower case, without the number.
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
