use std::net::IpAddr;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use pool_fleet::subject::{lease_id, split_lease_id};
use url::{Host, Url};

use super::address::lease_path;
use super::who::{Tenants, Who};
use super::{Code, LeaseId, LeaseQuery, Problem};
use crate::config::{Config, FleetConfig, LeaseKind, Secret};

/// Settings of the gateway, all of which can be replaced while it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of this node in its fleet.
    pub(super) node: Option<String>,
    pub(super) pool_name: String,
    pub(super) token: Option<Secret>,
    pub(super) tenants: Tenants,
    pub(super) external_url: Option<Url>,
    /// The spellings of `Host` with which requests are accepted if there is no token.
    pub(super) hosts: Vec<String>,
    pub(super) allowed_origins: Vec<String>,
    pub(super) drain_timeout: Duration,
    pub(super) acquire_timeout: Duration,
    pub(super) max_waiting: usize,
    pub(super) lease: LeaseKind,
    pub(super) lease_choice: bool,
    /// For the default kind of lease.
    pub(super) leases_per_browser: usize,
    /// Set if there are rules that a lease can narrow.
    pub(super) egress: bool,
    pub(super) lease_timeout: Option<Duration>,
    pub(super) lease_idle_timeout: Option<Duration>,
    pub(super) keep_limit: Duration,
    /// Browsers run without windows.
    pub(super) headless: bool,
}

/// Reasons why the gateway would not be safe, or could not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Anybody who can reach the machine could lease browsers.
    #[error("{listen} can be reached from other machines, but there is no token")]
    Exposed {
        /// The address that was to be listened on.
        listen: IpAddr,
    },
    /// Anybody without a token would be the operator.
    #[error("there are tenants, but the operator has no token")]
    NoOperator,
    /// The external address is not a valid URL.
    #[error("external_url is not a url: {0}")]
    ExternalUrl(#[from] url::ParseError),
}

impl Settings {
    /// Reads the settings from a configuration.
    ///
    /// # Errors
    ///
    /// [`SettingsError::Exposed`] for an address beyond loopback without a token,
    /// [`SettingsError::NoOperator`] for tenants without one, and [`SettingsError::ExternalUrl`].
    pub fn new(config: &Config) -> Result<Self, SettingsError> {
        let Config { gateway, pool, .. } = config;
        let listen = gateway.listen.ip().to_canonical();
        if gateway.token.is_none() && !listen.is_loopback() {
            return Err(SettingsError::Exposed { listen });
        }
        if gateway.token.is_none() && !config.tenants.is_empty() {
            return Err(SettingsError::NoOperator);
        }
        let external_url = gateway.external_url.as_deref().map(Url::parse).transpose()?;
        let mut hosts: Vec<String> = ["127.0.0.1", "[::1]", "localhost"].map(str::to_owned).into();
        hosts.push(match listen {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        });
        hosts.extend(external_url.as_ref().and_then(Url::host_str).map(str::to_owned));
        hosts.extend(gateway.allowed_hosts.iter().map(|host| canonical(host)));
        Ok(Self {
            node: config.fleet.as_ref().filter(|fleet| fleet.is_on()).map(FleetConfig::node_name),
            pool_name: pool.name.clone(),
            token: gateway.token.clone(),
            tenants: Tenants::new(config),
            external_url,
            hosts,
            allowed_origins: gateway.allowed_origins.clone(),
            drain_timeout: gateway.drain_timeout,
            acquire_timeout: pool.acquire_timeout,
            max_waiting: pool.max_waiting,
            lease: pool.lease,
            lease_choice: pool.lease_choice,
            leases_per_browser: match pool.lease {
                LeaseKind::Exclusive => 1,
                LeaseKind::Shared => pool.leases_per_browser,
            },
            egress: config.egress.is_some(),
            lease_timeout: pool.lease_timeout,
            lease_idle_timeout: pool.lease_idle_timeout,
            keep_limit: pool.keep_limit,
            headless: config.chrome.headless,
        })
    }
}

/// Returns a host as browsers spell it.
fn canonical(host: &str) -> String {
    Host::parse(host).map_or_else(|_| host.to_lowercase(), |host| host.to_string())
}

impl Settings {
    /// Returns how long leases may go on when the pool drains.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }

    /// Returns the address of a held lease, which is all that is needed to use it.
    pub(super) fn lease_url(&self, headers: &HeaderMap, public_id: &str) -> String {
        self.websocket_url(headers, &lease_path(public_id), "")
    }

    /// Returns the id of a lease as others see it: in a fleet, it includes the node.
    pub(super) fn public_id(&self, lease: LeaseId) -> String {
        match &self.node {
            Some(node) => lease_id(node, &lease.to_string()),
            None => lease.to_string(),
        }
    }

    /// Reads the id of a lease of this node.
    pub(super) fn own_id(&self, id: &str) -> Option<LeaseId> {
        let own = match (&self.node, split_lease_id(id)) {
            (Some(node), Some((of, lease))) if **node == *of => lease,
            _ => id,
        };
        own.parse().ok()
    }

    /// Returns the address of one of our paths, as the client that sent these headers can reach it.
    pub(super) fn websocket_url(&self, headers: &HeaderMap, path: &str, query: &str) -> String {
        let base = match &self.external_url {
            Some(url) => {
                let base = url.as_str().trim_end_matches('/');
                match base.split_once("://") {
                    Some(("https" | "wss", rest)) => format!("wss://{rest}"),
                    Some((_, rest)) => format!("ws://{rest}"),
                    None => base.to_owned(),
                }
            }
            None => {
                let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
                let host = text(header::HOST).unwrap_or("127.0.0.1");
                // Set by a proxy in front of us; a client that sets it only misleads itself.
                let proto = text(header::HeaderName::from_static("x-forwarded-proto"));
                let scheme = if proto == Some("https") { "wss" } else { "ws" };
                format!("{scheme}://{host}")
            }
        };
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{base}{path}{mark}{query}")
    }

    /// Puts the tenant that asks into its request.
    ///
    /// # Errors
    ///
    /// If the request names a tenant although tenants are identified by their tokens.
    pub(super) fn attribute(&self, who: &Who, asked: &mut LeaseQuery) -> Result<(), Problem> {
        if self.tenants.is_empty() {
            return Ok(());
        }
        if asked.tenant.is_some() {
            let detail = "leave out the parameter \"tenant\": the token identifies the tenant";
            return Err(Problem::new(Code::BadParameter, detail));
        }
        asked.tenant = who.tenant().map(str::to_owned);
        Ok(())
    }

    /// Returns the kind of lease that a tenant gets if it asks for this one, or for none.
    pub(super) fn tenant_kind(
        &self,
        asked: &LeaseQuery,
        kind: LeaseKind,
    ) -> Result<LeaseKind, Problem> {
        let tenant = asked.tenant.as_deref().and_then(|name| self.tenants.get(name));
        let Some((tenant, allowed)) =
            tenant.and_then(|tenant| Some((tenant, tenant.config.leases.as_deref()?)))
        else {
            return Ok(kind);
        };
        if allowed.contains(&kind) {
            return Ok(kind);
        }
        let chooses = self.lease_choice && asked.lease.is_none() && asked.profile.is_none();
        match allowed.first() {
            Some(other) if chooses => Ok(*other),
            _ => {
                let (name, kind) = (&tenant.name, kind.as_str());
                let detail = format!("tenant {name:?} may not have {kind} leases");
                Err(Problem::new(Code::LeaseNotAllowed, detail))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str, token: Option<&str>) -> Config {
        let mut config = Config::default();
        config.gateway.listen = listen.parse().expect("it is an address");
        config.gateway.token = token.map(Secret::new);
        config
    }

    #[test]
    fn beyond_loopback_a_token_is_needed() {
        for listen in ["0.0.0.0:3000", "[::]:3000", "192.0.2.1:3000"] {
            assert!(matches!(
                Settings::new(&config(listen, None)),
                Err(SettingsError::Exposed { .. })
            ));
            assert!(Settings::new(&config(listen, Some("t"))).is_ok());
        }
        for listen in ["127.0.0.1:3000", "127.8.8.8:1", "[::1]:3000", "[::ffff:127.0.0.1]:1"] {
            assert!(Settings::new(&config(listen, None)).is_ok(), "{listen}");
        }
    }

    #[test]
    fn the_url_is_the_external_one_or_that_of_the_request() {
        let mut config = Config::default();
        let headers: HeaderMap =
            [(header::HOST, "localhost:3000".parse().expect("a value"))].into_iter().collect();
        let url = |config: &Config, query| {
            let settings = Settings::new(config).expect("it is valid");
            settings.websocket_url(&headers, "/", query)
        };
        assert_eq!(url(&config, ""), "ws://localhost:3000/");
        assert_eq!(url(&config, "priority=1&token=x"), "ws://localhost:3000/?priority=1&token=x");
        for (external, expected) in [
            ("wss://pool.example", "wss://pool.example/?a=1"),
            ("https://pool.example/base/", "wss://pool.example/base/?a=1"),
            ("http://pool.example:8080", "ws://pool.example:8080/?a=1"),
        ] {
            config.gateway.external_url = Some(external.to_owned());
            assert_eq!(url(&config, "a=1"), expected);
        }
    }
}
