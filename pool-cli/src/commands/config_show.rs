//! `pool-cli config show`.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use crate::config::{ConfigArgs, Place, Setting};
use crate::exit::Failure;
use crate::stdout;

/// Arguments of `config show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Leave out keys that have their default.
    #[arg(long)]
    changed: bool,
    /// Print JSON: a list of objects with section, key, value and origin.
    #[arg(long)]
    json: bool,
}

/// Prints the effective values and where each comes from; secrets are hidden.
///
/// # Errors
///
/// Exit code 78 with everything that is wrong with the configuration.
pub fn run(args: &Args) -> Result<(), Failure> {
    let loaded = args.config.loader().load()?;
    let settings: Vec<&Setting> = loaded
        .settings
        .iter()
        .filter(|setting| !args.changed || setting.origin != Place::Default)
        .collect();
    if args.json {
        stdout::print(&format!("{:#}\n", serde_json::to_value(&settings)?))
    } else {
        stdout::print(&table(&settings)?)
    }
}

/// TOML in which a comment on each line says where the value comes from.
fn table(settings: &[&Setting]) -> Result<String, Failure> {
    let header = AnsiColor::Blue.on_default().bold();
    let dim = Style::new().dimmed();
    let changed = AnsiColor::Green.on_default();
    let lines: Vec<String> = settings.iter().map(|setting| setting.line()).collect();
    // Long values go over the edge rather than push all the others there.
    let width = lines.iter().map(|line| line.chars().count()).filter(|width| *width <= 48).max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    let mut section = "";
    for (setting, line) in settings.iter().zip(&lines) {
        if setting.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = &setting.section;
            writeln!(text, "{gap}{header}[{section}]{header:#}")?;
        }
        let style = if setting.origin == Place::Default { dim } else { changed };
        writeln!(text, "{line:width$}  {style}# {}{style:#}", setting.origin)?;
    }
    Ok(text)
}
