use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::{Incarnation, NodeName};

/// The entry of a profile in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// Generation of the profile, which grows each time the profile is made anew: microseconds
    /// since 1970, or one more than the last known generation, if that is greater.
    #[serde(default)]
    pub generation: u64,
    /// Number of saves in this generation.
    pub content: u64,
    /// The object that has this content. `None` for a new profile, and if the store was emptied
    /// while the profile was held.
    #[serde(default)]
    pub object: Option<String>,
    /// The holder, if there is one.
    #[serde(default)]
    pub holder: Option<Holder>,
    /// Counts the renewals, so that each of them changes the entry.
    #[serde(default)]
    pub renewals: u64,
    /// The node that stored the object; its own copy is equally new.
    #[serde(default)]
    pub saved_by: Option<NodeName>,
}

impl Record {
    /// Returns the record of a profile without content.
    #[must_use]
    pub fn new(generation: u64) -> Self {
        Self { generation, content: 0, object: None, holder: None, renewals: 0, saved_by: None }
    }

    pub(super) fn version(&self) -> Version {
        Version { generation: self.generation, content: self.content }
    }

    /// Returns `true` if two records differ in nothing but the number of renewals.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let Self { generation: _, content: _, object, holder, renewals: _, saved_by: _ } = self;
        (self.version(), object, holder) == (other.version(), &other.object, &other.holder)
    }

    /// Returns `true` if the store has no object for the content that the record counts.
    #[must_use]
    pub fn lacks_object(&self) -> bool {
        self.content > 0 && self.object.is_none()
    }
}

/// Version of a saved profile. The greater of two is newer: a profile that was made anew is newer
/// than everything that was saved of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Version {
    #[serde(default)]
    pub(super) generation: u64,
    pub(super) content: u64,
}

/// The one node that may use a profile and save it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The node.
    pub node: NodeName,
    /// The node's run.
    pub incarnation: Incarnation,
    /// Number of the claim within that run.
    pub claim: u64,
}

/// Times of a claim, measured in boot time, so that the time in which a machine is suspended counts
/// too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimTimes {
    /// Time between two renewals of a holder. Default: 2 s.
    pub renew: Duration,
    /// Time without a renewal after which a holder ends its lease. Default: 7 s.
    pub lost: Duration,
    /// Time without a renewal after which another may take the claim over. Default: 10 s.
    pub takeover: Duration,
    /// Time between two looks at a profile that somebody else holds. Default: 250 ms.
    pub look: Duration,
}

impl Default for ClaimTimes {
    fn default() -> Self {
        Self {
            renew: Duration::from_secs(2),
            lost: Duration::from_secs(7),
            takeover: Duration::from_secs(10),
            look: Duration::from_millis(250),
        }
    }
}

/// The next step of a claimant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write this record over the revision.
    Claim { record: Record, expected: u64 },
    /// An earlier, unconfirmed write turns out to have been applied.
    Claimed { record: Record, revision: u64 },
    /// Somebody else holds it: look again.
    Wait,
    /// The store has no such profile, or not its content: search the nodes for a copy of this
    /// generation or a later one.
    Search { expected: Option<u64>, generation: u64 },
}

/// Decides, from the entry in the store, how to get a profile. It has no clock and no I/O.
///
/// Since clocks differ, another node's claim is taken to be as old as the time for which this node
/// has seen its entry unchanged.
#[derive(Debug)]
pub(super) struct Claimant {
    me: Holder,
    times: ClaimTimes,
    seen: Option<Seen>,
}

/// A revision under another node's claim, and the time at which it was first seen.
#[derive(Debug)]
struct Seen {
    revision: u64,
    since: Duration,
}

impl Claimant {
    pub(super) fn new(me: Holder, times: ClaimTimes) -> Self {
        Self { me, times, seen: None }
    }

    /// Decides on the entry that was read from the store at `now`, in boot time.
    pub(super) fn look(&mut self, entry: Option<(u64, Record)>, now: Duration) -> Step {
        let Some((revision, record)) = entry else {
            self.seen = None;
            return Step::Search { expected: None, generation: 0 };
        };
        match &record.holder {
            Some(holder) if *holder == self.me => return Step::Claimed { record, revision },
            Some(_) if !self.is_overdue(revision, now) => return Step::Wait,
            Some(_) | None => {}
        }
        if record.lacks_object() {
            return Step::Search { expected: Some(revision), generation: record.generation };
        }
        Step::Claim { record: self.claimed(record), expected: revision }
    }

    /// Returns a record as claimed by this claimant.
    pub(super) fn claimed(&self, record: Record) -> Record {
        Record { holder: Some(self.me.clone()), renewals: 0, ..record }
    }

    fn is_overdue(&mut self, revision: u64, now: Duration) -> bool {
        match &self.seen {
            Some(seen) if seen.revision == revision => {
                now.saturating_sub(seen.since) >= self.times.takeover
            }
            Some(_) | None => {
                self.seen = Some(Seen { revision, since: now });
                false
            }
        }
    }
}

/// A holder's standing after the store has refused its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The claim stands; an earlier write had come through.
    Held,
    /// The store was emptied: the entry has to be made again.
    Absent,
    /// Somebody else holds it, or nobody does.
    Taken,
}

/// A claim that is held. It has no clock and no I/O.
#[derive(Debug)]
pub(super) struct Hold {
    times: ClaimTimes,
    me: Holder,
    record: Record,
    /// `None` once the store has lost the entry.
    revision: Option<u64>,
    /// Time at which the last write that the store has confirmed was sent.
    renewed: Duration,
    /// Once set, it stays set: another node may have acted on the loss in the meantime.
    lost: bool,
}

impl Hold {
    pub(super) fn new(
        me: Holder,
        times: ClaimTimes,
        record: Record,
        revision: u64,
        sent: Duration,
    ) -> Self {
        Self { times, me, record, revision: Some(revision), renewed: sent, lost: false }
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// Returns the record of the next renewal.
    pub(super) fn renewal(&self) -> Record {
        let object = if self.revision.is_some() { self.record.object.clone() } else { None };
        Record { renewals: self.record.renewals + 1, object, ..self.record.clone() }
    }

    /// Returns the record that gives the profile up, with a new object or as it was.
    pub(super) fn release(&self, saved: Option<String>) -> Record {
        let renewal = self.renewal();
        match saved {
            Some(object) => Record {
                content: renewal.content + 1,
                object: Some(object),
                holder: None,
                saved_by: Some(Arc::clone(&self.me.node)),
                ..renewal
            },
            None => Record { holder: None, ..renewal },
        }
    }

    /// Records that a write, sent at `sent`, has been confirmed.
    pub(super) fn written(&mut self, record: Record, revision: u64, sent: Duration) {
        self.record = record;
        self.revision = Some(revision);
        self.renewed = sent;
    }

    /// Records the entry that is in the store after it has refused a write.
    ///
    /// The time of the last renewal stays as it is: it is not known when the write that was applied
    /// was sent.
    pub(super) fn refused(&mut self, entry: Option<(u64, Record)>) -> Standing {
        match entry {
            None => {
                self.revision = None;
                Standing::Absent
            }
            Some((revision, record)) if record.holder.as_ref() == Some(&self.me) => {
                self.revision = Some(revision);
                self.record = record;
                Standing::Held
            }
            // The store was emptied, and another node has put an older copy there since.
            Some((revision, record))
                if record.holder.is_none() && record.version() < self.record.version() =>
            {
                self.revision = Some(revision);
                self.record.object = None;
                Standing::Held
            }
            Some(_) => {
                self.lost = true;
                Standing::Taken
            }
        }
    }

    /// Returns `true` from the moment at which another node may have the profile, or soon may.
    pub(super) fn is_lost(&mut self, now: Duration) -> bool {
        self.lost |= now.saturating_sub(self.renewed) >= self.times.lost;
        self.lost
    }

    /// Returns the time left until it is lost if it is not renewed.
    pub(super) fn time_left(&self, now: Duration) -> Duration {
        (self.renewed + self.times.lost).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(node: &str, claim: u64) -> Holder {
        let incarnation = Incarnation::new(Duration::from_secs(1), 0);
        Holder { node: node.into(), incarnation, claim }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn held(node: &str, content: u64) -> Record {
        let object = (content > 0).then(|| format!("object-{content}"));
        Record { object, content, holder: Some(holder(node, 1)), ..Record::new(1) }
    }

    fn claimant() -> Claimant {
        Claimant::new(holder("a", 1), ClaimTimes::default())
    }

    #[test]
    fn a_free_profile_is_claimed_as_it_is() {
        let free = Record { holder: None, ..held("b", 3) };
        let Step::Claim { record, expected } = claimant().look(Some((7, free)), at(0)) else {
            panic!("it is free");
        };
        assert_eq!(expected, 7);
        assert_eq!(record, held("a", 3));
    }

    #[test]
    fn an_absent_profile_is_not_a_new_one() {
        let anywhere = Step::Search { expected: None, generation: 0 };
        assert_eq!(claimant().look(None, at(0)), anywhere);
        let lost = Record { object: None, holder: None, ..held("b", 3) };
        let content = Step::Search { expected: Some(7), generation: 1 };
        assert_eq!(claimant().look(Some((7, lost)), at(0)), content);
    }

    #[test]
    fn a_claim_is_taken_over_when_it_has_not_changed_for_ten_seconds() {
        let mut claimant = claimant();
        assert_eq!(claimant.look(Some((7, held("b", 3))), at(100)), Step::Wait);
        assert_eq!(claimant.look(Some((7, held("b", 3))), at(109)), Step::Wait);
        // It was renewed, so the ten seconds start again.
        assert_eq!(claimant.look(Some((8, held("b", 3))), at(110)), Step::Wait);
        assert_eq!(claimant.look(Some((8, held("b", 3))), at(119)), Step::Wait);
        let step = claimant.look(Some((8, held("b", 3))), at(120));
        assert_eq!(step, Step::Claim { record: held("a", 3), expected: 8 });
    }

    #[test]
    fn a_claim_that_came_through_unheard_is_recognised() {
        let step = claimant().look(Some((7, held("a", 3))), at(0));
        assert_eq!(step, Step::Claimed { record: held("a", 3), revision: 7 });
        // Another claim of the same node counts as somebody else's.
        let other = Record { holder: Some(holder("a", 2)), ..held("a", 3) };
        assert_eq!(claimant().look(Some((7, other)), at(0)), Step::Wait);
    }

    fn hold() -> Hold {
        Hold::new(holder("a", 1), ClaimTimes::default(), held("a", 3), 7, at(100))
    }

    #[test]
    fn a_holder_that_cannot_renew_is_lost_before_another_may_take_it() {
        let times = ClaimTimes::default();
        assert!(times.renew * 3 < times.lost && times.lost < times.takeover);
        let mut hold = hold();
        assert!(!hold.is_lost(at(106)));
        assert_eq!(hold.time_left(at(106)), at(1));
        hold.written(hold.renewal(), 8, at(106));
        assert!(!hold.is_lost(at(112)));
        assert!(hold.is_lost(at(113)));
        // It renews after all, but what was promised to another is not taken back.
        hold.written(hold.renewal(), 9, at(113));
        assert!(hold.is_lost(at(113)));
    }

    #[test]
    fn a_refused_renewal_tells_whose_the_profile_is() {
        let mut mine = hold();
        assert_eq!(mine.refused(Some((9, held("a", 3)))), Standing::Held);
        assert_eq!(mine.revision(), Some(9));
        assert!(!mine.is_lost(at(101)));
        assert!(mine.is_lost(at(107)), "the time of the last confirmed renewal stands");

        for entry in [
            held("b", 3),
            Record { holder: None, ..held("b", 4) },
            // It was made anew in the meantime: there is less in it, and all of it is newer.
            Record::new(2),
            Record { generation: 2, holder: None, ..held("b", 1) },
        ] {
            let mut taken = hold();
            assert_eq!(taken.refused(Some((9, entry))), Standing::Taken);
            assert!(taken.is_lost(at(100)));
        }
    }

    #[test]
    fn a_holder_makes_its_entry_again_where_the_store_was_emptied() {
        let mut hold = hold();
        assert_eq!(hold.refused(None), Standing::Absent);
        assert_eq!(hold.revision(), None);
        let renewal = hold.renewal();
        assert!(renewal.lacks_object(), "its object went with the store");
        assert_eq!(renewal.content, 3);
        assert!(!hold.is_lost(at(101)));
        let saved = hold.release(Some("object-4".into()));
        assert_eq!((saved.content, saved.object.as_deref()), (4, Some("object-4")));
    }

    #[test]
    fn only_a_save_counts_the_content_up() {
        let hold = hold();
        assert_eq!(hold.renewal().content, 3);
        let untouched = hold.release(None);
        assert_eq!((untouched.content, untouched.holder), (3, None));
        assert_eq!(untouched.object.as_deref(), Some("object-3"));
        let released = hold.release(Some("object-4".into()));
        assert_eq!((released.content, released.holder), (4, None));
        assert_eq!(released.saved_by.as_deref(), Some("a"));
    }

    #[test]
    fn a_holder_has_newer_content_than_a_copy_that_came_back_before_it() {
        let older = Record { holder: None, ..held("b", 2) };
        let before = Record { generation: 0, holder: None, ..held("b", 9) };
        for older in [older, before] {
            let mut hold = hold();
            assert_eq!(hold.refused(Some((90, older))), Standing::Held);
            assert_eq!(hold.revision(), Some(90));
            let renewal = hold.renewal();
            assert_eq!(renewal.version(), Version { generation: 1, content: 3 });
            assert_eq!((renewal.object, renewal.holder), (None, Some(holder("a", 1))));
        }
    }
}
