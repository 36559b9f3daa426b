use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value, json};
use url::Url;

/// Maximum number of notes of each kind, since a page may do any number of things.
const MOST: usize = 1_000;

/// Number of characters of a text that are kept.
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
    /// Processes an event of the page.
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

/// Returns an argument of `console.log` as the console shows it.
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

/// Maximum number of requests in an archive.
const ENTRIES: usize = 10_000;

/// The requests of a page, collected for an HTTP archive (HAR 1.2) without bodies.
#[derive(Debug, Default)]
pub(super) struct Har {
    entries: Vec<Entry>,
    /// The last entry of each request; redirects have an entry each.
    last: HashMap<String, usize>,
    /// Headers that came before the request that they belong to.
    early: HashMap<String, Value>,
    dom_content: Option<f64>,
    load: Option<f64>,
}

#[derive(Debug)]
struct Entry {
    request: Value,
    /// The headers that were actually sent, once they are known.
    sent: Value,
    response: Value,
    received: Value,
    /// Time in seconds since 1970.
    wall: f64,
    /// Time in seconds on Chromium's own clock.
    began: f64,
    ended: Option<f64>,
    /// Bytes of the body, and bytes received in all.
    size: u64,
    transferred: Option<u64>,
    error: Option<String>,
}

impl Har {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Processes an event of the page.
    pub(super) fn take(&mut self, method: &str, params: &Value) {
        let at = params["timestamp"].as_f64();
        match method {
            "Page.domContentEventFired" => self.dom_content = at,
            "Page.loadEventFired" => self.load = at,
            "Network.requestWillBeSent" => self.begin(params),
            "Network.requestWillBeSentExtraInfo" => {
                let headers = params["headers"].clone();
                match self.entry(params) {
                    Some(entry) if entry.sent.is_null() => entry.sent = headers,
                    // They belong to the next step of a redirect.
                    Some(_) | None => self.keep_early(text(&params["requestId"]), headers),
                }
            }
            "Network.responseReceived" => {
                if let Some(entry) = self.entry(params) {
                    entry.response = params["response"].clone();
                }
            }
            "Network.responseReceivedExtraInfo" => {
                if let Some(entry) = self.entry(params) {
                    entry.received = params["headers"].clone();
                }
            }
            "Network.dataReceived" => {
                if let Some(entry) = self.entry(params) {
                    entry.size += params["dataLength"].as_u64().unwrap_or_default();
                }
            }
            "Network.loadingFinished" => {
                if let Some(entry) = self.entry(params) {
                    entry.ended = at;
                    entry.transferred =
                        params["encodedDataLength"].as_f64().map(|bytes| bytes.max(0.0) as u64);
                }
            }
            "Network.loadingFailed" => {
                if let Some(entry) = self.entry(params) {
                    entry.ended = at;
                    entry.error = Some(text(&params["errorText"]));
                }
            }
            _ => {}
        }
    }

    fn keep_early(&mut self, id: String, headers: Value) {
        if self.early.len() < ENTRIES {
            self.early.insert(id, headers);
        }
    }

    fn entry(&mut self, params: &Value) -> Option<&mut Entry> {
        let at = self.last.get(params["requestId"].as_str()?)?;
        self.entries.get_mut(*at)
    }

    fn begin(&mut self, params: &Value) {
        let at = params["timestamp"].as_f64().unwrap_or_default();
        let redirect = &params["redirectResponse"];
        if redirect.is_object()
            && let Some(entry) = self.entry(params)
        {
            entry.response = redirect.clone();
            entry.ended = Some(at);
        }
        let url = params["request"]["url"].as_str().unwrap_or_default();
        if url.starts_with("data:") || self.entries.len() >= ENTRIES {
            return;
        }
        let id = text(&params["requestId"]);
        let sent = self.early.remove(&id).unwrap_or_default();
        self.last.insert(id, self.entries.len());
        self.entries.push(Entry {
            request: params["request"].clone(),
            sent,
            response: Value::Null,
            received: Value::Null,
            wall: params["wallTime"].as_f64().unwrap_or_default(),
            began: at,
            ended: None,
            size: 0,
            transferred: None,
            error: None,
        });
    }

    /// Returns the archive of the page, with its title.
    pub(super) fn archive(self, title: &str) -> Value {
        let first = self.entries.first();
        let (wall, began) = first.map_or((0.0, 0.0), |entry| (entry.wall, entry.began));
        let since = |at: Option<f64>| at.map_or(-1.0, |at| milliseconds(at - began));
        let entries: Vec<Value> = self.entries.iter().map(Entry::archive).collect();
        json!({ "log": {
            "version": "1.2",
            "creator": { "name": "browser-pool", "version": env!("CARGO_PKG_VERSION") },
            "pages": [{
                "startedDateTime": date(wall),
                "id": "page_1",
                "title": title,
                "pageTimings": { "onContentLoad": since(self.dom_content), "onLoad": since(self.load) },
            }],
            "entries": entries,
        } })
    }
}

impl Entry {
    fn archive(&self) -> Value {
        let timings = self.timings();
        let spent = ["blocked", "dns", "connect", "send", "wait", "receive"];
        let time: f64 =
            spent.iter().filter_map(|part| timings[part].as_f64()).filter(|ms| *ms > 0.0).sum();
        let mut entry = json!({
            "pageref": "page_1",
            "startedDateTime": date(self.wall),
            "time": time,
            "request": self.archived_request(),
            "response": self.archived_response(),
            "cache": {},
            "timings": timings,
        });
        if let Some(address) = self.response["remoteIPAddress"].as_str().filter(|ip| !ip.is_empty())
        {
            entry["serverIPAddress"] = json!(address.trim_matches(['[', ']']));
        }
        if let Some(connection) = self.response["connectionId"].as_f64().filter(|id| *id > 0.0) {
            entry["connection"] = json!(connection.to_string());
        }
        entry
    }

    fn archived_request(&self) -> Value {
        let url = self.request["url"].as_str().unwrap_or_default();
        let sent = if self.sent.is_object() { &self.sent } else { &self.request["headers"] };
        let parsed = Url::parse(url).ok();
        let query: Vec<Value> = parsed.iter().flat_map(|url| url.query_pairs()).map(pair).collect();
        let cookies = values(sent, "cookie");
        let cookies = cookies.iter().flat_map(|line| line.split(';'));
        let cookies = cookies.filter_map(|cookie| cookie.trim().split_once('='));
        let body = self.request["postData"].as_str();
        let mut request = json!({
            "method": text(&self.request["method"]),
            "url": cut(url),
            "httpVersion": self.protocol(),
            "cookies": cookies.map(pair).collect::<Vec<_>>(),
            "headers": listed(sent),
            "queryString": query,
            "headersSize": -1,
            "bodySize": body.map_or(0, str::len),
        });
        if let Some(body) = body {
            let kind = values(sent, "content-type").pop().unwrap_or_default();
            request["postData"] = json!({ "mimeType": kind, "params": [], "text": cut(body) });
        }
        request
    }

    fn archived_response(&self) -> Value {
        let response = &self.response;
        let received =
            if self.received.is_object() { &self.received } else { &response["headers"] };
        let cookies = values(received, "set-cookie");
        let cookies = cookies.iter().filter_map(|line| line.split(';').next()?.split_once('='));
        let mut answer = json!({
            "status": response["status"].as_u64().unwrap_or_default(),
            "statusText": text(&response["statusText"]),
            "httpVersion": self.protocol(),
            "cookies": cookies.map(pair).collect::<Vec<_>>(),
            "headers": listed(received),
            "content": { "size": self.size, "mimeType": text(&response["mimeType"]) },
            "redirectURL": values(received, "location").pop().unwrap_or_default(),
            "headersSize": -1,
            "bodySize": -1,
        });
        if let Some(bytes) = self.transferred {
            answer["_transferSize"] = json!(bytes);
        }
        if let Some(error) = &self.error {
            answer["_error"] = json!(error);
        }
        answer
    }

    fn protocol(&self) -> String {
        self.response["protocol"].as_str().unwrap_or("unknown").to_owned()
    }

    /// Returns the milliseconds of each phase; -1 for a phase that did not happen.
    fn timings(&self) -> Value {
        let timing = &self.response["timing"];
        let whole = self.ended.map_or(0.0, |ended| milliseconds(ended - self.began).max(0.0));
        let Some(start) = timing["requestTime"].as_f64() else {
            return json!({
                "blocked": -1, "dns": -1, "connect": -1, "ssl": -1, "send": 0, "wait": 0,
                "receive": whole,
            });
        };
        let at = |name: &str| timing[name].as_f64().unwrap_or(-1.0);
        let part = |from: &str, to: &str| match (at(from), at(to)) {
            (from, to) if from >= 0.0 && to >= from => to - from,
            _ => -1.0,
        };
        let first = ["dnsStart", "connectStart", "sendStart"].map(at);
        let blocked = first.into_iter().find(|at| *at >= 0.0).unwrap_or(-1.0);
        let queued = milliseconds(start - self.began).max(0.0);
        let headers = at("receiveHeadersEnd");
        let rest = self.ended.map_or(0.0, |ended| milliseconds(ended - start) - headers);
        json!({
            "blocked": if blocked < 0.0 { queued } else { blocked + queued },
            "dns": part("dnsStart", "dnsEnd"),
            "connect": part("connectStart", "connectEnd"),
            "ssl": part("sslStart", "sslEnd"),
            "send": part("sendStart", "sendEnd").max(0.0),
            "wait": part("sendEnd", "receiveHeadersEnd").max(0.0),
            "receive": rest.max(0.0),
        })
    }
}

fn milliseconds(seconds: f64) -> f64 {
    // To the microsecond: the rest is noise.
    (seconds * 1e6).round() / 1e3
}

fn date(seconds: f64) -> String {
    let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let at: SystemTime = UNIX_EPOCH + since;
    humantime::format_rfc3339_millis(at).to_string()
}

fn pair<N: AsRef<str>, V: AsRef<str>>((name, value): (N, V)) -> Value {
    json!({ "name": cut(name.as_ref()), "value": cut(value.as_ref()) })
}

/// Returns headers as a list; for a header that came several times, the value has one line for
/// each.
fn listed(headers: &Value) -> Vec<Value> {
    let headers = headers.as_object().into_iter().flatten();
    let lines = headers.flat_map(|(name, value)| {
        value.as_str().unwrap_or_default().lines().map(move |line| pair((name, line)))
    });
    lines.collect()
}

/// Returns the values of a header, ignoring the case of its name.
fn values(headers: &Value, name: &str) -> Vec<String> {
    let headers = headers.as_object().into_iter().flatten();
    let found = headers.filter(|(known, _)| known.eq_ignore_ascii_case(name));
    found.flat_map(|(_, value)| value.as_str().unwrap_or_default().lines().map(cut)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_of_a_redirect_is_an_entry_of_its_own() {
        let mut har = Har::new();
        let request = |url: &str, at: f64| {
            json!({
                "requestId": "1", "timestamp": at, "wallTime": 1e9 + at,
                "request": { "url": url, "method": "GET", "headers": { "Accept": "*/*" } },
            })
        };
        let early = json!({ "requestId": "1", "headers": { "Cookie": "a=1; b=2" } });
        har.take("Network.requestWillBeSentExtraInfo", &early);
        har.take("Network.requestWillBeSent", &request("http://a/?q=1", 1.0));
        let mut second = request("http://a/b", 2.0);
        second["redirectResponse"] = json!({ "status": 302, "headers": { "Location": "/b", "Set-Cookie": "c=3; Path=/\nd=4" } });
        har.take("Network.requestWillBeSent", &second);
        let response = json!({ "requestId": "1", "response": {
            "status": 200, "headers": {}, "mimeType": "text/html", "protocol": "http/1.1",
            "timing": { "requestTime": 2.0, "dnsStart": -1, "dnsEnd": -1, "sendStart": 1.0,
                "sendEnd": 2.0, "receiveHeadersEnd": 5.0 },
        } });
        har.take("Network.responseReceived", &response);
        har.take("Network.loadingFinished", &json!({ "requestId": "1", "timestamp": 2.01 }));
        let archive = har.archive("t");
        let entries = archive["log"]["entries"].as_array().expect("a list");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0]["request"]["cookies"][1], json!({ "name": "b", "value": "2" }));
        assert_eq!(entries[0]["request"]["queryString"][0]["name"], "q");
        assert_eq!(entries[0]["response"]["redirectURL"], "/b");
        assert_eq!(entries[0]["response"]["cookies"][1], json!({ "name": "d", "value": "4" }));
        assert_eq!((&entries[0]["time"], &entries[1]["time"]), (&json!(1000.0), &json!(10.0)));
        assert_eq!(entries[0]["startedDateTime"], "2001-09-09T01:46:41.000Z");
    }
}
