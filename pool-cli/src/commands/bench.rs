//! `pool-cli bench`.

use std::time::Duration;

use crate::bench::{Options, Run};
use crate::client::RunningPoolArgs;
use crate::config::ConfigArgs;
use crate::exit::{self, Failure, Signals};
use crate::{logging, stdout};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Sessions of the pool alternate with sessions for which a Chromium is launched; both use the same \
raw client and the same engine with the same flags. The steps:

  connect     from nothing to the first answer of the browser
  first page  from nothing to the first answer of the page that a lease begins with, including the connection
  new page    from nothing to the first answer of a page that the client opens at once
  goto        from the first page until a small page on loopback is loaded
  release     from closing the connection until the pool has the browser back, clean and idle, or \
until every trace of the launched one is gone

For shared leases also: round trips of Runtime.evaluate('1') through the gateway and over a WebSocket \
to the debugging port of another Chromium; and, in a pool of its own, the memory (PSS) that each \
further client takes, and the memory of a separate Chromium.

Tables come first, then a line of JSON for each figure. Ratios are the pool's \
figure divided by the other; only ratios carry over to another machine.")]
pub struct Args {
    /// Number of sessions, and of launches to compare them with.
    #[arg(short = 's', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    sessions: u16,
    /// Number of sessions at the same time.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,
    /// Print JSON only.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pool: RunningPoolArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Measures what a lease costs, beside launching a Chromium for each client.
///
/// # Errors
///
/// If any step fails; 128 and the signal's number if a signal stopped it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let config = args.config.load()?;
    logging::init(&logging::quiet(&config.log, "error"))?;
    let options = args.options()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        // Before anything is launched: a signal must not leave browsers behind.
        let mut signals = Signals::listen()?;
        let run = Run::open(config, options).await?;
        let outcome = tokio::select! {
            outcome = run.measure() => outcome,
            signal = signals.next() => Err(Failure::silent(exit::code_of(signal))),
        };
        run.close().await;
        outcome
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    let report = outcome?;
    if !args.json {
        stdout::print(&format!("{report}\n"))?;
    }
    stdout::print(&report.json())
}

impl Args {
    fn options(&self) -> Result<Options, Failure> {
        Ok(Options {
            sessions: self.sessions.into(),
            concurrency: self.concurrency.into(),
            pool: self.pool.client()?,
            lease: self.config.lease.clone(),
        })
    }
}
