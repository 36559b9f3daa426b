//! One table of what happens to each command of a client.
//!
//! Browser sessions are a client's root and those that it gets from `Target.attachToBrowserTarget`;
//! page-like sessions are all others. A shared lease gets the commands that the table names, and on
//! page-like sessions every domain in [`PAGE_DOMAINS`] too, but nothing else. An exclusive lease
//! gets everything except what would end its Chromium, open a port, or reveal the multiplexer's own
//! session.

use super::lease_options::LeaseKind;

/// Rule for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Goes to Chromium as it is.
    Pass,
    /// Goes to Chromium as it is; afterwards this Chromium is not used for another lease.
    Taint,
    /// Goes to Chromium as it is; the screens are restored at the end of the lease.
    Screens,
    /// Is refused with "is not available in …".
    Refuse,
    /// Is refused in Chromium's own words, "Not allowed".
    NotAllowed,
    /// Does nothing and succeeds.
    Nothing,
    /// Answered by the lease's holder, if the holder knows it.
    Holder,

    /// Answered here: the lease's contexts.
    Contexts,
    /// Registered, and made to be disposed of with its session or its lease.
    CreateContext,
    /// Own contexts only, never the default one.
    DisposeContext,
    /// The reply is filtered.
    Targets,
    /// Own targets only.
    TargetInfo,
    /// Answered here: events come from the registry.
    Discover,
    /// Answered here: sessions come from the control session.
    AutoAttach,
    /// Address and context are checked; the warm page answers the first one.
    CreateTarget,
    /// Own targets only; Chromium always gets it flattened.
    Attach,
    /// Passes; Chromium always gets it flattened.
    AttachBelow,
    /// Own sessions that are not flattened: the message inside is judged like any other.
    Message,
    /// Own targets only.
    OwnTarget,
    /// Own targets only; told again if a target is changing documents and stays.
    CloseTarget,
    /// Own sessions only, sent by whoever made the session.
    Detach,
    /// Passes; the session is registered as a browser session.
    AttachBrowser,

    /// Ends the lease.
    Close,
    /// The context must be the lease's own, or is set to its default one.
    Context,
    /// The same, and the path must lie in the lease's directories.
    Downloads,
    /// Only downloads that the lease has seen.
    CancelDownload,
    /// Own targets only; the window is remembered.
    WindowOfTarget,
    /// Only windows that are remembered.
    Window,
    /// Kept here, and set on each page of the client.
    IgnoreCertificates,
    /// The address must be allowed.
    Navigate,
    /// All files must lie in the lease's directories.
    Files,
    /// The same for files that are dragged, and addresses must be allowed.
    Drag,
    /// The download path must lie in the lease's directories.
    DownloadPath,
    /// The parameters listed in `parameters.rs` must be within their bounds.
    Judged,
    /// As [`Taint`](Self::Taint), but refused if the lease is restricted to certain proxies:
    /// extensions may set others, and casting looks for devices by itself.
    LeadsRound,
}

use Rule::*;

/// The kind of session on which a command came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionKind {
    Browser,
    Page,
}

struct Row {
    method: &'static str,
    /// In a shared lease: on browser sessions, on page-like sessions.
    shared: [Rule; 2],
    /// In an exclusive lease: on browser sessions, on page-like sessions.
    exclusive: [Rule; 2],
}

const fn row(method: &'static str, shared: [Rule; 2], exclusive: [Rule; 2]) -> Row {
    Row { method, shared, exclusive }
}

/// Returns a row that applies to both kinds of lease.
const fn both(method: &'static str, browser: Rule, page: Rule) -> Row {
    row(method, [browser, page], [browser, page])
}

/// `X.*` applies to the methods of X that have no row of their own.
#[rustfmt::skip]
static TABLE: &[Row] = &[
    //    method                                  browser session    page-like session
    both("Target.getBrowserContexts",             Contexts,          NotAllowed),
    both("Target.getTargets",                     Targets,           Targets),
    both("Target.getTargetInfo",                  TargetInfo,        TargetInfo),
    both("Target.setDiscoverTargets",             Discover,          Refuse),
    both("Target.setAutoAttach",                  AutoAttach,        AttachBelow),
    both("Target.createBrowserContext",           CreateContext,     NotAllowed),
    both("Target.disposeBrowserContext",          DisposeContext,    NotAllowed),
    both("Target.createTarget",                   CreateTarget,      CreateTarget),
    both("Target.attachToTarget",                 Attach,            Attach),
    both("Target.sendMessageToTarget",            Message,           Message),
    both("Target.closeTarget",                    CloseTarget,       CloseTarget),
    both("Target.activateTarget",                 OwnTarget,         OwnTarget),
    both("Target.detachFromTarget",               Detach,            Detach),
    both("Target.attachToBrowserTarget",          AttachBrowser,     NotAllowed),
    both("Target.*",                              Refuse,            NotAllowed),

    both("Browser.getVersion",                    Pass,              Pass),
    both("Browser.close",                         Close,             Close),
    both("Browser.setDownloadBehavior",           Downloads,         Downloads),
    both("Browser.grantPermissions",              Context,           Context),
    both("Browser.setPermission",                 Context,           Context),
    both("Browser.resetPermissions",              Context,           Context),
    both("Browser.cancelDownload",                CancelDownload,    CancelDownload),
    both("Browser.getWindowForTarget",            WindowOfTarget,    WindowOfTarget),
    both("Browser.getWindowBounds",               Window,            Window),
    both("Browser.setWindowBounds",               Window,            Window),
    both("Browser.setContentsSize",               Window,            Window),
    both("Browser.setDockTile",                   Nothing,           Nothing),
    both("Browser.crash",                         Refuse,            Refuse),

    both("Storage.getCookies",                    Context,           Pass),
    both("Storage.setCookies",                    Context,           Pass),
    both("Storage.clearCookies",                  Context,           Pass),

    both("Security.setIgnoreCertificateErrors",   IgnoreCertificates, Pass),
    both("SystemInfo.getFeatureState",            Pass,              Pass),
    both("Emulation.getScreenInfos",              Pass,              Pass),
    both("IO.close",                              Pass,              Pass),
    both("Schema.getDomains",                     Pass,              Pass),
    both("Runtime.runIfWaitingForDebugger",       Pass,              Pass),

    both("Page.navigate",                         Refuse,            Navigate),
    both("DOM.setFileInputFiles",                 Refuse,            Files),
    both("Page.setDownloadBehavior",              Refuse,            DownloadPath),

    //   Commands that a hosted browser has and Chromium does not.
    both("Browserless.*",                         Holder,            Holder),

    //   Opens a port, and nothing of ours may listen.
    both("Tethering.*",                           Refuse,            Refuse),

    //   method                                   shared: browser, page     exclusive: browser, page
    row("Browser.*",                              [Refuse, Refuse],         [Taint, Taint]),
    row("SystemInfo.getInfo",                     [Pass, Refuse],           [Pass, Pass]),
    row("SystemInfo.*",                           [Refuse, Refuse],         [Pass, Pass]),
    row("Storage.*",                              [Refuse, Pass],           [Taint, Pass]),
    row("Emulation.addScreen",                    [Refuse, Refuse],         [Screens, Screens]),
    row("Emulation.updateScreen",                 [Refuse, Refuse],         [Taint, Taint]),
    row("Emulation.removeScreen",                 [Refuse, Refuse],         [Taint, Taint]),
    row("Emulation.setPrimaryScreen",             [Refuse, Refuse],         [Taint, Taint]),
    row("Memory.setPressureNotificationsSuppressed", [Refuse, Refuse],      [Taint, Taint]),
    row("Memory.simulatePressureNotification",    [Refuse, Refuse],         [Taint, Taint]),
    row("Memory.getBrowserSamplingProfile",       [Refuse, Refuse],         [Pass, Pass]),
    row("Memory.prepareForLeakDetection",         [Refuse, Refuse],         [Taint, Taint]),
    row("Memory.getDOMCountersForLeakDetection",  [Refuse, Refuse],         [Taint, Taint]),
    row("Extensions.*",                           [Refuse, Refuse],         [LeadsRound, LeadsRound]),
    row("PWA.*",                                  [Refuse, Refuse],         [Taint, Taint]),
    row("Cast.*",                                 [Refuse, Refuse],         [LeadsRound, LeadsRound]),
    row("BluetoothEmulation.*",                   [Refuse, Refuse],         [Taint, Taint]),
    row("SmartCardEmulation.*",                   [Refuse, Refuse],         [Taint, Taint]),
    row("Tracing.*",                              [Refuse, Refuse],         [Pass, Pass]),

    row("Input.dispatchDragEvent",                [Refuse, Drag],           [Pass, Pass]),
    //   Code and pictures in forms that a renderer trusts, as if it had made them itself.
    row("Page.addCompilationCache",               [Refuse, Refuse],         [Pass, Pass]),
    row("LayerTree.loadSnapshot",                 [Refuse, Refuse],         [Pass, Pass]),
    row("IO.read",                                [Judged, Judged],         [Pass, Pass]),
    row("Emulation.setDeviceMetricsOverride",     [Refuse, Judged],         [Pass, Pass]),
    row("Emulation.setVisibleSize",               [Refuse, Judged],         [Pass, Pass]),
    row("Emulation.setPageScaleFactor",           [Refuse, Judged],         [Pass, Pass]),
    row("Emulation.setEmulatedOSTextScale",       [Refuse, Judged],         [Pass, Pass]),
    row("Emulation.setCPUThrottlingRate",         [Refuse, Judged],         [Pass, Pass]),
    row("Emulation.setSafeAreaInsetsOverride",    [Refuse, Judged],         [Pass, Pass]),
    row("Emulation.setVirtualKeyboardGeometryOverride", [Refuse, Judged],   [Pass, Pass]),
    row("Emulation.setSmallViewportHeightDifferenceOverride", [Refuse, Judged], [Pass, Pass]),
    row("Page.setDeviceMetricsOverride",          [Refuse, Judged],         [Pass, Pass]),
    row("Emulation.clearDeviceMetricsOverride",   [Refuse, Judged],         [Pass, Pass]),
    row("Page.clearDeviceMetricsOverride",        [Refuse, Judged],         [Pass, Pass]),
    row("Page.captureScreenshot",                 [Refuse, Judged],         [Pass, Pass]),
    row("Page.startScreencast",                   [Refuse, Judged],         [Pass, Pass]),
    row("Page.startScreenRecording",              [Refuse, Judged],         [Pass, Pass]),
    row("Page.printToPDF",                        [Refuse, Judged],         [Pass, Pass]),
    row("LayerTree.replaySnapshot",               [Refuse, Judged],         [Pass, Pass]),
    row("LayerTree.profileSnapshot",              [Refuse, Judged],         [Pass, Pass]),
    row("Input.imeSetComposition",                [Refuse, Judged],         [Pass, Pass]),
    row("Input.synthesizePinchGesture",           [Refuse, Judged],         [Pass, Pass]),
    row("Input.synthesizeScrollGesture",          [Refuse, Judged],         [Pass, Pass]),
    row("Input.synthesizeTapGesture",             [Refuse, Judged],         [Pass, Pass]),
    row("Network.enable",                         [Refuse, Judged],         [Pass, Pass]),
    row("Network.configureDurableMessages",       [Refuse, Judged],         [Pass, Pass]),
    row("Network.loadNetworkResource",            [Refuse, Judged],         [Pass, Pass]),
    row("CacheStorage.requestEntries",            [Refuse, Judged],         [Pass, Pass]),
    row("IndexedDB.requestData",                  [Refuse, Judged],         [Pass, Pass]),
    row("Storage.overrideQuotaForOrigin",         [Refuse, Judged],         [Pass, Pass]),
    row("HeapProfiler.startSampling",             [Refuse, Judged],         [Pass, Pass]),
    row("Profiler.setSamplingInterval",           [Refuse, Judged],         [Pass, Pass]),
    row("Memory.startSampling",                   [Refuse, Judged],         [Pass, Pass]),
];

/// The domains that concern one page, frame or worker, and pass on page-like sessions of a shared
/// lease. A domain that is not here does not exist for it, so one that a new Chromium introduces
/// stays closed until somebody has looked at it.
static PAGE_DOMAINS: &[&str] = &[
    "Accessibility",
    "Animation",
    "Audits",
    "Autofill",
    "BackgroundService",
    "CSS",
    "CacheStorage",
    "Console",
    "DOM",
    "DOMDebugger",
    "DOMSnapshot",
    "DOMStorage",
    "Debugger",
    "DeviceAccess",
    "DeviceOrientation",
    "Emulation",
    "EventBreakpoints",
    "FedCm",
    "Fetch",
    "FileSystem",
    "HeapProfiler",
    "IO",
    "IndexedDB",
    "Input",
    "Inspector",
    "LayerTree",
    "Log",
    "Media",
    "Memory",
    "Network",
    "Overlay",
    "Page",
    "Performance",
    "PerformanceTimeline",
    "Preload",
    "Profiler",
    "Runtime",
    "Schema",
    "Security",
    "ServiceWorker",
    "Storage",
    "WebAudio",
    "WebAuthn",
    "WebMCP",
];

/// Returns the rule for a method on this kind of session in this kind of lease.
pub(crate) fn rule(method: &str, session: SessionKind, lease: LeaseKind) -> Rule {
    let Some((domain, _)) = method.split_once('.') else {
        return otherwise("", session, lease);
    };
    match find(method, domain) {
        Some(row) => {
            let rules = match lease {
                LeaseKind::Shared => row.shared,
                LeaseKind::Exclusive => row.exclusive,
            };
            rules[session as usize]
        }
        None => otherwise(domain, session, lease),
    }
}

/// Returns `true` if a method concerns one page, frame or worker, and a lease may use it there.
pub(crate) fn is_of_pages(method: &str, lease: LeaseKind) -> bool {
    let domain = method.split_once('.').map_or("", |(domain, _)| domain);
    PAGE_DOMAINS.binary_search(&domain).is_ok()
        && !matches!(rule(method, SessionKind::Page, lease), Refuse | NotAllowed | Nothing)
}

/// Returns the rule for a method that has no row.
fn otherwise(domain: &str, session: SessionKind, lease: LeaseKind) -> Rule {
    let allowed = match (lease, session) {
        (LeaseKind::Exclusive, _) => true,
        (LeaseKind::Shared, SessionKind::Browser) => false,
        (LeaseKind::Shared, SessionKind::Page) => PAGE_DOMAINS.binary_search(&domain).is_ok(),
    };
    if allowed { Pass } else { Refuse }
}

/// Every method and `X.*` that has a row.
#[cfg(test)]
pub(crate) fn methods() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.method)
}

fn find(method: &str, domain: &str) -> Option<&'static Row> {
    // Most traffic is in domains without any row, which a look at the few that have one settles.
    let rows = INDEX.get(domain)?;
    let name = |row: &&&'static Row| row.method == method;
    let star = |row: &&&'static Row| row.method.ends_with(".*");
    rows.iter().find(name).or_else(|| rows.iter().find(star)).copied()
}

static INDEX: std::sync::LazyLock<std::collections::HashMap<&'static str, Vec<&'static Row>>> =
    std::sync::LazyLock::new(|| {
        let mut index = std::collections::HashMap::<_, Vec<_>>::new();
        for row in TABLE {
            let (domain, _) = row.method.split_once('.').expect("rows are named Domain.method");
            index.entry(domain).or_default().push(row);
        }
        index
    });

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(method: &str, session: SessionKind) -> Rule {
        rule(method, session, LeaseKind::Shared)
    }

    fn exclusive(method: &str, session: SessionKind) -> Rule {
        rule(method, session, LeaseKind::Exclusive)
    }

    #[test]
    fn no_method_stands_in_two_rows() {
        let mut seen = std::collections::HashSet::new();
        for row in TABLE {
            assert!(seen.insert(row.method), "{} stands there twice", row.method);
        }
    }

    #[test]
    fn the_page_domains_are_sorted() {
        assert!(PAGE_DOMAINS.is_sorted());
    }

    #[test]
    fn browser_sessions_of_a_shared_lease_deny_by_default() {
        for method in [
            "Fetch.enable",
            "Tracing.start",
            "Memory.getBrowserSamplingProfile",
            "Browser.crash",
            "Browser.executeBrowserCommand",
            "Browser.getBrowserCommandLine",
            "Target.exposeDevToolsProtocol",
            "Target.madeUpTomorrow",
            "MadeUp.tomorrow",
            "Storage.clearDataForOrigin",
            "nodomain",
            "",
        ] {
            assert_eq!(shared(method, SessionKind::Browser), Refuse, "{method}");
        }
    }

    #[test]
    fn page_sessions_of_a_shared_lease_allow_by_domain() {
        for method in
            ["Runtime.evaluate", "DOM.getDocument", "Fetch.enable", "Storage.getUsageAndQuota"]
        {
            assert_eq!(shared(method, SessionKind::Page), Pass, "{method}");
        }
        for method in [
            "Tracing.start",
            "MadeUp.tomorrow",
            "Browser.getHistograms",
            "Emulation.addScreen",
            "nodomain",
        ] {
            assert_eq!(shared(method, SessionKind::Page), Refuse, "{method}");
        }
    }

    #[test]
    fn an_exclusive_lease_gets_all_but_what_ends_its_chromium_or_opens_it_up() {
        for method in [
            "Tracing.start",
            "MadeUp.tomorrow",
            "Fetch.enable",
            "Memory.forciblyPurgeJavaScriptMemory",
        ] {
            assert_eq!(exclusive(method, SessionKind::Browser), Pass, "{method}");
        }
        for method in ["Browser.crash", "Tethering.bind", "Target.exposeDevToolsProtocol"] {
            assert_eq!(exclusive(method, SessionKind::Browser), Refuse, "{method}");
        }
        assert_eq!(exclusive("Browser.close", SessionKind::Page), Close);
    }

    #[test]
    fn a_lease_is_as_virtual_in_either_kind() {
        for method in ["Target.setAutoAttach", "Target.createTarget", "Storage.getCookies"] {
            assert_eq!(
                shared(method, SessionKind::Browser),
                exclusive(method, SessionKind::Browser),
                "{method}"
            );
        }
    }
}
