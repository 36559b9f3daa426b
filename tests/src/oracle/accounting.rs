use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::{Findings, Ours};
use crate::Service;
use crate::process::{Process, descendants};

const STATES: [&str; 6] = ["creating", "idle", "leased", "recycling", "checking", "closing"];

/// Compares what a pool at rest says of itself with what is there.
pub(super) async fn accounting(
    service: &Service,
    ours: &Ours,
    min_size: usize,
    findings: &mut Findings,
) {
    // The processes are looked at between two looks at the API, so that what changes meanwhile is
    // seen to do so.
    let before = service.state().await;
    let chromium = ours.chromium();
    let state = service.state().await;
    if resources(&before) != resources(&state) {
        findings.add("browsers come and go");
        return;
    }
    counts(&state, min_size, findings);
    processes(&state, &chromium, findings);
    let sessions = service.sessions().await.len();
    if sessions != 0 {
        findings.add(format!("{sessions} leases are held by nobody"));
    }
    for name in STATES {
        let metric = service.metric("browserpool_browsers", &format!("state=\"{name}\"")).await;
        let said = number(&state["load"][name]);
        if metric != said as f64 {
            findings.add(format!("{said} browsers are {name}, the metrics say {metric}"));
        }
    }
}

fn counts(state: &Value, min_size: usize, findings: &mut Findings) {
    let load = &state["load"];
    let count = |name: &str| number(&load[name]);
    for busy in ["creating", "leased", "recycling", "checking", "closing", "waiting"] {
        if count(busy) != 0 {
            findings.add(format!("{} are {busy}", count(busy)));
        }
    }
    let sum: u64 = STATES.iter().map(|name| count(name)).sum();
    if sum != count("total") || sum > count("max_size") {
        findings.add(format!("the states do not add up: {load}"));
    }
    if count("idle") < min_size as u64 {
        findings.add(format!("{} idle of at least {min_size}", count("idle")));
    }
}

fn processes(state: &Value, chromium: &[Process], findings: &mut Findings) {
    let known: BTreeSet<u32> = resources(state)
        .iter()
        .filter_map(|(_, _, pid)| u32::try_from(pid.as_u64()?).ok())
        .collect();
    let mut browsers: Vec<&Process> =
        chromium.iter().filter(|process| process.is_browser()).collect();
    // A script in front of a Chromium has its arguments, and is what the pool has started.
    let all: HashSet<u32> = browsers.iter().map(|process| process.id.pid).collect();
    browsers.retain(|process| !all.contains(&process.parent));
    let found: BTreeSet<u32> = browsers.iter().map(|process| process.id.pid).collect();
    if known != found {
        findings.add(format!("the API knows of {known:?}, there are {found:?}"));
    }
    let mut accounted: HashSet<u32> = found.clone().into_iter().collect();
    for browser in browsers {
        let below = descendants(browser.id.pid, chromium);
        accounted.extend(below.iter().map(|process| process.id.pid));
    }
    // Helpers of the zygote's kind and crash handlers get another parent, but keep or once had
    // the group of their browser.
    for process in chromium {
        let belongs = found.contains(&process.group) || process.name.starts_with("chrome_crashpad");
        if !accounted.contains(&process.id.pid) && !belongs {
            findings.add(format!(
                "nobody's: {:?}",
                super::ours::describe(std::slice::from_ref(process))
            ));
        }
    }
}

/// Id, state and process of every browser, as the API tells them.
fn resources(state: &Value) -> Vec<(u64, String, Value)> {
    let browsers = state["browsers"].as_array().cloned().unwrap_or_default();
    let mut resources: Vec<(u64, String, Value)> = browsers
        .iter()
        .map(|browser| {
            let state = browser["state"].as_str().unwrap_or_default().to_owned();
            (number(&browser["id"]), state, browser["pid"].clone())
        })
        .collect();
    resources.sort_by_key(|(id, ..)| *id);
    resources
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
