//! The use of each tenant, by the hour, kept across restarts: the books behind `/api/usage`.
//!
//! It is taken repeatedly from the held leases until each is over, so that no event can be missed
//! or counted twice; a pool that is killed loses what came after the last time.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use pool_core::AcquireError;
use serde::{Deserialize, Serialize};

use super::lease::{ClientLease, Use};
use crate::api::ms;

/// Use by one tenant in a period of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Used {
    /// Leases that began.
    pub(super) leases: u64,
    /// Time for which browsers were held, in milliseconds.
    pub(super) browser_ms: u64,
    /// Time that granted requests waited, in milliseconds.
    pub(super) waiting_ms: u64,
    /// Bytes of messages from clients, and to them.
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Requests that got no lease.
    pub(super) failures: u64,
    /// Those of them that waited in vain because of its own limit of leases.
    pub(super) full: u64,
    /// Those of them that were refused at once because of its own limit of waiting clients.
    pub(super) queue_full: u64,
}

impl Used {
    fn add(&mut self, other: Self) {
        self.leases += other.leases;
        self.browser_ms += other.browser_ms;
        self.waiting_ms += other.waiting_ms;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.failures += other.failures;
        self.full += other.full;
        self.queue_full += other.queue_full;
    }
}

/// By hour since 1970, then by tenant; the empty name stands for requests without a tenant.
type Hours = BTreeMap<u64, BTreeMap<String, Used>>;

pub(super) const HOURS: u64 = 24;
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// Number of days that are kept.
const KEPT_DAYS: u64 = 400;

/// The books of a pool.
#[derive(Debug, Default)]
pub(super) struct Usage(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    /// The hours of today, and those that have not been written yet.
    hours: Hours,
    totals: BTreeMap<String, Used>,
    /// Directory with a file for each day; without one, nothing outlives the pool.
    directory: Option<PathBuf>,
    /// There is something that has not been written yet.
    is_dirty: bool,
}

impl Usage {
    /// Keeps the books in this directory from now on, unless they are kept already, and continues
    /// those of today.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or its contents cannot be read.
    pub(super) fn keep_in(&self, directory: &Path) -> io::Result<()> {
        if self.lock().directory.is_some() {
            return Ok(());
        }
        // For the pool's own user, as the directory that it is in.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let today = hour_now() / HOURS;
        let written = read(directory, today)?;
        let mut books = self.lock();
        for (hour, tenants) in written {
            for (tenant, used) in tenants {
                books.hours.entry(hour).or_default().entry(tenant).or_default().add(used);
            }
        }
        books.directory = Some(directory.to_owned());
        Ok(())
    }

    /// Notes that a lease has begun.
    pub(super) fn began(&self, tenant: Option<&str>, waited: Duration) {
        self.add(tenant, Used { leases: 1, waiting_ms: ms(waited), ..Used::default() });
    }

    /// Notes that a request got no lease.
    pub(super) fn failed(&self, tenant: Option<&str>, error: &AcquireError) {
        let full = u64::from(matches!(error, AcquireError::GroupFull { .. }));
        let queue_full = u64::from(matches!(error, AcquireError::GroupQueueFull { .. }));
        self.add(tenant, Used { failures: 1, full, queue_full, ..Used::default() });
    }

    /// Books what a session has used since the last time.
    pub(super) fn book(&self, tenant: Option<&str>, session: &ClientLease) {
        let Use { held_ms, bytes_in, bytes_out } = session.take_use();
        self.add(tenant, Used { browser_ms: held_ms, bytes_in, bytes_out, ..Used::default() });
    }

    fn add(&self, tenant: Option<&str>, used: Used) {
        if used == Used::default() {
            return;
        }
        let tenant = tenant.unwrap_or_default();
        let mut books = self.lock();
        books.totals.entry(tenant.to_owned()).or_default().add(used);
        let hour = books.hours.entry(hour_now()).or_default();
        hour.entry(tenant.to_owned()).or_default().add(used);
        books.is_dirty = true;
    }

    /// Returns what a tenant has used since the pool was started.
    pub(super) fn total(&self, tenant: Option<&str>) -> Used {
        self.lock().totals.get(tenant.unwrap_or_default()).copied().unwrap_or_default()
    }

    /// Writes new records to disk, and removes days that are too old. Blocks.
    pub(super) fn write(&self) -> io::Result<()> {
        let today = hour_now() / HOURS;
        let (directory, hours) = {
            let mut books = self.lock();
            if !books.is_dirty {
                return Ok(());
            }
            books.is_dirty = false;
            let Some(directory) = books.directory.clone() else {
                let oldest = (today.saturating_sub(KEPT_DAYS)) * HOURS;
                books.hours.retain(|hour, _| *hour >= oldest);
                return Ok(());
            };
            (directory, books.hours.clone())
        };
        let mut days: BTreeMap<u64, Hours> = BTreeMap::new();
        for (hour, tenants) in hours {
            days.entry(hour / HOURS).or_default().insert(hour, tenants);
        }
        for (day, hours) in &days {
            write(&directory, *day, hours).inspect_err(|_| self.lock().is_dirty = true)?;
        }
        self.lock().hours.retain(|hour, _| hour / HOURS >= today);
        if let Some(old) = today.checked_sub(KEPT_DAYS) {
            // If it is not there, it has been removed before.
            let _ = fs::remove_file(file(&directory, old));
        }
        Ok(())
    }

    /// Returns the use in the hours from `from` to before `to`. Blocks.
    pub(super) fn between(&self, from: u64, to: u64) -> io::Result<BTreeMap<String, Used>> {
        let (directory, mut hours) = {
            let books = self.lock();
            (books.directory.clone(), books.hours.clone())
        };
        if let Some(directory) = directory {
            let today = hour_now() / HOURS;
            let oldest = today.saturating_sub(KEPT_DAYS);
            // The request may be for any number of days.
            for day in (from / HOURS).max(oldest)..=(to.saturating_sub(1) / HOURS).min(today) {
                for (hour, tenants) in read(&directory, day)? {
                    // What is in memory is newer.
                    hours.entry(hour).or_insert(tenants);
                }
            }
        }
        let mut sums: BTreeMap<String, Used> = BTreeMap::new();
        for (tenant, used) in hours.range(from..to).flat_map(|(_, tenants)| tenants) {
            sums.entry(tenant.clone()).or_default().add(*used);
        }
        Ok(sums)
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn hour_now() -> u64 {
    hour_of(SystemTime::now())
}

pub(super) fn hour_of(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / HOUR.as_secs()
}

pub(super) fn time_of(hour: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(hour * HOUR.as_secs())
}

/// Returns the file of a day, `2026-11-29.json`.
fn file(directory: &Path, day: u64) -> PathBuf {
    let time = humantime::format_rfc3339_seconds(time_of(day * HOURS)).to_string();
    directory.join(format!("{}.json", &time[..10]))
}

fn read(directory: &Path, day: u64) -> io::Result<Hours> {
    match fs::read(file(directory, day)) {
        Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Hours::new()),
        Err(error) => Err(error),
    }
}

/// Replaces the file of a day as a whole, so that a crash leaves the old one.
fn write(directory: &Path, day: u64, hours: &Hours) -> io::Result<()> {
    let file = file(directory, day);
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_vec(hours).map_err(io::Error::other)?)?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(leases: u64) -> Used {
        Used { leases, ..Used::default() }
    }

    #[test]
    fn what_is_written_is_there_again_and_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Usage::default();
        first.keep_in(directory.path()).expect("it can be made");
        first.add(Some("ada"), used(2));
        first.add(None, used(1));
        first.write().expect("it can be written");
        let second = Usage::default();
        second.keep_in(directory.path()).expect("it can be read");
        second.add(Some("ada"), used(3));
        let hour = hour_now();
        let sums = second.between(hour - 1, hour + 1).expect("it can be read");
        assert_eq!(sums["ada"].leases, 5);
        assert_eq!(sums[""].leases, 1);
        assert_eq!(second.total(Some("ada")).leases, 3, "since the start");
        second.write().expect("it can be written");
        let old = read(directory.path(), hour / HOURS).expect("it can be read");
        let sum: u64 =
            old.values().flat_map(|tenants| tenants.get("ada")).map(|used| used.leases).sum();
        assert_eq!(sum, 5);
    }

    #[test]
    fn other_days_are_read_from_their_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let (usage, today) = (Usage::default(), hour_now() / HOURS);
        let hour = (today - 3) * HOURS + 5;
        let hours = Hours::from([(hour, BTreeMap::from([("ada".to_owned(), used(7))]))]);
        write(directory.path(), today - 3, &hours).expect("it can be written");
        usage.keep_in(directory.path()).expect("it is there");
        let count = |from, to| {
            let sums = usage.between(from, to).expect("it can be read");
            sums.get("ada").map_or(0, |used| used.leases)
        };
        assert_eq!(count(hour, hour + 1), 7);
        assert_eq!((count(hour + 1, hour + 9), count(0, hour)), (0, 0));
        assert_eq!(count(0, u64::MAX), 7, "no day of the future is looked for");
    }
}
