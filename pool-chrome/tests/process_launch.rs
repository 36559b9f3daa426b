//! What a launched Chromium is like, on both engines.

mod process_support;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use pool_chrome::ChromeError;
use pool_chrome::process::{Chromium, Engine, LaunchOptions, Sandbox, UserData};
use process_support::{ENGINES, State, ask, group_of, pids, socket_inodes};
use serde_json::json;

#[tokio::test]
async fn it_answers_over_the_pipe_and_opens_a_page() {
    for engine in ENGINES {
        let state = State::new();
        let (chromium, mut pipe) = state.ready(LaunchOptions::new().engine(engine)).await;
        assert_eq!(chromium.engine(), engine);
        let page = ask(&mut pipe, "Target.createTarget", json!({ "url": "about:blank" })).await;
        assert!(page["result"]["targetId"].is_string(), "{engine:?}: {page}");
    }
}

#[test]
fn an_extension_takes_the_browser_that_can_load_it() {
    let options = LaunchOptions::new().args(["--load-extension=/nowhere"]);
    assert_eq!(options.check().unwrap().1, Engine::Chromium);
    let error = options.engine(Engine::Shell).check().unwrap_err();
    assert!(matches!(error, ChromeError::NoExtensions { .. }), "{error}");
}

#[tokio::test]
async fn the_process_is_the_browser_itself_and_leads_its_group() {
    for engine in ENGINES {
        let state = State::new();
        let (chromium, _pipe) = state.ready(LaunchOptions::new().engine(engine)).await;
        let program = fs::read_link(format!("/proc/{}/exe", chromium.pid())).unwrap();
        assert!(program.to_string_lossy().contains("chrom"), "{program:?}");
        let stat = fs::read_to_string(format!("/proc/{}/stat", chromium.pid())).unwrap();
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 1..].split_whitespace().collect();
        assert_eq!(fields[2], chromium.pid().to_string(), "process group");
        assert_eq!(fields[19], chromium.start_time().to_string(), "start time");
    }
}

#[tokio::test]
async fn nothing_of_it_listens_on_a_port() {
    for engine in ENGINES {
        let state = State::new();
        let (chromium, mut pipe) = state.ready(LaunchOptions::new().engine(engine)).await;
        ask(&mut pipe, "Target.createTarget", json!({ "url": "about:blank" })).await;
        let mut processes = state.processes();
        processes.extend(pids().filter(|pid| group_of(*pid) == Some(chromium.pid())));
        assert!(processes.len() >= 3, "{engine:?}: {processes:?}");
        let sockets: HashSet<String> = processes.into_iter().flat_map(socket_inodes).collect();
        for table in ["tcp", "tcp6"] {
            let table = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
            for line in table.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let listens = fields[3] == "0A";
                assert!(!(listens && sockets.contains(fields[9])), "{engine:?} listens: {line}");
            }
        }
    }
}

#[tokio::test]
async fn it_gets_no_environment_but_what_is_on_the_list() {
    for engine in ENGINES {
        let state = State::new();
        let options = LaunchOptions::new().engine(engine).env(["CARGO_PKG_NAME"]);
        let (chromium, _pipe) = state.ready(options).await;
        let environment = fs::read_to_string(format!("/proc/{}/environ", chromium.pid())).unwrap();
        let names: HashSet<&str> =
            environment.split('\0').filter_map(|entry| Some(entry.split_once('=')?.0)).collect();
        assert!(names.contains("PATH") && names.contains("TMPDIR"));
        assert!(names.contains("CARGO_PKG_NAME"), "what the operator allows is passed on");
        assert!(!names.contains("CARGO_MANIFEST_DIR"), "{names:?}");
        assert!(environment.contains(&format!("HOME={}", state.root.path().display())));
    }
}

#[tokio::test]
async fn its_directories_are_closed_to_others() {
    let state = State::new();
    let (chromium, _pipe) = state.ready(LaunchOptions::new()).await;
    let run = state.state.path().join("run");
    for directory in [state.state.path(), &run, chromium.user_data_dir(), chromium.temp_dir()] {
        let mode = fs::metadata(directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", directory.display());
    }
}

#[tokio::test]
async fn its_memory_is_that_of_the_whole_tree() {
    for engine in ENGINES {
        let state = State::new();
        let (chromium, mut pipe) = state.ready(LaunchOptions::new().engine(engine)).await;
        ask(&mut pipe, "Target.createTarget", json!({ "url": "about:blank" })).await;
        let mib = chromium.memory().await / (1024 * 1024);
        assert!((15..1500).contains(&mib), "{engine:?}: {mib} MiB");
    }
}

#[tokio::test]
async fn a_long_state_directory_does_not_break_the_browsers_socket() {
    for engine in ENGINES {
        let mut state = State::new();
        let deep = state.root.path().join("d".repeat(100));
        state.state = pool_chrome::process::StateDir::open(deep).unwrap();
        let (chromium, _pipe) = state.ready(LaunchOptions::new().engine(engine)).await;
        let temp_dir = chromium.temp_dir().to_owned();
        assert!(temp_dir.is_dir());
        chromium.close(std::time::Duration::from_secs(5)).await;
        assert!(!temp_dir.exists());
        state.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_refused_launch_leaves_nothing() {
    let state = State::new();
    let file = state.root.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = [
        LaunchOptions::new().args(["--remote-debugging-port=0"]),
        LaunchOptions::new().executable("/nowhere/chromium"),
        LaunchOptions::new().executable(&file),
        LaunchOptions::new().user_data(UserData::Persistent(file.join("profile"))),
    ];
    for options in refused {
        Chromium::launch(options.clone(), &state.state).await.expect_err(&format!("{options:?}"));
    }
    state.assert_nothing_left();
}

#[tokio::test]
async fn a_sandbox_that_cannot_work_is_an_error_where_it_is_demanded() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let state = State::new();
    let options = LaunchOptions::new().sandbox(Sandbox::On);
    let error = Chromium::launch(options, &state.state).await.unwrap_err();
    assert!(matches!(error, ChromeError::NoSandbox { .. }), "{error}");
}
