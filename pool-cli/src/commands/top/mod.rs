//! `pool-cli top`.

mod draw;
mod view;

use std::io::{IsTerminal, stdin, stdout};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::draw::draw;
use self::view::{Outcome, Reaction, View};
use crate::api::{Point, State};
use crate::client::{Client, ClientArgs};
use crate::exit::{Failure, Signals};

/// Arguments of `top`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pool: ClientArgs,
}

/// Time without a message after which the pool counts as lost: it sends its state once a second,
/// and a pool that hangs keeps the connection open.
const SILENCE: Duration = Duration::from_secs(5);

/// Shows a pool live until a key or a signal ends it, and carries out what keys ask for.
///
/// # Errors
///
/// If this is not a terminal, or no pool answers at first. If a pool goes away later, it is waited
/// for.
pub fn run(args: &Args) -> Result<(), Failure> {
    if !(stdin().is_terminal() && stdout().is_terminal()) {
        return Err(Failure::new("top requires a terminal, and stdout is not one")
            .hint("for lines that a program reads: pool-cli status --watch --json"));
    }
    let client = Arc::new(args.pool.client()?);
    let view = View::new(client.address(), client.get("/api/state")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(show(client, view));
    // A change that a key has asked for is still sent if the next key quits.
    runtime.shutdown_timeout(view::PATIENCE);
    outcome
}

async fn show(client: Arc<Client>, mut view: View) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (outcomes, mut done) = mpsc::channel::<Outcome>(1);
    let mut screen = Screen::enter()?;
    let mut news = start(Arc::clone(&client));
    let mut input = input();
    let mut heard = Instant::now();
    loop {
        screen.draw(&view)?;
        tokio::select! {
            Some(news) = news.recv() => {
                heard = Instant::now();
                view.learn(news);
            }
            () = sleep_until(heard + SILENCE), if view.lost.is_none() => {
                view.learn(News::Lost(format!("no message from the pool for {SILENCE:?}")));
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

/// The terminal while `top` uses it: raw, on the alternate screen. Dropping it restores the
/// terminal; a panic does so before it prints its message.
#[derive(Debug)]
struct Screen(DefaultTerminal);

impl Screen {
    fn enter() -> Result<Self, Failure> {
        Ok(Self(ratatui::try_init()?))
    }

    fn draw(&mut self, view: &View) -> Result<(), Failure> {
        self.0.draw(|frame| draw(frame, view))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If even that fails, there is no terminal left to restore.
        let _ = ratatui::try_restore();
    }
}

/// Keys and changes of size; ends when the terminal does.
fn input() -> mpsc::Receiver<Event> {
    let (events, input) = mpsc::channel(16);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if events.blocking_send(event).is_err() {
                return;
            }
        }
    });
    input
}

/// News from the pool: its latest state, or its silence.
#[derive(Debug)]
enum News {
    /// The last hour, oldest first; sent with every new connection.
    History(Vec<Point>),
    /// This second.
    State(Box<State>),
    /// The connection is lost; another one is tried.
    Lost(String),
}

/// Pause before another connection is tried.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows the pool, across restarts, for as long as somebody listens.
fn start(client: Arc<Client>) -> mpsc::Receiver<News> {
    let (sender, news) = mpsc::channel(4);
    thread::spawn(move || {
        loop {
            let lost = match follow(&client, &sender) {
                Ok(()) => format!("the pool at {} has ended", client.address()),
                Err(failure) => failure.message().to_owned(),
            };
            if sender.blocking_send(News::Lost(lost)).is_err() {
                return;
            }
            thread::sleep(PAUSE);
        }
    });
    news
}

/// Follows one connection to its end.
fn follow(client: &Client, sender: &mpsc::Sender<News>) -> Result<(), Failure> {
    let states = client.stream()?;
    let send = |news| sender.blocking_send(news).is_ok();
    if !send(News::History(client.get("/api/history")?)) {
        return Ok(());
    }
    for state in states {
        if !send(News::State(Box::new(serde_json::from_str(&state?)?))) {
            return Ok(());
        }
    }
    Ok(())
}
