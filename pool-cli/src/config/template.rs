//! The commented file that `init` writes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::schema::{self, Key, ROOT, Shape, Table};

const HEAD: &str = "\
# The configuration of a browser pool. Every key is here, with what it is when it is left out, in
# lines without a space after the `#`: take the `#` away to change one.
#
#   check it:   pool-cli check pool.toml
#   start it:   pool-cli run --config pool.toml
#
# Durations are written \"30s\", \"5m\" or \"1h 30m\", sizes \"512MiB\" or \"1GiB\", secrets
# { env = \"NAME\" } or { file = \"PATH\" }. Each key can also be set by an environment variable,
# POOL__SECTION__KEY, which is stronger than this file.
";

/// A template of the file, in which some keys may be set.
///
/// # Examples
///
/// ```
/// use pool_cli::config::template::Template;
///
/// let text = Template::new().set("pool", "max_size", 4).render();
/// assert!(text.contains("\nmax_size = 4\n"));
/// assert!(text.contains("\n#min_size = 2\n"));
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Template {
    set: BTreeMap<(String, String), Value>,
}

impl Template {
    /// Creates the template in which every key is commented out: the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key instead of commenting it out.
    ///
    /// `profiles.work` and `regions.eu-west` are examples of sections with names.
    pub fn set(mut self, section: &str, key: &str, value: impl Into<Value>) -> Self {
        self.set.insert((section.to_owned(), key.to_owned()), value.into());
        self
    }

    /// Returns the text of the file.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = Page { template: self, text: format!("#:schema {}\n\n{HEAD}", schema::URL) };
        for section in &ROOT.keys {
            page.section(&section.name, section, !section.optional);
        }
        page.text
    }
}

struct Page<'t> {
    template: &'t Template,
    text: String,
}

impl Page<'_> {
    fn section(&mut self, name: &str, section: &Key, is_open: bool) {
        let Shape::Table(table) = &section.shape else { return };
        self.text.push('\n');
        self.comment(&section.about);
        if !table.keys.is_empty() {
            let sign = if is_open { "" } else { "#" };
            self.text.push_str(&format!("{sign}[{name}]\n"));
            self.keys(name, table);
        }
        if let Some(others) = &table.others {
            let example = match name {
                "profiles" => "work",
                "tenants" => "scrapers",
                _ => "eu-west",
            };
            let name = format!("{name}.{example}");
            let is_open = self.template.set.keys().any(|(section, _)| *section == name);
            self.section(&name, others, is_open);
        }
    }

    fn keys(&mut self, section: &str, table: &Table) {
        for key in &table.keys {
            self.text.push('\n');
            self.comment(&key.about);
            if let Shape::Choice(choices) = &key.shape {
                for choice in choices {
                    self.comment(&format!("  \"{}\": {}", choice.word, choice.about));
                }
            }
            let set = self.template.set.get(&(section.to_owned(), key.name.clone()));
            let is_empty = |value: &&Value| value.as_array().is_some_and(Vec::is_empty);
            let default = key.default.as_ref().filter(|value| !is_empty(value));
            let line = match (set, default, key.examples.first()) {
                (Some(value), ..) => format!("{} = {}", key.name, toml(value)),
                (_, Some(value), _) => format!("#{} = {}", key.name, toml(value)),
                (_, _, Some(value)) => format!("#{} = {}    # an example", key.name, toml(value)),
                (None, None, None) => format!("#{} =", key.name),
            };
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }

    fn comment(&mut self, about: &str) {
        for line in about.lines() {
            self.text.push_str(if line.is_empty() { "#" } else { "# " });
            self.text.push_str(line);
            self.text.push('\n');
        }
    }
}

/// Returns a value as TOML, on one line.
pub(super) fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", "))
        }
        Value::Object(table) if table.is_empty() => "{}".to_owned(),
        Value::Object(table) => {
            let pairs: Vec<String> =
                table.iter().map(|(key, value)| format!("{key} = {}", toml(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        other => other.to_string(),
    }
}
