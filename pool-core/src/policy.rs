use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Adjustment, BoxError, Class, Driver, Event, Limits, Meta, Rejection, Request, Stats, Verdict,
};

/// A plugin that decides: who may wait and how urgently, what a resource is like, when it goes.
///
/// Every hook has a default that changes nothing, so a policy implements only what it is about.
/// Policies stack: the one that was added first decides first. Decisions are synchronous, quick
/// and pure; they are called by the task that acquires or releases, **never under the pool's
/// lock**. A hook that panics is caught, reported as [`Event::PolicyPanicked`], and answered with
/// the default; the pool and the other policies go on.
///
/// | hook | called | when several policies answer |
/// |---|---|---|
/// | [`admit`](Self::admit) | at acquire, by the asking task | each sees what the former filled in; the first refusal ends it |
/// | [`classify`](Self::classify) | after all have admitted | each adds its part to the class |
/// | [`rank`](Self::rank) | after classify | the first that answers |
/// | [`limit`](Self::limit) | when a class is seen for the first time | for each limit, the first that names it |
/// | [`configure`](Self::configure) | before each creation, by the creating task | each edits the same spec; the first error fails the creation |
/// | [`prepare`](Self::prepare) | after each creation, before the first lease | all, in order; the first error fails the creation |
/// | [`released`](Self::released) | at release, by the releasing task | the most severe verdict |
/// | [`tick`](Self::tick) | every [`tick_interval`](crate::Config::tick_interval) | all, applied in order |
/// | [`event`](Self::event) | after each transition | all |
///
/// # Examples
///
/// A policy in ten lines:
///
/// ```
/// use pool_core::{Driver, Meta, Policy, Verdict, async_trait};
///
/// pub struct MaxUses(pub u64);
///
/// #[async_trait]
/// impl<D: Driver> Policy<D> for MaxUses {
///     fn released(&self, meta: &Meta) -> Verdict {
///         if meta.uses >= self.0 { Verdict::Discard } else { Verdict::Keep }
///     }
/// }
/// ```
#[async_trait]
pub trait Policy<D: Driver>: Send + Sync + 'static {
    /// A short name for events, logs and refusals. Default: the type's name.
    fn name(&self) -> &str {
        short_type_name::<Self>()
    }

    /// Refuses a request, or fills in what it left open (priority, labels, timeout, group).
    ///
    /// # Errors
    ///
    /// The [`Rejection`] is handed to the caller as
    /// [`AcquireError::Rejected`](crate::AcquireError::Rejected).
    fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
        let _ = request;
        Ok(())
    }

    /// Adds this policy's part to the class of a request: what must differ between resources
    /// that are not interchangeable.
    fn classify(&self, request: &Request, class: &mut Class) {
        let _ = (request, class);
    }

    /// Returns the handicap added to a request's arrival time when waiters are ranked.
    ///
    /// Waiters are served by `enqueued_at + handicap`. All waiters age at the same speed, so this
    /// one key, fixed at enqueue, gives priority, ageing (nobody starves) and first come first
    /// served among equals. `None` leaves the decision to the next policy; if nobody answers, the
    /// handicap is zero.
    fn rank(&self, request: &Request) -> Option<Duration> {
        let _ = request;
        None
    }

    /// Returns the limits of a class. Default: no limits but the pool's own.
    fn limit(&self, class: &Class) -> Option<Limits> {
        let _ = class;
        None
    }

    /// Edits the spec of a resource that is about to be created for `class`.
    ///
    /// # Errors
    ///
    /// An error fails this creation as if the driver had failed; what was put into the spec is
    /// dropped with it, so guards in a spec give back what they hold.
    fn configure(&self, class: &Class, spec: &mut D::Spec) -> Result<(), BoxError> {
        let _ = (class, spec);
        Ok(())
    }

    /// Prepares a new resource before its first lease, within
    /// [`create_timeout`](crate::Config::create_timeout) together with the creation.
    ///
    /// # Errors
    ///
    /// An error counts as a failed creation: the resource is closed.
    async fn prepare(&self, resource: &mut D::Resource, meta: &Meta) -> Result<(), BoxError> {
        let _ = (resource, meta);
        Ok(())
    }

    /// Judges a resource that comes back. Default: keep it.
    fn released(&self, meta: &Meta) -> Verdict {
        let _ = meta;
        Verdict::Keep
    }

    /// Looks at the pool from time to time and changes its size.
    fn tick(&self, stats: &Stats) -> Vec<Adjustment> {
        let _ = stats;
        Vec::new()
    }

    /// Returns `true` if this policy uses [`event`](Self::event); called once, when the pool is
    /// built.
    ///
    /// A pool in which nobody watches does not even make the events of its hot path. Default: yes.
    fn watches(&self) -> bool {
        true
    }

    /// Sees every transition, with its reason.
    fn event(&self, event: &Event) {
        let _ = event;
    }
}

fn short_type_name<T: ?Sized>() -> &'static str {
    let full = std::any::type_name::<T>();
    let path = full.split('<').next().unwrap_or(full);
    path.rsplit("::").next().unwrap_or(path)
}
