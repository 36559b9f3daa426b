use std::fmt;
use std::str::FromStr;

/// The name of a lease in addresses: 128 random bits, which nobody can guess.
///
/// Who knows it may connect to the lease, so `Debug` and logs show only its beginning.
///
/// # Examples
///
/// ```
/// use pool_cli::gateway::LeaseId;
///
/// let id = LeaseId::random();
/// assert_eq!(id.to_string().parse(), Ok(id));
/// assert_eq!(id.short().len(), 8);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(u128);

/// What was read is not the name of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a lease is named by 32 hexadecimal digits")]
pub struct NotALeaseId;

impl LeaseId {
    /// A new one.
    ///
    /// # Panics
    ///
    /// If the operating system has no random numbers, without which no lease would be safe.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
        Self(u128::from_be_bytes(bytes))
    }

    /// The first 8 digits: enough to find it in a log, not enough to connect to it.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseId({}…)", self.short())
    }
}

impl FromStr for LeaseId {
    type Err = NotALeaseId;

    fn from_str(text: &str) -> Result<Self, NotALeaseId> {
        let canonical = text.len() == 32
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        // Only one spelling is taken, so that a lease has one address.
        if !canonical {
            return Err(NotALeaseId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NotALeaseId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_give_the_lease_away() {
        let id = LeaseId::random();
        assert!(!format!("{id:?}").contains(&id.to_string()));
    }

    #[test]
    fn other_spellings_are_no_lease() {
        for text in ["", "../../etc", "+0000000000000000000000000000001", &"F".repeat(32)] {
            assert_eq!(text.parse::<LeaseId>(), Err(NotALeaseId), "{text}");
        }
    }
}
