//! `pool-cli doctor`.

mod chromium;
mod diagnosis;
mod machine;
mod place;

use crate::config::{Config, ConfigArgs};
use crate::exit::{self, Failure};
use crate::stdout;

use diagnosis::{Diagnosis, Verdict};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON: whether all is well, and a list of checks with verdict, finding and remedy.
    #[arg(long)]
    json: bool,
}

/// Looks at everything that a pool needs of its machine, and says what to do about what is wrong.
///
/// A browser is really launched, in a directory of its own, and asked for its version.
///
/// # Errors
///
/// Exit code 1 when something would keep the pool from working.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (config, configuration) = configuration(&args.config);
    let mut diagnoses = vec![configuration];
    diagnoses.extend(chromium::examine(&config)?);
    diagnoses.push(machine::shared_memory(&config));
    diagnoses.push(machine::memory(&config));
    diagnoses.push(machine::open_files(&config));
    diagnoses.push(machine::processes(&config));
    diagnoses.push(machine::limits(&config));
    diagnoses.push(machine::fonts());
    diagnoses.push(place::state_dir(&config.pool.state_dir));
    diagnoses.push(place::port(config.gateway.listen));

    let is_well = diagnoses.iter().all(|diagnosis| diagnosis.verdict != Verdict::Fail);
    if args.json {
        let answer = serde_json::json!({ "ok": is_well, "checks": diagnoses });
        stdout::print(&format!("{answer:#}\n"))?;
    } else {
        let lines: String = diagnoses.iter().map(|diagnosis| format!("{diagnosis:#}")).collect();
        stdout::print(&lines)?;
    }
    if is_well { Ok(()) } else { Err(Failure::silent(exit::FAILURE)) }
}

/// The configuration to look with: the defaults where it cannot be used.
fn configuration(args: &ConfigArgs) -> (Config, Diagnosis) {
    let file = args.file.as_ref().map(|file| file.display().to_string());
    let name = file.clone().unwrap_or_else(|| "no file: the defaults and the environment".into());
    match args.loader().load() {
        Ok(loaded) if loaded.warnings.is_empty() => {
            (loaded.config, Diagnosis::ok("configuration", name))
        }
        Ok(loaded) => {
            let found = format!("{name}: {} warnings", loaded.warnings.len());
            let remedy = format!("see them: pool-cli check {}", file.unwrap_or_default());
            (loaded.config, Diagnosis::warn("configuration", found, remedy.trim_end()))
        }
        Err(findings) => {
            let found =
                format!("{name}: {} findings; the rest is with defaults", findings.iter().len());
            let remedy = format!("see them: pool-cli check {}", file.unwrap_or_default());
            (Config::default(), Diagnosis::fail("configuration", found, remedy.trim_end()))
        }
    }
}
