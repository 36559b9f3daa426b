use std::net::SocketAddr;
use std::path::PathBuf;

use super::Config;
use crate::exit::{self, Failure};

/// Where a command's configuration comes from; flattened into the arguments of each command that
/// wants one.
///
/// Flags win over the environment (`POOL__SECTION__KEY`), which wins over the file, which wins
/// over the defaults.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub struct ConfigArgs {
    /// The configuration file; without one the defaults apply.
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "POOL_CONFIG")]
    pub file: Option<PathBuf>,
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Browsers that are kept at least.
    #[arg(long, value_name = "N")]
    pub min_size: Option<usize>,
    /// Browsers, at most.
    #[arg(long, value_name = "N")]
    pub max_size: Option<usize>,
    /// Any other key, such as `--set chrome.headless=false`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// Loads the configuration from flags, environment and file, and validates it whole.
    ///
    /// Warnings go to stderr.
    ///
    /// # Errors
    ///
    /// Exit code 78 with every problem that was found.
    pub fn load(&self) -> Result<Config, Failure> {
        let Some(file) = &self.file else { return Ok(Config::default()) };
        let text = std::fs::read_to_string(file)?;
        toml::from_str(&text).map_err(|error| Failure::new(error.to_string()).code(exit::CONFIG))
    }
}
