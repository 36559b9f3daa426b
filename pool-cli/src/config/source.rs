use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{Excerpt, Finding, Place, Severity, nearest};

/// All the text that a configuration is read from, end to end: first the file, then one piece for
/// each variable and flag.
///
/// Every value keeps its range in this text, whatever it came from, as in the source map of a
/// compiler. So one number gives both the place of a mistake and the origin of the value.
///
/// It is not `Debug`, since it contains secrets.
#[derive(Default)]
pub(super) struct Sources(Vec<Source>);

pub(super) struct Source {
    origin: Origin,
    pub(super) text: String,
    /// Where it begins in the whole.
    pub(super) start: usize,
}

#[derive(Clone)]
pub(super) enum Origin {
    File(PathBuf),
    Environment(String),
    Flag(String),
}

/// A mistake, at a range of the whole text.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) severity: Severity,
    pub(super) at: Option<Range<usize>>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Problem {
    pub(super) fn error(at: impl Into<Option<Range<usize>>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, at: at.into(), message: message.into(), hint: None }
    }

    pub(super) fn warning(at: impl Into<Option<Range<usize>>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(at, message) }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Sources {
    /// Adds a piece and returns its index.
    pub(super) fn add(&mut self, origin: Origin, text: String) -> usize {
        // One more than the length: the end of a piece belongs to it, not to the next one.
        let start = self.0.last().map_or(0, |last| last.start + last.text.len() + 1);
        self.0.push(Source { origin, text, start });
        self.0.len() - 1
    }

    pub(super) fn get(&self, index: usize) -> &Source {
        &self.0[index]
    }

    fn at(&self, offset: usize) -> Option<&Source> {
        let index = self.0.partition_point(|source| source.start <= offset);
        self.0.get(index.checked_sub(1)?)
    }

    /// Returns the place where a range begins.
    pub(super) fn place(&self, range: &Range<usize>) -> Place {
        self.at(range.start).map_or(Place::Default, |source| match &source.origin {
            Origin::File(path) => {
                let before = &source.text[..source.floor(range.start)];
                let line_start = before.rfind('\n').map_or(0, |feed| feed + 1);
                Place::File {
                    path: path.clone(),
                    line: before.matches('\n').count() + 1,
                    column: before[line_start..].chars().count() + 1,
                }
            }
            Origin::Environment(name) => Place::Environment { name: name.clone() },
            Origin::Flag(name) => Place::Flag { name: name.clone() },
        })
    }

    /// Turns problems into findings for people, in the order of the text.
    pub(super) fn findings(&self, mut problems: Vec<Problem>) -> Vec<Finding> {
        problems.sort_by_key(|problem| problem.at.as_ref().map_or(usize::MAX, |at| at.start));
        problems
            .into_iter()
            .map(|Problem { severity, at, message, hint }| Finding {
                severity,
                message,
                hint,
                place: at.as_ref().map(|at| self.place(at)),
                excerpt: at.and_then(|at| self.excerpt(&at)),
            })
            .collect()
    }

    fn excerpt(&self, range: &Range<usize>) -> Option<Excerpt> {
        let source = self.at(range.start)?;
        if !matches!(source.origin, Origin::File(_)) {
            return None;
        }
        let (start, end) = (source.floor(range.start), source.floor(range.end));
        let line_start = source.text[..start].rfind('\n').map_or(0, |feed| feed + 1);
        let rest = &source.text[line_start..];
        let line = rest.split('\n').next().unwrap_or(rest).trim_end_matches('\r');
        let chars = |end: usize| {
            let end = end.clamp(line_start, line_start + line.len());
            source.text[line_start..end].chars().count()
        };
        Some(Excerpt { line: conceal(line), marked: chars(start)..chars(end) })
    }
}

impl Source {
    /// Returns `true` if it is an environment variable.
    pub(super) fn is_variable(&self) -> bool {
        matches!(self.origin, Origin::Environment(_))
    }

    /// Turns an offset in the whole text into one in this piece, at the beginning of a character.
    fn floor(&self, offset: usize) -> usize {
        let mut at = offset.saturating_sub(self.start).min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

/// Keys whose value must not be shown, whatever is wrong on their line, even if they are misspelt.
const SECRET_KEYS: [&str; 4] = ["token", "password", "secret", "nkey"];

/// Returns the line with a star for each character of a secret, so that columns stay as they are.
fn conceal(line: &str) -> String {
    let mut shown: Vec<char> = line.chars().collect();
    for (sign, _) in line.match_indices('=') {
        let key = line[..sign].trim_end().trim_end_matches(['"', '\'']);
        let key = key.rsplit(|char: char| !char.is_alphanumeric() && !"-_".contains(char)).next();
        let value = line[sign + 1..].trim_start_matches([' ', '\t', '[']);
        let quote = value.chars().next().filter(|char| matches!(char, '"' | '\''));
        let (Some(key), Some(quote)) = (key, quote) else { continue };
        // The addresses of webhooks.
        let is_secret_url = key.ends_with("_url") && key != "external_url";
        if !is_secret_url && nearest(key, SECRET_KEYS).is_none() {
            continue;
        }
        let inner = value.trim_start_matches(quote);
        let from = line.chars().count() - inner.chars().count();
        let length = inner.chars().take_while(|char| *char != quote).count();
        shown[from..from + length].fill('*');
    }
    // `scheme://user:password@host`
    for (at, _) in line.match_indices("://") {
        let authority = &line[at + 3..];
        let end = authority.find(['/', '"', '\'']).unwrap_or(authority.len());
        if let Some(sign) = authority[..end].rfind('@') {
            let from = line[..at + 3].chars().count();
            let length = authority[..sign].chars().count();
            shown[from..from + length].fill('*');
        }
    }
    shown.into_iter().collect()
}

/// A table with ranges.
pub(super) type Tree<'s> = DeTable<'s>;

/// Parses a whole file; if it has mistakes, returns as much as could be understood.
pub(super) fn parse<'s>(source: &'s Source, problems: &mut Vec<Problem>) -> Tree<'s> {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    problems.extend(errors.into_iter().map(|error| {
        let at = error.span().unwrap_or(0..0);
        // If it is not TOML at all, the parser's own words are used.
        Problem::error(shift(&at, source.start), error.message().to_lowercase())
    }));
    move_table(table.into_inner(), source.start)
}

/// Parses a single value, such as that of a variable.
pub(super) fn parse_value(source: &Source) -> Option<Spanned<DeValue<'_>>> {
    let value = DeValue::parse(source.text.trim()).ok()?;
    Some(move_value(value, source.start))
}

/// Returns the key and value at a path.
pub(super) fn find<'t, 's>(
    table: &'t Tree<'s>,
    path: &[impl AsRef<str>],
) -> Option<(&'t Spanned<Cow<'s, str>>, &'t Spanned<DeValue<'s>>)> {
    let (first, rest) = path.split_first()?;
    let (key, value) = table.get_key_value(first.as_ref())?;
    if rest.is_empty() { Some((key, value)) } else { find(value.get_ref().as_table()?, rest) }
}

/// Sets the value at a path, replacing any that is there.
pub(super) fn set<'s>(table: &mut Tree<'s>, path: &[String], value: Spanned<DeValue<'s>>) {
    let Some((first, rest)) = path.split_first() else { return };
    let span = value.span();
    let key = || Spanned::new(span.clone(), Cow::Owned(first.clone()));
    if rest.is_empty() {
        table.remove(first.as_str());
        table.insert(key(), value);
        return;
    }
    let is_table = table.get(first.as_str()).is_some_and(|inner| inner.get_ref().is_table());
    if !is_table {
        table.remove(first.as_str());
        table.insert(key(), Spanned::new(span.clone(), DeValue::Table(DeTable::new())));
    }
    if let Some(DeValue::Table(inner)) = table.get_mut(first.as_str()).map(Spanned::get_mut) {
        set(inner, rest, value);
    }
}

fn shift(range: &Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

fn move_table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    table
        .into_iter()
        .map(|(key, value)| {
            let span = shift(&key.span(), by);
            (Spanned::new(span, key.into_inner()), move_value(value, by))
        })
        .collect()
}

fn move_value(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = shift(&value.span(), by);
    let moved = match value.into_inner() {
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| move_value(item, by)).collect())
        }
        DeValue::Table(table) => DeValue::Table(move_table(table, by)),
        scalar => scalar,
    };
    Spanned::new(span, moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_concealed_and_columns_kept() {
        for (line, shown) in [
            (r#"token = "hunter2" # x"#, r#"token = "*******" # x"#),
            (r#"token = "hunter2"#, r#"token = "*******"#),
            (r#"tokn = "hunter2""#, r#"tokn = "*******""#),
            (r#"lang = "de""#, r#"lang = "de""#),
            (r#"nkey = "SUA""#, r#"nkey = "***""#),
            (r#"node = "w""#, r#"node = "w""#),
            (r#"client_key = "k.pem""#, r#"client_key = "k.pem""#),
            (r#"error_url = "http://h/x""#, r#"error_url = "**********""#),
            (r#"external_url = "http://h""#, r#"external_url = "http://h""#),
            ("token='hunter2'", "token='*******'"),
            (
                r#"{ url = "a", password = "pö", x = 1 }"#,
                r#"{ url = "a", password = "**", x = 1 }"#,
            ),
            (r#""password" = "p""#, r#""password" = "*""#),
            (r#"proxies = ["http://me:pw@host:1"]"#, r#"proxies = ["http://*****@host:1"]"#),
            (r#"token = { env = "NAME" }"#, r#"token = { env = "NAME" }"#),
        ] {
            assert_eq!(conceal(line), shown);
        }
    }
}
