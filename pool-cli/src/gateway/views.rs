//! The parts of a snapshot.

use std::time::{Duration, SystemTime};

use pool_core::{Class, ClassStats, Load, ResourceState, Stats};
use serde::Serialize;

use super::session::Session;
use crate::metrics::TenantNumbers;
use crate::pool::OpenPage;
use crate::work::WorkKind;

#[derive(Debug, Serialize)]
pub(super) struct LoadView {
    pub(super) creating: usize,
    pub(super) idle: usize,
    pub(super) leased: usize,
    pub(super) recycling: usize,
    pub(super) checking: usize,
    pub(super) closing: usize,
    pub(super) waiting: usize,
    pub(super) total: usize,
    pub(super) min_size: usize,
    pub(super) max_size: usize,
    pub(super) max_waiting: usize,
    pub(super) utilization: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct CountersView {
    pub(super) created: u64,
    pub(super) create_failed: u64,
    pub(super) closed: u64,
    pub(super) acquired: u64,
    pub(super) released: u64,
    pub(super) recycled: u64,
    pub(super) recycle_failed: u64,
    pub(super) checks: u64,
    pub(super) checks_failed: u64,
    pub(super) timeouts: u64,
    pub(super) rejected: u64,
    pub(super) cancelled: u64,
    pub(super) errors: u64,
    pub(super) revoked: u64,
    pub(super) policy_panics: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct ClassView {
    pub(super) class: String,
    pub(super) profile: Option<String>,
    pub(super) region: Option<String>,
    pub(super) total: usize,
    pub(super) idle: usize,
    pub(super) leased: usize,
    pub(super) waiting: usize,
    pub(super) min_size: usize,
    pub(super) max_size: usize,
    pub(super) warm: usize,
    pub(super) failing: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct BrowserView {
    pub(super) id: u64,
    pub(super) class: String,
    pub(super) profile: Option<String>,
    pub(super) region: Option<String>,
    pub(super) state: &'static str,
    /// Time it has been in this state.
    pub(super) since_ms: u64,
    pub(super) age_ms: u64,
    pub(super) uses: u64,
    pub(super) pid: Option<u32>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) last_check: Option<CheckView>,
    /// Who holds it, if a client of the gateway does.
    pub(super) lease: Option<HolderView>,
}

#[derive(Debug, Serialize)]
pub(super) struct CheckView {
    pub(super) ago_ms: u64,
    pub(super) took_ms: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct HolderView {
    pub(super) id: String,
    pub(super) peer: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) tracking_id: Option<String>,
    /// Kind of work, if it is for one call.
    pub(super) work: Option<&'static str>,
    pub(super) held_ms: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct WaiterView {
    pub(super) position: usize,
    pub(super) class: String,
    pub(super) profile: Option<String>,
    pub(super) region: Option<String>,
    /// Of the configuration; what a client says of itself is not shown here.
    pub(super) tenant: Option<String>,
    pub(super) priority: Option<u8>,
    pub(super) waited_ms: u64,
    /// At the pace of the last minute.
    pub(super) expected_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct TenantView {
    name: String,
    leased: usize,
    waiting: usize,
    max_leases: Option<usize>,
    share: f64,
    /// Since the pool was started, as the two below.
    leases: u64,
    failures: u64,
    browser_seconds: f64,
}

impl TenantView {
    pub(super) fn of(numbers: TenantNumbers) -> Self {
        let TenantNumbers { name, leased, waiting, max_leases, share, .. } = numbers;
        let TenantNumbers { leases, failures, browser_seconds, .. } = numbers;
        Self { name, leased, waiting, max_leases, share, leases, failures, browser_seconds }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct PageView {
    title: String,
    url: String,
}

/// Letters of a title or an address that are shown: a `data:` URL may have millions.
const LETTERS: usize = 2048;

impl PageView {
    pub(super) fn of(page: OpenPage) -> Self {
        let cut = |text: String| text.chars().take(LETTERS).collect();
        Self { title: cut(page.title), url: cut(page.url) }
    }
}

impl LoadView {
    pub(super) fn of(load: &Load, min_size: usize, max_waiting: usize) -> Self {
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
    pub(super) fn of(stats: &Stats) -> Self {
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
    pub(super) fn of(session: &Session) -> Self {
        Self {
            id: session.id.to_string(),
            peer: session.peer.map(|peer| peer.to_string()),
            tenant: session.asked.tenant.clone(),
            tracking_id: session.asked.tracking_id.clone(),
            work: session.work.map(WorkKind::word),
            held_ms: ms(session.began.elapsed()),
        }
    }
}

pub(super) fn classes(stats: &Stats) -> Vec<ClassView> {
    let view = |class: &ClassStats| ClassView {
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

pub(super) fn part(class: &Class, label: &str) -> Option<String> {
    class.get(label).map(ToOwned::to_owned)
}

pub(super) fn state(state: ResourceState) -> &'static str {
    match state {
        ResourceState::Creating => "creating",
        ResourceState::Idle => "idle",
        ResourceState::Leased => "leased",
        ResourceState::Recycling => "recycling",
        ResourceState::Checking => "checking",
        _ => "closing",
    }
}

pub(super) fn unix_ms() -> u64 {
    ms(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
