use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Response;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::{Client, PATIENCE};

/// `pool-cli run` as a process, on a port of its own, with a state directory of its own.
pub(crate) struct Service {
    child: Child,
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
    pub(crate) address: String,
}

impl Service {
    /// Starts it with this configuration, and waits until it listens.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with variables in its environment.
    pub(crate) fn start_with(config: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_at("127.0.0.1:0", config, variables)
    }

    /// The same at an address, so that it can be started there again.
    pub(crate) fn start_at(listen: &str, config: &str, variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let variables: Vec<(String, String)> = variables.collect();
        std::fs::write(directory.path().join("pool.toml"), config).expect("it can be written");
        let (child, address) = launch(directory.path(), listen, &variables);
        let service = Self { child, directory, variables, address };
        assert!(!service.address.is_empty(), "it did not start:\n{}", service.log());
        service
    }

    /// Starts it again, at the same address, once it has ended.
    pub(crate) fn restart(&mut self) {
        let (child, address) = launch(self.directory.path(), &self.address, &self.variables);
        self.child = child;
        assert_eq!(address, self.address, "it did not start again:\n{}", self.log());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(self.directory.path().join("pool.toml"), config).expect("it can be written");
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.path().join("browser-pool")
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status;
            }
            assert!(Instant::now() < deadline, "it still runs:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a line of the log.
    pub(crate) fn until_logged(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) async fn connect(&self, path: &str) -> Client {
        self.connect_with(path, &[]).await.0
    }

    /// Connects with headers of its own; the answer is that of the handshake.
    pub(crate) async fn connect_with(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> (Client, Response<Option<Vec<u8>>>) {
        let stream = TcpStream::connect(&self.address).await.expect("it listens");
        let url = format!("ws://{}{path}", self.address);
        let mut request = url.into_client_request().expect("it is an address");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let answer = tokio_tungstenite::client_async(request, stream).await;
        answer.unwrap_or_else(|error| panic!("{error:?}\n{}", self.log()))
    }

    pub(crate) async fn get(&self, path: &str) -> super::Answer {
        let address = self.address.parse().expect("an address");
        super::request(address, "GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str) -> super::Answer {
        let address = self.address.parse().expect("an address");
        let headers = [("content-type", "application/json")];
        super::request(address, "POST", path, &headers, "{}").await
    }

    /// The processes of this service's browsers, by their directories.
    pub(crate) fn browsers(&self) -> Vec<u32> {
        processes_below(&self.state_dir())
    }

    /// The browser processes themselves, without their helpers.
    pub(crate) async fn browser_pids(&self) -> Vec<u32> {
        let state = self.get("/api/state").await.json();
        let browsers = state["browsers"].as_array().expect("a list").clone();
        browsers.iter().filter_map(|browser| Some(browser["pid"].as_u64()? as u32)).collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process, and the address that it says it listens on: none if it did not start.
fn launch(directory: &Path, listen: &str, variables: &[(String, String)]) -> (Child, String) {
    let log = directory.join("log");
    let log = File::options().create(true).append(true).open(log).expect("it can be written");
    let mut child = command()
        .args(["run", "--listen", listen, "--config"])
        .arg(directory.join("pool.toml"))
        .env("XDG_STATE_HOME", directory)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the binary is built");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("it is text");
    (child, line.trim().strip_prefix("ws://").unwrap_or_default().to_owned())
}

/// The binary, with nothing of this environment that would configure it.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pool-cli"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("POOL_")
            || text.starts_with("OTEL_")
            || ["TOKEN", "CONCURRENT", "QUEUED", "TIMEOUT"].contains(&&*text)
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Processes whose command line names this directory.
pub(crate) fn processes_below(directory: &Path) -> Vec<u32> {
    let directory = directory.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").expect("a linux");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&format!("{directory}/"))
    })
    .collect()
}

/// The renderers among the descendants of a process.
pub(crate) fn renderers(of: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("a linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ancestors = std::iter::successors(Some(*pid), |pid| parent(*pid));
        String::from_utf8_lossy(&line).contains("--type=renderer")
            && ancestors.take(10).any(|ancestor| ancestor == of)
    })
    .collect()
}

/// Speaks the protocol over a connection, one command at a time.
pub(crate) struct Cdp {
    pub(crate) client: WebSocketStream<TcpStream>,
    next: i64,
}

impl Cdp {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, next: 1 }
    }

    /// Sends a command and returns its result.
    pub(crate) async fn call(
        &mut self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Value {
        let answer = self.ask(session, method, params).await;
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Sends a command and returns its answer, which may be an error.
    async fn ask(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        use futures_util::{SinkExt, StreamExt};
        let id = self.next;
        self.next += 1;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        self.client.send(Message::text(command.to_string())).await.expect("it is open");
        let answer = async {
            loop {
                let message = self.client.next().await.expect("it is open").expect("it is whole");
                let Message::Text(text) = message else { panic!("{method}: {message:?}") };
                let message: Value = serde_json::from_str(&text).expect("it is JSON");
                if message["id"] == json!(id) {
                    return message;
                }
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time")
    }

    /// Opens a page, waits until it is loaded, and returns the session to it.
    pub(crate) async fn page(&mut self, url: &str) -> String {
        let target = self.call(None, "Target.createTarget", json!({ "url": "about:blank" })).await;
        let params = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.call(None, "Target.attachToTarget", params).await;
        let session = session["sessionId"].as_str().expect("a session").to_owned();
        if url != "about:blank" {
            self.call(Some(&session), "Page.navigate", json!({ "url": url })).await;
            self.loaded(&session).await;
        }
        session
    }

    /// Waits until a page that was sent elsewhere is there. `Page.navigate` answers before the page
    /// has its new document: until then a script runs in the empty one, or is cut off.
    async fn loaded(&mut self, session: &str) {
        let there = "document.URL !== 'about:blank' && document.readyState === 'complete'";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let params = json!({ "expression": there, "returnByValue": true });
            let answer = self.ask(Some(session), "Runtime.evaluate", params).await;
            if answer["result"]["result"]["value"] == true {
                return;
            }
            let error = answer["error"]["message"].as_str();
            assert!(error.is_none_or(|error| CUT_OFF.contains(&error)), "{answer}");
            assert!(Instant::now() < deadline, "the page does not load: {answer}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn evaluate(&mut self, session: &str, script: &str) -> Value {
        let params = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let answer = self.call(Some(session), "Runtime.evaluate", params).await;
        answer["result"]["value"].clone()
    }
}

/// Chromium's answers to an evaluation whose document goes while it is under way, or has not come
/// yet.
const CUT_OFF: [&str; 3] = [
    "Inspected target navigated or closed",
    "Execution context was destroyed.",
    "Cannot find default execution context",
];
