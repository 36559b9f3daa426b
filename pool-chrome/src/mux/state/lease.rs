//! Leases: what belongs together, and goes together.

use std::collections::{HashSet, VecDeque};

use tokio::sync::watch;

use super::ConnectionId;
use crate::mux::address::AddressRule;
use crate::mux::end::EndReason;
use crate::mux::lease_options::{DefaultContext, FileUse, LeaseKind, LeaseOptions};
use crate::mux::parameters;
use crate::mux::target::{Id, SessionId};

/// Which lease; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId(pub(super) u64);

/// Targets of a lease remembered after their end: a download may be reported after the
/// page that began it is gone.
const PAST_TARGETS: usize = 64;

/// A lease in the registry.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) options: LeaseOptions,
    /// The session that the lease's contexts hang on. Its end disposes them.
    pub(crate) base: Option<SessionId>,
    /// Browser sessions made for the lease that are no connection's.
    pub(super) made: HashSet<SessionId>,
    /// The context that its clients take for the default one.
    pub(crate) default: Option<Id>,
    pub(crate) warm: Warm,
    /// Its terms are set.
    pub(super) begun: bool,
    /// It begins with a page, which is shown as soon as it is there.
    pub(super) owes_page: bool,
    /// A client has been connected: whatever opens now may be its own.
    pub(super) used: bool,
    /// Commands that would make a page, while the warm one is being made, and the nested sessions
    /// that they came in.
    pub(crate) waiting_for_warm: Vec<(ConnectionId, Option<SessionId>, String)>,
    /// A browser session made ahead for the next connection.
    pub(crate) spare: Option<SessionId>,
    pub(crate) windows: HashSet<i64>,
    /// Pixels of the largest window that it has asked for, or of a usual one.
    pub(crate) window: f64,
    pub(crate) downloads: HashSet<Id>,
    /// The files outside of its directories that its holder has been told of.
    pub(super) refused_files: HashSet<(FileUse, String)>,
    /// The tab that the next page stands in.
    pub(crate) new_tab: Option<Id>,
    past_targets: VecDeque<Id>,
    /// It used a command whose effects outlive it.
    pub(crate) tainted: bool,
    /// It added screens.
    pub(crate) screens: bool,
    /// One of its renderers has died.
    pub(crate) crashed: bool,
    pub(crate) ended: watch::Sender<Option<EndReason>>,
}

/// A page made ahead: the first one that the lease begins with, or, where it begins with none, the
/// client's first `newPage`.
#[derive(Debug, Default)]
pub(crate) enum Warm {
    /// None, or used up.
    #[default]
    None,
    /// Asked for.
    Creating,
    /// There, but its creation is not answered yet.
    Attached { target: Id, session: SessionId, waiting: bool },
    /// Ready to be handed out, still paused.
    Ready { target: Id, session: SessionId, waiting: bool },
}

impl Warm {
    /// The session of the page, when it is ready.
    pub(crate) fn session(&self) -> Option<SessionId> {
        match self {
            Self::Ready { session, .. } => Some(*session),
            _ => None,
        }
    }

    /// Forgets the page if it is this one, which is gone.
    pub(super) fn forget(&mut self, gone: &Id) {
        if let Self::Attached { target, .. } | Self::Ready { target, .. } = self
            && target == gone
        {
            *self = Self::None;
        }
    }
}

/// What must go for a lease to be gone.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// Sessions of ours on the root, to be detached.
    pub(crate) sessions: Vec<SessionId>,
    /// Contexts that must not exist afterwards.
    pub(crate) contexts: Vec<Id>,
    /// Pages of a real default context, to be closed.
    pub(crate) pages: Vec<Id>,
    /// The lease added screens.
    pub(crate) screens: bool,
}

impl Lease {
    pub(super) fn new(options: LeaseOptions) -> Self {
        Self {
            options,
            base: None,
            made: HashSet::new(),
            default: None,
            warm: Warm::None,
            begun: false,
            owes_page: false,
            used: false,
            waiting_for_warm: Vec::new(),
            spare: None,
            windows: HashSet::new(),
            window: parameters::USUAL,
            downloads: HashSet::new(),
            refused_files: HashSet::new(),
            new_tab: None,
            past_targets: VecDeque::new(),
            tainted: false,
            screens: false,
            crashed: false,
            ended: watch::Sender::new(None),
        }
    }

    pub(super) fn end(&mut self, reason: EndReason) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(reason);
            first
        });
    }

    pub(super) fn remember_past(&mut self, target: Id) {
        if self.past_targets.len() == PAST_TARGETS {
            self.past_targets.pop_front();
        }
        self.past_targets.push_back(target);
    }

    pub(super) fn had(&self, target: &str) -> bool {
        self.past_targets.iter().any(|past| &**past == target)
    }

    /// Returns what addresses its pages may be sent to.
    pub(super) fn address_rule(&self) -> AddressRule {
        let exclusive = self.options.kind == LeaseKind::Exclusive;
        AddressRule {
            kind: self.options.kind,
            // Pages of Chromium's own could lead a real context round its proxy.
            off_the_record: self.options.default_context == DefaultContext::Fresh
                || self.options.proxy.is_some(),
            files: self.options.file_urls.unwrap_or(exclusive),
        }
    }
}
