//! Reads the configuration again while the pool runs.

use std::sync::{Arc, Weak};

use pool_core::async_trait;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::api::Reloaded;
use crate::config::{Config, ConfigArgs};
use crate::gateway::{Gateway, Reload, Settings};
use crate::pool::Opened;
use crate::service::keep_usage;

/// Reloads one service from the place where its configuration came from.
#[derive(Debug)]
pub struct Reloader {
    args: ConfigArgs,
    /// Weak, since the gateway has the reloader, and the two would keep each other alive for ever.
    gateway: Weak<Gateway>,
    opened: Arc<Opened>,
    /// The configuration in force. Locked during the whole of a reload, so that two do not mix.
    current: Mutex<Config>,
}

impl Reloader {
    /// Creates a reloader from these arguments; `current` is what the service was started with.
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
        let (needs_restart, changed) = changes(&current, &loaded.config)
            .into_iter()
            .partition(|key| current.holds(&loaded.config, key));
        let next = loaded.config.holding(&current).map_err(|error| error.to_string())?;
        // Everything that can fail comes before the first change.
        let settings = Settings::new(&next).map_err(|error| error.to_string())?;
        self.opened.change(&current, &next).map_err(|error| crate::exit::chain(&error))?;
        if let Some(gateway) = self.gateway.upgrade() {
            if let Err(error) = keep_usage(&gateway, &next) {
                tracing::warn!(%error, "the usage of tenants cannot be recorded");
            }
            gateway.set_settings(settings);
            gateway.observer().alerts().configure(&next.alerts);
            gateway.observer().alerts().set_tenants(next.tenants.keys());
        }
        *current = next;
        Ok(Reloaded { changed, needs_restart })
    }
}

/// Returns the keys whose values differ, as `section.key`. Secrets are compared, but never shown.
fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    compare(&mut String::new(), &old.values(), &new.values(), &mut changed);
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
    use crate::config::{
        EgressConfig, PrivateAddresses, ProxyConfig, RegionConfig, Secret, TenantConfig,
    };

    #[test]
    fn what_is_held_from_the_start_is_named_and_kept() {
        let mut next = Config::default();
        next.pool.max_waiting = 7;
        next.pool.max_size = 9;
        next.chrome.headless = false;
        let keys = changes(&Config::default(), &next);
        let held: Vec<_> = keys.iter().filter(|key| Config::is_held(key)).collect();
        assert_eq!(held, ["chrome.headless", "pool.max_waiting"]);
        let kept = next.holding(&Config::default()).expect("it is read back");
        assert_eq!(changes(&Config::default(), &kept), ["pool.max_size"]);
    }

    #[test]
    fn a_gateway_without_browsers_gets_none_by_a_reload_and_a_pool_keeps_its_own() {
        let sized = |min, max| {
            let mut config = Config::default();
            (config.pool.min_size, config.pool.max_size) = (min, max);
            config
        };
        for (current, next) in [(sized(0, 0), sized(2, 4)), (sized(2, 4), sized(0, 0))] {
            let keys = changes(&current, &next);
            assert_eq!(keys, ["pool.max_size", "pool.min_size"]);
            assert!(keys.iter().all(|key| current.holds(&next, key)));
            let kept = next.holding(&current).expect("it is read back");
            assert!(changes(&current, &kept).is_empty());
        }
        assert!(!sized(1, 4).holds(&sized(2, 8), "pool.max_size"));
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
        let held: Vec<_> = keys.iter().filter(|key| Config::is_held(key)).collect();
        assert_eq!(held, ["egress.client_proxies"]);
        let kept = next.holding(&current).expect("it is read back");
        assert_eq!(changes(&current, &kept), ["egress.deny", "egress.private"]);
        let bare = Config::default().holding(&current).expect("it is read back");
        assert!(bare.egress.is_some());
    }

    #[test]
    fn no_key_is_reported_as_held_and_yet_taken() {
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
        assert!(keys.iter().all(|key| Config::is_held(key)), "{keys:?}");
        let kept = next.holding(&Config::default()).expect("it is read back");
        assert!(changes(&Config::default(), &kept).is_empty());
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

    #[test]
    fn what_is_kept_is_read_back_as_it_was_written() {
        let text = r#"
            [gateway]
            token = { env = "T" }
            external_url = "wss://pool.example"
            [pool]
            max_use_count = "off"
            max_lifetime = "90s 5ms"
            [chrome]
            executable = "/bin/sh"
            cpu_max = 1.5
            pids_max = 300
            memory_max = "1500KiB"
            [egress]
            allow = ["10.1.2.0/24", "intranet.example:443"]
            [profiles]
            on_demand = true
            [profiles.work]
            region = "eu"
            [regions.eu]
            proxies = ["http://a.example:1", { url = "http://b.example:2", username = "u", password = { env = "T" } }]
            [tenants.ada]
            token = { env = "A" }
            tokens = [{ env = "B" }]
            share = 0.1
            priority = { default = 4, highest = 3 }
            leases = ["shared", "exclusive"]
            [warming]
            viewport = [800, 600]
            script = "1"
            [alerts]
            queue_url = { env = "URL" }
        "#;
        let loader = crate::config::Loader::new().text("pool.toml", text);
        let variables = [("T", "t"), ("A", "a"), ("B", "b"), ("URL", "https://hooks.example/x")];
        let loader = variables
            .into_iter()
            .fold(loader, |loader, (name, value)| loader.variable(name, value));
        let config = loader.load().expect("it is valid").config;
        assert_eq!(
            config.holding(&Config::default()).expect("it is read back").tenants,
            config.tenants
        );
        assert_eq!(config.holding(&config).expect("it is read back"), config);
        assert!(!format!("{config:?}").contains("hooks.example"));
        assert!(!serde_json::to_string(&config).expect("plain data").contains("hooks.example"));
    }
}
