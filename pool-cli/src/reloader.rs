//! Reads the configuration again while the pool runs.

use std::sync::{Arc, Weak};

use pool_core::async_trait;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::api::Reloaded;
use crate::config::{Config, ConfigArgs, TenantConfig};
use crate::gateway::{Gateway, Reload, Settings};
use crate::pool::{HELD_FROM_START, Opened};
use crate::service::keep_usage;

/// Reloads one service from the place where its configuration came from.
#[derive(Debug)]
pub struct Reloader {
    args: ConfigArgs,
    /// The gateway has the reloader, so that a handle to it would keep both alive for ever.
    gateway: Weak<Gateway>,
    opened: Arc<Opened>,
    /// The configuration in force. Locked for the whole of a reload, so that two do not mix.
    current: Mutex<Config>,
}

impl Reloader {
    /// Reloads from these arguments; `current` is what the service was started with.
    #[must_use]
    pub fn new(
        args: ConfigArgs,
        current: Config,
        gateway: &Arc<Gateway>,
        opened: Arc<Opened>,
    ) -> Self {
        let gateway = Arc::downgrade(gateway);
        Self { args, gateway, opened, current: Mutex::new(current) }
    }
}

#[async_trait]
impl Reload for Reloader {
    async fn reload(&self) -> Result<Reloaded, String> {
        let mut current = self.current.lock().await;
        let loaded = self
            .args
            .loader()
            .for_this_machine()
            .load()
            .map_err(|findings| findings.to_string())?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let (changed, needs_restart): (Vec<_>, Vec<_>) =
            changes(&current, &loaded.config).into_iter().partition(|key| !is_held(key));
        let next = with_held(&current, loaded.config);
        // All that can fail comes before the first thing that changes.
        let settings = Settings::new(&next).map_err(|error| error.to_string())?;
        self.opened.change(&current, &next).map_err(|error| crate::exit::chain(&error))?;
        if let Some(gateway) = self.gateway.upgrade() {
            if let Err(error) = keep_usage(&gateway, &next) {
                tracing::warn!(%error, "what tenants use cannot be kept");
            }
            gateway.set_settings(settings);
            gateway.observer().alerts().configure(&next.alerts);
            gateway.observer().alerts().set_tenants(next.tenants.keys());
        }
        *current = next;
        Ok(Reloaded { changed, needs_restart })
    }
}

fn is_held(key: &str) -> bool {
    // Whether browsers are guarded at all is decided when they are launched; their rules are not.
    let is_presence = key == "egress";
    is_presence
        || HELD_FROM_START.iter().any(|held| match key.strip_prefix(held) {
            Some(rest) => rest.is_empty() || rest.starts_with('.'),
            None => false,
        })
}

/// The new configuration, but for what holds from the start.
fn with_held(current: &Config, mut next: Config) -> Config {
    next.chrome = current.chrome.clone();
    next.log = current.log.clone();
    next.telemetry = current.telemetry.clone();
    next.gateway.listen = current.gateway.listen;
    match (&current.egress, &mut next.egress) {
        (Some(was), Some(egress)) => egress.client_proxies.clone_from(&was.client_proxies),
        (was, egress) => egress.clone_from(was),
    }
    let (was, pool) = (&current.pool, &mut next.pool);
    pool.name.clone_from(&was.name);
    pool.state_dir.clone_from(&was.state_dir);
    pool.lease = was.lease;
    pool.lease_choice = was.lease_choice;
    pool.leases_per_browser = was.leases_per_browser;
    pool.reset = was.reset;
    pool.max_waiting = was.max_waiting;
    pool.max_idle_time = was.max_idle_time;
    pool.max_lifetime = was.max_lifetime;
    pool.max_use_count = was.max_use_count;
    pool.max_creating = was.max_creating;
    pool.health_check_interval = was.health_check_interval;
    next
}

/// The keys whose values differ, as `section.key`. Secrets are compared, and never shown.
pub(crate) fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    let value = |config| serde_json::to_value(config).unwrap_or_default();
    compare(&mut String::new(), &value(old), &value(new), &mut changed);
    // A secret shows the same text, whatever it is.
    let (was, is) = (&old.alerts, &new.alerts);
    for (key, differs) in [
        ("gateway.token", old.gateway.token != new.gateway.token),
        ("alerts.queue_url", was.queue_url != is.queue_url),
        ("alerts.reject_url", was.reject_url != is.reject_url),
        ("alerts.timeout_url", was.timeout_url != is.timeout_url),
        ("alerts.error_url", was.error_url != is.error_url),
        ("alerts.failed_health_url", was.failed_health_url != is.failed_health_url),
    ] {
        if differs && !changed.iter().any(|changed| changed == key) {
            changed.push(key.to_owned());
        }
    }
    for (name, tenant) in &old.tenants {
        let key = format!("tenants.{name}.token");
        let shown = changed.iter().any(|changed| changed.starts_with(&key));
        let tokens = |tenant: &TenantConfig| tenant.all_tokens().cloned().collect::<Vec<_>>();
        let differs = |new| tokens(new) != tokens(tenant);
        if new.tenants.get(name).is_some_and(differs) && !shown {
            changed.push(key);
        }
    }
    for (name, region) in &old.regions {
        let key = format!("regions.{name}");
        let shown = changed.iter().any(|changed| changed.starts_with(&key));
        if new.regions.get(name).is_some_and(|new| new != region) && !shown {
            changed.push(format!("{key}.proxies"));
        }
    }
    changed.sort();
    changed
}

fn compare(path: &mut String, old: &Value, new: &Value, changed: &mut Vec<String>) {
    let (Value::Object(old_map), Value::Object(new_map)) = (old, new) else {
        if old != new {
            changed.push(path.clone());
        }
        return;
    };
    let added = new_map.keys().filter(|key| !old_map.contains_key(*key));
    for key in old_map.keys().chain(added) {
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(key);
        let none = Value::Null;
        let (old, new) = (old_map.get(key).unwrap_or(&none), new_map.get(key).unwrap_or(&none));
        compare(path, old, new, changed);
        path.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EgressConfig, PrivateAddresses, ProxyConfig, RegionConfig, Secret};

    #[test]
    fn what_is_held_from_the_start_is_named_and_kept() {
        let mut next = Config::default();
        next.pool.max_waiting = 7;
        next.pool.max_size = 9;
        next.chrome.headless = false;
        let keys = changes(&Config::default(), &next);
        let held: Vec<_> = keys.iter().filter(|key| is_held(key)).collect();
        assert_eq!(held, ["chrome.headless", "pool.max_waiting"]);
        let kept = with_held(&Config::default(), next);
        assert_eq!(changes(&Config::default(), &kept), ["pool.max_size"]);
    }

    #[test]
    fn the_rules_of_a_guard_change_and_what_browsers_are_launched_with_does_not() {
        let guarded = |change: fn(&mut EgressConfig)| {
            let mut config = Config::default();
            change(config.egress.insert(EgressConfig::default()));
            config
        };
        let current = guarded(|_| {});
        let next = guarded(|egress| {
            egress.private = PrivateAddresses::Deny;
            egress.deny = vec!["*:25".parse().expect("a pattern")];
            egress.client_proxies = vec!["proxy.example:*".parse().expect("a pattern")];
        });
        let keys = changes(&current, &next);
        let held: Vec<_> = keys.iter().filter(|key| is_held(key)).collect();
        assert_eq!(held, ["egress.client_proxies"]);
        let kept = with_held(&current, next);
        assert_eq!(changes(&current, &kept), ["egress.deny", "egress.private"]);
        assert!(with_held(&current, Config::default()).egress.is_some());
    }

    #[test]
    fn every_key_that_is_said_to_be_held_is() {
        // A key of the list that `with_held` forgets would be reported and yet taken.
        let mut next = Config::default();
        next.gateway.listen.set_port(1);
        next.pool.name = "other".into();
        next.pool.lease_choice = true;
        next.pool.leases_per_browser = 3;
        next.pool.max_idle_time = None;
        next.pool.max_lifetime = None;
        next.pool.max_use_count = None;
        next.pool.max_creating = 5;
        next.pool.health_check_interval = None;
        next.pool.state_dir = "/elsewhere".into();
        next.log.filter = "debug".into();
        next.egress = Some(EgressConfig::default());
        let keys = changes(&Config::default(), &next);
        assert!(keys.iter().all(|key| is_held(key)), "{keys:?}");
        assert!(changes(&Config::default(), &with_held(&Config::default(), next)).is_empty());
    }

    #[test]
    fn every_key_that_differs_is_named_also_where_it_is_secret() {
        let mut old = Config::default();
        old.gateway.token = Some(Secret::new("one"));
        let proxy = |password: &str| ProxyConfig {
            url: "http://proxy.example:1".into(),
            username: Some("u".into()),
            password: Some(Secret::new(password)),
        };
        let region =
            |password| RegionConfig { proxies: vec![proxy(password)], ..RegionConfig::default() };
        old.regions.insert("eu".into(), region("one"));
        let tenant = |token| TenantConfig { token: Some(Secret::new(token)), ..Default::default() };
        old.tenants.insert("ada".into(), tenant("one"));
        let mut new = old.clone();
        assert!(changes(&old, &new).is_empty());
        new.pool.max_size += 1;
        new.gateway.token = Some(Secret::new("two"));
        old.alerts.error_url = Some(Secret::new("http://a.example"));
        new.alerts.error_url = Some(Secret::new("http://b.example"));
        new.alerts.queue_url = Some(Secret::new("http://b.example"));
        new.regions.insert("eu".into(), region("two"));
        new.tenants.insert("ada".into(), tenant("two"));
        new.regions.insert("us".into(), region("two"));
        let changed = changes(&old, &new);
        assert_eq!(
            changed,
            [
                "alerts.error_url",
                "alerts.queue_url",
                "gateway.token",
                "pool.max_size",
                "regions.eu.proxies",
                "regions.us",
                "tenants.ada.token"
            ]
        );
    }
}
