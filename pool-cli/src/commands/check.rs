//! `pool-cli check`.

use crate::config::ConfigArgs;
use crate::exit::Failure;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Loads the configuration and starts nothing.
///
/// # Errors
///
/// Exit code 78 with every problem that was found.
pub fn run(args: &Args) -> Result<(), Failure> {
    args.config.load()?;
    Ok(())
}
