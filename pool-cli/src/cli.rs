//! The command line: one variant for each command, whose arguments and code are in
//! [`commands`].

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::exit::Failure;
use crate::{commands, stdout};

/// A warm pool of real Chromium browsers behind one WebSocket.
#[derive(Debug, Parser)]
#[command(name = "pool-cli", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. To add one: a variant here, an arm in [`Command::run`], and its module in
/// [`commands`].
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum Command {
    /// Serve browsers to clients until a signal ends the pool.
    Run(commands::run::Args),
    /// Run a command with its own browser, whose address is in CDP_URL.
    Exec(commands::exec::Args),
    /// Show the status of a running pool.
    Status(commands::status::Args),
    /// Show a running pool live, with keys to retire browsers, end leases and drain.
    Top(commands::top::Args),
    /// List the leases of a running pool, or end some of them.
    #[command(subcommand)]
    Lease(commands::operate::LeaseArgs),
    /// Change the number of browsers of a running pool.
    Resize(commands::operate::ResizeArgs),
    /// Reload the configuration of a running pool.
    Reload(commands::operate::ReloadArgs),
    /// Drain a running pool, which then ends, or a node of its fleet, which keeps running.
    Drain(commands::operate::DrainArgs),
    /// Let a drained node of a fleet offer its browsers again.
    Undrain(commands::operate::UndrainArgs),
    /// Change a profile that travels between the nodes of a fleet.
    #[command(subcommand)]
    Profile(commands::operate::ProfileArgs),
    /// Visit many URLs, each in its own virtual browser.
    Visit(Box<commands::visit::Args>),
    /// Write the HTML of a page.
    Content(Box<commands::work::ContentArgs>),
    /// Write a screenshot of a page.
    Screenshot(Box<commands::work::ScreenshotArgs>),
    /// Write a PDF of a page.
    Pdf(Box<commands::work::PdfArgs>),
    /// Write the contents of elements of a page, as JSON.
    Scrape(Box<commands::work::ScrapeArgs>),
    /// Measure the cost of a lease against that of launching a Chromium for each client.
    Bench(commands::bench::Args),
    /// Check a configuration, and suggest corrections.
    Check(commands::config::CheckArgs),
    /// Show the effective configuration or its schema.
    #[command(subcommand)]
    Config(commands::config::Args),
    /// Check that the machine has what a pool requires, and suggest remedies.
    Doctor(commands::doctor::Args),
    /// Write a configuration file in which every key is explained.
    Init(commands::config::InitArgs),
    /// Print a shell completion script.
    Completions(CompletionsArgs),
    /// Write manual pages to a directory.
    Man(ManArgs),
}

impl Command {
    /// Runs the command to its end.
    ///
    /// # Errors
    ///
    /// The message to print, and the exit code.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Run(args) => commands::run::run(args),
            Self::Exec(args) => commands::exec::run(&args),
            Self::Status(args) => commands::status::run(&args),
            Self::Top(args) => commands::top::run(&args),
            Self::Lease(args) => commands::operate::lease(&args),
            Self::Resize(args) => commands::operate::resize(&args),
            Self::Reload(args) => commands::operate::reload(&args),
            Self::Drain(args) => commands::operate::drain(&args),
            Self::Undrain(args) => commands::operate::undrain(&args),
            Self::Profile(args) => commands::operate::profile(&args),
            Self::Visit(args) => commands::visit::run(&args),
            Self::Content(args) => commands::work::content(&args),
            Self::Screenshot(args) => commands::work::screenshot(&args),
            Self::Pdf(args) => commands::work::pdf(&args),
            Self::Scrape(args) => commands::work::scrape(&args),
            Self::Bench(args) => commands::bench::run(&args),
            Self::Check(args) => commands::config::check(&args),
            Self::Config(args) => commands::config::run(&args),
            Self::Doctor(args) => commands::doctor::run(&args),
            Self::Init(args) => commands::config::init(&args),
            Self::Man(args) => man(&args),
            Self::Completions(args) => completions(&args),
        }
    }
}

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell to write for.
    shell: Shell,
}

/// Prints the script to stdout.
///
/// # Errors
///
/// Stdout cannot be written.
fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pool-cli", &mut script);
    stdout::print(&String::from_utf8_lossy(&script))
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Directory to write to; it is created if it does not exist.
    #[arg(value_name = "DIR")]
    out: PathBuf,
}

/// Writes a manual page for `pool-cli` and for each of its commands.
///
/// # Errors
///
/// The directory cannot be written.
fn man(args: &ManArgs) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.out)?;
    clap_mangen::generate_to(Cli::command(), &args.out)?;
    Ok(())
}

/// Parses the command line and runs the command; the whole of `main`.
#[must_use]
pub fn main() -> ExitCode {
    if pool_chrome::process::run_as_reaper() {
        return ExitCode::SUCCESS;
    }
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_has_below_a_heading_only_what_is_about_it() {
        let cli = Cli::command();
        for (command, option, heading) in [
            ("screenshot", "full_page", None),
            ("screenshot", "url", Some("Pool")),
            ("scrape", "selectors", None),
            ("exec", "command", None),
            ("exec", "priority", Some("Browser")),
            ("exec", "token", Some("Pool")),
            ("exec", "lease", Some("Configuration")),
        ] {
            let of = cli.find_subcommand(command).expect("there is such a command");
            let option = of.get_arguments().find(|arg| arg.get_id() == option);
            let option = option.expect("it has such an option");
            assert_eq!(option.get_help_heading(), heading, "{command}: {option}");
        }
    }

    #[test]
    fn a_profile_is_made_new_by_name_and_its_first_state_unless_told() {
        let parse = |arguments: &[&str]| {
            let line = ["pool-cli", "profile", "make-new"].iter().chain(arguments);
            Cli::try_parse_from(line).map(|cli| format!("{:?}", cli.command))
        };
        let first = parse(&["work"]).expect("a name is enough");
        assert!(first.contains("profile: \"work\", instance: 0"), "{first}");
        let third = parse(&["work", "--instance", "2"]).expect("it has such an option");
        assert!(third.contains("profile: \"work\", instance: 2"), "{third}");
        for wrong in [&[][..], &["work", "home"], &["work", "--instance", "first"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
