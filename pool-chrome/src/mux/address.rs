//! The addresses and files that a client may name.

use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

use super::lease_options::LeaseKind;

/// Rule for the addresses of navigations.
///
/// Addresses are judged by their scheme, after parsing them as a page would: a deny-list of
/// prefixes is defeated by ` chrome://`, `chrome:version`, `CHROME://` and `view-source:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressRule {
    pub(crate) kind: LeaseKind,
    /// The context is off the record: there, the settings, extensions and history pages crash the
    /// whole Chromium.
    pub(crate) off_the_record: bool,
    /// `file:` is allowed.
    pub(crate) files: bool,
}

/// The judgement on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Chromium gets it, and answers for itself.
    Allowed,
    /// This page is shown in its place.
    StandIn(&'static str),
    /// It is not an address, neither to us nor to Chromium, which reports that.
    Invalid,
    /// The lease may not go there.
    Refused,
}

/// An address that certainly fails, in the same way as one that cannot be reached: a `data:` URL
/// without a comma. It makes no network request, and no interception sees it.
pub(crate) const NOWHERE: &str = "data:blocked-by-administrator";

/// Page shown in a shared lease instead of a static page of Chromium's own.
const STAND_IN: &str = "data:text/html,<title>Not shown here</title>\
    This page of the browser's own is shown in exclusive leases only.";

/// The schemes that every lease may use.
const WEB: &[&str] = &["http", "https", "data", "blob", "about", "javascript"];

/// Static pages of Chromium's own: they show a text and do nothing. But a script on one of
/// Chromium's own pages may go to any other, and a client may run any script in it: from `terms` it
/// went to `version`, which shows the command line, to `inspect`, which lists the pages of all
/// leases, and to `quit`. So a shared lease gets another page in their place.
const STATIC: &[&str] = &["terms", "credits"];

/// Chromium's own pages that were tried in a context off the record, where they crash at most the
/// page.
const HARMLESS: &[&str] = &[
    "version",
    "gpu",
    "blank",
    "about",
    "media-internals",
    "webrtc-internals",
    // They exist for testing how software copes with a page that crashes.
    "crash",
    "kill",
    "hang",
];

/// The pages that exist to end or freeze the browser.
const DEADLY: &[&str] = &[
    "quit",
    "restart",
    "inducebrowsercrashforrealz",
    "inducebrowserdcheckforrealz",
    "uithreadhang",
    "delayeduithreadhang",
];

impl AddressRule {
    pub(crate) fn judge(self, address: &str) -> Judgement {
        let url = match Url::parse(address) {
            Ok(url) => url,
            // Chromium is more lenient about web addresses, but about no others.
            Err(_) if address.trim().is_empty() || is_web(address) => return Judgement::Allowed,
            Err(_) => return Judgement::Invalid,
        };
        let allowed = match url.scheme() {
            scheme if WEB.contains(&scheme) => true,
            "file" => self.files,
            "chrome" | "chrome-untrusted" => return self.judge_own(&url),
            _ if self.kind == LeaseKind::Shared => false,
            "view-source" => return self.judge(url.path()),
            "chrome-extension" | "filesystem" => true,
            // It opens nothing in a page, or something that we do not know.
            _ => false,
        };
        if allowed { Judgement::Allowed } else { Judgement::Refused }
    }

    /// Returns `true` if Chromium may get it unchanged.
    pub(crate) fn allows(self, address: &str) -> bool {
        self.judge(address) == Judgement::Allowed
    }

    /// Judges one of Chromium's own pages.
    fn judge_own(self, url: &Url) -> Judgement {
        let page = url.host_str().unwrap_or_else(|| url.path());
        // Chromium decodes it and ignores case.
        let page = percent_decode_str(page).decode_utf8_lossy().to_ascii_lowercase();
        let is_among = |pages: &[&str]| pages.contains(&&*page);
        match self.kind {
            LeaseKind::Shared if is_among(STATIC) => Judgement::StandIn(STAND_IN),
            LeaseKind::Exclusive if self.off_the_record => {
                let allowed = is_among(STATIC) || is_among(HARMLESS);
                if allowed { Judgement::Allowed } else { Judgement::Refused }
            }
            LeaseKind::Exclusive if !is_among(DEADLY) => Judgement::Allowed,
            LeaseKind::Shared | LeaseKind::Exclusive => Judgement::Refused,
        }
    }
}

/// Returns `true` if an address is a web address, whatever else is wrong with it.
fn is_web(address: &str) -> bool {
    let address = address.trim_start_matches(|char: char| char <= ' ');
    let Some((scheme, _)) = address.split_once(':') else { return false };
    let scheme = scheme.replace(['\t', '\n', '\r'], "");
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Returns `true` if a path is inside one of the directories, following links as far as the path
/// exists.
///
/// Directories that Playwright makes for its downloads count as well: their names are random, and
/// it does not work without them.
pub(crate) fn is_inside(path: &str, directories: &[PathBuf]) -> bool {
    let path = Path::new(path);
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(is_plain) || holds_nul(path) {
        return false;
    }
    let Some(real) = resolve(path) else { return false };
    let inside = |directory: &PathBuf| {
        directory.canonicalize().is_ok_and(|directory| real.starts_with(directory))
    };
    directories.iter().any(inside) || is_of_playwright(&real)
}

/// Returns `true` if a path is inside one of the pool's own directories, or might turn out to be.
///
/// A relative path is relative to where the pool was started, which is where its Chromiums were.
pub(crate) fn is_reserved(path: &str, reserved: &[PathBuf]) -> bool {
    if path.is_empty() {
        return false;
    }
    let Ok(path) = std::path::absolute(path) else { return true };
    let Some(real) = resolve(&path) else { return true };
    let is_plain = |part: Component<'_>| !matches!(part, Component::ParentDir);
    if holds_nul(&path) || !real.components().all(is_plain) {
        return true;
    }
    let within = |directory: &PathBuf| {
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.clone());
        real.starts_with(directory)
    };
    reserved.iter().any(within)
}

/// Chromium takes a path to end at its first NUL.
fn holds_nul(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&0)
}

/// Returns the path with links followed in the part of it that exists.
fn resolve(path: &Path) -> Option<PathBuf> {
    let existing = path.ancestors().find(|part| part.symlink_metadata().is_ok())?;
    let rest = path.strip_prefix(existing).expect("an ancestor is a prefix");
    let real = existing.canonicalize().ok()?;
    Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
}

fn is_of_playwright(real: &Path) -> bool {
    let Ok(temp) = std::env::temp_dir().canonicalize() else { return false };
    let Ok(inside) = real.strip_prefix(temp) else { return false };
    let first = inside.components().next();
    first
        .is_some_and(|name| name.as_os_str().to_string_lossy().starts_with("playwright-artifacts-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: AddressRule =
        AddressRule { kind: LeaseKind::Shared, off_the_record: true, files: false };
    const EXCLUSIVE: AddressRule =
        AddressRule { kind: LeaseKind::Exclusive, off_the_record: true, files: true };

    const PROFILE: AddressRule = AddressRule { off_the_record: false, ..EXCLUSIVE };

    #[test]
    fn the_web_is_open_to_every_lease() {
        for address in [
            "http://localhost:8080/x",
            "HTTPS://example.org",
            "data:text/html,x",
            "about:blank",
            "javascript:1",
            "blob:http://a/1",
            "",
        ] {
            assert_eq!(SHARED.judge(address), Judgement::Allowed, "{address}");
            assert_eq!(EXCLUSIVE.judge(address), Judgement::Allowed, "{address}");
        }
    }

    #[test]
    fn a_shared_lease_gets_at_nothing_else_however_it_is_spelled() {
        for address in [
            "chrome://settings",
            " chrome://settings",
            "\u{1}chrome://settings",
            "chr\nome://settings",
            "CHROME://version",
            "chrome:version",
            "chrome://version",
            "chrome://crash",
            "view-source:chrome://version",
            "view-source:chrome://terms",
            "view-source:http://example.org",
            "devtools://devtools/bundled/inspector.html",
            "file:///etc/passwd",
            "FILE:/etc/passwd",
            "\tfile:///etc/passwd",
            "view-source:file:///etc/passwd",
            "filesystem:http://a/temporary/x",
            "chrome-untrusted://print",
            "chrome-extension://abc/x.html",
            "isolated-app://x",
        ] {
            assert_eq!(SHARED.judge(address), Judgement::Refused, "{address}");
        }
        for address in ["chrome://terms", "CHROME:Credits", "chrome://t%65rms/x"] {
            assert_eq!(SHARED.judge(address), Judgement::StandIn(STAND_IN), "{address}");
        }
    }

    #[test]
    fn what_is_no_address_is_told_apart_from_one_that_is_refused() {
        for rule in [SHARED, EXCLUSIVE, PROFILE] {
            for address in
                ["example.org", "//example.org", "chrome://[", "file://[", "\u{fffd}", "x y:z"]
            {
                assert_eq!(rule.judge(address), Judgement::Invalid, "{address}");
            }
            // Chromium knows whether they are none.
            for address in
                ["http://", "http://[", " ht\ntps://a b/", "http:///", "http://1.2.3.4.5/"]
            {
                assert_eq!(rule.judge(address), Judgement::Allowed, "{address}");
            }
        }
    }

    #[test]
    fn an_exclusive_lease_is_kept_from_what_ends_its_chromium() {
        for address in [
            "chrome://settings",
            "chrome://history",
            "CHROME:extensions",
            "view-source:chrome://settings",
            "chrome://quit",
        ] {
            assert_eq!(EXCLUSIVE.judge(address), Judgement::Refused, "{address}");
        }
        for address in [
            "chrome://version",
            "chrome://terms",
            "chrome://credits",
            "chrome://crash",
            "chrome://kill",
            "chrome://hang",
            "file:///etc/hostname",
            "view-source:http://example.org/",
        ] {
            assert_eq!(EXCLUSIVE.judge(address), Judgement::Allowed, "{address}");
        }
        assert_eq!(PROFILE.judge("chrome://settings"), Judgement::Allowed);
        for address in
            ["chrome://quit", "chrome://QUIT", "chrome:q%75it", "view-source:chrome://quit"]
        {
            assert_eq!(PROFILE.judge(address), Judgement::Refused, "{address}");
        }
    }

    #[test]
    fn only_what_lies_in_the_directories_is_inside() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("own");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(root.path().join("secret"), "").unwrap();
        std::os::unix::fs::symlink(root.path(), own.join("up")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", own.join("dangling")).unwrap();
        let directories = [own.clone()];
        let inside = |path: &Path| is_inside(path.to_str().unwrap(), &directories);
        assert!(inside(&own));
        assert!(inside(&own.join("a/b")));
        assert!(!inside(root.path()));
        assert!(!inside(&root.path().join("owner")));
        assert!(!inside(&own.join("../secret")));
        assert!(!inside(&own.join("up/secret")));
        assert!(!inside(&own.join("dangling")));
        assert!(!inside(&own.join("..\0")));
        assert!(!is_inside("own/a", &directories));
        assert!(!is_inside("", &directories));
        assert!(!is_inside("/etc/passwd", &directories));
    }

    #[test]
    fn what_leads_into_the_pools_own_directories_is_reserved() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        std::fs::create_dir_all(state.join("run/1/profile")).unwrap();
        std::os::unix::fs::symlink(&state, root.path().join("link")).unwrap();
        std::os::unix::fs::symlink("state/new", root.path().join("dangling")).unwrap();
        let reserved = [state.clone()];
        let is = |path: &Path| is_reserved(path.to_str().unwrap(), &reserved);
        assert!(is(&state));
        assert!(is(&state.join("run/1/profile/NativeMessagingHosts")));
        assert!(is(&state.join("not/there/yet")));
        assert!(is(&root.path().join("link/run")));
        assert!(is(&root.path().join("link/new")));
        assert!(is(&root.path().join("dangling")), "nobody knows where it leads");
        assert!(is(&root.path().join("new/../state/x")));
        assert!(is(&root.path().join("state\0x")));
        assert!(!is(&root.path().join("states")));
        assert!(!is(&root.path().join("new/directory")));
        assert!(!is_reserved("somewhere", &reserved));
    }
}
