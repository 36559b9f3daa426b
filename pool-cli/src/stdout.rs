//! Data for stdout.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;

use anstream::{AutoStream, ColorChoice};
use ratatui::crossterm::terminal;

use crate::exit::Failure;

/// Writes to stdout, without colours where it is not a terminal or `NO_COLOR` is set.
///
/// A reader that has seen enough, as in `pool-cli init | head`, is no error.
///
/// # Errors
///
/// Stdout cannot be written.
pub fn print(text: &str) -> Result<(), Failure> {
    offer(text).map(|_| ())
}

/// Writes as [`print`] does, and says whether anybody reads on.
pub(crate) fn offer(text: &str) -> Result<ControlFlow<()>, Failure> {
    let mut stdout = anstream::stdout().lock();
    read_on(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// Writes a text over the last one, from the corner of the terminal on and cut to its size; below
/// each other where it is no terminal. Says whether anybody reads on.
pub(crate) fn redraw(text: &str) -> Result<ControlFlow<()>, Failure> {
    let mut stdout = io::stdout().lock();
    if !stdout.is_terminal() {
        return offer(&format!("{text}\n"));
    }
    let height = terminal::size().map_or(usize::MAX, |(_, height)| height.into());
    // Written past anstream, which without colours would take out the moves of the cursor too.
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
    // Lines that are too long are cut rather than wrapped meanwhile.
    let mut drawn = "\x1b[H\x1b[?7l".to_owned();
    // One line is left for the cursor, and for the prompt when it is over.
    for line in text.lines().take(height.saturating_sub(1)) {
        drawn.push_str(line);
        // Cleared as it is written: a screen that is cleared first flickers.
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
