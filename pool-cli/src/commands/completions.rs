//! `pool-cli completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Failure;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell to write for.
    shell: Shell,
}

/// Prints the script to stdout.
///
/// # Errors
///
/// None so far; the signature is that of every command.
pub fn run(args: &Args) -> Result<(), Failure> {
    clap_complete::generate(args.shell, &mut Cli::command(), "pool-cli", &mut std::io::stdout());
    Ok(())
}
