use serde::Serialize;
use serde_json::Value;

use super::finding::Place;
use super::shape::{Key, ROOT, Shape};
use super::source::Sources;
use super::tree::{self, Tree};
use super::{Config, template};

/// One value of an effective configuration, and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Setting {
    /// The section: `pool`, `profiles.work`.
    pub section: String,
    /// The key in it.
    pub key: String,
    /// The value as it would be written, `None` if there is none; secrets are `(hidden)`.
    pub value: Option<Value>,
    /// Where it comes from.
    pub origin: Place,
}

impl Setting {
    /// The line that would set it; a comment if it has no value.
    #[must_use]
    pub fn line(&self) -> String {
        match &self.value {
            Some(value) => format!("{} = {}", self.key, template::toml(value)),
            None => format!("#{} =", self.key),
        }
    }
}

/// Lists every key of every section, those of profiles and regions by name.
pub(super) fn list(config: &Config, tree: &Tree<'_>, sources: &Sources) -> Vec<Setting> {
    // Serialized only to be read by name: the keys are those of the schema.
    let values = serde_json::to_value(config).unwrap_or_default();
    let mut settings = Vec::new();
    let mut walk = Walk { tree, sources, settings: &mut settings };
    for section in &ROOT.keys {
        if section.optional && values[&section.name].is_null() {
            continue;
        }
        walk.section(&mut vec![section.name.clone()], section, &values[&section.name]);
    }
    settings
}

struct Walk<'a> {
    tree: &'a Tree<'a>,
    sources: &'a Sources,
    settings: &'a mut Vec<Setting>,
}

impl Walk<'_> {
    fn section(&mut self, path: &mut Vec<String>, section: &Key, values: &Value) {
        let Shape::Table(table) = &section.shape else { return };
        for key in &table.keys {
            let value = Some(&values[&key.name]).filter(|value| !value.is_null());
            let section = path.iter().map(|part| quoted(part)).collect::<Vec<_>>().join(".");
            path.push(key.name.clone());
            let found = tree::find(self.tree, path);
            path.pop();
            self.settings.push(Setting {
                section,
                key: key.name.clone(),
                value: value.cloned(),
                origin: found
                    .map_or(Place::Default, |(_, value)| self.sources.place(&value.span())),
            });
        }
        let (Some(others), Some(values)) = (&table.others, values.as_object()) else { return };
        for (name, values) in values {
            if table.keys.iter().all(|key| key.name != *name) {
                path.push(name.clone());
                self.section(path, others, values);
                path.pop();
            }
        }
    }
}

/// A part of a dotted name as TOML wants it.
fn quoted(part: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if part.bytes().all(bare) { part.to_owned() } else { format!("\"{part}\"") }
}
