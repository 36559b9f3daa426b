//! `pool-cli check`.

use std::path::PathBuf;

use serde_json::json;

use crate::config::{ConfigArgs, Finding, Findings, Loaded};
use crate::exit::{self, Failure};
use crate::stdout;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file to check, instead of that of --config; without either, the environment and the
    /// flags alone.
    #[arg(value_name = "FILE")]
    checked: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON: whether it is valid, and a list of findings with place, message and hint.
    #[arg(long)]
    json: bool,
}

/// Loads the configuration and looks at the machine as `run` would, and starts nothing.
///
/// # Errors
///
/// Exit code 78 with everything that is wrong.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut config = args.config.clone();
    config.file = args.checked.clone().or(config.file);
    let result = config.loader().for_this_machine().load();
    if args.json {
        return print_json(result);
    }
    for warning in result?.warnings {
        anstream::eprintln!("{warning:#}");
    }
    let what = config.file.as_ref().map_or("environment".into(), |file| file.to_string_lossy());
    anstream::eprintln!("{what}: ok");
    Ok(())
}

fn print_json(result: Result<Loaded, Findings>) -> Result<(), Failure> {
    let is_valid = result.is_ok();
    let findings: Vec<Finding> = match result {
        Ok(loaded) => loaded.warnings,
        Err(findings) => findings.iter().cloned().collect(),
    };
    let answer = json!({ "valid": is_valid, "findings": findings });
    stdout::print(&format!("{answer:#}\n"))?;
    if is_valid { Ok(()) } else { Err(Failure::silent(exit::CONFIG)) }
}
