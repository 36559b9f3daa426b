//! `pool-cli man`.

use std::path::PathBuf;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::exit::Failure;

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory to write to; it is created if it does not exist.
    #[arg(value_name = "DIR")]
    out: PathBuf,
}

/// Writes a manual page for `pool-cli` and for each of its commands.
///
/// # Errors
///
/// The directory cannot be written.
pub fn run(args: &Args) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.out)?;
    clap_mangen::generate_to(Cli::command(), &args.out)?;
    Ok(())
}
