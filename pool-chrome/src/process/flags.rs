use std::path::Path;

use super::{Engine, LaunchOptions};
use crate::ChromeError;

/// Given to both engines.
///
/// Without `--no-startup-window` the whole browser opens its new tab page; without the three about
/// backgrounding, the pages of a lease that is not in front are slowed down. Crashpad's handlers
/// leave the process group and write below `HOME`, but `--disable-crashpad-for-testing`, which
/// keeps them from being started, makes the renderers of `chromium` die of an "FD ownership
/// violation" at their first navigation: they are let be, and found by their command line.
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
    // Without these three the whole browser asks Google for accounts, a list of models and the
    // time at every start, `--disable-background-networking` or not: on the operator's bill where
    // there is a proxy. The third stands among the features.
    "--gaia-url=http://127.0.0.1:9/",
    "--component-updater=url-source=about:blank",
];

/// Without a window there is no pointer: pages are told that there is a mouse, as with one.
const HEADLESS: &[&str] = &[
    "--headless",
    "--hide-scrollbars",
    "--mute-audio",
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
];

/// The first two cost two hidden targets and 22 MiB per window; the third and the spare renderer
/// cost launch time. The one about prefetching: to a page that the control session is attached to
/// Chromium prerenders nothing, but prefetches it instead, and Puppeteer waits for ever for a
/// navigation that such an answer serves. The others are what Playwright and Puppeteer turn off for
/// their clients.
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

/// Names an operator may not give, and what to do instead.
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
    ("type", "it would make Chromium something else than a browser"),
];

/// Checks the operator's extra arguments.
pub(super) fn check(args: &[String]) -> Result<(), ChromeError> {
    for arg in args {
        let refuse = |instead| {
            let arg = arg.split('=').next().unwrap_or(arg).to_owned();
            Err(ChromeError::ForbiddenArg { arg, instead })
        };
        let name = match switch(arg) {
            Some(("", _)) => return refuse("switches may not be ended"),
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

/// Returns `true` if the operator's arguments choose where windows are drawn, which need not be a display.
pub(super) fn chooses_platform(args: &[String]) -> bool {
    has(args, |name| matches!(name, "ozone-platform" | "ozone-platform-hint"))
}

fn has(args: &[String], wanted: impl Fn(&str) -> bool) -> bool {
    args.iter().filter_map(|arg| switch(arg)).any(|(name, _)| wanted(name))
}

/// Facts that decide about flags and are not in the options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) engine: Engine,
    pub(super) user_data_dir: &'a Path,
    pub(super) sandboxed: bool,
    /// Whether /dev/shm is too small for Chromium, as it is in a container by default.
    pub(super) small_shm: bool,
}

/// The whole command line after the executable.
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
        // Chromium never sends loopback to a proxy unless it is told to.
        flags.push("--proxy-bypass-list=<-loopback>".to_owned());
        // The shell knows only the first of them, the whole browser only the second.
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

/// The switch by which nothing is resolved but the host of the proxy, addresses included: what
/// would go round the proxy, such as a name that a page wants resolved ahead, goes nowhere.
fn only_resolving(proxy: &str) -> Option<String> {
    let host = url::Url::parse(proxy).ok()?.host_str()?.to_owned();
    Some(format!("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE {host}"))
}

/// The name and the value of a switch. Chromium takes one dash for two.
fn switch(arg: &str) -> Option<(&str, &str)> {
    let rest = arg.trim().strip_prefix('-')?;
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    Some(rest.split_once('=').unwrap_or((rest, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let error = check(&[arg.to_owned()]).unwrap_err();
            assert!(matches!(error, ChromeError::ForbiddenArg { .. }), "{arg}: {error}");
        }
        let error = check(&["--no-sandbox".to_owned()]).unwrap_err().to_string();
        assert_eq!(
            error,
            "the argument --no-sandbox is not allowed: set `sandbox = \"off\"` instead"
        );
    }

    #[test]
    fn a_refused_argument_does_not_print_its_value() {
        let error = check(&["--proxy-server=http://u:secret@x".to_owned()]).unwrap_err();
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
