//! What is generated from the types is what is committed.
//!
//! To write it anew: `UPDATE=1 cargo test -p pool-cli --test config_generated`.

use std::path::Path;

use pool_cli::config::template::{Template, reference};
use pool_cli::config::{Config, Loader, schema};

/// The configuration that `make run` starts.
fn example() -> String {
    Template::new()
        .set("gateway", "listen", "127.0.0.1:3000")
        .set("pool", "min_size", 2)
        .set("pool", "max_size", 8)
        .set("profiles.work", "max_size", 2)
        .set("profiles.work", "mode", "persistent")
        .render()
}

fn is_current(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "{} is not current; write it anew: UPDATE=1 cargo test -p pool-cli --test config_generated",
        path.display()
    );
}

#[test]
fn the_committed_schema_is_current() {
    is_current("config.schema.json", &schema::text());
}

#[test]
fn the_reference_is_current() {
    is_current("../docs/configuration.md", &reference());
}

#[test]
fn the_table_of_refusals_is_current() {
    is_current("../docs/refusals.md", &pool_cli::gateway::reference());
}

#[test]
fn the_example_is_current() {
    is_current("../examples/pool.toml", &example());
}

#[test]
fn the_generated_file_is_valid_and_equals_the_defaults() {
    let loaded = Loader::new().text("pool.toml", Template::new().render()).load().unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn the_example_is_valid_and_has_a_profile() {
    let loaded = Loader::new().text("pool.toml", example()).load().unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!((loaded.config.pool.min_size, loaded.config.pool.max_size), (2, 8));
    assert_eq!(loaded.config.profiles.named["work"].max_size, Some(2));
}

/// Every commented line holds what would be accepted in its place.
#[test]
fn every_line_of_the_generated_file_can_be_uncommented() {
    let directory = tempfile::tempdir().unwrap();
    let executable = std::env::current_exe().unwrap();
    let text: String = Template::new()
        .render()
        .lines()
        .filter(|line| !line.starts_with("#:"))
        .map(|line| match line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')) {
            Some(setting) => format!("{setting}\n"),
            None => format!("{line}\n"),
        })
        .collect::<String>()
        .replace("/usr/bin/chromium", &executable.display().to_string())
        .replace("/var/lib/browser-pool", &directory.path().display().to_string())
        .replace("/srv/uploads", &directory.path().display().to_string())
        .replace("lease_choice = false", "lease_choice = true")
        // Of the four ways to authenticate at NATS one can be used.
        .replace("token = { env = \"NATS_TOKEN\" }    # an example\n", "")
        .replace("nkey = { env = \"NATS_NKEY\" }    # an example\n", "")
        .replace("credentials = \"/etc/browser-pool/nats.creds\"    # an example\n", "")
        .replace("/etc/browser-pool/nats-ca.pem", &executable.display().to_string())
        .replace("/etc/browser-pool/nats.pem", &executable.display().to_string())
        .replace("/etc/browser-pool/nats.key", &executable.display().to_string());
    let text = format!("{text}\n[regions.us-east]\nproxies = [\"http://us.example:8080\"]\n");
    let variables: Vec<&str> =
        text.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(variables.len() > 5, "only {variables:?} are named");
    // An address passes for a token, a password and a webhook alike.
    let secret = |name| format!("https://secret.example/{name}");
    let loader = Loader::new().text("pool.toml", &text);
    let loaded = variables
        .iter()
        .fold(loader, |loader, name| loader.variable(*name, secret(name)))
        .load()
        .unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let from_file = loaded.settings.iter().filter(|setting| setting.value.is_some()).count();
    assert!(from_file > 50, "only {from_file} settings were uncommented");
}

#[test]
fn every_name_that_was_agreed_on_is_accepted() {
    let agreed = r#"
        [gateway]
        listen = "127.0.0.1:3000"
        token = { env = "POOL_TOKEN" }
        external_url = "wss://pool.example"
        drain_timeout = "30s"
        [pool]
        min_size = 2
        max_size = 8
        lease = "exclusive"
        leases_per_browser = 8
        reset = "context"
        acquire_timeout = "25s"
        max_waiting = 1000
        max_idle_time = "5m"
        max_lifetime = "1h"
        max_use_count = 100
        max_creating = 2
        health_check_interval = "30s"
        lease_timeout = "30m"
        lease_idle_timeout = "5m"
        keep_limit = "5m"
        state_dir = "/var/lib/browser-pool"
        [chrome]
        engine = "auto"
        executable = "sh"
        headless = true
        sandbox = "auto"
        args = []
        launch_timeout = "20s"
        max_memory = "1GiB"
        directories = []
        [profiles]
        on_demand = true
        [profiles.work]
        min_size = 0
        max_size = 2
        mode = "persistent"
        region = "eu-west"
        [priority]
        step = "10s"
        [regions.us-east]
        proxies = ["http://us-1.example:8080"]
        [regions.eu-west]
        proxies = ["http://eu-1.example:8080", { url = "http://eu-2.example:8080", username = "u", password = { env = "EU2" } }]
        min_size = 0
        max_size = 5
        fallback = ["us-east"]
        [sizing]
        enabled = true
        interval = "30s"
        samples = 100
        scale_up_wait = "5s"
        scale_up_by = 2
        scale_down_utilization = 0.3
        scale_down_by = 1
        [warming]
        enabled = true
        viewport = [1280, 720]
        user_agent = "…"
        url = "about:blank"
        script = "…"
        [log]
        format = "auto"
    "#;
    let loaded = Loader::new()
        .text("pool.toml", agreed)
        .variable("POOL_TOKEN", "token")
        .variable("EU2", "password")
        .load()
        .unwrap_or_else(|findings| panic!("{findings}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let config = loaded.config;
    // What is written there is what is the default, where a default is a fixed value.
    let default = Config::default();
    assert_eq!(config.sizing, default.sizing);
    assert_eq!(config.priority, default.priority);
    assert_eq!(config.log, default.log);
    assert_eq!(config.chrome.max_memory, default.chrome.max_memory);
    assert_eq!(config.pool.max_lifetime, default.pool.max_lifetime);
    assert_eq!(config.pool.lease_timeout, default.pool.lease_timeout);
}
