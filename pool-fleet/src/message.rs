//! The messages that nodes send each other, and their JSON.
//!
//! Every message is one JSON object with the fields `v` (the version of the protocol) and `type`.
//! Unknown fields are ignored, so versions N and N+1 work together; a message of a version that is
//! too new is refused as [`DecodeError::TooNew`]. Durations are whole milliseconds; since the
//! clocks of two machines differ, messages carry durations rather than points in time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Version of the protocol that this crate writes, and the newest that it reads.
pub const VERSION: u8 = 1;

/// A node's name, as configured. Nodes of one fleet have different names.
pub type NodeName = Arc<str>;

/// One run of a node: different at each start, and greater for the one that started later.
///
/// It consists of the wall clock (milliseconds since 1970, upper 44 bits) and random bits (lower
/// 20), and is written as 16 hexadecimal digits. If clocks differ, the order may not be that of the
/// starts, but it is the same for everybody who compares two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(u64);

impl Incarnation {
    /// Number of random bits.
    const RANDOM_BITS: u32 = 20;

    /// Creates the incarnation of a node that starts at this time since 1970.
    #[must_use]
    pub fn new(since_1970: Duration, random: u32) -> Self {
        let millis = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let chance = u64::from(random) & ((1 << Self::RANDOM_BITS) - 1);
        Self(millis << Self::RANDOM_BITS | chance)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

impl FromStr for Incarnation {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for Incarnation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Incarnation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| serde::de::Error::custom("16 hexadecimal digits expected"))
    }
}

/// Any message about leases and presence that one node sends another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Message {
    /// A node reports its state.
    Beat(Arc<Beat>),
    /// A gateway places a request in a node's queue, or changes one that stands there.
    Ask(Ask),
    /// A gateway lists its requests that still stand at a node.
    Asks(Asks),
    /// A gateway calls off requests.
    Cancel(Cancel),
    /// A node reports the outcome of an ask.
    Answer(Answer),
    /// A node offers a lease; answered by [`Message::OfferReply`].
    Offer(Offer),
    /// A gateway takes or declines an offer.
    OfferReply(OfferReply),
    /// Somebody asks for the live node with a name; answered by [`Message::WhoReply`].
    Who(Who),
    /// The live node with that name answers.
    WhoReply(WhoReply),
}

/// The state of a node, as others see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is asking whether its name is taken, and has no leases to offer yet.
    Starting,
    /// It serves.
    #[default]
    Running,
    /// It offers nothing more; its leases finish.
    Draining,
    /// It has ended: this is its last beat.
    Gone,
}

/// Reports the state of a node, once a second and when something changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Beat {
    /// Name of the node.
    pub node: NodeName,
    /// The run of the node that beats.
    pub incarnation: Incarnation,
    /// Counts this run's beats, so that a late one is recognised.
    pub sequence: u64,
    /// Address at which other nodes can reach it (`ws://10.0.1.7:3000`).
    pub address: Arc<str>,
    /// Version of its program.
    pub version: Arc<str>,
    /// Its state.
    pub phase: Phase,
    /// Labels of the node (`zone`), from its configuration.
    #[serde(default)]
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// State of its pool.
    pub load: Load,
    /// Number of clients that wait at it, wherever they may be served.
    #[serde(default)]
    pub clients: u32,
    /// Time that the first of them has waited, in milliseconds.
    #[serde(default)]
    pub oldest_wait_ms: u64,
    /// Time since its first beat, in milliseconds.
    #[serde(default)]
    pub uptime_ms: u64,
    /// Profiles that it can serve.
    #[serde(default)]
    pub profiles: BTreeSet<Arc<str>>,
    /// It creates profiles that it does not know. Default: `false`.
    #[serde(default)]
    pub any_profile: bool,
    /// Regions that it can serve.
    #[serde(default)]
    pub regions: BTreeSet<Arc<str>>,
}

impl Beat {
    /// Creates the first beat of a node, with nothing in its pool.
    #[must_use]
    pub fn new(node: impl Into<NodeName>, incarnation: Incarnation, address: &str) -> Self {
        Self {
            node: node.into(),
            incarnation,
            sequence: 0,
            address: address.into(),
            version: Arc::from(""),
            phase: Phase::Starting,
            labels: BTreeMap::new(),
            load: Load::default(),
            clients: 0,
            oldest_wait_ms: 0,
            uptime_ms: 0,
            profiles: BTreeSet::new(),
            any_profile: false,
            regions: BTreeSet::new(),
        }
    }

    /// Returns the zone of the node, if its configuration names one.
    #[must_use]
    pub fn zone(&self) -> Option<&Arc<str>> {
        self.labels.get("zone")
    }
}

/// Numbers of resources and requests in a node's pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Maximum number of resources at a time, in any state.
    pub places: u32,
    /// Resources that could be created now for a class that is not listed: free places, as far as
    /// limits and the breaker allow.
    pub room: u32,
    /// Resources that the pool keeps whether or not anybody asks for them.
    #[serde(default)]
    pub kept: u32,
    /// Memory of the machine that is in use, in percent, if it is known. Nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u8>,
    /// Numbers by class, named as `pool_core::Class` displays itself (`default`, `profile=work`).
    #[serde(default)]
    pub classes: BTreeMap<Arc<str>, ClassLoad>,
}

/// Numbers of resources and requests of one class in a node's pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassLoad {
    /// Resources that are ready to be leased.
    pub idle: u32,
    /// Resources that are leased.
    pub leased: u32,
    /// Resources that are being created.
    pub creating: u32,
    /// Requests that wait for one, from this node's clients and from others.
    pub waiting: u32,
    /// Resources that could be created now, as far as the class's limit allows.
    pub room: u32,
}

/// A client's request for a lease; it is the same at each node that is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Class of the resource, as decided by the gateway's policies.
    pub class: Arc<str>,
    /// The request's labels (`profile`, `region`, `tenant`).
    #[serde(default)]
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Priority, from 1 (most urgent) to 10. Default: the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// The trace that the lease belongs to, as `traceparent` writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Arc<str>>,
}

/// Places a request in the queue of a node, or changes one that stands there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ask {
    /// Node at which the client waits.
    pub gateway: NodeName,
    /// The gateway's run: asks of an earlier run are over.
    pub incarnation: Incarnation,
    /// Number of the ask, unique within the gateway's run.
    pub id: u64,
    /// Counts the changes to it, so that a late message with a lower number is ignored.
    pub revision: u32,
    /// The client's request.
    pub request: Arc<Wanted>,
    /// Time that the client has waited so far, in milliseconds.
    pub waited_ms: u64,
    /// Time that it will continue to wait, in milliseconds.
    pub left_ms: u64,
    /// The node may create a resource for it. Only one of all the nodes that are asked may.
    pub creates: bool,
}

/// Lists the asks of a gateway that still stand at a node; any others are over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Asks {
    /// The gateway.
    pub gateway: NodeName,
    /// The gateway's run.
    pub incarnation: Incarnation,
    /// Counts the lists to this node, so that a late one is recognised.
    pub sequence: u64,
    /// The highest number that the gateway had given to an ask at the time: later ones are not
    /// covered.
    pub up_to: u64,
    /// All asks that still stand, in ascending order.
    pub ids: Vec<u64>,
}

/// Calls off asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cancel {
    /// The gateway.
    pub gateway: NodeName,
    /// The gateway's run.
    pub incarnation: Incarnation,
    /// The asks that are over.
    pub ids: Vec<u64>,
}

/// Tells a gateway the outcome of its ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Answer {
    /// The node that answers.
    pub node: NodeName,
    /// The node's run.
    pub incarnation: Incarnation,
    /// The gateway's run in which it asked.
    pub asked_by: Incarnation,
    /// Number of the ask.
    pub id: u64,
    /// The outcome.
    pub outcome: Outcome,
}

/// Outcome of an ask, other than an offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It stands in the queue, and nothing is created for it.
    Queued,
    /// A resource is being created for it.
    Launching,
    /// The node does not know it: the ask was lost.
    Unknown,
    /// The node cannot serve it.
    Cannot(Cannot),
}

/// The reason why a node cannot serve a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Cannot {
    /// The kind of reason.
    pub reason: Reason,
    /// The stable code of the refusal (`unknown_profile`), as the node's own clients get it.
    pub code: Arc<str>,
    /// A sentence for people, with the last error if there is one.
    pub message: Arc<str>,
    /// Time after which it is worth trying again, in milliseconds, if that helps at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Cannot {
    /// Creates a reason.
    #[must_use]
    pub fn new(reason: Reason, code: &str, message: &str) -> Self {
        Self { reason, code: code.into(), message: message.into(), retry_after_ms: None }
    }
}

/// Kinds of reasons, from the mildest to the worst: of the reasons that several nodes give, the
/// client is told the worst.
///
/// A node that does not know a profile is the mildest case, since another one may have it; a node
/// that cannot create anything is among the worst, since it is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The request's time is up.
    Timeout,
    /// The node has no such profile or region, or refuses it for a reason of its own.
    Unknown,
    /// The node is draining, or has not started yet.
    Draining,
    /// The queue is full.
    Full,
    /// The client has used up its share there.
    Exhausted,
    /// No resource can be created, and there are none: the breaker is open.
    Unavailable,
    /// The request makes no sense, or is forbidden. No other node is tried.
    Refused,
}

/// Offers a lease for an ask. The gateway accepts one offer for each ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Offer {
    /// Number of the offer, unique within the node's run.
    pub offer: u64,
    /// Number of the ask.
    pub ask: u64,
    /// The gateway's run in which it asked.
    pub asked_by: Incarnation,
    /// The node that offers.
    pub node: NodeName,
    /// The node's run.
    pub incarnation: Incarnation,
    /// Id of the lease (`worker-7.76a6…`).
    pub lease: Arc<str>,
    /// Address at which the node can be reached.
    pub address: Arc<str>,
}

/// Takes or declines an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum OfferReply {
    /// The gateway connects to the lease within two seconds.
    Accept,
    /// The request is over, or was served elsewhere.
    Decline,
}

/// Asks for the live node with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Who {
    /// The name.
    pub node: NodeName,
    /// The run of a starting node that asks about its own name; `None` from anybody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting: Option<Incarnation>,
}

impl Who {
    /// Returns the question as anybody but the node itself asks it.
    #[must_use]
    pub fn new(node: impl Into<NodeName>) -> Self {
        Self { node: node.into(), starting: None }
    }
}

/// Answers [`Who`] with the last beat of the live node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WhoReply {
    /// Last beat of the node.
    pub beat: Arc<Beat>,
}

/// Error returned for bytes that are not a message of the fleet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message has a version that is too new for this node.
    #[error("the message is of version {found} of the protocol; this node reads up to {VERSION}")]
    TooNew {
        /// Version of the message.
        found: u64,
    },
    /// The bytes are not JSON, or not a message.
    #[error("not a message of the fleet: {0}")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct Written<'a> {
    v: u8,
    #[serde(flatten)]
    message: &'a Message,
}

#[derive(Deserialize)]
struct Version {
    v: u64,
}

impl Message {
    /// Returns the message as JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&Written { v: VERSION, message: self })
            .expect("a message has string keys and nothing that can fail")
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooNew`], decided by the version alone, whatever else is in the message;
    /// [`DecodeError::Malformed`] for anything else that cannot be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Version { v } = serde_json::from_slice(bytes)?;
        if v > u64::from(VERSION) {
            return Err(DecodeError::TooNew { found: v });
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        Ask {
            gateway: Arc::from("worker-1.example"),
            incarnation: Incarnation::new(Duration::from_secs(1_800_000_000), 7),
            id: 12,
            revision: 1,
            request: Arc::new(Wanted { class: Arc::from("profile=work"), ..Wanted::default() }),
            waited_ms: 1500,
            left_ms: 20_000,
            creates: true,
        }
    }

    #[test]
    fn a_message_is_one_json_object_with_its_version_and_type() {
        let text = String::from_utf8(Message::Ask(ask()).encode()).expect("JSON is UTF-8");
        let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!((&value["v"], &value["type"]), (&1.into(), &"ask".into()));
        assert_eq!(value["gateway"], "worker-1.example");
        assert_eq!(value["request"]["class"], "profile=work");
        assert_eq!(value["incarnation"].as_str().map(str::len), Some(16));
    }

    #[test]
    fn every_message_reads_back_as_it_was_written() {
        let incarnation = Incarnation::new(Duration::from_secs(1), 1);
        let node: NodeName = Arc::from("n");
        let beat = Arc::new(Beat::new(Arc::clone(&node), incarnation, "ws://n"));
        let cannot = Cannot::new(Reason::Full, "queue_full", "the queue is full");
        let answer = |outcome| Answer {
            node: Arc::clone(&node),
            incarnation,
            asked_by: incarnation,
            id: 1,
            outcome,
        };
        let gateway = || Arc::clone(&node);
        for message in [
            Message::Beat(Arc::clone(&beat)),
            Message::Ask(ask()),
            Message::Asks(Asks {
                gateway: gateway(),
                incarnation,
                sequence: 1,
                up_to: 9,
                ids: vec![1, 9],
            }),
            Message::Cancel(Cancel { gateway: gateway(), incarnation, ids: vec![1] }),
            Message::Answer(answer(Outcome::Queued)),
            Message::Answer(answer(Outcome::Launching)),
            Message::Answer(answer(Outcome::Unknown)),
            Message::Answer(answer(Outcome::Cannot(cannot))),
            Message::Offer(Offer {
                offer: 1,
                ask: 2,
                asked_by: incarnation,
                node: Arc::clone(&node),
                incarnation,
                lease: Arc::from("n.76a6"),
                address: Arc::from("ws://n"),
            }),
            Message::OfferReply(OfferReply::Accept),
            Message::OfferReply(OfferReply::Decline),
            Message::Who(Who { node: Arc::clone(&node), starting: Some(incarnation) }),
            Message::WhoReply(WhoReply { beat }),
        ] {
            assert_eq!(Message::decode(&message.encode()).expect("it is ours"), message);
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_missing_optional_ones_have_defaults() {
        let text = r#"{"v":1,"type":"cancel","gateway":"n","incarnation":"0000000000000001",
                       "ids":[3],"because":"of a later version"}"#;
        let Ok(Message::Cancel(cancel)) = Message::decode(text.as_bytes()) else {
            panic!("it is a cancel");
        };
        assert_eq!(cancel.ids, [3]);
    }

    #[test]
    fn a_version_that_is_too_new_is_refused_by_itself() {
        let error = Message::decode(br#"{"v":2,"type":"a later kind"}"#).expect_err("too new");
        assert!(matches!(error, DecodeError::TooNew { found: 2 }), "{error}");
        for text in ["", "{}", "[]", r#"{"v":1}"#, r#"{"v":1,"type":"ask"}"#] {
            let error = Message::decode(text.as_bytes()).expect_err("malformed");
            assert!(matches!(error, DecodeError::Malformed(_)), "{text}: {error}");
        }
    }

    #[test]
    fn a_later_start_is_a_greater_incarnation() {
        let at = |seconds, random| Incarnation::new(Duration::from_secs(seconds), random);
        assert!(at(2, 0) > at(1, u32::MAX));
        assert_ne!(at(1, 1), at(1, 2));
        assert_eq!(at(5, 9).to_string().parse(), Ok(at(5, 9)));
    }
}
