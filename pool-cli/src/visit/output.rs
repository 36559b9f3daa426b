use std::io::{ErrorKind, Write};

use super::{Journal, Record};

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
