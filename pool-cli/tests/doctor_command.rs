//! `pool-cli doctor`, on a real Chromium where there is one to look at, and a real NATS server.

mod gateway_support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use gateway_support::unused_port;
use pool_core::Pool;
use pool_core::testing::FakeDriver;
use pool_fleet::{Fleet, Member, NatsOptions, NatsTransport};
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

/// A NATS server on a port of its own.
struct Nats {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Nats {
    /// Starts one with JetStream or without, and with more lines in its configuration.
    fn start(jetstream: bool, more: &str) -> Self {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or(top.join("target"), PathBuf::from);
        let server = target.join("nats/current/nats-server");
        if !server.exists() {
            let script = top.join("scripts/install-nats");
            let installed = std::process::Command::new(script).arg("current").status().unwrap();
            assert!(installed.success(), "scripts/install-nats current failed");
        }
        let port = unused_port();
        let dir = tempfile::tempdir().unwrap();
        let (config, log) = (dir.path().join("nats.conf"), dir.path().join("log"));
        let store = format!("jetstream {{ store_dir: {:?} }}\n", dir.path().join("store"));
        let store = if jetstream { &store } else { "" };
        std::fs::write(&config, format!("listen: \"127.0.0.1:{port}\"\n{store}{more}\n")).unwrap();
        let child = std::process::Command::new(server)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let nats = Self { child, port, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let said = std::fs::read_to_string(&log).unwrap();
            if said.contains("Server is ready") {
                return nats;
            }
            assert!(Instant::now() < deadline, "the server does not start: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A doctor for a node without browsers, on a machine without a Chromium.
fn doctor_of_a_fleet(port: u16) -> Doctor {
    let mut doctor = doctor();
    doctor
        .command
        .env("PATH", doctor.home.path())
        .env("POOL__FLEET__NATS", format!("[\"nats://127.0.0.1:{port}\"]"))
        .env("POOL__FLEET__SECRET", "sixteen letters!")
        .env("POOL__FLEET__NODE", "worker-7")
        .args(["--max-size", "0"]);
    doctor
}

fn found(check: &Value) -> &str {
    check["found"].as_str().unwrap_or_default()
}

#[test]
fn a_node_of_a_fleet_is_examined_with_its_server_and_without_a_chromium() {
    let nats = Nats::start(true, "");
    let (code, check) = examined(&mut doctor_of_a_fleet(nats.port));
    assert_eq!(code, 0, "{} {}", check("configuration"), check("nats"));
    for name in ["configuration", "engine", "nats", "node", "advertise"] {
        assert_eq!(check(name)["verdict"], "ok", "{}", check(name));
    }
    assert!(found(&check("engine")).contains("none needed"));
    assert_eq!(check("launch"), Value::Null);
    let server = check("nats");
    assert!(found(&server).starts_with("version 2.1"), "{server}");
    assert!(found(&server).ends_with(" ms, with JetStream"), "{server}");
    assert_eq!(found(&check("node")), "the name worker-7 is free in the fleet default");
    let address = check("advertise");
    assert!(found(&address).starts_with("ws://127.0.0.1:"), "{address}");
    assert!(found(&address).ends_with(" leads to this node"), "{address}");
}

#[test]
fn without_a_fleet_none_is_looked_for() {
    let empty = tempfile::tempdir().unwrap();
    let mut doctor = doctor();
    doctor.command.env("PATH", empty.path());
    let (_, check) = examined(&mut doctor);
    for name in ["nats", "node", "advertise"] {
        assert_eq!(check(name), Value::Null);
    }
}

#[test]
fn a_server_without_jetstream_is_a_warning() {
    let nats = Nats::start(false, "");
    let (code, check) = examined(&mut doctor_of_a_fleet(nats.port));
    assert_eq!((code, &check("nats")["verdict"]), (0, &"warn".into()), "{}", check("nats"));
    assert!(found(&check("nats")).ends_with("without JetStream"));
}

#[test]
fn a_server_that_is_not_there_fails() {
    let port = unused_port();
    let (code, check) = examined(&mut doctor_of_a_fleet(port));
    assert_eq!((code, &check("nats")["verdict"]), (1, &"fail".into()));
    let expected = format!("nats://127.0.0.1:{port}: there is no connection to the server");
    assert_eq!(found(&check("nats")), expected);
    assert_eq!(check("node"), Value::Null, "nobody can be asked");
    assert_eq!(check("advertise")["verdict"], "ok", "{}", check("advertise"));
}

#[test]
fn credentials_that_the_server_does_not_take_fail_and_are_not_shown() {
    let nats = Nats::start(true, "authorization { user: pool, password: right }");
    let mut doctor = doctor_of_a_fleet(nats.port);
    doctor.command.env("POOL__FLEET__USER", "pool").env("POOL__FLEET__PASSWORD", "canary");
    let (code, check) = examined(&mut doctor);
    assert_eq!((code, &check("nats")["verdict"]), (1, &"fail".into()));
    assert!(found(&check("nats")).contains("does not accept the credentials"), "{}", check("nats"));
    assert!(!check("nats").to_string().contains("canary"));
    doctor.command.env("POOL__FLEET__PASSWORD", "right");
    let (code, check) = examined(&mut doctor);
    assert_eq!((code, &check("nats")["verdict"]), (0, &"ok".into()), "{}", check("nats"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_name_that_a_live_node_has_fails() {
    let nats = Nats::start(true, "");
    let options = NatsOptions::new([format!("nats://127.0.0.1:{}", nats.port)]);
    let transport = NatsTransport::connect(options).await.unwrap();
    let pool = Pool::builder(FakeDriver::new()).max_size(1).build().unwrap();
    let member = Member::new("default", "worker-7", "ws://10.0.1.7:3000");
    let fleet = Fleet::join(member, pool, transport).await.unwrap();
    let mut doctor = doctor_of_a_fleet(nats.port);
    let (code, check) = examined(&mut doctor);
    assert_eq!((code, &check("node")["verdict"]), (1, &"fail".into()));
    assert!(
        found(&check("node")).starts_with("worker-7 is a live node at ws://10.0.1.7:3000"),
        "{}",
        check("node")
    );
    // In another fleet, and after that node has gone, it is free.
    doctor.command.env("POOL__FLEET__NAME", "other");
    assert_eq!(examined(&mut doctor).0, 0);
    fleet.leave().await;
    doctor.command.env("POOL__FLEET__NAME", "default");
    let (code, check) = examined(&mut doctor);
    assert_eq!(code, 0, "{}", check("node"));
}

/// Answers requests on a port of loopback, as something else or as a pool that runs.
fn other_service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let Ok(1..) = client.read(&mut [0; 1024]) else { continue };
            client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").ok();
        }
    });
    port
}

#[test]
fn an_address_that_does_not_lead_to_this_node_is_a_warning() {
    let nats = Nats::start(true, "");
    let (nobody, other) = (unused_port(), other_service());
    for (port, expected) in
        [(nobody, "cannot be reached from here"), (other, "something else answers")]
    {
        let mut doctor = doctor_of_a_fleet(nats.port);
        doctor.command.env("POOL__FLEET__ADVERTISE", format!("ws://127.0.0.1:{port}"));
        let (code, check) = examined(&mut doctor);
        assert_eq!((code, &check("advertise")["verdict"]), (0, &"warn".into()));
        assert!(found(&check("advertise")).contains(expected), "{}", check("advertise"));
    }
    // A pool that runs here has the port, and answers itself.
    let mut doctor = doctor_of_a_fleet(nats.port);
    doctor.command.args(["--set", &format!("gateway.listen=127.0.0.1:{other}")]);
    let (_, check) = examined(&mut doctor);
    assert_eq!(found(&check("advertise")), format!("ws://127.0.0.1:{other} answers"));
}
