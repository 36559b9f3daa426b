//! Names, and the subjects, keys and lease ids that contain them.

use std::sync::Arc;

use crate::engine::{Listen, Topic};

/// Error returned for a name that cannot be part of a subject, a key or a lease id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name of a fleet has characters that a bucket of the store may not have.
    #[error(
        "{name:?} is not a name for a fleet: use 1 to 32 of the characters A-Z, a-z, 0-9, '_' and \
         '-'"
    )]
    Fleet {
        /// The name.
        name: String,
    },
    /// The name of a node is empty, too long, or has characters that an address may not have.
    #[error(
        "{name:?} is not a name for a node: use 1 to 128 characters, none of them a space, a \
         control character or one of / ? # %"
    )]
    Node {
        /// The name.
        name: String,
    },
    /// An encoded name does not come from [`encode`].
    #[error("{token:?} is not an encoded name")]
    Encoding {
        /// The token that was to be decoded.
        token: String,
    },
}

/// Encodes a name as one token of a subject or a key.
///
/// Letters, digits, `_` and `-` stand for themselves, every other byte becomes `=` and two
/// hexadecimal digits, and an empty name is a single `=`. No two names have the same token.
///
/// # Examples
///
/// ```
/// use pool_fleet::subject::{decode, encode};
///
/// assert_eq!(encode("worker-7.example"), "worker-7=2Eexample");
/// assert_eq!(decode("worker-7=2Eexample").as_deref(), Ok("worker-7.example"));
/// ```
#[must_use]
pub fn encode(name: &str) -> String {
    use std::fmt::Write as _;

    if name.is_empty() {
        return "=".into();
    }
    let mut token = String::with_capacity(name.len() + 8);
    for byte in name.bytes() {
        if is_plain(byte) {
            token.push(char::from(byte));
        } else {
            write!(token, "={byte:02X}").expect("a string takes everything");
        }
    }
    token
}

/// Returns the name that a token stands for.
///
/// # Errors
///
/// [`NameError::Encoding`] for anything that [`encode`] does not produce, such as lower-case
/// hexadecimal digits: each name has only one token.
pub fn decode(token: &str) -> Result<String, NameError> {
    if token == "=" {
        return Ok(String::new());
    }
    let broken = || NameError::Encoding { token: token.to_owned() };
    let mut bytes = token.bytes();
    let mut name = Vec::with_capacity(token.len());
    while let Some(byte) = bytes.next() {
        if byte == b'=' {
            let high = bytes.next().and_then(hex).ok_or_else(broken)?;
            let low = bytes.next().and_then(hex).ok_or_else(broken)?;
            let byte = high << 4 | low;
            if is_plain(byte) {
                return Err(broken());
            }
            name.push(byte);
        } else if is_plain(byte) {
            name.push(byte);
        } else {
            return Err(broken());
        }
    }
    if name.is_empty() {
        return Err(broken());
    }
    String::from_utf8(name).map_err(|_| broken())
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Checks the name of a node: it becomes part of lease ids, which become part of addresses.
///
/// # Errors
///
/// [`NameError::Node`].
pub fn check_node(name: &str) -> Result<(), NameError> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#' | '%');
    if name.is_empty() || name.chars().count() > 128 || name.chars().any(odd) {
        return Err(NameError::Node { name: name.to_owned() });
    }
    Ok(())
}

/// Returns the lease id that includes its node, for a local id without dots.
///
/// # Examples
///
/// ```
/// use pool_fleet::subject::{lease_id, split_lease_id};
///
/// let id = lease_id("worker-7.example", "76a6");
/// assert_eq!(id, "worker-7.example.76a6");
/// assert_eq!(split_lease_id(&id), Some(("worker-7.example", "76a6")));
/// assert_eq!(split_lease_id("76a6"), None);
/// ```
#[must_use]
pub fn lease_id(node: &str, local: &str) -> String {
    debug_assert!(!local.contains('.'), "a local lease id has no dots: {local}");
    format!("{node}.{local}")
}

/// Splits a lease id at its last dot into the node and the id that the node gave it.
#[must_use]
pub fn split_lease_id(id: &str) -> Option<(&str, &str)> {
    id.rsplit_once('.').filter(|(node, local)| !node.is_empty() && !local.is_empty())
}

/// Builds the subjects and the bucket names of one fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subjects {
    fleet: Arc<str>,
}

impl Subjects {
    /// Returns the subjects of a fleet.
    ///
    /// # Errors
    ///
    /// [`NameError::Fleet`] if the name cannot be part of a bucket's name.
    pub fn new(fleet: &str) -> Result<Self, NameError> {
        if fleet.is_empty() || fleet.len() > 32 || !fleet.bytes().all(is_plain) {
            return Err(NameError::Fleet { name: fleet.to_owned() });
        }
        Ok(Self { fleet: fleet.into() })
    }

    /// Returns the name of the fleet.
    #[must_use]
    pub fn fleet(&self) -> &str {
        &self.fleet
    }

    /// Returns the subject of the beats of one shard of a zone, whose name may be empty.
    #[must_use]
    pub fn beat(&self, zone: &str, shard: u16) -> String {
        format!("bp.{}.beat.{}.{shard}", self.fleet, encode(zone))
    }

    /// Returns the subject that matches the beats to listen to.
    #[must_use]
    pub fn beats(&self, listen: &Listen) -> String {
        let zone = listen.zone.as_deref().map_or_else(|| "*".into(), encode);
        let shard = listen.shard.map_or_else(|| "*".into(), |shard| shard.to_string());
        format!("bp.{}.beat.{zone}.{shard}", self.fleet)
    }

    /// Returns the subject of a message that the engine publishes.
    #[must_use]
    pub fn topic(&self, topic: &Topic) -> String {
        match topic {
            Topic::Beat { zone, shard } => self.beat(zone, *shard),
            Topic::Ask(node) => self.ask(node),
            Topic::Asks(node) => self.asks(node),
            Topic::Cancel(node) => self.cancel(node),
            Topic::Answer(gateway) => self.answer(gateway),
        }
    }

    /// Returns the subject that asks a node whether it lives.
    #[must_use]
    pub fn who(&self, node: &str) -> String {
        self.of("who", node)
    }

    /// Returns the subject of asks to a node.
    #[must_use]
    pub fn ask(&self, node: &str) -> String {
        self.of("ask", node)
    }

    /// Returns the subject of the lists of asks that still stand at a node.
    #[must_use]
    pub fn asks(&self, node: &str) -> String {
        self.of("asks", node)
    }

    /// Returns the subject on which a node learns which asks are over.
    #[must_use]
    pub fn cancel(&self, node: &str) -> String {
        self.of("cancel", node)
    }

    /// Returns the subject of a node's answers to a gateway.
    #[must_use]
    pub fn answer(&self, gateway: &str) -> String {
        self.of("answer", gateway)
    }

    /// Returns the subject of offers to a gateway.
    #[must_use]
    pub fn offer(&self, gateway: &str) -> String {
        self.of("offer", gateway)
    }

    /// Returns the subject that asks a node for its copy of a profile.
    #[must_use]
    pub fn copy(&self, node: &str) -> String {
        self.of("copy", node)
    }

    /// Returns the name of a bucket of this fleet.
    #[must_use]
    pub fn bucket(&self, what: &str) -> String {
        format!("bp-{}-{what}", self.fleet)
    }

    fn of(&self, kind: &str, node: &str) -> String {
        format!("bp.{}.{kind}.{}", self.fleet, encode(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back_from_its_token() {
        for name in [
            "",
            "a",
            "-",
            "_",
            "worker-7.example",
            "crm@example.com:1+x",
            "=",
            "=2E",
            "a b",
            "*",
            ">",
            "ü",
            "日本",
            "\u{0}",
            "%2e",
            "A/B\\C",
            "..",
        ] {
            let token = encode(name);
            assert!(!token.is_empty());
            assert!(token.bytes().all(|b| is_plain(b) || b == b'='), "{token}");
            assert_eq!(decode(&token).as_deref(), Ok(name));
        }
    }

    #[test]
    fn random_names_come_back_and_never_share_a_token() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut seen = std::collections::HashMap::new();
        for _ in 0..5_000 {
            let name: String = (0..rng.usize(0..4)).map(|_| rng.char('\0'..='\u{2ff}')).collect();
            let token = encode(&name);
            assert_eq!(decode(&token).as_deref(), Ok(&*name));
            let held = seen.entry(token).or_insert_with(|| name.clone());
            assert_eq!(*held, name);
        }
    }

    #[test]
    fn what_encode_does_not_make_is_refused() {
        for token in ["", "=2", "=2e", "=41", "a.b", "a=", "=FF", "==", "a*", "=G0"] {
            assert_eq!(decode(token), Err(NameError::Encoding { token: token.into() }), "{token}");
        }
    }

    #[test]
    fn a_lease_id_splits_at_its_last_dot() {
        assert_eq!(split_lease_id("a.b.c"), Some(("a.b", "c")));
        assert_eq!(split_lease_id("node.7"), Some(("node", "7")));
        for id in ["", ".", "a.", ".a", "76a6"] {
            assert_eq!(split_lease_id(id), None, "{id}");
        }
    }

    #[test]
    fn a_fleet_has_a_name_that_a_bucket_may_have() {
        assert_eq!(
            Subjects::new("production").unwrap().bucket("profiles"),
            "bp-production-profiles"
        );
        for name in ["", "a.b", "a b", "*", ">", "ä", &"x".repeat(33)] {
            assert_eq!(Subjects::new(name), Err(NameError::Fleet { name: name.into() }));
        }
    }

    #[test]
    fn a_node_has_a_name_that_an_address_may_have() {
        for name in ["worker-7", "worker-7.example", "a@b:c+d", "日本"] {
            assert_eq!(check_node(name), Ok(()));
        }
        for name in ["", "a b", "a/b", "a?b", "a#b", "a%b", "a\n", &"x".repeat(129)] {
            assert_eq!(check_node(name), Err(NameError::Node { name: name.into() }));
        }
    }

    #[test]
    fn no_name_leaves_its_place_in_a_subject() {
        let subjects = Subjects::new("production").unwrap();
        assert_eq!(subjects.ask("w.7"), "bp.production.ask.w=2E7");
        assert_eq!(subjects.offer("*"), "bp.production.offer.=2A");
        assert_eq!(subjects.who(">"), "bp.production.who.=3E");
        assert_eq!(subjects.beat("eu-1.a", 3), "bp.production.beat.eu-1=2Ea.3");
        assert_eq!(subjects.beat("", 3), "bp.production.beat.=.3");
        let some = Listen { zone: Some("*".into()), shard: None };
        assert_eq!(subjects.beats(&some), "bp.production.beat.=2A.*");
        let all = Listen { zone: None, shard: Some(7) };
        assert_eq!(subjects.beats(&all), "bp.production.beat.*.7");
        assert_eq!(subjects.copy("a b").split('.').count(), 4);
    }
}
