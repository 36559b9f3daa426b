//! Drives chromiumoxide, one JSON line a step.
//!
//! ```text
//! cargo run -p browser-pool-tests --example chromiumoxide-client -- CDP_URL SITE_URL [--only step,step]
//! ```
//!
//! Through the pool and on a Chromium of its own the results are the same.

mod run;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chromiumoxide::Browser;
use chromiumoxide::handler::HandlerConfig;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use run::{Failure, Outcome, Run};
use steps::STEPS;

/// What `work` comes to, if it does within `patience`.
async fn in_time<T, E: Into<Failure>>(
    patience: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    let done = timeout(patience, work).await.map_err(|_| "it took too long")?;
    done.map_err(Into::into)
}

/// Prints how a step went; whether it went well.
fn tell(step: &str, begun: Instant, outcome: &Outcome) -> bool {
    let ms = begun.elapsed().as_millis();
    let step = step.replace('_', "-");
    println!(
        "{}",
        match outcome {
            Ok(result) => json!({ "step": step, "ok": true, "ms": ms, "result": result }),
            Err(error) =>
                json!({ "step": step, "ok": false, "ms": ms, "error": error.to_string() }),
        }
    );
    outcome.is_ok()
}

const USAGE: &str =
    "chromiumoxide-client CDP_URL SITE_URL [--only step,step] [--dir DIR] [--timeout MS]";

/// What the command line asks for.
struct Parameters {
    cdp: String,
    site: String,
    only: Option<String>,
    folder: PathBuf,
    patience: Duration,
}

fn parameters() -> Option<Parameters> {
    let (mut places, mut only, mut folder) = (Vec::new(), None, std::env::temp_dir());
    let mut patience = 20_000;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--only" => only = Some(arguments.next()?),
            "--dir" => folder = arguments.next()?.into(),
            "--timeout" => patience = arguments.next()?.parse().ok()?,
            _ => places.push(argument),
        }
    }
    let [cdp, site] = places.try_into().ok()?;
    Some(Parameters { cdp, site, only, folder, patience: Duration::from_millis(patience) })
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(Parameters { cdp, site, only, folder, patience }) = parameters() else {
        eprintln!("usage: {USAGE}");
        return ExitCode::from(2);
    };
    let begun = Instant::now();
    let config = HandlerConfig { request_timeout: patience, ..HandlerConfig::default() };
    let (browser, mut handler) =
        match in_time(patience, Browser::connect_with_config(cdp, config)).await {
            Ok(connected) => connected,
            Err(error) => {
                tell("connect", begun, &Err(error));
                return ExitCode::FAILURE;
            }
        };
    tell("connect", begun, &Ok(Value::Null));
    let handling = tokio::spawn(async move { while handler.next().await.is_some() {} });
    let mut run = Run { browser, site, folder };
    let mut good = true;
    let wanted = |name: &str| {
        only.as_deref().is_none_or(|only| only.split(',').any(|one| one.replace('-', "_") == name))
    };
    for (name, step) in STEPS.iter().filter(|(name, _)| wanted(name)) {
        let begun = Instant::now();
        let outcome = in_time(patience, step(&run)).await;
        good &= tell(name, begun, &outcome.map(|result| run.stable(&result)));
    }
    let begun = Instant::now();
    // A browser that has died answers nothing.
    let closed = in_time(patience, run.browser.close()).await;
    good &= tell("close", begun, &closed.map(|_| Value::Null));
    handling.abort();
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
