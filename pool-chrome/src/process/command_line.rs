//! The command that launches a Chromium: the program, its sandbox and its flags.

use std::fs;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Once, OnceLock};

use super::{Engine, LaunchOptions, Sandbox};
use crate::ChromeError;

/// Finds the executable to launch, and determines its engine.
///
/// It tries, in order, `explicit`, the environment variable `CHROME`, and the usual names on
/// `PATH`. The first two determine the engine by their name, unless `engine` does. If the name
/// leads to one of Debian's wrapper scripts, the program itself is returned: the wrappers cost a
/// quarter of a second, the shell's stays in front of the browser as a process of its own, and the
/// other reads flags from `/etc/chromium.d` that could open a port.
///
/// `shell_suffices` says whether [`Engine::Auto`] may use the shell, which has neither windows nor
/// extensions.
///
/// # Errors
///
/// [`ChromeError::BadExecutable`] if the named executable cannot be run,
/// [`ChromeError::WrongEngine`] if its name is that of the other engine, and
/// [`ChromeError::NotFound`] if none was named and none is on `PATH`.
pub fn find_executable(
    engine: Engine,
    explicit: Option<&Path>,
    shell_suffices: bool,
) -> Result<(PathBuf, Engine), ChromeError> {
    let variable = || std::env::var_os("CHROME").filter(|value| !value.is_empty());
    let named = match explicit {
        Some(path) => Some((path.to_owned(), false)),
        None => variable().map(|path| (PathBuf::from(path), true)),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    match named {
        Some((path, by_variable)) => named_executable(engine, path, by_variable, &directories),
        None => usual_executable(engine, shell_suffices, &directories),
    }
}

/// Returns the executable that the configuration or, with `by_variable`, `CHROME` names.
fn named_executable(
    engine: Engine,
    path: PathBuf,
    by_variable: bool,
    directories: &[PathBuf],
) -> Result<(PathBuf, Engine), ChromeError> {
    let found = match path.components().count() {
        1 => directories.iter().map(|dir| dir.join(&path)).find(|path| runnable(path).is_ok()),
        _ => None,
    };
    let found = found.unwrap_or_else(|| path.clone());
    if let Err(source) = runnable(&found) {
        return Err(ChromeError::BadExecutable { path, by_variable, source });
    }
    let is = Engine::of(&found);
    let engine = match engine {
        Engine::Auto => is,
        wanted if is != wanted && is.is_name(&found) => {
            return Err(ChromeError::WrongEngine { executable: path, by_variable, wanted, is });
        }
        // A name of the user's own proves nothing.
        wanted => wanted,
    };
    Ok((behind_wrapper(found), engine))
}

/// Returns the first of the usual names on `PATH`.
fn usual_executable(
    engine: Engine,
    shell_suffices: bool,
    directories: &[PathBuf],
) -> Result<(PathBuf, Engine), ChromeError> {
    let candidates: &[Engine] = match engine {
        Engine::Auto if shell_suffices => &[Engine::Shell, Engine::Chromium],
        Engine::Auto | Engine::Chromium => &[Engine::Chromium],
        Engine::Shell => &[Engine::Shell],
    };
    let mut tried = vec!["CHROME".to_owned()];
    for &candidate in candidates {
        for name in candidate.names() {
            for directory in directories {
                let path = directory.join(name);
                if runnable(&path).is_ok() {
                    return Ok((behind_wrapper(path), candidate));
                }
            }
            tried.push(format!("{name} on PATH"));
        }
    }
    Err(ChromeError::NotFound { engine, tried })
}

fn runnable(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    Ok(())
}

/// Returns the program behind Debian's wrapper `<prefix>/bin/<name>`:
/// `<prefix>/lib/chromium/<name>`. Other wrappers are used as they are; those of Google and Ubuntu
/// end in an `exec`.
fn behind_wrapper(path: PathBuf) -> PathBuf {
    let is_script = |path: &Path| {
        let mut magic = [0; 2];
        File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"#!"
    };
    let program = path
        .file_name()
        .and_then(|name| Some(path.parent()?.parent()?.join("lib/chromium").join(name)));
    match program {
        Some(program) if is_script(&path) && runnable(&program).is_ok() && !is_script(&program) => {
            program
        }
        _ => path,
    }
}

static WARNED: Once = Once::new();

/// The decision about the sandbox of an executable.
#[derive(Debug)]
pub(super) enum SandboxDecision {
    Sandboxed,
    /// It was switched off by configuration.
    Off,
    /// It cannot work here, for this reason.
    Missing(String),
}

impl SandboxDecision {
    pub(super) fn is_sandboxed(&self) -> bool {
        matches!(self, Self::Sandboxed)
    }

    /// Logs once that browsers run without a sandbox, and why.
    pub(super) fn report(&self) {
        if let Self::Missing(reason) = self {
            WARNED.call_once(|| {
                tracing::warn!(%reason, "Chromium runs without its sandbox; load only pages that you trust");
            });
        }
    }
}

/// Decides whether to launch this executable with its sandbox.
pub(super) fn decide_sandbox(
    wanted: Sandbox,
    executable: &Path,
) -> Result<SandboxDecision, ChromeError> {
    if wanted == Sandbox::Off {
        return Ok(SandboxDecision::Off);
    }
    match obstacle(executable) {
        None => Ok(SandboxDecision::Sandboxed),
        Some(reason) if wanted == Sandbox::On => Err(ChromeError::NoSandbox { reason }),
        Some(reason) => Ok(SandboxDecision::Missing(reason)),
    }
}

/// Returns the reason why no sandbox can work here, if there is one.
fn obstacle(executable: &Path) -> Option<String> {
    if rustix::process::geteuid().is_root() {
        return Some("Chromium refuses to sandbox when it is run by root".to_owned());
    }
    if has_setuid_helper(executable) {
        return None;
    }
    static NAMESPACES: OnceLock<Option<String>> = OnceLock::new();
    let obstacle = NAMESPACES.get_or_init(namespace_obstacle).clone();
    // With its own AppArmor profile, a program may do what AppArmor forbids others.
    obstacle.filter(|_| !has_apparmor_profile(executable))
}

fn has_setuid_helper(executable: &Path) -> bool {
    let helper = executable.with_file_name("chrome-sandbox");
    fs::metadata(helper).is_ok_and(|metadata| metadata.uid() == 0 && metadata.mode() & 0o4000 != 0)
}

fn namespace_obstacle() -> Option<String> {
    let setting = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    for (path, bad) in [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ] {
        if setting(path).as_deref() == Some(bad) {
            return Some(format!("user namespaces are forbidden ({path} is {bad})"));
        }
    }
    // No file shows the seccomp filter of a container, so try it.
    let tried = Command::new("unshare")
        .args(["--user", "--map-root-user", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match tried {
        Ok(status) if !status.success() => {
            Some("user namespaces cannot be made here (is this a container?)".to_owned())
        }
        // Without the tool nothing is known, so let Chromium try.
        _ => None,
    }
}

fn has_apparmor_profile(executable: &Path) -> bool {
    let Some(path) = executable.to_str() else { return false };
    fs::read_dir("/etc/apparmor.d").into_iter().flatten().flatten().any(|entry| {
        fs::read_to_string(entry.path()).is_ok_and(|profile| {
            profile.lines().any(|line| line.starts_with("profile") && line.contains(path))
        })
    })
}

/// Flags for both engines.
///
/// Without `--no-startup-window`, the whole browser opens its new tab page; without the three flags
/// about backgrounding, the pages of leases that are not in front are slowed down. Crashpad's
/// handlers leave the process group and write below `HOME`, but `--disable-crashpad-for-testing`,
/// which keeps them from being started, makes the renderers of `chromium` die of an "FD ownership
/// violation" at their first navigation: so they are left alone, and found by their command line.
const COMMON: &[&str] = &[
    "--remote-debugging-pipe",
    "--no-startup-window",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-service-autorun",
    "--noerrdialogs",
    "--enable-automation",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-background-timer-throttling",
    "--disable-background-networking",
    "--disable-back-forward-cache",
    "--disable-client-side-phishing-detection",
    "--disable-component-extensions-with-background-pages",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-field-trial-config",
    "--disable-hang-monitor",
    "--disable-ipc-flooding-protection",
    "--disable-popup-blocking",
    "--disable-prompt-on-repost",
    "--disable-quic",
    "--disable-search-engine-choice-screen",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--allow-pre-commit-input",
    "--export-tagged-pdf",
    "--force-color-profile=srgb",
    "--hide-crash-restore-bubble",
    "--metrics-recording-only",
    "--password-store=basic",
    // Without these three, the whole browser asks Google for accounts, a list of models and the
    // time at every start, even with `--disable-background-networking`: at the operator's expense
    // if there is a proxy. The third is among the features.
    "--gaia-url=http://127.0.0.1:9/",
    "--component-updater=url-source=about:blank",
];

/// Without a window there is no pointer: these tell pages that there is a mouse, as with a window.
const HEADLESS: &[&str] = &[
    "--headless",
    "--hide-scrollbars",
    "--mute-audio",
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
];

/// The first two cost two hidden targets and 22 MiB per window; the third and the spare renderer
/// cost launch time. As for prefetching: for a page that the control session is attached to,
/// Chromium prefetches instead of prerendering, and Puppeteer waits for ever for a navigation that
/// is served from a prefetch. Playwright and Puppeteer turn the others off for their clients.
const DISABLED_FEATURES: &[&str] = &[
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
    "WebUIReloadButton",
    "SpareRendererForSitePerProcess",
    "Prerender2FallbackPrefetchSpecRules",
    "Translate",
    "OptimizationHints",
    "MediaRouter",
    "NetworkTimeServiceQuerying",
    "DialMediaRouteProvider",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "GlobalMediaControls",
    "HttpsUpgrades",
    "LensOverlay",
    "PaintHolding",
];

const PIPE_ONLY: &str = "the pool talks to Chromium over a pipe of its own and never opens a port";
const PROXY: &str = "set the proxies of a region (`[regions.NAME] proxies`) instead";

/// Names that an operator may not give, and what to do instead.
const FORBIDDEN: &[(&str, &str)] = &[
    ("remote-debugging-port", PIPE_ONLY),
    ("remote-debugging-address", PIPE_ONLY),
    ("remote-debugging-pipe", PIPE_ONLY),
    ("remote-debugging-io-pipes", PIPE_ONLY),
    ("remote-debugging-socket-name", PIPE_ONLY),
    ("user-data-dir", "use a profile (`[profiles.NAME]`) instead"),
    ("proxy-server", PROXY),
    ("proxy-pac-url", PROXY),
    ("proxy-auto-detect", PROXY),
    ("proxy-bypass-list", PROXY),
    ("no-proxy-server", PROXY),
    ("force-webrtc-ip-handling-policy", "WebRTC is confined wherever a region has proxies"),
    ("webrtc-ip-handling-policy", "WebRTC is confined wherever a region has proxies"),
    ("headless", "set `headless` instead"),
    ("no-sandbox", "set `sandbox = \"off\"` instead"),
    ("no-startup-window", "the pool sets it"),
    ("type", "it would make Chromium something other than a browser"),
];

/// Checks the operator's extra arguments.
pub(super) fn check_args(args: &[String]) -> Result<(), ChromeError> {
    for arg in args {
        let refuse = |instead| {
            let arg = arg.split('=').next().unwrap_or(arg).to_owned();
            Err(ChromeError::ForbiddenArg { arg, instead })
        };
        let name = match switch(arg) {
            Some(("", _)) => return refuse("it would end the switches"),
            Some((name, _)) => name,
            None => return refuse("only switches that begin with -- can be given, not URLs"),
        };
        if arg.contains('\0') {
            return refuse("it holds a NUL byte");
        }
        if let Some((_, instead)) = FORBIDDEN.iter().find(|(forbidden, _)| *forbidden == name) {
            return refuse(instead);
        }
    }
    Ok(())
}

/// Returns `true` if the operator's arguments load extensions.
pub(super) fn loads_extensions(args: &[String]) -> bool {
    has(args, |name| matches!(name, "load-extension" | "disable-extensions-except"))
}

/// Returns `true` if the operator's arguments choose where windows are drawn, which need not be a
/// display.
pub(super) fn chooses_platform(args: &[String]) -> bool {
    has(args, |name| matches!(name, "ozone-platform" | "ozone-platform-hint"))
}

fn has(args: &[String], wanted: impl Fn(&str) -> bool) -> bool {
    args.iter().filter_map(|arg| switch(arg)).any(|(name, _)| wanted(name))
}

/// Facts that affect the flags and are not in the options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) engine: Engine,
    pub(super) user_data_dir: &'a Path,
    pub(super) sandboxed: bool,
    /// /dev/shm is too small for Chromium, as it is in a container by default.
    pub(super) small_shm: bool,
}

/// Returns the whole command line after the executable.
pub(super) fn command_line(
    options: &LaunchOptions,
    around: Surroundings<'_>,
) -> Vec<std::ffi::OsString> {
    let mut flags: Vec<String> = COMMON.iter().map(|&flag| flag.to_owned()).collect();
    if options.headless || around.engine.is_headless_only() {
        flags.extend(HEADLESS.iter().map(|&flag| flag.to_owned()));
    }
    if !around.sandboxed {
        flags.push("--no-sandbox".to_owned());
    }
    if around.small_shm {
        flags.push("--disable-dev-shm-usage".to_owned());
    }
    if !loads_extensions(&options.args) {
        flags.push("--disable-extensions".to_owned());
    }
    if let Some(proxy) = &options.proxy_server {
        flags.push(format!("--proxy-server={proxy}"));
        // By default, Chromium never sends loopback to a proxy.
        flags.push("--proxy-bypass-list=<-loopback>".to_owned());
        // The shell knows only the first of these, the whole browser only the second.
        flags.push("--force-webrtc-ip-handling-policy=disable_non_proxied_udp".to_owned());
        flags.push("--webrtc-ip-handling-policy=disable_non_proxied_udp".to_owned());
    }
    let names = || options.args.iter().filter_map(|arg| switch(arg));
    let disabled = names().filter(|(name, _)| *name == "disable-features").map(|(_, value)| value);
    let disabled: Vec<&str> = DISABLED_FEATURES.iter().copied().chain(disabled).collect();
    flags.push(format!("--disable-features={}", disabled.join(",")));
    let enabled: Vec<&str> =
        names().filter(|(name, _)| *name == "enable-features").map(|(_, value)| value).collect();
    if !enabled.is_empty() {
        flags.push(format!("--enable-features={}", enabled.join(",")));
    }
    let merged = ["disable-features", "enable-features"];
    let extra = options
        .args
        .iter()
        .filter(|arg| switch(arg).is_none_or(|(name, _)| !merged.contains(&name)));
    flags.extend(extra.cloned());
    if let Some(proxy) = &options.proxy_server
        && let (false, Some(rule)) = (options.resolves_names, only_resolving(proxy))
    {
        // Last, so that it is the one that counts.
        flags.push(rule);
    }

    let mut command_line: Vec<std::ffi::OsString> = flags.into_iter().map(Into::into).collect();
    let mut user_data = std::ffi::OsString::from("--user-data-dir=");
    user_data.push(around.user_data_dir);
    command_line.push(user_data);
    command_line
}

/// Returns the switch with which only the host of the proxy is resolved, addresses included:
/// anything that would bypass the proxy, such as a name that a page wants resolved ahead, goes
/// nowhere.
fn only_resolving(proxy: &str) -> Option<String> {
    let host = url::Url::parse(proxy).ok()?.host_str()?.to_owned();
    Some(format!("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE {host}"))
}

/// Returns the name and the value of a switch. Chromium treats one dash like two.
fn switch(arg: &str) -> Option<(&str, &str)> {
    let rest = arg.trim().strip_prefix('-')?;
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    Some(rest.split_once('=').unwrap_or((rest, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executable(directory: &Path, name: &str, content: &str) -> PathBuf {
        std::fs::create_dir_all(directory).unwrap();
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn auto_prefers_the_shell_when_headless_and_the_browser_when_not() {
        let root = tempfile::tempdir().unwrap();
        let shell = executable(root.path(), "chromium-headless-shell", "");
        let browser = executable(root.path(), "chromium", "");
        let path = [root.path().to_owned()];
        assert_eq!(usual_executable(Engine::Auto, true, &path).unwrap(), (shell, Engine::Shell));
        let found = usual_executable(Engine::Auto, false, &path).unwrap();
        assert_eq!(found, (browser, Engine::Chromium));
    }

    #[test]
    fn auto_falls_back_to_the_browser_where_no_shell_is_installed() {
        let root = tempfile::tempdir().unwrap();
        let browser = executable(root.path(), "google-chrome", "");
        let path = [root.path().to_owned()];
        let found = usual_executable(Engine::Auto, true, &path).unwrap();
        assert_eq!(found, (browser, Engine::Chromium));
    }

    #[test]
    fn a_name_without_a_path_is_looked_up_on_path() {
        let root = tempfile::tempdir().unwrap();
        let own = executable(root.path(), "my-headless-shell", "");
        let path = [root.path().to_owned()];
        let name = PathBuf::from("my-headless-shell");
        let found = named_executable(Engine::Auto, name.clone(), false, &path).unwrap();
        assert_eq!(found, (own.clone(), Engine::Shell));
        // A name of the user's own contradicts nothing.
        let found = named_executable(Engine::Chromium, name, false, &path).unwrap();
        assert_eq!(found, (own, Engine::Chromium));
    }

    #[test]
    fn the_error_says_what_was_tried_and_how_to_install() {
        let error = usual_executable(Engine::Shell, true, &[]).unwrap_err().to_string();
        assert!(error.contains("chromium-headless-shell on PATH"), "{error}");
        assert!(error.contains("apt install chromium-headless-shell"), "{error}");
    }

    #[test]
    fn a_named_executable_that_cannot_run_is_an_error_and_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        executable(root.path(), "chromium", "");
        let wrong = root.path().join("absent");
        let path = [root.path().to_owned()];
        let error = named_executable(Engine::Auto, wrong, true, &path).unwrap_err();
        assert!(matches!(error, ChromeError::BadExecutable { .. }), "{error}");
        assert!(error.to_string().contains("CHROME"), "not by what it was named: {error}");
    }

    #[test]
    fn an_executable_of_the_other_engine_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        for (name, wanted) in
            [("chromium-headless-shell", Engine::Chromium), ("google-chrome", Engine::Shell)]
        {
            let path = executable(root.path(), name, "");
            let error = named_executable(wanted, path, false, &[]).unwrap_err();
            assert!(matches!(error, ChromeError::WrongEngine { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_distribution_wrapper_is_replaced_by_the_program_behind_it() {
        let root = tempfile::tempdir().unwrap();
        let wrapper = executable(&root.path().join("bin"), "chromium", "#!/bin/sh\nexec true\n");
        let program = executable(&root.path().join("lib/chromium"), "chromium", "\x7fELF");
        let found = named_executable(Engine::Auto, wrapper, false, &[]).unwrap();
        assert_eq!(found, (program, Engine::Chromium));
    }

    #[test]
    fn off_is_off_and_root_is_told_why_on_cannot_be() {
        let executable = Path::new("/usr/lib/chromium/chromium");
        assert!(matches!(decide_sandbox(Sandbox::Off, executable), Ok(SandboxDecision::Off)));
        if rustix::process::geteuid().is_root() {
            assert!(matches!(
                decide_sandbox(Sandbox::Auto, executable),
                Ok(SandboxDecision::Missing(_))
            ));
            let error = decide_sandbox(Sandbox::On, executable).unwrap_err();
            assert!(error.to_string().contains("root"), "{error}");
        }
    }

    fn built(options: &LaunchOptions) -> Vec<String> {
        let around = Surroundings {
            engine: Engine::Chromium,
            user_data_dir: Path::new("/state/run/1/d"),
            sandboxed: false,
            small_shm: false,
        };
        command_line(options, around).into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    #[test]
    fn arguments_that_break_a_guarantee_are_refused_with_the_setting_to_use() {
        for arg in [
            "--remote-debugging-port=9222",
            "-remote-debugging-port=9222",
            " --remote-debugging-port=0",
            "--user-data-dir=/x",
            "--proxy-server=http://x",
            "--no-proxy-server",
            "--no-sandbox",
            "--",
            "-",
            "http://example.com/",
            "",
        ] {
            let error = check_args(&[arg.to_owned()]).unwrap_err();
            assert!(matches!(error, ChromeError::ForbiddenArg { .. }), "{arg}: {error}");
        }
        let error = check_args(&["--no-sandbox".to_owned()]).unwrap_err().to_string();
        assert_eq!(
            error,
            "the argument --no-sandbox is not allowed: set `sandbox = \"off\"` instead"
        );
    }

    #[test]
    fn a_refused_argument_does_not_print_its_value() {
        let error = check_args(&["--proxy-server=http://u:secret@x".to_owned()]).unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn features_of_the_operator_are_merged_into_one_switch() {
        let options = LaunchOptions::new().args(["--disable-features=Mine", "--lang=de"]);
        let flags = built(&options);
        let lists: Vec<&String> =
            flags.iter().filter(|flag| flag.starts_with("--disable-features")).collect();
        assert_eq!(lists.len(), 1);
        assert!(lists[0].contains("WebUIOmniboxPopup") && lists[0].ends_with(",Mine"));
        assert!(flags.contains(&"--lang=de".to_owned()));
    }

    #[test]
    fn a_proxied_browser_bypasses_nothing() {
        let flags = built(&LaunchOptions::new().proxy_server("http://127.0.0.1:1"));
        assert!(flags.contains(&"--proxy-bypass-list=<-loopback>".to_owned()));
        let rules = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1".to_owned();
        assert!(flags.contains(&rules));
        let mut resolving = LaunchOptions::new().proxy_server("http://127.0.0.1:1");
        resolving.resolves_names = true;
        assert!(!built(&resolving).iter().any(|flag| flag.contains("host-resolver-rules")));
        assert!(!built(&LaunchOptions::new()).iter().any(|flag| flag.contains("proxy")));
    }

    #[test]
    fn extensions_are_on_only_for_an_operator_who_loads_one() {
        assert!(built(&LaunchOptions::new()).contains(&"--disable-extensions".to_owned()));
        let loading = LaunchOptions::new().args(["--load-extension=/x"]);
        assert!(!built(&loading).contains(&"--disable-extensions".to_owned()));
    }
}
