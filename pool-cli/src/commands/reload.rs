//! `pool-cli reload`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::client::ClientArgs;
use crate::exit::Failure;
use crate::stdout;

/// Arguments of `reload`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pool: ClientArgs,
}

#[derive(Deserialize)]
struct Reloaded {
    changed: Vec<String>,
    needs_restart: Vec<String>,
}

/// Makes a pool read its configuration again, as SIGHUP does, and says what came of it.
///
/// # Errors
///
/// The mistakes in the new configuration; the pool then goes on with the old one.
pub fn run(args: &Args) -> Result<(), Failure> {
    let client = args.pool.client()?;
    let reloaded: Option<Reloaded> =
        client.post("/api/reload", &json!({}), Duration::from_secs(30))?;
    let Some(Reloaded { changed, needs_restart }) = reloaded else { return Ok(()) };
    let mut text = String::new();
    for (what, keys) in [("changed", &changed), ("needs a restart", &needs_restart)] {
        for key in keys {
            text.push_str(&format!("{what}: {key}\n"));
        }
    }
    if text.is_empty() {
        text.push_str("nothing has changed\n");
    }
    stdout::print(&text)
}
