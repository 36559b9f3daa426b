//! Checks that there is a Chromium and that it starts.

use std::time::{Duration, Instant};

use pool_chrome::ChromeError;
use pool_chrome::process::{self, Chromium, LaunchOptions, StateDir, find_executable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::diagnosis::Diagnosis;
use crate::config::{ChromeConfig, Engine, Sandbox};
use crate::exit::Failure;

/// The engine, the sandbox, and a launch.
pub(super) fn examine(config: &ChromeConfig) -> Result<Vec<Diagnosis>, Failure> {
    let engine = engine(config);
    if find(config).is_err() {
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

fn find(config: &ChromeConfig) -> Result<(std::path::PathBuf, process::Engine), ChromeError> {
    let wanted = match config.engine {
        Engine::Auto => process::Engine::Auto,
        Engine::Shell => process::Engine::Shell,
        Engine::Chromium => process::Engine::Chromium,
    };
    find_executable(wanted, config.executable.as_deref(), config.headless)
}

fn engine(config: &ChromeConfig) -> Diagnosis {
    match find(config) {
        Ok((path, process::Engine::Chromium))
            if config.engine == Engine::Auto && config.headless =>
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

fn options(config: &ChromeConfig, sandbox: process::Sandbox) -> LaunchOptions {
    let mut options = LaunchOptions::new()
        .headless(config.headless)
        .sandbox(sandbox)
        .args(&config.args)
        .launch_timeout(config.launch_timeout);
    if let Ok((path, engine)) = find(config) {
        options = options.executable(path).engine(engine);
    }
    options
}

/// Tried rather than guessed: what forbids a sandbox shows in no one place.
async fn sandbox(config: &ChromeConfig, state: &StateDir) -> Diagnosis {
    if config.sandbox == Sandbox::Off {
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
            match config.sandbox {
                Sandbox::On => Diagnosis::fail("sandbox", found, remedy),
                _ => Diagnosis::warn("sandbox", format!("off: {found}"), remedy),
            }
        }
    }
}

async fn launch(config: &ChromeConfig, state: &StateDir) -> Diagnosis {
    let sandbox = match config.sandbox {
        Sandbox::On => process::Sandbox::On,
        Sandbox::Off => process::Sandbox::Off,
        Sandbox::Auto => process::Sandbox::Auto,
    };
    match answer(options(config, sandbox), state).await {
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
