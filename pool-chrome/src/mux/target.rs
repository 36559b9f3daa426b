use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The id of a target, a context or a download.
pub(crate) type Id = Arc<str>;

/// Chromium's description of a target, as far as the multiplexer needs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Info {
    pub(crate) target_id: Id,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) subtype: Option<String>,
    #[serde(default)]
    pub(crate) browser_context_id: Option<Id>,
}

/// A target in the registry.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) info: Info,
    /// The same as written by Chromium, for clients.
    pub(crate) raw: String,
    /// Not yet shown to any client: the warm page and its tab.
    pub(crate) hidden: bool,
    /// The tab that a page belongs to.
    pub(crate) tab: Option<Id>,
    /// It is a tab that Chromium does not know of.
    pub(crate) invented: bool,
    /// It shows what its lease may not see, and is being closed.
    pub(crate) banned: bool,
    /// Chromium was told to close it. A page that is changing documents at that moment stays open,
    /// so it is told again once the page has changed.
    pub(crate) closing: bool,
    /// Physical pixels of its emulated screen for each of the page's own, per side.
    pub(crate) density: f64,
}

impl Target {
    pub(crate) fn new(info: Info, raw: &RawValue) -> Self {
        Self {
            info,
            raw: raw.get().to_owned(),
            hidden: false,
            tab: None,
            invented: false,
            banned: false,
            closing: false,
            density: 1.0,
        }
    }

    pub(crate) fn update(&mut self, info: Info, raw: &RawValue) {
        self.info = info;
        raw.get().clone_into(&mut self.raw);
    }

    /// Returns a made-up tab for a page for which Chromium named none.
    pub(crate) fn invented_tab(page: &Info) -> Self {
        let info = Info {
            target_id: SessionId::invent().as_str().into(),
            kind: "tab".to_owned(),
            subtype: None,
            ..page.clone()
        };
        let raw = serde_json::json!({
            "targetId": &*info.target_id,
            "type": "tab",
            "title": info.title,
            "url": info.url,
            "attached": true,
            "canAccessOpener": false,
            "browserContextId": info.browser_context_id.as_deref(),
        });
        Self {
            info,
            raw: raw.to_string(),
            hidden: false,
            tab: None,
            invented: true,
            banned: false,
            closing: false,
            density: 1.0,
        }
    }

    /// Makes an empty page look as if it had been there for a while. Chromium only reports its
    /// address when it is resumed.
    pub(crate) fn settle(&mut self) {
        const BLANK: &str = "about:blank";
        if self.info.url.is_empty() {
            BLANK.clone_into(&mut self.info.url);
            // Quotes inside of strings are escaped, so this can only be the member itself.
            self.raw = self.raw.replacen(r#""url":"""#, &format!(r#""url":"{BLANK}""#), 1);
        }
    }

    /// Returns the info with `attached` set, for a client that holds a session of our own making:
    /// Puppeteer ignores changes of targets that are not attached.
    pub(crate) fn raw_attached(&self) -> String {
        // Quotes inside of strings are escaped, so this can only be the member itself.
        self.raw.replacen(r#""attached":false"#, r#""attached":true"#, 1)
    }
}

/// The params of `Target.targetCreated` and `Target.targetInfoChanged`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InfoParams<'a> {
    #[serde(borrow)]
    pub(crate) target_info: &'a RawValue,
}

/// The params of `Target.attachedToTarget`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttachedParams<'a> {
    pub(crate) session_id: String,
    #[serde(borrow)]
    pub(crate) target_info: &'a RawValue,
    pub(crate) waiting_for_debugger: bool,
}

/// The params of events that name a target or a session that is gone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GoneParams {
    #[serde(default)]
    pub(crate) session_id: String,
    #[serde(default)]
    pub(crate) target_id: String,
}

/// Any message from Chromium, one level deep.
#[derive(Deserialize)]
pub(crate) struct Message<'a> {
    #[serde(default)]
    pub(crate) method: &'a str,
    #[serde(borrow, default)]
    pub(crate) params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) error: Option<&'a RawValue>,
    /// Present only if it was not the last member.
    #[serde(default, rename = "sessionId")]
    pub(crate) session: Option<&'a str>,
}

/// The id of a CDP session: 32 hexadecimal digits in capitals, as Chromium makes them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; Self::LEN]);

impl SessionId {
    /// Characters in an id.
    pub(crate) const LEN: usize = 32;

    /// Reads an id; `None` if it is not one that Chromium could have made.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_bytes(text.as_bytes())
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let digits: [u8; Self::LEN] = bytes.try_into().ok()?;
        let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(byte);
        digits.iter().all(is_hex).then_some(Self(digits))
    }

    /// Returns an id of our own, for sessions that only the multiplexer knows.
    pub(crate) fn invent() -> Self {
        let text = format!("{:032X}", fastrand::u128(..));
        Self::parse(&text).expect("32 hexadecimal digits in capitals")
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// The types of targets that a client wants to see, as in `Target.TargetFilter`: the first entry
/// that matches decides, and a type that matches none is left out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct TargetFilter(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    exclude: bool,
}

impl TargetFilter {
    /// Returns `true` if targets of this type are wanted.
    pub(crate) fn wants(&self, kind: &str) -> bool {
        let matches = |entry: &&Entry| entry.kind.as_deref().is_none_or(|wanted| wanted == kind);
        self.0.iter().find(matches).is_some_and(|entry| !entry.exclude)
    }

    /// Returns `true` if pages are wanted as children of their tabs, which is how Puppeteer asks
    /// for them.
    pub(crate) fn wants_tabs(&self) -> bool {
        self.wants("tab") && !self.wants("page")
    }
}

/// Chromium's own default: everything but browsers and tabs.
impl Default for TargetFilter {
    fn default() -> Self {
        let without = |kind: &str| Entry { kind: Some(kind.to_owned()), exclude: true };
        Self(vec![without("browser"), without("tab"), Entry { kind: None, exclude: false }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(json: &str) -> TargetFilter {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_first_entry_that_matches_decides() {
        let puppeteer = filter(r#"[{"type":"page","exclude":true},{}]"#);
        assert!(!puppeteer.wants("page"));
        assert!(puppeteer.wants("tab") && puppeteer.wants("service_worker"));
        assert!(puppeteer.wants_tabs());
    }

    #[test]
    fn what_matches_nothing_is_left_out() {
        let pages = filter(r#"[{"type":"page"}]"#);
        assert!(pages.wants("page"));
        assert!(!pages.wants("worker"));
    }

    #[test]
    fn the_default_leaves_out_browsers_and_tabs() {
        let default = TargetFilter::default();
        assert!(default.wants("page") && default.wants("iframe"));
        assert!(!default.wants("browser") && !default.wants("tab") && !default.wants_tabs());
    }
}
