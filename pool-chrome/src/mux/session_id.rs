use std::fmt;

/// The id of a CDP session: 32 hexadecimal digits in capitals, as Chromium makes them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; Self::LEN]);

impl SessionId {
    /// Characters in an id.
    pub(crate) const LEN: usize = 32;

    /// Reads an id; `None` if it is not one that Chromium could have made.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_bytes(text.as_bytes())
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let digits: [u8; Self::LEN] = bytes.try_into().ok()?;
        let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(byte);
        digits.iter().all(is_hex).then_some(Self(digits))
    }

    /// An id of our own, for sessions that only the multiplexer knows.
    pub(crate) fn invent() -> Self {
        let text = format!("{:032X}", fastrand::u128(..));
        Self::parse(&text).expect("32 hexadecimal digits in capitals")
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}
