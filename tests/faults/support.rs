//! What several faults have in common.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use browser_pool_tests::process::ProcessId;
use browser_pool_tests::{Case, Cdp, Service, eventually};
use rustix::process::Signal;
use serde_json::Value;

/// How long a pool may take to be full again, on a machine that has much else to do.
pub(crate) const REFILL: Duration = Duration::from_secs(60);

/// Waits until the minimum of browsers is idle, and returns how long that took.
pub(crate) async fn until_full(service: &Service) -> Duration {
    eventually("the pool is full again", REFILL, async || {
        let load = service.state().await["load"].clone();
        let full = load["idle"].as_u64() >= load["min_size"].as_u64();
        if full { Ok(()) } else { Err(load) }
    })
    .await
}

/// Waits until no lease is held and none is cleaned up after, and returns how long that took.
pub(crate) async fn until_released(service: &Service, limit: Duration) -> Duration {
    eventually("the lease is over", limit, async || {
        let state = service.state().await;
        let load = &state["load"];
        let busy = ["leased", "recycling"].iter().any(|name| load[*name] != 0);
        let held = state["sessions"].as_array().is_some_and(|sessions| !sessions.is_empty());
        if busy || held { Err(load.clone()) } else { Ok(()) }
    })
    .await
}

/// The first commands of a client: what must never fail.
pub(crate) async fn works(client: &Cdp) -> Result<(), String> {
    let told = |error| format!("{error:?}");
    client.call("Browser.getVersion", Value::Object(Default::default())).await.map_err(told)?;
    let page = client.call("Target.createTarget", serde_json::json!({ "url": "about:blank" }));
    let target = page.await.map_err(told)?["targetId"].as_str().unwrap_or_default().to_owned();
    let page = browser_pool_tests::Page::attach(client, target).await.map_err(told)?;
    match page.try_eval("42").await {
        Ok(value) if value == 42 => page.close().await.map_err(told),
        other => Err(format!("{other:?}")),
    }
}

/// Kills every Chromium that idles, and waits until the pool has noticed.
pub(crate) async fn kill_idle(case: &Case) -> Vec<ProcessId> {
    let pids = case.service.browser_pids("idle").await;
    let processes: Vec<ProcessId> = pids.into_iter().filter_map(ProcessId::of).collect();
    for process in &processes {
        process.signal(Signal::KILL);
    }
    eventually("the deaths are noticed", REFILL, async || {
        let known = case.service.browser_pids("").await;
        let dead: Vec<_> = processes.iter().filter(|it| known.contains(&it.pid)).collect();
        if dead.is_empty() { Ok(()) } else { Err(format!("{dead:?}")) }
    })
    .await;
    processes
}

/// A program in the home of the case that stands for Chromium and can become another one.
#[derive(Debug)]
pub(crate) struct StandIn(PathBuf);

impl StandIn {
    /// One that is the real Chromium, or its shell.
    pub(crate) fn new(directory: &Path) -> Self {
        let stand_in = Self(directory.join("chromium"));
        stand_in.heal();
        stand_in
    }

    pub(crate) fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    /// Becomes a shell script with this body, which gets Chromium's arguments.
    pub(crate) fn become_script(&self, body: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("#!/bin/sh\n{body}\n")).expect("the home is ours");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("it is ours");
        // In one step: it may be executed at any moment.
        fs::rename(&new, &self.0).expect("the home is ours");
    }

    /// Becomes the fake Chromium that fails in this way.
    pub(crate) fn become_fake(&self, mode: &str) {
        let fake = browser_pool_tests::fake_chromium().display();
        self.become_script(&format!("exec {fake} --fake-mode={mode} \"$@\""));
    }

    /// Is not there any more.
    pub(crate) fn vanish(&self) {
        fs::remove_file(&self.0).expect("it was there");
    }

    /// Is the real one again.
    pub(crate) fn heal(&self) {
        let real = browser_pool_tests::Engine::any_executable();
        self.become_script(&format!("exec {} \"$@\"", real.display()));
    }
}
