use super::class::{Counts, DEFAULT_CLASS};
use super::{SlotState, State};
use crate::ResourceState;

impl<R> State<R> {
    /// Asserts everything that must hold between two calls; runs after each in debug builds.
    ///
    /// # Panics
    ///
    /// If something does not hold: that is a bug of the engine.
    pub(crate) fn check(&self) {
        self.check_tallies();
        self.check_waiters();
        self.check_groups();
        for (id, class) in &self.classes {
            let idle_served = class.idle.is_empty()
                || class.waiters.ready() <= class.counts.of(ResourceState::Checking);
            assert!(idle_served, "{}: a waiter stands beside an idle resource", class.class);
            assert_eq!(self.hungry.contains(&id), class.hungry, "{}: hungry set", class.class);
            assert_eq!(self.short.contains(&id), class.short, "{}: short set", class.class);
            let hungry = class.is_hungry() && !self.is_draining();
            assert_eq!(class.hungry, hungry, "{}: hungry is out of date", class.class);
            let short = class.is_short() && !self.is_draining();
            assert_eq!(class.short, short, "{}: short is out of date", class.class);
        }
        let can_create = self.slots.len() < self.config.max_size
            && self.counts.of(ResourceState::Creating) < self.config.max_creating;
        assert!(
            !can_create || (self.hungry.is_empty() && self.short.is_empty()),
            "there is room, and a class is left without the creation that it needs"
        );
        self.check_evictions();
    }

    /// A class that needs room gets it from another one's idle resource.
    fn check_evictions(&self) {
        if let Some((_, hungry)) = self.hungriest()
            && self.needs_room(None)
        {
            let idle = self.least_recently_used(hungry);
            assert!(idle.is_none(), "a waiter stands beside an idle resource of another class");
        }
    }

    fn check_tallies(&self) {
        let mut counts = Counts::default();
        let mut by_class: Vec<(Counts, usize)> = Vec::new();
        for (index, slot) in &self.slots {
            counts.add(slot.state.kind());
            if by_class.len() <= slot.class {
                by_class.resize(slot.class + 1, Default::default());
            }
            by_class[slot.class].0.add(slot.state.kind());
            by_class[slot.class].1 += usize::from(slot.retiring);
            let listed = self.classes[slot.class].idle.contains(&index);
            let idle = matches!(slot.state, SlotState::Idle(_));
            assert_eq!(listed, idle, "an idle resource is listed, and only that");
        }
        assert_eq!(counts, self.counts, "tallies by state");
        assert_eq!(counts.total(), self.slots.len(), "every slot is in one state");
        assert!(
            counts.of(ResourceState::Creating) <= self.config.max_creating,
            "more creations at once than allowed"
        );
        for (id, class) in &self.classes {
            let (counts, retiring) = by_class.get(id).copied().unwrap_or_default();
            assert_eq!(counts, class.counts, "{}: tallies by state", class.class);
            assert_eq!(retiring, class.retiring, "{}: retiring", class.class);
            let waiters = self.waiters.iter().filter(|(_, waiter)| waiter.class == id).count();
            assert_eq!(waiters, class.waiters.len(), "{}: length of the queue", class.class);
            assert!(
                !class.is_empty()
                    || id == DEFAULT_CLASS
                    || class.breaker.remembers_until().is_some(),
                "{}: nothing is left of it",
                class.class
            );
        }
    }

    fn check_groups(&self) {
        let mut members = Vec::new();
        for (id, class) in &self.classes {
            let share = |group| self.groups[group].share();
            let groups = class.waiters.check(&self.waiters, share);
            members.extend(groups.into_iter().map(|group| (group, id)));
        }
        let mut leased = 0;
        for (id, state) in self.groups.iter() {
            let name = &state.group.name;
            let held = self.slots.iter().filter(|(_, slot)| slot.group == Some(id)).count();
            assert_eq!(held, state.leased, "{name}: leases");
            let waiting = self.waiters.iter().filter(|(_, waiter)| waiter.group == Some(id));
            assert_eq!(waiting.count(), state.waiting, "{name}: waiters");
            let classes = members.iter().filter(|(group, _)| *group == id).map(|(_, class)| *class);
            assert!(classes.eq(state.classes.iter().copied()), "{name}: lines");
            assert!(held > 0 || !state.classes.is_empty(), "{name}: nothing is left of it");
            leased += held;
        }
        assert_eq!(leased, self.groups.leased(), "leases of all groups");
        assert!(self.groups.are_served(), "a group gave something back, and was not served");
        let others = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.group.is_some() && slot.state.kind() != ResourceState::Leased);
        assert_eq!(others.count(), 0, "only a lease belongs to a group");
    }

    fn check_waiters(&self) {
        for (_, class) in &self.classes {
            let sorted = class.waiters.sorted(&self.waiters);
            assert_eq!(sorted.len(), class.waiters.len(), "{}: length of the queue", class.class);
        }
        // One for each resource may have been let in for a check.
        let places = self.config.max_size.max(self.slots.len());
        let allowed = self.config.max_waiting.saturating_add(places);
        assert!(self.waiters.len() <= allowed, "the queue is longer than allowed");
    }
}
