use std::fmt;

use serde_json::{Map, Value};

/// Answers the commands that no Chromium has and that clients of hosted browsers send, such as
/// `Browserless.reconnect`: whoever holds the lease knows what they mean.
///
/// It is asked for each command of the domain `Browserless`, on any session, in the client's turn.
pub trait HolderCommands: fmt::Debug + Send + Sync {
    /// Returns the result of a command, or the sentence that refuses it; `None` for one that it
    /// does not know, which is answered as Chromium answers what it does not know.
    ///
    /// It is called, and dropped, while the multiplexer is locked: it must return at once and not use it.
    fn call(&self, method: &str, params: &Map<String, Value>) -> Option<Result<Value, String>>;

    /// Learns that a client of a shared lease has named a file outside of the lease's
    /// [directories](super::LeaseOptions::directories): once for each use and path.
    ///
    /// It is called as [`call`](Self::call) is.
    fn file_refused(&self, file: FileUse, path: &str) {
        let _ = (file, path);
    }
}

/// Uses of a file that a client names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileUse {
    /// A page was to read it.
    Upload,
    /// A download was to go there; it was canceled.
    Download,
}
