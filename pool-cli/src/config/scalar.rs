//! Whether one value is what the schema says.

use std::ops::Range;

use toml::de::DeValue;

use super::kind::Kind;
use super::shape::{Choice, Shape};
use super::source::Problem;
use super::suggest::{nearest, or};

/// Checks that it is of its type and in its range.
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
        _ => problem.hint(format!("write \"{number}\"")),
    }
}

/// Returns what a value is.
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
