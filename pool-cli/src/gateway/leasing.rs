//! The only way to a lease, for WebSocket and REST, and the watch over it until it ends.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use pool_core::{AcquireError, Request};
use pool_fleet::{Cannot, Named, Reason, Session, SessionEntry, SessionError, Shape};
use tokio::time::{Instant, timeout_at};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, info, info_span};

use super::lease::{ClientLease, Keep, NotConnected, Terms};
use super::leases::{Claim, Name, Reservation};
use super::problem::{cannot, draining, refusal};
use super::relay::{Detour, OFFER_OVER};
use super::{Code, Gateway, LeaseEnd, LeaseId, LeaseQuery, Problem, Settings};
use crate::api::Severity;
use crate::config::LeaseKind;
use crate::fleet::{Connect, NotPlaced, Placed, Relayed};
use crate::pool::Leased;
use crate::telemetry::{self, TraceParent};
use crate::work::WorkKind;

/// A client that asks for a lease, as far as it is known.
#[derive(Clone, Default)]
pub(super) struct Caller {
    pub(super) peer: Option<SocketAddr>,
    pub(super) trace: Option<TraceParent>,
    /// Set if another node has passed the request on to this one.
    pub(super) relayed: Option<Arc<Relayed>>,
    /// The way to another node, in a fleet.
    pub(super) detour: Option<Arc<Detour>>,
}

impl Caller {
    pub(super) fn of(parts: &Parts) -> Self {
        Self {
            peer: parts.extensions.get().copied(),
            trace: TraceParent::of(&parts.headers),
            relayed: parts.extensions.get().cloned(),
            detour: parts.extensions.get().cloned(),
        }
    }

    /// Returns the lease of this node that was offered to the node which passed the request on.
    fn offer(&self) -> Option<&str> {
        self.relayed.as_ref()?.offer.as_deref()
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

/// Reasons why there is no lease.
pub(super) enum NoLease {
    /// The wait was over before there was a lease.
    TimedOut(Problem),
    Refused(Problem),
    /// It is at another node of the fleet, whose answer replaces any other.
    Elsewhere,
    /// Another lease of this node has got the name in the meantime.
    Outrun,
}

impl From<NoLease> for Problem {
    fn from(no: NoLease) -> Self {
        match no {
            NoLease::TimedOut(problem) | NoLease::Refused(problem) => problem,
            NoLease::Elsewhere => Self::elsewhere(),
            NoLease::Outrun => {
                let detail = "another lease has taken the name of this session in the meantime";
                Self::new(Code::SessionElsewhere, detail)
            }
        }
    }
}

/// The way in which a lease starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the connection that asks for it, which is opened at once.
    Connected,
    /// For one call, which connects to it and ends it.
    Work(WorkKind),
    /// Without a connection: it goes on until it is released, unless a shorter time is requested.
    Unattended,
}

impl Gateway {
    /// Returns the held lease with a name, or reserves the name for a new one. It waits while
    /// somebody else is acquiring it, but no longer than the limit for waiting for a lease; `asked`
    /// may then only wait for the rest of that time.
    ///
    /// With an offer of another node there is no waiting: if clients of two nodes had each been
    /// offered the other node's browser for the same name, both would wait.
    pub(super) async fn claim(
        &self,
        name: &Name,
        asked: &mut LeaseQuery,
        caller: &Caller,
    ) -> Result<Claimed<'_>, NoLease> {
        self.find_elsewhere(name, asked, caller).await?;
        let wait = asked.acquire_timeout.unwrap_or(self.settings().acquire_timeout);
        let began = Instant::now();
        let mut waited = false;
        loop {
            let claim = self.leases.claim(name, asked, caller.offer().is_some());
            match claim.map_err(NoLease::Refused)? {
                Claim::Join(session) => return Ok(Claimed::Held { session, waited }),
                Claim::Acquire(reservation) => {
                    if waited {
                        asked.acquire_timeout = Some(wait.saturating_sub(began.elapsed()));
                    }
                    return Ok(Claimed::Reserved(reservation));
                }
                Claim::Wait(mut acquired) => {
                    // It closes when there is a lease, or when it is clear that there will be none.
                    if timeout_at(began + wait, acquired.changed()).await.is_err() {
                        return Err(NoLease::TimedOut(still_acquired(began.elapsed())));
                    }
                    waited = true;
                }
            }
        }
    }

    /// Lets another node answer, if it has the lease with this name.
    pub(super) async fn find_elsewhere(
        &self,
        name: &Name,
        asked: &LeaseQuery,
        caller: &Caller,
    ) -> Result<(), NoLease> {
        // Without a detour, another node has already found that it is here.
        let (Some(fleet), Some(detour)) = (self.fleet(), &caller.detour) else { return Ok(()) };
        let shape = self.shape(asked).map_err(NoLease::Refused)?;
        let (tenant, session) = name.parts();
        let held = fleet.sessions().find(tenant, session, &shape).await;
        match held.map_err(|error| NoLease::Refused(unnamed(&error)))? {
            Some(held) if *held.node != *fleet.name() => {
                detour.go(&held.node).await.map_err(NoLease::Refused)?;
                Err(NoLease::Elsewhere)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Gives the requested name to a lease that was just granted; another lease at another node may
    /// have got it in the meantime.
    async fn name(
        &self,
        asked: &LeaseQuery,
        public_id: &str,
        caller: &Caller,
    ) -> Result<Option<SessionEntry>, NoLease> {
        let (Some(fleet), Some(name)) = (self.fleet(), Name::of(asked)) else { return Ok(None) };
        let shape = self.shape(asked).map_err(NoLease::Refused)?;
        let (node, incarnation) = (fleet.name().into(), fleet.incarnation());
        let session = Session::new(public_id, node, incarnation, shape);
        let (tenant, name) = name.parts();
        let refused = |error| NoLease::Refused(unnamed(&error));
        let other = loop {
            match fleet.sessions().create(tenant, name, &session).await.map_err(refused)? {
                Named::Created(entry) => return Ok(Some(entry)),
                Named::Join(own) if own.node == session.node && own.incarnation == incarnation => {
                    let id = self.settings().own_id(&own.lease);
                    if id.is_some_and(|id| self.leases.has(id)) {
                        return Err(NoLease::Outrun);
                    }
                    // It has ended, but its name could not be removed.
                    fleet.sessions().forget(tenant, name, &own).await.map_err(refused)?;
                }
                Named::Join(other) => break other,
            }
        };
        let Some(detour) = &caller.detour else {
            let detail = "another node has the lease of this session";
            let problem = Problem::new(Code::SessionElsewhere, detail);
            return Err(NoLease::Refused(problem.at_node(&other.node)));
        };
        detour.go(&other.node).await.map_err(NoLease::Refused)?;
        Err(NoLease::Elsewhere)
    }

    /// Returns the properties on which everybody who joins a session must agree.
    fn shape(&self, asked: &LeaseQuery) -> Result<Shape, Problem> {
        let kind = self.settings().kind(asked)?;
        let text = |value: &Option<String>| value.as_deref().map(Arc::from);
        Ok(Shape {
            profile: text(&asked.profile),
            region: text(&asked.region),
            kind: Some(kind.as_str().into()),
        })
    }

    /// Waits for a lease and starts its session. Dropping the future leaves the queue.
    ///
    /// `last` is the end of the previous lease with its name.
    pub(super) async fn lease(
        self: &Arc<Self>,
        asked: LeaseQuery,
        caller: Caller,
        start: Start,
        last: Option<LeaseEnd>,
    ) -> Result<Arc<ClientLease>, NoLease> {
        let settings = self.settings();
        if self.is_draining() {
            // The node that passed the request on has others to ask; only its own drain is its client's.
            let refusal = match caller.offer() {
                Some(_) => Problem::new(Code::OfferOver, OFFER_OVER),
                None => draining(settings.drain_timeout),
            };
            return Err(NoLease::Refused(refusal));
        }
        let kind = settings.kind(&asked).map_err(NoLease::Refused)?;
        let limit = settings.limit(&asked, start).map_err(NoLease::Refused)?;
        if let (Start::Work(_), Some(limit), Some(detour)) = (start, limit, &caller.detour) {
            detour.allow(limit);
        }
        let idle_limit = settings.idle_limit(&asked, start).map_err(NoLease::Refused)?;
        let kept = settings.keep(&asked, start).map_err(NoLease::Refused)?;
        settings.check_narrowing(&asked).map_err(NoLease::Refused)?;
        let tenant = asked.tenant.clone();
        let wait = asked.acquire_timeout.unwrap_or(settings.acquire_timeout);
        let mut request = asked.request().timeout(wait);
        if settings.lease_choice {
            request.set("lease", kind.as_str());
        }
        let span = lease_span(&asked, kind, &caller);
        let acquire = acquire_span(&span, &caller);
        let began = Instant::now();
        let leased = self.acquire(request, wait, &caller).instrument(acquire.clone()).await;
        acquire.record("outcome", leased.as_ref().map_or_else(outcome, |_| "granted"));
        drop(acquire);
        let leased = leased.map_err(|error| {
            if let NotPlaced::Refused(error) = &error {
                self.usage.failed(self.books_of(tenant.as_deref()), error);
            }
            let (problem, is_late) = match &error {
                NotPlaced::Refused(error) => (
                    refusal(error, self.history.release_rate()),
                    matches!(error, AcquireError::Timeout { .. }),
                ),
                NotPlaced::Cannot(why) => {
                    (cannot(why, began.elapsed()), why.reason == Reason::Timeout)
                }
            };
            debug!(peer = ?caller.peer, code = problem.code(), "refused: {}", problem.detail());
            if is_late { NoLease::TimedOut(problem) } else { NoLease::Refused(problem) }
        })?;
        let Some(leased) = leased else { return Err(NoLease::Elsewhere) };
        let id = LeaseId::random();
        let public_id = settings.public_id(id);
        let begun = leased.browser().begin(&asked.terms().holder(id.short())).await;
        let naming = self.leases.naming(id);
        // The last wait before there is a lease that frees the name: if it is cancelled, the name
        // is withdrawn.
        let entry = self.name(&asked, &public_id, &caller).await?;
        let terms = Terms {
            id,
            public_id,
            entry,
            asked,
            kind,
            peer: caller.peer,
            work: match start {
                Start::Work(work) => Some(work),
                Start::Connected | Start::Unattended => None,
            },
            trace: caller.trace,
            limit,
            idle_limit,
            keep: kept,
            unattended: start == Start::Unattended,
            renewed: last,
        };
        let session = ClientLease::new(leased, terms);
        self.usage.began(self.books_of(tenant.as_deref()), session.waited);
        if let Err(end) = begun {
            // Whoever connects learns of it, and takes another one if that helps.
            session.end(end);
        }
        self.leases.add(&session);
        drop(naming);
        record_grant(&span, &session);
        if let (Some(name), Some(last)) = (&session.asked.session, last) {
            self.note_renewed(&span, name, last);
        }
        tokio::spawn(keep(Arc::clone(self), Arc::clone(&session), span));
        Ok(session)
    }

    /// Acquires a browser here or, in a fleet, at another node; in that case there is none here.
    async fn acquire(
        &self,
        request: Request,
        wait: Duration,
        caller: &Caller,
    ) -> Result<Option<Arc<dyn Leased>>, NotPlaced> {
        let Some(fleet) = self.fleet() else {
            return self.pool().acquire(request).await.map(Some).map_err(NotPlaced::Refused);
        };
        if let Some(offer) = caller.offer() {
            let gone = || Cannot::new(Reason::Unknown, Code::OfferOver.word(), OFFER_OVER);
            return fleet.take(offer).await.map(Some).ok_or_else(|| NotPlaced::Cannot(gone()));
        }
        let detour = caller.detour.as_deref();
        let waited = detour.map_or(Duration::ZERO, Detour::waited);
        let (request, wait) = (request.waited(waited), wait.saturating_sub(waited));
        let elsewhere = detour.map(|detour| detour as &dyn Connect);
        let began = Instant::now();
        let leased = match fleet.acquire(request, wait, elsewhere).await? {
            Placed::Here(leased) => Some(leased),
            Placed::There => None,
        };
        self.observer().metrics().fleet_granted(leased.is_some(), waited + began.elapsed());
        Ok(leased)
    }

    /// Records that a client that may expect its old browser gets another one.
    fn note_renewed(&self, span: &Span, name: &str, last: LeaseEnd) {
        let last = last.code();
        info!(parent: span, session = name, last, "the session starts with a new lease");
        let reason = format!("{name}: its last lease ended with {last}");
        self.observer().journal().note("session_renewed", Severity::Info, reason);
    }
}

/// Waits for a lease that is acquired for a name. Returns `None` if another one has got the name in
/// the meantime: then ask for the name again.
pub(super) async fn unless_outrun<T>(
    reservation: &mut Reservation<'_>,
    leasing: impl Future<Output = Result<T, NoLease>>,
) -> Result<Option<T>, NoLease> {
    tokio::select! {
        biased;
        leased = leasing => match leased {
            Err(NoLease::Outrun) => Ok(None),
            leased => leased.map(Some),
        },
        () = reservation.outrun() => Ok(None),
    }
}

/// The answer to a client that asks for a name.
pub(super) enum Claimed<'a> {
    /// The held lease; `waited` if it was acquired in the meantime.
    Held { session: Arc<ClientLease>, waited: bool },
    /// The name, reserved for a lease that must be acquired.
    Reserved(Reservation<'a>),
}

/// Time for which a lease with a name is kept by default.
pub(super) const KEEP: Duration = Duration::from_secs(60);

/// Time for which a call of one-shot work may have a browser by default.
const CALL: Duration = Duration::from_secs(60);

impl Settings {
    fn kind(&self, asked: &LeaseQuery) -> Result<LeaseKind, Problem> {
        self.tenant_kind(asked, self.pool_kind(asked)?)
    }

    fn pool_kind(&self, asked: &LeaseQuery) -> Result<LeaseKind, Problem> {
        if asked.profile.is_some() {
            // A profile's storage belongs to one browser process.
            return match asked.lease {
                Some(LeaseKind::Shared) => {
                    let detail = "leases of a profile are exclusive: leave out lease=shared";
                    Err(Problem::new(Code::BadParameter, detail))
                }
                Some(LeaseKind::Exclusive) | None => Ok(LeaseKind::Exclusive),
            };
        }
        match asked.lease {
            Some(kind) if kind != self.lease && !self.lease_choice => {
                let detail = format!(
                    "leases are {} here: set lease_choice = true in [pool] to let clients choose",
                    self.lease.as_str()
                );
                Err(Problem::new(Code::BadParameter, detail))
            }
            asked => Ok(asked.unwrap_or(self.lease)),
        }
    }

    fn check_narrowing(&self, asked: &LeaseQuery) -> Result<(), Problem> {
        if asked.allow_domains.is_none() || self.egress {
            return Ok(());
        }
        let detail = "allow_domains requires a section [egress] in the configuration of the pool";
        Err(Problem::new(Code::BadParameter, detail))
    }

    fn limit(&self, asked: &LeaseQuery, start: Start) -> Result<Option<Duration>, Problem> {
        self.check_time("timeout", asked.timeout)?;
        let usual = match start {
            Start::Work(_) => Some(self.lease_timeout.map_or(CALL, |most| most.min(CALL))),
            Start::Connected | Start::Unattended => self.lease_timeout,
        };
        Ok(asked.timeout.or(usual))
    }

    fn idle_limit(&self, asked: &LeaseQuery, start: Start) -> Result<Option<Duration>, Problem> {
        self.check_time("idle_timeout", asked.idle_timeout)?;
        Ok(match start {
            // It may have been asked to wait, and ends soon enough anyway.
            Start::Work(_) => None,
            Start::Connected | Start::Unattended => asked.idle_timeout.or(self.lease_idle_timeout),
        })
    }

    /// Refuses a time that is longer than a lease may last.
    fn check_time(&self, name: &str, asked: Option<Duration>) -> Result<(), Problem> {
        let Some((asked, most)) = asked.zip(self.lease_timeout) else { return Ok(()) };
        let checked = at_most(name, asked, "lease_timeout", most);
        checked.map_err(|detail| Problem::new(Code::BadParameter, detail))
    }

    pub(super) fn check_keep(&self, asked: &LeaseQuery) -> Result<(), Problem> {
        let keep = asked.keep.unwrap_or_default();
        let checked = at_most("keep", keep, "keep_limit", self.keep_limit);
        checked.map_err(|detail| Problem::new(Code::BadParameter, detail))
    }

    fn keep(&self, asked: &LeaseQuery, start: Start) -> Result<Keep, Problem> {
        match (asked.keep, start, &asked.session) {
            (Some(keep), _, _) => {
                self.check_keep(asked)?;
                Ok(Keep::For(keep))
            }
            (None, Start::Unattended, _) => Ok(Keep::Held),
            (None, Start::Connected | Start::Work(_), Some(_)) => {
                Ok(Keep::For(KEEP.min(self.keep_limit)))
            }
            (None, Start::Connected | Start::Work(_), None) => Ok(Keep::For(Duration::ZERO)),
        }
    }
}

/// Refuses a time that is longer than a setting of the pool allows; the error is a sentence.
pub(super) fn at_most(
    name: &str,
    asked: Duration,
    setting: &str,
    most: Duration,
) -> Result<(), String> {
    if asked <= most {
        return Ok(());
    }
    Err(format!("{name} may be at most {} ms, the pool's {setting}", most.as_millis()))
}

/// Returns the problem for a client whose session name cannot be used in the fleet.
fn unnamed(error: &SessionError) -> Problem {
    match error {
        SessionError::Differs { .. } => Problem::new(Code::SessionDiffers, error.to_string()),
        _ => {
            let problem = Problem::new(Code::SessionsUnavailable, error.to_string());
            problem.retry_after(Duration::from_secs(1))
        }
    }
}

/// Returns the problem for a client that waits for a session that somebody else is acquiring.
fn still_acquired(waited: Duration) -> Problem {
    let waited_for = waited.as_secs_f64();
    let detail = format!("no browser was free for this session within {waited_for:.1} s");
    Problem::new(Code::AcquireTimeout, detail).waited(waited).retry_after(Duration::from_secs(1))
}

/// Returns the word for a failed acquire in spans, as in the metrics.
fn outcome(error: &NotPlaced) -> &'static str {
    let error = match error {
        NotPlaced::Refused(error) => error,
        NotPlaced::Cannot(cannot) => {
            return match cannot.reason {
                Reason::Timeout => "timeout",
                Reason::Full | Reason::Exhausted | Reason::Refused => "rejected",
                Reason::Unknown | Reason::Draining | Reason::Unavailable => "error",
            };
        }
    };
    match error {
        AcquireError::Timeout { .. } | AcquireError::GroupFull { .. } => "timeout",
        AcquireError::QueueFull { .. }
        | AcquireError::GroupQueueFull { .. }
        | AcquireError::Rejected(_) => "rejected",
        _ => "error",
    }
}

/// Returns the problem for a session that cannot be connected to.
pub(super) fn not_connected(why: &NotConnected) -> Problem {
    match why {
        NotConnected::Over(end) if end.is_of_the_browser() => {
            let detail = "the browser ended before it could be used";
            Problem::new(Code::BrowserUnavailable, detail).retry_after(Duration::from_secs(1))
        }
        NotConnected::Over(end) => over(*end),
        NotConnected::NoPage => {
            let detail = "no held lease has a page with this id";
            Problem::new(Code::UnknownPage, detail)
        }
        NotConnected::TooMany => {
            let detail = "this lease has its maximum number of connections";
            Problem::new(Code::TooManyConnections, detail)
        }
    }
}

/// Returns the problem for a lease that is over.
pub(super) fn over(end: LeaseEnd) -> Problem {
    let detail = format!("this lease is over ({})", end.code());
    Problem::new(Code::LeaseOver, detail)
}

/// Watches over a session until it ends, gives the browser back, and writes the audit line.
async fn keep(gateway: Arc<Gateway>, session: Arc<ClientLease>, span: Span) {
    let end = watch(&session).instrument(span.clone()).await;
    let end = session.end(end);
    span.record("ended", end.code());
    drop(span);
    let held = session.began.elapsed();
    session.give_back();
    let tenant = session.asked.tenant.as_deref();
    gateway.usage.book(gateway.books_of(tenant), &session);
    gateway.leases.remove(&session, end);
    if let (Some(fleet), Some(entry)) = (gateway.fleet(), &session.entry)
        && let Err(error) = fleet.sessions().remove(entry).await
    {
        // It becomes free when this node has ended; clients who ask here get a new lease.
        tracing::warn!(%error, "the name of a session that has ended could not be freed");
    }
    gateway.observer().metrics().lease_ended(end.code());
    audit(&session, end, held);
}

/// Waits for the end of a session.
async fn watch(session: &ClientLease) -> LeaseEnd {
    match session.leased() {
        None => LeaseEnd::Revoked,
        Some(leased) => tokio::select! {
            biased;
            end = session.ended() => end,
            end = leased.browser().ended() => end,
            () = session.outlived() => LeaseEnd::LeaseLimit,
            () = session.unclaimed() => LeaseEnd::KeepOver,
            () = session.idle() => LeaseEnd::IdleTimeout,
        },
    }
}

/// Logs one line for each lease: its client, its kind, its duration and its end.
fn audit(session: &ClientLease, end: LeaseEnd, held: Duration) {
    let [messages_in, messages_out, bytes_in, bytes_out] = session.traffic.totals();
    info!(
        target: "pool_cli::audit",
        lease = session.id.short(),
        peer = session.peer.map(tracing::field::display),
        tenant = session.asked.tenant,
        tracking_id = session.asked.tracking_id,
        session = session.asked.session,
        trace_id = session.trace.map(|trace| trace.trace_id()),
        kind = session.kind.as_str(),
        work = session.work.map(WorkKind::word),
        class = %session.class,
        priority = session.asked.priority,
        browser = session.browser,
        waited_ms = session.waited.as_millis() as u64,
        held_ms = held.as_millis() as u64,
        messages_in, messages_out, bytes_in, bytes_out,
        ended = end.code(),
        "lease over"
    );
}

/// Returns the span of a lease, from its request to its end; a child of the client's own span.
fn lease_span(asked: &LeaseQuery, kind: LeaseKind, caller: &Caller) -> Span {
    let span = info_span!(
        "lease",
        trace_id = caller.trace.map(|trace| trace.trace_id()),
        kind = kind.as_str(),
        profile = asked.profile,
        region = asked.region,
        priority = asked.priority,
        tenant = asked.tenant,
        tracking_id = asked.tracking_id,
        lease = Empty,
        browser = Empty,
        ended = Empty,
    );
    if let Some(trace) = &caller.trace {
        telemetry::follow(&span, trace);
    }
    span
}

/// Returns the span of the wait for a browser, within that of the lease.
fn acquire_span(lease: &Span, caller: &Caller) -> Span {
    let trace_id = caller.trace.map(|trace| trace.trace_id());
    info_span!(parent: lease, "acquire", trace_id, outcome = Empty)
}

/// Adds the facts that are known once there is a browser.
fn record_grant(lease: &Span, session: &ClientLease) {
    // The whole id of a lease is a secret for as long as it is held.
    lease.record("lease", session.id.short());
    lease.record("browser", session.browser);
}
