//! The notation of durations, sizes and the like in the configuration.
//!
//! Each `As…` type is named by `#[serde(with = "…")]` on a field: it reads and writes the value,
//! and it is also the field's schema, so the two cannot disagree.

use std::borrow::Cow;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Value that stands for the absence of a limit.
pub(super) const OFF: &str = "off";

/// A duration such as `"30s"`; longer than zero.
pub(super) struct AsDuration;

/// A duration, or `"off"`.
pub(super) struct AsDurationOrOff;

/// A size in bytes such as `"512MiB"`.
pub(super) struct AsSize;

/// A size in bytes such as `"512MiB"`, or `"off"`.
pub(super) struct AsSizeOrOff;

/// A number from 1, or `"off"`.
pub(super) struct AsCountOrOff;

/// A number of CPUs, also in parts, or `"off"`.
pub(super) struct AsCpusOrOff;

/// An `http`, `https`, `ws` or `wss` url, if any.
pub(super) struct AsUrl;

/// A path, if any.
pub(super) struct AsPath;

/// A socket address.
pub(super) struct AsAddress;

impl AsDuration {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        duration(&text(from, "a duration such as \"30s\" or \"1h 30m\"")?).map_err(D::Error::custom)
    }

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*value))
    }
}

impl AsDurationOrOff {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = text(from, "a duration such as \"30s\" or \"off\"")?;
        unless_off(&text, duration).map_err(D::Error::custom)
    }

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        or_off(value.map(humantime::format_duration), to)
    }
}

impl AsSize {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
        size(&text(from, "a size such as \"512MiB\"")?).map_err(D::Error::custom)
    }

    pub(super) fn serialize<S: Serializer>(value: &ByteSize, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_size(*value))
    }
}

impl AsSizeOrOff {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<ByteSize>, D::Error> {
        let text = text(from, "a size such as \"512MiB\" or \"off\"")?;
        unless_off(&text, size).map_err(D::Error::custom)
    }

    pub(super) fn serialize<S: Serializer>(
        value: &Option<ByteSize>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        or_off(value.map(format_size), to)
    }
}

impl AsCountOrOff {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        struct CountOrOff;

        impl Visitor<'_> for CountOrOff {
            type Value = Option<u64>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a whole number from 1 or \"off\"")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Option<u64>, E> {
                u64::try_from(value)
                    .ok()
                    .filter(|count| *count > 0)
                    .map(Some)
                    .ok_or_else(|| E::invalid_value(Unexpected::Signed(value), &self))
            }

            /// JSON has unsigned numbers; TOML does not.
            fn visit_u64<E: Error>(self, value: u64) -> Result<Option<u64>, E> {
                match i64::try_from(value) {
                    Ok(value) => self.visit_i64(value),
                    Err(_) => Err(E::invalid_value(Unexpected::Unsigned(value), &self)),
                }
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Option<u64>, E> {
                match value {
                    OFF => Ok(None),
                    _ => Err(E::invalid_value(Unexpected::Str(value), &self)),
                }
            }
        }

        from.deserialize_any(CountOrOff)
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(count) => to.serialize_u64(*count),
            None => to.serialize_str(OFF),
        }
    }
}

impl AsCpusOrOff {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        struct CpusOrOff;

        impl Visitor<'_> for CpusOrOff {
            type Value = Option<f64>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of CPUs or \"off\"")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Option<f64>, E> {
                Ok(Some(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Option<f64>, E> {
                let whole = i32::try_from(value);
                whole
                    .map(|cpus| Some(f64::from(cpus)))
                    .map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Option<f64>, E> {
                match value {
                    OFF => Ok(None),
                    _ => Err(E::invalid_value(Unexpected::Str(value), &self)),
                }
            }
        }

        from.deserialize_any(CpusOrOff)
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(cpus) => to.serialize_f64(*cpus),
            None => to.serialize_str(OFF),
        }
    }
}

impl AsUrl {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<String>, D::Error> {
        text(from, "a url such as \"wss://pool.example\"").map(Some)
    }

    pub(super) fn serialize<S: Serializer>(
        value: &Option<String>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }
}

impl AsPath {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        PathBuf::deserialize(from).map(Some)
    }

    pub(super) fn serialize<S: Serializer>(
        value: &Option<PathBuf>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }
}

fn text<'de, D: Deserializer<'de>>(from: D, expected: &'static str) -> Result<String, D::Error> {
    struct Text(&'static str);

    impl Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, value: &str) -> Result<String, E> {
            Ok(value.to_owned())
        }
    }

    from.deserialize_str(Text(expected))
}

fn unless_off<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text == OFF { Ok(None) } else { parse(text).map(Some) }
}

fn or_off<S: Serializer>(value: Option<impl Display>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(&value),
        None => to.serialize_str(OFF),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("a duration must be longer than zero".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!("`{text}` is not a duration")),
    }
}

pub(super) fn size(text: &str) -> Result<ByteSize, String> {
    let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
    match text.parse::<ByteSize>() {
        Ok(size) if has_unit && size.as_u64() > 0 => Ok(size),
        Ok(_) if has_unit => Err("a size must be more than zero".to_owned()),
        _ => Err(format!("`{text}` is not a size")),
    }
}

/// Formats a size without a fraction, so that it reads back as the same number of bytes.
fn format_size(size: ByteSize) -> String {
    let bytes = size.as_u64();
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    units
        .into_iter()
        .find(|(shift, _)| bytes.trailing_zeros() >= *shift)
        .map_or_else(|| format!("{bytes}B"), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

macro_rules! schema {
    ($($name:ident => $schema:tt)*) => { $(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )* };
}

schema! {
    AsDuration => { "type": "string", "x-kind": "duration" }
    AsDurationOrOff => { "type": "string", "x-kind": "duration or off" }
    AsSize => { "type": "string", "x-kind": "size" }
    AsSizeOrOff => { "type": "string", "x-kind": "size or off" }
    AsCountOrOff => { "type": ["integer", "string"], "x-kind": "count or off", "minimum": 1 }
    AsCpusOrOff => { "type": ["number", "string"], "x-kind": "cpus or off", "minimum": 0.01, "maximum": 1024.0 }
    AsUrl => { "type": "string", "x-kind": "public url" }
    AsPath => { "type": "string", "x-kind": "path" }
    AsAddress => { "type": "string", "x-kind": "address" }
}
