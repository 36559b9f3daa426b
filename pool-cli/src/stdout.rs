//! Data for stdout.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;

use anstream::{AutoStream, ColorChoice};
use ratatui::crossterm::terminal;

use crate::exit::Failure;

/// Writes to stdout, without colours if it is not a terminal or `NO_COLOR` is set.
///
/// It is not an error if the reader has seen enough, as in `pool-cli init | head`.
///
/// # Errors
///
/// Stdout cannot be written.
pub fn print(text: &str) -> Result<(), Failure> {
    offer(text).map(|_| ())
}

/// Writes as [`print`] does, and returns whether anybody is still reading.
pub(crate) fn offer(text: &str) -> Result<ControlFlow<()>, Failure> {
    let mut stdout = anstream::stdout().lock();
    read_on(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// Writes a text over the last one, from the top left corner of the terminal and cut to its size,
/// or one after the other if it is not a terminal. Returns whether anybody is still reading.
pub(crate) fn redraw(text: &str) -> Result<ControlFlow<()>, Failure> {
    let mut stdout = io::stdout().lock();
    if !stdout.is_terminal() {
        return offer(&format!("{text}\n"));
    }
    let height = terminal::size().map_or(usize::MAX, |(_, height)| height.into());
    // Written past anstream, which without colours would remove the cursor movements too.
    let plain = AutoStream::choice(&stdout) == ColorChoice::Never;
    let drawn = if plain {
        over(&anstream::adapter::strip_str(text).to_string(), height)
    } else {
        over(text, height)
    };
    read_on(stdout.write_all(drawn.as_bytes()).and_then(|()| stdout.flush()))
}

/// Returns the text that redraws a terminal of `height` lines.
fn over(text: &str, height: usize) -> String {
    // Lines that are too long are cut rather than wrapped in the meantime.
    let mut drawn = "\x1b[H\x1b[?7l".to_owned();
    // One line is left for the cursor, and for the prompt at the end.
    for line in text.lines().take(height.saturating_sub(1)) {
        drawn.push_str(line);
        // Cleared while it is being written: clearing the screen first would make it flicker.
        drawn.push_str("\x1b[K\r\n");
    }
    drawn.push_str("\x1b[J\x1b[?7h");
    drawn
}

fn read_on(written: io::Result<()>) -> Result<ControlFlow<()>, Failure> {
    match written {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Failure::new(format!("cannot write to stdout: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_to_the_height_of_the_terminal() {
        let drawn = "\x1b[H\x1b[?7la\x1b[K\r\nb\x1b[K\r\n\x1b[J\x1b[?7h";
        assert_eq!(over("a\nb\nc\n", 3), drawn);
    }
}
