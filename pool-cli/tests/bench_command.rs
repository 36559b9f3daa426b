//! `pool-cli bench`: leases beside launches, on real Chromium.

mod gateway_support;

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use gateway_support::{Service, command, processes_below};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Runs it with a state directory of its own; two sessions do.
fn bench(home: &TempDir, arguments: &[&str]) -> Output {
    command()
        .args(["bench", "--sessions", "2"])
        .args(arguments)
        .env("XDG_STATE_HOME", home.path())
        .stdin(Stdio::null())
        .output()
        .expect("the binary is built")
}

fn home() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The figures of a run that went well.
fn figures(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    let lines = stdout.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

/// The value of a figure.
fn value(figures: &[Value], name: &str, contestant: Option<&str>) -> f64 {
    let is_it = |figure: &&Value| {
        figure["figure"] == name && figure.get("contestant").and_then(Value::as_str) == contestant
    };
    let found: Vec<&Value> = figures.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{name} of {contestant:?} among {figures:?}");
    found[0]["value"].as_f64().expect("it is a number")
}

/// Every step has a figure of both contestants, and the ratio is that of two of them.
fn assert_steps(figures: &[Value], sessions: u64) {
    for step in ["connect", "first_page", "new_page", "goto", "release"] {
        for contestant in ["pool", "launch"] {
            assert!(value(figures, step, Some(contestant)) > 0.0, "{step} of {contestant}");
        }
    }
    let steps = figures.iter().filter(|figure| figure["figure"] == "goto");
    steps.for_each(|step| assert_eq!(step["samples"], sessions));
    for (step, ratio) in [("first_page", "first_page_ratio"), ("new_page", "new_page_ratio")] {
        let [pool, launch] = ["pool", "launch"].map(|who| value(figures, step, Some(who)));
        let ratio = value(figures, ratio, None);
        assert!((ratio - pool / launch).abs() < 0.001, "{ratio} is not {pool} / {launch}");
    }
}

fn assert_nothing_left(home: &TempDir) {
    let state_dir = home.path().join("browser-pool");
    for purpose in ["bench-pools", "bench-launches", "bench-memory"] {
        let folder = state_dir.join(purpose);
        let left: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    assert_eq!(processes_below(&state_dir), [] as [u32; 0]);
}

#[test]
fn exclusive_leases_are_measured_beside_launches() {
    let home = home();
    let output = bench(&home, &["--engine", "chromium", "--lease", "exclusive"]);
    let figures = figures(&output);
    assert_steps(&figures, 2);
    for figure in &figures {
        assert_eq!(
            (&figure["engine"], &figure["lease"]),
            (&"chromium".into(), &"exclusive".into())
        );
        assert_eq!(figure["bench"], "lease");
    }
    // What only clients in one Chromium cost.
    assert!(!figures.iter().any(|figure| figure["figure"] == "memory_ratio"));
    let stdout = text(&output.stdout);
    let shown: Vec<&str> = stdout.lines().take(4).collect();
    assert_eq!(shown[0], "chromium, exclusive leases: 2 sessions of each, 1 at a time");
    assert!(shown[2].starts_with("what ") && shown[2].ends_with("ratio"), "{stdout}");
    assert!(shown[3].starts_with("connect "), "{stdout}");
    assert_nothing_left(&home);
}

#[test]
fn shared_leases_are_measured_with_their_memory_and_round_trips() {
    let home = home();
    let shared = ["--engine", "shell", "--lease", "shared", "--concurrency", "2", "--json"];
    let output = bench(&home, &shared);
    let stdout = text(&output.stdout);
    assert!(stdout.lines().all(|line| line.starts_with('{')), "only JSON: {stdout}");
    let figures = figures(&output);
    assert_steps(&figures, 2);
    for (figure, sides) in [("memory", ["pool", "launch"]), ("round_trip", ["pool", "direct"])] {
        let [pool, other] = sides.map(|who| value(&figures, figure, Some(who)));
        let ratio = value(&figures, &format!("{figure}_ratio"), None);
        assert!(pool > 0.0 && ratio > 0.0, "{figure}: {pool}");
        assert!((ratio / (pool / other) - 1.0).abs() < 0.01, "{ratio} is not {pool} / {other}");
    }
    assert_nothing_left(&home);
}

#[test]
fn a_pool_that_runs_is_measured_and_goes_on() {
    let config = "[pool]\nmin_size = 1\nmax_size = 2\nlease = \"shared\"\n\
                  [chrome]\nengine = \"shell\"\n[gateway]\ntoken = { env = \"TEST_TOKEN\" }\n";
    let service = Service::start_with(config, &[("TEST_TOKEN", "s3cret")]);
    let home = home();
    let url = format!("ws://{}", service.address);
    let at = ["--url", &url, "--token", "s3cret", "--engine", "shell", "--json"];
    let figures = figures(&bench(&home, &at));
    assert_steps(&figures, 2);
    // The kind of lease is what the pool gives.
    assert!(figures.iter().all(|figure| figure["lease"] == "shared"));
    assert!(value(&figures, "round_trip_ratio", None) > 0.0);
    assert_nothing_left(&home);
    assert!(!service.browsers().is_empty());

    let wrong = bench(&home, &["--url", &url, "--token", "guessed"]);
    let error = text(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(error.starts_with("error: ") && error.contains("hint: set POOL_TOKEN"), "{error}");
    // It does not let clients choose.
    let other = bench(&home, &["--url", &url, "--token", "s3cret", "--lease", "exclusive"]);
    let error = text(&other.stderr);
    assert_eq!(other.status.code(), Some(1));
    assert!(error.starts_with("error: leases are shared here"), "{error}");
    assert_nothing_left(&home);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let home = home();
    for (arguments, code, message) in [
        (&["--url", "http://127.0.0.1:9"][..], 1, "error: no pool answers at http://127.0.0.1:9"),
        (&["--url", "https://127.0.0.1:9"], 1, "error: https://127.0.0.1:9 is behind TLS"),
        (&["--url", "ftp://pool"], 1, "error: \"ftp://pool\" is not the address of a pool"),
        (&["--concurrency", "0"], 2, "error: invalid value '0'"),
        (&["--engine", "gecko"], 78, "error: "),
        (&["--set", "chrome.executable=/nowhere/chromium"], 78, "error: "),
    ] {
        let output = bench(&home, arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(message), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty());
    }
    // The last one of an option counts.
    let output = command().args(["bench", "--sessions", "0"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert_nothing_left(&home);
}

#[test]
fn a_signal_ends_it_and_its_browsers() {
    let home = home();
    let child = command()
        .args(["bench", "--sessions", "10000", "--engine", "shell"])
        .env("XDG_STATE_HOME", home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    let state_dir = home.path().join("browser-pool");
    let deadline = Instant::now() + Duration::from_secs(60);
    while processes_below(&state_dir).is_empty() {
        assert!(Instant::now() < deadline, "it launches nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    let output = child.wait_with_output().expect("it is ours");
    assert_eq!(output.status.code(), Some(143), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes_below(&state_dir).is_empty() {
        assert!(Instant::now() < deadline, "its browsers go on");
        std::thread::sleep(Duration::from_millis(20));
    }
}
