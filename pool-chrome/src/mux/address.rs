//! Which addresses a client may send a page to.

use url::Url;

use super::lease_options::LeaseKind;

/// What the address of a navigation must keep to.
///
/// Addresses are judged by their scheme after parsing them as a page would: deny-lists by prefix
/// fall to ` chrome://`, `chrome:version`, `CHROME://` and `view-source:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressRule {
    pub(crate) kind: LeaseKind,
    /// The context is off the record: the settings, extensions and history pages end the whole
    /// Chromium there.
    pub(crate) off_the_record: bool,
    /// `file:` is allowed.
    pub(crate) files: bool,
}

/// The schemes that every lease may use.
const WEB: &[&str] = &["http", "https", "data", "blob", "about", "javascript"];

/// The pages of Chromium's own that were tried in a context off the record and do no harm.
const HARMLESS: &[&str] =
    &["version", "gpu", "blank", "about", "credits", "media-internals", "webrtc-internals"];

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
    pub(crate) fn allows(self, address: &str) -> bool {
        let url = match Url::parse(address) {
            Ok(url) => url,
            // Chromium refuses what it cannot parse, and takes "" for about:blank.
            Err(_) => {
                return address.trim().is_empty()
                    || self.kind == LeaseKind::Exclusive && !has_scheme(address);
            }
        };
        match url.scheme() {
            scheme if WEB.contains(&scheme) => true,
            "file" => self.files,
            _ if self.kind == LeaseKind::Shared => false,
            "chrome" | "chrome-untrusted" => {
                let page = url.host_str().unwrap_or_else(|| url.path());
                if self.off_the_record { HARMLESS.contains(&page) } else { !DEADLY.contains(&page) }
            }
            "view-source" => self.allows(url.path()),
            "chrome-extension" | "filesystem" => true,
            // Opens nothing in a page, or something that we do not know.
            _ => false,
        }
    }
}

fn has_scheme(address: &str) -> bool {
    address.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: AddressRule =
        AddressRule { kind: LeaseKind::Shared, off_the_record: true, files: false };
    const EXCLUSIVE: AddressRule =
        AddressRule { kind: LeaseKind::Exclusive, off_the_record: true, files: true };

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
            assert!(SHARED.allows(address), "{address}");
            assert!(EXCLUSIVE.allows(address), "{address}");
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
            "view-source:chrome://version",
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
            "example.org",
        ] {
            assert!(!SHARED.allows(address), "{address}");
        }
    }

    #[test]
    fn an_exclusive_lease_is_kept_from_what_ends_its_chromium() {
        for address in [
            "chrome://settings",
            "chrome://history",
            "CHROME:extensions",
            "view-source:chrome://settings",
        ] {
            assert!(!EXCLUSIVE.allows(address), "{address}");
        }
        for address in
            ["chrome://version", "file:///etc/hostname", "view-source:http://example.org/"]
        {
            assert!(EXCLUSIVE.allows(address), "{address}");
        }
        let profile = AddressRule { off_the_record: false, ..EXCLUSIVE };
        assert!(profile.allows("chrome://settings"));
        assert!(!profile.allows("chrome://quit"));
    }
}
