use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::Deserializer;

use super::finding::{Finding, Findings, Severity};
use super::overrides::{self, Override};
use super::secrets::{Secrets, io_reason};
use super::settings::{self, Setting};
use super::source::{Origin, Problem, Sources};
use super::tree::{self, Tree};
use super::{Config, conform, rules};

/// Reads a configuration from a file, environment variables and flags, each stronger than the one
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

/// A configuration that can be used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The effective values.
    pub config: Config,
    /// Settings that are probably not as meant.
    pub warnings: Vec<Finding>,
    /// Every value with where it comes from, in the order of the reference.
    pub settings: Vec<Setting>,
}

impl fmt::Debug for Loader {
    /// Without any value: secrets are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.file.as_ref().map(|file| match file {
            File::OnDisk(path) | File::InMemory(path, _) => path,
        });
        f.debug_struct("Loader").field("file", &path).finish_non_exhaustive()
    }
}

impl Loader {
    /// A loader that knows of no file, no variables and no flags: it gives the defaults.
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

    /// Adds the variables of the process.
    ///
    /// They are all kept, since secrets may name any of them.
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

    /// Checks as well whether a pool with this configuration can start on this machine, now and
    /// ever: the Chromium that it names, its sandbox, the address, the directory, the limits.
    pub fn for_this_machine(mut self) -> Self {
        self.is_for_here = true;
        self
    }

    /// Reads and validates it all.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, with warnings among it.
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
        let mut tree = if has_file { tree::parse(sources.get(0), problems) } else { Tree::new() };
        if !problems.is_empty() {
            // What could be made of the rest of the file is a guess: no complaints about guesses.
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
        let settings = settings::list(&config, &tree, sources);
        Some((config, settings))
    }
}

/// Makes room in a small pool: a default must not contradict what was written.
fn settle(config: &mut Config, tree: &Tree<'_>) {
    if tree::find(tree, &["pool", "min_size"]).is_none() {
        let room = config.pool.max_size.saturating_sub(rules::others_min(config));
        config.pool.min_size = config.pool.min_size.min(room);
    }
    if tree::find(tree, &["warming", "min_idle"]).is_none() {
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
