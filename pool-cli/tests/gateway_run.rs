//! `pool-cli run` as a process, on real Chromium: how it starts, is steered, and ends. How soon is for the fault
//! tests, which have the machine to themselves.

mod gateway_support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use gateway_support::{Cdp, PATIENCE, Service, closed, command, processes_below};
use rustix::process::Signal;

const SMALL: &str = "[pool]\nmin_size = 1\nmax_size = 2\n";

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_client_opens_a_page_and_the_lease_leaves_an_audit_line() {
    let service = Service::start(SMALL);
    let mut cdp = Cdp::new(service.connect("/?tenant=t1&trackingId=job-7&priority=2").await);
    let page = cdp.page("data:text/html,<title>hello</title>").await;
    assert_eq!(cdp.evaluate(&page, "document.title").await, "hello");
    let state = service.get("/api/state").await.json();
    let id = state["browsers"].as_array().unwrap().iter().find(|b| b["state"] == "leased");
    let id = id.expect("it is leased")["id"].as_u64().unwrap();
    let shot = service.get(&format!("/api/browsers/{id}/screenshot")).await;
    assert_eq!(shot.status, 200, "{}", shot.body);
    cdp.client.close(None).await.expect("it was open");
    service.until_logged("lease over");
    let log = service.log();
    let line = log.lines().find(|line| line.contains("lease over")).unwrap();
    for part in [r#""tenant":"t1""#, r#""tracking_id":"job-7""#, r#""ended":"released""#] {
        assert!(line.contains(part), "{line}");
    }
}

#[tokio::test]
async fn sigterm_lets_leases_finish_and_ends_with_0() {
    // Longer than anybody waits here: it ends when its last lease does.
    let mut service = Service::start(&format!("{SMALL}[gateway]\ndrain_timeout = \"5m\"\n"));
    let mut cdp = Cdp::new(service.connect("/").await);
    let page = cdp.page("about:blank").await;
    service.signal(Signal::TERM);
    until("it drains", async || service.get("/readyz").await.status == 503).await;
    assert_eq!(service.get("/livez").await.status, 200);
    assert_eq!(cdp.evaluate(&page, "6 * 7").await, 42);
    cdp.client.close(None).await.expect("it was open");
    assert!(service.wait(PATIENCE).success(), "{}", service.log());
    assert_eq!(service.browsers(), [] as [u32; 0]);
    let left = std::fs::read_dir(service.state_dir().join("run")).expect("it is there").count();
    assert_eq!(left, 0, "directories of browsers");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut service = Service::start(SMALL);
    let mut cdp = Cdp::new(service.connect("/").await);
    cdp.page("about:blank").await;
    service.signal(Signal::INT);
    service.until_logged("draining");
    service.signal(Signal::INT);
    // The client stays, so that the first signal alone would end it later, and with 0.
    assert_eq!(service.wait(PATIENCE).code(), Some(1));
    until("no browser is left", async || service.browsers().is_empty()).await;
}

#[tokio::test]
async fn a_killed_pool_leaves_no_browser_behind() {
    let service = Service::start(SMALL);
    let mut cdp = Cdp::new(service.connect("/").await);
    cdp.page("about:blank").await;
    assert!(!service.browsers().is_empty());
    service.signal(Signal::KILL);
    until("no browser is left", async || service.browsers().is_empty()).await;
}

#[tokio::test]
async fn a_killed_browser_is_told_with_4500_and_replaced() {
    let service = Service::start(SMALL);
    let mut cdp = Cdp::new(service.connect("/").await);
    cdp.page("about:blank").await;
    let state = service.get("/api/state").await.json();
    let browsers = state["browsers"].as_array().unwrap();
    let leased = browsers.iter().find(|browser| browser["state"] == "leased").unwrap();
    let pid = rustix::process::Pid::from_raw(leased["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).expect("it runs");
    let (code, reason) = closed(&mut cdp.client).await;
    assert_eq!((code, reason.split(':').next()), (4500, Some("browser_crashed")));
    let mut next = Cdp::new(service.connect("/").await);
    let page = next.page("about:blank").await;
    assert_eq!(next.evaluate(&page, "1 + 1").await, 2);
}

#[tokio::test]
async fn a_reload_takes_what_it_can_and_a_bad_one_changes_nothing() {
    let service = Service::start(SMALL);
    service.configure("[pool]\nmin_size = 1\nmax_size = 5\nmax_waiting = 9\n[profiles.work]\n");
    service.signal(Signal::HUP);
    service.until_logged("configuration reloaded");
    let state = service.get("/api/state").await.json();
    assert_eq!(state["load"]["max_size"], 5);
    let log = service.log();
    let line = log.lines().find(|line| line.contains("configuration reloaded")).unwrap();
    assert!(line.contains("needs_restart") && line.contains("pool.max_waiting"), "{line}");
    let mut cdp = Cdp::new(service.connect("/?profile=work").await);
    let page = cdp.page("about:blank").await;
    assert_eq!(cdp.evaluate(&page, "1 + 1").await, 2);

    service.configure("[pool]\nmax_sise = 7\n");
    service.signal(Signal::HUP);
    service.until_logged("was not applied");
    assert!(service.log().contains("max_size"), "the log says what to write instead");
    assert_eq!(service.get("/api/state").await.json()["load"]["max_size"], 5);
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_said_with_a_way_out() {
    let service = Service::start(SMALL);
    let state_dir = tempfile::tempdir().expect("a directory");
    let run = |arguments: &[&str]| {
        let output = command()
            .arg("run")
            .args(arguments)
            .env("XDG_STATE_HOME", state_dir.path())
            .stdin(Stdio::null())
            .output()
            .expect("the binary is built");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, error) = run(&["--listen", &service.address]);
    assert_eq!(code, Some(1));
    assert!(error.contains(&service.address) && error.contains("hint:"), "{error}");

    let directory = format!("pool.state_dir={}", service.state_dir().display());
    let (code, error) = run(&["--listen", "127.0.0.1:0", "--set", &directory]);
    assert_eq!(code, Some(1));
    assert!(error.contains(&format!("process {}", service.pid())), "{error}");

    let (code, error) = run(&["--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(78));
    assert!(error.contains("token"), "{error}");

    let output = command()
        .args(["run", "--listen", "127.0.0.1:0"])
        .env("CHROME", "/nowhere/chromium")
        .env("XDG_STATE_HOME", state_dir.path())
        .output()
        .expect("the binary is built");
    assert_eq!(output.status.code(), Some(78));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("/nowhere/chromium"), "{error}");
    assert_eq!(processes_below(state_dir.path()), [] as [u32; 0]);
}

#[tokio::test]
async fn exec_runs_a_command_with_a_browser_and_ends_as_it_does() {
    let service = Service::start(SMALL);
    let url = format!("http://{}", service.address);
    let run = |arguments: &[&str]| {
        let output = command().arg("exec").args(arguments).output().expect("the binary is built");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, output) = run(&["--url", &url, "--", "sh", "-c", "echo $CDP_URL; exit 7"]);
    assert_eq!(code, Some(7));
    assert!(output.starts_with(&format!("ws://{}/devtools/browser/", service.address)), "{output}");
    service.until_logged("lease over");
    let state = service.get("/api/state").await.json();
    assert_eq!(state["sessions"], serde_json::json!([]));
    assert_eq!(run(&["--url", &url, "--", "sh", "-c", "kill -TERM $$"]).0, Some(128 + 15));

    let own = tempfile::tempdir().expect("a directory");
    let set = format!("pool.state_dir={}", own.path().join("state").display());
    let (code, output) = run(&["--set", &set, "--", "sh", "-c", "echo $CDP_URL"]);
    assert_eq!(code, Some(0));
    assert!(output.starts_with("ws://127.0.0.1:"), "{output}");
    // Narrowed to some domains where something keeps it there.
    let narrow = ["--set", &set, "--allow-domains", "a.example", "--", "echo", "narrow"];
    let unguarded = command().arg("exec").args(narrow).output().expect("the binary is built");
    let told = String::from_utf8_lossy(&unguarded.stderr).into_owned();
    assert!(unguarded.status.code() == Some(1) && told.contains("[egress]"), "{told}");
    let guarded = [&["--set", "egress.private=deny"][..], &narrow].concat();
    assert_eq!(run(&guarded), (Some(0), "narrow\n".to_owned()));
    assert_eq!(processes_below(&own.path().join("state")), [] as [u32; 0]);
}

#[tokio::test]
async fn systemd_is_told_when_it_is_ready_alive_and_stopping() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is open");
    let path = path.to_str().expect("it is text");
    let mut service =
        Service::start_with(SMALL, &[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "400000")]);
    let hear = |wanted: &str| loop {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
        if String::from_utf8_lossy(&text[..length]).contains(wanted) {
            return;
        }
    };
    for wanted in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
        hear(wanted);
    }
    service.signal(Signal::HUP);
    for wanted in ["RELOADING=1", "READY=1"] {
        hear(wanted);
    }
    service.signal(Signal::TERM);
    hear("STOPPING=1");
    assert!(service.wait(PATIENCE).success());
}
