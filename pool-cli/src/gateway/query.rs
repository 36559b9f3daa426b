use std::time::Duration;

use pool_chrome::egress::Pattern;
use pool_chrome::mux::LeaseTerms;
use pool_core::Request;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::{Code, Problem};
use crate::config::{LeaseKind, lease_kind};

/// A parameter of a lease's query, and a member of a REST body.
struct Parameter {
    name: &'static str,
    /// Its name and form in a body, if it is allowed there.
    member: Option<(&'static str, Form)>,
    set: fn(&mut LeaseQuery, &str, &str) -> Result<(), Problem>,
}

/// The JSON form of a member in a body.
#[derive(Clone, Copy)]
enum Form {
    Number,
    Text,
    /// A list, or a text with commas as in the query.
    List,
}

use Form::{List, Number, Text};

const fn parameter(
    name: &'static str,
    member: Option<(&'static str, Form)>,
    set: fn(&mut LeaseQuery, &str, &str) -> Result<(), Problem>,
) -> Parameter {
    Parameter { name, member, set }
}

fn put<T>(field: &mut Option<T>, value: Result<T, Problem>) -> Result<(), Problem> {
    *field = Some(value?);
    Ok(())
}

/// Every parameter, in the order in which the message about an unknown one lists them.
const PARAMETERS: [Parameter; 16] = [
    // As a member it also has Kernel's forms.
    parameter("profile", None, |asked, name, value| put(&mut asked.profile, word(name, value))),
    parameter("region", Some(("region", Text)), |asked, name, value| {
        put(&mut asked.region, word(name, value))
    }),
    parameter("priority", Some(("priority", Number)), |asked, _, value| {
        put(&mut asked.priority, priority(value))
    }),
    parameter("tenant", Some(("tenant", Text)), |asked, name, value| {
        put(&mut asked.tenant, word(name, value))
    }),
    parameter("timeout", Some(("timeout", Number)), |asked, name, value| {
        put(&mut asked.timeout, some_milliseconds(name, value))
    }),
    parameter("idle_timeout", Some(("idle_timeout", Number)), |asked, name, value| {
        put(&mut asked.idle_timeout, some_milliseconds(name, value))
    }),
    parameter("keep", Some(("keep", Number)), |asked, name, value| {
        put(&mut asked.keep, milliseconds(name, value))
    }),
    parameter("keepAlive", None, |asked, name, value| {
        put(&mut asked.keep, milliseconds(name, value))
    }),
    parameter("session", Some(("session", Text)), |asked, name, value| {
        put(&mut asked.session, word(name, value))
    }),
    // As a member it may be longer.
    parameter("acquire_timeout", None, |asked, name, value| {
        let timeout = milliseconds(name, value)?;
        if timeout > MAX_ACQUIRE_TIMEOUT {
            return Err(bad(name, "is longer than an hour (it is in milliseconds)"));
        }
        asked.acquire_timeout.get_or_insert(timeout);
        Ok(())
    }),
    parameter("nowait", None, |asked, name, value| {
        if flag(name, value)? {
            asked.acquire_timeout = Some(Duration::ZERO);
        }
        Ok(())
    }),
    parameter("lease", Some(("lease", Text)), |asked, _, value| put(&mut asked.lease, kind(value))),
    parameter("pages", Some(("pages", Number)), |asked, _, value| {
        put(&mut asked.pages, pages(value))
    }),
    parameter("allow_domains", Some(("allow_domains", List)), |asked, _, value| {
        put(&mut asked.allow_domains, domains(value))
    }),
    // The token is checked elsewhere.
    parameter("token", None, |_, _, _| Ok(())),
    parameter("trackingId", Some(("tracking_id", Text)), |asked, name, value| {
        put(&mut asked.tracking_id, word(name, value))
    }),
];

/// Maximum length of a value; meaningful ones are far shorter.
const MAX_VALUE: usize = 256;

/// Maximum length of a list of domains.
const MAX_DOMAINS: usize = 4096;

/// Maximum acquire timeout: nobody waits longer, so beyond it a number is a mistake.
const MAX_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Maximum timeout of a lease.
const MAX_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The query of a client's address: its request for a lease.
///
/// # Examples
///
/// ```
/// use pool_cli::gateway::LeaseQuery;
///
/// let query = LeaseQuery::parse("profile=work&priority=1&timeout=60000").unwrap();
/// assert_eq!(query.profile.as_deref(), Some("work"));
/// assert_eq!(LeaseQuery::parse("prioritty=1").unwrap_err().code(), "unknown_parameter");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseQuery {
    /// The profile whose browser is wanted.
    pub profile: Option<String>,
    /// The region whose proxies are wanted.
    pub region: Option<String>,
    /// 1 (served first) to 10.
    pub priority: Option<u8>,
    /// The tenant for whom it is, for the audit line.
    pub tenant: Option<String>,
    /// Maximum time that the lease may last.
    pub timeout: Option<Duration>,
    /// Maximum time that its clients may be silent.
    pub idle_timeout: Option<Duration>,
    /// Time for which it goes on without a connection.
    pub keep: Option<Duration>,
    /// The name by which its clients find it again.
    pub session: Option<String>,
    /// Maximum time to wait for a browser.
    pub acquire_timeout: Option<Duration>,
    /// The kind of lease.
    pub lease: Option<LeaseKind>,
    /// Set to `true` if the lease begins with a page, which is the default.
    pub pages: Option<bool>,
    /// Hosts that its pages may visit, among those that the pool's rules allow.
    pub allow_domains: Option<Vec<Pattern>>,
    /// A name by which the client finds its lease again in `/sessions` and `/kill`.
    pub tracking_id: Option<String>,
}

impl LeaseQuery {
    /// Reads a query. The token is not kept, since it is checked elsewhere.
    ///
    /// # Errors
    ///
    /// A 400 that names the parameter: an unknown one, one that is given twice, or one with a
    /// meaningless value.
    pub fn parse(query: &str) -> Result<Self, Problem> {
        let mut parsed = Self::default();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let known = PARAMETERS.iter().find(|known| known.name == name);
            let known = known.ok_or_else(|| unknown(&name))?;
            // The name that other services use.
            let name = if known.name == "keepAlive" { "keep" } else { known.name };
            if seen.contains(&name) {
                return Err(bad(name, "is given twice"));
            }
            seen.push(name);
            let longest = if name == "allow_domains" { MAX_DOMAINS } else { MAX_VALUE };
            if value.len() > longest && name != "token" {
                return Err(bad(name, "is too long"));
            }
            (known.set)(&mut parsed, name, &value)?;
        }
        Ok(parsed)
    }

    /// Takes the parameters out of a REST body, and leaves everything else.
    ///
    /// # Errors
    ///
    /// If one does not have the right form, or its value is meaningless.
    pub(super) fn take(&mut self, members: &mut Map<String, Value>) -> Result<(), Problem> {
        for parameter in &PARAMETERS {
            let Some((name, form)) = parameter.member else { continue };
            let Some(value) = members.remove(name).filter(|value| !value.is_null()) else {
                continue;
            };
            let text = form.text(&value).ok_or_else(|| {
                let detail = format!("{name} must be {}", form.noun());
                Problem::new(Code::BadBody, detail)
            })?;
            (parameter.set)(self, name, &text)?;
        }
        Ok(())
    }

    /// Returns the terms that the lease begins with.
    #[must_use]
    pub fn terms(&self) -> LeaseTerms {
        LeaseTerms::new()
            .first_page(self.pages.unwrap_or(true))
            .allow_domains(self.allow_domains.clone())
    }

    /// Returns the request to the pool, except for the timeout, which depends on the settings.
    #[must_use]
    pub fn request(&self) -> Request {
        let mut request = Request::new();
        request.priority = self.priority;
        let labels =
            [("profile", &self.profile), ("region", &self.region), ("tenant", &self.tenant)];
        for (name, value) in labels {
            if let Some(value) = value {
                request.set(name, value.as_str());
            }
        }
        request
    }
}

impl Form {
    /// Returns a value as in the query, if it has this form.
    fn text(self, value: &Value) -> Option<String> {
        match self {
            Self::Number => value.is_number().then(|| value.to_string()),
            Self::Text => value.as_str().map(str::to_owned),
            Self::List => match value.as_array() {
                None => value.as_str().map(str::to_owned),
                Some(items) => {
                    let items = items.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
                    Some(items.join(","))
                }
            },
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "a list of strings",
        }
    }
}

/// Returns `true` if a query may have a parameter with this name.
pub(super) fn is_known(name: &str) -> bool {
    PARAMETERS.iter().any(|known| known.name == name)
}

fn unknown(name: &str) -> Problem {
    let shown: String = name.chars().take(64).collect();
    let known = PARAMETERS.map(|known| known.name).join(", ");
    let detail = format!("unknown parameter {shown:?}: there are {known}");
    Problem::new(Code::UnknownParameter, detail)
}

fn bad(name: &str, what: &str) -> Problem {
    Problem::new(Code::BadParameter, format!("the parameter {name:?} {what}"))
}

/// Checks a name. Names go into logs and answers, so only characters that have no meaning there are
/// allowed.
pub(super) fn word(name: &str, value: &str) -> Result<String, Problem> {
    if value.is_empty() {
        return Err(bad(name, "is empty"));
    }
    let plain = |char: char| char.is_ascii_alphanumeric() || "._-:@+".contains(char);
    if value.len() > 64 || !value.chars().all(plain) {
        return Err(bad(name, "takes up to 64 letters, digits and any of . _ - : @ +"));
    }
    Ok(value.to_owned())
}

fn priority(value: &str) -> Result<u8, Problem> {
    value
        .parse()
        .ok()
        .filter(|priority| (1..=10).contains(priority))
        .ok_or_else(|| bad("priority", "must be 1 (served first) to 10 (served last)"))
}

fn milliseconds(name: &str, value: &str) -> Result<Duration, Problem> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse::<u64>() {
        Ok(milliseconds) if digits => Ok(Duration::from_millis(milliseconds)),
        _ => Err(bad(name, "must be a number of milliseconds")),
    }
}

fn some_milliseconds(name: &str, value: &str) -> Result<Duration, Problem> {
    match milliseconds(name, value)? {
        Duration::ZERO => Err(bad(name, "must be longer than 0 ms")),
        long if long > MAX_TIMEOUT => {
            Err(bad(name, "is longer than 30 days (it is in milliseconds)"))
        }
        duration => Ok(duration),
    }
}

fn flag(name: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(bad(name, "must be true or false")),
    }
}

fn domains(value: &str) -> Result<Vec<Pattern>, Problem> {
    Pattern::domains(value)
        .map_err(|error| bad("allow_domains", &format!("is wrong: {error}; {}", error.hint())))
}

fn kind(value: &str) -> Result<LeaseKind, Problem> {
    lease_kind(value).ok_or_else(|| bad("lease", "must be exclusive or shared"))
}

/// Reads the number of pages that a lease begins with; `true` means one.
fn pages(value: &str) -> Result<bool, Problem> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(bad("pages", "must be 0 or 1: a lease begins with one page, or with none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_a_lease_may_be_asked_for_is_read() {
        let query = LeaseQuery::parse(
            "profile=work&region=eu-west&priority=1&tenant=a%40b&timeout=60000\
             &acquire_timeout=500&token=x&trackingId=run-7&lease=shared&pages=0\
             &idle_timeout=70000&keep=60000&session=mine&allow_domains=a.example,*.b.example",
        )
        .expect("it is right");
        assert_eq!(query.tenant.as_deref(), Some("a@b"));
        assert_eq!(query.timeout, Some(Duration::from_secs(60)));
        assert_eq!(query.acquire_timeout, Some(Duration::from_millis(500)));
        assert_eq!(query.lease, Some(LeaseKind::Shared));
        assert!(!query.terms().first_page);
        assert_eq!(query.idle_timeout, Some(Duration::from_secs(70)));
        assert_eq!(query.keep, Some(Duration::from_secs(60)));
        assert_eq!(query.session.as_deref(), Some("mine"));
        let alias = LeaseQuery::parse("keepAlive=60000").expect("it is right");
        assert_eq!(alias.keep, query.keep);
        assert_eq!(query.terms().allow_domains.map(|domains| domains.len()), Some(2));
        let request = query.request();
        assert_eq!(request.get("profile"), Some("work"));
        assert_eq!(request.priority, Some(1));
    }

    #[test]
    fn a_lease_begins_with_a_page_unless_none_is_asked_for() {
        for (query, first_page) in [("", true), ("pages=1", true), ("pages=0", false)] {
            let terms = LeaseQuery::parse(query).expect("it is right").terms();
            assert_eq!(terms.first_page, first_page, "{query:?}");
        }
    }

    #[test]
    fn nowait_wins_over_acquire_timeout_in_either_order() {
        for query in ["nowait&acquire_timeout=5", "acquire_timeout=5&nowait=true"] {
            let query = LeaseQuery::parse(query).expect("it is right");
            assert_eq!(query.acquire_timeout, Some(Duration::ZERO));
        }
    }

    #[test]
    fn the_mistake_is_named() {
        for (query, code, name) in [
            ("prioritty=1", "unknown_parameter", "prioritty"),
            ("--no-sandbox", "unknown_parameter", "--no-sandbox"),
            ("launch={}", "unknown_parameter", "launch"),
            ("priority=0", "bad_parameter", "priority"),
            ("priority=11", "bad_parameter", "priority"),
            ("priority=1&priority=2", "bad_parameter", "priority"),
            ("timeout=-5", "bad_parameter", "timeout"),
            ("timeout=%2B5", "bad_parameter", "timeout"),
            ("timeout=0", "bad_parameter", "timeout"),
            ("timeout=30s", "bad_parameter", "timeout"),
            ("idle_timeout=0", "bad_parameter", "idle_timeout"),
            ("keep=1m", "bad_parameter", "keep"),
            ("keep=1&keepAlive=1", "bad_parameter", "keep"),
            ("session=a%2Fb", "bad_parameter", "session"),
            ("acquire_timeout=99999999999999999999", "bad_parameter", "acquire_timeout"),
            ("nowait=maybe", "bad_parameter", "nowait"),
            ("profile=", "bad_parameter", "profile"),
            ("profile=../etc", "bad_parameter", "profile"),
            ("profile=a%00b", "bad_parameter", "profile"),
            ("trackingId=a%0Ab", "bad_parameter", "trackingId"),
            ("lease=both", "bad_parameter", "lease"),
            ("pages=2", "bad_parameter", "pages"),
            ("pages=", "bad_parameter", "pages"),
            ("pages=false", "bad_parameter", "pages"),
            ("allow_domains=", "bad_parameter", "allow_domains"),
            ("allow_domains=*", "bad_parameter", "allow_domains"),
            ("allow_domains=a.example:80", "bad_parameter", "allow_domains"),
            ("allow_domains=https://a.example", "bad_parameter", "allow_domains"),
        ] {
            let problem = LeaseQuery::parse(query).expect_err(query);
            assert_eq!(problem.code(), code, "{query}");
            assert!(problem.detail().contains(name), "{query}: {}", problem.detail());
        }
    }
}
