use std::collections::HashMap;

use pool_core::{GroupStats, Stats};
use serde::Serialize;
use tokio::time::Instant;

use super::Gateway;
use super::machine::Machine;
use super::session_view::SessionView;
use super::views::{
    BrowserView, CheckView, ClassView, CountersView, HolderView, LoadView, TenantView, WaiterView,
    classes, ms, part, state, unix_ms,
};
use super::who::{Tenant, Who};
use crate::metrics::{Entry, TenantNumbers, WaitSummary};

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
    tenants: Vec<TenantView>,
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
    /// Returns all that there is to see; a tenant sees the numbers of the pool, and beyond them what
    /// is its own.
    pub(super) fn snapshot(&self, who: &Who) -> Snapshot {
        let stats = self.fleet().stats();
        let mut sessions = self.sessions.all();
        sessions.retain(|session| who.sees(session));
        let is_operator = who.tenant().is_none();
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
            classes: if is_operator { classes(&stats) } else { Vec::new() },
            browsers: self.browsers(who, &holders),
            waiters: self.waiters(who),
            tenants: self.tenants(who, &stats),
            sessions: sessions.iter().map(|session| SessionView::of(session)).collect(),
            events: self.observer().journal().latest(if is_operator { EVENTS } else { 0 }),
            errors: self.observer().journal().errors(if is_operator { ERRORS } else { 0 }),
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

    fn browsers(&self, who: &Who, holders: &HashMap<u64, HolderView>) -> Vec<BrowserView> {
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
        let seen = |info: &pool_core::ResourceInfo| {
            who.tenant().is_none() || holders.contains_key(&info.id.get())
        };
        self.fleet().resources().into_iter().filter(seen).map(view).collect()
    }

    fn waiters(&self, who: &Who) -> Vec<WaiterView> {
        let rate = self.history.release_rate();
        let view = |(index, info): (usize, pool_core::WaiterInfo)| WaiterView {
            position: index + 1,
            class: info.class.to_string(),
            profile: part(&info.class, "profile"),
            region: part(&info.class, "region"),
            tenant: info.group.as_deref().map(str::to_owned),
            priority: info.priority,
            waited_ms: ms(info.waited),
            expected_ms: (rate > 0.0).then(|| ((index + 1) as f64 / rate * 1000.0) as u64),
        };
        let mut waiters = self.fleet().waiters();
        waiters.retain(|info| who.sees_tenant(info.group.as_deref()));
        waiters.into_iter().take(WAITERS).enumerate().map(view).collect()
    }

    fn tenants(&self, who: &Who, stats: &Stats) -> Vec<TenantView> {
        let mut numbers = self.tenant_numbers(stats);
        numbers.retain(|tenant| who.sees_tenant(Some(&tenant.name)));
        numbers.into_iter().map(TenantView::of).collect()
    }

    /// Returns what each tenant of the configuration has at present, and has had since the start.
    pub(super) fn tenant_numbers(&self, stats: &Stats) -> Vec<TenantNumbers> {
        let settings = self.settings();
        if settings.tenants.is_empty() {
            return Vec::new();
        }
        self.book_all();
        let groups: HashMap<&str, &GroupStats> =
            stats.groups.iter().map(|group| (&*group.name, group)).collect();
        let numbers = |tenant: &Tenant| {
            let group = groups.get(&*tenant.name);
            let used = self.usage.total(Some(&tenant.name));
            TenantNumbers {
                name: tenant.name.clone(),
                leased: group.map_or(0, |group| group.leased),
                waiting: group.map_or(0, |group| group.waiting),
                max_leases: tenant.config.max_leases,
                share: tenant.config.share,
                leases: used.leases,
                failures: used.failures,
                browser_seconds: used.browser_ms as f64 / 1000.0,
            }
        };
        settings.tenants.iter().map(numbers).collect()
    }
}
