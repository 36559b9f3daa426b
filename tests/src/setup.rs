use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use toml::{Table, Value};

use crate::{FarMachine, LeaseKind};

/// How a service is configured and started.
///
/// The defaults: the shell, two browsers, leases of the exclusive kind, a free port.
#[derive(Clone, Debug)]
#[must_use]
pub struct Setup {
    table: Table,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) wrapper: Vec<OsString>,
    pub(crate) token: Option<String>,
    /// The addresses of both ends of the cable to its machine, if it is on another one.
    pub(crate) cable: Option<[String; 2]>,
}

/// Which build of Chromium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// `chromium-headless-shell`.
    Shell,
    /// `chromium`.
    Chromium,
}

impl Engine {
    /// The executable, if it is installed: the program itself rather than Debian's script before
    /// it, which stays as one process more.
    #[must_use]
    pub fn executable(self) -> Option<PathBuf> {
        let names: &[&str] = match self {
            Self::Shell => &["chromium-headless-shell", "chrome-headless-shell"],
            Self::Chromium => {
                &["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"]
            }
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = vec![PathBuf::from("/usr/lib/chromium")];
        places.extend(std::env::split_paths(&path));
        let mut candidates =
            names.iter().flat_map(|name| places.iter().map(move |at| at.join(name)));
        candidates.find(|candidate| candidate.is_file())
    }

    /// Either build, the shell first.
    ///
    /// # Panics
    ///
    /// If none is installed.
    #[must_use]
    pub fn any_executable() -> PathBuf {
        let found = Self::Shell.executable().or_else(|| Self::Chromium.executable());
        found.expect("Chromium is installed: scripts/install-chromium")
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shell => "shell",
            Self::Chromium => "chromium",
        })
    }
}

impl Default for Setup {
    fn default() -> Self {
        let setup = Self {
            table: Table::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            token: None,
            cable: None,
        };
        setup
            .set("gateway.listen", "127.0.0.1:0")
            .set("pool.min_size", 2)
            .set("pool.max_size", 2)
            .set("pool.max_use_count", 10_000)
            // It adds browsers after long waits, and the oracle compares what is there at rest.
            .set("sizing.enabled", false)
            .set("log.format", "json")
    }
}

impl Setup {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leases of this kind. Shared ones are placed two to a Chromium, so that a fault of one
    /// Chromium meets some leases and not others.
    pub fn kind(self, kind: LeaseKind) -> Self {
        let setup = self.set("pool.lease", kind.word());
        match kind {
            LeaseKind::Exclusive => setup,
            LeaseKind::Shared => setup.set("pool.leases_per_browser", 2).size(4),
        }
    }

    /// Exactly this many browsers.
    pub fn size(self, size: i64) -> Self {
        self.set("pool.min_size", size).set("pool.max_size", size)
    }

    /// A gateway of a fleet, without browsers or a Chromium to launch.
    pub fn without_browsers(self) -> Self {
        self.size(0).set("chrome.executable", "/nonexistent/chromium")
    }

    /// This build of Chromium.
    pub fn engine(self, engine: Engine) -> Self {
        self.set("chrome.engine", engine.to_string())
    }

    /// The fake Chromium, failing in these ways.
    pub fn fake_chromium(self, modes: &[&str]) -> Self {
        let modes: Vec<String> = modes.iter().map(|mode| format!("--fake-mode={mode}")).collect();
        let executable = crate::fake_chromium().to_string_lossy().into_owned();
        self.set("chrome.executable", executable).set("chrome.args", modes)
    }

    /// Sets a key by its path, such as `pool.max_size` or `regions.eu.proxies`.
    ///
    /// # Panics
    ///
    /// If a part of the path is no table.
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = &mut self.table;
        for part in tables.split('.').filter(|part| !part.is_empty()) {
            let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().expect("a part of a path is a table");
        }
        table.insert(key.to_owned(), value.into());
        self
    }

    /// Adds a variable to the environment of the service.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets its clock off by so much, such as `+1d`, but not the one by which time that passes is measured.
    ///
    /// # Panics
    ///
    /// If faketime is not installed.
    pub fn clock_off(self, by: &str) -> Self {
        let library =
            libfaketime().expect("faketime is installed: scripts/install-package faketime");
        self.env("LD_PRELOAD", &library.to_string_lossy())
            .env("FAKETIME", by)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
    }

    /// Sets its clock right for the next start.
    pub fn clock_right(mut self) -> Self {
        self.environment.retain(|(name, _)| name != "LD_PRELOAD");
        self
    }

    /// The token that the harness itself shows to the gateway; it is configured by itself.
    pub fn tokened(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Starts the service by another program that takes a command line and becomes it, such as
    /// `prlimit`.
    pub fn wrapper(mut self, command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.wrapper = command.into_iter().map(Into::into).collect();
        self
    }

    /// A node of a fleet on this machine, which others reach without a cable of ours between.
    pub fn on(mut self, machine: &FarMachine) -> Self {
        self.cable = Some([machine.near.clone(), machine.far.clone()]);
        self.wrapper(machine.starter()).set("fleet.allow_insecure", true)
    }

    /// How many anonymous browsers there are at rest.
    #[must_use]
    pub fn min_size(&self) -> usize {
        let min = self.table.get("pool").and_then(|pool| pool.get("min_size"));
        min.and_then(Value::as_integer).and_then(|min| usize::try_from(min).ok()).unwrap_or(0)
    }

    /// The configuration file.
    #[must_use]
    pub fn toml(&self) -> String {
        self.table.to_string()
    }
}

/// The library of faketime, where Debian has it for this architecture.
fn libfaketime() -> Option<PathBuf> {
    let mut architectures = std::fs::read_dir("/usr/lib").ok()?.flatten();
    architectures.find_map(|architecture| {
        let library = architecture.path().join("faketime/libfaketimeMT.so.1");
        library.is_file().then_some(library)
    })
}
