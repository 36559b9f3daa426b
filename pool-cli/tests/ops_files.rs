//! What stands in `ops/` for Prometheus and Grafana asks for metrics, labels and values that there
//! are, and its links into the documentation lead somewhere.

mod gateway_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gateway_support::start;
use pool_cli::config::{Secret, TenantConfig};
use serde_json::Value;

const PREFIX: &str = "browserpool_";

/// Labels that Prometheus adds, and the bounds of buckets, of which any may be asked for.
const FOREIGN: [&str; 3] = ["instance", "job", "le"];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A metric as it is exposed or asked for: its name, and for each label the values.
#[derive(Debug, Default)]
struct Series {
    name: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Every `browserpool_name{label="value",…}` in a text, whatever stands around it.
fn series(text: &str) -> Vec<Series> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(PREFIX) {
        rest = &rest[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let mut series = Series { name: rest[..end].to_owned(), ..Series::default() };
        rest = &rest[end..];
        if let Some((labels, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
        {
            for (label, values) in matchers(labels) {
                series.labels.entry(label).or_default().extend(values);
            }
            rest = after;
        }
        found.push(series);
    }
    found
}

/// The labels of `a="1",b=~"2|3"`, each with its values.
fn matchers(text: &str) -> Vec<(String, Vec<String>)> {
    // Every second part is what stands between quotes; none of the values has one in it.
    let parts: Vec<&str> = text.split('"').collect();
    let pairs = parts.chunks_exact(2).map(|pair| {
        let label = pair[0].trim_matches([',', ' ', '=', '~', '!']);
        (label.to_owned(), pair[1].split('|').map(str::to_owned).collect())
    });
    pairs.collect()
}

/// All texts in a JSON document.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| texts(field, found)),
        _ => {}
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read("ops/grafana/browser-pool.json")).expect("it is JSON")
}

/// What the queries of the dashboard and of its variables ask for.
fn asked_by_dashboard() -> Vec<Series> {
    let mut found = Vec::new();
    texts(&dashboard(), &mut found);
    series(&found.join("\n"))
}

#[tokio::test]
async fn alerts_and_dashboard_ask_only_for_what_is_exposed() {
    // The series of tenants are there where tenants are.
    let pool = start(|config| {
        config.gateway.token = Some(Secret::new("operator"));
        for name in ["ada", "ben", "eve"] {
            let tenant = TenantConfig { token: Some(Secret::new(name)), ..TenantConfig::default() };
            config.tenants.insert(name.to_owned(), tenant);
        }
    })
    .await;
    // Those of a fleet in a fleet.
    pool.gateway.observer().metrics().join_fleet();
    let exposed = series(&pool.get("/metrics?token=operator").await.body);
    let alerts = series(&read("ops/prometheus/alerts.yml"));
    let alert_tests = series(&read("ops/prometheus/alerts.test.yml"));
    for (file, asked) in
        [("alerts", alerts), ("alert tests", alert_tests), ("dashboard", asked_by_dashboard())]
    {
        assert!(asked.len() > 10, "{file}: only {} were found", asked.len());
        for Series { name, labels } in asked {
            let samples: Vec<_> = exposed.iter().filter(|series| series.name == name).collect();
            assert!(!samples.is_empty(), "{file}: there is no metric {name}");
            for (label, values) in labels {
                for value in values.into_iter().filter(|value| !value.starts_with('$')) {
                    let has = |labels: &BTreeMap<String, BTreeSet<String>>| {
                        labels.get(&label).is_some_and(|values| values.contains(&value))
                    };
                    assert!(
                        FOREIGN.contains(&&*label) || samples.iter().any(|s| has(&s.labels)),
                        "{file}: {name} has no {label}={value:?}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn the_dashboard_shows_every_metric() {
    let pool = start(|_| ()).await;
    pool.gateway.observer().metrics().join_fleet();
    let text = pool.get("/metrics").await.body;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let metrics: BTreeSet<&str> = types.collect();
    assert!(metrics.len() > 15, "{metrics:?}");
    let shown: BTreeSet<String> = asked_by_dashboard().into_iter().map(|s| s.name).collect();
    for metric in metrics {
        let bucket = format!("{metric}_bucket");
        assert!(shown.contains(metric) || shown.contains(&bucket), "{metric} is not shown");
    }
}

/// A scaler that finds no number goes on as if nobody needed anything.
#[tokio::test]
async fn the_scaler_asks_for_a_number_that_is_answered() {
    let object = read("ops/kubernetes/fleet/scaledobject.yaml");
    let value = |key: &str| {
        let line =
            object.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    let path = value("url").split_once(":3000").expect("a port of the pool").1;
    let pool = start(|config| config.pool.min_size = 1).await;
    let answer = pool.get(path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()[value("valueLocation")], 1, "{answer:?}");
}

/// A dashboard that names one installation's data source shows nothing in all others.
#[test]
fn every_query_of_the_dashboard_takes_the_data_source_that_was_chosen() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("there are panels");
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut targets = 0;
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            targets += 1;
        }
    }
    assert!(targets > 20, "{targets}");
}

#[test]
fn every_alert_has_its_place_in_the_runbook() {
    let page = read("docs/operations.md");
    let anchors: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|heading| heading.trim().to_lowercase())
        .collect();
    let alerts = read("ops/prometheus/alerts.yml");
    let named = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let linked = alerts.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: "));
    let named: Vec<String> = named.map(str::to_lowercase).collect();
    let linked: Vec<&str> = linked
        .map(|url| {
            let (page, anchor) = url.split_once('#').expect("a link to a section");
            assert!(page.ends_with("/docs/operations.md"), "{url}");
            anchor
        })
        .collect();
    assert!(!named.is_empty());
    assert_eq!(named, linked);
    for anchor in linked {
        assert!(anchors.contains(anchor), "docs/operations.md has no section {anchor}");
    }
}
