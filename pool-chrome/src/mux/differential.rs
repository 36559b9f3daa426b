//! What the envelope's reader has understood is what Chromium would have understood: the same text
//! goes to a real Chromium as it is and as it is written anew, and the answers are the same.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::envelope::{parse, write};
use crate::process::{Chromium, Engine, LaunchOptions, Pipe, StateDir};

/// Ends a conversation: Chromium answers in order.
const LAST: &str = r#"{"id":1000000,"method":"Browser.getVersion"}"#;

const ROUNDS: usize = 1_000;

#[tokio::test]
async fn chromium_understands_what_the_filter_has_understood() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path().join("s")).unwrap();
    for engine in [Engine::Shell, Engine::Chromium] {
        let options = LaunchOptions::new().engine(engine);
        let (chromium, mut pipe) = Chromium::launch(options, &state).await.unwrap();
        let mut rng = fastrand::Rng::with_seed(20_261_127);
        let mut understood = 0;
        for _ in 0..ROUNDS {
            let text = message(&mut rng);
            let Ok(command) = parse(&text) else { continue };
            understood += 1;
            let params = command.params.map(|params| params.get());
            let anew = write(command.id, &command.method, params, None);
            let mut plain = answers(&mut pipe, text.as_bytes()).await;
            let mut rewritten = answers(&mut pipe, &anew[..anew.len() - 1]).await;
            for (plain, rewritten) in plain.iter_mut().zip(&mut rewritten) {
                // Chromium stops at what is wrong: it has not seen an id that stands behind it.
                if plain.get("error").is_some() && plain.get("id").is_none() {
                    rewritten.remove("id");
                }
            }
            assert_eq!(plain, rewritten, "{engine:?} and we understand differently: {text:?}");
        }
        assert!(understood > ROUNDS / 20, "only {understood} were commands at all");
        chromium.close(Duration::from_secs(5)).await;
    }
}

/// All that Chromium says to a message.
async fn answers(pipe: &mut Pipe, message: &[u8]) -> Vec<Map<String, Value>> {
    let talk = async {
        for text in [message, LAST.as_bytes()] {
            pipe.writer.write_all(&[text, b"\0"].concat()).await.unwrap();
        }
        let mut heard = Vec::new();
        loop {
            let mut answer = Vec::new();
            loop {
                match pipe.reader.read_u8().await.unwrap() {
                    0 => break,
                    byte => answer.push(byte),
                }
            }
            let answer: Map<String, Value> = serde_json::from_slice(&answer).unwrap();
            if answer.get("id") == Some(&json!(1_000_000)) {
                return heard;
            }
            heard.push(answer);
        }
    };
    timeout(Duration::from_secs(60), talk).await.expect("Chromium answers")
}

/// Something between a command and nonsense.
fn message(rng: &mut fastrand::Rng) -> String {
    let mut members = Vec::new();
    if rng.u8(..) > 5 {
        members.push((key(rng, "id"), pick(rng, IDS).to_owned()));
    }
    if rng.u8(..) > 5 {
        members.push((key(rng, "method"), method(rng)));
    }
    if rng.bool() {
        members.push((key(rng, "params"), pick(rng, PARAMS).to_owned()));
    }
    if rng.u8(..) < 20 {
        members.push((key(rng, "sessionId"), r#""""#.to_owned()));
    }
    if rng.u8(..) < 10 {
        members.push((key(rng, "extra"), "1".to_owned()));
    }
    if rng.u8(..) < 20
        && let Some(again) = rng.choice(&members).cloned()
    {
        members.push(again);
    }
    rng.shuffle(&mut members);
    let mut text = format!("{}{{", space(rng));
    for (at, (key, value)) in members.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let (a, b, c, d) = (space(rng), space(rng), space(rng), space(rng));
        text += &format!("{comma}{a}{key}{b}:{c}{value}{d}");
    }
    text += pick(rng, ENDS);
    text
}

const IDS: &[&str] = &[
    "7",
    "7",
    "7",
    "7",
    "0",
    "-7",
    "-0",
    "7.0",
    "7e0",
    "70e-1",
    "7.5",
    "07",
    "+7",
    "0x7",
    r#""7""#,
    "[7]",
    "null",
    "true",
    "2147483647",
    "2147483648",
    "4294967303",
    "1e400",
    "-1000001",
];

const PARAMS: &[&str] = &[
    "{}",
    "{}",
    "{ }",
    r#"{"a":1}"#,
    r#"{"a":1,"a":2}"#,
    r#"{"targetId":"x"}"#,
    "null",
    "[]",
    "7",
    r#""x""#,
    r#"{"a":{"method":"Browser.close","id":7}}"#,
    r#"{"a":"\ud800"}"#,
    "{\"a\":\"\u{2028}\"}",
    "{\"a\":1,}",
    r#"{"a":"},\"method\":\"Target.getTargets\",\"b\":{"}"#,
];

const METHODS: &[&str] = &[
    "Browser.getVersion",
    "Target.getTargets",
    "Target.getBrowserContexts",
    "Target.getTargetInfo",
    "Nothing.known",
    "Browser",
    "",
    ".",
    "Browser.getVersion ",
    "browser.getVersion",
    "Bröwser.getVersion",
    "Browser.getVersion\u{0}",
    "Browser.getVersion\"",
    "Browser\\getVersion",
    "\u{1f600}.x",
    "Browser.get\nVersion",
];

const ENDS: &[&str] = &["}", "}", "}", "}", "}", "} ", "}\n", ",}", "}}", "} x", "}{}", ""];

fn pick<'a>(rng: &mut fastrand::Rng, from: &[&'a str]) -> &'a str {
    rng.choice(from).copied().expect("there are some")
}

fn space(rng: &mut fastrand::Rng) -> &'static str {
    match rng.u8(..) {
        0..=9 => " ",
        10..=19 => "\r\n\t",
        20..=21 => "/**/",
        22..=23 => "\u{feff}",
        24..=25 => "\u{a0}",
        26..=27 => "\u{b}",
        _ => "",
    }
}

fn key(rng: &mut fastrand::Rng, key: &str) -> String {
    match rng.u8(..) {
        0..=4 => string(rng, &key.to_uppercase()),
        5..=9 => key.to_owned(),
        10..=14 => format!("'{key}'"),
        15..=19 => string(rng, &format!("{key}\u{0}")),
        _ => string(rng, key),
    }
}

fn method(rng: &mut fastrand::Rng) -> String {
    match rng.u8(..) {
        0..=9 => {
            pick(rng, &["7", "null", "[]", "{}", r#""\ud800.x""#, r#""\x41.x""#, "\"a\u{1}b\""])
                .to_owned()
        }
        _ => {
            let name = pick(rng, METHODS);
            string(rng, name)
        }
    }
}

/// A string literal, with some of its characters escaped that need not be.
fn string(rng: &mut fastrand::Rng, text: &str) -> String {
    let mut literal = String::from("\"");
    for char in text.chars() {
        let plain = !matches!(char, '"' | '\\' | '\u{0}'..='\u{1f}');
        if plain && rng.u8(..) > 8 {
            literal.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                literal += &format!("\\u{unit:04x}");
            }
        }
    }
    literal.push('"');
    literal
}
