use std::path::PathBuf;

use super::{Config, Loaded, Loader};
use crate::exit::Failure;

/// What stands above these flags in the help of a command.
const HEADING: &str = "Configuration";

/// Where a command's configuration comes from; flattened into the arguments of each command that
/// wants one.
///
/// Flags win over the environment (`POOL__SECTION__KEY`), which wins over the file, which wins
/// over the defaults.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file; without one the defaults apply.
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "POOL_CONFIG", help_heading = HEADING)]
    pub file: Option<PathBuf>,
    /// Address and port to listen on [gateway.listen].
    #[arg(long, value_name = "ADDRESS", help_heading = HEADING)]
    pub listen: Option<String>,
    /// Browsers that are kept at least [pool.min_size].
    #[arg(long, value_name = "N", help_heading = HEADING)]
    pub min_size: Option<String>,
    /// Browsers, at most [pool.max_size].
    #[arg(long, value_name = "N", help_heading = HEADING)]
    pub max_size: Option<String>,
    /// Kind of lease: exclusive or shared [pool.lease].
    #[arg(long, value_name = "KIND", help_heading = HEADING)]
    pub lease: Option<String>,
    /// Which Chromium: auto, shell or chromium [chrome.engine].
    #[arg(long, value_name = "ENGINE", help_heading = HEADING)]
    pub engine: Option<String>,
    /// Any key, such as --set chrome.headless=false.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = assignment, help_heading = HEADING)]
    pub set: Vec<(String, String)>,
}

impl ConfigArgs {
    /// A loader of the file, the environment of the process, and these flags.
    ///
    /// A command that starts a pool, or says whether one could start, asks it to look at
    /// [the machine](Loader::for_this_machine) as well.
    pub fn loader(&self) -> Loader {
        let mut loader = Loader::new().environment();
        if let Some(file) = &self.file {
            loader = loader.file(file);
        }
        for (flag, path, value) in [
            ("--listen", "gateway.listen", &self.listen),
            ("--min-size", "pool.min_size", &self.min_size),
            ("--max-size", "pool.max_size", &self.max_size),
            ("--lease", "pool.lease", &self.lease),
            ("--engine", "chrome.engine", &self.engine),
        ] {
            if let Some(value) = value {
                loader = loader.flag(flag, path, value);
            }
        }
        for (path, value) in &self.set {
            loader = loader.flag(format!("--set {path}"), path, value);
        }
        loader
    }

    /// Loads and validates the configuration, and prints warnings to stderr.
    ///
    /// # Errors
    ///
    /// Exit code 78 with everything that is wrong.
    pub fn load(&self) -> Result<Config, Failure> {
        let Loaded { config, warnings, .. } = self.loader().load()?;
        for warning in &warnings {
            anstream::eprintln!("{warning:#}");
        }
        Ok(config)
    }
}

fn assignment(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("write it as section.key=value")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
