//! The state of a pool at one moment, made once a second for everybody who watches.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use pool_core::{Class as BrowserClass, GroupStats, ResourceState, Stats};
use pool_fleet::subject::split_lease_id;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Gateway;
use super::history::Meter;
use super::lease::ClientLease;
use super::who::{Tenant as TenantOfConfig, Who};
use crate::api::{
    Browser, Check, Class, Counters, Holder, Lease, Load, Point, State, Tenant, Waiter, ms, unix_ms,
};
use crate::fleet::ProfileWaiter;
use crate::metrics::Metrics;

/// Number of events and errors in a snapshot.
const EVENTS: usize = 60;
const ERRORS: usize = 20;

/// Number of waiters in a snapshot: with thousands, it would be large and nobody would read it.
const WAITERS: usize = 200;

impl Gateway {
    /// Returns everything that there is to see; a tenant sees the numbers of the pool and the
    /// details of what is its own.
    pub(super) fn snapshot(&self, who: &Who) -> State {
        let stats = self.stats();
        let mut sessions = self.leases.all();
        sessions.retain(|session| who.sees(session));
        let is_operator = who.tenant().is_none();
        let holders: HashMap<u64, Holder> =
            sessions.iter().map(|session| (session.browser, holder(session))).collect();
        let settings = self.settings();
        State {
            at_ms: unix_ms(),
            uptime_ms: ms(self.started.elapsed()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pool: settings.pool_name.clone(),
            draining: stats.draining || self.is_draining(),
            load: self.load(&stats, settings.max_waiting),
            counters: counters(&stats),
            wait: self.observer().waits().summary(),
            oldest_wait_ms: stats.oldest_wait.map(ms),
            memory_bytes: self.memory(),
            machine: self.history.machine(),
            classes: if is_operator { classes(&stats) } else { Vec::new() },
            browsers: self.browsers(who, &holders),
            waiters: self.waiters(who),
            tenants: self.tenants(who, &stats),
            fleet: self.seen_fleet().filter(|_| is_operator),
            sessions: sessions.iter().map(|session| lease(session)).collect(),
            events: self.observer().journal().latest(if is_operator { EVENTS } else { 0 }),
            errors: self.observer().journal().errors(if is_operator { ERRORS } else { 0 }),
        }
    }

    /// Returns the numbers of the pool; a client that waits for a profile counts as one that waits for a browser.
    pub(super) fn stats(&self) -> Stats {
        let mut stats = self.pool().stats();
        for waiter in self.profile_waiters() {
            stats.load.waiting += 1;
            stats.oldest_wait = stats.oldest_wait.max(Some(waiter.since.elapsed()));
            let classes = &mut stats.classes;
            if let Some(class) = classes.iter_mut().find(|held| held.class == waiter.class) {
                class.load.waiting += 1;
            }
        }
        stats
    }

    fn profile_waiters(&self) -> Vec<ProfileWaiter> {
        self.fleet().map(|fleet| fleet.profile_waiters()).unwrap_or_default()
    }

    fn load(&self, stats: &Stats, max_waiting: usize) -> Load {
        let load = &stats.load;
        Load {
            creating: load.creating,
            idle: load.idle,
            leased: load.leased,
            recycling: load.recycling,
            checking: load.checking,
            closing: load.closing,
            waiting: load.waiting,
            total: load.total(),
            min_size: self.min_size(),
            max_size: load.max_size,
            max_waiting,
            utilization: load.utilization(),
        }
    }

    /// Returns the memory of all browsers, with each Chromium counted once, in bytes.
    pub(super) fn memory(&self) -> u64 {
        let vitals =
            self.pool().resources().into_iter().filter_map(|info| self.pool().vitals(info.id));
        let by_process: HashMap<_, _> =
            vitals.filter_map(|vitals| Some((vitals.pid, vitals.memory?.0))).collect();
        by_process.values().sum()
    }

    fn browsers(&self, who: &Who, holders: &HashMap<u64, Holder>) -> Vec<Browser> {
        let now = Instant::now();
        let view = |info: pool_core::ResourceInfo| {
            let vitals = self.pool().vitals(info.id).unwrap_or_default();
            Browser {
                id: info.id.get(),
                class: info.class.to_string(),
                profile: part(&info.class, "profile"),
                region: part(&info.class, "region"),
                state: state(info.state).into(),
                since_ms: ms(now - info.since),
                age_ms: ms(now - info.created_at),
                uses: info.uses,
                pid: vitals.pid,
                memory_bytes: vitals.memory.map(|(bytes, _)| bytes),
                last_check: info.last_check.map(|(at, took)| Check {
                    ago_ms: ms(now - at),
                    took_ms: took.as_secs_f64() * 1000.0,
                }),
                lease: holders.get(&info.id.get()).cloned(),
            }
        };
        let seen = |info: &pool_core::ResourceInfo| {
            who.tenant().is_none() || holders.contains_key(&info.id.get())
        };
        self.pool().resources().into_iter().filter(seen).map(view).collect()
    }

    fn waiters(&self, who: &Who) -> Vec<Waiter> {
        let rate = self.history.release_rate();
        let view = |(index, info): (usize, pool_core::WaiterInfo)| Waiter {
            position: index + 1,
            class: info.class.to_string(),
            profile: part(&info.class, "profile"),
            region: part(&info.class, "region"),
            tenant: info.group.as_deref().map(str::to_owned),
            priority: info.priority,
            waited_ms: ms(info.waited),
            expected_ms: (rate > 0.0).then(|| ((index + 1) as f64 / rate * 1000.0) as u64),
            why: None,
        };
        let mut waiters = self.pool().waiters();
        waiters.retain(|info| who.sees_tenant(info.group.as_deref()));
        let mut waiters: Vec<_> = waiters.into_iter().take(WAITERS).enumerate().map(view).collect();
        // A browser that is free is of no use to them: behind all that one would serve.
        let fleet = self.fleet();
        for waiter in self.profile_waiters() {
            if waiters.len() < WAITERS && who.sees_tenant(waiter.group.as_deref()) {
                waiters.push(Waiter {
                    position: waiters.len() + 1,
                    class: waiter.class.to_string(),
                    profile: Some(waiter.profile.to_string()),
                    region: part(&waiter.class, "region"),
                    tenant: waiter.group.as_deref().map(str::to_owned),
                    priority: waiter.priority,
                    waited_ms: ms(waiter.since.elapsed()),
                    expected_ms: None,
                    why: fleet.and_then(|fleet| fleet.reason_of(&waiter)),
                });
            }
        }
        waiters
    }

    fn tenants(&self, who: &Who, stats: &Stats) -> Vec<Tenant> {
        let mut numbers = self.tenant_numbers(stats);
        numbers.retain(|tenant| who.sees_tenant(Some(&tenant.name)));
        numbers
    }

    /// Returns the present numbers of each configured tenant, and its totals since the start.
    pub(super) fn tenant_numbers(&self, stats: &Stats) -> Vec<Tenant> {
        let settings = self.settings();
        if settings.tenants.is_empty() {
            return Vec::new();
        }
        self.book_all();
        let groups: HashMap<&str, &GroupStats> =
            stats.groups.iter().map(|group| (&*group.name, group)).collect();
        let for_profiles = self.profile_waiters();
        let numbers = |tenant: &TenantOfConfig| {
            let group = groups.get(&*tenant.name);
            let of_it = |waiter: &&ProfileWaiter| waiter.group.as_deref() == Some(&*tenant.name);
            let used = self.usage.total(Some(&tenant.name));
            Tenant {
                name: tenant.name.clone(),
                leased: group.map_or(0, |group| group.leased),
                waiting: group.map_or(0, |group| group.waiting)
                    + for_profiles.iter().filter(of_it).count(),
                max_leases: tenant.config.max_leases,
                share: tenant.config.share,
                leases: used.leases,
                failures: used.failures,
                full: used.full,
                queue_full: used.queue_full,
                browser_seconds: used.browser_ms as f64 / 1000.0,
            }
        };
        settings.tenants.iter().map(numbers).collect()
    }
}

fn counters(stats: &Stats) -> Counters {
    let counters = &stats.counters;
    Counters {
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

fn classes(stats: &Stats) -> Vec<Class> {
    let view = |class: &pool_core::ClassStats| Class {
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

fn holder(session: &ClientLease) -> Holder {
    Holder {
        id: session.public_id.clone(),
        peer: session.peer.map(|peer| peer.to_string()),
        tenant: session.asked.tenant.clone(),
        tracking_id: session.asked.tracking_id.clone(),
        work: session.work.map(|work| work.word().into()),
        held_ms: ms(session.began.elapsed()),
    }
}

/// Returns a lease in the form of `/sessions` and the snapshot.
pub(super) fn lease(session: &ClientLease) -> Lease {
    let connections = session.connections();
    let [messages_in, messages_out, bytes_in, bytes_out] = session.traffic.totals();
    let began_at = session.began_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Lease {
        id: session.public_id.clone(),
        node: split_lease_id(&session.public_id).map(|(node, _)| node.to_owned()),
        browser_id: session.browser,
        tracking_id: session.asked.tracking_id.clone(),
        tenant: session.asked.tenant.clone(),
        peer: session.peer.map(|peer| peer.to_string()),
        kind: session.work.map_or(session.kind.as_str(), |_| "work").into(),
        work: session.work.map(|work| work.word().into()),
        class: session.class.to_string(),
        profile: part(&session.class, "profile"),
        region: part(&session.class, "region"),
        priority: session.asked.priority,
        started_on: ms(began_at),
        time_alive_ms: ms(session.began.elapsed()),
        waited_ms: ms(session.waited),
        idle_ms: ms(session.silent_for()),
        timeout_ms: session.limit.map(ms),
        idle_timeout_ms: session.idle_limit.map(ms),
        session: session.asked.session.clone(),
        renewed: session.renewed.map(|end| end.code().into()),
        state: if connections == 0 { "waiting" } else { "connected" }.into(),
        keep_ms: session.keep().map(ms),
        kept_for_ms: session.kept_for().map(ms),
        connections,
        messages_in,
        messages_out,
        bytes_in,
        bytes_out,
    }
}

/// Returns the profile or the region of a class.
pub(super) fn part(class: &BrowserClass, label: &str) -> Option<String> {
    class.get(label).map(ToOwned::to_owned)
}

fn state(state: ResourceState) -> &'static str {
    match state {
        ResourceState::Creating => "creating",
        ResourceState::Idle => "idle",
        ResourceState::Leased => "leased",
        ResourceState::Recycling => "recycling",
        ResourceState::Checking => "checking",
        _ => "closing",
    }
}

/// Interval at which the plots advance.
const INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which the memory of the browsers is measured, since that takes a while in `/proc`.
const MEMORY_INTERVAL: u32 = 10;

/// Number of seconds between writes of what tenants use.
const USAGE_INTERVAL: u32 = 30;

/// Takes the snapshots until the gateway is gone.
pub(super) async fn run(gateway: Weak<Gateway>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut meter = Meter::default();
    let mut second = 0_u32;
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        let stats = gateway.stats();
        let wait = gateway.observer().waits().summary();
        let point = Point {
            at_ms: unix_ms(),
            active: stats.load.leased,
            idle: stats.load.idle,
            total: stats.load.total(),
            waiting: stats.load.waiting,
            avg_wait_ms: wait.avg_ms,
            p95_wait_ms: wait.p95_ms,
            utilization: stats.load.utilization(),
            rejected: stats.counters.rejected,
            released: stats.counters.released,
        };
        gateway.history.add(point, meter.read());
        if u64::from(second).is_multiple_of(Metrics::UPKEEP_INTERVAL.as_secs()) {
            gateway.observer().metrics().upkeep();
        }
        if second % USAGE_INTERVAL == USAGE_INTERVAL - 1 {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move { gateway.write_usage().await });
        }
        if second.is_multiple_of(MEMORY_INTERVAL) {
            // It may take a while, and the next second does not wait for it.
            let pool = Arc::clone(gateway.pool());
            tokio::spawn(async move { pool.measure().await });
        }
        gateway.see_fleet().await;
        gateway.watchers.publish(|| snapshot(&gateway));
        second = second.wrapping_add(1);
    }
}

fn snapshot(gateway: &Gateway) -> Arc<str> {
    let snapshot = gateway.snapshot(&Who::Operator);
    serde_json::to_string(&snapshot).expect("a snapshot is plain data").into()
}
