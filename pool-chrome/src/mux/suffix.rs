//! Where a message from Chromium belongs, told without parsing it.
//!
//! `sessionId` is always the last member of what Chromium sends, so the last 48 bytes say which
//! session a message is for. A root message can never end like that: its last member is an object,
//! so it ends in `}}`. That this holds is checked with each Chromium at its start (see
//! [`Assumptions`](super::assumptions::Assumptions)).

use super::session_id::SessionId;

const LEAD: &[u8] = br#","sessionId":""#;
const TAIL: &[u8] = br#""}"#;
/// The length of `,"sessionId":"<32 digits>"}`.
const SUFFIX: usize = LEAD.len() + SessionId::LEN + TAIL.len();

/// Ids at or below this are the multiplexer's own.
pub(crate) const OWN_IDS_FROM: i32 = -1_000_000;

/// The session that a message is for; `None` for the root session.
pub(crate) fn session_of(message: &[u8]) -> Option<SessionId> {
    let suffix = message.get(message.len().checked_sub(SUFFIX)?..)?;
    let digits = suffix.strip_prefix(LEAD)?.strip_suffix(TAIL)?;
    SessionId::from_bytes(digits)
}

/// A message without its session suffix, as the root session of a client would get it.
pub(crate) fn without_session(message: &[u8]) -> Vec<u8> {
    let body = &message[..message.len() - SUFFIX];
    let mut bare = Vec::with_capacity(body.len() + 1);
    bare.extend_from_slice(body);
    bare.push(b'}');
    bare
}

/// The id of a reply to a command of the multiplexer's own; `None` for everything else.
pub(crate) fn own_reply(message: &[u8]) -> Option<i32> {
    let rest = message.strip_prefix(br#"{"id":-"#)?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let digits = std::str::from_utf8(&rest[..end]).expect("digits are ASCII");
    let id = digits.parse::<i64>().ok()?.checked_neg()?;
    i32::try_from(id).ok().filter(|id| *id <= OWN_IDS_FROM)
}

/// Returns `true` if a message is an answer: an event has no id.
pub(crate) fn is_reply(message: &[u8]) -> bool {
    message.starts_with(br#"{"id":"#)
}

/// The same message with its session at the end, for a Chromium that puts it elsewhere.
pub(crate) fn with_session_last(message: &[u8]) -> Option<Vec<u8>> {
    let mut members: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(message).ok()?;
    let session = members.remove("sessionId")?;
    let session = SessionId::parse(session.as_str()?)?;
    let id = members.remove("id").map(|id| format!(r#""id":{id},"#)).unwrap_or_default();
    let method = members.remove("method");
    let method = method.map(|method| format!(r#""method":{method},"#)).unwrap_or_default();
    let rest = serde_json::to_string(&members).ok()?;
    let rest = rest.strip_prefix('{')?.strip_suffix('}')?;
    Some(format!(r#"{{{id}{method}{rest},"sessionId":"{session}"}}"#).into_bytes())
}

/// Returns `true` if a message is an event of the `Target` domain: the only ones that change what a
/// session of a page is.
pub(crate) fn is_target_event(message: &[u8]) -> bool {
    message.starts_with(br#"{"method":"Target."#)
}

/// Returns `true` if a message tells how far a document has loaded.
pub(crate) fn is_lifecycle_event(message: &[u8]) -> bool {
    message.starts_with(br#"{"method":"Page.lifecycleEvent","#)
}

/// Returns `true` if a message on a browser session is one that the multiplexer must look into.
pub(crate) fn is_browser_event(message: &[u8]) -> bool {
    is_target_event(message) || message.starts_with(br#"{"method":"Browser.download"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7EA8539A0034C78D11E68DEDA3A7AA39";

    #[test]
    fn the_session_is_read_from_the_end() {
        let message = format!(r#"{{"id":4,"result":{{}},"sessionId":"{ID}"}}"#);
        let session = session_of(message.as_bytes()).unwrap();
        assert_eq!(session.as_str(), ID);
        assert_eq!(without_session(message.as_bytes()), br#"{"id":4,"result":{}}"#);
    }

    #[test]
    fn a_root_message_that_names_a_session_in_its_params_stays_a_root_message() {
        let event = format!(
            r#"{{"method":"Target.detachedFromTarget","params":{{"targetId":"T","sessionId":"{ID}"}}}}"#
        );
        assert_eq!(session_of(event.as_bytes()), None);
    }

    #[test]
    fn a_title_that_imitates_the_suffix_does_not_reroute() {
        let title = format!(r#"\",\"sessionId\":\"{ID}\"}}"#);
        let event = format!(r#"{{"method":"X.y","params":{{"title":"{title}"}}}}"#);
        assert_eq!(session_of(event.as_bytes()), None);
    }

    #[test]
    fn lower_case_and_short_ids_are_not_sessions() {
        let lower = format!(r#"{{"id":4,"result":{{}},"sessionId":"{}"}}"#, ID.to_lowercase());
        assert_eq!(session_of(lower.as_bytes()), None);
        assert_eq!(session_of(br#"{"id":4,"sessionId":"7EA8"}"#), None);
        assert_eq!(session_of(b""), None);
    }

    #[test]
    fn a_session_elsewhere_is_found_and_moved() {
        let message = format!(r#"{{"id":4,"sessionId":"{ID}","result":{{"a":1}}}}"#);
        assert_eq!(session_of(message.as_bytes()), None);
        let moved = with_session_last(message.as_bytes()).unwrap();
        assert_eq!(session_of(&moved).unwrap().as_str(), ID);
        assert_eq!(without_session(&moved), br#"{"id":4,"result":{"a":1}}"#);
    }

    #[test]
    fn only_ids_of_the_reserved_range_are_own() {
        assert_eq!(own_reply(br#"{"id":-1000000,"result":{}}"#), Some(-1_000_000));
        assert_eq!(own_reply(br#"{"id":-2147483648,"error":{}}"#), Some(i32::MIN));
        assert_eq!(own_reply(br#"{"id":-999999,"result":{}}"#), None);
        assert_eq!(own_reply(br#"{"id":1000000,"result":{}}"#), None);
        assert_eq!(own_reply(br#"{"id":-99999999999999999999,"result":{}}"#), None);
        assert_eq!(own_reply(br#"{"method":"X.y","params":{}}"#), None);
    }
}
