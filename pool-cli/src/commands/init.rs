//! `pool-cli init`.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use crate::config::template::Template;
use crate::exit::Failure;
use crate::stdout;

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write to this file instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Overwrite an existing file.
    #[arg(long, requires = "out")]
    force: bool,
}

/// Writes a configuration file in which every key is explained and none is set.
///
/// # Errors
///
/// The file is there already, or cannot be written.
pub fn run(args: &Args) -> Result<(), Failure> {
    let text = Template::new().render();
    let Some(path) = &args.out else {
        return stdout::print(&text);
    };
    let shown = path.display();
    let opened = if args.force { File::create(path) } else { File::create_new(path) };
    let mut file = opened.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new(format!("{shown} is there already"))
            .hint(format!("overwrite it: pool-cli init --force --out {shown}")),
        _ => Failure::new(format!("cannot write {shown}: {error}")),
    })?;
    file.write_all(text.as_bytes())?;
    anstream::eprintln!("wrote {shown}; next: pool-cli run --config {shown}");
    Ok(())
}
