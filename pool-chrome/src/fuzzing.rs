//! Properties that the fuzz targets in `fuzz/` check; built only under `cfg(fuzzing)`.
//!
//! Each function panics if its property does not hold.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::mux::fuzzing::{Stage, parse, session_of, with_session_last, without_session, write};

/// Checks that Chromium is sent what the envelope's reader has understood, and nothing else.
pub fn envelope(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(command) = parse(text) else { return };
    let params = command.params.map(|params| params.get());
    let frame = write(command.id, &command.method, params, None);
    let (end, body) = frame.split_last().expect("a frame is not empty");
    assert_eq!(*end, 0);
    assert!(!body.contains(&0), "a frame within the frame");
    // The params are passed on raw: half a surrogate in them is for Chromium to judge.
    let written: BTreeMap<String, &RawValue> = serde_json::from_slice(body).expect("it is JSON");
    assert_eq!(written["id"].get(), command.id.to_string());
    let method: String = serde_json::from_str(written["method"].get()).expect("a string");
    assert_eq!(method, *command.method);
    assert_eq!(written.get("params").map(|params| params.get()), params);
    assert_eq!(written.len(), 2 + usize::from(params.is_some()));
}

/// Checks that the session read from the end of a message is the one that a parser finds in it.
pub fn suffix(bytes: &[u8]) {
    let routed = session_of(bytes);
    let Ok(Value::Object(mut message)) = serde_json::from_slice(bytes) else { return };
    let parsed = message.get("sessionId").and_then(Value::as_str).map(ToOwned::to_owned);
    if let Some(session) = routed {
        assert_eq!(Some(session.as_str()), parsed.as_deref());
        let bare: Value = serde_json::from_slice(&without_session(bytes)).expect("still JSON");
        message.remove("sessionId");
        // They may differ only if a member appears twice.
        if bare.get("sessionId").is_none() {
            assert_eq!(bare, Value::Object(message));
        }
    } else if let Some(moved) = with_session_last(bytes) {
        assert_eq!(session_of(&moved).map(|id| id.to_string()), parsed);
    }
}

/// Checks that, whatever a client sends, Chromium is never given anything that belongs to another
/// client, and the other client is sent nothing.
///
/// Each line is a message; `MINE` and `THEIRS` stand for the sessions of the two clients' pages.
pub fn rules(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut stage = Stage::new();
    let (mut mine, mut theirs) = (stage.actor("mine"), stage.actor("theirs"));
    mine.heard();
    theirs.heard();
    for line in text.lines() {
        stage.hear(&mine, &line.replace("MINE", &mine.session).replace("THEIRS", &theirs.session));
        for frame in stage.written() {
            assert!(!theirs.is_named_by(&frame), "{frame}");
        }
    }
    assert!(theirs.heard().is_empty());
    let heard = mine.heard().concat();
    assert!(!heard.contains(r#""targetId":"page-theirs""#), "{heard}");
}
