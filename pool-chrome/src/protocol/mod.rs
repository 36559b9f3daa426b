//! The Chrome DevTools Protocol, as described by the Chromium that this crate is tested with.
//!
//! No command returns it over a pipe, so it is kept here: the answer of Chromium 156 to `GET
//! /json/protocol`, the same in both engines, one domain per line. A test compares it with the
//! installed Chromium.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde::Deserialize;

/// The protocol as JSON, as Chromium serves it at `/json/protocol`.
pub const JSON: &str = include_str!("protocol.json");

#[derive(Deserialize)]
struct Protocol {
    domains: Vec<Domain>,
}

#[derive(Deserialize)]
struct Domain {
    domain: String,
    #[serde(default)]
    commands: Vec<Command>,
}

#[derive(Deserialize)]
struct Command {
    name: String,
}

/// Returns `true` if the protocol has a command with this name.
#[must_use]
pub fn has_command(method: &str) -> bool {
    static METHODS: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let protocol: Protocol =
            serde_json::from_str(JSON).expect("the file is JSON, a test shows");
        let methods = protocol.domains.into_iter().flat_map(|Domain { domain, commands }| {
            commands.into_iter().map(move |command| format!("{domain}.{}", command.name))
        });
        methods.collect()
    });
    METHODS.contains(method)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process_group};
    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::process::Command;
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn commands_are_known_by_their_whole_name() {
        for known in ["Target.getTargets", "Runtime.evaluate", "Page.navigate"] {
            assert!(has_command(known), "{known}");
        }
        for unknown in ["Target.targetCreated", "Page", "navigate", "Page.Navigate", "", "."] {
            assert!(!has_command(unknown), "{unknown}");
        }
    }

    /// Fails for a new Chromium: fetch its protocol then, and judge what is new.
    #[tokio::test]
    async fn it_is_the_protocol_of_the_installed_chromium() {
        let ours: Value = serde_json::from_str(JSON).unwrap();
        for executable in ["chromium-headless-shell", "chromium"] {
            let theirs = served_by(executable).await;
            assert!(theirs == ours, "{executable} has another protocol than protocol.json");
        }
    }

    async fn served_by(executable: &str) -> Value {
        let directory = tempfile::tempdir().unwrap();
        let mut chromium = Command::new(executable)
            .args([
                "--headless",
                "--no-sandbox",
                "--no-startup-window",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", directory.path().display()))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let group = Group(Pid::from_raw(chromium.id().unwrap().cast_signed()).unwrap());
        let file = directory.path().join("DevToolsActivePort");
        let served = async {
            let port = loop {
                let text = std::fs::read_to_string(&file).unwrap_or_default();
                if let Some((port, _)) = text.split_once('\n') {
                    break port.parse::<u16>().unwrap();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let ask = b"GET /json/protocol HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
            stream.write_all(ask).await.unwrap();
            let mut answer = Vec::new();
            // The connection stays open, so the body is complete as soon as it can be parsed.
            loop {
                assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "it hung up");
                let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
                    continue;
                };
                if let Ok(protocol) = serde_json::from_slice(&answer[head + 4..]) {
                    return protocol;
                }
            }
        };
        let served = timeout(Duration::from_secs(60), served).await.expect("it serves it");
        drop(group);
        chromium.wait().await.unwrap();
        served
    }

    /// Everything that an executable has started, which may be a script that starts Chromium.
    /// Dropping this ends it.
    struct Group(Pid);

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = kill_process_group(self.0, Signal::KILL);
        }
    }
}
