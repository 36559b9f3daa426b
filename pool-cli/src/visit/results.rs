use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Record;
use crate::exit::Failure;

/// The file of results: one record per line, each written at once and as a whole.
///
/// A run that was stopped, for whatever reason, leaves whole lines and at most one that was cut
/// off, which the next run removes.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// The URLs that it holds, and whether the last record of each was a success.
    done: HashMap<String, bool>,
}

impl Journal {
    /// Opens the file, or makes it, and reads its contents.
    ///
    /// # Errors
    ///
    /// If it cannot be used, another visit is writing to it, or it contains something other than
    /// results.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let cannot = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(format!("cannot {what} {name}: {error}"))
        };
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| cannot("open", &error))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Failure::new(format!("another visit writes its results to {name}"))
                .hint("wait for it, or use another file: --out FILE")
        })?;
        let (done, whole) = read(BufReader::new(&file)).map_err(|error| match error {
            ReadError::File(error) => cannot("read", &error),
            ReadError::Line(line) => {
                Failure::new(format!("{name}:{line} is not a result of a visit"))
                    .hint("use another file: --out FILE")
            }
        })?;
        // Writes go to the end, wherever that is.
        file.set_len(whole).map_err(|error| cannot("write", &error))?;
        Ok(Self { path: path.to_owned(), file, done })
    }

    /// Returns the outcome that the file records for this URL, if it has one.
    pub(crate) fn done(&self, url: &str) -> Option<bool> {
        self.done.get(url).copied()
    }

    /// Returns its path.
    fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets the contents that the file had when it was opened, once nobody asks for them any
    /// more.
    fn forget(&mut self) {
        self.done = HashMap::new();
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// Errors of the operating system, above all a full disk.
    pub(crate) fn write(&mut self, record: &Record) -> std::io::Result<()> {
        // One write to a file that is open for appending: nothing comes between its bytes.
        self.file.write_all(record.line().as_bytes())
    }
}

/// Reason why a file of results cannot be read.
enum ReadError {
    File(std::io::Error),
    /// The number of a line that is not a record.
    Line(usize),
}

/// Reads the records, and the number of bytes of complete ones: line by line, since a file may hold
/// the texts of very many pages.
fn read(mut file: impl BufRead) -> Result<(HashMap<String, bool>, u64), ReadError> {
    let mut done = HashMap::new();
    let mut whole = 0;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = file.read_until(b'\n', &mut line).map_err(ReadError::File)?;
        if !line.ends_with(b"\n") {
            // It was cut off while being written. Anything that is not a record is somebody else's.
            if line.starts_with(b"{\"url\":") || line.len() < 7 {
                break;
            }
            return Err(ReadError::Line(number));
        }
        whole += read as u64;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let record = serde_json::from_slice::<Record>(&line);
        let record = record.map_err(|_| ReadError::Line(number))?;
        done.insert(record.url, record.error.is_none());
    }
    Ok((done, whole))
}

/// The results again, as a table: a line of names, and a line for each record.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    file: File,
    /// Extracted values, which have columns of their own.
    extracts: Vec<String>,
}

/// The columns that every table has.
const COLUMNS: [&str; 7] = ["url", "final_url", "status", "title", "ms", "error", "attempts"];

impl Table {
    /// Opens the file, or makes it with its first line.
    ///
    /// # Errors
    ///
    /// If it cannot be used, or is a different table.
    ///
    /// A run that was killed may have left an incomplete line, or a line for a URL that the file of
    /// results does not have: that URL is visited again, so the line is removed. `is_done` knows
    /// the URLs.
    pub(crate) fn open(
        path: &Path,
        extracts: Vec<String>,
        is_done: impl Fn(&str) -> bool,
    ) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(format!("cannot write {}: {error}", path.display()))
        };
        let names = COLUMNS.into_iter().chain(extracts.iter().map(String::as_str));
        let head = line(names);
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        let rows = Rows::read(BufReader::new(&file)).map_err(failed)?;
        if rows.count == 0 && head.as_bytes().starts_with(&rows.rest) {
            // It is empty, or its head was cut off.
            file.set_len(0).map_err(failed)?;
            file.write_all(head.as_bytes()).map_err(failed)?;
        } else if rows.first != head.as_bytes() {
            return Err(Failure::new(format!("{} is another table", path.display()))
                .hint("use another file: --csv FILE"));
        } else {
            let keeps = rows.count == 1 || rows.last_url().is_none_or(|url| is_done(&url));
            file.set_len(if keeps { rows.whole } else { rows.before_last }).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), file, extracts })
    }

    /// Returns its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// Errors of the operating system.
    pub(crate) fn write(&mut self, record: &Record) -> std::io::Result<()> {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let fields = [
            Some(record.url.clone()),
            record.final_url.clone(),
            number(record.status.map(u64::from)),
            record.title.clone(),
            number(Some(record.ms)),
            record.error.as_ref().map(|error| error.code.clone()),
            number(Some(u64::from(record.attempts))),
        ];
        let extracted = self.extracts.iter().map(|name| {
            let value = record.taken.extract.as_ref()?.get(name)?;
            match value {
                serde_json::Value::Null => None,
                serde_json::Value::String(text) => Some(text.clone()),
                value => Some(value.to_string()),
            }
        });
        let fields: Vec<String> =
            fields.into_iter().chain(extracted).map(Option::unwrap_or_default).collect();
        self.file.write_all(line(fields.iter().map(String::as_str)).as_bytes())
    }
}

/// The rows of a table's file, as far as they matter for continuing.
#[derive(Debug, Default)]
struct Rows {
    count: usize,
    first: Vec<u8>,
    last: Vec<u8>,
    /// Number of bytes of all complete rows, and of those without the last.
    whole: u64,
    before_last: u64,
    /// Bytes after them: a row that was cut off.
    rest: Vec<u8>,
}

impl Rows {
    fn read(mut file: impl BufRead) -> std::io::Result<Self> {
        let mut rows = Self::default();
        let mut row = Vec::new();
        // A quoted field may contain line breaks.
        while file.read_until(b'\n', &mut row)? > 0 {
            let quotes = row.iter().filter(|byte| **byte == b'"').count();
            if !row.ends_with(b"\n") || quotes % 2 == 1 {
                continue;
            }
            rows.before_last = rows.whole;
            rows.whole += row.len() as u64;
            if rows.count == 0 {
                rows.first = row.clone();
            }
            rows.count += 1;
            rows.last = std::mem::take(&mut row);
        }
        rows.rest = row;
        Ok(rows)
    }

    /// Returns the first field of the last row.
    fn last_url(&self) -> Option<String> {
        let row = String::from_utf8_lossy(&self.last);
        let Some(quoted) = row.strip_prefix('"') else {
            return row.split(',').next().map(str::to_owned);
        };
        // Quotes within it are doubled.
        let field = quoted.replace("\"\"", "\0");
        field.split('"').next().map(|field| field.replace('\0', "\""))
    }
}

/// Returns a line of a table, including its end.
fn line<'a>(fields: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = fields.map(quoted).collect();
    format!("{}\r\n", quoted.join(","))
}

/// Returns a field in the form of RFC 4180. Anything that a spreadsheet would take for a formula is
/// made plain text.
fn quoted(field: &str) -> String {
    let formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let field = if formula { format!("'{field}") } else { field.to_owned() };
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field
    }
}

/// The destination of records, and a table as well if that is requested.
#[derive(Debug)]
pub(crate) struct Results {
    output: Output,
    table: Option<Table>,
}

impl Results {
    pub(crate) fn new(output: Output, table: Option<Table>) -> Self {
        Self { output, table }
    }

    /// Returns the primary output.
    pub(crate) fn output(&self) -> &Output {
        &self.output
    }

    /// Forgets what an earlier run has done, once nobody asks for it any more.
    pub(crate) fn forget(&mut self) {
        match &mut self.output {
            Output::File(journal) => journal.forget(),
            Output::Stdout => {}
        }
    }

    /// Writes a record.
    ///
    /// # Errors
    ///
    /// As [`Output::write`].
    pub(crate) fn write(&mut self, record: &Record) -> std::io::Result<()> {
        // A URL in the file counts as done, so the file is written last.
        if let Some(table) = &mut self.table {
            table.write(record)?;
        }
        self.output.write(record)
    }

    /// Returns the message for the case that it cannot be written.
    pub(crate) fn broken(&self, error: &std::io::Error) -> String {
        match (&self.table, &self.output) {
            (Some(table), Output::Stdout) => {
                format!("cannot write to stdout or {}: {error}", table.path().display())
            }
            (None, _) | (_, Output::File(_)) => self.output.broken(error),
        }
    }
}

/// The destination of records.
#[derive(Debug)]
pub(crate) enum Output {
    /// A file, from which a later run resumes.
    File(Journal),
    /// Standard output.
    Stdout,
}

impl Output {
    /// Writes a record as a whole.
    ///
    /// # Errors
    ///
    /// Errors of the operating system. It is also an error if the reader of stdout has gone: what
    /// it does not read would be lost.
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

    /// Returns the message for the case that it cannot be written.
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

    #[test]
    fn fields_are_quoted_where_they_must_be_and_are_never_formulas() {
        let fields = ["a", "b,c", "say \"x\"", "=1+1", "two\nlines"];
        assert_eq!(
            line(fields.into_iter()),
            "a,\"b,c\",\"say \"\"x\"\"\",'=1+1,\"two\nlines\"\r\n",
        );
    }

    #[test]
    fn a_table_goes_on_where_it_was_and_leaves_others_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let record = Record { url: "http://a/".into(), attempts: 1, ..Record::default() };
        for _ in 0..2 {
            let mut table = Table::open(&path, vec!["price".into()], |_| true).unwrap();
            table.write(&record).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let head = "url,final_url,status,title,ms,error,attempts,price\r\n";
        assert_eq!(text, format!("{head}{}", "http://a/,,,,0,,1,\r\n".repeat(2)));
        assert!(Table::open(&path, Vec::new(), |_| true).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_row_that_was_cut_off_or_is_not_in_the_results_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let record = |url: &str| Record { url: url.into(), attempts: 1, ..Record::default() };
        let open = |done: &[&str]| Table::open(&path, Vec::new(), |url| done.contains(&url));
        let odd = "http://b/?\"x\",\ny";
        let mut table = open(&[]).unwrap();
        for url in ["http://a/", odd] {
            table.write(&record(url)).unwrap();
        }
        let whole = std::fs::read_to_string(&path).unwrap();
        drop(open(&["http://a/", odd]).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        std::fs::write(&path, format!("{whole}\"http://c/?\ncut")).unwrap();
        drop(open(&["http://a/", odd]).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole, "the rest was cut off");
        drop(open(&["http://a/"]).unwrap());
        let first = std::fs::read_to_string(&path).unwrap();
        assert!(whole.starts_with(&first) && first.ends_with("http://a/,,,,0,,1\r\n"), "{first}");
        std::fs::write(&path, &whole[..9]).unwrap();
        drop(open(&[]).unwrap());
        assert!(first.starts_with(&std::fs::read_to_string(&path).unwrap()));
        std::fs::write(&path, "precious").unwrap();
        assert!(open(&[]).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
