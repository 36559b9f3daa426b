use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use pool_core::{Class, Load, Stats};
use serde::Serialize;
use tokio::time::Instant;

use super::Gateway;
use super::leasing::word;
use super::machine::Machine;
use super::session::Session;
use crate::metrics::{Entry, WaitSummary};

/// The whole of a pool at one moment: what the dashboard, `status` and `top` show.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    at_ms: u64,
    uptime_ms: u64,
    version: &'static str,
    pool: String,
    draining: bool,
    pub(super) load: LoadView,
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

#[derive(Debug, Serialize)]
pub(super) struct LoadView {
    creating: usize,
    idle: usize,
    leased: usize,
    recycling: usize,
    checking: usize,
    closing: usize,
    waiting: usize,
    total: usize,
    min_size: usize,
    max_size: usize,
    max_waiting: usize,
    utilization: f64,
}

#[derive(Debug, Serialize)]
struct CountersView {
    created: u64,
    create_failed: u64,
    closed: u64,
    acquired: u64,
    released: u64,
    recycled: u64,
    recycle_failed: u64,
    checks: u64,
    checks_failed: u64,
    timeouts: u64,
    rejected: u64,
    cancelled: u64,
    errors: u64,
    revoked: u64,
    policy_panics: u64,
}

#[derive(Debug, Serialize)]
struct ClassView {
    class: String,
    profile: Option<String>,
    region: Option<String>,
    total: usize,
    idle: usize,
    leased: usize,
    waiting: usize,
    min_size: usize,
    max_size: usize,
    warm: usize,
    failing: bool,
}

#[derive(Debug, Serialize)]
struct BrowserView {
    id: u64,
    class: String,
    profile: Option<String>,
    region: Option<String>,
    state: &'static str,
    /// How long it has been in this state.
    since_ms: u64,
    age_ms: u64,
    uses: u64,
    pid: Option<u32>,
    memory_bytes: Option<u64>,
    last_check: Option<CheckView>,
    /// Who holds it, if a client of the gateway does.
    lease: Option<HolderView>,
}

#[derive(Debug, Serialize)]
struct CheckView {
    ago_ms: u64,
    took_ms: f64,
}

#[derive(Clone, Debug, Serialize)]
struct HolderView {
    id: String,
    peer: Option<String>,
    tenant: Option<String>,
    tracking_id: Option<String>,
    held_ms: u64,
}

#[derive(Debug, Serialize)]
struct WaiterView {
    position: usize,
    class: String,
    profile: Option<String>,
    region: Option<String>,
    priority: Option<u8>,
    waited_ms: u64,
    /// At the pace of the last minute.
    expected_ms: Option<u64>,
}

/// A lease of a client, as `/sessions` and the snapshot list it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionView {
    id: String,
    browser_id: u64,
    tracking_id: Option<String>,
    tenant: Option<String>,
    peer: Option<String>,
    kind: &'static str,
    class: String,
    profile: Option<String>,
    region: Option<String>,
    priority: Option<u8>,
    /// Milliseconds since 1970.
    started_on: u64,
    time_alive_ms: u64,
    waited_ms: u64,
    idle_ms: u64,
    timeout_ms: Option<u64>,
    connections: usize,
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
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
            load: LoadView::of(&stats.load, self.min_size(&stats), settings.max_waiting),
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

    fn min_size(&self, stats: &Stats) -> usize {
        stats.classes.iter().find(|class| class.class.is_default()).map_or(0, |class| class.min)
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

impl LoadView {
    fn of(load: &Load, min_size: usize, max_waiting: usize) -> Self {
        Self {
            creating: load.creating,
            idle: load.idle,
            leased: load.leased,
            recycling: load.recycling,
            checking: load.checking,
            closing: load.closing,
            waiting: load.waiting,
            total: load.total(),
            min_size,
            max_size: load.max_size,
            max_waiting,
            utilization: load.utilization(),
        }
    }
}

impl CountersView {
    fn of(stats: &Stats) -> Self {
        let counters = &stats.counters;
        Self {
            created: counters.created,
            create_failed: counters.create_failed,
            closed: counters.closed,
            acquired: counters.acquired,
            released: counters.released,
            recycled: counters.recycled,
            recycle_failed: counters.recycle_failed,
            checks: counters.checks,
            checks_failed: counters.checks_failed,
            timeouts: counters.timeouts,
            rejected: counters.rejected,
            cancelled: counters.cancelled,
            errors: counters.errors,
            revoked: counters.revoked,
            policy_panics: counters.policy_panics,
        }
    }
}

impl HolderView {
    fn of(session: &Session) -> Self {
        Self {
            id: session.id.to_string(),
            peer: session.peer.map(|peer| peer.to_string()),
            tenant: session.asked.tenant.clone(),
            tracking_id: session.asked.tracking_id.clone(),
            held_ms: ms(session.began.elapsed()),
        }
    }
}

impl SessionView {
    pub(super) fn of(session: &Session) -> Self {
        let [messages_in, messages_out, bytes_in, bytes_out] = session.traffic.totals();
        let began_at = session.began_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            id: session.id.to_string(),
            browser_id: session.browser,
            tracking_id: session.asked.tracking_id.clone(),
            tenant: session.asked.tenant.clone(),
            peer: session.peer.map(|peer| peer.to_string()),
            kind: word(session.kind),
            class: session.class.to_string(),
            profile: part(&session.class, "profile"),
            region: part(&session.class, "region"),
            priority: session.asked.priority,
            started_on: ms(began_at),
            time_alive_ms: ms(session.began.elapsed()),
            waited_ms: ms(session.waited),
            idle_ms: ms(session.silent_for()),
            timeout_ms: session.limit.map(ms),
            connections: session.connections(),
            messages_in,
            messages_out,
            bytes_in,
            bytes_out,
        }
    }
}

fn classes(stats: &Stats) -> Vec<ClassView> {
    let view = |class: &pool_core::ClassStats| ClassView {
        class: class.class.to_string(),
        profile: part(&class.class, "profile"),
        region: part(&class.class, "region"),
        total: class.load.total(),
        idle: class.load.idle,
        leased: class.load.leased,
        waiting: class.load.waiting,
        min_size: class.min,
        max_size: class.load.max_size,
        warm: class.warm,
        failing: class.failing,
    };
    stats.classes.iter().map(view).collect()
}

fn part(class: &Class, label: &str) -> Option<String> {
    class.get(label).map(ToOwned::to_owned)
}

fn state(state: pool_core::ResourceState) -> &'static str {
    use pool_core::ResourceState as State;
    match state {
        State::Creating => "creating",
        State::Idle => "idle",
        State::Leased => "leased",
        State::Recycling => "recycling",
        State::Checking => "checking",
        _ => "closing",
    }
}

pub(super) fn unix_ms() -> u64 {
    ms(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
