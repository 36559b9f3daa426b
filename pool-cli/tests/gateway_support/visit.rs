use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;
use super::service::{command, processes_below};

/// A folder with what one visit reads and writes.
pub(crate) struct Visit {
    pub(crate) folder: TempDir,
    pub(crate) engine: &'static str,
}

impl Visit {
    pub(crate) fn new(engine: &'static str) -> Self {
        Self { folder: tempfile::tempdir().expect("a directory"), engine }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn start(&self, urls: &[String], arguments: &[&str]) -> Child {
        std::fs::write(self.path("urls.txt"), urls.join("\n")).expect("it can be written");
        command()
            .args(["visit", "--set"])
            .arg(format!("chrome.engine={}", self.engine))
            .arg("--out")
            .arg(self.path("out.jsonl"))
            .args(arguments)
            .arg(self.path("urls.txt"))
            .env("XDG_STATE_HOME", self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built")
    }

    /// Runs it to its end: the exit code, and what it told people.
    pub(crate) async fn run(&self, urls: &[String], arguments: &[&str]) -> (Option<i32>, String) {
        end(self.start(urls, arguments)).await
    }

    /// What is known of each URL that is done.
    pub(crate) fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("out.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
    }

    pub(crate) fn record(&self, url: &str) -> Value {
        let found = self.records().into_iter().filter(|record| record["url"] == url);
        let found: Vec<Value> = found.collect();
        assert_eq!(found.len(), 1, "{url} stands there {} times", found.len());
        found[0].clone()
    }

    /// The Chromium processes of this visit.
    pub(crate) fn processes(&self) -> Vec<u32> {
        processes_below(&self.path("browser-pool"))
    }

    /// Waits until none of them is left. A visit does not wait long for one that takes its time: the
    /// pool's reaper sees to it.
    pub(crate) async fn until_gone(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.processes().is_empty() {
            assert!(Instant::now() < deadline, "{}: {:?} live on", self.engine, self.processes());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) async fn end(child: Child) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output());
    let output = output.await.expect("it waits").expect("it is ours");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}
