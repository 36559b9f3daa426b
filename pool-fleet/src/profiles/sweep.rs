use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::copies::ProfileId;

/// Finds the objects that another one of their profile has replaced for long, by this node's own
/// clock: the times on objects are those of the nodes that made them, whose clocks may be a day off.
///
/// An object whose profile has no entry stays: the entry may have been lost.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    since: HashMap<String, Duration>,
}

impl Sweeper {
    pub(super) fn unused(
        &mut self,
        objects: Vec<String>,
        current: &HashMap<String, String>,
        now: Duration,
        after: Duration,
    ) -> Vec<String> {
        let replaced = |object: &String| {
            let id = ProfileId::of_object(object);
            let stands = id.and_then(|id| current.get(&id.key()));
            stands.is_some_and(|stands| stands != object)
        };
        let idle: HashSet<String> = objects.into_iter().filter(replaced).collect();
        self.since.retain(|object, _| idle.contains(object));
        let mut unused = Vec::new();
        for object in idle {
            let since = *self.since.entry(object.clone()).or_insert(now);
            if now.saturating_sub(since) >= after {
                unused.push(object);
            }
        }
        unused
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
        let current =
            current.iter().map(|(key, object)| ((*key).to_owned(), (*object).to_owned())).collect();
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
        // Referred to again, its hour begins anew.
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
}
