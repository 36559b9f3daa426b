use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use super::copies::ProfileId;
use crate::transport::Upload;

/// Largest number of objects, and of uploads, that are removed in one sweep.
const SWEPT: usize = 100;

/// Finds what can be removed from the store, by this node's own clock: the timestamps of objects
/// come from the nodes that made them, whose clocks may be a day off.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    objects: Idle<String>,
    uploads: Idle<Upload>,
}

impl Sweeper {
    /// Returns the objects that their profiles have not referred to for a long time. `current` has
    /// the object of each entry, or `None` for a new profile.
    ///
    /// An object whose profile has no entry stays: the entry may have been lost.
    pub(super) fn unused(
        &mut self,
        objects: Vec<String>,
        current: &HashMap<String, Option<String>>,
        now: Duration,
        after: Duration,
    ) -> Vec<String> {
        let replaced = |object: &String| {
            let id = ProfileId::of_object(object);
            let stands = id.and_then(|id| current.get(&id.key()));
            stands.is_some_and(|stands| stands.as_ref() != Some(object))
        };
        self.objects.lasting(objects.into_iter().filter(replaced).collect(), now, after)
    }

    /// Returns the uploads that have not grown for a long time.
    pub(super) fn failed(
        &mut self,
        uploads: Vec<Upload>,
        now: Duration,
        after: Duration,
    ) -> Vec<Upload> {
        self.uploads.lasting(uploads.into_iter().collect(), now, after)
    }
}

/// Remembers since when each thing has been idle.
#[derive(Debug)]
struct Idle<T> {
    since: HashMap<T, Duration>,
}

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self { since: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Idle<T> {
    /// Returns at most [`SWEPT`] of the things that are idle now and have been for at least
    /// `after`.
    fn lasting(&mut self, idle: HashSet<T>, now: Duration, after: Duration) -> Vec<T> {
        self.since.retain(|thing, _| idle.contains(thing));
        for thing in idle {
            self.since.entry(thing).or_insert(now);
        }
        let lasting = self.since.iter().filter(|(_, since)| now.saturating_sub(**since) >= after);
        lasting.map(|(thing, _)| thing.clone()).take(SWEPT).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(
        sweeper: &mut Sweeper,
        minutes: u64,
        objects: &[&str],
        current: &[(&str, &str)],
    ) -> Vec<String> {
        let objects = objects.iter().map(|object| (*object).to_owned()).collect();
        let current = current
            .iter()
            .map(|(key, object)| ((*key).to_owned(), Some((*object).to_owned())))
            .collect();
        sweeper.unused(objects, &current, Duration::from_secs(minutes * 60), HOUR)
    }

    #[test]
    fn an_object_is_removed_an_hour_after_another_has_replaced_it() {
        let mut sweeper = Sweeper::default();
        let objects = ["crm/eu/0/a", "crm/eu/0/b"];
        let (a, b) = ([("crm=2Feu.0", "crm/eu/0/a")], [("crm=2Feu.0", "crm/eu/0/b")]);
        assert_eq!(at(&mut sweeper, 0, &objects, &a), [""; 0]);
        assert_eq!(at(&mut sweeper, 59, &objects, &a), [""; 0]);
        assert_eq!(at(&mut sweeper, 60, &objects, &a), ["crm/eu/0/b"]);
        // It is referred to again, so its hour starts again.
        assert_eq!(at(&mut sweeper, 70, &objects, &b), [""; 0]);
        assert_eq!(at(&mut sweeper, 80, &objects, &a), [""; 0]);
        assert_eq!(at(&mut sweeper, 139, &objects, &a), [""; 0]);
        assert_eq!(at(&mut sweeper, 140, &objects, &a), ["crm/eu/0/b"]);
    }

    #[test]
    fn the_objects_of_a_profile_without_an_entry_stay() {
        let mut sweeper = Sweeper::default();
        let objects = ["work/0/a", "work/1/a", "odd"];
        let other = [("work.1", "work/1/a")];
        for minutes in [0, 60, 600] {
            assert_eq!(at(&mut sweeper, minutes, &objects, &other), [""; 0]);
        }
    }
    #[test]
    fn what_was_saved_before_a_profile_was_made_new_is_removed() {
        let mut sweeper = Sweeper::default();
        let (objects, new) =
            (vec!["work/0/a".to_owned()], HashMap::from([("work.0".into(), None)]));
        assert_eq!(sweeper.unused(objects.clone(), &new, Duration::ZERO, HOUR), [""; 0]);
        assert_eq!(sweeper.unused(objects, &new, HOUR, HOUR), ["work/0/a"]);
    }

    #[test]
    fn an_upload_is_removed_when_it_has_not_grown_for_an_hour() {
        let mut sweeper = Sweeper::default();
        let mut at = |minutes: u64, parts| {
            let now = Duration::from_secs(minutes * 60);
            sweeper.failed(vec![Upload::new("u".into(), parts)], now, HOUR)
        };
        assert_eq!(at(0, 1), []);
        assert_eq!(at(59, 2), []);
        assert_eq!(at(118, 2), []);
        assert_eq!(at(119, 2), [Upload::new("u".into(), 2)]);
    }

    #[test]
    fn one_sweep_removes_no_more_than_its_bound_and_the_next_goes_on() {
        let mut sweeper = Sweeper::default();
        let mut left: Vec<Upload> = (0..SWEPT + 1).map(|n| Upload::new(n.to_string(), 1)).collect();
        assert_eq!(sweeper.failed(left.clone(), Duration::ZERO, HOUR), []);
        let first = sweeper.failed(left.clone(), HOUR, HOUR);
        assert_eq!(first.len(), SWEPT);
        left.retain(|upload| !first.contains(upload));
        assert_eq!(sweeper.failed(left.clone(), HOUR, HOUR), left);
    }
}
