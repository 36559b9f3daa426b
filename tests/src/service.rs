use std::fs::OpenOptions;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::patience::GENEROUS;
use crate::process::ProcessId;
use crate::{Cdp, Home, Refused, Response, Setup, pool_cli, request};

/// A `pool-cli run` of our own; its drop kills it.
#[derive(Debug)]
pub struct Service {
    child: Child,
    /// The process.
    pub process: ProcessId,
    /// `host:port` of the gateway.
    pub address: String,
    /// `Authorization`, where it wants a token.
    authorization: Option<String>,
}

/// How a service has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; `None` where a signal has ended it.
    pub code: Option<i32>,
    /// How long it took.
    pub took: Duration,
}

impl Service {
    /// Starts one, and waits until it listens and is ready.
    ///
    /// # Panics
    ///
    /// If it ends instead, or does not get ready.
    pub async fn start(home: &Home, setup: &Setup) -> Self {
        let service = Self::listening(home, setup).await;
        service.until_ready().await;
        service
    }

    /// Starts one, and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it ends instead.
    pub async fn listening(home: &Home, setup: &Setup) -> Self {
        let mut child = Self::spawn(home, setup);
        let stdout = child.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(GENEROUS, lines.next_line()).await;
        let url = match line {
            Ok(Ok(Some(url))) => url,
            other => panic!("the service did not start ({other:?}):\n{}", home.log()),
        };
        let address = url.trim().trim_start_matches("ws://").trim_end_matches('/').to_owned();
        // The reader stays open, so that nothing it prints later ends it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let pid = child.id().expect("it was not waited for");
        let process = ProcessId::of(pid).expect("it was not waited for");
        let authorization = setup.token.as_ref().map(|token| format!("Bearer {token}"));
        Self { child, process, address, authorization }
    }

    /// Starts one that is expected to refuse to start: its exit, and what it wrote to stderr.
    ///
    /// # Panics
    ///
    /// If it has not ended after half a minute.
    pub async fn refused(home: &Home, setup: &Setup) -> (Exit, String) {
        let before = home.log().len();
        let began = Instant::now();
        let mut child = Self::spawn(home, setup);
        let status = timeout(GENEROUS, child.wait()).await;
        let status =
            status.expect("it refuses within half a minute").expect("it can be waited for");
        let log = home.log().split_off(before);
        (Exit { code: status.code(), took: began.elapsed() }, log)
    }

    fn spawn(home: &Home, setup: &Setup) -> Child {
        let mut full = setup.clone();
        if !setup.toml().contains("state_dir") {
            full = full.set("pool.state_dir", home.state_dir().to_string_lossy().into_owned());
        }
        std::fs::write(home.config(), full.toml()).expect("the home is ours");
        let log = OpenOptions::new().create(true).append(true).open(home.log_file());
        let log = log.expect("the home is ours");
        let mut words = setup.wrapper.iter();
        let mut command = match words.next() {
            None => Command::new(pool_cli()),
            Some(wrapper) => {
                let mut command = Command::new(wrapper);
                command.args(words).arg(pool_cli());
                command
            }
        };
        command
            .args(["run", "--config"])
            .arg(home.config())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.user_home())
            .env("TMPDIR", home.temp_dir())
            .envs(setup.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it does not get so.
    pub async fn until_ready(&self) {
        crate::eventually("the service is ready", GENEROUS, async || {
            match request(&self.address, "GET", "/readyz", &[], "").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    /// The address of a lease with this path and query.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// Leases a browser with this path and query.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub async fn connect(&self, path: &str) -> Cdp {
        self.try_connect(path).await.unwrap_or_else(|refused| panic!("{path}: {refused:?}"))
    }

    /// Asks for a lease with this path and query.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub async fn try_connect(&self, path: &str) -> Result<Cdp, Refused> {
        let headers: Vec<_> = self.authorization().collect();
        Cdp::open(&self.address, path, &headers).await
    }

    fn authorization(&self) -> impl Iterator<Item = (&str, &str)> {
        self.authorization.iter().map(|value| ("authorization", &**value))
    }

    /// GETs a path.
    ///
    /// # Panics
    ///
    /// If no answer comes.
    pub async fn get(&self, path: &str) -> Response {
        let headers: Vec<_> = self.authorization().collect();
        let answer = request(&self.address, "GET", path, &headers, "").await;
        answer.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// POSTs JSON to a path.
    ///
    /// # Panics
    ///
    /// If no answer comes.
    pub async fn post(&self, path: &str, body: &Value) -> Response {
        let headers: Vec<_> =
            self.authorization().chain([("content-type", "application/json")]).collect();
        let answer = request(&self.address, "POST", path, &headers, &body.to_string()).await;
        answer.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// What the pool says of itself: `/api/state`.
    pub async fn state(&self) -> Value {
        self.get("/api/state").await.json()
    }

    /// The leases that clients hold: `/sessions`.
    pub async fn sessions(&self) -> Vec<Value> {
        self.get("/sessions").await.json().as_array().cloned().unwrap_or_default()
    }

    /// The sum of all series of a metric whose labels hold `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        let series = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let is_it = rest.starts_with(['{', ' ']) && rest.contains(labels);
            rest.rsplit(' ').next().filter(|_| is_it)?.parse::<f64>().ok()
        });
        series.sum()
    }

    /// Waits until as many leases as there must be are counted that ended for this reason: a client may
    /// learn of the end before it is counted.
    ///
    /// # Panics
    ///
    /// If it does not get so.
    pub async fn until_ended(&self, reason: &str, are: impl Fn(f64) -> bool + Send + Sync) {
        crate::eventually("their ends are counted", GENEROUS, async || {
            let ended = self.metric("browserpool_leases_ended_total", reason).await;
            if are(ended) { Ok(()) } else { Err(format!("{ended} ended with {reason}")) }
        })
        .await;
    }

    /// The process ids of the Chromiums, as the pool says, those of one state or (`""`) of all.
    pub async fn browser_pids(&self, state: &str) -> Vec<u32> {
        let snapshot = self.state().await;
        let browsers = snapshot["browsers"].as_array().cloned().unwrap_or_default();
        let pids = browsers
            .iter()
            .filter(|browser| state.is_empty() || browser["state"] == state)
            .filter_map(|browser| u32::try_from(browser["pid"].as_u64()?).ok());
        let mut pids: Vec<u32> = pids.collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// The process of the Chromium behind a connection.
    ///
    /// # Panics
    ///
    /// If the pool knows of none.
    pub async fn browser_of(&self, client: &Cdp) -> ProcessId {
        let lease = client.lease.as_deref().expect("the pool tells the lease");
        let snapshot = self.state().await;
        let browsers = snapshot["browsers"].as_array().cloned().unwrap_or_default();
        let own = browsers.iter().find(|browser| browser["lease"]["id"] == lease);
        let pid = own.and_then(|browser| u32::try_from(browser["pid"].as_u64()?).ok());
        let process = pid.and_then(ProcessId::of);
        process.unwrap_or_else(|| panic!("no process behind {lease}: {snapshot}"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Kills it as the kernel would that is out of memory.
    pub async fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        // It is dead in any case; this only takes its zombie away.
        let _ = self.child.wait().await;
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// If it lives longer than `limit`.
    pub async fn exit(&mut self, limit: Duration) -> Exit {
        let began = Instant::now();
        let status = timeout(limit, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("the service lives after {limit:?}"));
        let status = status.expect("it can be waited for");
        Exit { code: status.code(), took: began.elapsed() }
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_alive()
    }
}
