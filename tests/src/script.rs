use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::binary::workspace;
use crate::patience::GENEROUS;

/// A client script of `tests/clients`, in Node or in Python by its name.
#[derive(Debug)]
#[must_use]
pub struct Script {
    command: Command,
    name: String,
}

/// What became of a script.
#[derive(Debug)]
pub struct ScriptOutcome {
    /// The exit code; `None` where a signal has ended it.
    pub code: Option<i32>,
    /// The lines of stdout that are JSON.
    pub lines: Vec<Value>,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// A script that answers each line with a line of JSON; its drop kills it.
#[derive(Debug)]
pub struct Talk {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    name: String,
}

impl Talk {
    /// Says something, and hears the answer.
    ///
    /// # Panics
    ///
    /// If there is none within a minute.
    pub async fn ask(&mut self, line: &str) -> Value {
        let line = format!("{line}\n");
        self.input.write_all(line.as_bytes()).await.expect("it reads its standard input");
        self.hear().await
    }

    /// The next line that it says by itself.
    ///
    /// # Panics
    ///
    /// If there is none within a minute, or it is no JSON.
    pub async fn hear(&mut self) -> Value {
        let said = timeout(GENEROUS, self.output.next_line()).await;
        let said = said.unwrap_or_else(|_| panic!("{} says nothing", self.name));
        let said = said.expect("its output can be read");
        let said = said.unwrap_or_else(|| panic!("{} has ended", self.name));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Kills it with SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it is ours");
    }
}

impl Script {
    /// The script of this name.
    ///
    /// # Panics
    ///
    /// If the clients are not installed.
    pub fn new(name: &str) -> Self {
        let folder = workspace().join("tests/clients");
        let installed = folder.join("node_modules").is_dir();
        assert!(installed, "the clients are not installed: scripts/install-clients");
        let mut command = if name.ends_with(".py") {
            Command::new(folder.join(".venv/bin/python"))
        } else {
            Command::new("node")
        };
        command.arg(folder.join(name)).current_dir(workspace()).kill_on_drop(true);
        Self { command, name: name.to_owned() }
    }

    /// Starts it by another program, such as one that gives it a network of its own.
    pub fn started_by(mut self, words: &[&str]) -> Self {
        let direct = self.command.as_std();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(direct.get_program()).args(direct.get_args());
        command.current_dir(workspace()).kill_on_drop(true);
        self.command = command;
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    ///
    /// If it cannot be started, or runs longer than `limit`.
    pub async fn run(mut self, limit: Duration) -> ScriptOutcome {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let running = self.spawned().wait_with_output();
        let output = timeout(limit, running).await;
        let output = output.unwrap_or_else(|_| panic!("{} runs after {limit:?}", self.name));
        let output = output.expect("its output can be read");
        let stdout = String::from_utf8_lossy(&output.stdout);
        ScriptOutcome {
            code: output.status.code(),
            lines: stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts it with a standard input that stays open for as long as the child is kept.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start(mut self) -> Child {
        self.command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.spawned()
    }

    /// Starts it to talk with it, a line for a line.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn talk(mut self) -> Talk {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = self.spawned();
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Talk { child, input, output, name: self.name }
    }

    fn spawned(&mut self) -> Child {
        let program = Path::new(self.command.as_std().get_program()).display().to_string();
        self.command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"))
    }
}
