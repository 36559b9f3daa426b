//! `/content`, `/screenshot`, `/pdf` and `/scrape` of the real service, on real Chromium.

mod gateway_support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use gateway_support::{PATIENCE, Service, renderers};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// A pool of two that may share a Chromium.
const SHARED: &str = "[pool]\nmin_size = 1\nmax_size = 4\nlease = \"shared\"\n\
     [chrome]\nengine = \"shell\"\n";

/// The address of a site whose pages do what their name says.
async fn site() -> String {
    let router = Router::new()
        .route("/", get(|| async { Html(HOME) }))
        .route("/echo", get(echo))
        .route("/who", get(who))
        .route("/moved", get(|| async { Redirect::to("/?moved") }))
        .route("/away", get(|| async { Html("<script>location = '/?away'</script>") }))
        .route("/hang", get(|| async { std::future::pending::<()>().await }))
        .route("/loop", get(|| async { Html("<script>for (;;) {}</script>") }))
        .route("/late-loop", get(|| async { Html(LATE_LOOP) }))
        .route("/dialogs", get(|| async { Html(DIALOGS) }))
        .route("/flood", get(|| async { Html(FLOOD) }))
        .route("/closes", get(|| async { Html("<script>close()</script>") }))
        .route("/download", get(download))
        .route("/loaded", get(|| async { Html(LOADED) }))
        .route("/style.css", get(|| async { css("h1 { color: rgb(1, 2, 3) }") }))
        .route("/frame", get(frame))
        .fallback(|| async { (StatusCode::NOT_FOUND, Html("<title>none</title>")) });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// Says again and again that it is ready, since nobody can say how soon after its load it is listened to.
const HOME: &str = "<!doctype html><!-- ours --><title>Home</title>\
     <link rel=stylesheet href=/style.css><h1 id=top class='a b'>Hello</h1>\
     <script>setTimeout(() => { \
     document.body.insertAdjacentHTML('beforeend', '<p id=late>late</p>'); \
     setInterval(() => document.dispatchEvent(new Event('ready')), 50); }, 300)</script>";
const LOADED: &str = "<title>loads</title><script>addEventListener('load', () => \
     document.title = 'loaded')</script>";
const LATE_LOOP: &str = "<title>late</title><script>setTimeout(() => { for (;;) {} }, 50)</script>";
const DIALOGS: &str = "<script>addEventListener('beforeunload', e => e.preventDefault()); \
     alert(1); document.title = [confirm(2), prompt(3)]</script>";
const FLOOD: &str = "<title>flood</title><script>for (let i = 0; i < 30000; i++) \
     console.log('x'.repeat(200)); for (let i = 0; i < 3000; i++) fetch('/echo?' + i)\
     .catch(() => 0)</script>";

/// The headers that came, as a page.
async fn echo(headers: HeaderMap) -> Html<String> {
    let headers: BTreeMap<&str, &str> = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    Html(format!("<pre>{}</pre>", json!(headers)))
}

async fn who(headers: HeaderMap) -> Response {
    match headers.get(header::AUTHORIZATION) {
        // `user` and `secret`.
        Some(value) if value == "Basic dXNlcjpzZWNyZXQ=" => Html("<p>welcome</p>").into_response(),
        _ => {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"ours\"")];
            (StatusCode::UNAUTHORIZED, challenge, Html("<p>who?</p>")).into_response()
        }
    }
}

async fn download() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=x.bin"),
    ];
    (headers, vec![b'x'; 1000]).into_response()
}

fn css(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "text/css")], text).into_response()
}

/// A page with the page of another site in a frame, which has a process of its own.
async fn frame(request: Request) -> Html<String> {
    let host = request.headers()["host"].to_str().expect("it is text").to_owned();
    let other = host.replace("127.0.0.1", "localhost");
    Html(format!("<iframe src=http://{other}/echo></iframe>"))
}

/// An answer to a call.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: ureq::http::HeaderMap,
    bytes: Vec<u8>,
}

impl Reply {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("it is text"))
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.text());
        self
    }

    /// The status, the code, and the sentence of a refusal.
    fn refusal(&self) -> (u16, String, String) {
        let problem = self.json();
        let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        (self.status, text("code"), text("detail"))
    }
}

async fn send(service: &Service, path: &str, headers: &[(&str, &str)], body: String) -> Reply {
    let url = format!("http://{}{path}", service.address);
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let sent = spawn_blocking(move || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut request = agent.post(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        read(request.send(&body).expect("the gateway answers"))
    });
    sent.await.expect("it does not panic")
}

async fn fetch(service: &Service, path: &str) -> Reply {
    let url = format!("http://{}{path}", service.address);
    let sent = spawn_blocking(move || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        read(agent.get(url).call().expect("the gateway answers"))
    });
    sent.await.expect("it does not panic")
}

fn read(mut answer: ureq::http::Response<ureq::Body>) -> Reply {
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let mut bytes = Vec::new();
    answer.body_mut().as_reader().read_to_end(&mut bytes).expect("the answer is whole");
    Reply { status, headers, bytes }
}

async fn post(service: &Service, path: &str, body: Value) -> Reply {
    send(service, path, &[("content-type", "application/json")], body.to_string()).await
}

/// The text of the document that comes of a body for `/content`.
async fn content(service: &Service, body: Value) -> String {
    post(service, "/content", body).await.ok().text()
}

/// The headers that `/echo` got.
async fn echoed(service: &Service, site: &str, mut body: Value) -> Value {
    body["url"] = json!(format!("{site}/echo"));
    let html = content(service, body).await;
    let json = html.split("<pre>").nth(1).and_then(|rest| rest.split("</pre>").next());
    serde_json::from_str(json.expect("it is there")).expect("it is JSON")
}

/// Waits until something is so.
async fn until(service: &Service, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}: {}", service.log());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until no lease is held.
async fn until_free(service: &Service) {
    let is_free = async || service.get("/sessions").await.json() == json!([]);
    until(service, "no lease is held", is_free).await;
}

/// The value of a series of the metrics.
async fn metric(service: &Service, series: &str) -> f64 {
    let text = service.get("/metrics").await.body;
    let line = text.lines().find(|line| line.starts_with(series));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

/// Waits until a series has this value: what ends is counted after its client is told, and its lease is nobody's.
async fn until_metric(service: &Service, series: &str, value: f64) {
    let has_it = async || metric(service, series).await == value;
    until(service, &format!("{series} {value}"), has_it).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_gives_its_html_in_every_kind_of_lease() {
    let site = site().await;
    for config in [
        SHARED.to_owned(),
        SHARED.replace("shell", "chromium"),
        SHARED.replace("shared", "exclusive"),
    ] {
        let service = Service::start(&config);
        let reply =
            post(&service, "/content", json!({ "url": format!("{site}/moved") })).await.ok();
        assert!(reply.text().starts_with("<!DOCTYPE html><!-- ours --><html>"), "{reply:?}");
        assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(reply.header("x-response-code"), "200");
        assert_eq!(reply.header("x-response-status"), "OK");
        assert_eq!(reply.header("x-response-url"), format!("{site}/?moved"));
        let host = format!("{}:{}", reply.header("x-response-ip"), reply.header("x-response-port"));
        assert_eq!(format!("http://{host}"), site);
        let none = post(&service, "/chromium/content", json!({ "url": format!("{site}/nothing") }));
        let none = none.await.ok();
        assert_eq!(none.header("x-response-code"), "404", "an error page is a page");
        let written = json!({ "html": "<p>a</p><script>document.body.append('b')</script>" });
        let written = post(&service, "/content", written).await.ok();
        assert!(written.text().contains("</script>b</body>"), "{written:?}");
        assert_eq!(written.header("x-response-code"), "", "no server was asked");
        until_free(&service).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_holds_before_the_first_request() {
    let (service, site) = (Service::start(SHARED), site().await);
    let seen = echoed(
        &service,
        &site,
        json!({
            "cookies": [{ "name": "a", "value": "1" }, { "name": "b", "value": "2", "url": site }],
            "setExtraHTTPHeaders": { "X-Ours": "yes" },
            "userAgent": "Ours/1.0",
            "gotoOptions": { "referer": "http://from.example/" },
        }),
    )
    .await;
    assert_eq!(seen["cookie"], "a=1; b=2");
    assert_eq!(seen["x-ours"], "yes");
    assert_eq!(seen["user-agent"], "Ours/1.0");
    assert_eq!(seen["referer"], "http://from.example/");
    let whole = json!({ "userAgent": { "userAgent": "Whole/2", "platform": "Ours" } });
    assert_eq!(echoed(&service, &site, whole).await["user-agent"], "Whole/2");

    let who =
        |credentials: Value| json!({ "url": format!("{site}/who"), "authenticate": credentials });
    let right = who(json!({ "username": "user", "password": "secret" }));
    assert!(content(&service, right).await.contains("welcome"));
    let wrong = post(&service, "/content", who(json!({ "username": "a", "password": "b" }))).await;
    assert_eq!(wrong.ok().header("x-response-code"), "401");

    let script = "<script>document.title = [innerWidth, innerHeight, devicePixelRatio, \
                  'ontouchstart' in window, matchMedia('print').matches]</script>";
    let body = json!({
        "html": script, "emulateMediaType": "print",
        "viewport": { "width": 400, "height": 300, "deviceScaleFactor": 2, "hasTouch": true },
    });
    assert!(content(&service, body).await.contains("<title>400,300,2,true,true</title>"));
    let usual = content(&service, json!({ "html": script })).await;
    assert!(usual.contains("<title>800,600,1,false,false</title>"), "{usual}");
    for on in [true, false] {
        let body = json!({ "html": script, "setJavaScriptEnabled": on });
        assert_eq!(content(&service, body).await.contains("<title>"), on);
    }
    let without = json!({ "url": format!("{site}/away"), "setJavaScriptEnabled": false });
    assert!(content(&service, without).await.contains("/?away"), "it did not go away");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_rejected_and_answered_in_frames_as_well() {
    let (service, site) = (Service::start(SHARED), site().await);
    let color = "<h1>x</h1><script>addEventListener('load', () => document.title = \
                 getComputedStyle(document.querySelector('h1')).color)</script>";
    let page = format!("<link rel=stylesheet href={site}/style.css>{color}");
    for (body, title) in [
        (json!({}), "rgb(1, 2, 3)"),
        (json!({ "rejectResourceTypes": ["stylesheet"] }), "rgb(0, 0, 0)"),
        (json!({ "rejectRequestPattern": ["style\\.css$"] }), "rgb(0, 0, 0)"),
        (json!({ "rejectRequestPattern": ["^style"] }), "rgb(1, 2, 3)"),
        (
            json!({ "requestInterceptors": [{ "pattern": "style", "response": {
                "status": 200, "contentType": "text/css",
                "body": BASE64_STANDARD.encode("h1 { color: rgb(9, 9, 9) }"),
            } }] }),
            "rgb(9, 9, 9)",
        ),
        (
            json!({ "requestInterceptors": [{ "pattern": "style", "response": {
                "headers": { "Content-Type": "text/css" }, "body": "h1 { color: rgb(8, 8, 8) }",
            } }] }),
            "rgb(8, 8, 8)",
        ),
    ] {
        let mut body = body;
        body["html"] = json!(page);
        let html = content(&service, body.clone()).await;
        assert!(html.contains(&format!("<title>{title}</title>")), "{body}: {html}");
    }
    let frames = json!({
        "url": format!("{site}/frame"), "elements": [{ "selector": "iframe" }],
        "rejectRequestPattern": ["echo$"], "debugOpts": { "network": true },
        "setExtraHTTPHeaders": { "x-ours": "yes" },
    });
    let debug = post(&service, "/scrape", frames).await.ok().json()["debug"].take();
    let inbound = debug["network"]["inbound"].as_array().expect("a list");
    assert_eq!(inbound.len(), 1, "the frame was not asked for: {inbound:?}");
    let itself = json!({ "url": site, "rejectResourceTypes": ["document"] });
    let (status, code, detail) = post(&service, "/content", itself).await.refusal();
    assert_eq!((status, &*code), (500, "page_unreachable"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_what_it_is_told_and_says_which_wait_was_too_long() {
    let (service, site) = (Service::start(SHARED), site().await);
    for wait in [
        json!({ "waitForEvent": { "event": "ready" } }),
        json!({ "waitForFunction": { "fn": "() => document.querySelector('#late')" } }),
        json!({ "waitForFunction": { "fn": "async () => !!window.late", "polling": 20 } }),
        json!({ "waitForFunction": { "fn": "document.querySelector('#late')", "polling": "raf" } }),
        json!({ "waitForSelector": { "selector": "#late", "visible": true } }),
        json!({ "waitForTimeout": 600 }),
        json!({ "gotoOptions": { "waitUntil": ["load", "networkidle0"] } }),
        json!({ "gotoOptions": { "waitUntil": "networkidle2" } }),
    ] {
        let mut body = wait;
        body["url"] = json!(site);
        assert!(content(&service, body.clone()).await.contains("id=\"late\""), "{body}");
    }
    for (wait, code, says) in [
        (
            json!({ "waitForEvent": { "event": "no", "timeout": 50 } }),
            "wait_timeout",
            "waitForEvent",
        ),
        (
            json!({ "waitForFunction": { "fn": "() => 0", "timeout": 50 } }),
            "wait_timeout",
            "waitForFunction",
        ),
        (json!({ "waitForSelector": { "selector": "#no", "timeout": 50 } }), "wait_timeout", "#no"),
        (
            json!({ "waitForSelector": { "selector": "h1", "hidden": true, "timeout": 50 } }),
            "wait_timeout",
            "hidden",
        ),
        (
            json!({ "url": format!("{site}/hang"), "gotoOptions": { "timeout": 200 } }),
            "goto_timeout",
            "gotoOptions.timeout",
        ),
    ] {
        let mut body = json!({ "url": site });
        body.as_object_mut().expect("an object").extend(wait.as_object().expect("one").clone());
        let (status, found, detail) = post(&service, "/content", body.clone()).await.refusal();
        assert_eq!((status, &*found), (408, code), "{body}: {detail}");
        assert!(detail.contains(says), "{detail}");
        body["bestAttempt"] = json!(true);
        if code == "wait_timeout" {
            assert!(content(&service, body).await.contains("Hello"), "it goes on with what it has");
        } else {
            post(&service, "/content", body).await.ok();
        }
    }
    let all = json!({ "url": site, "waitForTimeout": 10_000 });
    let (status, code, detail) = post(&service, "/content?timeout=300", all).await.refusal();
    assert_eq!((status, &*code), (408, "work_timeout"), "{detail}");
    assert!(detail.contains("300ms") && detail.contains("?timeout="), "{detail}");
    until_free(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_and_styles_are_added_to_the_page() {
    let (service, site) = (Service::start(SHARED), site().await);
    let body = json!({
        "url": site,
        "addStyleTag": [{ "content": "h1 { width: 77px }" }, { "url": format!("{site}/style.css") }],
        "addScriptTag": [
            { "content": "document.title = document.querySelector('h1').offsetWidth" },
            { "url": "data:text/javascript,document.title+='!'" },
        ],
    });
    assert!(content(&service, body).await.contains("<title>77!</title>"));
    for (tag, says) in [
        (
            json!({ "addScriptTag": [{ "url": format!("{site}/nothing.js") }] }),
            "could not be loaded",
        ),
        (json!({ "addScriptTag": [{ "path": "/etc/passwd" }] }), "addScriptTag[0].path"),
        (json!({ "addStyleTag": [{}] }), "addStyleTag[0]"),
    ] {
        let mut body = tag;
        body["url"] = json!(site);
        let (status, code, detail) = post(&service, "/content", body).await.refusal();
        assert_eq!((status, &*code), (400, "bad_body"));
        assert!(detail.contains(says), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn elements_are_scraped_as_browserless_does() {
    let (service, site) = (Service::start(SHARED), site().await);
    let body = json!({
        "url": site, "elements": [{ "selector": "h1" }, { "selector": "#late" }],
        "addScriptTag": [{ "content": "console.log('said', 1, {})" }],
        "debugOpts": { "console": true, "cookies": true, "html": true, "network": true, "screenshot": true },
    });
    let reply = post(&service, "/scrape", body).await.ok();
    assert_eq!(reply.header("content-type"), "application/json");
    let answer = reply.json();
    let found = &answer["data"][0]["results"][0];
    assert_eq!(answer["data"][0]["selector"], "h1");
    let attributes = json!([{ "name": "id", "value": "top" }, { "name": "class", "value": "a b" }]);
    assert_eq!(found["attributes"], attributes);
    assert_eq!((&found["html"], &found["text"]), (&json!("Hello"), &json!("Hello")));
    for side in ["height", "left", "top", "width"] {
        assert!(found[side].as_f64().expect("a number") > 0.0, "{side}");
    }
    assert_eq!(answer["data"][1]["results"][0]["text"], "late", "it was waited for");
    let debug = &answer["debug"];
    assert_eq!(debug["console"], json!(["said 1 Object"]));
    assert_eq!(debug["network"]["outbound"][0]["url"], format!("{site}/"));
    assert_eq!(debug["network"]["inbound"][0]["status"], 200);
    assert!(debug["html"].as_str().expect("text").contains("Hello"));
    let shot = BASE64_STANDARD.decode(debug["screenshot"].as_str().expect("text"));
    assert!(shot.expect("base64").starts_with(b"\xff\xd8"), "a JPEG");
    let missing = json!({ "url": site, "elements": [{ "selector": "#no", "timeout": 50 }] });
    let (status, code, detail) = post(&service, "/scrape", missing.clone()).await.refusal();
    assert_eq!((status, &*code), (408, "wait_timeout"));
    assert!(detail.contains("elements[0]"), "{detail}");
    let mut missing = missing;
    missing["bestAttempt"] = json!(true);
    let answer = post(&service, "/scrape", missing).await.ok().json();
    assert_eq!(answer, json!({ "data": [{ "selector": "#no", "results": [] }], "debug": null }));
}

/// Width and height of a PNG.
fn size(png: &[u8]) -> (u32, u32) {
    assert!(png.starts_with(b"\x89PNG"), "it is a PNG");
    let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("four bytes"));
    (side(16), side(20))
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_of_the_size_and_format_that_is_asked_for() {
    for config in [SHARED.to_owned(), SHARED.replace("shell", "chromium")] {
        let service = Service::start(&config);
        let tall = "<body style='margin:0'><div style='height:3000px'></div>\
                    <p id=end style='margin:0;width:50px;height:40px'></p>";
        let shot = async |more: Value| {
            let mut body = json!({ "html": tall, "viewport": { "width": 300, "height": 200 } });
            body.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
            post(&service, "/screenshot", body).await
        };
        let plain = shot(json!({})).await.ok();
        assert_eq!((plain.header("content-type"), size(&plain.bytes)), ("image/png", (300, 200)));
        let whole = shot(json!({ "options": { "fullPage": true } })).await.ok();
        assert_eq!(size(&whole.bytes), (300, 3040));
        let unfolded = json!({ "options": { "fullPage": true, "captureBeyondViewport": false } });
        assert_eq!(size(&shot(unfolded).await.ok().bytes), (300, 3040));
        let clip =
            json!({ "options": { "clip": { "x": 10, "y": 20, "width": 30, "height": 40 } } });
        assert_eq!(size(&shot(clip).await.ok().bytes), (30, 40));
        let dense = json!({ "selector": "#end", "scrollPage": true,
            "viewport": { "width": 300, "height": 200, "deviceScaleFactor": 2 } });
        assert_eq!(size(&shot(dense).await.ok().bytes), (100, 80));
        let jpeg = shot(json!({ "options": { "type": "jpeg", "quality": 50 } })).await.ok();
        assert_eq!(jpeg.header("content-type"), "image/jpeg");
        assert!(jpeg.bytes.starts_with(b"\xff\xd8"));
        let webp = shot(json!({ "options": { "type": "webp" } })).await.ok();
        assert!(webp.bytes.starts_with(b"RIFF"));
        let text =
            shot(json!({ "options": { "encoding": "base64", "omitBackground": true } })).await;
        let text = text.ok();
        assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
        size(&BASE64_STANDARD.decode(text.text()).expect("it is base64"));
        for (wrong, says) in [
            (json!({ "options": { "path": "/tmp/x.png" } }), "options.path"),
            (json!({ "options": { "quality": 50 } }), "options.quality"),
            (json!({ "options": { "type": "gif" } }), "options.type"),
            (json!({ "selector": "#no" }), "selector"),
            (json!({ "selector": "[" }), "selector"),
            (
                json!({ "html": "<div style='height:20000px'>", "options": { "fullPage": true } }),
                "16384",
            ),
            (
                json!({ "options": { "clip": { "x": 0, "y": 0, "width": 10000, "height": 10000 } } }),
                "options.clip",
            ),
            (json!({ "viewport": { "width": 100_000, "height": 1 } }), "viewport"),
        ] {
            let (status, code, detail) = shot(wrong).await.refusal();
            assert_eq!((status, &*code), (400, "bad_body"), "{detail}");
            assert!(detail.contains(says), "{detail}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pdf_of_many_pages_comes_in_pieces_and_whole() {
    let service = Service::start(SHARED);
    let sheet = "<h1 style='break-after:page'>Sheet</h1>";
    let noise: String = (0..90_000).map(|i| format!("{} ", i * 7919 % 65_537)).collect();
    let html = format!("{}<p>{noise}</p>", sheet.repeat(20));
    let pdf = post(&service, "/pdf", json!({ "html": html, "options": { "format": "A4" } })).await;
    let pdf = pdf.ok();
    assert_eq!(pdf.header("content-type"), "application/pdf");
    assert!(pdf.bytes.starts_with(b"%PDF-") && pdf.bytes.trim_ascii_end().ends_with(b"%%EOF"));
    assert!(pdf.bytes.len() > 256 * 1024, "it has several pieces: {}", pdf.bytes.len());
    let of = |html: &str, options: Value| json!({ "html": html, "options": options });
    for (body, says) in [
        (of("x", json!({ "path": "x.pdf" })), "options.path"),
        (of("x", json!({ "format": "B9" })), "options.format"),
        (of("x", json!({ "margin": { "top": "wide" } })), "options.margin.top"),
        (of("x", json!({ "pageRanges": "7" })), "options"),
        (of("x", json!({ "scale": 99 })), "options"),
    ] {
        let (status, code, detail) = post(&service, "/pdf", body).await.refusal();
        assert_eq!((status, &*code), (400, "bad_body"), "{detail}");
        assert!(detail.contains(says), "{detail}");
    }
    until_free(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_a_sentence_that_names_the_member() {
    let service = Service::start(SHARED);
    for (body, says) in [
        (json!({}), "url"),
        (json!([]), "object"),
        (json!({ "url": "http://a/", "html": "" }), "html"),
        (json!({ "url": "a.example" }), "url"),
        (json!({ "url": "file:///etc/passwd" }), "file"),
        (json!({ "url": "chrome://settings" }), "chrome"),
        (json!({ "url": "javascript:alert(1)" }), "javascript"),
        (json!({ "url": 5 }), "url"),
        (json!({ "html": "", "launch": {} }), "launch"),
        (json!({ "html": "", "blockAds": true }), "blockAds"),
        (json!({ "html": "", "gotoOptions": { "waitUntil": "networkidle" } }), "waitUntil"),
        (json!({ "html": "", "gotoOptions": { "timeout": -1 } }), "gotoOptions.timeout"),
        (json!({ "html": "", "waitForTimeout": "5s" }), "waitForTimeout"),
        (json!({ "html": "", "waitForFunction": { "function": "" } }), "waitForFunction"),
        (json!({ "html": "", "waitForFunction": { "fn": "() => {" } }), "waitForFunction"),
        (json!({ "html": "", "waitForSelector": { "selector": "[" } }), "waitForSelector"),
        (json!({ "html": "", "cookies": [{ "name": "a", "value": "b" }] }), "cookies[0]"),
        (json!({ "url": "http://a/", "cookies": [{ "name": "a" }] }), "cookies[0]"),
        (json!({ "html": "", "viewport": { "width": 0, "height": 5 } }), "viewport"),
        (json!({ "html": "", "emulateMediaType": "tv" }), "emulateMediaType"),
        (json!({ "html": "", "rejectRequestPattern": ["("] }), "rejectRequestPattern[0]"),
        (json!({ "html": "", "rejectResourceTypes": ["images"] }), "rejectResourceTypes[0]"),
        (
            json!({ "html": "", "requestInterceptors": [{ "pattern": "a" }] }),
            "requestInterceptors[0]",
        ),
        (json!({ "html": "", "setExtraHTTPHeaders": { "a": 1 } }), "setExtraHTTPHeaders.a"),
        (json!({ "html": "", "authenticate": { "username": "a" } }), "authenticate"),
        (json!({ "html": "", "elements": [] }), "elements"),
        (json!({ "html": "", "selector": "a" }), "selector"),
        (json!({ "html": "", "options": {} }), "options"),
    ] {
        let (status, code, detail) = post(&service, "/content", body.clone()).await.refusal();
        assert_eq!((status, &*code), (400, "bad_body"), "{body}: {detail}");
        assert!(detail.contains(says), "{body}: {detail}");
    }
    let (status, _, detail) = post(&service, "/scrape", json!({ "html": "" })).await.refusal();
    assert!(status == 400 && detail.contains("elements"), "{detail}");
    for (path, says) in [
        ("/content?keep=5", "keep"),
        ("/content?session=a", "session"),
        ("/content?launch={}", "launch"),
        ("/content?priority=99", "priority"),
    ] {
        let (status, code, detail) = post(&service, path, json!({ "html": "" })).await.refusal();
        assert!(status == 400 && code.ends_with("_parameter") && detail.contains(says), "{detail}");
    }
    let long = "x".repeat(10 * 1024 * 1024 + 1);
    let json = [("content-type", "application/json")];
    let (status, code, _) = send(&service, "/content", &json, long).await.refusal();
    assert_eq!((status, &*code), (413, "bad_body"));
    for route in ["/function", "/download", "/performance", "/chromium/function"] {
        let (status, code, detail) = post(&service, route, json!({})).await.refusal();
        assert_eq!((status, &*code), (404, "not_offered"), "{detail}");
    }
    let text = [("content-type", "application/json"), ("accept", "application/pdf")];
    let reply = send(&service, "/pdf", &text, "{}".to_owned()).await;
    assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8");
    assert!(reply.text().starts_with("one of the members"), "{reply:?}");
    let invalid = "browserpool_work_total{pool=\"default\",route=\"scrape\",outcome=\"invalid\"}";
    assert_eq!(metric(&service, invalid).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_misbehaves_costs_its_own_call_only() {
    for config in [SHARED.to_owned(), SHARED.replace("shared", "exclusive")] {
        let (service, site) = (Service::start(&config), site().await);
        let witness = json!({ "url": site, "waitForTimeout": 1500 });
        let witness = post(&service, "/content", witness);
        let at = |path: &str| json!({ "url": format!("{site}{path}") });
        let misbehave = async {
            let dialogs = content(&service, at("/dialogs")).await;
            assert!(dialogs.contains("<title>false,</title>"), "{dialogs}");
            assert!(content(&service, at("/away")).await.contains("Hello"), "it is followed");
            content(&service, at("/flood")).await;
            for (path, wanted) in [
                ("/content?timeout=1500", at("/hang")),
                ("/pdf?timeout=1500", at("/loop")),
                ("/screenshot?timeout=1500", at("/late-loop")),
            ] {
                let began = Instant::now();
                let mut body = wanted;
                // Time for it to begin.
                body["waitForTimeout"] = json!(200);
                let (status, code, detail) = post(&service, path, body).await.refusal();
                assert_eq!((status, &*code), (408, "work_timeout"), "{path}: {detail}");
                // Long before the usual minute is over, though a browser may have to start first.
                assert!(began.elapsed() < Duration::from_secs(20), "{path}: by its deadline");
            }
            let (status, code, detail) =
                post(&service, "/content", at("/download")).await.refusal();
            assert_eq!((status, &*code), (500, "page_unreachable"));
            assert!(detail.contains("download"), "{detail}");
            let dead = json!({ "url": "http://127.0.0.1:9/" });
            let (status, _, detail) = post(&service, "/content", dead).await.refusal();
            assert_eq!(status, 500, "{detail}");
        };
        let (witness, ()) = tokio::join!(witness, misbehave);
        assert!(witness.ok().text().contains("Hello"), "its neighbour notices nothing");
        until_free(&service).await;
        assert!(content(&service, at("/")).await.contains("Hello"));
        assert!(!service.log().contains("panic"), "{}", service.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_renderer_dies_fails_at_once() {
    let (service, site) = (Service::start(SHARED), site().await);
    let is_loaded = async || {
        let held = service.get("/sessions").await.json();
        let page = format!("/api/browsers/{}/page", held[0]["browserId"]);
        service.get(&page).await.json()["title"] == "loaded"
    };
    let crash = async {
        until(&service, "the page is loaded", is_loaded).await;
        for pid in renderers(service.pid()) {
            let pid = rustix::process::Pid::from_raw(pid as i32).expect("it is one");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    };
    let body = json!({ "url": format!("{site}/loaded"), "waitForTimeout": 50_000 });
    let (reply, ()) = tokio::join!(post(&service, "/content", body), crash);
    let (status, code, detail) = reply.refusal();
    assert_eq!((status, &*code), (500, "page_crashed"), "{detail}");
    assert!(content(&service, json!({ "url": site })).await.contains("Hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_gives_its_browser_back() {
    let (service, site) = (Service::start(SHARED), site().await);
    for (route, body) in [
        ("pdf", json!({ "url": format!("{site}/hang") })),
        ("scrape", json!({ "url": site, "elements": [{ "selector": "#no" }] })),
        ("content", json!({ "url": site, "waitForTimeout": 30_000 })),
    ] {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&service.address).expect("it listens");
        write!(
            stream,
            "POST /{route}?trackingId=ours HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            service.address,
            body.len()
        )
        .expect("it is read");
        let mut held = json!([]);
        let has_lease = async || {
            held = service.get("/sessions").await.json();
            held != json!([])
        };
        until(&service, "it has a lease", has_lease).await;
        assert_eq!(held[0]["kind"], "work");
        assert_eq!(held[0]["work"], route);
        assert_eq!(held[0]["trackingId"], "ours");
        drop(stream);
        until_free(&service).await;
        let series = format!(
            "browserpool_work_total{{pool=\"default\",route=\"{route}\",outcome=\"cancelled\"}}"
        );
        until_metric(&service, &series, 1.0).await;
    }
    let gone = "browserpool_leases_ended_total{pool=\"default\",reason=\"client_gone\"}";
    until_metric(&service, gone, 3.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_and_written_down() {
    let (service, site) = (Service::start(SHARED), site().await);
    for _ in 0..2 {
        content(&service, json!({ "url": site })).await;
    }
    let slow = json!({ "url": format!("{site}/hang"), "gotoOptions": { "timeout": 100 } });
    assert_eq!(post(&service, "/content?tenant=ada", slow).await.status, 408);
    let dead = json!({ "url": "http://127.0.0.1:9/" });
    assert_eq!(post(&service, "/content", dead).await.status, 500);
    for (outcome, count) in
        [("ok", 2.0), ("timeout", 1.0), ("failed", 1.0), ("refused", 0.0), ("invalid", 0.0)]
    {
        let series = format!(
            "browserpool_work_total{{pool=\"default\",route=\"content\",outcome=\"{outcome}\"}}"
        );
        until_metric(&service, &series, count).await;
    }
    let took = "browserpool_work_duration_seconds_count{pool=\"default\",route=\"content\"}";
    until_metric(&service, took, 4.0).await;
    let ended = "browserpool_leases_ended_total{pool=\"default\",reason=\"released\"}";
    until_metric(&service, ended, 4.0).await;
    service.until_logged("ada");
    let log = service.log();
    let line = log.lines().find(|line| line.contains("ada")).expect("there is an audit line");
    assert!(line.contains("\"work\":\"content\"") && line.contains("released"), "{line}");
    assert!(!log.contains(&site), "addresses of pages are not logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_web_page_can_make_a_call() {
    let site = site().await;
    let open = Service::start(SHARED);
    let (status, code, detail) = fetch(&open, &format!("/content?url={site}")).await.refusal();
    assert_eq!((status, &*code), (403, "cross_site"));
    assert!(detail.contains("POST"), "{detail}");
    let body = json!({ "url": site }).to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let reply = send(&open, "/content", &[("content-type", kind)], body.clone()).await;
        assert_eq!(reply.refusal().1, "cross_site", "{kind}");
    }
    let closed = Service::start(&format!("[gateway]\ntoken = \"t0ken\"\n{SHARED}"));
    for path in ["/content", "/content?token=wrong", "/pdf?token="] {
        assert_eq!(post(&closed, path, json!({ "url": site })).await.status, 401, "{path}");
    }
    let reply = fetch(&closed, &format!("/content?url={site}/&token=t0ken")).await.ok();
    assert!(reply.text().contains("Hello"));
    let reply = fetch(&closed, &format!("/screenshot?token=t0ken&url={site}/")).await.ok();
    assert_eq!(size(&reply.bytes), (800, 600));
    let (status, code, _) = fetch(&closed, "/pdf?token=t0ken").await.refusal();
    assert_eq!((status, &*code), (400, "bad_parameter"));
    assert_eq!(fetch(&closed, &format!("/scrape?token=t0ken&url={site}")).await.status, 405);
    post(&closed, "/content?token=t0ken", json!({ "url": site })).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_in_the_queue_of_all_leases() {
    let config = "[pool]\nmin_size = 0\nmax_size = 1\nmax_waiting = 1\nlease = \"shared\"\n";
    let (service, site) = (Service::start(config), site().await);
    let _held = service.connect("/").await;
    let body = json!({ "url": site });
    let (status, code, _) = post(&service, "/content?nowait", body.clone()).await.refusal();
    assert_eq!((status, &*code), (408, "acquire_timeout"));
    let waits = post(&service, "/content?acquire_timeout=3000", body.clone());
    let one_waits = async || service.get("/api/state").await.json()["load"]["waiting"] == 1;
    let crowd = async {
        until(&service, "one waits", one_waits).await;
        post(&service, "/content", body.clone()).await
    };
    let (waited, refused) = tokio::join!(waits, crowd);
    assert_eq!((waited.status, refused.status), (408, 429), "{waited:?} {refused:?}");
    assert!(!refused.header("retry-after").is_empty());
    let series = "browserpool_work_total{pool=\"default\",route=\"content\",outcome=\"refused\"}";
    assert_eq!(metric(&service, series).await, 3.0);
}

/// Runs a command to its end: the exit code, stdout, and what it tells people.
async fn run(arguments: &[&str], folder: &std::path::Path) -> (Option<i32>, Vec<u8>, String) {
    let mut command = gateway_support::command();
    command.args(arguments).current_dir(folder).env("XDG_STATE_HOME", folder);
    let output = spawn_blocking(move || command.stdin(std::process::Stdio::null()).output());
    let output = output.await.expect("it does not panic").expect("the binary is built");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), output.stdout, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_do_the_same_in_a_pool_that_runs_or_one_of_their_own() {
    let (service, site) = (Service::start(SHARED), site().await);
    let folder = tempfile::tempdir().expect("a directory");
    let pool = format!("--url=http://{}", service.address);
    for own in [false, true] {
        let more = if own { "--engine=shell" } else { &*pool };
        let (code, html, told) =
            run(&["content", &site, "--wait-for", "#late", more], folder.path()).await;
        assert_eq!(code, Some(0), "{told}");
        assert!(String::from_utf8_lossy(&html).contains("id=\"late\""));
        let (code, json, told) = run(&["scrape", &site, "h1", more], folder.path()).await;
        assert_eq!(code, Some(0), "{told}");
        let json: Value = serde_json::from_slice(&json).expect("it is JSON");
        assert_eq!(json["data"][0]["results"][0]["text"], "Hello");
        let picture = ["screenshot", &site, "--viewport", "300x200", "-o", "x.jpg", more];
        assert_eq!(run(&picture, folder.path()).await.0, Some(0));
        let jpeg = std::fs::read(folder.path().join("x.jpg")).expect("it is written");
        assert!(jpeg.starts_with(b"\xff\xd8"), "by the name of its file");
        let pdf = ["pdf", &site, "--format", "A4", "--margin", "1cm", "-o", "x.pdf", more];
        assert_eq!(run(&pdf, folder.path()).await.0, Some(0));
        let pdf = std::fs::read(folder.path().join("x.pdf")).expect("it is written");
        assert!(pdf.starts_with(b"%PDF-"));
        let (code, _, told) = run(&["content", "file:///etc/passwd", more], folder.path()).await;
        assert!(code == Some(1) && told.contains("not of file"), "{told}");
    }
    let state = folder.path().join("browser-pool");
    assert!(gateway_support::processes_below(&state).is_empty(), "nothing is left");
}
