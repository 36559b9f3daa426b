//! The `pool-cli` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    pool_cli::cli::main()
}
