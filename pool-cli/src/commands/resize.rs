//! `pool-cli resize`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::ClientArgs;
use crate::exit::Failure;
use crate::stdout;

/// Arguments of `resize`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Minimum number of browsers without a profile or region; by default unchanged.
    #[arg(long, value_name = "N", required_unless_present = "max_size")]
    min_size: Option<usize>,
    /// Maximum number of browsers; by default unchanged.
    #[arg(long, value_name = "N")]
    max_size: Option<usize>,
    #[command(flatten)]
    pool: ClientArgs,
}

#[derive(Serialize)]
struct Wanted {
    #[serde(skip_serializing_if = "Option::is_none")]
    min_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_size: Option<usize>,
}

#[derive(Deserialize)]
struct Sizes {
    min_size: usize,
    max_size: usize,
}

/// Changes how many browsers a pool has, until it is restarted or reloaded. Leases go on.
///
/// # Errors
///
/// If no pool answers, or the sizes contradict each other.
pub fn run(args: &Args) -> Result<(), Failure> {
    let wanted = Wanted { min_size: args.min_size, max_size: args.max_size };
    let client = args.pool.client()?;
    let sizes: Option<Sizes> = client.post("/api/resize", &wanted, Duration::from_secs(10))?;
    match sizes {
        Some(sizes) => {
            stdout::print(&format!("{} to {} browsers\n", sizes.min_size, sizes.max_size))
        }
        None => Ok(()),
    }
}
