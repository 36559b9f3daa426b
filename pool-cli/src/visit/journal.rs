use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Record;
use crate::exit::Failure;

/// The file of results: one record a line, each written at once and in whole.
///
/// A run that was stopped, whatever stopped it, leaves whole lines and at most one that was cut
/// off, which the next run removes.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// The URLs that it holds; whether the last record of each tells of success.
    done: HashMap<String, bool>,
}

impl Journal {
    /// Opens the file, or makes it, and reads what is in it.
    ///
    /// # Errors
    ///
    /// If it cannot be used, another visit writes to it, or it holds something else than results.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let cannot = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(format!("cannot {what} {name}: {error}"))
        };
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| cannot("open", &error))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Failure::new(format!("another visit writes its results to {name}"))
                .hint("wait for it, or take another file: --out FILE")
        })?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|error| cannot("read", &error))?;
        let (done, whole) = read(&text).map_err(|line| {
            Failure::new(format!("{name}:{line} is not a result of a visit"))
                .hint("take another file: --out FILE")
        })?;
        if whole < text.len() {
            file.set_len(whole as u64).map_err(|error| cannot("write", &error))?;
            file.seek(SeekFrom::End(0)).map_err(|error| cannot("write", &error))?;
        }
        Ok(Self { path: path.to_owned(), file, done })
    }

    /// Returns the outcome that the file records for this URL, if it has one.
    pub(crate) fn done(&self, url: &str) -> Option<bool> {
        self.done.get(url).copied()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// Those of the operating system: a full disk above all.
    pub(crate) fn write(&mut self, record: &Record) -> std::io::Result<()> {
        // One write to a file that is open for appending: nothing comes between its bytes.
        self.file.write_all(record.line().as_bytes())
    }
}

/// Reads the records, and how many bytes of whole ones there are. `Err` with the number of the line
/// that is none.
fn read(text: &[u8]) -> Result<(HashMap<String, bool>, usize), usize> {
    let mut done = HashMap::new();
    let mut whole = 0;
    for (i, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if !line.ends_with(b"\n") {
            // Cut off while it was written. What is no record at all is somebody else's.
            return if line.starts_with(b"{\"url\":") || line.len() < 7 {
                Ok((done, whole))
            } else {
                Err(i + 1)
            };
        }
        whole += line.len();
        if line.trim_ascii().is_empty() {
            continue;
        }
        let record: Record = serde_json::from_slice(line).map_err(|_| i + 1)?;
        done.insert(record.url, record.error.is_none());
    }
    Ok((done, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(url: &str) -> Record {
        Record { url: url.to_owned(), attempts: 1, ..Record::default() }
    }

    #[test]
    fn a_line_that_was_cut_off_is_removed_and_the_others_are_done() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.jsonl");
        let whole = record("http://a/").line();
        std::fs::write(&path, format!("{whole}{}", &record("http://b/").line()[..20])).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.done("http://a/"), Some(true));
        assert_eq!(journal.done("http://b/"), None);
        journal.write(&record("http://b/")).unwrap();
        let expected = format!("{whole}{}", record("http://b/").line());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["precious\n", "precious", "{\"url\":1}\n"] {
            let path = directory.path().join("notes.txt");
            std::fs::write(&path, text).unwrap();
            let failure = Journal::open(&path).unwrap_err().to_string();
            assert!(failure.contains("notes.txt:1 is not a result of a visit"), "{failure}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn two_visits_do_not_write_to_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.jsonl");
        let _first = Journal::open(&path).unwrap();
        assert!(Journal::open(&path).unwrap_err().to_string().contains("another visit"));
    }
}
