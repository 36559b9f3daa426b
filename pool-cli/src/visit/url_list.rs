use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::path::Path;

use url::Url;

use crate::exit::Failure;

/// The schemes that a visit may go to. Others are not pages, or are not allowed in a shared
/// Chromium.
const SCHEMES: [&str; 3] = ["http", "https", "data"];

/// URLs to visit, each once, in the order in which they were first given.
#[derive(Debug, Default)]
pub(crate) struct UrlList {
    urls: Vec<String>,
    bad: Vec<BadLine>,
    known: HashSet<String>,
    repeated: usize,
}

/// A line that is not a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Its place: `urls.txt:17`, or `argument 3`.
    pub(crate) place: String,
    /// The line itself.
    pub(crate) text: String,
    /// The mistake, and what to write instead.
    pub(crate) why: String,
}

impl UrlList {
    /// Reads what was given on the command line: URLs, files of URLs, and `-` for stdin.
    ///
    /// # Errors
    ///
    /// If a file cannot be read. Lines that are not URLs are not an error here: see
    /// [`into_parts`](Self::into_parts).
    pub(crate) fn read(given: &[String]) -> Result<Self, Failure> {
        let mut list = Self::default();
        for (i, text) in given.iter().enumerate() {
            if text == "-" {
                list.add_text("stdin", &read_stdin()?);
            } else if is_url(text) || !Path::new(text).exists() && !looks_like_a_file(text) {
                list.add(text, || format!("argument {}", i + 1));
            } else {
                list.add_text(text, &read_file(text)?);
            }
        }
        Ok(list)
    }

    /// Adds the lines of a text. Empty lines and those that begin with `#` are left out.
    fn add_text(&mut self, name: &str, text: &str) {
        // Some editors begin a file with a byte order mark.
        for (i, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.add(line, || format!("{name}:{}", i + 1));
            }
        }
    }

    fn add(&mut self, text: &str, place: impl FnOnce() -> String) {
        match check(text) {
            Err(why) => self.bad.push(BadLine { place: place(), text: text.to_owned(), why }),
            Ok(()) if self.known.insert(text.to_owned()) => self.urls.push(text.to_owned()),
            Ok(()) => self.repeated += 1,
        }
    }

    /// Returns the URLs as they were written, and the lines that are not URLs, in order.
    pub(crate) fn into_parts(self) -> (Vec<String>, Vec<BadLine>) {
        (self.urls, self.bad)
    }

    /// Returns the number of lines that repeat the URL of an earlier line.
    pub(crate) fn repeated(&self) -> usize {
        self.repeated
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {:?}", self.place, self.why, self.text)
    }
}

fn is_url(text: &str) -> bool {
    text.contains("://") || text.starts_with("data:")
}

/// Returns `true` if the text was probably meant as the name of a file, so that a missing file is
/// reported as such.
fn looks_like_a_file(text: &str) -> bool {
    Path::new(text).extension().is_some_and(|extension| {
        ["txt", "csv", "list", "urls", "tsv", "jsonl"].iter().any(|known| extension == *known)
    })
}

fn read_file(name: &str) -> Result<String, Failure> {
    std::fs::read_to_string(name)
        .map_err(|error| Failure::new(format!("cannot read {name}: {error}")))
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(format!("cannot read stdin: {error}")))?;
    Ok(text)
}

/// Checks that this is a URL to visit.
fn check(text: &str) -> Result<(), String> {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(url::ParseError::RelativeUrlWithoutBase) => {
            return Err(format!("not a URL, perhaps https://{text}"));
        }
        Err(error) => return Err(format!("not a URL ({error})")),
    };
    if !SCHEMES.contains(&url.scheme()) {
        // `localhost:8080` has a scheme, too.
        let hint = if url.cannot_be_a_base() { ", perhaps http:// is missing" } else { "" };
        return Err(format!(
            "{}: cannot be visited, only http, https and data can{hint}",
            url.scheme()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> UrlList {
        let mut list = UrlList::default();
        list.add_text("urls.txt", text);
        list
    }

    #[test]
    fn comments_blank_lines_and_repeated_urls_are_left_out() {
        let list = list("\u{feff}# pages\n\n http://a/ \r\nhttp://b/\nhttp://a/\n");
        assert_eq!(list.repeated(), 1);
        let (urls, bad) = list.into_parts();
        assert_eq!(urls, ["http://a/", "http://b/"]);
        assert!(bad.is_empty());
    }

    #[test]
    fn lines_that_are_no_urls_are_named_with_their_number() {
        let list = list("http://a/\nexample.org\n\nfile:///etc/passwd\nlocalhost:80/x\nhttp://\n");
        let (urls, bad) = list.into_parts();
        assert_eq!(urls, ["http://a/"]);
        let lines: Vec<String> = bad.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("urls.txt:2: ") && lines[0].contains("https://example.org"));
        assert!(lines[1].starts_with("urls.txt:4: file: cannot be visited"), "{lines:?}");
        assert!(lines[2].contains("perhaps http:// is missing"), "{lines:?}");
        assert!(lines[3].starts_with("urls.txt:6: "));
    }
}
