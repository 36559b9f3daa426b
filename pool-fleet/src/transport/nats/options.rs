use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use secrecy::{ExposeSecret, SecretString};

use super::PATIENCE;
use crate::transport::TransportError;

/// Servers and credentials of a [`NatsTransport`](super::NatsTransport).
///
/// # Examples
///
/// ```
/// use pool_fleet::{NatsAuth, NatsOptions};
///
/// let loopback = NatsOptions::new(["nats://127.0.0.1:4222"]);
/// assert!(loopback.check().is_ok());
///
/// let far = NatsOptions::new(["nats://10.0.0.5:4222"])
///     .auth(NatsAuth::UserPassword { user: "pool".into(), password: "secret".into() });
/// assert!(far.check().unwrap_err().to_string().contains("TLS"));
/// assert!(far.require_tls().check().is_ok());
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are connected with"]
pub struct NatsOptions {
    pub(super) servers: Vec<String>,
    name: Option<String>,
    auth: NatsAuth,
    require_tls: bool,
    ca: Vec<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    allow_insecure: bool,
    pub(super) start_without: bool,
    pub(super) replicas: usize,
}

/// Credentials of a node at the NATS server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum NatsAuth {
    /// No credentials, or only a TLS certificate. The default.
    #[default]
    Anonymous,
    /// A user and a password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// A token.
    Token(SecretString),
    /// The seed of an nkey, `SU…`.
    Nkey(SecretString),
    /// The content of a `.creds` file.
    Credentials(SecretString),
}

impl NatsOptions {
    /// Returns options for one or more servers of one cluster: `nats://host:port`, or `tls://` to
    /// insist on TLS.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            name: None,
            auth: NatsAuth::Anonymous,
            require_tls: false,
            ca: Vec::new(),
            identity: None,
            allow_insecure: false,
            start_without: false,
            replicas: 1,
        }
    }

    /// Sets the name under which the server lists the connection. Default: none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the credentials. Default: anonymous.
    pub fn auth(mut self, auth: NatsAuth) -> Self {
        self.auth = auth;
        self
    }

    /// Requires TLS for every server. Default: only if the address begins with `tls://`, or if the
    /// server insists.
    pub fn require_tls(mut self) -> Self {
        self.require_tls = true;
        self
    }

    /// Trusts the certificate authorities in a PEM file. Default: those of the system.
    pub fn root_certificates(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca.push(file.into());
        self
    }

    /// Presents a client certificate: PEM files of the certificate and its key. Default: none.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Allows servers beyond loopback without TLS or without credentials. Default: refused, since
    /// whoever reads the messages of a fleet can take its leases.
    pub fn allow_insecure(mut self, allowed: bool) -> Self {
        self.allow_insecure = allowed;
        self
    }

    /// Starts even if no server can be reached, and connects when one can. Default: an error.
    pub fn start_without_server(mut self, allowed: bool) -> Self {
        self.start_without = allowed;
        self
    }

    /// Sets the number of servers of the cluster that keep each entry and object. Default: 1.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Checks addresses and security without connecting. Returns warnings about what is allowed but
    /// unwise.
    ///
    /// # Errors
    ///
    /// [`TransportError::Configuration`] with a sentence that says what to write instead.
    pub fn check(&self) -> Result<Vec<String>, TransportError> {
        let refuse = |reason: String| Err(TransportError::Configuration(reason));
        if self.servers.is_empty() {
            return refuse(
                "no NATS server is named; write one such as nats://10.0.0.5:4222".into(),
            );
        }
        if !(1..=5).contains(&self.replicas) {
            return refuse(format!("NATS keeps 1 to 5 replicas, not {}", self.replicas));
        }
        let mut warnings = Vec::new();
        for server in &self.servers {
            let addr = parse(server)?;
            if is_loopback(addr.host()) {
                continue;
            }
            let encrypted = self.require_tls || addr.tls_required();
            let known = !matches!(self.auth, NatsAuth::Anonymous) || self.identity.is_some();
            let lacks = match (encrypted, known) {
                (true, true) => continue,
                (false, true) => "credentials would travel without TLS",
                (true, false) => "there are no credentials",
                (false, false) => "neither TLS nor credentials are set",
            };
            let (host, port) = (addr.host(), addr.port());
            if !self.allow_insecure {
                return refuse(format!(
                    "{lacks} for the NATS server {host}:{port}, which is not on loopback: use \
                     tls:// and credentials, or set allow_insecure"
                ));
            }
            warnings.push(format!(
                "{lacks} for the NATS server {host}:{port}: whoever reads the traffic can take leases"
            ));
        }
        Ok(warnings)
    }

    pub(super) fn connect_options(&self) -> Result<ConnectOptions, TransportError> {
        let plain = !self.require_tls && !self.allow_insecure;
        let mut options = ConnectOptions::new()
            // With the default of a minute, it would take two to find a dead link.
            .ping_interval(Duration::from_secs(2))
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
            .reconnect_delay_callback(reconnect_delay)
            .require_tls(self.require_tls);
        if let Some(name) = &self.name {
            options = options.name(name);
        }
        if plain {
            // Servers that the server announces have not been through `check`.
            options = options.ignore_discovered_servers();
        }
        for file in &self.ca {
            options = options.add_root_certificates(file.clone());
        }
        if let Some((certificate, key)) = &self.identity {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(match &self.auth {
            NatsAuth::Anonymous => options,
            NatsAuth::UserPassword { user, password } => {
                options.user_and_password(user.clone(), password.expose_secret().into())
            }
            NatsAuth::Token(token) => options.token(token.expose_secret().into()),
            NatsAuth::Nkey(seed) => options.nkey(seed.expose_secret().into()),
            NatsAuth::Credentials(file) => {
                options.credentials(file.expose_secret()).map_err(|_| {
                    TransportError::Configuration("the NATS credentials cannot be read".into())
                })?
            }
        })
    }
}

pub(super) fn parse(server: &str) -> Result<ServerAddr, TransportError> {
    let refuse = |reason: &str| {
        // The address may hold a password, so it is not shown.
        TransportError::Configuration(format!("an address of a NATS server {reason}"))
    };
    let addr = ServerAddr::from_str(server).map_err(|_| refuse("is not like nats://host:port"))?;
    if addr.has_user_pass() || addr.password().is_some() {
        return Err(refuse("contains a user or a password; set these separately"));
    }
    match addr.scheme() {
        "nats" | "tls" if !addr.host().is_empty() => Ok(addr),
        _ => Err(refuse("is not like nats://host:port or tls://host:port")),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Returns the pause before an attempt: none at first, then longer, but at most a second, so that a
/// fleet is whole again within 5 s of the server's return.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(6);
    let delay = Duration::from_millis(20) * 2_u32.pow(doublings);
    if attempts <= 1 { Duration::ZERO } else { delay.min(Duration::from_secs(1)) }
}

/// The version of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version([u32; 3]);

impl Version {
    const OLDEST: Self = Self([2, 10, 0]);

    pub(super) fn parse(text: &str) -> Option<Self> {
        let release = text.trim_start_matches('v').split(['-', '+']).next()?;
        let mut numbers = release.split('.').map(|number| number.parse().ok());
        let version = [numbers.next()??, numbers.next()??, numbers.next()??];
        numbers.next().is_none().then_some(Self(version))
    }

    /// Returns `true` for versions that are known not to lose stored data.
    pub(super) fn is_recommended(self) -> bool {
        self >= Self([2, 15, 1]) || (self >= Self([2, 14, 7]) && self < Self([2, 15, 0]))
    }
}

/// Returns the reason why a server is unusable, if it is.
pub(super) fn too_old(version: &str) -> Option<Arc<str>> {
    match Version::parse(version) {
        Some(known) if known >= Version::OLDEST => None,
        Some(_) => Some(
            format!(
                "the NATS server has version {version}: leases need 2.10 or newer, and 2.14.7 or \
                 2.15.1 or newer are recommended"
            )
            .into(),
        ),
        None => Some(format!("the version of the NATS server is unknown: {version:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password() -> NatsAuth {
        NatsAuth::UserPassword { user: "pool".into(), password: "canary".into() }
    }

    #[test]
    fn credentials_do_not_leave_loopback_without_tls() {
        for near in ["nats://127.0.0.1:1", "localhost", "nats://[::1]:4222", "127.9.9.9:4222"] {
            assert_eq!(NatsOptions::new([near]).auth(password()).check().unwrap(), [""; 0]);
        }
        for far in ["nats://10.0.0.5:4222", "nats.example", "nats://[2001:db8::1]:4222"] {
            let options = NatsOptions::new(["nats://127.0.0.1", far]).auth(password());
            let refused = options.check().unwrap_err().to_string();
            assert!(refused.contains("credentials would travel without TLS"), "{refused}");
            assert!(options.clone().require_tls().check().unwrap().is_empty());
            let warnings = options.allow_insecure(true).check().unwrap();
            assert!(warnings[0].contains("credentials would travel without TLS"));
        }
        let tls = NatsOptions::new(["tls://nats.example"]);
        assert!(tls.check().unwrap_err().to_string().contains("there are no credentials"));
        assert!(tls.clone().auth(password()).check().is_ok());
        assert!(tls.client_certificate("c.pem", "k.pem").check().is_ok());
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused_and_never_shown() {
        for server in [
            "nats://pool:canary@127.0.0.1:4222",
            "nats://:canary@127.0.0.1",
            "http://127.0.0.1/canary",
            "ws://127.0.0.1/canary",
            "nats://",
            "nats://canary:port",
        ] {
            let refused = NatsOptions::new([server]).check().unwrap_err();
            assert!(matches!(refused, TransportError::Configuration(_)), "{server}");
            assert!(!format!("{refused} {refused:?}").contains("canary"), "{refused}");
        }
        assert!(NatsOptions::new([""; 0]).check().is_err());
        assert!(NatsOptions::new(["localhost"]).replicas(6).check().is_err());
    }

    #[test]
    fn no_secret_is_printed() {
        let secret = || SecretString::from("canary");
        for auth in [
            password(),
            NatsAuth::Token(secret()),
            NatsAuth::Nkey(secret()),
            NatsAuth::Credentials(secret()),
        ] {
            let shown = format!("{:?}", NatsOptions::new(["localhost"]).auth(auth));
            assert!(!shown.contains("canary"), "{shown}");
        }
    }

    #[test]
    fn a_server_older_than_2_10_is_refused_with_that_sentence() {
        for version in ["2.10.0", "2.10.26", "2.11.0-RC.1", "2.15.1", "3.0.0", "v2.14.7+x"] {
            assert_eq!(too_old(version), None, "{version}");
        }
        let sentence = too_old("2.9.10").unwrap();
        assert!(sentence.contains("2.9.10: leases need 2.10 or newer"), "{sentence}");
        for version in ["", "2.9.25", "1.99.0", "2", "2.10", "x.y.z", "2.10.0.1"] {
            assert!(too_old(version).is_some(), "{version}");
        }
    }

    #[test]
    fn what_is_recommended_is_what_the_docs_name() {
        for (version, recommended) in [
            ("2.10.26", false),
            ("2.14.6", false),
            ("2.14.7", true),
            ("2.15.0", false),
            ("2.15.1", true),
            ("2.16.0", true),
        ] {
            assert_eq!(Version::parse(version).unwrap().is_recommended(), recommended, "{version}");
        }
    }

    #[test]
    fn a_return_of_the_server_is_noticed_within_seconds() {
        assert_eq!(reconnect_delay(0), Duration::ZERO);
        assert!((2..1_000).all(|attempt| reconnect_delay(attempt) <= Duration::from_secs(1)));
    }
}
