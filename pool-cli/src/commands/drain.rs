//! `pool-cli drain`.

use std::time::Duration;

use serde_json::json;

use crate::client::ClientArgs;
use crate::exit::Failure;

/// Arguments of `drain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pool: ClientArgs,
}

/// Makes a pool refuse new leases, let those that are held finish, and end, as SIGTERM does.
///
/// # Errors
///
/// If no pool answers, or it refuses.
pub fn run(args: &Args) -> Result<(), Failure> {
    let client = args.pool.client()?;
    client.post::<()>("/api/drain", &json!({}), Duration::from_secs(10))?;
    anstream::eprintln!("the pool drains: it ends when its last lease does, or its grace is over");
    Ok(())
}
