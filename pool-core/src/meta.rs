use std::fmt;
use std::num::NonZeroU64;

use tokio::time::Instant;

use crate::Class;

/// The identity of a resource, unique within its pool and never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId(pub(crate) NonZeroU64);

impl ResourceId {
    /// The number itself: 1 for the first resource of a pool, then upwards.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceId({self})")
    }
}

/// The pool's record of a resource.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Meta {
    /// Its identity.
    pub id: ResourceId,
    /// Its class.
    pub class: Class,
    /// When its creation began.
    pub created_at: Instant,
    /// Number of leases, the present one included.
    pub uses: u64,
}
