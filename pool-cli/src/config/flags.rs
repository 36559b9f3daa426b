//! What is allowed of Chromium's flags.

use super::kind::{Complaint, complaint};

const PIPE: &str = "browsers are spoken to over a pipe: no port is ever opened";
const PROFILE: &str = "use a profile: [profiles.NAME]";
const REGION: &str = "use a region: `proxies` in [regions.NAME]";
const WEBRTC: &str = "WebRTC is confined wherever a region has proxies";

/// Flags that the pool sets itself, with the setting to use instead; pool-chrome refuses them too,
/// but cannot say where they stand.
const OWN_FLAGS: [(&str, &str); 18] = [
    ("--remote-debugging-port", PIPE),
    ("--remote-debugging-address", PIPE),
    ("--remote-debugging-pipe", PIPE),
    ("--remote-debugging-io-pipes", PIPE),
    ("--remote-debugging-socket-name", PIPE),
    ("--user-data-dir", PROFILE),
    ("--profile-directory", PROFILE),
    ("--proxy-server", REGION),
    ("--proxy-pac-url", REGION),
    ("--proxy-auto-detect", REGION),
    ("--proxy-bypass-list", REGION),
    ("--no-proxy-server", REGION),
    ("--force-webrtc-ip-handling-policy", WEBRTC),
    ("--webrtc-ip-handling-policy", WEBRTC),
    ("--no-sandbox", "use `sandbox = \"off\"` in [chrome]"),
    ("--headless", "use `headless` in [chrome]"),
    ("--no-startup-window", "the pool sets it itself"),
    ("--type", "it would make Chromium something else than a browser"),
];

/// Checks one of `args`.
pub(super) fn check(text: &str) -> Result<(), Complaint> {
    let Some(bare) = text.strip_prefix("--").filter(|bare| !bare.is_empty()) else {
        return Err(complaint(format!("`{text}` is not a flag"))
            .hint(format!("flags begin with two dashes: \"--{}\"", text.trim_start_matches('-'))));
    };
    if text.contains(['\0', '\n', '\r']) {
        return Err(complaint("a flag must be one line"));
    }
    let name = &text[..2 + bare.find('=').unwrap_or(bare.len())];
    match OWN_FLAGS.iter().find(|(own, _)| *own == name) {
        Some((own, instead)) => {
            Err(complaint(format!("`{own}` is not yours to set")).hint(*instead))
        }
        None => Ok(()),
    }
}
