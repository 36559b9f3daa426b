use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LeaseKind, Secret};

/// `[tenants.NAME]`: a team or a customer that uses the pool, and how much of it.
///
/// A tenant is known by its token. Without tenants, whoever has the pool's token may do everything.
/// With them `[gateway] token` is the operator's, and is required.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantConfig {
    /// The token that its clients show, as `?token=…` or `Authorization: Bearer …`.
    #[schemars(example = serde_json::json!({ "env": "SCRAPERS_TOKEN" }))]
    pub token: Option<Secret>,
    /// Further tokens that are good as well, so that one can be replaced while clients run.
    #[schemars(example = serde_json::json!([{ "env": "SCRAPERS_OLD" }]))]
    pub tokens: Vec<Secret>,
    /// Leases that it may have at the same time. A client over it waits, and others pass.
    ///
    /// By default as many as the pool has.
    #[schemars(range(min = 1), example = 20)]
    pub max_leases: Option<usize>,
    /// Clients of it that may wait; one more is refused at once with 429.
    ///
    /// By default its part, by `share`, of what may wait for the whole pool.
    #[schemars(example = 50)]
    pub max_waiting: Option<usize>,
    /// Its part of the leases while others wait too, relative to theirs. Time in which it does not
    /// wait is not saved up.
    #[schemars(range(min = 0.001, max = 1000))]
    pub share: f64,
    /// The priorities that its clients may have: `default` for those that state none, by default that
    /// of the pool, and `highest`, the most urgent that it gets whatever it asks for.
    ///
    /// By default any.
    #[schemars(example = serde_json::json!({ "default": 4, "highest": 3 }))]
    pub priority: TenantPriority,
    /// Profiles that it may ask for; one `*` in a name stands for anything.
    ///
    /// By default all of them.
    #[schemars(example = ["crm-*"])]
    pub profiles: Option<Vec<String>>,
    /// Regions that it may ask for, in the same way.
    ///
    /// By default all of them.
    #[schemars(example = ["eu-*"])]
    pub regions: Option<Vec<String>>,
    /// Kinds of lease that it may have.
    ///
    /// By default those that the pool gives.
    #[schemars(example = ["shared"])]
    pub leases: Option<Vec<LeaseKind>>,
    /// Parts of the pool that it may use.
    pub allow: Vec<Scope>,
}

/// The priorities of a tenant's clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantPriority {
    /// The priority of its requests that state none; by default that of the pool.
    #[schemars(range(min = 1, max = 10))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<u8>,
    /// The most urgent one that it gets, whatever it asks for.
    #[schemars(range(min = 1, max = 10))]
    pub highest: u8,
}

impl Default for TenantPriority {
    fn default() -> Self {
        Self { default: None, highest: 1 }
    }
}

/// A part of the pool that a tenant may use.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Scope {
    /// To lease browsers, and to find and end its own leases.
    Lease,
    /// Pages, pictures and documents by one HTTP request.
    Work,
    /// To see its own leases: the dashboard, the API and its usage.
    View,
    /// The metrics of the whole pool.
    Metrics,
    /// To resize, flush, reload and drain the pool.
    Operate,
}

impl Default for TenantConfig {
    fn default() -> Self {
        Self {
            token: None,
            tokens: Vec::new(),
            max_leases: None,
            max_waiting: None,
            share: 1.0,
            priority: TenantPriority::default(),
            profiles: None,
            regions: None,
            leases: None,
            allow: vec![Scope::Lease, Scope::Work, Scope::View],
        }
    }
}

impl TenantConfig {
    /// Iterates over every token that is good.
    pub fn all_tokens(&self) -> impl Iterator<Item = &Secret> {
        self.token.iter().chain(&self.tokens)
    }
}
