use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use toml::Spanned;
use toml::de::Deserializer;

use super::finding::{Finding, Findings, Place, Severity};
use super::overrides::{self, Override};
use super::schema::{Key, ROOT, Shape, Table};
use super::secret::{Secrets, io_reason, revealed};
use super::source::{self, Origin, Problem, Sources, Tree};
use super::{Config, conform, rules, template};
use crate::exit::Failure;

/// Reads a configuration from a file, environment variables and flags; each overrides the one
/// before.
///
/// # Examples
///
/// ```
/// use pool_cli::config::Loader;
///
/// let loaded = Loader::new()
///     .variable("POOL__POOL__MAX_SIZE", "6")
///     .flag("--listen", "gateway.listen", "127.0.0.1:4000")
///     .load()?;
/// assert_eq!(loaded.config.pool.max_size, 6);
/// assert_eq!(loaded.config.gateway.listen.port(), 4000);
/// # Ok::<(), pool_cli::config::Findings>(())
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct Loader {
    file: Option<File>,
    variables: BTreeMap<String, String>,
    flags: Vec<(String, String, String)>,
    is_for_here: bool,
}

#[derive(Clone)]
enum File {
    OnDisk(PathBuf),
    InMemory(PathBuf, String),
}

/// A usable configuration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The effective values. A `[fleet]` without a NATS server is left out, since it is not a
    /// fleet.
    pub config: Config,
    /// Settings that are probably not as meant.
    pub warnings: Vec<Finding>,
    /// Every value and its origin, in the order of the reference.
    pub settings: Vec<Setting>,
}

impl fmt::Debug for Loader {
    /// Prints no values, since secrets are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.file.as_ref().map(|file| match file {
            File::OnDisk(path) | File::InMemory(path, _) => path,
        });
        f.debug_struct("Loader").field("file", &path).finish_non_exhaustive()
    }
}

impl Loader {
    /// Creates a loader without a file, variables or flags: it returns the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the file, which is read by [`load`](Self::load).
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(File::OnDisk(path.into()));
        self
    }

    /// Sets the file by its text; the path is only for messages.
    pub fn text(mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        self.file = Some(File::InMemory(path.into(), text.into()));
        self
    }

    /// Adds the environment variables of the process.
    ///
    /// All of them are kept, since secrets may name any of them.
    pub fn environment(mut self) -> Self {
        let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
        self.variables.extend(std::env::vars_os().map(|(name, value)| (text(name), text(value))));
        self
    }

    /// Adds one variable.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Adds a flag: its name for messages, the dotted path that it sets, and the value.
    pub fn flag(
        mut self,
        flag: impl Into<String>,
        path: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        self.flags.push((flag.into(), path.into(), value.into()));
        self
    }

    /// Also checks whether a pool with this configuration can ever start on this machine: the
    /// Chromium that it names, its sandbox, the address, the directory, and the limits.
    pub fn for_this_machine(mut self) -> Self {
        self.is_for_here = true;
        self
    }

    /// Reads and validates everything.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, including warnings.
    pub fn load(&self) -> Result<Loaded, Findings> {
        let mut sources = Sources::default();
        let file = match &self.file {
            None => None,
            Some(File::InMemory(path, text)) => Some((path.clone(), text.clone())),
            Some(File::OnDisk(path)) => {
                let text =
                    read(path).map_err(|problem| Findings(sources.findings(vec![problem])))?;
                Some((path.clone(), text))
            }
        };
        let has_file = file.is_some();
        if let Some((path, text)) = file {
            sources.add(Origin::File(path), text);
        }
        let mut set = overrides::from_environment(&self.variables, &mut sources);
        for (flag, path, value) in &self.flags {
            set.push(overrides::from_flag(flag, path, value, &mut sources));
        }
        let mut problems = Vec::new();
        let loaded = self.resolve(has_file, &set, &sources, &mut problems);
        let findings = sources.findings(problems);
        match loaded {
            Some((config, settings)) if findings.iter().all(Finding::is_warning) => {
                Ok(Loaded { config, warnings: findings, settings })
            }
            _ => Err(Findings(findings)),
        }
    }

    fn resolve(
        &self,
        has_file: bool,
        set: &[Override],
        sources: &Sources,
        problems: &mut Vec<Problem>,
    ) -> Option<(Config, Vec<Setting>)> {
        let mut tree = if has_file { source::parse(sources.get(0), problems) } else { Tree::new() };
        if !problems.is_empty() {
            // Anything else that was read from the file is a guess: no complaints about guesses.
            return None;
        }
        overrides::apply(set, sources, &mut tree, problems);
        let secrets = Secrets { variables: &self.variables, sources };
        let (tree, refused) = conform::conform(tree, &secrets, problems);
        let deserializer = Deserializer::from(Spanned::new(0..0, tree.clone()));
        let mut config = match Config::deserialize(deserializer) {
            Ok(config) => config,
            Err(error) => {
                // Not reached as long as the types and their schema agree.
                problems.push(Problem::error(error.span(), error.message()));
                return None;
            }
        };
        settle(&mut config, &tree);
        rules::check(&config, &tree, &refused, problems);
        let is_usable = problems.iter().all(|problem| problem.severity == Severity::Warning);
        if self.is_for_here && is_usable {
            rules::check_machine(&config, &tree, problems);
        }
        let settings = list_settings(&config, &tree, sources);
        config.fleet = config.fleet.filter(|fleet| !fleet.nats.is_empty());
        Some((config, settings))
    }
}

impl Config {
    /// Returns every value by its key, including secrets: for comparison only, never for display.
    pub(crate) fn values(&self) -> Value {
        revealed(|| serde_json::to_value(self).unwrap_or_default())
    }

    /// Returns `true` for a key, `section.name`, that holds from the start to the end of a pool.
    pub(crate) fn is_held(key: &str) -> bool {
        let mut table = &*ROOT;
        let mut parts = key.split('.').peekable();
        while let Some(key) = parts.next().and_then(|part| table.key(part)) {
            // Whether browsers are guarded at all is decided when they are launched.
            let is_presence = key.optional && parts.peek().is_none();
            if key.held || is_presence {
                return true;
            }
            let Shape::Table(inner) = &key.shape else { return false };
            table = inner;
        }
        false
    }

    /// Returns `true` for a key that a reload from `self` to `next` leaves as it is: one that is [held](Self::is_held),
    /// or the size of a pool if it has browsers and would have none, or the reverse. A pool without browsers starts
    /// without looking for a Chromium.
    pub(crate) fn holds(&self, next: &Self, key: &str) -> bool {
        Self::is_held(key)
            || (matches!(key, "pool.min_size" | "pool.max_size") && self.differs_in_kind(next))
    }

    /// Returns `true` if one of two pools has browsers and the other has none.
    fn differs_in_kind(&self, other: &Self) -> bool {
        (self.pool.max_size == 0) != (other.pool.max_size == 0)
    }

    /// Returns this configuration, but with the values of `current` for the keys that
    /// [cannot change](Self::holds) while a pool runs.
    ///
    /// # Errors
    ///
    /// None in practice: the values are read back from what they were written as.
    pub(crate) fn holding(&self, current: &Self) -> Result<Self, serde_json::Error> {
        let mut values = self.values();
        hold(&mut values, &current.values(), &ROOT);
        without_null(&mut values);
        let mut held = Self::deserialize(values)?;
        if self.differs_in_kind(current) {
            held.pool.min_size = current.pool.min_size;
            held.pool.max_size = current.pool.max_size;
        }
        Ok(held)
    }
}

/// Replaces the new values of held keys by the current ones.
fn hold(values: &mut Value, current: &Value, table: &Table) {
    for key in &table.keys {
        let (value, current) = (&mut values[&key.name], &current[&key.name]);
        let differs_in_presence = key.optional && value.is_null() != current.is_null();
        if key.held || differs_in_presence {
            value.clone_from(current);
        } else if let Shape::Table(inner) = &key.shape
            && value.is_object()
        {
            hold(value, current, inner);
        }
    }
}

/// Leaves out whatever is not set, as a file does.
fn without_null(value: &mut Value) {
    match value {
        Value::Object(table) => {
            table.retain(|_, value| !value.is_null());
            table.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Adjusts defaults for a small pool: a default must not contradict what was written.
fn settle(config: &mut Config, tree: &Tree<'_>) {
    if source::find(tree, &["pool", "min_size"]).is_none() {
        let room = config.pool.max_size.saturating_sub(rules::others_min(config));
        config.pool.min_size = config.pool.min_size.min(room);
    }
    if source::find(tree, &["warming", "min_idle"]).is_none() {
        config.warming.min_idle = config.warming.min_idle.min(config.pool.max_size);
    }
}

fn read(path: &Path) -> Result<String, Problem> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        let problem = Problem::error(None, format!("cannot read {name}: {}", io_reason(&error)));
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                problem.hint(format!("write one: pool-cli init --out {name}"))
            }
            _ => problem,
        }
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        Problem::error(None, format!("{name} is not UTF-8 in line {line}")).hint("save it as UTF-8")
    })
}

/// One value of an effective configuration, and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Setting {
    /// The section: `pool`, `profiles.work`.
    pub section: String,
    /// The key in it.
    pub key: String,
    /// The value as it would be written, or `None`; secrets are `(hidden)`.
    pub value: Option<Value>,
    /// Where it comes from.
    pub origin: Place,
}

impl Setting {
    /// Returns the line that would set it; a comment if it has no value.
    #[must_use]
    pub fn line(&self) -> String {
        match &self.value {
            Some(value) => format!("{} = {}", self.key, template::toml(value)),
            None => format!("#{} =", self.key),
        }
    }
}

/// Lists every key of every section, those of profiles and regions by name.
pub(super) fn list_settings(config: &Config, tree: &Tree<'_>, sources: &Sources) -> Vec<Setting> {
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
            let found = source::find(self.tree, path);
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

/// Returns a part of a dotted name, quoted if TOML requires that.
fn quoted(part: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if part.bytes().all(bare) { part.to_owned() } else { format!("\"{part}\"") }
}

/// Heading above these flags in the help of a command.
const HEADING: &str = "Configuration";

/// Sources of a command's configuration; flattened into the arguments of each command that
/// needs one.
///
/// Flags win over the environment (`POOL__SECTION__KEY`), which wins over the file, which wins
/// over the defaults.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file; without one the defaults apply.
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "POOL_CONFIG", help_heading = HEADING)]
    pub file: Option<PathBuf>,
    /// Address and port to listen on [gateway.listen].
    #[arg(long, value_name = "ADDRESS", help_heading = HEADING)]
    pub listen: Option<String>,
    /// Minimum number of browsers without a profile or region [pool.min_size].
    #[arg(long, value_name = "N", help_heading = HEADING)]
    pub min_size: Option<String>,
    /// Maximum number of browsers [pool.max_size].
    #[arg(long, value_name = "N", help_heading = HEADING)]
    pub max_size: Option<String>,
    /// Kind of lease: exclusive or shared [pool.lease].
    #[arg(long, value_name = "KIND", help_heading = HEADING)]
    pub lease: Option<String>,
    /// Build of Chromium: auto, shell or chromium [chrome.engine].
    #[arg(long, value_name = "ENGINE", help_heading = HEADING)]
    pub engine: Option<String>,
    /// Set any key, such as --set chrome.headless=false.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = assignment, help_heading = HEADING)]
    pub set: Vec<(String, String)>,
}

impl ConfigArgs {
    /// Returns a loader of the file, the environment of the process, and these flags.
    ///
    /// A command that starts a pool, or says whether one could start, also asks it to check [the
    /// machine](Loader::for_this_machine).
    pub fn loader(&self) -> Loader {
        let mut loader = Loader::new().environment();
        if let Some(file) = &self.file {
            loader = loader.file(file);
        }
        for (flag, path, value) in [
            ("--listen", "gateway.listen", &self.listen),
            ("--min-size", "pool.min_size", &self.min_size),
            ("--max-size", "pool.max_size", &self.max_size),
            ("--lease", "pool.lease", &self.lease),
            ("--engine", "chrome.engine", &self.engine),
        ] {
            if let Some(value) = value {
                loader = loader.flag(flag, path, value);
            }
        }
        for (path, value) in &self.set {
            loader = loader.flag(format!("--set {path}"), path, value);
        }
        loader
    }

    /// Loads and validates the configuration, and prints warnings to stderr.
    ///
    /// # Errors
    ///
    /// Exit code 78 with everything that is wrong.
    pub fn load(&self) -> Result<Config, Failure> {
        let Loaded { config, warnings, .. } = self.loader().load()?;
        for warning in &warnings {
            anstream::eprintln!("{warning:#}");
        }
        Ok(config)
    }
}

fn assignment(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("write it as section.key=value")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
