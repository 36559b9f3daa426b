use std::fmt;
use std::sync::Arc;

/// A kind of resource: resources of one class are interchangeable, others are not.
///
/// A class is a short list of parts, one from each policy that tells resources apart
/// (`profile=work`, `region=eu-west`). The empty class is the default one. Clones are cheap.
///
/// # Examples
///
/// ```
/// use pool_core::Class;
///
/// let mut class = Class::default();
/// assert_eq!(class.to_string(), "default");
/// class.insert("profile", "work");
/// class.insert("region", "eu-west");
/// assert_eq!(class.get("profile"), Some("work"));
/// assert_eq!(class.to_string(), "profile=work,region=eu-west");
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(Option<Arc<[Part]>>);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Part {
    label: &'static str,
    value: Arc<str>,
}

impl Class {
    /// Adds a part, or replaces the part of the same label. The order of insertion does not
    /// matter.
    pub fn insert(&mut self, label: &'static str, value: impl Into<Arc<str>>) {
        let part = Part { label, value: value.into() };
        self.0 = Some(match self.0.take() {
            None => Arc::new([part]),
            Some(parts) => {
                let mut parts: Vec<Part> =
                    parts.iter().filter(|held| held.label != label).cloned().collect();
                let at = parts.partition_point(|held| held.label < label);
                parts.insert(at, part);
                parts.into()
            }
        });
    }

    /// The value of a part.
    #[must_use]
    pub fn get(&self, label: &str) -> Option<&str> {
        self.parts().find(|(held, _)| *held == label).map(|(_, value)| value)
    }

    /// All parts, ordered by label.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().flat_map(|parts| parts.iter()).map(|part| (part.label, &*part.value))
    }

    /// Returns `true` for the class of requests that ask for nothing in particular.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_default() {
            return f.write_str("default");
        }
        for (i, (label, value)) in self.parts().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{label}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Class({self})")
    }
}
