//! The JSON schema of the configuration, for editors, and the shapes that are read from it: the
//! source of everything else that needs to know the keys.

use std::sync::LazyLock;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::{Map, Value};

use super::Config;
use super::kind::Kind;

/// Where the schema of this version is published; `init` names it for editors.
pub const URL: &str =
    concat!(env!("CARGO_PKG_REPOSITORY"), "/raw/main/pool-cli/config.schema.json");

/// Returns the schema, which is the same on every machine.
///
/// In addition to the standard keywords it has `x-kind`, which gives the meaning of a string
/// (`duration`, `size or off`, `path`, …), and `x-reload`, which is false for a setting that only
/// changes with a restart.
#[must_use]
pub fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(without_null))
        .with_transform(RecursiveTransform(without_table_defaults));
    let mut schema = settings.into_generator().into_root_schema_for::<Config>();
    // Inserted first, where a reader looks for it.
    schema.insert("$id".to_owned(), URL.into());
    schema
}

/// Returns the schema as it is committed and printed.
///
/// # Panics
///
/// Never: a schema is made of strings, numbers, lists and tables.
#[must_use]
pub fn text() -> String {
    let mut text =
        serde_json::to_string_pretty(&schema()).expect("a schema has no keys but strings");
    text.push('\n');
    text
}

/// Leaves out null defaults: TOML has no null, so whatever is not set is left out.
fn without_null(schema: &mut Schema) {
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    let Some(Value::Array(choices)) = schema.get_mut("anyOf") else { return };
    choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        schema.remove("anyOf");
        for (key, value) in only {
            schema.insert(key, value);
        }
    }
}

/// Removes the defaults of tables, which repeat those of their keys, some of which depend on the
/// machine.
fn without_table_defaults(schema: &mut Schema) {
    if schema.get("type").is_some_and(|name| name == "object") {
        schema.remove("default");
    }
}

/// The values that a key of the configuration accepts, read from the schema.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Table(Table),
    List {
        item: Box<Self>,
        /// Number of items, if that is fixed.
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
    /// A string of some kind, or a table with more details.
    TextOr(Kind, Table),
}

/// A table: its keys, and the shape of keys with any other name.
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
    /// Set for a section whose presence has a meaning, even if it is empty.
    pub(super) optional: bool,
    /// Set if its value stays in force from the start to the end of a pool, so that a reload does
    /// not change it.
    pub(super) held: bool,
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
    let schema = Value::from(schema());
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

    /// Returns the key with that name; a table with other keys has every name.
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
            about: string(schema, "description"),
            default: schema.get("default").cloned(),
            examples: schema.get("examples").and_then(Value::as_array).cloned().unwrap_or_default(),
            required,
            optional: schema.contains_key("x-optional"),
            held: schema.get("x-reload").is_some_and(|taken| taken == false),
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
        Self { word: string(schema, "const"), about: string(schema, "description") }
    }
}

fn string(schema: &Map<String, Value>, keyword: &str) -> String {
    schema.get(keyword).and_then(Value::as_str).unwrap_or_default().to_owned()
}
