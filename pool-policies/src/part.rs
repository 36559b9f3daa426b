//! The names of profiles, regions and tenants, and the parts of classes that are made of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use pool_core::{Adjustment, Class, Limits};

use crate::PolicyError;

/// Longest name of a profile, region or tenant, in bytes: with a suffix it still fits a file name.
const MAX_LENGTH: usize = 64;

/// Checks a name that may become the name of a directory or part of a command line.
///
/// A name consists of ASCII letters, digits, dots, dashes and underscores, and begins with a letter
/// or digit. That leaves no way to write a path (`..`, `/`), a flag (`--x`), a hidden file or a
/// control character.
pub(crate) fn check_name(kind: &'static str, name: &str) -> Result<(), PolicyError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let why = match name.as_bytes() {
        [] => "it is empty",
        bytes if bytes.len() > MAX_LENGTH => "it is longer than 64 bytes",
        [first, ..] if !first.is_ascii_alphanumeric() => "it must begin with a letter or a digit",
        bytes if bytes.iter().all(|byte| plain(*byte)) => return Ok(()),
        _ => "only letters, digits, dots, dashes and underscores are allowed",
    };
    Err(PolicyError::Name { kind, name: shorten(name), why })
}

/// Returns the error for a name that does not exist.
pub(crate) fn unknown(kind: &'static str, name: &str) -> PolicyError {
    PolicyError::Unknown { kind, name: shorten(name) }
}

/// Returns as much of an untrusted string as an error message should repeat.
pub(crate) fn shorten(name: &str) -> String {
    name.chars().take(MAX_LENGTH).collect()
}

/// Number of combinations with other policies' parts that are kept; further ones are built each
/// time.
const MAX_JOINED: usize = 64;

/// One policy's part of a class, ready to be put into the classes of requests.
///
/// Classifying happens at every acquire. Building a class allocates; cloning an existing one only
/// counts a reference, and such clones also compare equal by pointer.
#[derive(Debug)]
pub(crate) struct Part {
    label: &'static str,
    value: Arc<str>,
    alone: Class,
    /// Classes begun by other policies, each with the same class plus this part.
    joined: RwLock<Vec<(Class, Class)>>,
}

impl Part {
    pub(crate) fn new(label: &'static str, value: Arc<str>) -> Self {
        let mut alone = Class::default();
        alone.insert(label, value.clone());
        Self { label, value, alone, joined: RwLock::default() }
    }

    /// Returns the class that has this part only.
    pub(crate) fn alone(&self) -> &Class {
        &self.alone
    }

    /// Adds this part to a class.
    pub(crate) fn join(&self, class: &mut Class) {
        if class.is_default() {
            class.clone_from(&self.alone);
            return;
        }
        let joined = self.joined.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, after)) = joined.iter().find(|(before, _)| before == class) {
            class.clone_from(after);
            return;
        }
        drop(joined);
        let before = class.clone();
        class.insert(self.label, self.value.clone());
        let mut joined = self.joined.write().unwrap_or_else(PoisonError::into_inner);
        if joined.len() < MAX_JOINED && joined.iter().all(|(held, _)| *held != before) {
            joined.push((before, class.clone()));
        }
    }
}

/// Tells the pool, once, which classes must keep something ready before anybody asks for them.
///
/// A pool learns of a class when the first request for it comes; one with a minimum must exist
/// before that.
#[derive(Debug)]
pub(crate) struct Announce {
    pending: AtomicBool,
    adjustments: Vec<Adjustment>,
}

impl Announce {
    pub(crate) fn new(classes: impl IntoIterator<Item = (Class, Limits)>) -> Self {
        let adjustments: Vec<_> = classes
            .into_iter()
            .filter(|(_, limits)| limits.min.unwrap_or(0) > 0 || limits.warm.unwrap_or(0) > 0)
            .map(|(class, limits)| Adjustment::Class(class, limits))
            .collect();
        Self { pending: AtomicBool::new(!adjustments.is_empty()), adjustments }
    }

    /// Returns the announcement the first time, and nothing after that.
    pub(crate) fn take(&self) -> Vec<Adjustment> {
        if self.pending.swap(false, Ordering::Relaxed) {
            self.adjustments.clone()
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in ["work", "eu-west", "a", "9", "user_1.test", &"x".repeat(64)] {
            assert!(check_name("profile", name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_could_be_a_path_or_a_flag_are_refused() {
        let long = "x".repeat(65);
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            "/etc",
            "-x",
            "--proxy-server=x",
            ".hidden",
            "_x",
            "a b",
            "a\0b",
            "a\nb",
            "ä",
            "a%2f",
            "a=b",
            "a,b",
            "~",
            &long,
        ] {
            assert!(check_name("profile", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn an_error_repeats_only_the_beginning_of_a_long_name() {
        let error = check_name("profile", &"/".repeat(100_000)).unwrap_err();
        assert!(error.to_string().len() < 300);
    }

    fn class(parts: &[(&'static str, &str)]) -> Class {
        let mut class = Class::default();
        for (label, value) in parts {
            class.insert(label, *value);
        }
        class
    }

    #[test]
    fn a_part_joins_the_empty_class() {
        let mut joined = Class::default();
        Part::new("profile", "work".into()).join(&mut joined);
        assert_eq!(joined, class(&[("profile", "work")]));
    }

    #[test]
    fn a_part_joins_what_others_began_the_first_time_and_ever_after() {
        let part = Part::new("region", "eu".into());
        for profile in ["work", "home", "work", "home"] {
            let mut joined = class(&[("profile", profile)]);
            part.join(&mut joined);
            assert_eq!(joined, class(&[("profile", profile), ("region", "eu")]));
        }
    }

    #[test]
    fn no_more_combinations_are_kept_than_a_stranger_may_cause() {
        let part = Part::new("region", "eu".into());
        for n in 0..1000 {
            let mut joined = class(&[("profile", &n.to_string())]);
            part.join(&mut joined);
            assert_eq!(joined.get("region"), Some("eu"));
        }
        assert_eq!(part.joined.read().unwrap().len(), MAX_JOINED);
    }

    #[test]
    fn only_classes_that_keep_something_are_told_and_only_once() {
        let mut work = Class::default();
        work.insert("profile", "work");
        let keeps = Limits { min: Some(1), ..Limits::default() };
        let none = Limits { min: Some(0), max: Some(3), warm: None };
        let announce = Announce::new([(work.clone(), keeps), (Class::default(), none)]);
        assert_eq!(announce.take(), [Adjustment::Class(work, keeps)]);
        assert_eq!(announce.take(), []);
    }
}
