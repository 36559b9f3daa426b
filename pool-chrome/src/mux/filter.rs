use serde::Deserialize;

/// Which types of targets a client wants to see, as `Target.TargetFilter` has it: the first entry
/// that matches decides, and what matches none is left out.
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

    /// Returns `true` if pages are wanted as children of their tabs, which is how Puppeteer asks for them.
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
