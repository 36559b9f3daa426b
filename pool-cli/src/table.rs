//! Tables for a terminal.

use std::fmt;

use anstyle::AnsiColor;

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
