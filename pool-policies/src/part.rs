use std::sync::{Arc, PoisonError, RwLock};

use pool_core::Class;

/// Past this many combinations with other policies' parts, further ones are built each time.
const MAX_JOINED: usize = 64;

/// One policy's part of a class, ready to be put into the classes of requests.
///
/// Classifying happens at every acquire. To build a class allocates; to clone one that was built
/// before only counts a reference, and such clones are also equal at a glance.
#[derive(Debug)]
pub(crate) struct Part {
    label: &'static str,
    value: Arc<str>,
    alone: Class,
    /// Classes that other policies had begun, and the same with this part.
    joined: RwLock<Vec<(Class, Class)>>,
}

impl Part {
    pub(crate) fn new(label: &'static str, value: Arc<str>) -> Self {
        let mut alone = Class::default();
        alone.insert(label, value.clone());
        Self { label, value, alone, joined: RwLock::default() }
    }

    /// The class that has this part only.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
