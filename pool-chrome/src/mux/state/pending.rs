//! Commands of our own, and what waits for their answers.

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::{ConnectionId, LeaseId};
use crate::cdp::CdpError;
use crate::mux::target::{Id, SessionId};

/// A command of ours that is not answered yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(super) session: Option<SessionId>,
    pub(super) method: String,
    pub(super) reply: Reply,
}

impl Pending {
    pub(super) fn new(session: Option<SessionId>, method: &str, reply: Reply) -> Self {
        Self { session, method: method.to_owned(), reply }
    }
}

/// A result as raw JSON, or why there is none.
pub(crate) type CallResult = Result<Box<RawValue>, CdpError>;

/// Destination of an answer.
#[derive(Debug)]
pub(crate) enum Reply {
    Nothing,
    /// Somebody awaits it.
    Call(oneshot::Sender<CallResult>),
    /// It resumed a target that nobody wants: leave it.
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
    /// It ends the making of a lease's warm page.
    Warm {
        lease: LeaseId,
        reply: oneshot::Sender<Result<(), CdpError>>,
    },
    /// It says which frames a page has, to tell whose a download is.
    FrameTree {
        connection: ConnectionId,
        guid: Id,
    },
}

/// To whom an answer goes, and under which id.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    pub(crate) connection: ConnectionId,
    /// The session as the client names it; `None` for its root.
    pub(crate) session: Option<SessionId>,
    pub(crate) id: i32,
}

/// Lesson to learn from an answer on its way to a client.
#[derive(Debug)]
pub(crate) enum Watch {
    Nothing,
    /// A target was made; if it was made empty, it goes to this address later.
    Target {
        going: Option<String>,
    },
    /// A navigation went nowhere instead of to an address that is refused.
    RefusedNavigation,
    /// A context was made, on this session.
    Context(SessionId),
    /// A context was disposed.
    Disposed(Id),
    /// Targets are listed.
    Targets,
    /// A window is named.
    Window,
    /// This target is attached to, by a session that is nested or not.
    Attached {
        target: Id,
        nested: bool,
    },
}
