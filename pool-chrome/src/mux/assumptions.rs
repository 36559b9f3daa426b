use crate::cdp::CdpError;

/// Assumptions that virtual browsers make about a Chromium, as far as this one has confirmed them.
///
/// Opening the first lease exercises all of it, so asking costs nothing: `sessionId` is the last
/// member of every message; a new page is attached and paused before the command that makes it is
/// answered; the commands that the multiplexer needs exist.
#[derive(Debug, Default)]
pub(crate) struct Assumptions {
    broken: Option<String>,
    paused_page_seen: bool,
}

impl Assumptions {
    /// A message named its session somewhere else than at its end.
    pub(crate) fn session_not_last(&mut self) {
        self.break_with("sessionId is not the last member of its messages");
    }

    /// A page was attached before the reply to its creation; `waiting` if it stood still.
    pub(crate) fn page_attached(&mut self, waiting: bool) {
        if waiting {
            self.paused_page_seen = true;
        } else {
            self.break_with("a new page is not paused");
        }
    }

    /// The reply to a creation came before its page was attached.
    pub(crate) fn page_not_attached(&mut self) {
        self.break_with("a new page is not attached before the reply that names it");
    }

    /// A command of ours does not exist.
    pub(crate) fn unknown_command(&mut self, method: &str) {
        self.break_with(&format!("it does not know {method}"));
    }

    fn break_with(&mut self, what: &str) {
        if self.broken.is_none() {
            tracing::warn!(what, "this Chromium does not behave as virtual browsers need it");
            self.broken = Some(what.to_owned());
        }
    }

    pub(crate) fn check(&self) -> Result<(), CdpError> {
        match &self.broken {
            Some(what) => Err(CdpError::Unsuited(what.clone())),
            None => Ok(()),
        }
    }

    /// Returns `true` if a page has been seen to pause as it must.
    pub(crate) fn is_proven(&self) -> bool {
        self.paused_page_seen && self.broken.is_none()
    }
}
