//! Settings from environment variables and flags.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;

use super::finding::{did_you_mean, nearest};
use super::schema::{ROOT, Shape, Table};
use super::source::{self, Origin, Problem, Source, Sources, Tree};

/// Prefix of the environment variables that are settings: `POOL__SECTION__KEY`.
pub(super) const PREFIX: &str = "POOL__";

/// Names that users of browserless and OpenTelemetry know, and the settings that they map to.
pub(super) const ALIASES: [(&str, &str, &str); 11] = [
    ("TOKEN", "gateway", "token"),
    ("CONCURRENT", "pool", "max_size"),
    ("QUEUED", "pool", "max_waiting"),
    ("TIMEOUT", "pool", "lease_timeout"),
    ("EXTERNAL", "gateway", "external_url"),
    ("QUEUE_ALERT_URL", "alerts", "queue_url"),
    ("REJECT_ALERT_URL", "alerts", "reject_url"),
    ("TIMEOUT_ALERT_URL", "alerts", "timeout_url"),
    ("ERROR_ALERT_URL", "alerts", "error_url"),
    ("FAILED_HEALTH_URL", "alerts", "failed_health_url"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry", "otlp_endpoint"),
];

/// A setting from outside the file.
#[derive(Debug)]
pub(super) struct Override {
    path: Vec<String>,
    /// Index of the piece of the sources that holds the text.
    source: usize,
}

/// Finds the settings among the variables, weakest first.
pub(super) fn from_environment(
    variables: &BTreeMap<String, String>,
    sources: &mut Sources,
) -> Vec<Override> {
    let aliases = ALIASES.into_iter().filter_map(|(name, section, key)| {
        // Programs that start containers often pass on empty variables.
        let text = variables.get(name).filter(|text| !text.is_empty())?;
        // There, the unit is milliseconds, and -1 means no limit.
        let text = match name {
            "TIMEOUT" if text.trim() == "-1" => "off".to_owned(),
            "TIMEOUT" if text.trim().parse::<u64>().is_ok() => format!("{}ms", text.trim()),
            _ => text.clone(),
        };
        Some((name, vec![section.to_owned(), key.to_owned()], text))
    });
    let own = variables.iter().filter_map(|(name, text)| {
        let path = name.strip_prefix(PREFIX)?;
        let path = path.split("__").map(str::to_lowercase).collect();
        Some((name.as_str(), path, text.clone()))
    });
    aliases
        .chain(own)
        .map(|(name, path, text)| Override {
            path,
            source: sources.add(Origin::Environment(name.to_owned()), text),
        })
        .collect()
}

/// One setting from a flag; `path` is dotted.
pub(super) fn from_flag(flag: &str, path: &str, text: &str, sources: &mut Sources) -> Override {
    Override {
        path: path.split('.').map(str::to_owned).collect(),
        source: sources.add(Origin::Flag(flag.to_owned()), text.to_owned()),
    }
}

/// Puts the settings into the tree, overriding the file.
pub(super) fn apply<'s>(
    overrides: &[Override],
    sources: &'s Sources,
    tree: &mut Tree<'s>,
    problems: &mut Vec<Problem>,
) {
    for Override { path, source } in overrides {
        let source = sources.get(*source);
        match resolve(path, &ROOT, Some(tree)) {
            Ok((path, shape)) => source::set(tree, &path, read(source, shape)),
            Err(unknown) => {
                let at = source.start..source.start + source.text.len();
                let hint = match unknown {
                    Unknown::Near(path) if source.is_variable() => {
                        did_you_mean(&format!("{PREFIX}{}", path.join("__").to_uppercase()))
                    }
                    Unknown::Near(path) => did_you_mean(&path.join(".")),
                    Unknown::Known(words) => format!("known here: {}", words.join(", ")),
                    Unknown::TooDeep(name) => format!("`{name}` has no keys"),
                };
                problems.push(Problem::error(at, "there is no such setting").hint(hint));
            }
        }
    }
}

/// Reasons why a path leads nowhere.
enum Unknown {
    /// Paths that were probably meant.
    Near(Vec<String>),
    /// The names that exist at the point where the path goes wrong.
    Known(Vec<String>),
    /// A value on the path, which has nothing below it.
    TooDeep(String),
}

/// Returns the path as it is spelt in the file, and the shape that belongs there.
///
/// A shell cannot export `POOL__REGIONS__EU-WEST__MAX_SIZE`, so case does not matter in the names
/// of profiles and regions, and an underscore stands for a dash if the file has one there.
fn resolve<'k>(
    path: &[String],
    table: &'k Table,
    tree: Option<&Tree<'_>>,
) -> Result<(Vec<String>, &'k Shape), Unknown> {
    let names = || table.names().map(str::to_owned).collect();
    let Some((first, rest)) = path.split_first() else { return Err(Unknown::Known(names())) };
    let known = table.keys.iter().find(|key| key.name.eq_ignore_ascii_case(first));
    let (name, key) = match (known, &table.others) {
        (Some(key), _) => (key.name.clone(), key),
        (None, Some(others)) => {
            let plain = |name: &str| name.to_lowercase().replace('-', "_");
            let in_tree = || tree.iter().flat_map(|tree| tree.keys()).map(|key| key.get_ref());
            let in_file = in_tree()
                .find(|name| name.as_ref() == first)
                .or_else(|| in_tree().find(|name| plain(name) == plain(first)));
            (in_file.map_or(first.clone(), |name| name.to_string()), &**others)
        }
        (None, None) => {
            return Err(match nearest(first, table.names()) {
                Some(near) => Unknown::Near([&[near.to_owned()], rest].concat()),
                None => Unknown::Known(names()),
            });
        }
    };
    let (mut path, shape) = match (&key.shape, rest) {
        (shape, []) => (Vec::new(), shape),
        (Shape::Table(table), rest) => {
            let tree = tree.and_then(|tree| tree.get(name.as_str())?.get_ref().as_table());
            resolve(rest, table, tree).map_err(|unknown| match unknown {
                Unknown::Near(path) => Unknown::Near([std::slice::from_ref(&name), &path].concat()),
                other => other,
            })?
        }
        (
            Shape::List { .. }
            | Shape::Switch
            | Shape::Whole { .. }
            | Shape::Real { .. }
            | Shape::Choice(_)
            | Shape::Text(_)
            | Shape::Secret
            | Shape::TextOr(..),
            _,
        ) => return Err(Unknown::TooDeep(name)),
    };
    path.insert(0, name);
    Ok((path, shape))
}

/// Reads a text as the setting requires; if that is impossible, it stays a string and is refused as
/// one.
fn read<'s>(source: &'s Source, shape: &Shape) -> Spanned<DeValue<'s>> {
    let text = source.text.as_str();
    let string = || {
        let span = source.start..source.start + text.len();
        Spanned::new(span, DeValue::String(Cow::Borrowed(text)))
    };
    let is_toml = match shape {
        Shape::Text(_) | Shape::Choice(_) => false,
        Shape::Secret | Shape::TextOr(..) => text.trim_start().starts_with('{'),
        Shape::Table(_)
        | Shape::List { .. }
        | Shape::Switch
        | Shape::Whole { .. }
        | Shape::Real { .. } => true,
    };
    if is_toml { source::parse_value(source).unwrap_or_else(string) } else { string() }
}
