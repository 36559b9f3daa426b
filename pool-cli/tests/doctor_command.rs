//! `pool-cli doctor`, on a real Chromium where there is one to look at.

use std::net::TcpListener;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

struct Doctor {
    command: Command,
    home: TempDir,
}

/// A doctor in a home of its own, on a port that is free.
fn doctor() -> Doctor {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("pool-cli").unwrap();
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .args(["doctor", "--json", "--listen", "127.0.0.1:0"]);
    Doctor { command, home }
}

/// The exit code and the checks by name.
fn examined(doctor: &mut Doctor) -> (i32, impl Fn(&str) -> Value + use<>) {
    let output = doctor.command.output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let code = output.status.code().unwrap();
    assert_eq!(answer["ok"], code == 0);
    let check = move |name: &str| {
        let checks = answer["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).cloned().unwrap_or_default()
    };
    (code, check)
}

#[test]
fn a_browser_is_launched_and_nothing_of_it_stays() {
    let mut doctor = doctor();
    let (code, check) = examined(&mut doctor);
    assert_eq!(code, 0);
    assert_eq!(check("launch")["verdict"], "ok");
    assert!(check("launch")["found"].as_str().unwrap().contains("Chrome/"));
    for name in ["engine", "configuration", "memory", "/dev/shm", "open files", "state", "port"] {
        assert_ne!(check(name)["verdict"], "fail", "{}", check(name));
        assert!(check(name)["found"].is_string(), "{name}");
    }
    let left: Vec<_> = std::fs::read_dir(doctor.home.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn without_a_chromium_it_fails_and_says_how_to_get_one() {
    let empty = tempfile::tempdir().unwrap();
    let mut doctor = doctor();
    doctor.command.env("PATH", empty.path());
    let (code, check) = examined(&mut doctor);
    assert_eq!(code, 1);
    assert_eq!(check("engine")["verdict"], "fail");
    assert!(check("engine")["remedy"].as_str().unwrap().contains("apt install"));
}

#[test]
fn a_program_that_is_no_chromium_fails_at_the_launch() {
    let mut doctor = doctor();
    doctor.command.args(["--set", "chrome.executable=/bin/true"]);
    let (code, check) = examined(&mut doctor);
    assert_eq!(code, 1);
    assert_eq!(check("launch")["verdict"], "fail", "{}", check("launch"));
}

#[test]
fn a_port_in_use_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut doctor = doctor();
    let empty = tempfile::tempdir().unwrap();
    doctor.command.env("PATH", empty.path());
    doctor.command.args(["--set", &format!("gateway.listen={address}")]);
    let (code, check) = examined(&mut doctor);
    assert_eq!(code, 1);
    assert!(check("port")["found"].as_str().unwrap().starts_with(&format!("{address} is in use")));
    assert!(check("port")["remedy"].as_str().unwrap().contains("ss -ltnp"));
}

#[test]
fn a_state_directory_that_cannot_be_one_is_found() {
    let mut doctor = doctor();
    let empty = tempfile::tempdir().unwrap();
    doctor.command.env("PATH", empty.path());
    doctor.command.args(["--set", "pool.state_dir=/dev/null/pool"]);
    let (_, check) = examined(&mut doctor);
    assert_eq!(check("state")["verdict"], "fail");
}

#[test]
fn a_bad_configuration_is_one_of_the_findings() {
    let mut doctor = doctor();
    let empty = tempfile::tempdir().unwrap();
    doctor.command.env("PATH", empty.path());
    doctor.command.args(["--set", "pool.max_size=many"]);
    let (code, check) = examined(&mut doctor);
    assert_eq!(code, 1);
    assert_eq!(check("configuration")["verdict"], "fail");
    assert!(check("configuration")["remedy"].as_str().unwrap().contains("pool-cli check"));
}
