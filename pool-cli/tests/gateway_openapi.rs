//! The document that describes the routes, against the routes.

mod gateway_support;

use std::collections::BTreeSet;

use gateway_support::{request, start, start_node};
use pool_cli::config::{ProfileConfig, Secret};
use pool_fleet::MemoryNetwork;
use serde_json::{Map, Value};

const ROUTER: &str = include_str!("../src/gateway/router.rs");

/// Routes that have a name of their own in the router.
const NAMED: [&str; 7] = [
    "/json/version",
    "/json/protocol",
    "/devtools/page/new",
    "/content",
    "/screenshot",
    "/pdf",
    "/chromium/scrape",
];

/// Routes that say that something is not offered.
const NOT_OFFERED: [&str; 3] = ["/browsers/{id}/{*rest}", "/profiles", "/profiles/{*rest}"];

fn document() -> Value {
    serde_json::from_str(include_str!("../openapi.json")).expect("it is JSON")
}

fn paths(document: &Value) -> &Map<String, Value> {
    document["paths"].as_object().expect("it has paths")
}

#[test]
fn every_route_is_in_the_document() {
    let document = document();
    let documented: BTreeSet<&str> = paths(&document).keys().map(String::as_str).collect();
    let named = ROUTER.split('"').filter(|text| text.starts_with('/') && !text.contains('\n'));
    let routes: BTreeSet<String> = named
        .chain(NAMED)
        .filter(|route| !NOT_OFFERED.contains(route))
        .map(|route| route.replace("{*", "{"))
        .collect();
    let missing: Vec<_> = routes.iter().filter(|route| !documented.contains(&***route)).collect();
    assert!(missing.is_empty(), "not in pool-cli/openapi.json: {missing:?}");
}

#[tokio::test]
async fn every_method_in_the_document_is_routed_and_no_other() {
    let pool = start(|config| config.gateway.token = Some(Secret::new("s3cret"))).await;
    for (path, operations) in paths(&document()) {
        let example = path.replace(['{', '}'], "");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = request(pool.address(), method, &example, &[], "").await;
            let is_documented = operations.get(method.to_lowercase()).is_some();
            let is_routed = answer.status != 405;
            assert_eq!(is_routed, is_documented, "{method} {path}: {answer:?}");
            assert!(!answer.body.contains("unknown_route"), "{method} {path}: {answer:?}");
            if let Some(operation) = operations.get(method.to_lowercase()) {
                let wants_a_token = operation.get("security").is_none();
                let is_refused = answer.status == 401;
                // Those that stand for the token themselves refuse what they do not know.
                let is_secret = path.starts_with("/devtools/");
                assert!(is_refused == wants_a_token || is_secret, "{method} {path}: {answer:?}");
            }
        }
    }
}

/// Checks that an object has what its schema requires, and nothing that is not in it.
fn check(schema: &str, value: &Value) {
    let document = document();
    let schema = &document["components"]["schemas"][schema];
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    for name in schema["required"].as_array().expect("a list") {
        assert!(object.contains_key(name.as_str().expect("a name")), "no {name}: {value}");
    }
    for name in object.keys() {
        assert!(schema["properties"].get(name).is_some(), "{name} is not described: {value}");
    }
}

#[tokio::test]
async fn what_is_answered_has_the_shape_in_the_document() {
    let pool = start(|_| ()).await;
    assert_eq!(pool.get("/openapi.json").await.json(), document());
    assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
    let body = r#"{"name":"one","stealth":true}"#;
    check("Acquired", &pool.post("/browser_pools/default/acquire", body).await.json());
    check("Problem", &pool.post("/browser_pools/default/acquire", body).await.json());
    check("Browser", &pool.get("/browsers/one").await.json());
    check("Session", &pool.get("/sessions").await.json()[0]);
    check("Version", &pool.get("/json/version").await.json());
    check("Page", &pool.get("/json/list").await.json()[0]);
    check("Pool", &pool.get("/browser_pools/default").await.json());
    let resized = request(
        pool.address(),
        "PATCH",
        "/browser_pools/default",
        &[("content-type", "application/json")],
        r#"{"size":3}"#,
    );
    check("Pool", &resized.await.json());
    check("Killed", &pool.post("/kill/all", "").await.json());
    check("Autoscale", &pool.get("/api/autoscale").await.json());
    let node = start_node(&MemoryNetwork::new(), "a", |config| {
        config.profiles.named.insert("shop".to_owned(), ProfileConfig::default());
    })
    .await;
    check("Fleet", &node.get("/api/fleet").await.json());
    check("Node", &node.post("/api/fleet/a/drain", "{}").await.json());
    check("MadeNew", &node.post("/api/profiles/shop/make-new", "{}").await.json());
    let _client = node.connect("/").await;
    check("Session", &node.get("/sessions").await.json()[0]);
}
