//! The outer object of a command: read strictly, then rewritten.
//!
//! What Chromium parses must be what the rules have judged, so nothing of a client's envelope is
//! passed on: four members are read, anything else is an error, and a new envelope is written
//! around the raw params.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::framing::{OWN_IDS_FROM, into_frame};
use super::target::SessionId;

/// One command of a client.
#[derive(Debug)]
pub(crate) struct Command<'a> {
    pub(crate) id: i32,
    pub(crate) method: Cow<'a, str>,
    /// An object or a list, if there are any. Chromium accepts a list for commands without params.
    pub(crate) params: Option<&'a RawValue>,
    /// Never empty.
    pub(crate) session: Option<Cow<'a, str>>,
}

/// Chromium's words for a message that names no method.
const NO_METHOD: &str = "Message must have string 'method' property";

/// Reason why a message is not a command, as Chromium would have said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) id: Option<i32>,
    pub(crate) code: i32,
    pub(crate) message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    id: i32,
    #[serde(borrow)]
    method: Text<'a>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "sessionId")]
    session: Option<Text<'a>>,
}

/// Reads a client's message.
///
/// # Errors
///
/// [`Malformed`], with the codes and words of Chromium's own dispatcher.
pub(crate) fn parse(text: &str) -> Result<Command<'_>, Malformed> {
    // Frames on the pipe end with NUL. A bare NUL is invalid anywhere in JSON, but this must hold
    // whatever a JSON parser thinks of it.
    if memchr::memchr(0, text.as_bytes()).is_some() {
        return Err(Malformed::syntax("a NUL byte"));
    }
    // Serde would also accept a JSON array for the struct.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => Malformed::request(None, "Message must be an object"),
            Err(error) => Malformed::syntax(error),
        });
    }
    let wire: Wire<'_> = serde_json::from_str(text).map_err(|error| Malformed::of(text, &error))?;
    if wire.id <= OWN_IDS_FROM {
        return Err(Malformed::request(None, "Message must have an 'id' above -1000000"));
    }
    if wire.method.0.is_empty() {
        // Chromium reports this without a session, so nobody here would hear it.
        return Err(Malformed::request(Some(wire.id), NO_METHOD));
    }
    if wire.params.is_some_and(|params| !params.get().starts_with(['{', '['])) {
        return Err(Malformed::request(Some(wire.id), "Message may have object 'params' property"));
    }
    Ok(Command {
        id: wire.id,
        method: wire.method.0,
        params: wire.params,
        session: wire.session.map(|text| text.0).filter(|text| !text.is_empty()),
    })
}

/// Writes a command for Chromium, with its terminating NUL.
pub(crate) fn write(
    id: i32,
    method: &str,
    params: Option<&str>,
    session: Option<SessionId>,
) -> Vec<u8> {
    let params_len = params.map_or(0, str::len);
    let mut frame = Vec::with_capacity(method.len() + params_len + 96);
    frame.extend_from_slice(br#"{"id":"#);
    frame.extend_from_slice(id.to_string().as_bytes());
    frame.extend_from_slice(br#","method":"#);
    push_string(&mut frame, method);
    if let Some(params) = params {
        frame.extend_from_slice(br#","params":"#);
        frame.extend_from_slice(params.as_bytes());
    }
    push_session(&mut frame, session);
    frame.extend_from_slice(b"}\0");
    frame
}

/// Returns what comes before and after the params of a command, for params that are too large to be
/// copied.
pub(crate) fn around_params(
    id: i32,
    method: &str,
    session: Option<SessionId>,
) -> (Vec<u8>, Vec<u8>) {
    let mut head = write(id, method, None, None);
    head.truncate(head.len() - b"}\0".len());
    head.extend_from_slice(br#","params":"#);
    let mut tail = Vec::with_capacity(64);
    push_session(&mut tail, session);
    tail.extend_from_slice(b"}\0");
    (head, tail)
}

/// Returns a reply with a result, as Chromium writes it.
pub(crate) fn result(id: i32, result: &str, session: Option<SessionId>) -> Bytes {
    let mut frame = format!(r#"{{"id":{id},"result":{result}"#).into_bytes();
    push_session(&mut frame, session);
    frame.push(b'}');
    into_frame(frame)
}

/// Returns a reply with an error, as Chromium writes it; without an id if the command has none.
pub(crate) fn error(
    id: Option<i32>,
    code: i32,
    message: &str,
    session: Option<SessionId>,
) -> Vec<u8> {
    let mut frame = vec![b'{'];
    if let Some(id) = id {
        frame.extend_from_slice(format!(r#""id":{id},"#).as_bytes());
    }
    frame.extend_from_slice(format!(r#""error":{{"code":{code},"message":"#).as_bytes());
    push_string(&mut frame, message);
    frame.push(b'}');
    push_session(&mut frame, session);
    frame.push(b'}');
    frame
}

/// Returns a reply with an error that Chromium wrote.
pub(crate) fn raw_error(id: i32, error: &str, session: Option<SessionId>) -> Vec<u8> {
    let mut frame = format!(r#"{{"id":{id},"error":{error}"#).into_bytes();
    push_session(&mut frame, session);
    frame.push(b'}');
    frame
}

/// Returns an event, as Chromium writes it.
pub(crate) fn event(method: &str, params: &str, session: Option<SessionId>) -> Bytes {
    let mut frame = format!(r#"{{"method":"{method}","params":{params}"#).into_bytes();
    push_session(&mut frame, session);
    frame.push(b'}');
    into_frame(frame)
}

/// Returns a message of a session that is not flattened, wrapped in an event of the session above
/// it.
pub(crate) fn received(
    nested: SessionId,
    target: &str,
    message: &[u8],
    session: Option<SessionId>,
) -> Bytes {
    let mut frame = Vec::with_capacity(message.len() + message.len() / 4 + 256);
    frame.extend_from_slice(br#"{"method":"Target.receivedMessageFromTarget","params":"#);
    frame.extend_from_slice(br#"{"sessionId":""#);
    frame.extend_from_slice(nested.as_str().as_bytes());
    frame.extend_from_slice(br#"","message":"#);
    push_string(&mut frame, &String::from_utf8_lossy(message));
    frame.extend_from_slice(br#","targetId":"#);
    push_string(&mut frame, target);
    frame.push(b'}');
    push_session(&mut frame, session);
    frame.push(b'}');
    into_frame(frame)
}

fn push_session(frame: &mut Vec<u8>, session: Option<SessionId>) {
    if let Some(session) = session {
        frame.extend_from_slice(br#","sessionId":""#);
        frame.extend_from_slice(session.as_str().as_bytes());
        frame.push(b'"');
    }
}

fn push_string(frame: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\' || byte == b' ';
    if text.bytes().all(plain) {
        frame.push(b'"');
        frame.extend_from_slice(text.as_bytes());
        frame.push(b'"');
    } else {
        serde_json::to_writer(frame, text).expect("a string can always be written to memory");
    }
}

impl Malformed {
    fn syntax(what: impl fmt::Display) -> Self {
        Self { id: None, code: -32700, message: format!("JSON: {what}") }
    }

    fn request(id: Option<i32>, message: &str) -> Self {
        Self { id, code: -32600, message: message.to_owned() }
    }

    /// Translates a parser's complaint into Chromium's words for it.
    fn of(text: &str, error: &serde_json::Error) -> Self {
        if !error.is_data() {
            return Self::syntax(error);
        }
        let Ok(object) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
        else {
            return Self::syntax(error);
        };
        let id = object.get("id").and_then(serde_json::Value::as_i64);
        let Some(id) = id.and_then(|id| i32::try_from(id).ok()) else {
            return Self::request(None, "Message must have integer 'id' property");
        };
        let known = ["id", "method", "params", "sessionId"];
        let message = if !object.get("method").is_some_and(serde_json::Value::is_string) {
            NO_METHOD
        } else if object.get("sessionId").is_some_and(|id| !id.is_string()) {
            "Message may have string 'sessionId' property"
        } else if object.keys().any(|key| !known.contains(&key.as_str())) {
            "Message has property other than 'id', 'method', 'sessionId', 'params'"
        } else {
            // The only case left is a member that appears twice.
            return Self { id: Some(id), ..Self::syntax(error) };
        };
        Self::request(Some(id), message)
    }
}

/// A string that is borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: serde::de::Error>(
                self,
                text: &'de str,
            ) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Text<'de>, E> {
                Err(E::invalid_type(serde::de::Unexpected::Unit, &self))
            }
        }
        let text = deserializer.deserialize_str(TextVisitor)?;
        if text.0.contains('\0') {
            return Err(D::Error::custom("a NUL character"));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (i32, String) {
        let malformed = parse(text).unwrap_err();
        (malformed.code, malformed.message)
    }

    #[test]
    fn a_command_is_written_anew_around_its_raw_params() {
        let text = r#" { "sessionId" : "", "params":{"a": 1.50 },"method":"A\u002eb" , "id":7}"#;
        let command = parse(text).unwrap();
        assert_eq!(command.method, "A.b");
        assert!(command.session.is_none());
        let frame = write(command.id, &command.method, command.params.map(RawValue::get), None);
        assert_eq!(frame, b"{\"id\":7,\"method\":\"A.b\",\"params\":{\"a\": 1.50 }}\0");
    }

    #[test]
    fn what_stands_around_large_params_is_what_is_written_around_others() {
        let session = SessionId::parse("7EA8539A0034C78D11E68DEDA3A7AA39");
        for session in [None, session] {
            let (head, tail) = around_params(-5, "A.\"b", session);
            let whole = [&head[..], br#"{"a":1}"#, &tail].concat();
            assert_eq!(whole, write(-5, "A.\"b", Some(r#"{"a":1}"#), session));
        }
    }

    #[test]
    fn params_may_be_left_out_in_every_way_that_chromium_takes() {
        for (text, params) in [
            (r#"{"id":1,"method":"A.b"}"#, None),
            (r#"{"id":1,"method":"A.b","params":null}"#, None),
            (r#"{"id":1,"method":"A.b","params":{}}"#, Some("{}")),
            (r#"{"id":1,"method":"A.b","params":[]}"#, Some("[]")),
        ] {
            assert_eq!(parse(text).unwrap().params.map(RawValue::get), params, "{text}");
        }
    }

    #[test]
    fn errors_are_those_of_chromium() {
        let property = "Message has property other than 'id', 'method', 'sessionId', 'params'";
        for (text, code, message) in [
            ("[1]", -32600, "Message must be an object"),
            (r#"[1,"A.b",null,null]"#, -32600, "Message must be an object"),
            (r#"{"id":1.5,"method":"A.b"}"#, -32600, "Message must have integer 'id' property"),
            (
                r#"{"id":4294967296,"method":"A.b"}"#,
                -32600,
                "Message must have integer 'id' property",
            ),
            (r#"{"method":"A.b"}"#, -32600, "Message must have integer 'id' property"),
            (r#"{"id":1}"#, -32600, "Message must have string 'method' property"),
            (r#"{"id":1,"method":5}"#, -32600, "Message must have string 'method' property"),
            (r#"{"id":1,"method":""}"#, -32600, "Message must have string 'method' property"),
            (
                r#"{"id":1,"method":"A.b","sessionId":5}"#,
                -32600,
                "Message may have string 'sessionId' property",
            ),
            (r#"{"id":1,"method":"A.b","foo":1}"#, -32600, property),
        ] {
            assert_eq!(refused(text), (code, message.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            r#"{"id":1,"id":2,"method":"A.b"}"#,
            r#"{"id":1,"method":"A.b","method":"C.d"}"#,
            r#"{"id":1,"method":"A.b","sessionId":"","sessionId":"X"}"#,
            r#"{"id":1,"method":"A.b","params":null,"params":{}}"#,
            r#"{"id":1,"method":"A.b"} {"id":2,"method":"C.d"}"#,
            r#"{"id":1,"method":"A.b","params":"x"}"#,
            "{\"id\":1,\"method\":\"A.b\"}\0{\"id\":2,\"method\":\"Browser.close\"}",
            "{\"id\":1,\"method\":\"A.b\",\"params\":{\"x\":\"\0\"}}",
            "{\"id\":1,\"method\":\"A.b\\u0000\"}",
            r#"{"id":-1000000,"method":"A.b"}"#,
            r#"{"id":1,"#,
            "",
            "nonsense",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
