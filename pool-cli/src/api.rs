//! The answers of `/api/…`, `/sessions` and `/kill`: one set of types, written by the gateway and
//! read by the commands.
//!
//! Fields that no command needs may be missing, so that the commands also understand a pool of
//! another version.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// The whole state of a pool at one moment, as the dashboard, `status` and `top` show it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    #[serde(default)]
    pub(crate) at_ms: u64,
    pub(crate) uptime_ms: u64,
    pub(crate) version: String,
    pub(crate) pool: String,
    pub(crate) draining: bool,
    pub(crate) load: Load,
    pub(crate) counters: Counters,
    pub(crate) wait: Wait,
    #[serde(default)]
    pub(crate) oldest_wait_ms: Option<u64>,
    pub(crate) memory_bytes: u64,
    #[serde(default)]
    pub(crate) machine: Machine,
    #[serde(default)]
    pub(crate) classes: Vec<Class>,
    pub(crate) browsers: Vec<Browser>,
    pub(crate) waiters: Vec<Waiter>,
    #[serde(default)]
    pub(crate) tenants: Vec<Tenant>,
    /// The fleet, if the pool is in one.
    #[serde(default)]
    pub(crate) fleet: Option<Fleet>,
    #[serde(default)]
    pub(crate) sessions: Vec<Lease>,
    #[serde(default)]
    pub(crate) events: Vec<Entry>,
    pub(crate) errors: Vec<Entry>,
}

/// Browsers by state, and clients that wait.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Load {
    pub(crate) creating: usize,
    pub(crate) idle: usize,
    pub(crate) leased: usize,
    pub(crate) recycling: usize,
    pub(crate) checking: usize,
    pub(crate) closing: usize,
    pub(crate) waiting: usize,
    pub(crate) total: usize,
    pub(crate) min_size: usize,
    pub(crate) max_size: usize,
    pub(crate) max_waiting: usize,
    pub(crate) utilization: f64,
}

/// Numbers of events since the pool was started.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counters {
    pub(crate) created: u64,
    pub(crate) create_failed: u64,
    pub(crate) closed: u64,
    pub(crate) acquired: u64,
    pub(crate) released: u64,
    pub(crate) recycled: u64,
    pub(crate) recycle_failed: u64,
    pub(crate) checks: u64,
    pub(crate) checks_failed: u64,
    pub(crate) timeouts: u64,
    pub(crate) rejected: u64,
    pub(crate) cancelled: u64,
    pub(crate) errors: u64,
    pub(crate) revoked: u64,
    pub(crate) policy_panics: u64,
}

/// Average and percentiles of the waits of the last minute, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wait {
    /// Number of granted requests in the sample.
    pub samples: usize,
    /// Their average wait.
    pub avg_ms: f64,
    /// Half of them waited no longer.
    pub p50_ms: f64,
    /// 95 of 100 waited no longer.
    pub p95_ms: f64,
    /// 99 of 100 waited no longer.
    pub p99_ms: f64,
}

/// Load of the machine, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Machine {
    /// Use of all cores over the last second.
    pub(crate) cpu: Option<u8>,
    /// Memory that is not available.
    pub(crate) memory: Option<u8>,
}

/// The browsers of one profile and region.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Class {
    pub(crate) class: String,
    pub(crate) profile: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) total: usize,
    pub(crate) idle: usize,
    pub(crate) leased: usize,
    pub(crate) waiting: usize,
    pub(crate) min_size: usize,
    pub(crate) max_size: usize,
    pub(crate) warm: usize,
    pub(crate) failing: bool,
}

/// One browser.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Browser {
    pub(crate) id: u64,
    pub(crate) class: String,
    pub(crate) profile: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) state: Cow<'static, str>,
    /// Time it has been in this state.
    pub(crate) since_ms: u64,
    pub(crate) age_ms: u64,
    pub(crate) uses: u64,
    pub(crate) pid: Option<u32>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) last_check: Option<Check>,
    /// Its holder, if a client of the gateway has leased it.
    pub(crate) lease: Option<Holder>,
}

/// The last check of an idle browser.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) ago_ms: u64,
    pub(crate) took_ms: f64,
}

/// The client that holds a browser.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Holder {
    pub(crate) id: String,
    pub(crate) peer: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) tracking_id: Option<String>,
    /// The route of the call that has the lease, if there is one.
    pub(crate) work: Option<Cow<'static, str>>,
    pub(crate) held_ms: u64,
}

/// A client that waits for a browser.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Waiter {
    pub(crate) position: usize,
    pub(crate) class: String,
    pub(crate) profile: Option<String>,
    pub(crate) region: Option<String>,
    /// Its tenant in the configuration; the name that a client gives itself is not shown here.
    pub(crate) tenant: Option<String>,
    pub(crate) priority: Option<u8>,
    pub(crate) waited_ms: u64,
    /// Expected wait at the pace of the last minute.
    pub(crate) expected_ms: Option<u64>,
    /// Reason for which a free browser does not serve it, if that is so.
    pub(crate) why: Option<String>,
}

/// Numbers of one configured tenant, at present and since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Leases that it holds.
    pub leased: usize,
    /// Its waiting clients.
    pub waiting: usize,
    /// Maximum number of its leases, if that is limited.
    pub max_leases: Option<usize>,
    /// Its share.
    pub share: f64,
    /// Leases granted to it since the start.
    pub leases: u64,
    /// Its requests that got no lease.
    pub failures: u64,
    /// Those of them that waited in vain because of its own limit of leases.
    pub full: u64,
    /// Those of them that were refused at once because of its own limit of waiting clients.
    pub queue_full: u64,
    /// Time for which it has held browsers.
    pub browser_seconds: f64,
}

/// The fleet of a pool, as one of its nodes sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fleet {
    /// The node that sees it.
    pub node: String,
    /// The node is connected to NATS. Without a connection it goes on with its own browsers.
    pub connected: bool,
    /// `connected`, `disconnected`, `closed`, or the reason why NATS cannot be used.
    pub connection: String,
    /// The nodes that are heard, including itself, by name.
    pub nodes: Vec<Node>,
    /// Connections of clients here to browsers at other nodes.
    pub relayed: usize,
    /// Totals of the node that answers.
    pub counters: FleetCounters,
}

/// A node of a fleet, at its last beat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// It is the node that answers.
    pub own: bool,
    /// The address at which the others reach it.
    pub address: String,
    /// The version of its program.
    pub version: String,
    /// `starting`, `running` or `draining`.
    pub phase: Cow<'static, str>,
    /// Labels of its configuration.
    pub labels: BTreeMap<String, String>,
    /// Browsers that it may have.
    pub places: usize,
    /// Browsers that it keeps ready.
    pub kept: usize,
    /// Leased browsers.
    pub leased: usize,
    /// Idle browsers.
    pub idle: usize,
    /// Browsers that are being launched.
    pub creating: usize,
    /// Browsers that it could launch now.
    pub room: usize,
    /// Clients that came to it and wait, wherever they may be served.
    pub waiting: usize,
    /// Requests in its queue, from its own clients and from others.
    pub queued: usize,
    /// Time that the first of its clients has waited.
    pub oldest_wait_ms: u64,
    /// Time since it joined the fleet.
    pub uptime_ms: u64,
    /// Memory of its machine that is in use, in percent.
    pub memory: Option<u8>,
}

/// Totals of a node since it joined its fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetCounters {
    /// Clients that got a lease of this node.
    pub granted_here: u64,
    /// Clients that got a lease of another node.
    pub granted_there: u64,
    /// Leases of other nodes that could not be reached.
    pub connections_failed: u64,
    /// Clients that were refused.
    pub refused: u64,
    /// Requests sent to other nodes.
    pub asks: u64,
    /// Offers of this node that another node accepted.
    pub offers_accepted: u64,
    /// Offers that were declined.
    pub offers_declined: u64,
    /// Offers that were not answered in time.
    pub offers_unanswered: u64,
    /// Leases of this node that other nodes have reached.
    pub taken: u64,
}

/// Figures for a scaler, of the whole fleet or of a pool that is not in one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Autoscale {
    pub(crate) nodes: usize,
    pub(crate) places: usize,
    pub(crate) leased: usize,
    pub(crate) waiting: usize,
    pub(crate) oldest_wait_seconds: f64,
    /// Places that would serve everybody: leased, waiting, and kept ready.
    pub(crate) wanted_places: usize,
}

/// A lease of a client, as `/sessions` and [`State`] list it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Lease {
    pub(crate) id: String,
    /// The node that has it, in a fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    pub(crate) browser_id: u64,
    pub(crate) tracking_id: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) peer: Option<String>,
    /// `work` for a lease that belongs to one call, otherwise `exclusive` or `shared`.
    pub(crate) kind: Cow<'static, str>,
    /// The route of that call.
    pub(crate) work: Option<Cow<'static, str>>,
    pub(crate) class: String,
    pub(crate) profile: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) priority: Option<u8>,
    /// Milliseconds since 1970.
    pub(crate) started_on: u64,
    pub(crate) time_alive_ms: u64,
    pub(crate) waited_ms: u64,
    pub(crate) idle_ms: u64,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) idle_timeout_ms: Option<u64>,
    /// The name by which its clients find it again.
    pub(crate) session: Option<String>,
    /// The end of the previous lease with that name.
    pub(crate) renewed: Option<Cow<'static, str>>,
    /// `connected`, or `waiting` for a client.
    pub(crate) state: Cow<'static, str>,
    /// Time that it goes on without a connection; `null` if until it is released.
    pub(crate) keep_ms: Option<u64>,
    /// Time that it will go on if no client comes.
    pub(crate) kept_for_ms: Option<u64>,
    pub(crate) connections: usize,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// One event of a pool.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// Counts up from 0, so that a reader knows which entries it has seen.
    pub number: u64,
    /// Time of the event, in milliseconds since 1970.
    pub at_ms: u64,
    /// The kind of event, in one word.
    pub event: Cow<'static, str>,
    /// Severity.
    pub severity: Severity,
    /// The browser that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub browser: Option<u64>,
    /// The class of the browser, or of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The reason, or the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time taken, waited or held, if the event ends something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
}

/// Severity of an [`Entry`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A routine event.
    #[default]
    Info,
    /// A fault that the pool has dealt with.
    Warning,
}

/// One second in the life of a pool; `/api/history` has an hour of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Point {
    /// Milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// Leased browsers.
    pub(crate) active: usize,
    /// Idle browsers.
    pub(crate) idle: usize,
    /// All browsers.
    pub(crate) total: usize,
    /// Clients that wait.
    pub(crate) waiting: usize,
    /// Average wait of the last minute's granted requests, in milliseconds.
    pub(crate) avg_wait_ms: f64,
    /// 95 of 100 waited no longer.
    pub(crate) p95_wait_ms: f64,
    /// Share of the usable browsers that are leased.
    pub(crate) utilization: f64,
    /// Requests refused so far.
    #[serde(skip)]
    pub(crate) rejected: u64,
    /// Leases ended so far.
    #[serde(skip)]
    pub(crate) released: u64,
}

/// A page that a leased browser shows.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    pub(crate) title: String,
    pub(crate) url: String,
}

/// A change of size; what is left out stays as it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resize {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_size: Option<usize>,
}

/// The size of a pool after a [`Resize`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Resized {
    pub(crate) min_size: usize,
    pub(crate) max_size: usize,
}

/// Number of idle browsers that were closed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Flushed {
    pub(crate) closed: usize,
}

/// Number of leases that were ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Killed {
    pub(crate) killed: usize,
}

/// The state of a profile that is to be made new: of those with more than one, the first if it is left out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MakeNew {
    pub(crate) instance: u32,
    /// It is made new even if there is a copy of it, which is discarded.
    pub(crate) discard: bool,
}

/// A state of a profile that is new.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MadeNew {
    pub(crate) profile: String,
    pub(crate) instance: u32,
}

/// Outcome of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The settings that changed and apply from now on.
    pub changed: Vec<String>,
    /// The settings that changed and apply after a restart.
    pub needs_restart: Vec<String>,
}

impl Waiter {
    /// Describes what it waits for: its class, and why a free browser does not serve it.
    pub(crate) fn wanted(&self) -> String {
        match &self.why {
            Some(why) => format!("{}: {why}", self.class),
            None => self.class.clone(),
        }
    }
}

impl Holder {
    /// Describes the holder in one line: tenant, tracking id, work and address, as far as they are
    /// known.
    pub(crate) fn who(&self) -> String {
        let names = [
            self.tenant.as_deref(),
            self.tracking_id.as_deref(),
            self.work.as_deref(),
            self.peer.as_deref(),
        ];
        names.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

impl Fleet {
    /// Returns the node that this view belongs to.
    pub(crate) fn own(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.own)
    }
}

impl Node {
    /// Returns `true` if it was drained, or is about to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.phase == "draining"
    }

    /// Returns `true` if it offers browsers to others.
    pub(crate) fn is_running(&self) -> bool {
        self.phase == "running"
    }
}

impl Tenant {
    /// Returns its number of leases and their maximum.
    pub(crate) fn held(&self) -> String {
        let most = self.max_leases.map(|max| format!(" of {max}")).unwrap_or_default();
        format!("{}{most}", self.leased)
    }

    /// Returns the time for which it has held browsers.
    pub(crate) fn time(&self) -> String {
        crate::stdout::duration((self.browser_seconds * 1000.0) as u64)
    }
}

impl Entry {
    /// Describes the event and its reason in one line that does not disturb the terminal: a reason
    /// may contain text that a browser has printed.
    pub(crate) fn line(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or_default();
        let plain = |char: char| if char.is_control() { ' ' } else { char };
        format!("{}: {reason}", self.event).chars().map(plain).collect()
    }
}

impl State {
    /// Returns this moment as a point of the history.
    pub(crate) fn point(&self) -> Point {
        Point {
            at_ms: self.at_ms,
            active: self.load.leased,
            idle: self.load.idle,
            total: self.load.total,
            waiting: self.load.waiting,
            avg_wait_ms: self.wait.avg_ms,
            p95_wait_ms: self.wait.p95_ms,
            utilization: self.load.utilization,
            rejected: self.counters.rejected,
            released: self.counters.released,
        }
    }
}

/// Returns the present time, in milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    ms(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Returns a duration in whole milliseconds.
pub(crate) fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_printed_cannot_steer_the_terminal() {
        let reason = Some("\u{1b}[2Jgone\nfor good".to_owned());
        let entry = Entry { event: "closing".into(), reason, ..Entry::default() };
        assert_eq!(entry.line(), "closing:  [2Jgone for good");
    }
}
