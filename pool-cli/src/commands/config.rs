//! `pool-cli config show`, `config schema`, `check` and `init`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use serde_json::json;

use crate::config::schema::text as schema_text;
use crate::config::template::Template;
use crate::config::{ConfigArgs, Finding, Findings, Loaded, Place, Setting};
use crate::exit::{self, Failure};
use crate::stdout;

/// Subcommands about the configuration.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// Print the effective values and where each comes from; secrets are hidden.
    Show(ShowArgs),
    /// Print the JSON schema of the configuration, for editors.
    Schema,
}

/// Runs one of the subcommands.
///
/// # Errors
///
/// Theirs.
pub fn run(args: &Args) -> Result<(), Failure> {
    match args {
        Args::Show(args) => show(args),
        Args::Schema => schema(),
    }
}

/// Arguments of `config show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Leave out keys that have their default value.
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
pub fn show(args: &ShowArgs) -> Result<(), Failure> {
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

/// Returns TOML in which a comment on each line says where the value comes from.
fn table(settings: &[&Setting]) -> Result<String, Failure> {
    let header = AnsiColor::Blue.on_default().bold();
    let dim = Style::new().dimmed();
    let changed = AnsiColor::Green.on_default();
    let lines: Vec<String> = settings.iter().map(|setting| setting.line()).collect();
    // Long values stick out rather than push all the comments to the right.
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

/// Prints the JSON schema of the configuration, for editors.
///
/// # Errors
///
/// Stdout cannot be written.
pub fn schema() -> Result<(), Failure> {
    stdout::print(&schema_text())
}

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
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
pub fn check(args: &CheckArgs) -> Result<(), Failure> {
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

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
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
/// The file already exists, or cannot be written.
pub fn init(args: &InitArgs) -> Result<(), Failure> {
    let text = Template::new().render();
    let Some(path) = &args.out else {
        return stdout::print(&text);
    };
    let shown = path.display();
    let opened = if args.force { File::create(path) } else { File::create_new(path) };
    let mut file = opened.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new(format!("{shown} already exists"))
            .hint(format!("overwrite it: pool-cli init --force --out {shown}")),
        _ => Failure::new(format!("cannot write {shown}: {error}")),
    })?;
    file.write_all(text.as_bytes())?;
    anstream::eprintln!("wrote {shown}; next: pool-cli run --config {shown}");
    Ok(())
}
