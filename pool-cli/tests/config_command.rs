//! `pool-cli config show` and `pool-cli config schema`.

use assert_cmd::Command;

fn pool_cli() -> Command {
    let mut command = Command::cargo_bin("pool-cli").unwrap();
    command.env_clear();
    command
}

fn stdout(command: &mut Command) -> String {
    let assert = command.assert().success();
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

#[test]
fn show_says_where_each_value_comes_from() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pool.toml");
    std::fs::write(&path, "[pool]\nmax_size = 4\n").unwrap();
    let shown = stdout(
        pool_cli()
            .env("POOL__POOL__MAX_WAITING", "9")
            .env("TOKEN", "canary")
            .args(["config", "show", "--changed", "--set", "chrome.headless=false", "--config"])
            .arg(&path),
    );
    let expected = format!(
        "\
[gateway]
token = \"(hidden)\"  # environment variable TOKEN

[pool]
max_size = 4        # {}:2:12
max_waiting = 9     # environment variable POOL__POOL__MAX_WAITING

[chrome]
headless = false    # flag --set chrome.headless
",
        path.display()
    );
    assert_eq!(shown, expected);
}

#[test]
fn show_hides_the_tokens_of_tenants() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pool.toml");
    let text = "[gateway]\ntoken = \"canary-0\"\n[tenants.ada]\ntoken = \"canary-1\"\n\
                tokens = [\"canary-2\", \"canary-3\"]\n";
    std::fs::write(&path, text).unwrap();
    for format in [&["--changed"][..], &["--json"]] {
        let shown =
            stdout(pool_cli().args(["config", "show"]).args(format).arg("--config").arg(&path));
        assert!(shown.contains("(hidden)") && !shown.contains("canary"), "{shown}");
    }
}

#[test]
fn show_without_secrets_is_a_configuration() {
    let shown = stdout(pool_cli().args(["config", "show"]));
    let loaded = pool_cli::config::Loader::new().text("shown.toml", shown.as_str()).load();
    assert!(loaded.is_ok(), "{shown}\n{loaded:?}");
}

#[test]
fn show_has_json() {
    let shown = stdout(pool_cli().args(["config", "show", "--json", "--max-size", "3"]));
    let settings: Vec<serde_json::Value> = serde_json::from_str(&shown).unwrap();
    let setting = settings
        .iter()
        .find(|setting| setting["section"] == "pool" && setting["key"] == "max_size")
        .unwrap();
    assert_eq!(setting["value"], 3);
    assert_eq!(setting["origin"]["kind"], "flag");
}

#[test]
fn the_schema_is_json_schema() {
    let schema: serde_json::Value =
        serde_json::from_str(&stdout(pool_cli().args(["config", "schema"]))).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["pool"]["properties"]["lease"]["oneOf"][1]["const"], "shared");
}
