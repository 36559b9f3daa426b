//! `status`, `status --watch` and `top` in a real terminal, against a pool of real Chromium.

mod gateway_support;

use std::process::Command;
use std::time::{Duration, Instant};

use gateway_support::{Service, closed, unused_port};
use tempfile::TempDir;

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A shell in a terminal of tmux's, with a server of its own.
struct Terminal(TempDir);

impl Terminal {
    fn start(service: &Service) -> Self {
        let terminal = Self(tempfile::tempdir().expect("a directory"));
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "110", "-y", "30", "sh"]);
        terminal.run(&format!(
            "PS1='$ ' POOL_URL=http://{} POOL_TOKEN=s3cret; export POOL_URL POOL_TOKEN; clear",
            service.address
        ));
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.0.path().join("socket"))
            .args(arguments)
            .env_remove("TMUX")
            .output()
            .expect("tmux is installed: scripts/install-package tmux");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Presses keys as tmux names them.
    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Types a line for the shell.
    fn run(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.press("Enter");
    }

    /// Starts a command of ours.
    fn pool_cli(&self, arguments: &str) {
        self.run(&format!("clear; {} {arguments}", env!("CARGO_BIN_EXE_pool-cli")));
    }

    /// What tmux knows of the terminal.
    fn format(&self, format: &str) -> String {
        self.tmux(&["display-message", "-p", format])
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits for all of these to be on the screen at once.
    fn until(&self, parts: &[&str]) -> String {
        self.until_screen(&format!("{parts:?}"), |screen| {
            parts.iter().all(|part| screen.contains(part))
        })
    }

    fn until_screen(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if condition(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "not {what} on\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the terminal is as the shell left it, and the command has ended with this code.
    fn is_restored(&self, code: i32) {
        // What is typed before the command has ended would be its own.
        let deadline = Instant::now() + PATIENCE;
        while self.format("#{pane_current_command}") != "sh\n" {
            assert!(Instant::now() < deadline, "it has not ended:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.run("echo code=$?; stty -a | grep -ow -e '-\\?icanon' -e '-\\?echo'");
        self.until(&[&format!("code={code}\n"), "\nicanon\necho\n"]);
        assert_eq!(self.format("#{alternate_on} #{cursor_flag} #{wrap_flag}"), "0 1 1\n");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .arg("-S")
            .arg(self.0.path().join("socket"))
            .arg("kill-server")
            .output();
    }
}

fn start(max_size: usize) -> Service {
    let config = format!(
        "[pool]\nmin_size = 1\nmax_size = {max_size}\n\
         [gateway]\ntoken = {{ env = \"TEST_TOKEN\" }}\n"
    );
    let listen = format!("127.0.0.1:{}", unused_port());
    Service::start_at(&listen, &config, &[("TEST_TOKEN", "s3cret")])
}

#[tokio::test]
async fn status_fits_a_screen_and_watch_follows_the_pool_until_ctrl_c() {
    let service = start(2);
    let _client = service.connect("/?token=s3cret&tenant=acme&trackingId=job-7").await;
    let terminal = Terminal::start(&service);
    terminal.pool_cli("status");
    terminal.until(&["pool \"default\"", "1 leased", "acme job-7", "browser  state"]);

    terminal.pool_cli("status --watch");
    terminal.until(&["1 leased", "acme job-7"]);
    let second = service.connect("/?token=s3cret&trackingId=job-8").await;
    terminal.until(&["2 leased", "acme job-7", "job-8"]);
    drop(second);
    // tmux may be asked while it has drawn half of it.
    terminal.until_screen("one lease, drawn over the last screen", |screen| {
        screen.contains("1 leased") && !screen.contains("job-8")
    });
    terminal.press("C-c");
    terminal.is_restored(0);
}

#[tokio::test]
async fn top_shows_who_holds_what_and_its_keys_retire_and_end_leases() {
    // One at most, so that it is the first in the table, which is selected.
    let service = start(1);
    let mut client = service.connect("/?token=s3cret&tenant=acme&trackingId=job-7").await;
    let terminal = Terminal::start(&service);
    terminal.pool_cli("top");
    terminal.until(&["Browsers 1", "leased 1 of 1", "acme job-7", "Waiters 0", "q quit"]);

    // A leased browser goes when it comes back.
    let first = browsers(&service).await;
    terminal.press("r");
    terminal.until(&["is retired", "acme job-7"]);
    terminal.press("x");
    terminal.until(&["end the lease of browser", "held by acme job-7", "y: yes"]);
    terminal.press("n");
    terminal.until(&["q quit", "acme job-7"]);
    terminal.press("x");
    terminal.until(&["y: yes"]);
    terminal.press("y");
    terminal.until(&["the lease of browser"]);
    assert_eq!(closed(&mut client).await.0, 1000);
    terminal.until_screen("another browser", |screen| {
        screen.contains("leased 0 of 1") && !screen.contains("job-7") && screen.contains("idle")
    });
    let second = browsers(&service).await;
    assert!(first.iter().all(|browser| !second.contains(browser)), "{first:?}, {second:?}");

    terminal.press("q");
    terminal.is_restored(0);
}

#[tokio::test]
async fn top_shows_waiters_and_drains_the_pool_after_a_yes() {
    let mut service = start(2);
    let clients = [
        service.connect("/?token=s3cret").await,
        service.connect("/?token=s3cret&trackingId=second").await,
    ];
    let waiting = service.connect("/?token=s3cret&priority=2");
    let terminal = Terminal::start(&service);
    let watching = async {
        tokio::task::spawn_blocking(move || {
            terminal.pool_cli("top");
            terminal.until(&["leased 2 of 2", "waiting 1 of", "Waiters 1", "1       2"]);
            terminal
        })
        .await
        .expect("it sees the waiter")
    };
    let terminal = tokio::select! {
        terminal = watching => terminal,
        _ = waiting => panic!("both browsers are leased"),
    };
    terminal.press("d");
    terminal.until(&["drain: give no new leases", "y: yes"]);
    terminal.press("y");
    terminal.until(&[", draining"]);
    drop(clients);
    assert!(service.wait(PATIENCE).success(), "{}", service.log());
    terminal.until(&["trying again"]);
    terminal.press("Escape");
    terminal.is_restored(0);
}

#[tokio::test]
async fn top_goes_on_when_the_pool_hangs_or_is_restarted_and_restores_the_terminal_on_a_signal() {
    let mut service = start(2);
    let terminal = Terminal::start(&service);
    terminal.pool_cli("top");
    terminal.until(&["Browsers 1", "idle"]);
    let here = |screen: &str| !screen.contains("trying again") && screen.contains("idle");
    service.signal(rustix::process::Signal::STOP);
    terminal.until(&["trying again: no message from the pool"]);
    service.signal(rustix::process::Signal::CONT);
    terminal.until_screen("the pool awake", here);
    service.signal(rustix::process::Signal::TERM);
    assert!(service.wait(PATIENCE).success(), "{}", service.log());
    terminal.until(&["trying again"]);
    service.restart();
    terminal.until_screen("the pool again", here);
    let pid = terminal.tmux(&["list-panes", "-F", "#{pane_pid}"]);
    let shell: i32 = pid.trim().parse().expect("a number");
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
    let top: i32 = children.expect("a linux").trim().parse().expect("one child");
    let top = rustix::process::Pid::from_raw(top).expect("it is not 0");
    rustix::process::kill_process(top, rustix::process::Signal::TERM).expect("it runs");
    terminal.is_restored(0);
}

#[tokio::test]
async fn top_without_a_terminal_says_what_to_use_instead() {
    let output = gateway_support::command().arg("top").output().expect("the binary is built");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("requires a terminal") && error.contains("status --watch"), "{error}");
    assert!(output.stdout.is_empty());
}

/// The numbers of the browsers that the pool has.
async fn browsers(service: &Service) -> Vec<u64> {
    let state = service.get("/api/state?token=s3cret").await.json();
    let browsers = state["browsers"].as_array().expect("a list").clone();
    browsers.iter().filter_map(|browser| browser["id"].as_u64()).collect()
}
