//! Things that wait: commands of our own for their answers, and effects for the release of the
//! lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

use serde_json::value::RawValue;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::{ConnectionId, LeaseId};
use crate::cdp::CdpError;
use crate::mux::budget::{Budget, Gate, Holder};
use crate::mux::end::Ending;
use crate::mux::framing::OWN_IDS_FROM;
use crate::mux::lease_options::{FileUse, HolderCommands};
use crate::mux::link::Link;
use crate::mux::target::{Id, SessionId};

/// A command of ours that is not answered yet.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) session: Option<SessionId>,
    pub(super) method: String,
    pub(super) reply: Reply,
}

impl Unanswered {
    pub(super) fn new(session: Option<SessionId>, method: &str, reply: Reply) -> Self {
        Self { session, method: method.to_owned(), reply }
    }
}

/// A result as raw JSON, or the reason why there is none.
pub(crate) type CallResult = Result<Box<RawValue>, CdpError>;

/// Destination of an answer.
#[derive(Debug)]
pub(crate) enum Reply {
    Nothing,
    /// Somebody awaits it.
    Call(oneshot::Sender<CallResult>),
    /// It resumed a target that nobody wants: detach from it.
    Release(SessionId),
    /// It goes to a client, under the client's id.
    Relay(Relay, Watch),
    /// It is part of a client's auto-attach.
    AutoAttached {
        browser: SessionId,
        target: Id,
    },
    /// It names a browser session for a lease.
    BrowserSession {
        lease: LeaseId,
        reply: oneshot::Sender<Result<SessionId, CdpError>>,
    },
    /// It names the default context of a lease.
    DefaultContext {
        lease: LeaseId,
        maker: SessionId,
        reply: oneshot::Sender<Result<(), CdpError>>,
    },
    /// It completes the making of a lease's warm page.
    Warm {
        lease: LeaseId,
        reply: oneshot::Sender<Result<(), CdpError>>,
    },
    /// It says which frames a page has, to find the owner of a download.
    FrameTree {
        connection: ConnectionId,
        guid: Id,
    },
}

/// The client to which an answer goes, and the id under which it goes.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    pub(crate) connection: ConnectionId,
    /// The session as the client names it; `None` for its root.
    pub(crate) session: Option<SessionId>,
    pub(crate) id: i32,
}

/// Facts to learn from an answer on its way to a client.
#[derive(Debug)]
pub(crate) enum Watch {
    Nothing,
    /// A target was made; if it was made empty, it goes to this address later.
    Target {
        going: Option<String>,
    },
    /// A navigation went nowhere instead of to a refused address.
    RefusedNavigation,
    /// A context was made, on this session.
    Context(SessionId),
    /// A context was disposed.
    Disposed(Id),
    /// Targets are listed.
    Targets,
    /// A window is named.
    Window,
    /// This target is attached to, by a nested session or not.
    Attached {
        target: Id,
        nested: bool,
    },
}

/// The unanswered commands of our own, by id.
#[derive(Debug)]
pub(super) struct Pending {
    commands: HashMap<i32, Unanswered>,
    next_id: i32,
}

impl Default for Pending {
    fn default() -> Self {
        Self { commands: HashMap::new(), next_id: OWN_IDS_FROM }
    }
}

impl Pending {
    /// Adds a command; returns its id.
    pub(super) fn insert(&mut self, command: Unanswered) -> i32 {
        loop {
            let id = self.next_id;
            self.next_id = id.checked_sub(1).unwrap_or(OWN_IDS_FROM);
            // After two billion commands, an old one may still be unanswered.
            if let Entry::Vacant(entry) = self.commands.entry(id) {
                entry.insert(command);
                return id;
            }
        }
    }

    pub(super) fn take(&mut self, id: i32) -> Option<Unanswered> {
        self.commands.remove(&id)
    }

    /// Returns the commands that wait for an answer on a session.
    pub(super) fn on(&self, session: SessionId) -> Vec<i32> {
        let waits = |pending: &Unanswered| pending.session == Some(session);
        self.commands.iter().filter(|(_, pending)| waits(pending)).map(|(id, _)| *id).collect()
    }

    /// Returns `true` if any answer must be relayed to a connection of this kind.
    pub(super) fn any_relayed(&self, is_its: impl Fn(ConnectionId) -> bool) -> bool {
        self.commands.values().any(|pending| match &pending.reply {
            Reply::Relay(relay, _) => is_its(relay.connection),
            Reply::Nothing
            | Reply::Call(_)
            | Reply::Release(_)
            | Reply::AutoAttached { .. }
            | Reply::BrowserSession { .. }
            | Reply::DefaultContext { .. }
            | Reply::Warm { .. }
            | Reply::FrameTree { .. } => false,
        })
    }

    /// Returns whether the oldest unanswered command that attaches to a target on a session asks
    /// for a nested session; that command is the one that is answered next.
    pub(super) fn asks_nested(&self, session: SessionId, target: &Id) -> Option<bool> {
        let asked = |(id, pending): (&i32, &Unanswered)| {
            if let Reply::Relay(_, Watch::Attached { target: its, nested }) = &pending.reply
                && its == target
            {
                Some((*id, *nested))
            } else {
                None
            }
        };
        let on_it = self.commands.iter().filter(|(_, it)| it.session == Some(session));
        // Our own ids descend.
        on_it.filter_map(asked).max().map(|(_, nested)| nested)
    }

    pub(super) fn count(&self) -> usize {
        self.commands.len()
    }

    /// Gives up on all commands.
    pub(super) fn clear(&mut self, effects: &mut Effects) {
        for (_, Unanswered { reply, .. }) in self.commands.drain() {
            effects.forget(reply);
        }
    }
}

/// Work for the shell once the state's lock is released: wakers to wake, answers to give. It is
/// done in the order in which it came, except that the first reader is woken last.
///
/// State that others may read at once, such as the reason of an end, is set under the lock; only
/// those who wait for it are woken later.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    list: Vec<Effect>,
    /// The reader that waits for a message; there is seldom more than one.
    reader: Option<Waker>,
    /// The budget in which room must be made.
    spent: Option<Budget>,
}

#[derive(Debug)]
enum Effect {
    Wake(Waker),
    /// A connection has ended. Whoever answered for its client is dropped with it.
    Closed(Arc<Link>, Option<Arc<dyn HolderCommands>>),
    /// A client may send more.
    Room(Arc<Link>),
    /// A lease, or the whole Chromium, has ended.
    Ended(Arc<Ending>),
    /// The pipe may have to be read again.
    Gate(Arc<Gate>),
    Call(oneshot::Sender<CallResult>, CallResult),
    Session(oneshot::Sender<Result<SessionId, CdpError>>, Result<SessionId, CdpError>),
    Done(oneshot::Sender<Result<(), CdpError>>, Result<(), CdpError>),
    /// This will not be answered any more.
    Forget(Reply),
    /// A client has named a file that it may not use.
    FileRefused(Arc<dyn HolderCommands>, FileUse, String),
    /// This page must be sent to its address.
    Depart(Id),
}

impl Effects {
    /// Wakes the reader that waits for a message.
    pub(super) fn wake(&mut self, reader: Option<Waker>) {
        if self.reader.is_none() {
            self.reader = reader;
        } else {
            self.list.extend(reader.map(Effect::Wake));
        }
    }

    /// Tells those who wait on a connection that has ended.
    pub(super) fn closed(&mut self, link: Arc<Link>, commands: Option<Arc<dyn HolderCommands>>) {
        self.list.push(Effect::Closed(link, commands));
    }

    /// Tells those who wait to send more on a connection.
    pub(super) fn room(&mut self, link: Arc<Link>) {
        self.list.push(Effect::Room(link));
    }

    /// Tells those who wait for an end.
    pub(super) fn ended(&mut self, ending: &Arc<Ending>) {
        self.list.push(Effect::Ended(Arc::clone(ending)));
    }

    /// Makes the largest holder of the budget give way.
    pub(super) fn make_room(&mut self, budget: &Budget) {
        self.spent.get_or_insert_with(|| budget.clone());
    }

    /// Tells the reader of the pipe that the gate has changed.
    pub(super) fn gate(&mut self, gate: &Arc<Gate>) {
        self.list.push(Effect::Gate(Arc::clone(gate)));
    }

    pub(super) fn call(&mut self, reply: oneshot::Sender<CallResult>, result: CallResult) {
        self.list.push(Effect::Call(reply, result));
    }

    pub(super) fn session(
        &mut self,
        reply: oneshot::Sender<Result<SessionId, CdpError>>,
        session: Result<SessionId, CdpError>,
    ) {
        self.list.push(Effect::Session(reply, session));
    }

    pub(super) fn done(
        &mut self,
        reply: oneshot::Sender<Result<(), CdpError>>,
        result: Result<(), CdpError>,
    ) {
        self.list.push(Effect::Done(reply, result));
    }

    /// Drops a reply that will never come, which wakes whoever waits for it.
    pub(super) fn forget(&mut self, reply: Reply) {
        self.list.push(Effect::Forget(reply));
    }

    /// Tells the holder of a lease that a client named a file that it may not use.
    pub(super) fn file_refused(
        &mut self,
        holder: Arc<dyn HolderCommands>,
        file: FileUse,
        path: String,
    ) {
        self.list.push(Effect::FileRefused(holder, file, path));
    }

    pub(super) fn depart(&mut self, page: &Id) {
        self.list.push(Effect::Depart(page.clone()));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.list.len() + usize::from(self.reader.is_some())
    }

    /// Carries out the effects, without the lock. Pages that must be sent to their addresses go to
    /// `departing`.
    ///
    /// Whoever waited for an answer may be gone by now, and so may the task that sends pages to
    /// their addresses.
    pub(crate) fn run(self, departing: &UnboundedSender<Id>) {
        for effect in self.list {
            match effect {
                Effect::Wake(waker) => waker.wake(),
                Effect::Closed(link, commands) => {
                    link.tell();
                    drop(commands);
                }
                Effect::Room(link) => link.tell_room(),
                Effect::Ended(ending) => ending.tell(),
                Effect::Gate(gate) => gate.tell(),
                Effect::Call(reply, result) => drop(reply.send(result)),
                Effect::Session(reply, session) => drop(reply.send(session)),
                Effect::Done(reply, result) => drop(reply.send(result)),
                Effect::Forget(reply) => drop(reply),
                Effect::FileRefused(holder, file, path) => {
                    // The task that reads the pipe runs this as well. A holder's panic must end
                    // neither that task nor the remaining effects.
                    let call = AssertUnwindSafe(|| holder.file_refused(file, &path));
                    if catch_unwind(call).is_err() {
                        tracing::error!(path, "a holder panicked as it was told of a refused file");
                    }
                }
                Effect::Depart(page) => drop(departing.send(page)),
            }
        }
        if let Some(budget) = self.spent {
            budget.make_room();
        }
        if let Some(reader) = self.reader {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::mux::state::stage::Woken;

    fn command(session: Option<SessionId>) -> Unanswered {
        Unanswered::new(session, "X.y", Reply::Nothing)
    }

    #[test]
    fn ids_descend_and_begin_anew_at_the_end() {
        let mut pending = Pending::default();
        assert_eq!(pending.insert(command(None)), OWN_IDS_FROM);
        assert_eq!(pending.insert(command(None)), OWN_IDS_FROM - 1);
        pending.next_id = i32::MIN;
        assert_eq!(pending.insert(command(None)), i32::MIN);
        // The first two are not answered.
        assert_eq!(pending.insert(command(None)), OWN_IDS_FROM - 2);
    }

    #[test]
    fn what_waits_on_a_session_is_found_and_taken_once() {
        let mut pending = Pending::default();
        let session = SessionId::invent();
        pending.insert(command(None));
        let id = pending.insert(command(Some(session)));
        assert_eq!(pending.on(session), [id]);
        assert!(pending.take(id).is_some() && pending.take(id).is_none());
        assert_eq!(pending.count(), 1);
    }

    #[test]
    fn the_oldest_attach_on_a_session_says_whether_it_is_nested() {
        let mut pending = Pending::default();
        let (session, target): (_, Id) = (SessionId::invent(), "p".into());
        assert_eq!(pending.asks_nested(session, &target), None);
        for nested in [true, false] {
            let relay = Relay { connection: ConnectionId(1), session: None, id: 1 };
            let watch = Watch::Attached { target: target.clone(), nested };
            pending.insert(Unanswered::new(Some(session), "X.y", Reply::Relay(relay, watch)));
        }
        assert_eq!(pending.asks_nested(session, &target), Some(true));
        assert!(pending.any_relayed(|connection| connection == ConnectionId(1)));
        assert!(!pending.any_relayed(|connection| connection == ConnectionId(2)));
    }

    #[test]
    fn nobody_is_woken_or_answered_before_the_effects_are_run() {
        let (departing, mut pages) = unbounded_channel();
        let readers = Arc::new(Woken::default());
        let (reply, mut answer) = oneshot::channel();
        let (lost, mut never) = oneshot::channel::<CallResult>();
        let mut effects = Effects::default();
        effects.wake(Some(Arc::clone(&readers).into()));
        effects.wake(None);
        effects.wake(Some(Arc::clone(&readers).into()));
        effects.done(reply, Ok(()));
        effects.forget(Reply::Call(lost));
        effects.depart(&"p".into());
        assert_eq!(readers.times(), 0);
        assert!(answer.try_recv().is_err() && pages.try_recv().is_err());
        effects.run(&departing);
        assert_eq!(readers.times(), 2);
        assert!(answer.try_recv().is_ok());
        assert_eq!(never.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
        assert_eq!(pages.try_recv().as_deref(), Ok("p"));
    }
}
