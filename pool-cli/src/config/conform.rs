//! Checks that every value matches the schema.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{did_you_mean, nearest, or};
use super::kind::{self, Kind};
use super::schema::{Choice, ROOT, Shape, Table};
use super::secret::Secrets;
use super::source::{Problem, Tree};

/// Removes from a tree whatever cannot be used, with a problem for each, and replaces references to
/// secrets by the secrets.
///
/// The rest deserializes, so that the rules about several settings can be checked as well and all
/// mistakes are reported at once. The second part of the result lists the paths of known keys that
/// were removed.
pub(super) fn conform<'s>(
    tree: Tree<'s>,
    secrets: &Secrets<'_>,
    problems: &mut Vec<Problem>,
) -> (Tree<'s>, Vec<Vec<String>>) {
    let mut conform = Conform { secrets, problems, refused: Vec::new() };
    let tree = conform.table(tree, &ROOT, &mut Vec::new());
    (tree, conform.refused)
}

struct Conform<'a> {
    secrets: &'a Secrets<'a>,
    problems: &'a mut Vec<Problem>,
    refused: Vec<Vec<String>>,
}

impl Conform<'_> {
    fn table<'s>(
        &mut self,
        table: DeTable<'s>,
        shape: &Table,
        path: &mut Vec<String>,
    ) -> DeTable<'s> {
        let mut kept = DeTable::new();
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let Some(known) = shape.key(&name) else {
                self.problems.push(unknown(&name, &key.span(), &value, shape, path));
                continue;
            };
            let is_named = shape.keys.iter().all(|key| key.name != name);
            if is_named && let Err(complaint) = kind::name(&name) {
                let problem = Problem::error(key.span(), complaint.message);
                self.problems.push(problem.hint(complaint.hint.unwrap_or_default()));
                continue;
            }
            path.push(name);
            match self.value(value, &known.shape, path) {
                Some(value) => {
                    kept.insert(key, value);
                }
                None => self.refused.push(path.clone()),
            }
            path.pop();
        }
        kept
    }

    fn value<'s>(
        &mut self,
        value: Spanned<DeValue<'s>>,
        shape: &Shape,
        path: &mut Vec<String>,
    ) -> Option<Spanned<DeValue<'s>>> {
        let span = value.span();
        let value = value.into_inner();
        let name = path.last().map_or("", String::as_str);
        let problem = match (shape, value) {
            (Shape::Table(table), DeValue::Table(inner)) => {
                return Some(Spanned::new(span, DeValue::Table(self.table(inner, table, path))));
            }
            (Shape::TextOr(_, table), DeValue::Table(inner)) => {
                return self.inline_table(inner, table, span, path);
            }
            (Shape::List { item, length }, DeValue::Array(items)) => {
                if length.is_none_or(|length| length == items.len()) {
                    // Removing one wrong item would shift the others, so the whole list is removed.
                    let count = items.len();
                    let kept: Vec<_> = items
                        .into_iter()
                        .filter_map(|value| self.value(value, item, path))
                        .collect();
                    let whole = kept.len() == count;
                    let list = DeValue::Array(kept.into_iter().collect());
                    return whole.then(|| Spanned::new(span, list));
                }
                let length = length.unwrap_or_default();
                Problem::error(
                    span,
                    format!("`{name}` must have {length} items, not {}", items.len()),
                )
            }
            (Shape::Secret, value @ (DeValue::String(_) | DeValue::Table(_))) => {
                match self.secrets.resolve(name, value, &span) {
                    Ok((value, warning)) => {
                        self.problems.extend(warning);
                        return Some(Spanned::new(span, value));
                    }
                    Err(problem) => problem,
                }
            }
            (shape, value) => match check(&value, shape, name, &span) {
                Ok(()) => return Some(Spanned::new(span, value)),
                Err(problem) => problem,
            },
        };
        self.problems.push(problem);
        None
    }

    /// Checks a table that is a single value: anything missing or wrong in it makes it unusable as
    /// a whole.
    fn inline_table<'s>(
        &mut self,
        inner: DeTable<'s>,
        shape: &Table,
        span: Range<usize>,
        path: &mut Vec<String>,
    ) -> Option<Spanned<DeValue<'s>>> {
        let count = inner.len();
        let missing =
            shape.keys.iter().find(|key| key.required && !inner.contains_key(key.name.as_str()));
        if let Some(key) = missing {
            let problem = Problem::error(span.clone(), format!("`{}` is missing", key.name));
            self.problems.push(problem.hint(format!("add {} = \"…\"", key.name)));
        }
        let is_complete = missing.is_none();
        let kept = self.table(inner, shape, path);
        let is_usable = is_complete && kept.len() == count;
        is_usable.then(|| Spanned::new(span, DeValue::Table(kept)))
    }
}

fn unknown(
    name: &str,
    span: &Range<usize>,
    value: &Spanned<DeValue<'_>>,
    table: &Table,
    path: &[String],
) -> Problem {
    let shown = name.escape_debug();
    if path.is_empty() && value.get_ref().is_table() {
        let problem = Problem::error(span.clone(), format!("unknown section [{shown}]"));
        return problem.hint(match nearest(name, table.names()) {
            Some(near) => format!("did you mean [{near}]?"),
            None => format!("known sections: {}", sections(table.names())),
        });
    }
    let message = match path {
        [] => format!("unknown key `{shown}` outside of any section"),
        path => format!("unknown key `{shown}` in [{}]", path.join(".")),
    };
    // Inside a table that is a value, another section's keys make no sense as a suggestion.
    let elsewhere = if path.len() > 2 { Vec::new() } else { sections_with(name) };
    Problem::error(span.clone(), message).hint(if !elsewhere.is_empty() {
        format!("it belongs in {}", or(&elsewhere))
    } else if let Some(near) = nearest(name, table.names()) {
        did_you_mean(near)
    } else if path.is_empty() {
        format!("known sections: {}", sections(table.names()))
    } else {
        format!("known keys: {}", table.names().collect::<Vec<_>>().join(", "))
    })
}

fn sections<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("[{name}]")).collect::<Vec<_>>().join(", ")
}

/// Returns the sections that have a key with that name.
fn sections_with(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for section in &ROOT.keys {
        let Shape::Table(table) = &section.shape else { continue };
        if table.keys.iter().any(|key| key.name == name) {
            found.push(format!("[{}]", section.name));
        }
        if let Some(Shape::Table(inner)) = table.others.as_ref().map(|key| &key.shape)
            && inner.keys.iter().any(|key| key.name == name)
        {
            found.push(format!("[{}.NAME]", section.name));
        }
    }
    found
}

/// Checks that a value has the right type and is in range.
pub(super) fn check(
    value: &DeValue<'_>,
    shape: &Shape,
    name: &str,
    span: &Range<usize>,
) -> Result<(), Problem> {
    let wrong = |expected: &str| {
        Problem::error(span.clone(), format!("`{name}` must be {expected}, not {}", noun(value)))
    };
    match (shape, value) {
        (Shape::Switch, DeValue::Boolean(_)) => Ok(()),
        (Shape::Whole { min, max, or_off }, DeValue::Integer(number)) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            match number {
                Ok(number) if (*min..=*max).contains(&number) => Ok(()),
                _ => Err(Problem::error(
                    span.clone(),
                    format!("`{name}` must be {}", whole(*min, *max, *or_off)),
                )),
            }
        }
        (Shape::Whole { or_off: true, .. }, DeValue::String(text)) if text == "off" => Ok(()),
        (Shape::Whole { min, max, or_off }, _) => {
            Err(with_quotes_off(wrong(&whole(*min, *max, *or_off)), value, |text| {
                text.parse::<i64>().is_ok()
            }))
        }
        (Shape::Real { or_off: true, .. }, DeValue::String(text)) if text == "off" => Ok(()),
        (Shape::Real { min, max, or_off }, DeValue::Integer(_) | DeValue::Float(_)) => {
            let text = match value {
                DeValue::Integer(number) => number.as_str(),
                DeValue::Float(number) => number.as_str(),
                _ => "",
            };
            match text.parse::<f64>() {
                Ok(number) if (*min..=*max).contains(&number) => Ok(()),
                _ => Err(Problem::error(
                    span.clone(),
                    format!("`{name}` must be {}", real(*min, *max, *or_off)),
                )),
            }
        }
        (Shape::Real { min, max, or_off }, _) => {
            Err(with_quotes_off(wrong(&real(*min, *max, *or_off)), value, |text| {
                text.parse::<f64>().is_ok()
            }))
        }
        (Shape::Switch, _) => {
            let problem = wrong("true or false");
            Err(match value {
                DeValue::Integer(number) if number.as_str() == "1" => problem.hint("write true"),
                DeValue::Integer(number) if number.as_str() == "0" => problem.hint("write false"),
                _ => with_quotes_off(problem, value, |text| matches!(text, "true" | "false")),
            })
        }
        (Shape::Choice(choices), DeValue::String(text)) => choice(choices, text, name, span),
        (Shape::Choice(choices), _) => Err(wrong(&words(choices))),
        (Shape::Text(kind) | Shape::TextOr(kind, _), DeValue::String(text)) => {
            kind.check(text).map_err(|complaint| {
                let problem = Problem::error(span.clone(), complaint.message);
                match complaint.hint {
                    Some(hint) => problem.hint(hint),
                    None => problem,
                }
            })
        }
        (Shape::Text(kind), _) => Err(text_hint(wrong(kind.noun()), *kind, value)),
        (Shape::TextOr(kind, _), _) => Err(wrong(&format!("{}, or a table", kind.noun()))),
        (Shape::List { item, .. }, _) => Err(match (&**item, value) {
            (Shape::Text(_) | Shape::TextOr(..), DeValue::String(_)) => {
                wrong("a list").hint("put it in brackets: [\"…\"]")
            }
            _ => wrong("a list"),
        }),
        (Shape::Table(_), _) => {
            Err(wrong("a section").hint(format!("write its keys below a line [{name}]")))
        }
        (Shape::Secret, _) => Err(wrong("a string, { env = \"NAME\" } or { file = \"PATH\" }")),
    }
}

fn choice(choices: &[Choice], text: &str, name: &str, span: &Range<usize>) -> Result<(), Problem> {
    if choices.iter().any(|choice| choice.word == text) {
        return Ok(());
    }
    let message = format!("`{name}` must be {}, not \"{}\"", words(choices), text.escape_debug());
    let problem = Problem::error(span.clone(), message);
    Err(match nearest(text, choices.iter().map(|choice| choice.word.as_str())) {
        Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
        None => problem,
    })
}

fn words(choices: &[Choice]) -> String {
    or(&choices.iter().map(|choice| format!("\"{}\"", choice.word)).collect::<Vec<_>>())
}

fn whole(min: i64, max: i64, or_off: bool) -> String {
    let range = match (min, max) {
        (0, i64::MAX) => "a whole number, 0 or more".to_owned(),
        (min, i64::MAX) => format!("a whole number, {min} or more"),
        (min, max) => format!("a whole number from {min} to {max}"),
    };
    if or_off { format!("{range}, or \"off\"") } else { range }
}

fn real(min: f64, max: f64, or_off: bool) -> String {
    let range = format!("a number from {min:?} to {max:?}");
    if or_off { format!("{range}, or \"off\"") } else { range }
}

/// For a value that would be right without its quotes.
fn with_quotes_off(problem: Problem, value: &DeValue<'_>, fits: fn(&str) -> bool) -> Problem {
    match value {
        DeValue::String(text) if fits(text) => {
            problem.hint(format!("write {text}, without quotes"))
        }
        _ => problem,
    }
}

fn text_hint(problem: Problem, kind: Kind, value: &DeValue<'_>) -> Problem {
    let number = match value {
        DeValue::Integer(number) => number.as_str(),
        DeValue::Float(number) => number.as_str(),
        DeValue::Boolean(false) if kind.has_off() => return problem.hint("write \"off\""),
        _ => return problem,
    };
    match kind {
        Kind::DurationOrOff | Kind::SizeOrOff if number == "0" => problem.hint("write \"off\""),
        Kind::Duration | Kind::DurationOrOff => problem.hint(format!("write \"{number}s\"")),
        Kind::SizeOrOff => problem.hint(format!("write \"{number}MiB\"")),
        Kind::Address => problem.hint(format!("write \"127.0.0.1:{number}\"")),
        Kind::Plain
        | Kind::Size
        | Kind::Path
        | Kind::Name
        | Kind::PublicUrl
        | Kind::PageUrl
        | Kind::ProxyUrl
        | Kind::CollectorUrl
        | Kind::NatsUrl
        | Kind::NodeUrl
        | Kind::Origin
        | Kind::HostName
        | Kind::Flag
        | Kind::Filter
        | Kind::HostPattern => problem.hint(format!("write \"{number}\"")),
    }
}

/// Describes a value in words.
fn noun(value: &DeValue<'_>) -> String {
    let noun = match value {
        DeValue::String(text) if text.chars().count() > 40 => "a long string",
        DeValue::String(text) => return format!("\"{}\"", text.escape_debug()),
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    noun.to_owned()
}
