use std::thread;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::sync::mpsc;

use super::draw::draw;
use super::view::View;
use crate::exit::Failure;

/// The terminal while `top` has it: raw, on the alternate screen. Its drop gives it back as it was;
/// a panic does so before it prints its message.
#[derive(Debug)]
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    pub(super) fn enter() -> Result<Self, Failure> {
        Ok(Self(ratatui::try_init()?))
    }

    pub(super) fn draw(&mut self, view: &View) -> Result<(), Failure> {
        self.0.draw(|frame| draw(frame, view))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where even that fails, there is no terminal left to restore.
        let _ = ratatui::try_restore();
    }
}

/// Keys and changes of size; ends when the terminal does.
pub(super) fn input() -> mpsc::Receiver<Event> {
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
