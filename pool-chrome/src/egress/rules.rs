use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use url::Host;

use super::pattern::undotted;
use super::target::{Target, is_public};
use super::{Pattern, ProxyError};

/// An operator's rules for where browsers may go.
///
/// Anything in [`allow`](Self::allow) may be visited, whatever the other rules say; anything in
/// [`deny`](Self::deny) may not; [`private`](Self::private) decides about the rest. The default
/// lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// Treatment of addresses that are not public. Default: they may be visited.
    pub private: Private,
    /// Hosts and networks that may be visited, before the other rules. Default: nothing.
    pub allow: Vec<Pattern>,
    /// Hosts and networks that may not be visited. Default: nothing.
    pub deny: Vec<Pattern>,
}

/// Treatment of addresses that are not of the public Internet, and of services that hand a
/// machine its credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "config",
    derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
    serde(rename_all = "lowercase")
)]
pub enum Private {
    /// They may be visited.
    #[default]
    Allow,
    /// They may not be visited: this machine, private networks, and cloud metadata services.
    Deny,
}

impl Rules {
    /// Returns the rules that let everything through.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`private`](Self::private).
    #[must_use]
    pub fn private(mut self, private: Private) -> Self {
        self.private = private;
        self
    }

    /// Adds to [`allow`](Self::allow).
    #[must_use]
    pub fn allow(mut self, patterns: impl IntoIterator<Item = Pattern>) -> Self {
        self.allow.extend(patterns);
        self
    }

    /// Adds to [`deny`](Self::deny).
    #[must_use]
    pub fn deny(mut self, patterns: impl IntoIterator<Item = Pattern>) -> Self {
        self.deny.extend(patterns);
        self
    }

    /// Judges a target by its name.
    pub(super) fn judge_name(
        &self,
        target: &Target,
        domains: Option<&[Pattern]>,
    ) -> Result<ByName, Refusal> {
        let names = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(target));
        if domains.is_some_and(|domains| !names(domains)) {
            return Err(Refusal::Domains);
        }
        if names(&self.allow) {
            return Ok(ByName::Allowed);
        }
        if names(&self.deny) {
            return Err(Refusal::Denied);
        }
        if self.private == Private::Deny
            && let Host::Domain(name) = &target.host
            && METADATA.contains(&undotted(name))
        {
            return Err(Refusal::Metadata);
        }
        Ok(ByName::Undecided)
    }

    /// Judges one of the addresses of a target whose name did not decide.
    pub(super) fn judge_address(&self, address: IpAddr, port: u16) -> Result<(), Refusal> {
        if self.allow.iter().any(|pattern| pattern.holds(address, port)) {
            return Ok(());
        }
        if self.deny.iter().any(|pattern| pattern.touches(address, port)) {
            return Err(Refusal::Denied);
        }
        match self.private {
            Private::Deny if !is_public(address) => Err(Refusal::Private),
            Private::Allow | Private::Deny => Ok(()),
        }
    }

    /// Judges a target that a proxy will resolve, as far as that is possible from here: by its
    /// name, or by its address if it has no other name.
    pub(super) fn judge_unresolved(
        &self,
        target: &Target,
        domains: Option<&[Pattern]>,
    ) -> Result<(), Refusal> {
        if self.judge_name(target, domains)? == ByName::Allowed {
            return Ok(());
        }
        match &target.host {
            Host::Ipv4(address) => self.judge_address((*address).into(), target.port),
            Host::Ipv6(address) => self.judge_address((*address).into(), target.port),
            Host::Domain(name) if self.private == Private::Deny && is_local_name(name) => {
                Err(Refusal::Private)
            }
            Host::Domain(_) => Ok(()),
        }
    }
}

/// The decision that the name of a target allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByName {
    /// Its addresses do not matter.
    Allowed,
    /// Each of its addresses is judged.
    Undecided,
}

/// Names of the services from which machines in clouds get their credentials.
const METADATA: [&str; 9] = [
    "instance-data",
    "instance-data.ec2.internal",
    "metadata",
    "metadata.azure.internal",
    "metadata.goog",
    "metadata.google.internal",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "metadata.tencentyun.com",
];

/// Returns `true` if a name does not belong to the public Internet: reserved for private use, or of
/// one label.
fn is_local_name(name: &str) -> bool {
    let name = undotted(name);
    let last = name.rsplit('.').next().unwrap_or_default();
    !name.contains('.')
        || matches!(last, "localhost" | "local" | "internal")
        || name == "home.arpa"
        || name.ends_with(".home.arpa")
}

/// Reasons why a browser may not go somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// It is the pool itself.
    Pool,
    /// It is not on the public Internet, or one of the addresses of its name is not.
    Private,
    /// It is a service that gives machines their credentials.
    Metadata,
    /// It is in `deny`.
    Denied,
    /// The lease was requested with `allow_domains`, which does not include it.
    Domains,
    /// No lease has begun that could go anywhere.
    Closed,
    /// It is unclear where it leads.
    Unclear,
}

impl Refusal {
    /// Returns the rule in one word.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Private => "private",
            Self::Metadata => "metadata",
            Self::Denied => "deny",
            Self::Domains => "allow_domains",
            Self::Closed => "closed",
            Self::Unclear => "unclear",
        }
    }
}

/// The rule, for a page to show: it reveals nothing about any address.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pool => "a browser of the pool may not reach the pool",
            Self::Private => "only public addresses may be visited (private = \"deny\")",
            Self::Metadata => "metadata services may not be visited (private = \"deny\")",
            Self::Denied => "it is among the hosts that may not be visited (deny)",
            Self::Domains => "it is not among the domains of this lease (allow_domains)",
            Self::Closed => "no lease has begun",
            Self::Unclear => "the host is not spelled as a browser spells it",
        })
    }
}

/// Reasons why a browser's request was not carried out.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is against the rules.
    Refused(Refusal),
    /// Its target could not be reached.
    Unreachable(Arc<dyn std::error::Error + Send + Sync>),
    /// The proxy does not work, or cannot reach the target.
    Proxy(ProxyError),
}

impl Failure {
    pub(super) fn unreachable(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unreachable(Arc::new(error))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ProxyError> for Failure {
    fn from(error: ProxyError) -> Self {
        Self::Proxy(error)
    }
}

/// Lets hyper close the connection of a request that ends in an error.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Unreachable(error) => error.fmt(f),
            Self::Proxy(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &[&str]) -> Vec<Pattern> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn target(text: &str) -> Target {
        Target::read(&text.parse().unwrap(), 80).unwrap()
    }

    /// Returns the verdict on a target with all the addresses that its name has.
    fn verdict(rules: &Rules, text: &str, addresses: &[&str]) -> Result<(), Refusal> {
        let target = target(text);
        if rules.judge_name(&target, None)? == ByName::Allowed {
            return Ok(());
        }
        addresses
            .iter()
            .try_for_each(|address| rules.judge_address(address.parse().unwrap(), target.port))
    }

    fn private() -> Rules {
        Rules::new().private(Private::Deny)
    }

    #[test]
    fn one_private_address_among_public_ones_is_enough() {
        let name = "rebinding.example";
        assert_eq!(verdict(&private(), name, &["8.8.8.8", "1.1.1.1"]), Ok(()));
        for address in ["127.0.0.1", "10.0.0.1", "::1", "64:ff9b::a00:1", "::ffff:169.254.169.254"]
        {
            let both = verdict(&private(), name, &["8.8.8.8", address]);
            assert_eq!(both, Err(Refusal::Private), "{address}");
            assert_eq!(verdict(&Rules::new(), name, &["8.8.8.8", address]), Ok(()));
        }
    }

    #[test]
    fn what_is_allowed_is_so_before_the_other_rules() {
        let rules = private()
            .allow(patterns(&["10.1.2.0/24", "intranet.example:443", "ok.ads.example"]))
            .deny(patterns(&["*.ads.example", "*:25", "8.8.0.0/16"]));
        assert_eq!(verdict(&rules, "any.example", &["10.1.2.9"]), Ok(()));
        assert_eq!(verdict(&rules, "any.example", &["10.1.3.9"]), Err(Refusal::Private));
        assert_eq!(verdict(&rules, "intranet.example:443", &["192.168.0.1"]), Ok(()));
        let other_port = verdict(&rules, "intranet.example:80", &["192.168.0.1"]);
        assert_eq!(other_port, Err(Refusal::Private));
        assert_eq!(verdict(&rules, "ok.ads.example", &["1.1.1.1"]), Ok(()));
        assert_eq!(verdict(&rules, "x.ads.example", &["1.1.1.1"]), Err(Refusal::Denied));
        assert_eq!(verdict(&rules, "mail.example:25", &["1.1.1.1"]), Err(Refusal::Denied));
        assert_eq!(verdict(&rules, "dns.example", &["1.1.1.1", "8.8.8.8"]), Err(Refusal::Denied));
        assert_eq!(verdict(&rules, "dns.example", &["64:ff9b::808:808"]), Err(Refusal::Denied));
        // What looks like an allowed network inside another address leads elsewhere.
        let within = verdict(&rules, "x.example", &["64:ff9b::10.1.2.9"]);
        assert_eq!(within, Err(Refusal::Private));
    }

    #[test]
    fn a_lease_narrows_and_never_widens() {
        let rules = private().deny(patterns(&["bad.example"]));
        let domains = patterns(&["good.example", "*.good.example", "bad.example", "10.0.0.1"]);
        let judge = |text| rules.judge_name(&target(text), Some(&domains));
        assert_eq!(judge("good.example"), Ok(ByName::Undecided));
        assert_eq!(judge("a.good.example:8443"), Ok(ByName::Undecided));
        assert_eq!(judge("other.example"), Err(Refusal::Domains));
        assert_eq!(judge("bad.example"), Err(Refusal::Denied));
        assert_eq!(judge("10.0.0.1"), Ok(ByName::Undecided));
        assert_eq!(judge("10.0.0.2"), Err(Refusal::Domains));
        assert_eq!(rules.judge_address("10.0.0.1".parse().unwrap(), 80), Err(Refusal::Private));
    }

    #[test]
    fn metadata_services_are_refused_by_name_as_well() {
        for name in ["metadata.google.internal", "METADATA.google.internal.", "metadata"] {
            assert_eq!(verdict(&private(), name, &["8.8.8.8"]), Err(Refusal::Metadata), "{name}");
            assert_eq!(verdict(&Rules::new(), name, &["169.254.169.254"]), Ok(()), "{name}");
        }
        let rules = private().allow(patterns(&["metadata.google.internal"]));
        assert_eq!(verdict(&rules, "metadata.google.internal", &["169.254.169.254"]), Ok(()));
    }

    #[test]
    fn what_a_proxy_resolves_is_judged_by_its_name() {
        let judge = |text: &str| private().judge_unresolved(&target(text), None);
        for text in [
            "localhost",
            "a.localhost.",
            "printer.local",
            "db.internal",
            "intranet",
            "10.0.0.1",
            "[::1]",
            "[::ffff:a00:1]",
        ] {
            assert_eq!(judge(text), Err(Refusal::Private), "{text}");
        }
        for text in ["a.example", "8.8.8.8", "[2606:4700::1111]", "local.example"] {
            assert_eq!(judge(text), Ok(()), "{text}");
        }
        let rules = private().allow(patterns(&["db.internal:5984"]));
        assert_eq!(rules.judge_unresolved(&target("db.internal:5984"), None), Ok(()));
    }

    #[test]
    fn a_refusal_tells_the_rule_and_no_address() {
        for refusal in [
            Refusal::Pool,
            Refusal::Private,
            Refusal::Metadata,
            Refusal::Denied,
            Refusal::Domains,
            Refusal::Closed,
            Refusal::Unclear,
        ] {
            assert!(!refusal.to_string().contains(|char: char| char.is_ascii_digit()));
            assert!(!refusal.code().is_empty());
        }
    }
}
