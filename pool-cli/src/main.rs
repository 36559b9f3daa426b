//! The `pool-cli` command.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Allocator that gives memory back by itself. That of glibc keeps about 50 MiB after many messages
/// of a few megabytes.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    pool_cli::cli::main()
}
