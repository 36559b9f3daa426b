//! `pool-cli top`.

mod change;
mod draw;
mod feed;
mod keys;
mod plots;
mod screen;
mod tables;
mod view;

use std::io::{IsTerminal, stdin, stdout};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::change::Outcome;
use self::feed::News;
use self::keys::Reaction;
use self::screen::Screen;
use self::view::View;
use crate::client::{Client, ClientArgs};
use crate::exit::Failure;
use crate::signals::Signals;

/// Arguments of `top`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pool: ClientArgs,
}

/// The pool tells its state once a second; a pool that hangs keeps the connection and says nothing.
const SILENCE: Duration = Duration::from_secs(5);

/// Shows a pool live until a key or a signal ends it, and does to it what keys ask for.
///
/// # Errors
///
/// If this is no terminal, or no pool answers at first. A pool that goes away later is waited for.
pub fn run(args: &Args) -> Result<(), Failure> {
    if !(stdin().is_terminal() && stdout().is_terminal()) {
        return Err(Failure::new("top needs a terminal to draw on, and this is none")
            .hint("for lines that a program reads: pool-cli status --watch --json"));
    }
    let client = Arc::new(args.pool.client()?);
    let view = View::new(client.address(), client.get("/api/state")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(show(client, view));
    // What a key has asked for is still asked of the pool when the next key quits.
    runtime.shutdown_timeout(change::PATIENCE);
    outcome
}

async fn show(client: Arc<Client>, mut view: View) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (outcomes, mut done) = mpsc::channel::<Outcome>(1);
    let mut screen = Screen::enter()?;
    let mut news = feed::start(Arc::clone(&client));
    let mut input = screen::input();
    let mut heard = Instant::now();
    loop {
        screen.draw(&view)?;
        tokio::select! {
            Some(news) = news.recv() => {
                heard = Instant::now();
                view.learn(news);
            }
            () = sleep_until(heard + SILENCE), if view.lost.is_none() => {
                view.learn(News::Lost(format!("the pool says nothing for {SILENCE:?}")));
            }
            Some(outcome) = done.recv() => view.tell(outcome),
            event = input.recv() => match event {
                Some(event) => match view.react(&event) {
                    Reaction::Draw => {}
                    Reaction::Quit => return Ok(()),
                    Reaction::Change(change) => {
                        let (client, outcomes) = (Arc::clone(&client), outcomes.clone());
                        tokio::task::spawn_blocking(move || {
                            // If nobody listens any more, the screen is gone.
                            let _ = outcomes.blocking_send(change.make(&client));
                        });
                    }
                },
                // The terminal is gone.
                None => return Ok(()),
            },
            _ = signals.next() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}
