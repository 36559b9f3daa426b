use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use pool_core::{Driver, Group, Policy, Rejection, RejectionKind, Request};

use crate::PolicyError;
use crate::part::{check_name, shorten};

/// Shares a pool between tenants: how much each may have, and what it may ask for.
///
/// The label `tenant` of a request says whose it is; who may use which tenant's name is decided
/// elsewhere, for example by a token. A request that names an unknown tenant is refused with the
/// code `unknown_tenant`. A request without the label belongs to nobody, and is neither limited nor
/// clamped; it takes turns with the tenants as if it had share 1.
///
/// Between tenants that wait, the pool is shared by weighted fair queueing of leases; within a
/// tenant, by priority and ageing, as without tenants. A tenant at its limit waits while others
/// pass: see [`Group`]. The limits apply to leases that are held, so there is nothing to count
/// here, and an idle tenant costs nothing.
///
/// Add it before [`Priority`](crate::Priority), which then sees the priority that the tenant is
/// given.
///
/// # Examples
///
/// ```
/// use pool_core::testing::FakeDriver;
/// use pool_core::{AcquireError, Pool, Request};
/// use pool_policies::{Priority, Tenant, Tenants};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tenants = Tenants::new([
///     Tenant::new("scrapers").max_leases(1).max_waiting(50),
///     Tenant::new("support").share(2.0).highest_priority(3)?,
/// ])?;
/// let pool = Pool::builder(FakeDriver::default())
///     .policy(tenants)
///     .policy(Priority::new())
///     .max_size(4)
///     .build()?;
/// let scrapers = || Request::new().label("tenant", "scrapers");
/// let held = pool.acquire_with(scrapers()).await?;
/// let more = pool.acquire_with(scrapers().timeout(Duration::ZERO)).await.unwrap_err();
/// assert!(matches!(more, AcquireError::GroupFull { group, .. } if group.leased == 1));
/// let support = pool.acquire_with(Request::new().label("tenant", "support")).await?;
/// # drop((held, support));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    by_name: HashMap<Arc<str>, Arc<Tenant>>,
}

/// One tenant of [`Tenants`]; without limits unless they are set.
#[derive(Clone, Debug)]
pub struct Tenant {
    group: Group,
    /// The group that the pool is handed: one for all requests, so that it is recognized by
    /// pointer.
    shared: Arc<Group>,
    default_priority: Option<u8>,
    highest_priority: u8,
    profiles: Option<Vec<String>>,
    regions: Option<Vec<String>>,
}

impl Tenant {
    /// Creates a tenant with share 1, without limits.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let group = Group::new(name);
        let shared = Arc::new(group.clone());
        let (default_priority, highest_priority) = (None, 1);
        let (profiles, regions) = (None, None);
        Self { group, shared, default_priority, highest_priority, profiles, regions }
    }

    /// Sets the maximum number of its leases at the same time. Default: only the pool's own
    /// maximum.
    #[must_use]
    pub fn max_leases(mut self, max: usize) -> Self {
        self.group = self.group.max_leases(max);
        self
    }

    /// Sets the maximum number of its waiting requests. Default: only the pool's own maximum.
    #[must_use]
    pub fn max_waiting(mut self, max: usize) -> Self {
        self.group = self.group.max_waiting(max);
        self
    }

    /// Sets its share of the leases while others wait too, relative to theirs. Default: 1.
    #[must_use]
    pub fn share(mut self, share: f64) -> Self {
        self.group = self.group.weight(share);
        self
    }

    /// Sets the priority of its requests that have none. Default: that of the pool.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Setting`] if it is not 1 to 10.
    pub fn default_priority(mut self, priority: u8) -> Result<Self, PolicyError> {
        check_priority("default_priority", priority)?;
        self.default_priority = Some(priority);
        Ok(self)
    }

    /// Sets the most urgent priority that it may have; a request that asks for more gets this.
    /// Default: 1.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Setting`] if it is not 1 to 10.
    pub fn highest_priority(mut self, priority: u8) -> Result<Self, PolicyError> {
        check_priority("highest_priority", priority)?;
        self.highest_priority = priority;
        Ok(self)
    }

    /// Sets the profiles that it may use; one `*` in a name stands for anything. Default: all.
    #[must_use]
    pub fn profiles(mut self, profiles: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.profiles = Some(profiles.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the regions that it may use, as [`profiles`](Self::profiles) does. Default: all.
    #[must_use]
    pub fn regions(mut self, regions: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.regions = Some(regions.into_iter().map(Into::into).collect());
        self
    }

    fn name(&self) -> &str {
        &self.group.name
    }

    fn check(&self) -> Result<(), PolicyError> {
        check_name("tenant", self.name())?;
        let wrong = |setting, why| Err(PolicyError::Setting { setting, why });
        if !(0.001..=1000.0).contains(&self.group.weight) {
            return wrong("share", "must be 0.001 to 1000");
        }
        if self.group.max_leases == Some(0) {
            return wrong("max_leases", "must be 1 or more");
        }
        Ok(())
    }

    fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
        for (kind, code, allowed) in [
            ("profile", "profile_not_allowed", &self.profiles),
            ("region", "region_not_allowed", &self.regions),
        ] {
            let asked = request.get(kind).zip(allowed.as_ref());
            if let Some((asked, allowed)) = asked
                && !allowed.iter().any(|pattern| fits(pattern, asked))
            {
                let (name, asked) = (self.name(), shorten(asked));
                let message = format!("{name} may not use the {kind} {asked:?}");
                return Err(Rejection::new(RejectionKind::Forbidden, code, message));
            }
        }
        request.priority = match request.priority.or(self.default_priority) {
            // Out of range: refused by the policy that reads it, rather than taken for something
            // else.
            Some(0) => Some(0),
            Some(priority) => Some(priority.max(self.highest_priority)),
            // The pool's default is not known here.
            None => None,
        };
        request.group = Some(Arc::clone(&self.shared));
        Ok(())
    }
}

fn check_priority(setting: &'static str, priority: u8) -> Result<(), PolicyError> {
    if (1..=10).contains(&priority) {
        return Ok(());
    }
    Err(PolicyError::Setting { setting, why: "must be 1 to 10" })
}

/// Returns `true` if a name matches the pattern, in which one `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name
            .strip_prefix(before)
            .is_some_and(|rest| rest.len() >= after.len() && rest.ends_with(after)),
    }
}

impl Tenants {
    /// Shares a pool between these tenants.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Name`] for a name that is invalid or given twice, [`PolicyError::Setting`]
    /// for a share or a limit that makes no sense.
    pub fn new(tenants: impl IntoIterator<Item = Tenant>) -> Result<Self, PolicyError> {
        let mut by_name = HashMap::new();
        for mut tenant in tenants {
            tenant.check()?;
            tenant.shared = Arc::new(tenant.group.clone());
            let name = Arc::clone(&tenant.group.name);
            if by_name.insert(Arc::clone(&name), Arc::new(tenant)).is_some() {
                let (kind, name) = ("tenant", name.to_string());
                return Err(PolicyError::Name { kind, name, why: "it is given twice" });
            }
        }
        Ok(Self { by_name })
    }

    /// Returns the groups of all tenants, for [`Pool::set_group`](pool_core::Pool::set_group) when
    /// limits and shares change while a pool runs.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.by_name.values().map(|tenant| &tenant.shared)
    }
}

#[async_trait]
impl<D: Driver> Policy<D> for Tenants {
    fn watches(&self) -> bool {
        false
    }

    fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
        let Some(name) = request.get("tenant") else { return Ok(()) };
        match self.by_name.get(name) {
            Some(tenant) => Arc::clone(tenant).admit(request),
            None => {
                let message = format!("there is no tenant {:?}", shorten(name));
                Err(Rejection::new(RejectionKind::Unknown, "unknown_tenant", message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_in_a_pattern_stands_for_anything() {
        for (pattern, name, fit) in [
            ("crm", "crm", true),
            ("crm", "crm-1", false),
            ("crm-*", "crm-1", true),
            ("crm-*", "crm-", true),
            ("crm-*", "crm", false),
            ("*", "anything", true),
            ("*-eu", "crm-eu", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
        ] {
            assert_eq!(fits(pattern, name), fit, "{pattern} {name}");
        }
    }
}
