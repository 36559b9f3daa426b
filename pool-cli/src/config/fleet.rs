//! The section about the fleet: many machines that are one pool.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use pool_fleet::{NatsAuth, NatsOptions, TransportError};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::Secret;
use super::secret::io_reason;
use super::units::AsPath;

/// `[fleet]`: many machines that are one pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-optional" = true))]
pub struct FleetConfig {
    /// The NATS servers, all of one cluster: `nats://host:port`, or `tls://host:port` to insist on
    /// TLS. They must be of version 2.10 or newer.
    ///
    /// Beyond loopback TLS and credentials are required, unless `allow_insecure` is set.
    #[schemars(example = ["tls://nats.example:4222"])]
    #[schemars(extend("items" = { "type": "string", "x-kind": "nats url" }))]
    pub nats: Vec<String>,
    /// The name of the fleet, up to 32 letters, digits, `_` and `-`. The same NATS servers may
    /// carry several fleets.
    pub name: String,
    /// The name of this node, which no other node of the fleet may have. Ids of leases begin with
    /// it.
    ///
    /// By default the host name.
    #[schemars(example = "worker-7")]
    pub node: Option<String>,
    /// The address at which the other nodes reach this one: `wss://host:port`, or `ws://host:port`
    /// on loopback and where `allow_insecure` is set.
    ///
    /// By default it is made from `listen` in `[gateway]`, where that is a single address.
    #[schemars(example = "wss://worker-7.example:3000")]
    #[schemars(extend("x-kind" = "node url"))]
    pub advertise: Option<String>,
    /// The secret of the fleet, the same at every node and 16 characters or longer: what one node
    /// passes on to another is signed with it. Required.
    #[schemars(example = serde_json::json!({ "env": "FLEET_SECRET" }))]
    pub secret: Option<Secret>,
    /// Labels of this node, which the others see. A node asks those of its own `zone` first.
    ///
    /// By default none.
    #[schemars(example = serde_json::json!({ "zone": "eu-1a" }))]
    pub labels: BTreeMap<String, String>,
    /// The user name for the NATS servers. There are four ways to authenticate, of which at most
    /// one may be set: this with `password`, `token`, `nkey`, or `credentials`.
    #[schemars(example = "browser-pool")]
    pub user: Option<String>,
    /// The password of `user`.
    #[schemars(example = serde_json::json!({ "env": "NATS_PASSWORD" }))]
    pub password: Option<Secret>,
    /// The token for the NATS servers.
    #[schemars(example = serde_json::json!({ "env": "NATS_TOKEN" }))]
    pub token: Option<Secret>,
    /// The seed of an nkey, `SU…`.
    #[schemars(example = serde_json::json!({ "env": "NATS_NKEY" }))]
    pub nkey: Option<Secret>,
    /// A credentials file, as `nsc` writes it.
    #[serde(with = "AsPath")]
    #[schemars(example = "/etc/browser-pool/nats.creds")]
    pub credentials: Option<PathBuf>,
    /// A PEM file of the certificate authorities that vouch for the NATS servers.
    ///
    /// By default those of the system.
    #[serde(with = "AsPath")]
    #[schemars(example = "/etc/browser-pool/nats-ca.pem")]
    pub root_certificates: Option<PathBuf>,
    /// A PEM file of the certificate that this node presents to the NATS servers.
    #[serde(with = "AsPath")]
    #[schemars(example = "/etc/browser-pool/nats.pem")]
    pub client_certificate: Option<PathBuf>,
    /// A PEM file of the key of `client_certificate`.
    #[serde(with = "AsPath")]
    #[schemars(example = "/etc/browser-pool/nats.key")]
    pub client_key: Option<PathBuf>,
    /// Never talk to a NATS server without TLS, whatever its address begins with.
    pub require_tls: bool,
    /// Allow an `advertise` beyond loopback without TLS, and NATS servers without TLS or without
    /// credentials, for a network whose traffic nobody else can read: anyone who can read it can
    /// take leases.
    pub allow_insecure: bool,
    /// Number of NATS servers of the cluster that keep what must outlive nodes, such as profiles.
    #[schemars(range(min = 1, max = 5))]
    pub replicas: usize,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            nats: Vec::new(),
            name: "default".to_owned(),
            node: None,
            advertise: None,
            secret: None,
            labels: BTreeMap::new(),
            user: None,
            password: None,
            token: None,
            nkey: None,
            credentials: None,
            root_certificates: None,
            client_certificate: None,
            client_key: None,
            require_tls: false,
            allow_insecure: false,
            replicas: 1,
        }
    }
}

impl FleetConfig {
    /// Returns the servers and credentials to connect with; this reads the credentials file.
    ///
    /// # Errors
    ///
    /// [`TransportError::Configuration`] if that file cannot be read.
    pub fn nats_options(&self) -> Result<NatsOptions, TransportError> {
        let mut options = NatsOptions::new(self.nats.iter().cloned())
            .name(format!("browser-pool {}", self.node_name()))
            .auth(self.auth()?)
            .allow_insecure(self.allow_insecure)
            .replicas(self.replicas);
        if self.require_tls {
            options = options.require_tls();
        }
        if let Some(file) = &self.root_certificates {
            options = options.root_certificates(file);
        }
        if let (Some(certificate), Some(key)) = (&self.client_certificate, &self.client_key) {
            options = options.client_certificate(certificate, key);
        }
        Ok(options)
    }

    fn auth(&self) -> Result<NatsAuth, TransportError> {
        let secret = |secret: &Secret| SecretString::from(secret.expose());
        Ok(if let (Some(user), Some(password)) = (&self.user, &self.password) {
            NatsAuth::UserPassword { user: user.clone(), password: secret(password) }
        } else if let Some(token) = &self.token {
            NatsAuth::Token(secret(token))
        } else if let Some(seed) = &self.nkey {
            NatsAuth::Nkey(secret(seed))
        } else if let Some(path) = &self.credentials {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let reason = io_reason(&error);
                let message = format!("cannot read {}: {reason}", path.display());
                TransportError::Configuration(message)
            })?;
            NatsAuth::Credentials(text.into())
        } else {
            NatsAuth::Anonymous
        })
    }

    /// Returns `true` if the pool is in a fleet.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.nats.is_empty()
    }

    /// Returns the name of this node.
    #[must_use]
    pub fn node_name(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.node.clone().unwrap_or_else(host)
    }

    /// Returns the address at which the other nodes reach this one, `ws://host:port` or
    /// `wss://host:port`; `None` if it is not set and the gateway listens on all addresses.
    #[must_use]
    pub fn advertised(&self, listen: SocketAddr) -> Option<String> {
        let own =
            || (!listen.ip().to_canonical().is_unspecified()).then(|| format!("ws://{listen}"));
        self.advertise.clone().or_else(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("it is an address")
    }

    #[test]
    fn a_node_is_reached_where_it_listens_unless_it_says_otherwise() {
        let fleet = FleetConfig::default();
        for (listen, expected) in [
            ("10.0.1.7:3000", Some("ws://10.0.1.7:3000")),
            ("[2001:db8::7]:3000", Some("ws://[2001:db8::7]:3000")),
            ("0.0.0.0:3000", None),
            ("[::]:3000", None),
            ("[::ffff:0.0.0.0]:3000", None),
        ] {
            assert_eq!(fleet.advertised(address(listen)).as_deref(), expected, "{listen}");
        }
        let advertise = Some("wss://worker-7.example:3000".to_owned());
        let fleet = FleetConfig { advertise: advertise.clone(), ..fleet };
        assert_eq!(fleet.advertised(address("0.0.0.0:3000")), advertise);
    }

    #[test]
    fn a_node_has_the_name_of_its_host_unless_it_says_otherwise() {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("/proc is mounted");
        assert_eq!(FleetConfig::default().node_name(), host.trim());
        let fleet = FleetConfig { node: Some("worker-7".to_owned()), ..FleetConfig::default() };
        assert_eq!(fleet.node_name(), "worker-7");
    }

    /// The options show no credentials, so they are told apart by what each way makes allowed.
    #[test]
    fn every_way_to_authenticate_reaches_the_transport() {
        let file = tempfile::NamedTempFile::new().expect("there is a temporary directory");
        let path = Some(file.path().to_owned());
        let secret = || Some(Secret::new("canary"));
        let far = || FleetConfig {
            nats: vec!["tls://nats.example:4222".to_owned()],
            ..FleetConfig::default()
        };
        let check = |fleet: &FleetConfig| fleet.nats_options().and_then(|options| options.check());
        let error = check(&far()).expect_err("there is no way in it").to_string();
        assert!(error.contains("there are no credentials"), "{error}");
        for (way, fleet) in [
            (
                "UserPassword",
                FleetConfig { user: Some("pool".to_owned()), password: secret(), ..far() },
            ),
            ("Token", FleetConfig { token: secret(), ..far() }),
            ("Nkey", FleetConfig { nkey: secret(), ..far() }),
            ("Credentials", FleetConfig { credentials: path.clone(), ..far() }),
            (
                "identity: Some",
                FleetConfig { client_certificate: path.clone(), client_key: path, ..far() },
            ),
        ] {
            assert_eq!(check(&fleet).expect(way), [""; 0], "{way}");
            let shown = format!("{:?}", fleet.nats_options().expect(way));
            assert!(shown.contains(way) && !shown.contains("canary"), "{shown}");
        }
    }

    #[test]
    fn tls_and_trust_reach_the_transport() {
        let plain = FleetConfig {
            nats: vec!["nats://nats.example:4222".to_owned()],
            token: Some(Secret::new("canary")),
            ..FleetConfig::default()
        };
        let check = |fleet: &FleetConfig| fleet.nats_options().and_then(|options| options.check());
        assert!(check(&plain).is_err());
        let tls = FleetConfig { require_tls: true, ..plain.clone() };
        assert_eq!(check(&tls).expect("TLS is required"), [""; 0]);
        let allowed = FleetConfig { allow_insecure: true, ..plain };
        assert_eq!(check(&allowed).expect("it is allowed").len(), 1);
        let root_certificates = Some(PathBuf::from("/ca.pem"));
        let fleet = FleetConfig { root_certificates, replicas: 3, ..tls };
        let shown = format!("{:?}", fleet.nats_options().expect("nothing is read"));
        assert!(shown.contains("/ca.pem") && shown.contains("replicas: 3"), "{shown}");
    }

    #[test]
    fn credentials_that_cannot_be_read_are_named() {
        let credentials = Some(PathBuf::from("/nowhere/nats.creds"));
        let fleet = FleetConfig { credentials, ..FleetConfig::default() };
        let error = fleet.nats_options().expect_err("there is no such file").to_string();
        assert_eq!(error, "cannot read /nowhere/nats.creds: no such file or directory");
    }
}
