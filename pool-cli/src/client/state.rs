//! The answers of `/api/state` and `/api/history`, as far as commands show them.

use serde::Deserialize;

/// The whole of a pool at one moment.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct State {
    pub(crate) pool: String,
    pub(crate) version: String,
    pub(crate) uptime_ms: u64,
    pub(crate) draining: bool,
    pub(crate) load: Load,
    pub(crate) counters: Counters,
    pub(crate) wait: Wait,
    pub(crate) memory_bytes: u64,
    pub(crate) browsers: Vec<Browser>,
    pub(crate) waiters: Vec<Waiter>,
    #[serde(default)]
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) errors: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Load {
    pub(crate) idle: usize,
    pub(crate) leased: usize,
    pub(crate) waiting: usize,
    pub(crate) total: usize,
    pub(crate) min_size: usize,
    pub(crate) max_size: usize,
    pub(crate) max_waiting: usize,
    pub(crate) utilization: f64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Counters {
    pub(crate) acquired: u64,
    pub(crate) timeouts: u64,
    pub(crate) rejected: u64,
    pub(crate) errors: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Wait {
    pub(crate) avg_ms: f64,
    pub(crate) p95_ms: f64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Browser {
    pub(crate) id: u64,
    pub(crate) class: String,
    pub(crate) state: String,
    pub(crate) since_ms: u64,
    pub(crate) age_ms: u64,
    pub(crate) uses: u64,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) lease: Option<Holder>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Holder {
    pub(crate) id: String,
    pub(crate) peer: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) tracking_id: Option<String>,
    /// The route of the call that it is for, if it is for one.
    pub(crate) work: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Waiter {
    pub(crate) position: usize,
    pub(crate) class: String,
    pub(crate) tenant: Option<String>,
    pub(crate) priority: Option<u8>,
    pub(crate) waited_ms: u64,
    pub(crate) expected_ms: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Tenant {
    pub(crate) name: String,
    pub(crate) leased: usize,
    pub(crate) waiting: usize,
    pub(crate) max_leases: Option<usize>,
    pub(crate) share: f64,
    pub(crate) leases: u64,
    pub(crate) failures: u64,
    pub(crate) browser_seconds: f64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Entry {
    pub(crate) event: String,
    pub(crate) reason: Option<String>,
}

/// One second of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Point {
    pub(crate) active: usize,
    pub(crate) waiting: usize,
    pub(crate) p95_wait_ms: f64,
    pub(crate) utilization: f64,
}

impl Holder {
    /// Describes the holder in one line: tenant, tracking id, work and address, as far as they are known.
    pub(crate) fn who(&self) -> String {
        let names = [&self.tenant, &self.tracking_id, &self.work, &self.peer];
        let names: Vec<&str> = names.into_iter().filter_map(|name| name.as_deref()).collect();
        names.join(" ")
    }
}

impl Tenant {
    /// Returns the leases that it has, of those that it may have.
    pub(crate) fn held(&self) -> String {
        let most = self.max_leases.map(|max| format!(" of {max}")).unwrap_or_default();
        format!("{}{most}", self.leased)
    }

    /// Returns the time for which it has held browsers.
    pub(crate) fn time(&self) -> String {
        crate::table::duration((self.browser_seconds * 1000.0) as u64)
    }
}

impl Entry {
    /// Describes what happened and why, in one line that leaves the terminal as it is: a reason may
    /// hold what a browser has printed.
    pub(crate) fn line(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or_default();
        let plain = |char: char| if char.is_control() { ' ' } else { char };
        format!("{}: {reason}", self.event).chars().map(plain).collect()
    }
}

impl State {
    /// The second of the history that this moment is.
    pub(crate) fn point(&self) -> Point {
        Point {
            active: self.load.leased,
            waiting: self.load.waiting,
            p95_wait_ms: self.wait.p95_ms,
            utilization: self.load.utilization,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_printed_cannot_steer_the_terminal() {
        let reason = Some("\u{1b}[2Jgone\nfor good".to_owned());
        let entry = Entry { event: "closing".to_owned(), reason };
        assert_eq!(entry.line(), "closing:  [2Jgone for good");
    }
}
