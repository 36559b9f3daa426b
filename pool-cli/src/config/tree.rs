//! The values of a configuration before they have types, each with its range in the
//! [`Sources`](super::source::Sources).

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::source::{Problem, Source};

/// A table with ranges.
pub(super) type Tree<'s> = DeTable<'s>;

/// Parses a whole file; with mistakes in it, what could be made of the rest.
pub(super) fn parse<'s>(source: &'s Source, problems: &mut Vec<Problem>) -> Tree<'s> {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    problems.extend(errors.into_iter().map(|error| {
        let at = error.span().unwrap_or(0..0);
        // The parser's own words for what is not TOML at all.
        Problem::error(shift(&at, source.start), error.message().to_lowercase())
    }));
    move_table(table.into_inner(), source.start)
}

/// Parses one value, as of a variable.
pub(super) fn parse_value(source: &Source) -> Option<Spanned<DeValue<'_>>> {
    let value = DeValue::parse(source.text.trim()).ok()?;
    Some(move_value(value, source.start))
}

/// The key and value at a path.
pub(super) fn find<'t, 's>(
    table: &'t Tree<'s>,
    path: &[impl AsRef<str>],
) -> Option<(&'t Spanned<Cow<'s, str>>, &'t Spanned<DeValue<'s>>)> {
    let (first, rest) = path.split_first()?;
    let (key, value) = table.get_key_value(first.as_ref())?;
    if rest.is_empty() { Some((key, value)) } else { find(value.get_ref().as_table()?, rest) }
}

/// Sets the value at a path, over what is there.
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
