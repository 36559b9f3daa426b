use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use pool_chrome::egress::Requests;
use pool_core::{Event, Stats};
use pool_fleet::{Transfer, TransferDirection, TransferOutcome};

use crate::api::{Fleet, Tenant};
use crate::pool::LeaseEnd;
use crate::work::WorkKind;

/// Reasons for the end of a browser in `browser_exits_total{reason}`: the codes of
/// [`CloseReason`](pool_core::CloseReason).
const BROWSER_EXITS: [&str; 14] = [
    "idle_timeout",
    "lifetime",
    "max_uses",
    "check_failed",
    "recycle_failed",
    "broken",
    "discarded",
    "policy",
    "overdue",
    "evicted",
    "surplus",
    "invalidated",
    "drained",
    "other",
];

const STATES: [&str; 6] = ["creating", "idle", "leased", "recycling", "checking", "closing"];

const OUTCOMES: [&str; 5] = ["granted", "timeout", "rejected", "cancelled", "error"];

/// Buckets in seconds: from granting an idle browser to the longest that anybody waits.
const WAITS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Buckets in seconds: from a screenshot to a long job.
const LEASES: [f64; 13] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0];

/// Buckets in seconds: from a reset to a launch that is about to be given up.
const WORK: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

/// The outcome of a call of one-shot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkOutcome {
    /// Its client got what it asked for.
    Ok,
    /// It could not be understood, or could not be done with this page.
    Invalid,
    /// There was no browser for it.
    Refused,
    /// The page took too long.
    Timeout,
    /// The page, or its browser, failed.
    Failed,
    /// Its client went away.
    Cancelled,
}

impl WorkOutcome {
    const ALL: [Self; 6] =
        [Self::Ok, Self::Invalid, Self::Refused, Self::Timeout, Self::Failed, Self::Cancelled];

    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Every metric of one pool.
pub struct Metrics {
    handle: PrometheusHandle,
    browsers: Family<Gauge>,
    browsers_max: Gauge,
    browsers_idle_min: Gauge,
    pending: Gauge,
    oldest_pending: Gauge,
    work: [Family<Counter>; 4],
    work_duration: Family<Histogram>,
    memory: Gauge,
    draining: Gauge,
    acquires: Family<Counter>,
    egress: Family<Counter>,
    launches: Family<Counter>,
    checks: Family<Counter>,
    exits: Family<Counter>,
    ended: Family<Counter>,
    acquire_wait: Histogram,
    lease_duration: Histogram,
    launch_duration: Histogram,
    reset_duration: Histogram,
    pub(crate) connections: Gauge,
    messages: Family<Counter>,
    bytes: Family<Counter>,
    tenants: TenantSeries,
    fleet: OnceLock<FleetSeries>,
}

impl Metrics {
    /// Creates all series of the pool with this name, at 0.
    #[must_use]
    pub fn new(pool: &str) -> Self {
        let buckets = |builder: PrometheusBuilder, name: &str, bounds: &[f64]| {
            let name = Matcher::Full(format!("browserpool_{name}"));
            builder.set_buckets_for_metric(name, bounds).expect("there is a bucket")
        };
        let builder = PrometheusBuilder::new().add_global_label("pool", pool);
        let builder = buckets(builder, "acquire_wait_seconds", &WAITS);
        let builder = buckets(builder, "lease_duration_seconds", &LEASES);
        let builder = buckets(builder, "browser_launch_duration_seconds", &WORK);
        let builder = buckets(builder, "browser_reset_duration_seconds", &WORK);
        let builder = buckets(builder, "work_duration_seconds", &LEASES);
        let builder = buckets(builder, "fleet_grant_seconds", &WAITS);
        // A large profile on a slow line takes as long as a lease does.
        let builder = buckets(builder, "fleet_profile_transfer_seconds", &LEASES);
        let recorder = builder.build_recorder();
        let make = Maker(&recorder);
        let version = [env!("CARGO_PKG_VERSION")];
        let build = make.gauges("browserpool_build_info", "Always 1.", "version", version);
        build.of(version[0]).set(1);
        Self {
            browsers: make.gauges("browserpool_browsers", "Browsers by state.", "state", STATES),
            browsers_max: make.gauge("browserpool_browsers_max", "Maximum number of browsers."),
            browsers_idle_min: make.gauge(
                "browserpool_browsers_idle_min",
                "Minimum number of browsers, of all classes together.",
            ),
            pending: make.gauge("browserpool_pending_requests", "Clients waiting for a browser."),
            oldest_pending: make.gauge(
                "browserpool_oldest_pending_request_age_seconds",
                "Time that the longest waiting client has waited.",
            ),
            memory: make.gauge(
                "browserpool_browser_memory_bytes",
                "Proportional set size of all processes of all browsers.",
            ),
            draining: make.gauge("browserpool_draining", "1 while the pool gives no new leases."),
            acquires: make.counters(
                "browserpool_acquires_total",
                "Requests for a lease, by outcome.",
                "outcome",
                OUTCOMES,
            ),
            egress: make.counters(
                "browserpool_egress_requests_total",
                "Requests of browsers that are guarded or proxied, by outcome.",
                "outcome",
                ["forwarded", "refused", "failed"],
            ),
            launches: make.counters(
                "browserpool_browser_launches_total",
                "Browsers launched and made ready.",
                "outcome",
                ["ok", "error"],
            ),
            checks: make.counters(
                "browserpool_health_checks_total",
                "Checks of idle browsers.",
                "outcome",
                ["ok", "error"],
            ),
            exits: make.counters(
                "browserpool_browser_exits_total",
                "Browsers that are gone, by reason.",
                "reason",
                BROWSER_EXITS,
            ),
            ended: make.counters(
                "browserpool_leases_ended_total",
                "Leases of clients that ended, by reason.",
                "reason",
                LeaseEnd::ALL.iter().map(|end| end.code()),
            ),
            acquire_wait: make
                .seconds("browserpool_acquire_wait_seconds", "Time that granted requests waited."),
            lease_duration: make
                .seconds("browserpool_lease_duration_seconds", "Time that leases were held."),
            launch_duration: make.seconds(
                "browserpool_browser_launch_duration_seconds",
                "Time to launch a browser and warm it up.",
            ),
            reset_duration: make.seconds(
                "browserpool_browser_reset_duration_seconds",
                "Time to clean a browser after a lease.",
            ),
            work: WorkKind::ALL.map(|kind| {
                make.counters_of(
                    "browserpool_work_total",
                    "Calls for a page's content, screenshot, PDF or elements, by outcome.",
                    ("route", kind.word()),
                    "outcome",
                    WorkOutcome::ALL.map(WorkOutcome::word),
                )
            }),
            work_duration: make.seconds_by(
                "browserpool_work_duration_seconds",
                "Duration of such calls, the wait for a browser included.",
                "route",
                WorkKind::ALL.map(WorkKind::word),
            ),
            connections: make
                .gauge("browserpool_gateway_connections", "WebSocket connections of clients."),
            messages: make.counters(
                "browserpool_gateway_messages_total",
                "Messages bridged, from clients (in) and to them (out).",
                "direction",
                ["in", "out"],
            ),
            bytes: make.counters(
                "browserpool_gateway_bytes_total",
                "Bytes of these messages.",
                "direction",
                ["in", "out"],
            ),
            handle: recorder.handle(),
            tenants: TenantSeries::new(recorder),
            fleet: OnceLock::new(),
        }
    }

    /// Counts an event; the counters that [`Stats`] has are set from there.
    pub fn observe(&self, event: &Event) {
        match event {
            Event::Created { took, .. } | Event::CreateFailed { took, .. } => {
                self.launch_duration.record(took.as_secs_f64());
            }
            Event::Leased { waited, .. } => self.acquire_wait.record(waited.as_secs_f64()),
            Event::Released { held, .. } => self.lease_duration.record(held.as_secs_f64()),
            Event::Recycled { took, .. } => self.reset_duration.record(took.as_secs_f64()),
            Event::Closed { reason, .. } => self.exits.of(reason.code()).increment(1),
            _ => {}
        }
    }

    /// Counts a lease of a client that ended.
    pub(crate) fn lease_ended(&self, reason: &str) {
        self.ended.of(reason).increment(1);
    }

    /// Counts a call of one-shot work that ended.
    pub(crate) fn work_ended(&self, kind: WorkKind, outcome: WorkOutcome, took: Duration) {
        self.work[kind as usize].of(outcome.word()).increment(1);
        self.work_duration.of(kind.word()).record(took.as_secs_f64());
    }

    /// Adds the series of a pool that is in a fleet, at 0.
    pub fn join_fleet(&self) {
        self.fleet.get_or_init(|| FleetSeries::new(&Maker(&self.tenants.recorder)));
    }

    /// Counts a lease that a client got here, or at another node of the fleet.
    pub(crate) fn fleet_granted(&self, is_local: bool, took: Duration) {
        if let Some(fleet) = self.fleet.get() {
            fleet.granted(is_local, took);
        }
    }

    /// Counts a profile that went to this node or from it, or was to.
    pub(crate) fn profile_transferred(&self, transfer: &Transfer) {
        // A node that joins puts copies back, before its gateway knows of the fleet.
        self.join_fleet();
        if let Some(fleet) = self.fleet.get() {
            fleet.transferred(transfer);
        }
    }

    /// Counts a message from a client.
    pub(crate) fn message_in(&self, bytes: usize) {
        self.messages.of("in").increment(1);
        self.bytes.of("in").increment(bytes as u64);
    }

    /// Counts messages to a client.
    pub(crate) fn messages_out(&self, messages: u64, bytes: u64) {
        self.messages.of("out").increment(messages);
        self.bytes.of("out").increment(bytes);
    }

    /// Returns everything in the Prometheus format, with the gauges and the pool's own counters
    /// taken from this snapshot.
    #[must_use]
    pub fn render(
        &self,
        stats: &Stats,
        memory: u64,
        requests: Requests,
        tenants: &[Tenant],
        fleet: Option<&Fleet>,
    ) -> String {
        self.tenants.set(tenants);
        if let (Some(series), Some(fleet)) = (self.fleet.get(), fleet) {
            series.set(fleet);
        }
        let load = &stats.load;
        let states =
            [load.creating, load.idle, load.leased, load.recycling, load.checking, load.closing];
        for (state, browsers) in STATES.into_iter().zip(states) {
            self.browsers.of(state).set(browsers as f64);
        }
        let kept: usize = stats.classes.iter().map(|class| class.min).sum();
        self.browsers_max.set(load.max_size as f64);
        self.browsers_idle_min.set(kept as f64);
        self.pending.set(load.waiting as f64);
        self.oldest_pending.set(stats.oldest_wait.unwrap_or_default().as_secs_f64());
        self.memory.set(memory as f64);
        self.draining.set(f64::from(u8::from(stats.draining)));
        let counters = &stats.counters;
        let outcomes = [
            counters.acquired,
            counters.timeouts,
            counters.rejected,
            counters.cancelled,
            counters.errors,
        ];
        for (outcome, count) in OUTCOMES.into_iter().zip(outcomes) {
            self.acquires.of(outcome).absolute(count);
        }
        self.egress.of("forwarded").absolute(requests.forwarded);
        self.egress.of("refused").absolute(requests.refused);
        self.egress.of("failed").absolute(requests.failed);
        self.launches.of("ok").absolute(counters.created);
        self.launches.of("error").absolute(counters.create_failed);
        self.checks.of("ok").absolute(counters.checks.saturating_sub(counters.checks_failed));
        self.checks.of("error").absolute(counters.checks_failed);
        self.handle.render()
    }

    /// Folds the samples of the histograms. Call it regularly, or they pile up while nobody
    /// scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Interval between calls of [`upkeep`](Self::upkeep).
    pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Makes series on one recorder, with their help texts.
pub(super) struct Maker<'a>(pub(super) &'a PrometheusRecorder);

const METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

impl Maker<'_> {
    pub(super) fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.0.describe_gauge(KeyName::from(name), None, help.into());
        self.0.register_gauge(&Key::from_name(name), &METADATA)
    }

    pub(super) fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.0.describe_counter(KeyName::from(name), None, help.into());
        self.0.register_counter(&Key::from_name(name), &METADATA)
    }

    /// Makes a histogram of seconds.
    pub(super) fn seconds(&self, name: &'static str, help: &'static str) -> Histogram {
        self.0.describe_histogram(KeyName::from(name), Some(Unit::Seconds), help.into());
        self.0.register_histogram(&Key::from_name(name), &METADATA)
    }

    /// Makes a counter for each value of a label.
    pub(super) fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Family<Counter> {
        self.0.describe_counter(KeyName::from(name), None, help.into());
        let of = |value| self.0.register_counter(&key(name, label, value), &METADATA);
        Family(values.into_iter().map(|value| (value, of(value))).collect())
    }

    /// Makes a counter for each value of a label, with another label that has this one value.
    pub(super) fn counters_of(
        &self,
        name: &'static str,
        help: &'static str,
        of: (&'static str, &'static str),
        label: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Family<Counter> {
        self.0.describe_counter(KeyName::from(name), None, help.into());
        let fixed = Label::from_static_parts(of.0, of.1);
        Family(
            values
                .into_iter()
                .map(|value| {
                    let labels = vec![fixed.clone(), Label::from_static_parts(label, value)];
                    (value, self.0.register_counter(&Key::from_parts(name, labels), &METADATA))
                })
                .collect(),
        )
    }

    /// Makes a histogram of seconds for each value of a label.
    pub(super) fn seconds_by(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Family<Histogram> {
        self.0.describe_histogram(KeyName::from(name), Some(Unit::Seconds), help.into());
        let of = |value| self.0.register_histogram(&key(name, label, value), &METADATA);
        Family(values.into_iter().map(|value| (value, of(value))).collect())
    }

    /// Makes a gauge for each value of a label.
    pub(super) fn gauges(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Family<Gauge> {
        self.0.describe_gauge(KeyName::from(name), None, help.into());
        let of = |value| self.0.register_gauge(&key(name, label, value), &METADATA);
        Family(values.into_iter().map(|value| (value, of(value))).collect())
    }
}

fn key(name: &'static str, label: &'static str, value: &'static str) -> Key {
    Key::from_parts(name, vec![Label::from_static_parts(label, value)])
}

/// The series of one metric, one for each value of its label.
#[derive(Debug)]
pub(super) struct Family<T>(Vec<(&'static str, T)>);

impl<T> Family<T> {
    /// Returns the series of a value; for an unknown value, the last one, by convention `other`.
    pub(super) fn of(&self, value: &str) -> &T {
        let found = self.0.iter().find(|(held, _)| *held == value);
        let (_, series) = found.or(self.0.last()).expect("a family has a series");
        series
    }
}

/// The series with a label `tenant`, as many as there are configured tenants.
pub(super) struct TenantSeries {
    recorder: PrometheusRecorder,
    /// Tenants that have series; these are never removed.
    known: Mutex<BTreeSet<String>>,
}

impl TenantSeries {
    pub(super) fn new(recorder: PrometheusRecorder) -> Self {
        let gauges = [
            ("browserpool_tenant_leases", "Leases that a tenant holds."),
            ("browserpool_tenant_leases_max", "Leases that a tenant may hold; -1 for any number."),
            ("browserpool_tenant_share", "Share of a tenant; 0 for one that was removed."),
            ("browserpool_tenant_pending_requests", "Clients of a tenant that are waiting."),
            ("browserpool_tenant_browser_seconds", "Time for which a tenant has held browsers."),
        ];
        for (name, help) in gauges {
            recorder.describe_gauge(KeyName::from(name), None, help.into());
        }
        let counters = [
            ("browserpool_tenant_acquires_total", "Leases granted to a tenant."),
            ("browserpool_tenant_failures_total", "Requests of a tenant that got no lease."),
            (
                "browserpool_tenant_refused_total",
                "Requests of a tenant that got no lease because of its own limits.",
            ),
        ];
        for (name, help) in counters {
            recorder.describe_counter(KeyName::from(name), None, help.into());
        }
        Self { recorder, known: Mutex::default() }
    }

    pub(super) fn set(&self, tenants: &[Tenant]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Otherwise a tenant that a reload has removed would stay there for ever, and keep its
        // alerts firing.
        for gone in known.iter().filter(|name| tenants.iter().all(|held| held.name != **name)) {
            for name in [
                "browserpool_tenant_leases",
                "browserpool_tenant_share",
                "browserpool_tenant_pending_requests",
            ] {
                let key = Key::from_parts(name, vec![Label::new("tenant", gone.clone())]);
                self.recorder.register_gauge(&key, &METADATA).set(0.0);
            }
        }
        for tenant in tenants {
            known.insert(tenant.name.clone());
            let label = || Label::new("tenant", tenant.name.clone());
            let key = |name: &'static str| Key::from_parts(name, vec![label()]);
            let most = tenant.max_leases.map_or(-1.0, |max| max as f64);
            for (name, value) in [
                ("browserpool_tenant_leases", tenant.leased as f64),
                ("browserpool_tenant_leases_max", most),
                ("browserpool_tenant_share", tenant.share),
                ("browserpool_tenant_pending_requests", tenant.waiting as f64),
                ("browserpool_tenant_browser_seconds", tenant.browser_seconds),
            ] {
                self.recorder.register_gauge(&key(name), &METADATA).set(value);
            }
            for (name, count) in [
                ("browserpool_tenant_acquires_total", tenant.leases),
                ("browserpool_tenant_failures_total", tenant.failures),
            ] {
                self.recorder.register_counter(&key(name), &METADATA).absolute(count);
            }
            for (reason, count) in
                [("tenant_full", tenant.full), ("tenant_queue_full", tenant.queue_full)]
            {
                let labels = vec![label(), Label::new("reason", reason)];
                let key = Key::from_parts("browserpool_tenant_refused_total", labels);
                self.recorder.register_counter(&key, &METADATA).absolute(count);
            }
        }
    }
}

/// Phases of nodes that are heard.
const PHASES: [&str; 3] = ["starting", "running", "draining"];

/// Places of a lease, as seen from the node that its client came to.
const PLACES: [&str; 2] = ["local", "remote"];

/// Directions of a profile, as seen from this node.
const DIRECTIONS: [&str; 2] = ["in", "out"];

/// The series of a pool that is in a fleet.
struct FleetSeries {
    nodes: Family<Gauge>,
    connected: Gauge,
    asks: Counter,
    offers: Family<Counter>,
    grants: Family<Counter>,
    relayed: Gauge,
    seconds: Family<Histogram>,
    /// In and out.
    transfers: [Family<Counter>; 2],
    transfer_seconds: Family<Histogram>,
    transfer_bytes: Family<Counter>,
}

impl FleetSeries {
    fn new(make: &Maker<'_>) -> Self {
        Self {
            nodes: make.gauges(
                "browserpool_fleet_nodes",
                "Nodes of the fleet that this one hears, itself included, by phase.",
                "phase",
                PHASES,
            ),
            connected: make.gauge(
                "browserpool_fleet_connected",
                "1 while this node is connected to NATS; otherwise it works alone.",
            ),
            asks: make.counter(
                "browserpool_fleet_asks_total",
                "Requests of clients here that were sent to other nodes, each node counted.",
            ),
            offers: make.counters(
                "browserpool_fleet_offers_total",
                "Browsers of this node that were offered to others, by outcome.",
                "outcome",
                ["accepted", "declined", "unanswered"],
            ),
            grants: make.counters(
                "browserpool_fleet_grants_total",
                "Leases of clients here, by where the browser is: local or remote.",
                "where",
                PLACES,
            ),
            relayed: make.gauge(
                "browserpool_fleet_relayed_connections",
                "Connections of clients here to browsers of other nodes.",
            ),
            seconds: make.seconds_by(
                "browserpool_fleet_grant_seconds",
                "Time from a request to its lease, by where the browser is.",
                "where",
                PLACES,
            ),
            transfers: DIRECTIONS.map(|direction| {
                make.counters_of(
                    "browserpool_fleet_profile_transfers_total",
                    "Profiles that went to this node (in) and from it to the store (out), by outcome.",
                    ("direction", direction),
                    "outcome",
                    ["ok", "error", "cancelled"],
                )
            }),
            transfer_seconds: make.seconds_by(
                "browserpool_fleet_profile_transfer_seconds",
                "Duration of such transfers, packing and unpacking included.",
                "direction",
                DIRECTIONS,
            ),
            transfer_bytes: make.counters(
                "browserpool_fleet_profile_transfer_bytes_total",
                "Size of the profiles that arrived, packed.",
                "direction",
                DIRECTIONS,
            ),
        }
    }

    /// Counts a profile that went to the node or from it, or was to.
    fn transferred(&self, transfer: &Transfer) {
        let at = match transfer.direction {
            TransferDirection::In => 0,
            TransferDirection::Out => 1,
        };
        let outcome = match transfer.outcome {
            TransferOutcome::Ok => "ok",
            TransferOutcome::Error => "error",
            TransferOutcome::Cancelled => "cancelled",
        };
        self.transfers[at].of(outcome).increment(1);
        self.transfer_seconds.of(DIRECTIONS[at]).record(transfer.took.as_secs_f64());
        self.transfer_bytes.of(DIRECTIONS[at]).increment(transfer.bytes);
    }

    /// Counts a lease of a client.
    fn granted(&self, is_local: bool, took: Duration) {
        let place = if is_local { "local" } else { "remote" };
        self.seconds.of(place).record(took.as_secs_f64());
    }

    fn set(&self, fleet: &Fleet) {
        for phase in PHASES {
            let nodes = fleet.nodes.iter().filter(|node| node.phase == phase).count();
            self.nodes.of(phase).set(nodes as f64);
        }
        self.connected.set(f64::from(u8::from(fleet.connected)));
        self.relayed.set(fleet.relayed as f64);
        let counters = &fleet.counters;
        self.asks.absolute(counters.asks);
        self.offers.of("accepted").absolute(counters.offers_accepted);
        self.offers.of("declined").absolute(counters.offers_declined);
        self.offers.of("unanswered").absolute(counters.offers_unanswered);
        self.grants.of("local").absolute(counters.granted_here);
        self.grants.of("remote").absolute(counters.granted_there);
    }
}
