use std::io::{ErrorKind, Write};

use super::{Journal, Record, Table};

/// Where records go, and once more as a table if that is asked for.
#[derive(Debug)]
pub(crate) struct Results {
    output: Output,
    table: Option<Table>,
}

impl Results {
    pub(crate) fn new(output: Output, table: Option<Table>) -> Self {
        Self { output, table }
    }

    /// The first of the two.
    pub(crate) fn output(&self) -> &Output {
        &self.output
    }

    /// Writes a record.
    ///
    /// # Errors
    ///
    /// As [`Output::write`].
    pub(crate) fn write(&mut self, record: &Record) -> std::io::Result<()> {
        // What is in the file is done, so that it is the last to be written.
        if let Some(table) = &mut self.table {
            table.write(record)?;
        }
        self.output.write(record)
    }

    /// Returns the message for when it cannot be written.
    pub(crate) fn broken(&self, error: &std::io::Error) -> String {
        match &self.table {
            Some(table) if matches!(self.output, Output::Stdout) => {
                format!("cannot write to stdout or {}: {error}", table.path().display())
            }
            _ => self.output.broken(error),
        }
    }
}

/// Where records go.
#[derive(Debug)]
pub(crate) enum Output {
    /// A file, from which a later run resumes.
    File(Journal),
    /// Standard output.
    Stdout,
}

impl Output {
    /// Writes a record, in whole.
    ///
    /// # Errors
    ///
    /// Those of the operating system. A reader of stdout that has gone is one, too: what it does
    /// not read would be lost.
    pub(crate) fn write(&mut self, record: &Record) -> std::io::Result<()> {
        match self {
            Self::File(journal) => journal.write(record),
            Self::Stdout => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(record.line().as_bytes())?;
                stdout.flush()
            }
        }
    }

    /// Returns the message for when it cannot be written.
    pub(crate) fn broken(&self, error: &std::io::Error) -> String {
        match self {
            Self::File(journal) => format!("cannot write to {}: {error}", journal.path().display()),
            Self::Stdout if error.kind() == ErrorKind::BrokenPipe => {
                "nobody reads the results any more".to_owned()
            }
            Self::Stdout => format!("cannot write to stdout: {error}"),
        }
    }
}
