use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::kind::Kind;
use super::schema;

/// What a value of the configuration may be, read from the schema.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Table(Table),
    List {
        item: Box<Self>,
        /// How many items there must be, if that is fixed.
        length: Option<usize>,
    },
    Switch,
    Whole {
        min: i64,
        max: i64,
        or_off: bool,
    },
    Real {
        min: f64,
        max: f64,
        or_off: bool,
    },
    Choice(Vec<Choice>),
    Text(Kind),
    Secret,
    /// A string of some kind, or a table that says more.
    TextOr(Kind, Table),
}

/// A table: its keys, and what keys of any other name hold.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) keys: Vec<Key>,
    pub(super) others: Option<Box<Key>>,
}

/// One key of a table.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: String,
    /// Its documentation, in markdown.
    pub(super) about: String,
    pub(super) default: Option<Value>,
    pub(super) examples: Vec<Value>,
    pub(super) required: bool,
    /// For a section: whether it means something that it is there, an empty one too.
    pub(super) optional: bool,
    pub(super) shape: Shape,
}

/// One of a fixed set of words.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) word: String,
    pub(super) about: String,
}

/// The whole configuration.
pub(super) static ROOT: LazyLock<Table> = LazyLock::new(|| {
    let schema = Value::from(schema::schema());
    let object = schema.as_object().expect("the schema of a struct is an object");
    Table::read(object)
});

impl Table {
    fn read(schema: &Map<String, Value>) -> Self {
        let required = |name: &str| {
            let names = schema.get("required").and_then(Value::as_array);
            names.is_some_and(|names| names.iter().any(|required| required == name))
        };
        let keys = schema.get("properties").and_then(Value::as_object).map(|properties| {
            properties
                .iter()
                .filter_map(|(name, schema)| {
                    Some(Key::read(name, required(name), schema.as_object()?))
                })
                .collect()
        });
        let others = schema.get("additionalProperties").and_then(Value::as_object);
        Self {
            keys: keys.unwrap_or_default(),
            others: others.map(|schema| Box::new(Key::read("NAME", false, schema))),
        }
    }

    /// The key of that name; a table with other keys has every name.
    pub(super) fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name).or(self.others.as_deref())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.name.as_str())
    }
}

impl Key {
    fn read(name: &str, required: bool, schema: &Map<String, Value>) -> Self {
        Self {
            name: name.to_owned(),
            about: text(schema, "description"),
            default: schema.get("default").cloned(),
            examples: schema.get("examples").and_then(Value::as_array).cloned().unwrap_or_default(),
            required,
            optional: schema.contains_key("x-optional"),
            shape: Shape::read(schema),
        }
    }
}

impl Shape {
    fn read(schema: &Map<String, Value>) -> Self {
        let kind = schema.get("x-kind").and_then(Value::as_str);
        let objects = |keyword: &str| -> Option<Vec<&Map<String, Value>>> {
            Some(schema.get(keyword)?.as_array()?.iter().filter_map(Value::as_object).collect())
        };
        if kind == Some("secret") {
            return Self::Secret;
        }
        if let Some(choices) = objects("oneOf") {
            return Self::Choice(choices.into_iter().map(Choice::read).collect());
        }
        if let Some([string, table]) = objects("anyOf").as_deref() {
            let kind = string.get("x-kind").and_then(Value::as_str);
            return Self::TextOr(Kind::named(kind), Table::read(table));
        }
        let number = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
        let whole = |or_off| Self::Whole {
            min: number("minimum").map_or(i64::MIN, |min| min as i64),
            max: number("maximum").map_or(i64::MAX, |max| max as i64),
            or_off,
        };
        let real = |or_off| Self::Real {
            min: number("minimum").unwrap_or(f64::MIN),
            max: number("maximum").unwrap_or(f64::MAX),
            or_off,
        };
        match schema.get("type") {
            Some(Value::Array(types)) if types.iter().any(|name| name == "number") => real(true),
            Some(Value::Array(_)) => whole(true),
            Some(Value::String(name)) => match name.as_str() {
                "object" => Self::Table(Table::read(schema)),
                "array" => Self::List {
                    item: Box::new(Self::read(
                        schema.get("items").and_then(Value::as_object).unwrap_or(&Map::new()),
                    )),
                    length: number("maxItems").map(|length| length as usize),
                },
                "boolean" => Self::Switch,
                "integer" => whole(false),
                "number" => real(false),
                _ => Self::Text(Kind::named(kind)),
            },
            _ => Self::Text(Kind::named(kind)),
        }
    }
}

impl Choice {
    fn read(schema: &Map<String, Value>) -> Self {
        Self { word: text(schema, "const"), about: text(schema, "description") }
    }
}

fn text(schema: &Map<String, Value>, keyword: &str) -> String {
    schema.get(keyword).and_then(Value::as_str).unwrap_or_default().to_owned()
}
