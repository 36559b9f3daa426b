//! `pool-cli check` and the conventions of every command: exit codes, stdout and stderr.

use std::path::PathBuf;

use assert_cmd::Command;
use tempfile::TempDir;

/// The command without the variables of whoever runs the test.
fn pool_cli() -> Command {
    let mut command = Command::cargo_bin("pool-cli").unwrap();
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pool.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

#[test]
fn a_good_file_is_ok() {
    let (_directory, path) = file("[pool]\nmax_size = 4\n");
    let assert = pool_cli().arg("check").arg(&path).assert().success().stdout("");
    assert.stderr(format!("{}: ok\n", path.display()));
}

#[test]
fn a_bad_file_is_refused_with_78_and_without_colours_where_there_is_no_terminal() {
    let (_directory, path) = file("[pool]\nmax_sise = 4\n");
    let expected = format!(
        "\
error: unknown key `max_sise` in [pool]
 --> {}:2:1
  |
2 | max_sise = 4
  | ^^^^^^^^
hint: did you mean `max_size`?
",
        path.display()
    );
    pool_cli().arg("check").arg(&path).assert().code(78).stdout("").stderr(expected);
}

#[test]
fn a_missing_file_is_refused_with_the_command_that_writes_one() {
    let expected = "error: cannot read absent.toml: no such file or directory\n\
                    hint: write one: pool-cli init --out absent.toml\n";
    pool_cli().args(["check", "absent.toml"]).assert().code(78).stderr(expected);
}

#[test]
fn the_environment_is_checked_too() {
    let (_directory, path) = file("");
    pool_cli()
        .env("POOL_CONFIG", &path)
        .env("POOL__POOL__LEASE", "shred")
        .arg("check")
        .assert()
        .code(78)
        .stderr(
            "error: `lease` must be \"exclusive\" or \"shared\", not \"shred\"\n --> environment \
             variable POOL__POOL__LEASE\nhint: did you mean \"shared\"?\n",
        );
}

#[test]
fn json_has_every_finding_with_its_place() {
    let (_directory, path) = file("[pool]\nmax_sise = 4\n[gateway]\ntoken = \"canary\"\n");
    let output = pool_cli().args(["check", "--json"]).arg(&path).assert().code(78).stderr("");
    let answer: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(answer["valid"], false);
    assert_eq!(answer["findings"][0]["severity"], "error");
    assert_eq!(answer["findings"][0]["place"]["line"], 2);
    assert_eq!(answer["findings"][1]["severity"], "warning");
    assert!(!answer.to_string().contains("canary"));
}

#[test]
fn a_wrong_command_line_is_2() {
    pool_cli().arg("chekc").assert().code(2);
    pool_cli().args(["check", "--colour"]).assert().code(2);
}

#[test]
fn completions_are_there_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let assert = pool_cli().args(["completions", shell]).assert().success().stderr("");
        let script = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
        assert!(script.contains("completions"), "{shell}");
    }
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let directory = tempfile::tempdir().unwrap();
    pool_cli().arg("man").arg(directory.path()).assert().success();
    for page in ["pool-cli.1", "pool-cli-check.1", "pool-cli-config-show.1"] {
        assert!(directory.path().join(page).is_file(), "{page}");
    }
}
