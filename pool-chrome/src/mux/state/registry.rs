//! Targets and contexts of a Chromium, and their owners.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use indexmap::IndexMap;
use serde::Deserialize;

use super::{ConnectionId, LeaseId};
use crate::mux::framing;
use crate::mux::target::{Id, Message, SessionId, Target};

/// Everything that a Chromium has reported about its targets, and the contexts that they are in.
///
/// A target belongs to the lease of its context, and to none if that is not known here.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// In the order in which they were made, which is how clients see existing pages.
    targets: IndexMap<Id, Target>,
    contexts: HashMap<Id, Context>,
    /// Contexts of the multiplexer's own.
    own_contexts: HashSet<Id>,
    /// The Chromium's real default context, once it is known.
    real_context: Option<Id>,
    /// Pages that were made empty and go to their addresses later.
    departures: HashMap<Id, Departure>,
}

/// A browser context of a lease.
#[derive(Debug)]
struct Context {
    lease: LeaseId,
    /// The session whose end disposes of it.
    maker: SessionId,
    /// Forbidden directory that its downloads were to go to; its downloads are canceled.
    no_downloads: Option<String>,
}

impl Registry {
    pub(super) fn target(&self, id: &str) -> Option<&Target> {
        self.targets.get(id)
    }

    pub(super) fn target_mut(&mut self, id: &str) -> Option<&mut Target> {
        self.targets.get_mut(id)
    }

    /// Returns the targets in the order they were made.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.values()
    }

    pub(super) fn target_ids(&self) -> Vec<Id> {
        self.targets.keys().cloned().collect()
    }

    /// Adds a target, or replaces the one with its id.
    pub(super) fn insert_target(&mut self, target: Target) {
        self.targets.insert(target.info.target_id.clone(), target);
    }

    pub(super) fn remove_target(&mut self, id: &str) -> Option<Target> {
        self.targets.shift_remove(id)
    }

    pub(super) fn target_count(&self) -> usize {
        self.targets.len()
    }

    /// Returns the lease that a target belongs to.
    pub(super) fn lease_of(&self, target: &Target) -> Option<LeaseId> {
        self.lease_of_context(target.info.browser_context_id.as_ref()?)
    }

    /// Returns the lease that a context belongs to.
    pub(super) fn lease_of_context(&self, context: &str) -> Option<LeaseId> {
        self.contexts.get(context).map(|context| context.lease)
    }

    /// Returns `true` if a context belongs to a lease.
    pub(super) fn is_context_of(&self, lease: LeaseId, context: &str) -> bool {
        self.lease_of_context(context) == Some(lease)
    }

    /// Gives a context to a lease, to be disposed of with the session that made it.
    pub(super) fn insert_context(&mut self, context: Id, lease: LeaseId, maker: SessionId) {
        self.contexts.insert(context, Context { lease, maker, no_downloads: None });
    }

    pub(super) fn remove_context(&mut self, context: &str) {
        self.contexts.remove(context);
    }

    /// Forgets the contexts that end with a session.
    pub(super) fn forget_contexts_of(&mut self, maker: SessionId) {
        self.contexts.retain(|_, context| context.maker != maker);
    }

    /// Removes and returns the contexts of a lease.
    pub(super) fn take_contexts_of(&mut self, lease: LeaseId) -> Vec<Id> {
        self.contexts.extract_if(|_, context| context.lease == lease).map(|(id, _)| id).collect()
    }

    /// Returns the contexts of a lease, in no order.
    pub(super) fn contexts_of(&self, lease: LeaseId) -> impl Iterator<Item = &Id> {
        let is_its = move |(_, context): &(&Id, &Context)| context.lease == lease;
        self.contexts.iter().filter(is_its).map(|(id, _)| id)
    }

    pub(super) fn context_count(&self) -> usize {
        self.contexts.len()
    }

    /// Notes the forbidden directory that downloads of a context were to go to; `None` if it is
    /// allowed.
    pub(super) fn set_no_downloads(&mut self, context: &str, path: Option<String>) {
        if let Some(context) = self.contexts.get_mut(context) {
            context.no_downloads = path;
        }
    }

    /// Returns the forbidden directory that downloads of this context of a lease, or of any, were
    /// to go to.
    pub(super) fn no_downloads(&self, lease: LeaseId, context: Option<&Id>) -> Option<String> {
        self.contexts
            .iter()
            .filter(|(id, held)| held.lease == lease && context.is_none_or(|its| its == *id))
            .find_map(|(_, held)| held.no_downloads.clone())
    }

    /// Adopts a context as one of the multiplexer's own.
    pub(super) fn adopt_context(&mut self, context: &str) {
        self.own_contexts.insert(context.into());
    }

    pub(super) fn disown_context(&mut self, context: &str) {
        self.own_contexts.remove(context);
    }

    /// Returns `true` if a context is neither a lease's nor the multiplexer's own.
    pub(super) fn is_nobodys(&self, context: &str) -> bool {
        !self.contexts.contains_key(context) && !self.own_contexts.contains(context)
    }

    pub(super) fn real_context(&self) -> Option<&Id> {
        self.real_context.as_ref()
    }

    pub(super) fn set_real_context(&mut self, context: Option<Id>) {
        self.real_context = context;
    }

    pub(super) fn pages_in(&self, context: &Id) -> Vec<Id> {
        self.targets
            .values()
            .filter(|target| target.info.browser_context_id.as_ref() == Some(context))
            .filter(|target| target.info.kind == "page")
            .map(|target| target.info.target_id.clone())
            .collect()
    }

    /// Returns the workers of contexts that are neither listed here nor known to the registry.
    pub(super) fn workers_outside(&self, contexts: &[String]) -> Vec<Id> {
        let is_known = |id: &Id| {
            self.contexts.contains_key(id)
                || self.own_contexts.contains(id)
                || self.real_context.as_ref() == Some(id)
                || contexts.iter().any(|listed| **listed == **id)
        };
        self.targets
            .values()
            .filter(|target| target.info.kind.ends_with("worker"))
            .filter(|target| match &target.info.browser_context_id {
                Some(id) => !is_known(id),
                // A service worker that is announced after its context is gone has none.
                None => target.info.kind == "service_worker",
            })
            .map(|target| target.info.target_id.clone())
            .collect()
    }

    /// Returns the targets of these contexts and pages that are still alive.
    pub(super) fn left_of(&self, contexts: &[Id], pages: &[Id]) -> Vec<Id> {
        self.targets
            .values()
            .filter(|target| !target.invented)
            .filter(|target| {
                let context = target.info.browser_context_id.as_ref();
                context.is_some_and(|id| contexts.contains(id))
                    || pages.contains(&target.info.target_id)
            })
            .map(|target| target.info.target_id.clone())
            .collect()
    }

    /// Notes that a page was made empty and goes to an address later.
    pub(super) fn depart(&mut self, page: &Id, address: String) {
        self.departures.insert(page.clone(), Departure::new(address));
    }

    /// Returns `true` if any page has yet to go to its address.
    pub(super) fn has_departures(&self) -> bool {
        !self.departures.is_empty()
    }

    pub(super) fn departure_mut(&mut self, page: &str) -> Option<&mut Departure> {
        self.departures.get_mut(page)
    }

    /// Returns how many commands its clients have sent to a page that has yet to go to its address.
    pub(super) fn commands_to(&self, page: &str) -> Option<u32> {
        self.departures.get(page).map(|departure| departure.commands)
    }

    /// Takes the address of a page that is leaving the empty document with this loader.
    pub(super) fn leave(&mut self, page: &str, loader: &str) -> Option<String> {
        let departure = self.departures.get_mut(page)?;
        departure.loader = Some(loader.to_owned());
        departure.address.take()
    }

    /// Ends a departure; returns the events that were withheld.
    pub(super) fn end_departure(&mut self, page: &str) -> Vec<(ConnectionId, Bytes)> {
        self.departures.remove(page).map(|departure| departure.withheld).unwrap_or_default()
    }

    /// Forgets everything except the contexts that belong to no lease.
    pub(super) fn clear(&mut self) {
        self.targets.clear();
        self.departures.clear();
        self.contexts.clear();
    }
}

/// A page that was made empty for a client that named an address.
///
/// While a page waits for the first byte of an address, Chromium passes no command on to it: a
/// client that attaches to a page right after making it would talk to nobody for as long as the
/// server is silent. The control session is attached to every page from its beginning, so this
/// affects all of them; in a plain Chromium it affects clients that attach automatically. So the
/// page is made empty, and goes to its address once its client has had its say.
#[derive(Debug)]
pub(super) struct Departure {
    /// Taken when the page leaves for it.
    address: Option<String>,
    /// Number of commands its clients have sent to it.
    commands: u32,
    /// The loader of the empty document, read when the page leaves it.
    loader: Option<String>,
    /// Events of the empty document that are withheld from clients: for them the page is loaded
    /// when its address is. They are sent after all if the page does not get away, as with a
    /// download.
    withheld: Vec<(ConnectionId, Bytes)>,
}

/// Number of withheld events: as many as a document has for a few sessions. A client that asks for
/// them again and again gets the first ones.
const WITHHELD: usize = 64;

impl Departure {
    fn new(address: String) -> Self {
        Self { address: Some(address), commands: 0, loader: None, withheld: Vec::new() }
    }

    /// Counts a command of a client to the page.
    pub(super) fn note_command(&mut self) {
        self.commands += 1;
    }

    /// Withholds an event if it reports how far the empty document has loaded. Otherwise returns
    /// it.
    pub(super) fn withhold(&mut self, connection: ConnectionId, event: Bytes) -> Option<Bytes> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Loading<'a> {
            loader_id: &'a str,
        }
        if !framing::is_lifecycle_event(&event) {
            return Some(event);
        }
        let loading = serde_json::from_slice::<Message<'_>>(&event)
            .ok()
            .and_then(|message| serde_json::from_str::<Loading<'_>>(message.params?.get()).ok());
        let of_empty = loading.is_some_and(|loading| {
            // Until it leaves, the page has no other document.
            self.loader.as_deref().is_none_or(|empty| empty == loading.loader_id)
        });
        if !of_empty {
            return Some(event);
        }
        if self.withheld.len() < WITHHELD {
            self.withheld.push((connection, event));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mux::target::InfoParams;

    const MINE: LeaseId = LeaseId(1);
    const THEIRS: LeaseId = LeaseId(2);

    fn session() -> SessionId {
        SessionId::invent()
    }

    fn target(id: &str, kind: &str, context: Option<&str>) -> Target {
        let info = json!({ "targetId": id, "type": kind, "browserContextId": context });
        let text = json!({ "targetInfo": info }).to_string();
        let params: InfoParams<'_> = serde_json::from_str(&text).unwrap();
        Target::new(serde_json::from_str(params.target_info.get()).unwrap(), params.target_info)
    }

    #[test]
    fn a_target_belongs_to_the_lease_of_its_context() {
        let mut registry = Registry::default();
        registry.insert_context("c".into(), MINE, session());
        let page = target("p", "page", Some("c"));
        assert_eq!(registry.lease_of(&page), Some(MINE));
        assert_eq!(registry.lease_of(&target("x", "page", None)), None);
        registry.remove_context("c");
        assert_eq!(registry.lease_of(&page), None);
    }

    #[test]
    fn contexts_go_with_the_session_that_made_them_and_with_their_lease() {
        let mut registry = Registry::default();
        let (bound, base) = (session(), session());
        registry.insert_context("bound".into(), MINE, bound);
        registry.insert_context("kept".into(), MINE, base);
        registry.insert_context("theirs".into(), THEIRS, base);
        registry.forget_contexts_of(bound);
        assert_eq!(registry.contexts_of(MINE).collect::<Vec<_>>(), [&Id::from("kept")]);
        assert_eq!(registry.take_contexts_of(MINE), [Id::from("kept")]);
        assert!(registry.is_nobodys("kept") && registry.is_context_of(THEIRS, "theirs"));
    }

    #[test]
    fn a_worker_of_a_context_that_nobody_has_is_outside() {
        let mut registry = Registry::default();
        registry.insert_context("mine".into(), MINE, session());
        registry.adopt_context("own");
        registry.set_real_context(Some("real".into()));
        for (id, context) in [
            ("a", Some("mine")),
            ("b", Some("own")),
            ("c", Some("real")),
            ("d", Some("listed")),
            ("e", Some("gone")),
            ("f", None),
        ] {
            registry.insert_target(target(id, "service_worker", context));
        }
        registry.insert_target(target("page", "page", Some("gone")));
        let outside = registry.workers_outside(&["listed".to_owned()]);
        assert_eq!(outside, [Id::from("e"), Id::from("f")]);
    }

    #[test]
    fn downloads_are_canceled_where_their_directory_was_refused() {
        let mut registry = Registry::default();
        registry.insert_context("a".into(), MINE, session());
        registry.insert_context("b".into(), MINE, session());
        registry.set_no_downloads("a", Some("/etc".to_owned()));
        assert_eq!(registry.no_downloads(MINE, Some(&"a".into())).as_deref(), Some("/etc"));
        assert_eq!(registry.no_downloads(MINE, Some(&"b".into())), None);
        assert_eq!(registry.no_downloads(MINE, None).as_deref(), Some("/etc"));
        assert_eq!(registry.no_downloads(THEIRS, None), None);
    }

    #[test]
    fn a_page_leaves_for_its_address_once() {
        let mut registry = Registry::default();
        let page: Id = "p".into();
        registry.depart(&page, "http://a/".to_owned());
        registry.departure_mut("p").expect("it departs").note_command();
        assert_eq!(registry.commands_to("p"), Some(1));
        assert_eq!(registry.leave("p", "loader").as_deref(), Some("http://a/"));
        assert_eq!(registry.leave("p", "loader"), None);
        registry.end_departure("p");
        assert!(!registry.has_departures());
    }
}
