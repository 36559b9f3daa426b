use std::sync::atomic::{AtomicBool, Ordering};

use pool_core::{Adjustment, Class, Limits};

/// Tells the pool once of the classes that keep something ready before anybody asks for them.
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
