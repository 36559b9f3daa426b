//! `GET /api/usage`: what each tenant has used, by the hour, kept over restarts.
//!
//! It is taken from the leases that are held, again and again until each is over, so that no event
//! can be missed or counted twice; a pool that is killed loses what came since the last time.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::session::Session;
use super::views::ms;
use super::who::Who;
use super::{Gateway, Problem};

/// Use by one tenant, in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Used {
    /// Leases that began.
    pub(super) leases: u64,
    /// Milliseconds for which browsers were held.
    pub(super) browser_ms: u64,
    /// Milliseconds that granted requests have waited.
    pub(super) waiting_ms: u64,
    /// Bytes of the messages of clients, and to them.
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Requests that got no lease.
    pub(super) failures: u64,
}

impl Used {
    fn add(&mut self, other: Self) {
        self.leases += other.leases;
        self.browser_ms += other.browser_ms;
        self.waiting_ms += other.waiting_ms;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.failures += other.failures;
    }
}

/// Part of a session's use that is in the books already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Booked {
    held_ms: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// By the hour since 1970, then by tenant; the empty name stands for those of none.
type Hours = BTreeMap<u64, BTreeMap<String, Used>>;

const HOURS: u64 = 24;
const HOUR: Duration = Duration::from_secs(3600);

/// Days that are kept.
const KEPT_DAYS: u64 = 400;

/// The books of a pool.
#[derive(Debug, Default)]
pub(super) struct Usage(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    /// Of today, and of what is not written yet.
    hours: Hours,
    totals: BTreeMap<String, Used>,
    /// A file for each day; without one, nothing outlives the pool.
    directory: Option<PathBuf>,
    /// There is something that is not written.
    is_dirty: bool,
}

impl Usage {
    /// Keeps the books in this directory from now on, unless they are kept already, and goes on with
    /// those of today.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or what is there cannot be read.
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
    pub(super) fn failed(&self, tenant: Option<&str>) {
        self.add(tenant, Used { failures: 1, ..Used::default() });
    }

    /// Takes in what a session has used since the last time.
    pub(super) fn book(&self, tenant: Option<&str>, session: &Session) {
        let [_, _, bytes_in, bytes_out] = session.traffic.totals();
        let now = Booked { held_ms: ms(session.began.elapsed()), bytes_in, bytes_out };
        let before = session.booked(now);
        self.add(
            tenant,
            Used {
                browser_ms: now.held_ms.saturating_sub(before.held_ms),
                bytes_in: now.bytes_in.saturating_sub(before.bytes_in),
                bytes_out: now.bytes_out.saturating_sub(before.bytes_out),
                ..Used::default()
            },
        );
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

    /// Writes down what is new, and lets go of days that are over. Blocks.
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
            // One that is not there has been removed before.
            let _ = fs::remove_file(file(&directory, old));
        }
        Ok(())
    }

    /// Returns what was used in the hours from `from` to before `to`. Blocks.
    fn between(&self, from: u64, to: u64) -> io::Result<BTreeMap<String, Used>> {
        let (directory, mut hours) = {
            let books = self.lock();
            (books.directory.clone(), books.hours.clone())
        };
        if let Some(directory) = directory {
            let today = hour_now() / HOURS;
            let oldest = today.saturating_sub(KEPT_DAYS);
            // Days without end may be asked for.
            for day in (from / HOURS).max(oldest)..=(to.saturating_sub(1) / HOURS).min(today) {
                for (hour, tenants) in read(&directory, day)? {
                    // What is held here is newer.
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

fn hour_now() -> u64 {
    hour_of(SystemTime::now())
}

fn hour_of(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / HOUR.as_secs()
}

fn time_of(hour: u64) -> SystemTime {
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

/// Query of a request for usage.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    from: u64,
    to: u64,
    csv: bool,
}

impl Asked {
    /// Reads the query: from the beginning of today until now unless it says so.
    fn parse(query: &str, accepts_csv: bool) -> Result<Self, Problem> {
        let now = hour_now();
        let mut asked = Self { from: now / HOURS * HOURS, to: now + 1, csv: accepts_csv };
        let bad = |what: String| Err(Problem::bad_request("bad_parameter", what));
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("from", value) => asked.from = hour_of(time(&name, value)?),
                ("to", value) => {
                    let to = time(&name, value)?;
                    // An hour that has begun counts.
                    asked.to = hour_of(to + HOUR - Duration::from_secs(1));
                }
                ("by", "tenant") | ("token", _) => {}
                ("by", _) => return bad("by must be tenant".to_owned()),
                ("format", "csv") => asked.csv = true,
                ("format", "json") => asked.csv = false,
                ("format", _) => return bad("format must be json or csv".to_owned()),
                (name, _) => {
                    let shown: String = name.chars().take(64).collect();
                    let detail = format!(
                        "unknown parameter {shown:?}: there are from, to, by, format, token"
                    );
                    return Err(Problem::bad_request("unknown_parameter", detail));
                }
            }
        }
        if asked.from >= asked.to {
            return bad("from must be before to".to_owned());
        }
        Ok(asked)
    }
}

/// Reads a day, `2026-11-29`, or a moment, `2026-11-29T12:00:00Z`.
fn time(name: &str, value: &str) -> Result<SystemTime, Problem> {
    let moment = if value.len() == 10 { format!("{value}T00:00:00Z") } else { value.to_owned() };
    humantime::parse_rfc3339_weak(&moment).map_err(|_| {
        let detail = format!("{name} must be a day such as 2026-11-29, or 2026-11-29T12:00:00Z");
        Problem::bad_request("bad_parameter", detail)
    })
}

#[derive(Debug, Serialize)]
struct Report {
    from: String,
    to: String,
    tenants: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    /// `null` for the leases of no tenant.
    tenant: Option<String>,
    leases: u64,
    browser_seconds: f64,
    waiting_seconds: f64,
    bytes_in: u64,
    bytes_out: u64,
    failures: u64,
}

impl Row {
    fn new(tenant: String, used: Used) -> Self {
        Self {
            tenant: Some(tenant).filter(|name| !name.is_empty()),
            leases: used.leases,
            browser_seconds: used.browser_ms as f64 / 1000.0,
            waiting_seconds: used.waiting_ms as f64 / 1000.0,
            bytes_in: used.bytes_in,
            bytes_out: used.bytes_out,
            failures: used.failures,
        }
    }
}

impl Report {
    /// A table. Names are those of the configuration, so that nothing in it is quoted.
    fn csv(&self) -> String {
        let mut text = String::from(
            "tenant,leases,browser_seconds,waiting_seconds,bytes_in,bytes_out,failures\n",
        );
        for row in &self.tenants {
            let Row {
                leases, browser_seconds, waiting_seconds, bytes_in, bytes_out, failures, ..
            } = row;
            let tenant = row.tenant.as_deref().unwrap_or_default();
            text.push_str(&format!(
                "{tenant},{leases},{browser_seconds:.3},{waiting_seconds:.3},{bytes_in},\
                 {bytes_out},{failures}\n"
            ));
        }
        text
    }
}

/// `GET /api/usage?from=&to=&by=tenant`: a tenant sees its own.
pub(super) async fn usage(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let asked = Asked::parse(&query.unwrap_or_default(), accept.starts_with("text/csv"))?;
    gateway.book_all();
    let (from, to) = (asked.from, asked.to);
    let looked = tokio::task::spawn_blocking(move || gateway.usage.between(from, to)).await;
    let used = looked.map_err(io::Error::other).and_then(|used| used).map_err(|error| {
        let detail = format!("the records could not be read: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no_usage", detail)
    })?;
    let shown =
        |tenant: &String| who.sees_tenant(Some(tenant.as_str()).filter(|name| !name.is_empty()));
    let rows = used.into_iter().filter(|(tenant, _)| shown(tenant));
    let text = |hour| humantime::format_rfc3339_seconds(time_of(hour)).to_string();
    let report = Report {
        from: text(asked.from),
        to: text(asked.to),
        tenants: rows.map(|(tenant, used)| Row::new(tenant, used)).collect(),
    };
    if asked.csv {
        return Ok(([(CONTENT_TYPE, "text/csv; charset=utf-8")], report.csv()).into_response());
    }
    Ok(Json(report).into_response())
}

impl Gateway {
    /// Returns whose books the leases of this tenant go into. Where there are no tenants in the
    /// configuration, a client may call itself anything, and names would pile up.
    pub(super) fn books_of<'a>(&self, tenant: Option<&'a str>) -> Option<&'a str> {
        tenant.filter(|_| !self.settings().tenants.is_empty())
    }

    /// Takes in what all leases have used until now.
    pub(super) fn book_all(&self) {
        for session in self.sessions.all() {
            self.usage.book(self.books_of(session.asked.tenant.as_deref()), &session);
        }
    }

    /// Keeps what tenants use in a directory, beyond the end of this gateway.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or what is there cannot be read.
    pub fn keep_usage_in(&self, directory: &Path) -> io::Result<()> {
        self.usage.keep_in(directory)
    }

    /// Writes down what tenants have used; says in the log if that is impossible.
    pub(super) async fn write_usage(self: &Arc<Self>) {
        self.book_all();
        let gateway = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || gateway.usage.write()).await;
        if let Err(error) = written.map_err(io::Error::other).and_then(|written| written) {
            tracing::warn!(%error, "the usage of tenants could not be written");
        }
    }
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

    #[test]
    fn a_query_is_hours_from_days_and_moments() {
        let asked = Asked::parse("from=2026-11-28&to=2026-11-29T01:30:00Z&by=tenant", false);
        let asked = asked.expect("it is right");
        let text = |hour| humantime::format_rfc3339_seconds(time_of(hour)).to_string();
        assert_eq!(text(asked.from), "2026-11-28T00:00:00Z");
        assert_eq!(text(asked.to), "2026-11-29T02:00:00Z");
        for query in ["from=yesterday", "from=2026-11-29&to=2026-11-28", "by=browser", "format=xml"]
        {
            let problem = Asked::parse(query, false).expect_err(query);
            assert_eq!(problem.code(), "bad_parameter", "{query}");
        }
        assert_eq!(Asked::parse("form=1", false).expect_err("no").code(), "unknown_parameter");
        assert!(Asked::parse("", true).expect("it is right").csv);
    }
}
