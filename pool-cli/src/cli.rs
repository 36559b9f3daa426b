//! The command line: one variant for each command, whose arguments and code are in
//! [`commands`].

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands;
use crate::exit::Failure;

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
    /// Run a command with a browser of its own, whose address is in CDP_URL.
    Exec(commands::exec::Args),
    /// Show the status of a running pool.
    Status(commands::status::Args),
    /// Show a running pool live, with keys to retire browsers, end leases and drain.
    Top(commands::top::Args),
    /// List the leases of a running pool, or end some of them.
    #[command(subcommand)]
    Lease(commands::lease::Args),
    /// Change the number of browsers of a running pool.
    Resize(commands::resize::Args),
    /// Reload the configuration of a running pool.
    Reload(commands::reload::Args),
    /// Let a running pool finish its leases and end.
    Drain(commands::drain::Args),
    /// Visit many URLs, each in a virtual browser of its own.
    Visit(Box<commands::visit::Args>),
    /// Write the HTML of a page.
    Content(Box<commands::work::ContentArgs>),
    /// Write a picture of a page.
    Screenshot(Box<commands::work::ScreenshotArgs>),
    /// Write a PDF of a page.
    Pdf(Box<commands::work::PdfArgs>),
    /// Write what stands in some elements of a page, as JSON.
    Scrape(Box<commands::work::ScrapeArgs>),
    /// Measure the cost of a lease beside that of launching a Chromium for each client.
    Bench(commands::bench::Args),
    /// Check a configuration, and suggest what to write instead of mistakes.
    Check(commands::check::Args),
    /// Show the effective configuration or its schema.
    #[command(subcommand)]
    Config(commands::config::Args),
    /// Check that the machine has what a pool requires, and suggest remedies.
    Doctor(commands::doctor::Args),
    /// Write a configuration file in which every key is explained.
    Init(commands::init::Args),
    /// Print a shell completion script.
    Completions(commands::completions::Args),
    /// Write manual pages to a directory.
    Man(commands::man::Args),
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
            Self::Lease(args) => commands::lease::run(&args),
            Self::Resize(args) => commands::resize::run(&args),
            Self::Reload(args) => commands::reload::run(&args),
            Self::Drain(args) => commands::drain::run(&args),
            Self::Visit(args) => commands::visit::run(&args),
            Self::Content(args) => commands::work::content(&args),
            Self::Screenshot(args) => commands::work::screenshot(&args),
            Self::Pdf(args) => commands::work::pdf(&args),
            Self::Scrape(args) => commands::work::scrape(&args),
            Self::Bench(args) => commands::bench::run(&args),
            Self::Check(args) => commands::check::run(&args),
            Self::Config(args) => commands::config::run(&args),
            Self::Doctor(args) => commands::doctor::run(&args),
            Self::Init(args) => commands::init::run(&args),
            Self::Man(args) => commands::man::run(&args),
            Self::Completions(args) => commands::completions::run(&args),
        }
    }
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
