//! Whether every value is what the schema says.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::kind;
use super::scalar;
use super::secrets::Secrets;
use super::shape::{ROOT, Shape, Table};
use super::source::Problem;
use super::suggest::{did_you_mean, nearest, or};
use super::tree::Tree;

/// Takes out of a tree what cannot be used, with a problem for each, and replaces references to
/// secrets by the secrets.
///
/// What is left deserializes, so that the rules about several settings can be checked as well and
/// everything that is wrong is said at once. The second part of the answer are the paths of known
/// keys that were taken out.
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
                    // One that is wrong would shift the others, so it takes the list with it.
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
            (shape, value) => match scalar::check(&value, shape, name, &span) {
                Ok(()) => return Some(Spanned::new(span, value)),
                Err(problem) => problem,
            },
        };
        self.problems.push(problem);
        None
    }

    /// A table that is one value: what is missing or wrong in it makes it unusable as a whole.
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
    let elsewhere = sections_with(name);
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

/// The sections that have a key of that name.
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
