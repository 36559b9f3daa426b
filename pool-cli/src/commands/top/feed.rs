use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::client::{Client, Point, State};
use crate::exit::Failure;

/// The pool's latest state, or its silence.
#[derive(Debug)]
pub(super) enum News {
    /// The last hour, oldest first: at every new connection.
    History(Vec<Point>),
    /// This second.
    State(Box<State>),
    /// The connection is lost; another one is tried.
    Lost(String),
}

/// Pause before another connection is tried.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows the pool, over restarts, for as long as somebody listens.
pub(super) fn start(client: Arc<Client>) -> mpsc::Receiver<News> {
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

/// One connection, to its end.
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
