//! Checks that there is a Chromium and that it starts.

use std::time::{Duration, Instant};

use pool_chrome::ChromeError;
use pool_chrome::process::{self, Chromium, LaunchOptions, StateDir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::diagnosis::{Diagnosis, Verdict};
use crate::config::{Config, Engine, Sandbox};
use crate::exit::Failure;
use crate::pool::chrome_config;

/// The engine, the sandbox, and a launch.
pub(super) fn examine(config: &Config) -> Result<Vec<Diagnosis>, Failure> {
    let engine = engine(config);
    if engine.verdict == Verdict::Fail {
        return Ok(vec![engine]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::Builder::new().prefix("pool-cli-doctor-").tempdir()?;
    let state = StateDir::open(directory.path())?;
    Ok(vec![
        engine,
        runtime.block_on(sandbox(config, &state)),
        runtime.block_on(launch(config, &state)),
    ])
}

fn options(config: &Config, sandbox: process::Sandbox) -> LaunchOptions {
    chrome_config(config).launch_options().sandbox(sandbox)
}

fn engine(config: &Config) -> Diagnosis {
    let chrome = &config.chrome;
    // The sandbox is a line of its own.
    match options(config, process::Sandbox::Off).check() {
        Ok((path, process::Engine::Chromium))
            if chrome.engine == Engine::Auto && chrome.headless && chrome.args.is_empty() =>
        {
            Diagnosis::warn(
                "engine",
                format!("{}, but not the headless shell", path.display()),
                "it starts in a third of the time: apt install chromium-headless-shell, or set \
                 engine = \"chromium\"",
            )
        }
        Ok((path, _)) => Diagnosis::ok("engine", path.display().to_string()),
        Err(error) => Diagnosis::fail(
            "engine",
            error.to_string(),
            "apt install chromium-headless-shell chromium, or set `executable` in [chrome]",
        ),
    }
}

/// Tried rather than guessed: what forbids a sandbox shows in no one place.
async fn sandbox(config: &Config, state: &StateDir) -> Diagnosis {
    if config.chrome.sandbox == Sandbox::Off {
        return Diagnosis::warn(
            "sandbox",
            "turned off in the configuration",
            "leave `sandbox` out: \"auto\" turns it off only where it cannot work",
        );
    }
    match answer(options(config, process::Sandbox::On), state).await {
        Ok(_) => Diagnosis::ok("sandbox", "works"),
        Err(error) => {
            let found = match &error {
                Failed::Chrome(ChromeError::NoSandbox { reason }) => reason.clone(),
                other => other.to_string(),
            };
            let remedy = "run as a user that is not root, with user namespaces allowed; let only \
                          pages that you trust into browsers without a sandbox";
            match config.chrome.sandbox {
                Sandbox::On => Diagnosis::fail("sandbox", found, remedy),
                Sandbox::Auto | Sandbox::Off => {
                    Diagnosis::warn("sandbox", format!("off: {found}"), remedy)
                }
            }
        }
    }
}

async fn launch(config: &Config, state: &StateDir) -> Diagnosis {
    match answer(chrome_config(config).launch_options(), state).await {
        Ok((version, took)) => {
            Diagnosis::ok("launch", format!("{version} answers after {} ms", took.as_millis()))
        }
        Err(error) => Diagnosis::fail(
            "launch",
            error.to_string(),
            "see what is missing: ldd $(readlink -f $(which chromium)) | grep 'not found'",
        ),
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Chrome(#[from] ChromeError),
    #[error("the pipe broke: {0}")]
    Pipe(#[from] std::io::Error),
    #[error("it answered something else than its version")]
    Answer,
}

/// Launches a browser, asks for its version, and closes it.
async fn answer(options: LaunchOptions, state: &StateDir) -> Result<(String, Duration), Failed> {
    let timeout = options.launch_timeout;
    let began = Instant::now();
    let (chromium, mut pipe) = Chromium::launch(options, state).await?;
    let asked = async {
        pipe.writer.write_all(b"{\"id\":1,\"method\":\"Browser.getVersion\"}\0").await?;
        let mut message = Vec::new();
        loop {
            match pipe.reader.read_u8().await? {
                0 => break Ok::<_, std::io::Error>(message),
                byte => message.push(byte),
            }
        }
    };
    let answered = tokio::time::timeout(timeout, asked).await;
    let took = began.elapsed();
    let failed = chromium.not_ready();
    drop(pipe);
    chromium.close(Duration::from_secs(2)).await;
    let Ok(Ok(message)) = answered else { return Err(failed.into()) };
    let message: serde_json::Value =
        serde_json::from_slice(&message).map_err(|_| Failed::Answer)?;
    let version = message["result"]["product"].as_str().ok_or(Failed::Answer)?;
    Ok((version.to_owned(), took))
}
