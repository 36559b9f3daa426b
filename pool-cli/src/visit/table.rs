use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Record;
use crate::exit::Failure;

/// The results once more, as a table: a line of names, and a line for each record.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    file: File,
    /// What was extracted has columns of its own.
    extracts: Vec<String>,
}

/// The columns that every table has.
const COLUMNS: [&str; 7] = ["url", "final_url", "status", "title", "ms", "error", "attempts"];

impl Table {
    /// Opens the file, or makes it with its first line.
    ///
    /// # Errors
    ///
    /// If it cannot be used, or is another table.
    pub(crate) fn open(path: &Path, extracts: Vec<String>) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(format!("cannot write {}: {error}", path.display()))
        };
        let names = COLUMNS.into_iter().chain(extracts.iter().map(String::as_str));
        let head = line(names);
        let held = match std::fs::read_to_string(path) {
            Ok(held) => held,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        if !held.is_empty() && !held.starts_with(&head) {
            return Err(Failure::new(format!("{} is another table", path.display()))
                .hint("take another file: --csv FILE"));
        }
        let mut file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
        if held.is_empty() {
            file.write_all(head.as_bytes()).map_err(failed)?;
        } else if !held.ends_with('\n') {
            // A run that was killed had begun a line.
            file.write_all(b"\n").map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), file, extracts })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
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

/// A line of a table, with its end.
fn line<'a>(fields: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = fields.map(quoted).collect();
    format!("{}\r\n", quoted.join(","))
}

/// A field as RFC 4180 has it. What a spreadsheet would take for a formula is only text.
fn quoted(field: &str) -> String {
    let formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let field = if formula { format!("'{field}") } else { field.to_owned() };
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            Table::open(&path, vec!["price".into()]).unwrap().write(&record).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let head = "url,final_url,status,title,ms,error,attempts,price\r\n";
        assert_eq!(text, format!("{head}{}", "http://a/,,,,0,,1,\r\n".repeat(2)));
        assert!(Table::open(&path, Vec::new()).is_err());
    }
}
