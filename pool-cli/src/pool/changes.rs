//! What differs between two configurations.

use serde_json::Value;

use crate::config::{Config, TenantConfig};

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
    use crate::config::{ProxyConfig, RegionConfig, Secret};

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
