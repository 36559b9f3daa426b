//! Data for stdout.

use std::io::{ErrorKind, Write};

use crate::exit::Failure;

/// Writes to stdout, without colours where it is not a terminal or `NO_COLOR` is set.
///
/// A reader that has seen enough, as in `pool-cli init | head`, is no error.
///
/// # Errors
///
/// Stdout cannot be written.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
