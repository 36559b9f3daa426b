use std::fmt;
use std::time::Duration;

/// A method of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Step {
    /// [`Driver::create`](crate::Driver::create).
    Create,
    /// [`Driver::check`](crate::Driver::check).
    Check,
    /// [`Driver::recycle`](crate::Driver::recycle).
    Recycle,
    /// [`Driver::close`](crate::Driver::close).
    Close,
    /// [`Driver::revoke`](crate::Driver::revoke).
    Revoke,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Create, Self::Check, Self::Recycle, Self::Close, Self::Revoke];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Check => "check",
            Self::Recycle => "recycle",
            Self::Close => "close",
            Self::Revoke => "revoke",
        })
    }
}

/// Behaviour of a call to the [`FakeDriver`](super::FakeDriver).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behaviour {
    /// It ends well, without yielding.
    #[default]
    Pass,
    /// It fails. A close or revoke cannot fail and passes.
    Fail,
    /// It never ends.
    Hang,
    /// It panics.
    Panic,
    /// It ends well after this long.
    Take(Duration),
    /// It fails after this long.
    FailAfter(Duration),
    /// It stands at the gate until [`FakeControl::release`](super::FakeControl::release) or one
    /// of its kin says what becomes of it.
    Hold,
}
