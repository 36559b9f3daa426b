//! `pool-cli config`.

use crate::commands::{config_schema, config_show};
use crate::exit::Failure;

/// Subcommands about the configuration.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// Print the effective values and where each comes from; secrets are hidden.
    Show(config_show::Args),
    /// Print the JSON schema of the configuration, for editors.
    Schema,
}

/// Runs one of the subcommands.
///
/// # Errors
///
/// Theirs.
pub fn run(args: &Args) -> Result<(), Failure> {
    match args {
        Args::Show(args) => config_show::run(args),
        Args::Schema => config_schema::run(),
    }
}
