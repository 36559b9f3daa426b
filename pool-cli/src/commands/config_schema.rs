//! `pool-cli config schema`.

use crate::config::schema;
use crate::exit::Failure;
use crate::stdout;

/// Prints the JSON schema of the configuration, for editors.
///
/// # Errors
///
/// Stdout cannot be written.
pub fn run() -> Result<(), Failure> {
    stdout::print(&schema::text())
}
