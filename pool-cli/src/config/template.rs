//! Texts written from the schema: the commented file of `init`, and `docs/configuration.md`.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde_json::Value;

use super::overrides::{ALIASES, PREFIX};
use super::schema::{self, Key, ROOT, Shape, Table};

const HEAD: &str = "\
# The configuration of a browser pool. Every key is listed with its default, in
# lines without a space after the `#`: remove the `#` to change one.
#
#   check it:   pool-cli check pool.toml
#   start it:   pool-cli run --config pool.toml
#
# Durations are written \"30s\", \"5m\" or \"1h 30m\", sizes \"512MiB\" or \"1GiB\", secrets
# { env = \"NAME\" } or { file = \"PATH\" }. Each key can also be set by an environment variable,
# POOL__SECTION__KEY, which takes precedence over this file.
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

/// Returns `docs/configuration.md`, which is generated so that it cannot fall behind the code.
#[must_use]
pub fn reference() -> String {
    let mut page = String::new();
    write(&mut page).expect("a string takes all that is written to it");
    page
}

fn write(page: &mut String) -> fmt::Result {
    let aliases: Vec<String> = ALIASES
        .iter()
        .map(|(name, section, key)| format!("| `{name}` | `{section}.{key}` |"))
        .collect();
    writeln!(
        page,
        r#"<!-- Generated from the types in pool-cli/src/config: edit their documentation instead. -->

# Configuration

Everything has a default: `pool-cli run` works with no file at all. `pool-cli init --out pool.toml`
writes a file in which every key is explained, `pool-cli check pool.toml` says what is wrong with
one, and `pool-cli config show` prints the effective values and where each comes from.

A setting is taken from the first of these that has it:

1. a flag: `--max-size 4`, or any key as `--set pool.max_size=4`;
2. an environment variable: `{PREFIX}POOL__MAX_SIZE=4`. In names of profiles and regions case does
   not matter, and `_` stands for `-` where the file has such a name:
   `{PREFIX}REGIONS__EU_WEST__MAX_SIZE`. Lists and tables are written as in TOML;
3. the file named by `--config` or `POOL_CONFIG`;
4. the default.

An unknown key, a value of the wrong type or out of its range, and settings that contradict each
other are all reported at once, with exit code 78, and nothing is started. On SIGHUP the file is read
again; if anything in it is wrong, the old configuration stays. A key whose change needs a restart says so.

| | written as |
|---|---|
| duration | `"500ms"`, `"30s"`, `"5m"`, `"1h 30m"` |
| size | `"512MiB"`, `"1GiB"`, `"500MB"` |
| secret | `{{ env = "NAME" }}` or `{{ file = "PATH" }}`; the value itself works too, with a warning. Never printed |
| name | up to 64 letters, digits, `.`, `-` and `_`, the first a letter or digit |
| `"off"` | where it is allowed: no limit |

These variables of browserless, and one of OpenTelemetry, are understood as well; the pool's own names take precedence:

| variable | setting |
|---|---|
{}

`TIMEOUT` is in milliseconds, and `-1` is `"off"`."#,
        aliases.join("\n"),
    )?;
    for section in &ROOT.keys {
        write_section(page, &section.name, section, section.held)?;
    }
    Ok(())
}

fn write_section(page: &mut String, name: &str, section: &Key, held: bool) -> fmt::Result {
    let Shape::Table(table) = &section.shape else { return Ok(()) };
    if !table.keys.is_empty() {
        writeln!(page, "\n## `[{name}]`\n\n{}", section.about)?;
    }
    for key in &table.keys {
        writeln!(page, "\n### `{name}.{}`\n\n{}\n", key.name, key.about)?;
        let choices = match &key.shape {
            Shape::List { item, .. } => &**item,
            shape => shape,
        };
        if let Shape::Choice(choices) = choices {
            for choice in choices {
                writeln!(page, "- `\"{}\"`: {}", choice.word, choice.about)?;
            }
            writeln!(page)?;
        }
        let mut facts = vec![title(&key.shape)];
        match &key.default {
            Some(value) => facts.push(format!("default `{}`", toml(value))),
            None if key.about.contains("By default") => {}
            None => facts.push("not set by default".to_owned()),
        }
        if let Some(example) = key.examples.first() {
            facts.push(format!("example `{}`", toml(example)));
        }
        facts.push(format!(
            "`{PREFIX}{}__{}`",
            name.replace('.', "__").to_uppercase(),
            key.name.to_uppercase()
        ));
        if held || key.held {
            facts.push("a change needs a restart".to_owned());
        }
        writeln!(page, "{}", capitalized(&facts.join(" · ")))?;
    }
    match &table.others {
        Some(others) => write_section(page, &format!("{name}.NAME"), others, held),
        None => Ok(()),
    }
}

fn title(shape: &Shape) -> String {
    match shape {
        Shape::Table(_) => "table".to_owned(),
        Shape::List { item, length: None } if matches!(**item, Shape::Choice(_)) => {
            "list of these".to_owned()
        }
        Shape::List { item, length: None } => format!("list of {}s", title(item)),
        Shape::List { item, length: Some(length) } => {
            format!("list of {length}, each a {}", title(item))
        }
        Shape::Switch => "`true` or `false`".to_owned(),
        Shape::Whole { min, max: i64::MAX, or_off } => {
            format!("number from {min}{}", if *or_off { ", or \"off\"" } else { "" })
        }
        Shape::Whole { min, max, .. } => format!("number {min} … {max}"),
        Shape::Real { min, max, or_off } => {
            format!("number {min:?} … {max:?}{}", if *or_off { ", or \"off\"" } else { "" })
        }
        Shape::Choice(_) => "one of these".to_owned(),
        Shape::Text(kind) => kind.title().to_owned(),
        Shape::Secret => "secret".to_owned(),
        Shape::TextOr(kind, _) => format!("{} or table", kind.title()),
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
