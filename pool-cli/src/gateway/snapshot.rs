use std::collections::HashMap;

use serde::Serialize;
use tokio::time::Instant;

use super::Gateway;
use super::machine::Machine;
use super::session_view::SessionView;
use super::views::{
    BrowserView, CheckView, ClassView, CountersView, HolderView, LoadView, WaiterView, classes, ms,
    part, state, unix_ms,
};
use crate::metrics::{Entry, WaitSummary};

/// The whole of a pool at one moment: what the dashboard, `status` and `top` show.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    at_ms: u64,
    uptime_ms: u64,
    version: &'static str,
    pool: String,
    draining: bool,
    load: LoadView,
    counters: CountersView,
    wait: WaitSummary,
    oldest_wait_ms: Option<u64>,
    memory_bytes: u64,
    machine: Machine,
    classes: Vec<ClassView>,
    browsers: Vec<BrowserView>,
    waiters: Vec<WaiterView>,
    sessions: Vec<SessionView>,
    events: Vec<Entry>,
    errors: Vec<Entry>,
}

/// Events and errors in a snapshot.
const EVENTS: usize = 60;
const ERRORS: usize = 20;

/// Waiters in a snapshot: with thousands, it would be large and nobody would read it.
const WAITERS: usize = 200;

impl Gateway {
    pub(super) fn snapshot(&self) -> Snapshot {
        let stats = self.fleet().stats();
        let sessions = self.sessions.all();
        let holders: HashMap<u64, HolderView> =
            sessions.iter().map(|session| (session.browser, HolderView::of(session))).collect();
        let settings = self.settings();
        Snapshot {
            at_ms: unix_ms(),
            uptime_ms: ms(self.started.elapsed()),
            version: env!("CARGO_PKG_VERSION"),
            pool: settings.pool_name.clone(),
            draining: stats.draining || self.is_draining(),
            load: LoadView::of(&stats.load, self.min_size(), settings.max_waiting),
            counters: CountersView::of(&stats),
            wait: self.observer().waits().summary(),
            oldest_wait_ms: stats.oldest_wait.map(ms),
            memory_bytes: self.memory(),
            machine: self.history.machine(),
            classes: classes(&stats),
            browsers: self.browsers(&holders),
            waiters: self.waiters(),
            sessions: sessions.iter().map(|session| SessionView::of(session)).collect(),
            events: self.observer().journal().latest(EVENTS),
            errors: self.observer().journal().errors(ERRORS),
        }
    }

    /// Memory of all browsers, each Chromium counted once, in bytes.
    pub(super) fn memory(&self) -> u64 {
        let vitals =
            self.fleet().resources().into_iter().filter_map(|info| self.fleet().vitals(info.id));
        let by_process: HashMap<_, _> =
            vitals.filter_map(|vitals| Some((vitals.pid, vitals.memory?.0))).collect();
        by_process.values().sum()
    }

    fn browsers(&self, holders: &HashMap<u64, HolderView>) -> Vec<BrowserView> {
        let now = Instant::now();
        let view = |info: pool_core::ResourceInfo| {
            let vitals = self.fleet().vitals(info.id).unwrap_or_default();
            BrowserView {
                id: info.id.get(),
                class: info.class.to_string(),
                profile: part(&info.class, "profile"),
                region: part(&info.class, "region"),
                state: state(info.state),
                since_ms: ms(now - info.since),
                age_ms: ms(now - info.created_at),
                uses: info.uses,
                pid: vitals.pid,
                memory_bytes: vitals.memory.map(|(bytes, _)| bytes),
                last_check: info.last_check.map(|(at, took)| CheckView {
                    ago_ms: ms(now - at),
                    took_ms: took.as_secs_f64() * 1000.0,
                }),
                lease: holders.get(&info.id.get()).cloned(),
            }
        };
        self.fleet().resources().into_iter().map(view).collect()
    }

    fn waiters(&self) -> Vec<WaiterView> {
        let rate = self.history.release_rate();
        let view = |(index, info): (usize, pool_core::WaiterInfo)| WaiterView {
            position: index + 1,
            class: info.class.to_string(),
            profile: part(&info.class, "profile"),
            region: part(&info.class, "region"),
            priority: info.priority,
            waited_ms: ms(info.waited),
            expected_ms: (rate > 0.0).then(|| ((index + 1) as f64 / rate * 1000.0) as u64),
        };
        self.fleet().waiters().into_iter().take(WAITERS).enumerate().map(view).collect()
    }
}
