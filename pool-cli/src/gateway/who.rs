//! The sender of a request: the pool's operator or a tenant, depending on its token.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use axum::http::Method;
use subtle::ConstantTimeEq;

use super::address::{NEW_PAGE, PROTOCOL, VERSION};
use super::lease::ClientLease;
use super::{Code, Problem};
use crate::config::{Config, Scope, Secret, TenantConfig};

/// The sender of a request.
#[derive(Clone, Debug)]
pub(super) enum Who {
    /// Whoever has the pool's own token; everybody, if there is none.
    Operator,
    Tenant(Arc<Tenant>),
}

/// A tenant, with its name and configuration.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) name: String,
    pub(super) config: TenantConfig,
}

/// The tenants of a pool, by name and token.
#[derive(Clone, Debug, Default)]
pub(super) struct Tenants {
    by_name: BTreeMap<String, Arc<Tenant>>,
    /// By a hash that nobody outside can compute, so that the time of a look-up reveals nothing
    /// about the tokens.
    by_token: HashMap<u64, Vec<(Secret, Arc<Tenant>)>>,
    hasher: RandomState,
}

impl Tenants {
    pub(super) fn new(config: &Config) -> Self {
        let mut tenants = Self::default();
        for (name, config) in &config.tenants {
            let tenant = Arc::new(Tenant { name: name.clone(), config: config.clone() });
            for token in config.all_tokens() {
                let hash = tenants.hasher.hash_one(token.expose());
                let same = tenants.by_token.entry(hash).or_default();
                same.push((token.clone(), Arc::clone(&tenant)));
            }
            tenants.by_name.insert(name.clone(), tenant);
        }
        tenants
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.by_name.get(name)
    }

    /// Iterates over all tenants, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Tenant> {
        self.by_name.values().map(|tenant| &**tenant)
    }

    /// Returns the tenant that a token belongs to.
    pub(super) fn of(&self, token: &str) -> Option<&Arc<Tenant>> {
        let same = self.by_token.get(&self.hasher.hash_one(token))?;
        let found = same.iter().find(|(held, _)| is_token(held, token));
        found.map(|(_, tenant)| tenant)
    }
}

/// Returns `true` if this is the token; in constant time, except for the length.
pub(super) fn is_token(token: &Secret, given: &str) -> bool {
    token.expose().as_bytes().ct_eq(given.as_bytes()).into()
}

/// The permission that a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Only a valid token.
    Token,
    Scope(Scope),
    /// It is for the operator alone.
    Operator,
}

impl Need {
    /// Returns the permission that the route with this method and path needs. Routes that are not
    /// listed are for the operator, so that a new route is not open by mistake.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        match path {
            "/browser_pools/{name}" if *method == Method::PATCH => Self::Scope(Scope::Operate),
            "/meta"
            | "/active"
            | "/openapi.json"
            | PROTOCOL
            | "/function"
            | "/download"
            | "/performance"
            | "/chromium/function"
            | "/chromium/download"
            | "/chromium/performance"
            | "/browsers/{id}/{*rest}"
            | "/profiles"
            | "/profiles/{*rest}" => Self::Token,
            "/"
            | "/chromium"
            | NEW_PAGE
            | VERSION
            | "/json"
            | "/json/list"
            | "/json/new"
            | "/json/activate/{page}"
            | "/json/close/{page}"
            | "/kill/{id}"
            | "/api/leases/{id}/kill"
            | "/browsers"
            | "/browsers/{id}"
            | "/browser_pools"
            | "/browser_pools/{name}"
            | "/browser_pools/{name}/acquire"
            | "/browser_pools/{name}/release" => Self::Scope(Scope::Lease),
            "/content"
            | "/screenshot"
            | "/pdf"
            | "/scrape"
            | "/chromium/content"
            | "/chromium/screenshot"
            | "/chromium/pdf"
            | "/chromium/scrape" => Self::Scope(Scope::Work),
            "/pressure"
            | "/sessions"
            | "/api/state"
            | "/api/history"
            | "/api/stream"
            | "/api/usage"
            | "/api/browsers/{id}/page"
            | "/api/browsers/{id}/screenshot" => Self::Scope(Scope::View),
            "/metrics" | "/api/autoscale" => Self::Scope(Scope::Metrics),
            "/browser_pools/{name}/flush"
            | "/api/browsers/{id}/retire"
            | "/api/resize"
            | "/api/flush"
            | "/api/drain"
            | "/api/reload"
            | "/api/fleet"
            | "/api/fleet/{node}/drain"
            | "/api/fleet/{node}/undrain"
            | "/api/profiles/{profile}/make-new" => Self::Scope(Scope::Operate),
            _ => Self::Operator,
        }
    }
}

impl Who {
    /// Returns the name of the tenant, if the sender is one.
    pub(super) fn tenant(&self) -> Option<&str> {
        match self {
            Self::Operator => None,
            Self::Tenant(tenant) => Some(&tenant.name),
        }
    }

    /// Returns `true` if a lease may be seen and ended: a tenant has its own, the operator all.
    pub(super) fn sees(&self, session: &ClientLease) -> bool {
        self.sees_tenant(session.asked.tenant.as_deref())
    }

    /// Returns `true` if the sender may see things that belong to this tenant, or to none.
    pub(super) fn sees_tenant(&self, tenant: Option<&str>) -> bool {
        match self {
            Self::Operator => true,
            Self::Tenant(own) => tenant == Some(&own.name),
        }
    }

    /// Refuses what a tenant is not allowed to do.
    pub(super) fn check(&self, need: Need) -> Result<(), Problem> {
        let Self::Tenant(tenant) = self else { return Ok(()) };
        let allowed = &tenant.config.allow;
        let missing = match need {
            Need::Token => return Ok(()),
            Need::Scope(scope) if allowed.contains(&scope) => return Ok(()),
            Need::Scope(scope) => format!("it lacks the right {:?}", scope_word(scope)),
            Need::Operator => "only the pool's operator may".to_owned(),
        };
        let detail = format!("tenant {:?} may not do this: {missing}", tenant.name);
        Err(Problem::new(Code::NotAllowed, detail))
    }
}

fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Lease => "lease",
        Scope::Work => "work",
        Scope::View => "view",
        Scope::Metrics => "metrics",
        Scope::Operate => "operate",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_its_tenant_and_of_no_other() {
        let mut config = Config::default();
        for name in ["ada", "ben"] {
            let mut tenant = TenantConfig { token: Some(Secret::new(name)), ..Default::default() };
            tenant.tokens = vec![Secret::new(format!("{name}-old"))];
            config.tenants.insert(name.to_owned(), tenant);
        }
        let tenants = Tenants::new(&config);
        let of = |token| tenants.of(token).map(|tenant| tenant.name.as_str());
        assert_eq!(
            (of("ada"), of("ada-old"), of("ben-old")),
            (Some("ada"), Some("ada"), Some("ben"))
        );
        assert_eq!((of(""), of("ad"), of("adaa")), (None, None, None));
    }

    #[test]
    fn a_route_that_is_not_listed_is_for_the_operator() {
        let need = |method, path| Need::of(&method, path);
        assert_eq!(need(Method::GET, "/api/anything"), Need::Operator);
        assert_eq!(need(Method::POST, "/api/drain"), Need::Scope(Scope::Operate));
        let pool = "/browser_pools/{name}";
        assert_eq!(need(Method::GET, pool), Need::Scope(Scope::Lease));
        assert_eq!(need(Method::PATCH, pool), Need::Scope(Scope::Operate));
    }
}
