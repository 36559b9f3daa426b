//! Data for stdout: texts, tables, and numbers as people read them.

use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;

use anstream::{AutoStream, ColorChoice};
use anstyle::AnsiColor;
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

/// Rows under a header, with each column as wide as necessary.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    header: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(header: [&'static str; N]) -> Self {
        Self { header, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: [String; N]) {
        self.rows.push(row);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.header[column].len()]).max().unwrap_or_default()
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let line = |f: &mut fmt::Formatter<'_>, cells: [&str; N]| {
            for (column, cell) in cells.iter().enumerate() {
                // The last column is not padded, which would only make lines wrap.
                let width = if column + 1 == N { 0 } else { widths[column] + 2 };
                write!(f, "{cell:<width$}")?;
            }
            Ok(())
        };
        let style = AnsiColor::Blue.on_default().bold();
        write!(f, "{style}")?;
        line(f, self.header)?;
        writeln!(f, "{style:#}")?;
        for row in &self.rows {
            line(f, std::array::from_fn(|column| row[column].as_str()))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Formats milliseconds in their two largest units.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} m {} s", ms / 60_000, ms / 1_000 % 60),
        _ => format!("{} h {} m", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// Formats bytes in MiB.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_to_the_height_of_the_terminal() {
        let drawn = "\x1b[H\x1b[?7la\x1b[K\r\nb\x1b[K\r\n\x1b[J\x1b[?7h";
        assert_eq!(over("a\nb\nc\n", 3), drawn);
    }

    #[test]
    fn columns_are_aligned_and_the_last_one_is_not_filled_up() {
        let mut table = Table::new(["a", "long name", "b"]);
        table.add(["xyz".into(), "1".into(), "end".into()]);
        let text = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(text, "a    long name  b\nxyz  1          end\n");
    }

    #[test]
    fn durations_have_two_units() {
        for (ms, text) in
            [(5, "5 ms"), (1_250, "1.2 s"), (61_000, "1 m 1 s"), (7_260_000, "2 h 1 m")]
        {
            assert_eq!(duration(ms), text);
        }
    }
}
