//! `pool-cli init`.

use assert_cmd::Command;

fn pool_cli() -> Command {
    let mut command = Command::cargo_bin("pool-cli").unwrap();
    command.env_clear();
    command
}

#[test]
fn it_prints_a_file_that_passes_the_check() {
    let assert = pool_cli().arg("init").assert().success().stderr("");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pool.toml");
    std::fs::write(&path, &assert.get_output().stdout).unwrap();
    // It also looks whether there is a Chromium.
    let found_on = std::env::var_os("PATH").unwrap();
    pool_cli().arg("check").arg(&path).env("PATH", found_on).assert().success();
}

#[test]
fn the_file_names_its_schema_for_editors() {
    let assert = pool_cli().arg("init").assert().success();
    let text = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    let first = text.lines().next().unwrap();
    assert!(
        first.starts_with("#:schema https://") && first.ends_with("config.schema.json"),
        "{first}"
    );
}

#[test]
fn it_never_overwrites_a_file_unless_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pool.toml");
    pool_cli().args(["init", "--out"]).arg(&path).assert().success().stdout("");
    std::fs::write(&path, "mine").unwrap();
    let shown = path.display();
    pool_cli().args(["init", "--out"]).arg(&path).assert().code(1).stderr(format!(
        "error: {shown} already exists\nhint: overwrite it: pool-cli init --force --out {shown}\n"
    ));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    pool_cli().args(["init", "--force", "--out"]).arg(&path).assert().success();
    assert!(std::fs::read_to_string(&path).unwrap().contains("[gateway]"));
}
