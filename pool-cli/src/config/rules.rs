//! The rules that concern more than a single value.

use std::fs::File;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use pool_chrome::ChromeError;
use pool_fleet::subject::{Subjects, check_node};

use super::finding::{did_you_mean, nearest};
use super::secret::io_reason;
use super::source::{self, Problem, Tree};
use super::{
    AlertKind, Config, Engine, FleetConfig, LeaseKind, PoolConfig, PrivateAddresses, ProfileConfig,
    Reset, Sandbox, Secret, TenantConfig, kind, machine,
};

/// Open files of a pool without browsers and clients.
const FILES: u64 = 32;

/// Open files for one Chromium; each client takes one more.
const FILES_OF_BROWSER: u64 = 5;

/// Open files for one lease's way out if the pool guards it: a listener, and the two ends of the
/// one connection that it needs at least.
const FILES_OF_GATE: u64 = 3;

/// Memory of a browser that has done nothing yet: of the headless shell, and of the whole Chromium.
const IDLE_SHELL: ByteSize = ByteSize::mib(130);
const IDLE_CHROMIUM: ByteSize = ByteSize::mib(235);

/// Shortest sensible launch timeout: the fastest launches take a tenth of a second, and those on a
/// busy machine ten times as long.
const SHORT_LAUNCH: Duration = Duration::from_secs(2);

/// Minimum length of the fleet's secret; shorter ones can be guessed.
const SECRET: usize = 16;

/// Checks a configuration whose values are all valid by themselves.
///
/// `refused` are the settings that were written but could not be used: their default values cannot
/// break a rule.
pub(super) fn check(
    config: &Config,
    tree: &Tree<'_>,
    refused: &[Vec<String>],
    problems: &mut Vec<Problem>,
) {
    let mut rules = Rules { config, tree, refused, problems };
    rules.gateway();
    rules.buffer();
    rules.sizes();
    rules.leases();
    rules.chrome();
    rules.egress();
    rules.profiles();
    rules.regions();
    rules.tenants();
    rules.fleet();
    rules.alerts();
}

/// Checks a configuration that breaks no rule against the machine: a pool that would fail at every
/// start must not be started.
pub(super) fn check_machine(config: &Config, tree: &Tree<'_>, problems: &mut Vec<Problem>) {
    let mut rules = Rules { config, tree, refused: &[], problems };
    if config.pool.max_size > 0 {
        rules.launch();
    }
    rules.listen();
    rules.state_dir();
    rules.open_files();
}

struct Rules<'a> {
    config: &'a Config,
    tree: &'a Tree<'a>,
    refused: &'a [Vec<String>],
    problems: &'a mut Vec<Problem>,
}

impl Rules<'_> {
    /// Returns where a value is set; `None` if it is the default.
    fn value(&self, path: &[&str]) -> Option<Range<usize>> {
        source::find(self.tree, path).map(|(_, value)| value.span())
    }

    /// Returns `true` if a value was written that could not be used.
    fn is_refused(&self, path: &[&str]) -> bool {
        self.refused.iter().any(|refused| refused == path)
    }

    /// Returns where a section or key is named.
    fn key(&self, path: &[&str]) -> Option<Range<usize>> {
        source::find(self.tree, path).map(|(key, _)| key.span())
    }

    /// Returns where an item of a list is.
    fn item(&self, path: &[&str], index: usize) -> Option<Range<usize>> {
        let (_, list) = source::find(self.tree, path)?;
        list.get_ref().as_array()?.get(index).map(toml::Spanned::span)
    }

    fn gateway(&mut self) {
        let gateway = &self.config.gateway;
        let has_token = gateway.token.is_some() || self.is_refused(&["gateway", "token"]);
        if !gateway.listen.ip().to_canonical().is_loopback() && !has_token {
            let at = self.value(&["gateway", "listen"]);
            let message = format!("listening on {} without a token", gateway.listen);
            self.problems.push(Problem::error(at, message).hint(
                "beyond loopback anybody could take a browser: add token = { env = \"POOL_TOKEN\" }",
            ));
        }
    }

    fn buffer(&mut self) {
        const LEAST: ByteSize = ByteSize::mib(16);
        let buffer = self.config.gateway.buffer;
        if buffer < LEAST {
            let at = self.value(&["gateway", "buffer"]);
            let message = format!("a `buffer` of {buffer} is too small for a large message");
            let hint = "the minimum is 16MiB, the default 256MiB";
            self.problems.push(Problem::error(at, message).hint(hint));
        }
    }

    fn sizes(&mut self) {
        let pool = &self.config.pool;
        if pool.max_size == 0 && !self.is_in_fleet() {
            let message = "a pool without browsers serves nobody: `max_size` is 0";
            let hint = "set 1 or more, or name the servers of a fleet: `nats` in [fleet]";
            let at = self.value(&["pool", "max_size"]);
            self.problems.push(Problem::error(at, message).hint(hint));
        }
        self.min_and_max(&["pool"], pool.min_size, pool.max_size);
        for (name, profile) in &self.config.profiles.named {
            // A travelling profile has no minimum at all, which is reported elsewhere.
            if !profile.travels(self.is_in_fleet()) {
                let max = profile.max(self.is_in_fleet());
                self.min_and_max(&["profiles", name], profile.min_size, max);
            }
        }
        for (name, region) in &self.config.regions {
            self.min_and_max(&["regions", name], region.min_size, region.max_size);
        }
        let classes = others_min(self.config);
        let total = pool.min_size.saturating_add(classes);
        let is_sure = !self.is_refused(&["pool", "max_size"]);
        if classes > 0 && is_sure && pool.min_size <= pool.max_size && total > pool.max_size {
            let at =
                self.value(&["pool", "max_size"]).or_else(|| self.value(&["pool", "min_size"]));
            let message = format!(
                "the minimums of the pool, its profiles and regions add up to {total}, but \
                 `max_size` is {}",
                pool.max_size
            );
            let hint = format!("set `max_size` in [pool] to {total} or more");
            self.problems.push(Problem::error(at, message).hint(hint));
        }
    }

    fn min_and_max(&mut self, section: &[&str], min: usize, max: usize) {
        let key = |name| [section, &[name]].concat();
        if min <= max || self.is_refused(&key("min_size")) || self.is_refused(&key("max_size")) {
            return;
        }
        let at = self.value(&key("min_size")).or_else(|| self.value(&key("max_size")));
        let message = format!("`min_size` is {min}, more than `max_size`, which is {max}");
        let hint = format!("raise `max_size` to {min} or more, or lower `min_size`");
        self.problems.push(Problem::error(at, message).hint(hint));
    }

    fn leases(&mut self) {
        let pool = &self.config.pool;
        if let (Some(limit), Some(idle)) = (pool.lease_timeout, pool.lease_idle_timeout)
            && idle > limit
            && let Some(at) = self.value(&["pool", "lease_idle_timeout"])
        {
            let message = format!(
                "`lease_idle_timeout` has no effect: `lease_timeout` ends every lease after {}",
                humantime::format_duration(limit)
            );
            let hint = "make it shorter than `lease_timeout`";
            self.problems.push(Problem::warning(at, message).hint(hint));
        }
        let is_shared = pool.lease == LeaseKind::Shared || pool.lease_choice;
        if is_shared
            && (1..pool.leases_per_browser).contains(&pool.max_size)
            && !self.is_refused(&["pool", "max_size"])
            && let Some(at) = self.value(&["pool", "leases_per_browser"])
        {
            let message = format!(
                "no Chromium ever has {} leases: `max_size` is {} leases in all",
                pool.leases_per_browser, pool.max_size
            );
            let hint = "raise `max_size`, which counts shared leases and not Chromiums";
            self.problems.push(Problem::warning(at, message).hint(hint));
        }
        if pool.lease_choice {
            return;
        }
        let (key, kind, other, is_changed) = match pool.lease {
            LeaseKind::Exclusive => {
                let default = PoolConfig::default().leases_per_browser;
                let is_changed = pool.leases_per_browser != default;
                ("leases_per_browser", "exclusive", "shared", is_changed)
            }
            LeaseKind::Shared => ("reset", "shared", "exclusive", pool.reset != Reset::default()),
        };
        if is_changed {
            let at = self.key(&["pool", key]);
            let message = format!("`{key}` has no effect on {kind} leases");
            let hint = format!("set lease = \"{other}\" or lease_choice = true, or leave it out");
            self.problems.push(Problem::warning(at, message).hint(hint));
        }
    }

    fn chrome(&mut self) {
        let chrome = &self.config.chrome;
        if chrome.engine.is_headless_only() && !chrome.headless {
            let at =
                self.value(&["chrome", "headless"]).or_else(|| self.value(&["chrome", "engine"]));
            let message = "engine = \"shell\" has no windows, but `headless` is false";
            let hint = "set engine = \"chromium\" or leave `headless` out";
            self.problems.push(Problem::error(at, message).hint(hint));
        }
        if let Some(path) = &chrome.executable
            && self.config.pool.max_size > 0
            && !is_executable(path)
        {
            let at = self.value(&["chrome", "executable"]);
            let message = if path.exists() {
                format!("{} cannot be executed", path.display())
            } else {
                format!("there is no {}", path.display())
            };
            let hint = "leave `executable` out to look on PATH, and see `pool-cli doctor`";
            self.problems.push(Problem::error(at, message).hint(hint));
        }
        if chrome.sandbox == Sandbox::Off
            && let Some(at) = self.value(&["chrome", "sandbox"])
        {
            let message = "without the sandbox a page that breaks out has the rights of the pool";
            let hint = "\"auto\" turns it off only where it cannot work";
            self.problems.push(Problem::warning(at, message).hint(hint));
        }
        let idle = match chrome.engine {
            Engine::Chromium => IDLE_CHROMIUM,
            Engine::Auto | Engine::Shell => IDLE_SHELL,
        };
        if let Some(max) = chrome.max_memory.filter(|max| *max < idle) {
            let at = self.value(&["chrome", "max_memory"]);
            let message = format!(
                "every browser is above {max} from its start, and is replaced after each lease"
            );
            let hint = format!("an idle one takes about {idle}; set several times that");
            self.problems.push(Problem::warning(at, message).hint(hint));
        }
        if chrome.launch_timeout < SHORT_LAUNCH {
            let at = self.value(&["chrome", "launch_timeout"]);
            let message = "on a busy machine a launch takes longer, and the browser is killed";
            let hint = "set \"5s\" or more; a browser that dies is noticed at once anyway";
            self.problems.push(Problem::warning(at, message).hint(hint));
        }
        self.directories();
    }

    /// Checks the directories: a client names a file by its absolute path only, so these must be
    /// absolute too.
    fn directories(&mut self) {
        let key = ["chrome", "directories"];
        let directories = &self.config.chrome.directories;
        for (index, path) in directories.iter().enumerate() {
            let (message, hint) = if !path.is_absolute() {
                (format!("{} is not an absolute path", path.display()), "begin it with a slash")
            } else if !path.is_dir() {
                (format!("there is no directory {}", path.display()), "make it, or leave it out")
            } else {
                continue;
            };
            self.problems.push(Problem::error(self.item(&key, index), message).hint(hint));
        }
        let pool = &self.config.pool;
        if !directories.is_empty() && pool.lease == LeaseKind::Exclusive && !pool.lease_choice {
            let message = "`directories` has no effect on exclusive leases";
            let hint = "they may name any file; set lease = \"shared\" or lease_choice = true";
            self.problems.push(Problem::warning(self.key(&key), message).hint(hint));
        }
    }

    /// Finds whatever makes every launch fail.
    fn launch(&mut self) {
        let Err(error) = self.config.driver().launch_options().check() else { return };
        let key = match &error {
            ChromeError::NoSandbox { .. } => "sandbox",
            ChromeError::NoWindow { .. } | ChromeError::NoDisplay => "headless",
            ChromeError::NoExtensions { .. } | ChromeError::ForbiddenArg { .. } => "args",
            ChromeError::NotFound { .. } => "engine",
            ChromeError::WrongEngine { by_variable: true, .. } => "engine",
            _ => "executable",
        };
        let at = self.value(&["chrome", key]);
        let hint = "check all requirements: pool-cli doctor";
        self.problems.push(Problem::error(at, error.to_string()).hint(hint));
    }

    fn listen(&mut self) {
        let listen = self.config.gateway.listen;
        let Some(error) = machine::address_obstacle(listen) else { return };
        let hint = match error.kind() {
            ErrorKind::PermissionDenied => "ports below 1024 require root: use another",
            ErrorKind::AddrNotAvailable => "this machine has no such address",
            _ => "use another",
        };
        let at = self.value(&["gateway", "listen"]);
        let message = format!("cannot listen on {listen}: {error}");
        self.problems.push(Problem::error(at, message).hint(hint));
    }

    fn state_dir(&mut self) {
        let path = &self.config.pool.state_dir;
        let Some(obstacle) = machine::directory_obstacle(path) else { return };
        let at = self.value(&["pool", "state_dir"]);
        let message = format!("`state_dir` cannot be {}: {obstacle}", path.display());
        let hint = "set it to a directory that can be written, or change its owner";
        self.problems.push(Problem::error(at, message).hint(hint));
    }

    fn open_files(&mut self) {
        let pool = &self.config.pool;
        let leases = pool.max_size;
        let browsers = match pool.lease {
            LeaseKind::Shared if !pool.lease_choice => leases.div_ceil(pool.leases_per_browser),
            LeaseKind::Shared | LeaseKind::Exclusive => leases,
        };
        let is_guarded = self.config.egress.is_some() || !self.config.regions.is_empty();
        let gates = if is_guarded { browsers as u64 + FILES_OF_GATE * leases as u64 } else { 0 };
        let needed = FILES + FILES_OF_BROWSER * browsers as u64 + leases as u64 + gates;
        let Some(limit) = machine::open_files().filter(|limit| *limit < needed) else { return };
        let at = self.value(&["pool", "max_size"]);
        let message = format!(
            "a pool with {leases} leases takes {needed} open files, but at most {limit} are allowed"
        );
        let hint = format!(
            "ulimit -n {needed} or more, LimitNOFILE={needed} in a systemd unit, or a smaller \
             `max_size`"
        );
        self.problems.push(Problem::error(at, message).hint(hint));
    }

    fn egress(&mut self) {
        let Some(egress) = &self.config.egress else { return };
        let key = ["egress", "allow"];
        let lets_all = egress.private == PrivateAddresses::Allow && egress.deny.is_empty();
        if lets_all && !egress.allow.is_empty() && !self.is_refused(&["egress", "deny"]) {
            let message = "`allow` has no effect where everything may be visited";
            let hint = "set private = \"deny\", or deny = [\"*\"] to allow nothing else";
            self.problems.push(Problem::warning(self.key(&key), message).hint(hint));
        }
    }

    fn profiles(&mut self) {
        for (name, profile) in &self.config.profiles.named {
            if let Some(region) = &profile.region {
                let at = self.value(&["profiles", name, "region"]);
                self.known_region(region, at);
            }
            self.travels(name, profile);
        }
    }

    fn travels(&mut self, name: &str, profile: &ProfileConfig) {
        let path = ["profiles", name, "min_size"];
        if profile.travels(self.is_in_fleet()) && profile.min_size > 0 {
            let message = format!(
                "profile `{name}` travels between the nodes of the fleet, so no node can keep {} \
                 of its browsers",
                profile.min_size
            );
            let hint = "leave `min_size` out, or keep the profile on one node: home = \"worker-7\"";
            self.problems.push(Problem::error(self.value(&path), message).hint(hint));
        }
        let (path, Some(home)) = (["profiles", name, "home"], &profile.home) else { return };
        let problem = match check_node(home) {
            Err(error) => Problem::error(self.value(&path), error.to_string())
                .hint("write the name of a node, such as home = \"worker-7\""),
            Ok(()) if !self.is_in_fleet() => Problem::warning(
                self.key(&path),
                "`home` has no effect: this pool is not in a fleet",
            )
            .hint("leave it out, or name the servers of a fleet: `nats` in [fleet]"),
            Ok(()) => return,
        };
        self.problems.push(problem);
    }

    fn regions(&mut self) {
        for (name, region) in &self.config.regions {
            let proxies = ["regions", name, "proxies"];
            if region.proxies.is_empty() && !self.is_refused(&proxies) {
                let at = self.value(&proxies).or_else(|| self.key(&["regions", name]));
                let message = format!("region `{name}` has no proxies");
                let hint =
                    "add proxies = [\"http://proxy.example:8080\"]: without one nothing goes out";
                self.problems.push(Problem::error(at, message).hint(hint));
            }
            for (index, proxy) in region.proxies.iter().enumerate() {
                if proxy.password.is_some() && proxy.username.is_none() {
                    let at = self.item(&["regions", name, "proxies"], index);
                    let message = "a `password` without a `username`";
                    let hint = "add username = \"…\"";
                    self.problems.push(Problem::error(at, message).hint(hint));
                }
            }
            for (index, fallback) in region.fallback.iter().enumerate() {
                let at = self.item(&["regions", name, "fallback"], index);
                if fallback == name {
                    let message = format!("region `{name}` falls back to itself");
                    let hint = "leave it out: a region's proxies are all tried first";
                    self.problems.push(Problem::error(at, message).hint(hint));
                } else {
                    self.known_region(fallback, at);
                }
            }
        }
    }

    fn tenants(&mut self) {
        let tenants = &self.config.tenants;
        if tenants.is_empty() {
            return;
        }
        if self.config.gateway.token.is_none() && !self.is_refused(&["gateway", "token"]) {
            let message = "there are tenants, but the operator has no token";
            let hint = "a request without a token would count as the operator's: add token = \
                        { env = \"POOL_TOKEN\" } to [gateway]";
            self.problems.push(Problem::error(self.key(&["tenants"]), message).hint(hint));
        }
        let mut seen: Vec<(&Secret, String)> = Vec::new();
        seen.extend(self.config.gateway.token.iter().map(|token| (token, "[gateway]".to_owned())));
        for (name, tenant) in tenants {
            self.tenant(name, tenant);
            for token in tenant.all_tokens() {
                if let Some((_, other)) = seen.iter().find(|(held, _)| *held == token) {
                    let message = format!("a token of tenant `{name}` is also that of {other}");
                    let hint = "a token identifies the sender: give each its own";
                    let path = |key| ["tenants", name.as_str(), key];
                    let at = self.value(&path("token")).or_else(|| self.value(&path("tokens")));
                    self.problems.push(Problem::error(at, message).hint(hint));
                }
                seen.push((token, format!("tenant `{name}`")));
            }
        }
    }

    fn tenant(&mut self, name: &str, tenant: &TenantConfig) {
        let path = |key| ["tenants", name, key];
        let refused = self.is_refused(&path("token")) || self.is_refused(&path("tokens"));
        if tenant.all_tokens().next().is_none() && !refused {
            let message = format!("tenant `{name}` has no token, so nobody can use it");
            let hint = "add token = { file = \"PATH\" } or { env = \"NAME\" }";
            let at = self.key(&["tenants", name]);
            self.problems.push(Problem::error(at, message).hint(hint));
        }
        let highest = tenant.priority.highest;
        if tenant.priority.default.is_some_and(|default| default < highest) {
            let message = format!(
                "the `default` priority of tenant `{name}` is above its `highest`, {highest}"
            );
            let hint = "1 is the most urgent: raise the number of `default`";
            self.problems.push(Problem::error(self.value(&path("priority")), message).hint(hint));
        }
        let max_waiting = self.config.pool.max_waiting;
        if let Some(own) = tenant.max_waiting.filter(|own| *own > max_waiting)
            && !self.is_refused(&["pool", "max_waiting"])
        {
            let message =
                format!("{own} clients never wait: `max_waiting` in [pool] is {max_waiting}");
            let hint = "raise `max_waiting` in [pool], or lower that of the tenant";
            let at = self.value(&path("max_waiting"));
            self.problems.push(Problem::warning(at, message).hint(hint));
        }
        let pool = &self.config.pool;
        let gets = |kind: &LeaseKind| *kind == pool.lease || pool.lease_choice;
        if tenant.leases.as_ref().is_some_and(|leases| !leases.iter().any(gets)) {
            let message =
                format!("tenant `{name}` may have none of the leases that this pool offers");
            let hint = "set lease_choice = true in [pool], or allow the kind in `lease` there";
            self.problems.push(Problem::error(self.value(&path("leases")), message).hint(hint));
        }
    }

    /// Returns `true` if the configuration names a NATS server, or tries to.
    fn is_in_fleet(&self) -> bool {
        let fleet = self.config.fleet.as_ref();
        fleet.is_some_and(FleetConfig::is_on)
            || self.is_refused(&["fleet", "nats"])
            || self.is_refused(&["fleet"])
    }

    fn fleet(&mut self) {
        let Some(fleet) = &self.config.fleet else { return };
        if !self.is_in_fleet() {
            return self.no_fleet();
        }
        let names = [
            ("name", Subjects::new(&fleet.name).err(), "write one such as name = \"production\""),
            ("node", check_node(&fleet.node_name()).err(), "write one such as node = \"worker-7\""),
        ];
        for (key, error, hint) in names {
            let Some(error) = error.filter(|_| !self.is_refused(&["fleet", key])) else { continue };
            let at = self.value(&["fleet", key]).or_else(|| self.key(&["fleet"]));
            self.problems.push(Problem::error(at, error.to_string()).hint(hint));
        }
        self.fleet_secret(fleet);
        if self.fleet_auth(fleet) {
            self.nats(fleet);
        }
        self.advertise(fleet);
    }

    /// Checks a section without a fleet: an empty section, or an empty list of servers, means that
    /// there is no fleet; anything else was meant for one.
    fn no_fleet(&mut self) {
        let section =
            source::find(self.tree, &["fleet"]).and_then(|(_, it)| it.get_ref().as_table());
        if section.is_none_or(|keys| keys.keys().all(|key| key.get_ref() == "nats")) {
            return;
        }
        let hint = "name them, nats = [\"nats://10.0.0.5:4222\"], or leave the section out";
        let problem = match self.value(&["fleet", "nats"]) {
            Some(at) => Problem::warning(at, "`nats` is empty, so this pool is not in a fleet"),
            None => Problem::error(self.key(&["fleet"]), "[fleet] names no NATS servers"),
        };
        self.problems.push(problem.hint(hint));
    }

    fn fleet_secret(&mut self, fleet: &FleetConfig) {
        let path = ["fleet", "secret"];
        let problem = match &fleet.secret {
            None if !self.is_refused(&path) => {
                Problem::error(self.key(&["fleet"]), "[fleet] has no `secret`")
                    .hint("add secret = { env = \"FLEET_SECRET\" }, the same at every node")
            }
            Some(secret) if secret.expose().chars().count() < SECRET => {
                let message = format!("`secret` has fewer than {SECRET} characters");
                Problem::error(self.value(&path), message).hint("make one: openssl rand -hex 32")
            }
            Some(_) | None => return,
        };
        self.problems.push(problem);
    }

    /// Checks how a node authenticates at NATS. Returns `true` if all of it is known.
    fn fleet_auth(&mut self, fleet: &FleetConfig) -> bool {
        let before = self.problems.len();
        let pair = fleet.user.is_some() || fleet.password.is_some();
        let ways = [
            ("user", pair),
            ("token", fleet.token.is_some()),
            ("nkey", fleet.nkey.is_some()),
            ("credentials", fleet.credentials.is_some()),
        ];
        let ways: Vec<_> = ways.iter().filter(|(_, is_set)| *is_set).map(|(way, _)| *way).collect();
        if let [first, .., last] = ways[..] {
            let message =
                format!("there is more than one way to authenticate: `{first}`, `{last}`");
            let at = self.key(&["fleet", last]).or_else(|| self.key(&["fleet", "password"]));
            self.problems.push(Problem::error(at, message).hint("keep one of them"));
        }
        let halves = [
            ("user", fleet.user.is_some(), "password", fleet.password.is_some()),
            (
                "client_certificate",
                fleet.client_certificate.is_some(),
                "client_key",
                fleet.client_key.is_some(),
            ),
        ];
        for (one, has_one, other, has_other) in halves {
            let (there, missing) = match (has_one, has_other) {
                (true, false) => (one, other),
                (false, true) => (other, one),
                (true, true) | (false, false) => continue,
            };
            if !self.is_refused(&["fleet", missing]) {
                let at = self.key(&["fleet", there]);
                let problem = Problem::error(at, format!("a `{there}` without a `{missing}`"));
                self.problems.push(problem.hint(format!("add `{missing}`")));
            }
        }
        let files = [
            ("credentials", &fleet.credentials),
            ("root_certificates", &fleet.root_certificates),
            ("client_certificate", &fleet.client_certificate),
            ("client_key", &fleet.client_key),
        ];
        for (key, path) in files {
            let Some(path) = path else { continue };
            let Err(error) = File::open(path) else { continue };
            let message = format!("cannot read {}: {}", path.display(), io_reason(&error));
            self.problems.push(Problem::error(self.value(&["fleet", key]), message));
        }
        let keys = [
            "user",
            "password",
            "token",
            "nkey",
            "credentials",
            "client_certificate",
            "client_key",
        ];
        self.problems.len() == before && !keys.iter().any(|key| self.is_refused(&["fleet", key]))
    }

    /// Finds what the transport would refuse at every start.
    fn nats(&mut self, fleet: &FleetConfig) {
        let path = ["fleet", "nats"];
        if self.is_refused(&path) {
            return;
        }
        match fleet.nats_options().and_then(|options| options.check()) {
            Ok(warnings) => {
                let at = self.value(&path);
                let hint = "use tls:// and credentials where others could read the traffic";
                self.problems.extend(
                    warnings
                        .into_iter()
                        .map(|warning| Problem::warning(at.clone(), warning).hint(hint)),
                );
            }
            Err(error) => self.problems.push(Problem::error(self.value(&path), error.to_string())),
        }
    }

    /// Checks the address at which the other nodes are to reach this one.
    fn advertise(&mut self, fleet: &FleetConfig) {
        let (path, listen_key) = (["fleet", "advertise"], ["gateway", "listen"]);
        let gateway = &self.config.gateway;
        if self.is_refused(&path) || self.is_refused(&listen_key) {
            return;
        }
        let at =
            self.value(&path).or_else(|| self.value(&listen_key)).or_else(|| self.key(&["fleet"]));
        let Some(address) = fleet.advertised(gateway.listen) else {
            let message = format!("the other nodes cannot reach {}", gateway.listen);
            let hint = "add advertise = \"wss://worker-7.example:3000\" to [fleet], with the address \
                        of this machine";
            self.problems.push(Problem::error(at, message).hint(hint));
            return;
        };
        if is_loopback(&address) {
            if !fleet.nats.iter().all(|server| is_loopback(server)) {
                let message = format!("nodes on other machines cannot reach {address}");
                let hint = "set `listen` in [gateway] or `advertise` in [fleet] to an address of this \
                            machine";
                self.problems.push(Problem::warning(at, message).hint(hint));
            }
            return;
        }
        if address.starts_with("ws:") {
            let message = format!("what nodes and clients send to {address} travels without TLS");
            let problem = if fleet.allow_insecure {
                Problem::warning(at.clone(), message)
            } else {
                Problem::error(at.clone(), message)
            };
            self.problems.push(problem.hint(
                "put TLS before it and set advertise = \"wss://…\"; allow_insecure = true is for a \
                 network whose traffic nobody else can read",
            ));
        }
        let is_guarded = gateway.token.is_some() || self.is_refused(&["gateway", "token"]);
        // Beyond loopback, `listen` is already refused without a token.
        if !is_guarded && gateway.listen.ip().to_canonical().is_loopback() {
            let message = format!("{address} can be reached from elsewhere, without a token");
            let hint =
                "anybody could take a browser: add token = { env = \"POOL_TOKEN\" } to [gateway]";
            self.problems.push(Problem::error(at, message).hint(hint));
        }
    }

    /// Checks the webhooks here and not by their kind, since a secret can only be checked once it
    /// is known.
    fn alerts(&mut self) {
        let alerts = &self.config.alerts;
        let wrong: Vec<_> = AlertKind::ALL
            .into_iter()
            .filter_map(|kind| {
                let complaint = kind::webhook_url(alerts.url(kind)?.expose()).err()?;
                Some((format!("{}_url", kind.code()), complaint))
            })
            .collect();
        for (key, complaint) in wrong {
            let at = self.value(&["alerts", key.as_str()]);
            let problem = Problem::error(at, format!("`{key}`: {}", complaint.message));
            self.problems.push(match complaint.hint {
                Some(hint) => problem.hint(hint),
                None => problem,
            });
        }
    }

    fn known_region(&mut self, region: &str, at: Option<Range<usize>>) {
        let regions = &self.config.regions;
        if regions.contains_key(region) {
            return;
        }
        let message = format!("there is no region `{}`", region.escape_debug());
        let hint = match nearest(region, regions.keys().map(String::as_str)) {
            Some(near) => did_you_mean(near),
            None => format!("add a section [regions.{}]", region.escape_debug()),
        };
        self.problems.push(Problem::error(at, message).hint(hint));
    }
}

/// Returns the sum of the minimums of profiles and regions.
pub(super) fn others_min(config: &Config) -> usize {
    let profiles = config.profiles.named.values().map(|profile| profile.min_size);
    let regions = config.regions.values().map(|region| region.min_size);
    profiles.chain(regions).fold(0, usize::saturating_add)
}

/// Returns `true` if an address, with or without a scheme, belongs to this machine only.
fn is_loopback(address: &str) -> bool {
    let authority = address.split_once("://").map_or(address, |(_, authority)| authority);
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    let host = host.unwrap_or_default();
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Returns `true` if it can be run; a bare name is looked up on `PATH` at the launch.
fn is_executable(path: &Path) -> bool {
    let is_bare = path.components().count() == 1 && !path.is_absolute();
    is_bare
        || path
            .metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
