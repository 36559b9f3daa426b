//! The JSON schema of the configuration, for editors, and the source of everything else that must
//! know the keys.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use super::Config;

/// Where the schema of this version is published; `init` names it for editors.
pub const URL: &str =
    concat!(env!("CARGO_PKG_REPOSITORY"), "/raw/main/pool-cli/config.schema.json");

/// The schema, the same on every machine.
///
/// Besides the standard keywords it has `x-kind`, which says what a string means: `duration`,
/// `size or off`, `path`, …
#[must_use]
pub fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(without_null))
        .with_transform(RecursiveTransform(without_table_defaults));
    let mut schema = settings.into_generator().into_root_schema_for::<Config>();
    // Written first, where a reader looks for it.
    schema.insert("$id".to_owned(), URL.into());
    schema
}

/// The schema as it is committed and printed.
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

/// TOML has no null: what is not set is left out.
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

/// The default of a table repeats those of its keys, and some of those depend on the machine.
fn without_table_defaults(schema: &mut Schema) {
    if schema.get("type").is_some_and(|name| name == "object") {
        schema.remove("default");
    }
}
