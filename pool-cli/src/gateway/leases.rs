use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pool_chrome::egress::Pattern;
use tokio::sync::{Notify, oneshot, watch};

use super::lease::ClientLease;
use super::{Code, LeaseEnd, LeaseId, LeaseQuery, Problem};
use crate::config::LeaseKind;

/// Number of leases that are remembered after their end, to answer 410 rather than 404, and of
/// names of such leases, to tell clients that the next one is new.
const REMEMBERED: usize = 10_000;

/// The leases that clients hold.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<Held>,
    gone: Notify,
}

#[derive(Debug, Default)]
struct Held {
    leases: HashMap<LeaseId, Arc<ClientLease>>,
    /// The ids of leases that are being given a name, before they are in `leases`.
    naming: HashSet<LeaseId>,
    names: HashMap<Name, Named>,
    /// The labels of leases that are being acquired, with their tenants.
    labels: HashSet<(Option<String>, String)>,
    over: Past<LeaseId>,
    /// The names whose last lease is over; none of them is in `names`.
    over_names: Past<Name>,
}

/// The name of a lease: tenants do not see each other's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    tenant: Option<String>,
    session: String,
}

/// The meaning of a name.
#[derive(Debug)]
enum Named {
    /// A lease is being acquired for it: by one waiting client and, in a fleet, by clients whom
    /// other nodes send with a lease of this node that they were offered.
    Acquiring(Vec<Acquirer>),
    Held(Arc<ClientLease>),
}

/// A client that acquires a lease for a name.
#[derive(Debug)]
struct Acquirer {
    asked: Box<LeaseQuery>,
    /// Closes when there is a lease, or when it is clear that there will be none.
    done: watch::Receiver<()>,
    /// Dropped to tell the client that another one has got the name.
    _outrun: oneshot::Sender<()>,
}

/// The meaning of an id.
pub(super) enum Known {
    Held(Arc<ClientLease>),
    Over(LeaseEnd),
    Never,
}

/// The answer to a request for a name.
pub(super) enum Claim<'a> {
    /// The lease that holds the name.
    Join(Arc<ClientLease>),
    /// Somebody else is acquiring it: ask again when this has closed.
    Wait(watch::Receiver<()>),
    /// There is none; the name is reserved.
    Acquire(Reservation<'a>),
}

/// The name of a lease that is being acquired. Dropping it lets the next client try.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    leases: &'a Leases,
    name: Name,
    /// The end of the previous lease with this name.
    pub(super) last: Option<LeaseEnd>,
    /// There is no lease yet.
    open: bool,
    /// Dropped to wake those who wait.
    done: watch::Sender<()>,
    outrun: oneshot::Receiver<()>,
}

/// Marks a lease that is being given a name: as long as this lives, the name does not count as left
/// over from an ended lease.
#[derive(Debug)]
pub(super) struct Naming<'a> {
    leases: &'a Leases,
    id: LeaseId,
}

impl Drop for Naming<'_> {
    fn drop(&mut self) {
        self.leases.lock().naming.remove(&self.id);
    }
}

/// A label that nobody else may give to a lease in the meantime.
#[derive(Debug)]
pub(super) struct OnlyLabel<'a> {
    leases: &'a Leases,
    label: (Option<String>, String),
}

impl Drop for OnlyLabel<'_> {
    fn drop(&mut self) {
        self.leases.lock().labels.remove(&self.label);
    }
}

impl Name {
    /// Returns the requested name.
    pub(super) fn of(asked: &LeaseQuery) -> Option<Self> {
        let session = asked.session.clone()?;
        Some(Self { tenant: asked.tenant.clone(), session })
    }

    /// Returns the tenant, or an empty text without one, and the name itself.
    pub(super) fn parts(&self) -> (&str, &str) {
        (self.tenant.as_deref().unwrap_or_default(), &self.session)
    }
}

impl Leases {
    pub(super) fn add(&self, session: &Arc<ClientLease>) {
        self.lock().leases.insert(session.id, Arc::clone(session));
    }

    /// Removes a session that is over.
    pub(super) fn remove(&self, session: &ClientLease, end: LeaseEnd) {
        {
            let mut held = self.lock();
            held.leases.remove(&session.id);
            held.over.remember(session.id, end);
            let its = |named: &Named| matches!(named, Named::Held(held) if held.id == session.id);
            if let Some(name) = Name::of(&session.asked)
                && held.names.get(&name).is_some_and(its)
            {
                held.names.remove(&name);
                held.over_names.remember(name, end);
            }
        }
        self.gone.notify_waiters();
    }

    pub(super) fn find(&self, id: LeaseId) -> Known {
        let held = self.lock();
        match held.leases.get(&id) {
            Some(session) => match session.has_ended() {
                None => Known::Held(Arc::clone(session)),
                Some(end) => Known::Over(end),
            },
            None => held.over.get(&id).map_or(Known::Never, Known::Over),
        }
    }

    /// Asks for the lease with a name. A client that comes `with_offer` brings a lease for it, and
    /// does not wait for others who are acquiring one.
    ///
    /// # Errors
    ///
    /// If the lease that is held, or being acquired by somebody else, differs from the requested
    /// one.
    pub(super) fn claim(
        &self,
        name: &Name,
        asked: &LeaseQuery,
        with_offer: bool,
    ) -> Result<Claim<'_>, Problem> {
        let mut held = self.lock();
        let held = &mut *held;
        let last = match held.names.get(name) {
            Some(Named::Acquiring(acquirers)) => {
                let Acquirer { asked: first, done, .. } = &acquirers[0];
                differs(asked, &first.profile, &first.region, first.lease, &first.allow_domains)?;
                if !with_offer {
                    return Ok(Claim::Wait(done.clone()));
                }
                None
            }
            Some(Named::Held(session)) => match session.has_ended() {
                None => {
                    check_same(asked, session)?;
                    return Ok(Claim::Join(Arc::clone(session)));
                }
                end => end,
            },
            None => held.over_names.get(name),
        };
        held.over_names.forget(name);
        let (done, waiting) = watch::channel(());
        let (told, outrun) = oneshot::channel();
        let asked = Box::new(asked.clone());
        let acquirer = Acquirer { asked, done: waiting, _outrun: told };
        match held.names.get_mut(name) {
            Some(Named::Acquiring(acquirers)) => acquirers.push(acquirer),
            Some(Named::Held(_)) | None => {
                held.names.insert(name.clone(), Named::Acquiring(vec![acquirer]));
            }
        }
        let (leases, name) = (self, name.clone());
        Ok(Claim::Acquire(Reservation { leases, name, last, open: true, done, outrun }))
    }

    /// Notes that a lease is about to be given a name, before [`add`](Self::add) makes it known.
    pub(super) fn naming(&self, id: LeaseId) -> Naming<'_> {
        self.lock().naming.insert(id);
        Naming { leases: self, id }
    }

    /// Returns `true` if a lease is held, or is about to be.
    pub(super) fn has(&self, id: LeaseId) -> bool {
        let held = self.lock();
        let lives = |session: &Arc<ClientLease>| session.has_ended().is_none();
        held.naming.contains(&id) || held.leases.get(&id).is_some_and(lives)
    }

    /// Takes a label for a lease that is about to be acquired; each tenant has labels of its own.
    ///
    /// # Errors
    ///
    /// If a lease that is held or being acquired has it already.
    pub(super) fn label(
        &self,
        tenant: Option<&str>,
        label: &str,
    ) -> Result<OnlyLabel<'_>, Problem> {
        let mut held = self.lock();
        let is_its = |session: &Arc<ClientLease>| {
            session.asked.tenant.as_deref() == tenant
                && session.label.get().is_some_and(|own| own.name.as_deref() == Some(label))
        };
        let own = (tenant.map(str::to_owned), label.to_owned());
        if held.leases.values().any(is_its) || !held.labels.insert(own.clone()) {
            let detail = format!("a held browser already has the name {label:?}");
            return Err(Problem::new(Code::NameTaken, detail));
        }
        Ok(OnlyLabel { leases: self, label: own })
    }

    /// Returns the lease with a name, if it is held.
    ///
    /// # Errors
    ///
    /// If it differs from the requested one.
    pub(super) fn named(
        &self,
        name: &Name,
        asked: &LeaseQuery,
    ) -> Result<Option<Arc<ClientLease>>, Problem> {
        match self.lock().names.get(name) {
            Some(Named::Held(session)) if session.has_ended().is_none() => {
                check_same(asked, session)?;
                Ok(Some(Arc::clone(session)))
            }
            Some(Named::Held(_) | Named::Acquiring(..)) | None => Ok(None),
        }
    }

    /// Returns the lease that has this page.
    pub(super) fn with_page(&self, id: &str) -> Option<Arc<ClientLease>> {
        self.all().into_iter().find(|session| session.has_page(id))
    }

    /// Returns all held leases, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<ClientLease>> {
        let mut all: Vec<_> = self.lock().leases.values().cloned().collect();
        all.sort_by_key(|session| session.began);
        all
    }

    pub(super) fn len(&self) -> usize {
        self.lock().leases.len()
    }

    /// Waits until no lease is held.
    pub(super) async fn none(&self) {
        loop {
            let gone = self.gone.notified();
            tokio::pin!(gone);
            // Registered before checking, so that the end of the last one is not missed.
            gone.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            gone.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a held lease that differs from the requested one.
fn check_same(asked: &LeaseQuery, session: &ClientLease) -> Result<(), Problem> {
    let class = |label| session.class.get(label).map(ToOwned::to_owned);
    let (profile, region) = (class("profile"), class("region"));
    differs(asked, &profile, &region, Some(session.kind), &session.asked.allow_domains)
}

/// Refuses a lease that differs from the one with its name. A property that is not requested does
/// not differ.
fn differs(
    asked: &LeaseQuery,
    profile: &Option<String>,
    region: &Option<String>,
    kind: Option<LeaseKind>,
    domains: &Option<Vec<Pattern>>,
) -> Result<(), Problem> {
    let differs = |name: &str, held: Option<&str>| {
        let held = held.map_or_else(|| "none".to_owned(), |held| format!("{held:?}"));
        let detail = format!(
            "the held session has a different {name} ({held}): leave the parameter out to join it, \
             or choose another name"
        );
        Err(Problem::new(Code::SessionDiffers, detail))
    };
    if asked.profile.is_some() && asked.profile != *profile {
        return differs("profile", profile.as_deref());
    }
    if asked.region.is_some() && asked.region != *region {
        return differs("region", region.as_deref());
    }
    if asked.allow_domains.is_some() && asked.allow_domains != *domains {
        let list = |held: &Vec<Pattern>| {
            held.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        return differs("allow_domains", domains.as_ref().map(list).as_deref());
    }
    match (asked.lease, kind) {
        (Some(asked), Some(kind)) if asked != kind => differs("lease", Some(kind.as_str())),
        _ => Ok(()),
    }
}

impl Reservation<'_> {
    /// Returns `true` if this reservation belongs to the acquirer.
    fn is(&self, acquirer: &Acquirer) -> bool {
        self.done.subscribe().same_channel(&acquirer.done)
    }

    /// Waits until another lease has got the name.
    pub(super) async fn outrun(&mut self) {
        // The sender never sends.
        let _ = (&mut self.outrun).await;
    }

    /// Gives the name to the lease that was acquired for it.
    pub(super) fn hold(mut self, session: &Arc<ClientLease>) {
        let mut held = self.leases.lock();
        match session.has_ended() {
            None => {
                self.open = false;
                held.names.insert(self.name.clone(), Named::Held(Arc::clone(session)));
            }
            // It was removed before it got the name.
            Some(end) => self.last = Some(end),
        }
        drop(held);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let mut held = self.leases.lock();
        // Another one may have got the name.
        let Some(Named::Acquiring(acquirers)) = held.names.get_mut(&self.name) else { return };
        acquirers.retain(|acquirer| !self.is(acquirer));
        if !acquirers.is_empty() {
            return;
        }
        held.names.remove(&self.name);
        if let Some(last) = self.last {
            held.over_names.remember(self.name.clone(), last);
        }
    }
}

/// The ends of the latest leases that are over, by id or name.
#[derive(Debug)]
struct Past<K> {
    ends: HashMap<K, (u64, LeaseEnd)>,
    /// The same in the order in which they ended; an entry that was forgotten since has another
    /// number there, or none.
    in_order: VecDeque<(u64, K)>,
    next: u64,
}

impl<K> Default for Past<K> {
    fn default() -> Self {
        Self { ends: HashMap::new(), in_order: VecDeque::new(), next: 0 }
    }
}

impl<K: Clone + Eq + Hash> Past<K> {
    fn remember(&mut self, key: K, end: LeaseEnd) {
        self.next += 1;
        self.ends.insert(key.clone(), (self.next, end));
        self.in_order.push_back((self.next, key));
        if self.in_order.len() > REMEMBERED
            && let Some((number, oldest)) = self.in_order.pop_front()
            && self.ends.get(&oldest).is_some_and(|(latest, _)| *latest == number)
        {
            self.ends.remove(&oldest);
        }
    }

    fn get(&self, key: &K) -> Option<LeaseEnd> {
        self.ends.get(key).map(|(_, end)| *end)
    }

    fn forget(&mut self, key: &K) {
        self.ends.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_bounded_and_its_latest_word_counts() {
        let mut past = Past::default();
        for key in 0..REMEMBERED + 5 {
            past.remember(key, LeaseEnd::Released);
        }
        assert_eq!((past.get(&4), past.get(&5)), (None, Some(LeaseEnd::Released)));
        for _ in 0..2 * REMEMBERED {
            past.remember(7, LeaseEnd::IdleTimeout);
        }
        assert_eq!(past.get(&7), Some(LeaseEnd::IdleTimeout));
        assert_eq!((past.ends.len(), past.in_order.len()), (1, REMEMBERED));
        past.forget(&7);
        assert_eq!(past.get(&7), None);
    }

    #[test]
    fn a_name_that_nobody_got_a_lease_for_is_free_again() {
        let leases = Leases::default();
        let asked = LeaseQuery::parse("session=mine&tenant=a").expect("it is right");
        let other = LeaseQuery::parse("session=mine&tenant=b").expect("it is right");
        let name = |asked| Name::of(asked).expect("it has one");
        let first = leases.claim(&name(&asked), &asked, false).expect("it is free");
        let Claim::Acquire(first) = first else { panic!("it is not reserved") };
        let second = leases.claim(&name(&asked), &asked, false).expect("they are equal");
        let Claim::Wait(waiting) = second else { panic!("two acquire it") };
        let theirs = leases.claim(&name(&other), &other, false).expect("it is free");
        assert!(matches!(theirs, Claim::Acquire(_)), "tenants have names of their own");
        let region = LeaseQuery::parse("session=mine&tenant=a&region=eu").expect("it is right");
        let differs = leases.claim(&name(&region), &region, false).map(drop);
        assert_eq!(differs.map_err(|problem| problem.code()), Err("session_differs"));
        let narrow = LeaseQuery::parse("session=mine&tenant=a&allow_domains=a.example");
        let narrow = narrow.expect("it is right");
        let differs = leases.claim(&name(&narrow), &narrow, false).map(drop);
        assert_eq!(differs.map_err(|problem| problem.code()), Err("session_differs"));
        drop(first);
        assert!(waiting.has_changed().is_err(), "those that wait are woken");
        let third = leases.claim(&name(&asked), &asked, false).expect("it is free");
        assert!(matches!(third, Claim::Acquire(_)));
    }
}
