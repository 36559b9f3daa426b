//! The series, each made once and at 0 from the start, so that rates are right from the first
//! event on and no label is ever made from what a client sent.

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

/// Makes series on one recorder, with their help text.
pub(super) struct Maker<'a>(pub(super) &'a PrometheusRecorder);

const METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

impl Maker<'_> {
    pub(super) fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.0.describe_gauge(KeyName::from(name), None, help.into());
        self.0.register_gauge(&Key::from_name(name), &METADATA)
    }

    /// A histogram of seconds.
    pub(super) fn seconds(&self, name: &'static str, help: &'static str) -> Histogram {
        self.0.describe_histogram(KeyName::from(name), Some(Unit::Seconds), help.into());
        self.0.register_histogram(&Key::from_name(name), &METADATA)
    }

    /// One counter for each value of a label.
    pub(super) fn counters<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: [&'static str; N],
    ) -> Family<Counter, N> {
        self.0.describe_counter(KeyName::from(name), None, help.into());
        let of = |value| self.0.register_counter(&key(name, label, value), &METADATA);
        Family(values.map(|value| (value, of(value))))
    }

    /// One counter for each value of a label, beside another label that has this one value.
    pub(super) fn counters_of<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        of: (&'static str, &'static str),
        label: &'static str,
        values: [&'static str; N],
    ) -> Family<Counter, N> {
        self.0.describe_counter(KeyName::from(name), None, help.into());
        let fixed = Label::from_static_parts(of.0, of.1);
        Family(values.map(|value| {
            let labels = vec![fixed.clone(), Label::from_static_parts(label, value)];
            (value, self.0.register_counter(&Key::from_parts(name, labels), &METADATA))
        }))
    }

    /// One histogram of seconds for each value of a label.
    pub(super) fn seconds_by<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: [&'static str; N],
    ) -> Family<Histogram, N> {
        self.0.describe_histogram(KeyName::from(name), Some(Unit::Seconds), help.into());
        let of = |value| self.0.register_histogram(&key(name, label, value), &METADATA);
        Family(values.map(|value| (value, of(value))))
    }

    /// One gauge for each value of a label.
    pub(super) fn gauges<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: [&'static str; N],
    ) -> Family<Gauge, N> {
        self.0.describe_gauge(KeyName::from(name), None, help.into());
        let of = |value| self.0.register_gauge(&key(name, label, value), &METADATA);
        Family(values.map(|value| (value, of(value))))
    }
}

fn key(name: &'static str, label: &'static str, value: &'static str) -> Key {
    Key::from_parts(name, vec![Label::from_static_parts(label, value)])
}

/// The series of one metric, one for each value of its label.
#[derive(Debug)]
pub(super) struct Family<T, const N: usize>([(&'static str, T); N]);

impl<T, const N: usize> Family<T, N> {
    /// The series of a value; the last one, by convention `other`, for a value that has none.
    pub(super) fn of(&self, value: &str) -> &T {
        let found = self.0.iter().find(|(held, _)| *held == value);
        let (_, series) = found.or(self.0.last()).expect("a family has a series");
        series
    }
}

/// Numbers of one tenant of the configuration, at present and since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantNumbers {
    /// Its name.
    pub name: String,
    /// Leases that it has.
    pub leased: usize,
    /// Clients of it that wait.
    pub waiting: usize,
    /// Leases that it may have, if that is limited.
    pub max_leases: Option<usize>,
    /// Its share.
    pub share: f64,
    /// Leases that it has had.
    pub leases: u64,
    /// Requests of it that got no lease.
    pub failures: u64,
    /// Time for which it held browsers.
    pub browser_seconds: f64,
}

/// The series with a label `tenant`, of which there are as many as the configuration has tenants.
pub(super) struct TenantSeries(PrometheusRecorder);

impl TenantSeries {
    pub(super) fn new(recorder: PrometheusRecorder) -> Self {
        let gauges = [
            ("browserpool_tenant_leases", "Leases that a tenant has."),
            ("browserpool_tenant_leases_max", "Leases that a tenant may have; -1 for any number."),
            ("browserpool_tenant_pending_requests", "Clients of a tenant that wait."),
            ("browserpool_tenant_browser_seconds", "Time for which a tenant has held browsers."),
        ];
        for (name, help) in gauges {
            recorder.describe_gauge(KeyName::from(name), None, help.into());
        }
        let counters = [
            ("browserpool_tenant_acquires_total", "Leases that a tenant has had."),
            ("browserpool_tenant_failures_total", "Requests of a tenant that got no lease."),
        ];
        for (name, help) in counters {
            recorder.describe_counter(KeyName::from(name), None, help.into());
        }
        Self(recorder)
    }

    pub(super) fn set(&self, tenants: &[TenantNumbers]) {
        for tenant in tenants {
            let key = |name: &'static str| {
                Key::from_parts(name, vec![Label::new("tenant", tenant.name.clone())])
            };
            let most = tenant.max_leases.map_or(-1.0, |max| max as f64);
            for (name, value) in [
                ("browserpool_tenant_leases", tenant.leased as f64),
                ("browserpool_tenant_leases_max", most),
                ("browserpool_tenant_pending_requests", tenant.waiting as f64),
                ("browserpool_tenant_browser_seconds", tenant.browser_seconds),
            ] {
                self.0.register_gauge(&key(name), &METADATA).set(value);
            }
            for (name, count) in [
                ("browserpool_tenant_acquires_total", tenant.leases),
                ("browserpool_tenant_failures_total", tenant.failures),
            ] {
                self.0.register_counter(&key(name), &METADATA).absolute(count);
            }
        }
    }
}
