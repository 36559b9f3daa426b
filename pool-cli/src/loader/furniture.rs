use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Filter, Wait};

/// State of a page before its first request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Furniture {
    /// Events after which it counts as loaded, all of them.
    pub(crate) waits: Vec<Wait>,
    /// What its first request says where it comes from.
    pub(crate) referrer: Option<String>,
    /// `screen` or `print`, if not what it is by itself.
    pub(crate) media: Option<String>,
    pub(crate) cookies: Vec<Cookie>,
    pub(crate) viewport: Viewport,
    pub(crate) user_agent: Option<UserAgent>,
    /// Sent with every request.
    pub(crate) headers: BTreeMap<String, String>,
    /// Scripts of the page do not run.
    pub(crate) without_javascript: bool,
    /// What becomes of its requests.
    pub(crate) filter: Filter,
    /// What is on its console is kept.
    pub(crate) console: bool,
}

/// The size of a page, in CSS pixels, and the device that it is on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Viewport {
    pub(crate) width: u32,
    pub(crate) height: u32,
    #[serde(default = "one")]
    pub(crate) device_scale_factor: f64,
    #[serde(default)]
    pub(crate) is_mobile: bool,
    #[serde(default)]
    pub(crate) has_touch: bool,
    #[serde(default)]
    pub(crate) is_landscape: bool,
}

fn one() -> f64 {
    1.0
}

impl Viewport {
    /// A screen of this size.
    pub(crate) fn new(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            device_scale_factor: 1.0,
            is_mobile: false,
            has_touch: false,
            is_landscape: false,
        }
    }
}

impl Default for Viewport {
    /// Puppeteer's.
    fn default() -> Self {
        Self::new(800, 600)
    }
}

/// Name and password for a server that asks for them.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
}

/// Without the password.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// User agent of a page.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UserAgent {
    pub(crate) user_agent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) accept_language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_agent_metadata: Option<Map<String, Value>>,
}

impl UserAgent {
    /// Only the text of the header.
    pub(crate) fn new(user_agent: String) -> Self {
        Self { user_agent, accept_language: None, platform: None, user_agent_metadata: None }
    }
}

/// A cookie that is set before the first request.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Cookie {
    pub(crate) name: String,
    pub(crate) value: String,
    /// The address that it is for, if no domain is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secure: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http_only: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    same_site: Option<SameSite>,
    /// Seconds since 1970; -1 for the end of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_scheme: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition_key: Option<PartitionKey>,
    /// Those that a client copies from what it was told; they follow from the others.
    #[serde(default, skip_serializing, rename = "size")]
    _size: Option<Value>,
    #[serde(default, skip_serializing, rename = "session")]
    _session: Option<Value>,
    #[serde(default, skip_serializing, rename = "sameParty")]
    _same_party: Option<Value>,
    #[serde(default, skip_serializing, rename = "sourcePort")]
    _source_port: Option<Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum SameSite {
    Strict,
    Lax,
    None,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(from = "GivenKey", rename_all = "camelCase")]
struct PartitionKey {
    top_level_site: String,
    has_cross_site_ancestor: bool,
}

/// As Puppeteer has it, or the protocol.
#[derive(Deserialize)]
#[serde(untagged)]
enum GivenKey {
    Site(String),
    #[serde(rename_all = "camelCase")]
    Key {
        #[serde(alias = "sourceOrigin")]
        top_level_site: String,
        #[serde(default)]
        has_cross_site_ancestor: bool,
    },
}

impl From<GivenKey> for PartitionKey {
    fn from(given: GivenKey) -> Self {
        match given {
            GivenKey::Site(top_level_site) => {
                Self { top_level_site, has_cross_site_ancestor: false }
            }
            GivenKey::Key { top_level_site, has_cross_site_ancestor } => {
                Self { top_level_site, has_cross_site_ancestor }
            }
        }
    }
}

/// A command that furnishes a page, and the member of a request that it comes from.
pub(super) struct Fitting {
    pub(super) member: &'static str,
    pub(super) method: &'static str,
    pub(super) params: Value,
}

impl Furniture {
    /// The commands in their order.
    pub(super) fn fittings(&self) -> Vec<Fitting> {
        let mut fittings = Vec::new();
        let mut fit = |member, method, params| fittings.push(Fitting { member, method, params });
        fit("url", "Page.enable", json!({}));
        // Nobody asks for bodies, so that none are kept.
        let buffers = json!({ "maxTotalBufferSize": 0, "maxResourceBufferSize": 0 });
        fit("url", "Network.enable", buffers);
        fit("url", "Inspector.enable", json!({}));
        if self.console {
            fit("debugOpts", "Runtime.enable", json!({}));
        }
        if let Some(media) = &self.media {
            fit("emulateMediaType", "Emulation.setEmulatedMedia", json!({ "media": media }));
        }
        if !self.cookies.is_empty() {
            fit("cookies", "Network.setCookies", json!({ "cookies": self.cookies }));
        }
        fit("viewport", "Emulation.setDeviceMetricsOverride", self.viewport.metrics());
        if self.viewport.has_touch {
            fit("viewport", "Emulation.setTouchEmulationEnabled", json!({ "enabled": true }));
        }
        self.fit_traffic(fit);
        fittings
    }

    /// The commands that each frame with a process of its own needs as well, and each worker.
    pub(super) fn fit_traffic(&self, mut fit: impl FnMut(&'static str, &'static str, Value)) {
        if let Some(agent) = &self.user_agent {
            fit("userAgent", "Emulation.setUserAgentOverride", json!(agent));
        }
        if !self.headers.is_empty() {
            let headers = json!({ "headers": self.headers });
            fit("setExtraHTTPHeaders", "Network.setExtraHTTPHeaders", headers);
        }
        if self.without_javascript {
            let disabled = json!({ "value": true });
            fit("setJavaScriptEnabled", "Emulation.setScriptExecutionDisabled", disabled);
        }
        if let Some(interception) = self.filter.interception() {
            fit("rejectRequestPattern", "Fetch.enable", interception);
        }
    }

    /// Tells whether frames and workers must be furnished, too.
    pub(super) fn reaches_frames(&self) -> bool {
        self.user_agent.is_some()
            || !self.headers.is_empty()
            || self.without_javascript
            || !self.filter.is_empty()
    }
}

impl Viewport {
    fn metrics(&self) -> Value {
        let orientation = if self.is_landscape {
            json!({ "angle": 90, "type": "landscapePrimary" })
        } else {
            json!({ "angle": 0, "type": "portraitPrimary" })
        };
        json!({
            "width": self.width,
            "height": self.height,
            "deviceScaleFactor": self.device_scale_factor,
            "mobile": self.is_mobile,
            "screenOrientation": orientation,
        })
    }
}
