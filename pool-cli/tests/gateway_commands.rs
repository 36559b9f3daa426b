//! The commands that talk to a pool that runs.

mod gateway_support;

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use gateway_support::{PATIENCE, Service, closed, command};

const CONFIG: &str = "[pool]\nmin_size = 1\nmax_size = 2\n\
                      [gateway]\ntoken = { env = \"TEST_TOKEN\" }\n";

fn start() -> Service {
    Service::start_with(CONFIG, &[("TEST_TOKEN", "s3cret")])
}

fn run(service: &Service, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output: Output = command()
        .args(arguments)
        .env("POOL_URL", format!("http://{}", service.address))
        .env("POOL_TOKEN", "s3cret")
        .output()
        .expect("the binary is built");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn status_and_lease_show_who_holds_what_and_kill_ends_it() {
    let service = start();
    let mut client = service.connect("/?token=s3cret&tenant=acme&trackingId=job-7").await;
    let (code, screen, _) = run(&service, &["status"]);
    assert_eq!(code, Some(0));
    for part in ["1 leased", "acme job-7", "browser  state"] {
        assert!(screen.contains(part), "no {part:?} in\n{screen}");
    }
    assert!(!screen.contains('\u{1b}'), "no colours where it is no terminal");
    let (_, json, _) = run(&service, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(json["load"]["leased"], 1);

    let (_, list, _) = run(&service, &["lease", "list"]);
    let line = list.lines().find(|line| line.contains("job-7")).expect("it is listed");
    let beginning = &line[..6];
    let (code, killed, _) = run(&service, &["lease", "kill", beginning]);
    assert_eq!((code, killed.as_str()), (Some(0), "1 lease ended\n"));
    assert_eq!(closed(&mut client).await.0, 1000);
    let (code, _, error) = run(&service, &["lease", "kill", "nobody"]);
    assert_eq!(code, Some(1));
    assert!(error.starts_with("error: there is no lease"), "{error}");
}

#[tokio::test]
async fn watching_as_json_prints_an_object_a_line_until_a_signal_or_the_end_of_the_pool() {
    let mut service = start();
    let watch = || {
        let watch = command()
            .args(["status", "--watch", "--json"])
            .env("POOL_URL", format!("http://{}", service.address))
            .env("POOL_TOKEN", "s3cret")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut watch = watch.expect("the binary is built");
        let mut lines = BufReader::new(watch.stdout.take().expect("it is piped")).lines();
        for _ in 0..2 {
            let line = lines.next().expect("it goes on").expect("it is text");
            let state: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
            assert_eq!(state["load"]["max_size"], 2);
        }
        (watch, lines)
    };
    let (mut interrupted, _lines) = watch();
    let pid = rustix::process::Pid::from_child(&interrupted);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    assert!(interrupted.wait().expect("it is ours").success());

    let (mut unread, lines) = watch();
    // As `| head -2` does.
    drop(lines);
    assert!(unread.wait().expect("it is ours").success());

    let (left, _lines) = watch();
    service.signal(rustix::process::Signal::TERM);
    assert!(service.wait(PATIENCE).success(), "{}", service.log());
    let output = left.wait_with_output().expect("it is ours");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("error: the connection to the pool was lost"), "{error}");
}

#[tokio::test]
async fn a_pool_is_resized_reloaded_and_drained() {
    let mut service = start();
    let (code, sizes, _) = run(&service, &["resize", "--max-size", "4"]);
    assert_eq!((code, sizes.as_str()), (Some(0), "1 to 4 browsers\n"));
    let (code, _, error) = run(&service, &["resize", "--min-size", "9"]);
    assert_eq!(code, Some(1), "{error}");

    service.configure(&CONFIG.replace("max_size = 2", "max_size = 3\nreset = \"relaunch\""));
    let (code, changes, _) = run(&service, &["reload"]);
    assert_eq!(code, Some(0));
    assert_eq!(changes, "changed: pool.max_size\nneeds a restart: pool.reset\n");
    service.configure("[pool]\nmax_size = 0\n");
    let (code, _, error) = run(&service, &["reload"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("max_size"), "{error}");

    assert_eq!(run(&service, &["drain"]).0, Some(0));
    assert!(service.wait(PATIENCE).success(), "{}", service.log());
    let (code, _, error) = run(&service, &["status"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("no pool answers") && error.contains("hint: start one"), "{error}");
}

#[tokio::test]
async fn without_the_token_the_command_says_where_to_put_it() {
    let service = start();
    let output = command()
        .arg("status")
        .env("POOL_URL", format!("http://{}", service.address))
        .output()
        .expect("the binary is built");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("hint: set POOL_TOKEN"), "{error}");
    assert!(!service.log().contains("s3cret"));
}
