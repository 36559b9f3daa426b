use serde::Serialize;
use serde_json::{Map, Value};

/// More of a kind is not kept: a page may do any number of things.
const MOST: usize = 1_000;

/// Characters of a text that are kept.
const LETTERS: usize = 8_192;

/// Notes of what a page did.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Messages on its console.
    pub(crate) console: Vec<String>,
    /// Its requests.
    pub(crate) outbound: Vec<Outbound>,
    /// The answers to them.
    pub(crate) inbound: Vec<Inbound>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Outbound {
    headers: Map<String, Value>,
    method: String,
    url: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Inbound {
    headers: Map<String, Value>,
    status: u64,
    url: String,
}

impl Notes {
    /// Takes an event of the page.
    pub(super) fn take(&mut self, method: &str, params: &Value) {
        match method {
            "Runtime.consoleAPICalled" => {
                let arguments = params["args"].as_array().map(Vec::as_slice).unwrap_or_default();
                let words: Vec<String> = arguments.iter().map(word).collect();
                keep(&mut self.console, || cut(&words.join(" ")));
            }
            "Network.requestWillBeSent" => {
                let request = &params["request"];
                keep(&mut self.outbound, || Outbound {
                    headers: headers(request),
                    method: text(&request["method"]),
                    url: text(&request["url"]),
                });
            }
            "Network.responseReceived" => {
                let response = &params["response"];
                keep(&mut self.inbound, || Inbound {
                    headers: headers(response),
                    status: response["status"].as_u64().unwrap_or_default(),
                    url: text(&response["url"]),
                });
            }
            _ => {}
        }
    }
}

fn keep<T>(kept: &mut Vec<T>, make: impl FnOnce() -> T) {
    if kept.len() < MOST {
        kept.push(make());
    }
}

/// An argument of `console.log`, as it stands there.
fn word(argument: &Value) -> String {
    match (&argument["value"], argument["description"].as_str()) {
        (Value::String(text), _) => text.clone(),
        (Value::Null, Some(description)) => description.to_owned(),
        (Value::Null, None) => argument["type"].as_str().unwrap_or("null").to_owned(),
        (value, _) => value.to_string(),
    }
}

fn headers(of: &Value) -> Map<String, Value> {
    let headers = of["headers"].as_object().into_iter().flatten();
    headers.map(|(name, value)| (name.clone(), text(value).into())).collect()
}

fn text(value: &Value) -> String {
    cut(value.as_str().unwrap_or_default())
}

fn cut(text: &str) -> String {
    text.chars().take(LETTERS).collect()
}
