//! What the tests about processes share. It looks at `/proc` by itself, not through the code that
//! it tests.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pool_chrome::process::{Chromium, Engine, LaunchOptions, Pipe, StateDir};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Both engines are installed by `make test`; a test on one of them is no test of the other.
pub(crate) const ENGINES: [Engine; 2] = [Engine::Shell, Engine::Chromium];

/// Longer than anything takes, also on a machine that does three other things: a Chromium that exits
/// by itself takes more than a second where it is alone.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A state directory of its own for one test.
pub(crate) struct State {
    pub(crate) root: TempDir,
    pub(crate) state: StateDir,
}

impl State {
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("pc").tempdir().unwrap();
        let state = StateDir::open(root.path().join("s")).unwrap();
        Self { root, state }
    }

    pub(crate) async fn launch(&self, options: LaunchOptions) -> (Chromium, Pipe) {
        Chromium::launch(options, &self.state).await.unwrap()
    }

    /// Launches and waits for the first answer.
    pub(crate) async fn ready(&self, options: LaunchOptions) -> (Chromium, Pipe) {
        let (chromium, mut pipe) = self.launch(options).await;
        let version = ask(&mut pipe, "Browser.getVersion", json!({})).await;
        assert!(version["result"]["product"].is_string(), "{version}\n{}", chromium.stderr());
        (chromium, pipe)
    }

    /// The processes that have anything to do with this directory.
    pub(crate) fn processes(&self) -> Vec<u32> {
        processes_of(self.root.path())
    }

    /// What stands below `run`.
    pub(crate) fn litter(&self) -> Vec<String> {
        fs::read_dir(self.state.path().join("run"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.processes(), [0; 0]);
        assert_eq!(self.litter(), [""; 0]);
    }
}

/// What a test has dropped is being cleaned up; the directory goes when that is done.
impl Drop for State {
    fn drop(&mut self) {
        let run = self.root.path().join("s/run");
        let empty = || fs::read_dir(&run).map_or(true, |mut entries| entries.next().is_none());
        holds_within(Duration::from_secs(10), empty);
    }
}

/// Live processes that name the directory in their arguments or their environment, without us.
pub(crate) fn processes_of(directory: &Path) -> Vec<u32> {
    let needle = directory.as_os_str().as_bytes();
    let names = |file: String| {
        let text = fs::read(file).unwrap_or_default();
        text.windows(needle.len()).any(|window| window == needle)
    };
    pids()
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            names(format!("/proc/{pid}/cmdline")) || names(format!("/proc/{pid}/environ"))
        })
        .collect()
}

pub(crate) fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The state letter of a process, `None` if there is none of this id.
pub(crate) fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 2..].chars().next()
}

/// The inodes of the sockets that a process has open.
pub(crate) fn socket_inodes(pid: u32) -> HashSet<String> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| {
        let link = fs::read_link(fd.path()).ok()?;
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    })
    .collect()
}

/// Sends one command and waits for its answer, past any events.
pub(crate) async fn ask(pipe: &mut Pipe, method: &str, params: Value) -> Value {
    let command = json!({ "id": 1, "method": method, "params": params });
    pipe.writer.write_all(format!("{command}\0").as_bytes()).await.unwrap();
    loop {
        let message = next_message(pipe).await.expect("Chromium ended before it answered");
        if message["id"] == 1 {
            return message;
        }
    }
}

pub(crate) async fn next_message(pipe: &mut Pipe) -> Option<Value> {
    let mut message = Vec::new();
    loop {
        match pipe.reader.read_u8().await.ok()? {
            0 => return Some(serde_json::from_slice(&message).unwrap()),
            byte => message.push(byte),
        }
    }
}

/// Polls until `condition` holds; false if it does not within the time.
pub(crate) fn holds_within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// The same, without blocking the other tasks.
pub(crate) async fn comes_true(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    stat_field(pid, 1)
}

pub(crate) fn group_of(pid: u32) -> Option<u32> {
    stat_field(pid, 2)
}

/// A number from `/proc/PID/stat`, counted from the state letter.
fn stat_field(pid: u32, index: usize) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 2..].split_whitespace().nth(index)?.parse().ok()
}

/// Our own children that are dead and not reaped.
pub(crate) fn zombies() -> usize {
    let own = std::process::id();
    pids().filter(|pid| state_of(*pid) == Some('Z') && parent_of(*pid) == Some(own)).count()
}

/// Opens a page and attaches to it; the id of the session.
pub(crate) async fn open_page(pipe: &mut Pipe) -> String {
    let page = ask(pipe, "Target.createTarget", json!({ "url": "about:blank" })).await;
    let params = json!({ "targetId": page["result"]["targetId"], "flatten": true });
    let attached = ask(pipe, "Target.attachToTarget", params).await;
    attached["result"]["sessionId"].as_str().unwrap().to_owned()
}

/// Navigates; Chromium's word for why that failed, empty if it did not.
pub(crate) async fn navigate(pipe: &mut Pipe, session: &str, url: &str) -> String {
    loop {
        let answer = ask_page(pipe, session, "Page.navigate", json!({ "url": url })).await;
        let error = answer["result"]["errorText"].as_str().unwrap_or_default();
        // A new page is on its way to about:blank, and one of the two is aborted.
        if error != "net::ERR_ABORTED" {
            return error.to_owned();
        }
    }
}

/// The value of a script, which may be a promise.
pub(crate) async fn evaluate(pipe: &mut Pipe, session: &str, script: &str) -> Value {
    let params = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
    let answer = ask_page(pipe, session, "Runtime.evaluate", params).await;
    answer["result"]["result"]["value"].clone()
}

/// Sends one command to a page and waits for its answer, past any events.
pub(crate) async fn ask_page(pipe: &mut Pipe, session: &str, method: &str, params: Value) -> Value {
    let command = json!({ "id": 2, "method": method, "params": params, "sessionId": session });
    pipe.writer.write_all(format!("{command}\0").as_bytes()).await.unwrap();
    loop {
        let message = next_message(pipe).await.expect("Chromium ended before it answered");
        if message["id"] == 2 {
            return message;
        }
    }
}
