//! S18, S19, S20, S29: what is secret is found nowhere.

use std::fs;
use std::path::{Path, PathBuf};

use browser_pool_tests::process::Process;
use browser_pool_tests::{Case, Engine, Proxy, Setup, case, request};
use serde_json::json;
use toml::{Table, Value};

const TOKEN: &str = "canary-Zk9-token";
const PASSWORD: &str = "canary-Zk9-password";
const COOKIE: &str = "canary-Zk9-cookie";
const VARIABLE: &str = "canary-Zk9-variable";

/// What all of them have in common, so that a part of one is found too.
const CANARY: &str = "canary-Zk9";

/// `user:PASSWORD` in base64.
const CREDENTIALS: &str = "dXNlcjpjYW5hcnktWms5LXBhc3N3b3Jk";

fn setup(proxy: &Proxy) -> Setup {
    let mut password = Table::new();
    password.insert("env".into(), "PROXY_PASSWORD".into());
    let mut upstream = Table::new();
    upstream.insert("url".into(), proxy.url.clone().into());
    upstream.insert("username".into(), "user".into());
    upstream.insert("password".into(), password.into());
    let mut token = Table::new();
    token.insert("env".into(), "GATEWAY_TOKEN".into());
    Setup::new()
        .size(1)
        .set("pool.max_size", 3)
        .set("gateway.token", token)
        .tokened(TOKEN)
        .set("regions.eu.proxies", vec![Value::Table(upstream)])
        // Everything that is ever logged.
        .set("log.filter", "trace")
        .env("GATEWAY_TOKEN", TOKEN)
        .env("PROXY_PASSWORD", PASSWORD)
        .env("UNRELATED", VARIABLE)
}

/// Everything of the service that others can see, each with its name.
async fn visible(case: &Case) -> Vec<(String, String)> {
    let mut visible = vec![("the log".to_owned(), case.home.log())];
    let service = Process::read(case.service.process.pid).expect("it runs");
    visible.push(("its arguments".to_owned(), service.arguments().join(" ")));
    for process in case.oracle.ours.chromium() {
        let name = format!("{} ({})", process.name, process.id.pid);
        visible.push((format!("the arguments of {name}"), process.arguments().join(" ")));
        visible.push((format!("the environment of {name}"), process.environment().join(" ")));
    }
    let bearer = format!("Bearer {TOKEN}");
    let bearer = [("authorization", &*bearer)];
    for path in
        ["/api/state", "/api/history", "/sessions", "/metrics", "/pressure", "/json/version"]
    {
        let answer = request(&case.service.address, "GET", path, &bearer, "").await;
        visible.push((path.to_owned(), answer.expect("an answer").text()));
    }
    visible
}

#[tokio::test(flavor = "multi_thread")]
async fn s18_s19_s20_secrets_are_found_nowhere() {
    let proxy = Proxy::start(CREDENTIALS).await;
    case(setup(&proxy), async |case| {
        let client = case.service.connect("/?region=eu&trackingId=seen").await;
        let set = format!("/cookie?name=session&value={COOKIE}&attributes=HttpOnly");
        client.page(&case.site.at(&set)).await;
        let params =
            json!({ "cookies": [{ "name": "more", "value": COOKIE, "url": case.site.url }] });
        client.call("Storage.setCookies", params).await.expect("a client may set its cookies");
        // Refusals repeat what they refuse; not this.
        for path in [format!("/?token={TOKEN}x"), format!("/?token={TOKEN}&priority=none")] {
            let refused = browser_pool_tests::Cdp::open(&case.service.address, &path, &[]).await;
            let refused = refused.expect_err("it is wrong");
            assert!(!refused.body.to_string().contains(CANARY), "{refused:?}");
        }
        for (place, text) in visible(case).await {
            for secret in [TOKEN, PASSWORD, COOKIE, CREDENTIALS] {
                assert!(!text.contains(secret), "{secret} is in {place}");
            }
        }
        client.close().await;
        assert!(case.home.log().contains("lease"), "nothing was logged that could be looked at");
    })
    .await;
}

/// Also the configuration that is shown, and the files that are left.
#[tokio::test(flavor = "multi_thread")]
async fn s18_s19_secrets_are_in_no_file_of_ours() {
    let proxy = Proxy::start(CREDENTIALS).await;
    case(setup(&proxy), async |case| {
        let client = case.service.connect("/?region=eu").await;
        client.page(&case.site.at("/title.html")).await;
        let shown = std::process::Command::new(browser_pool_tests::pool_cli())
            .args(["config", "show", "--config"])
            .arg(case.home.config())
            .env("GATEWAY_TOKEN", TOKEN)
            .env("PROXY_PASSWORD", PASSWORD)
            .output()
            .expect("it is executable");
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        assert!(!String::from_utf8_lossy(&shown.stdout).contains(CANARY));
        for path in files(&case.home.state_dir()) {
            // A file may go while we look.
            let bytes = fs::read(&path).unwrap_or_default();
            let found = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
            assert!(!found, "a secret is in {path:?}");
        }
        client.close().await;
    })
    .await;
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut todo = vec![directory.to_path_buf()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => todo.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn s29_chromium_gets_an_allow_list_of_the_environment() {
    for engine in [Engine::Shell, Engine::Chromium] {
        let setup =
            Setup::new().engine(engine).env("UNRELATED", VARIABLE).env("LD_NOTHING", VARIABLE);
        case(setup, async |case| {
            let client = case.service.connect("/").await;
            client.page(&case.site.at("/title.html")).await;
            let chromium = case.oracle.ours.chromium();
            assert!(!chromium.is_empty());
            for process in chromium {
                let environment = process.environment();
                let leaked = environment.iter().any(|entry| entry.contains(CANARY));
                assert!(!leaked, "{engine}: {} has {environment:?}", process.name);
            }
            client.close().await;
        })
        .await;
    }
}
