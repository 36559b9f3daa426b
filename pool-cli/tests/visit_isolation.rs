//! `pool-cli visit --isolation`: what one page leaves for the next, store by store, on both engines.

mod gateway_support;

use std::path::Path;

use axum::Router;
use axum::extract::{Path as UrlPath, Request};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use gateway_support::{Service, Visit, end, renderers};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const ENGINES: [&str; 2] = ["shell", "chromium"];

/// The stores of fault test F27 that a page can write and that are cleared between two pages.
const CLEARED: [&str; 9] = [
    "cookie",
    "httpOnlyCookie",
    "localStorage",
    "sessionStorage",
    "indexedDB",
    "cacheStorage",
    "opfs",
    "httpCache",
    "windowName",
];

/// Those whose writing costs the context.
const COSTLY: [&str; 3] = ["serviceWorker", "sharedWorker", "authCache"];

/// Serves the pages of the suites' site, and what their stores need of a server. `/with/NAME` is a
/// page whose answer has the header of that name.
async fn site() -> String {
    let router = Router::new()
        .route("/cookie", get(cookie))
        .route("/auth", get(auth))
        .route("/auth/seen", get(auth_seen))
        .route("/cached", get(cached))
        .route("/echo", get(|| async { axum::Json(json!({ "path": "/echo" })) }))
        .route("/with/{name}", get(with_header))
        .route("/policy/{name}", get(with_policy))
        .route("/frame", get(frame))
        .route(
            "/popup",
            get(|| async { Html("<title>page</title><script>open('/page')</script>") }),
        )
        .route("/keepalive", get(|| async { Html(KEEPALIVE) }))
        .route("/pagehide", get(|| async { Html(PAGEHIDE) }))
        .route("/fetch-later", get(|| async { Html(FETCH_LATER) }))
        .route("/socket", get(|| async { Html(SOCKET) }))
        .route("/late", get(late))
        .route("/farewell", get(|| async { Html(FAREWELL) }))
        .route("/finds", get(|| async { Html(FINDS) }))
        .route("/", get(|| async { Html("<title>root</title>") }))
        .route("/leaves", get(|| async { Html(LEAVES) }))
        .route("/next", get(next))
        .route("/links", get(|| async { Html(LINKS) }))
        .route("/click", get(|| async { Html(CLICK) }))
        .route("/clicked", get(|| async { Html(CLICKED) }))
        .route("/page", get(|| async { Html("<title>page</title>") }))
        .fallback(page);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// Pages that leave a request behind whose answer sets a cookie of theirs, some time after they have gone.
const KEEPALIVE: &str = "<title>page</title><script>fetch('/late' + location.search, \
    { keepalive: true })</script>";
const PAGEHIDE: &str = "<title>page</title><script>addEventListener('pagehide', () => \
    fetch('/late' + location.search, { keepalive: true }))</script>";
const FETCH_LATER: &str = "<title>page</title><script>\
    globalThis.fetchLater?.('/late' + location.search)</script>";

/// A page whose connection the server refuses, with whatever that answer may say.
const SOCKET: &str =
    "<title>page</title><script>new WebSocket(`ws://${location.host}/page`)</script>";

/// A page that writes for as long as it is there, and once more when it is left.
const FAREWELL: &str = "<title>page</title><iframe srcdoc='<script>\
    onpagehide = () => { parent.localStorage.frame = 1 }</script>'></iframe><script>\
    const write = () => { localStorage.left = 1; document.cookie = 'left=1' }; \
    setInterval(write, 1); \
    for (const end of ['pagehide', 'unload', 'visibilitychange']) addEventListener(end, write)</script>";

/// A page that keeps what it finds.
const FINDS: &str = "<title>page</title><script>\
    var found = Object.keys(localStorage).join() + document.cookie</script>";

/// A page that goes to another one, which writes something as soon as it is there. Each visit of it leaves a little
/// later than the one before, so that some meet the wipe.
const LEAVES: &str = "<title>page</title><script>onload = () => \
    setTimeout(() => { location = '/next' }, location.search.slice(1) / 2)</script>";

async fn next() -> Html<&'static str> {
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    Html("<title>page</title><script>localStorage.left = 1</script>")
}

async fn late(uri: Uri) -> Response {
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let cookie = format!("late={}; Path=/", uri.query().unwrap_or_default());
    ([(header::SET_COOKIE, cookie)], "late").into_response()
}

async fn cookie(uri: Uri, headers: HeaderMap) -> Response {
    let came = headers.get(header::COOKIE).map(|came| came.to_str().expect("text").to_owned());
    let answer = axum::Json(json!({ "cookie": came.unwrap_or_default() }));
    // `?name=httpOnly&value=…`
    let value = uri.query().and_then(|query| query.split("value=").nth(1)?.split('&').next());
    match value {
        Some(value) => {
            let cookie = format!("httpOnly={value}; Path=/; HttpOnly; Max-Age=86400");
            ([(header::SET_COOKIE, cookie)], answer).into_response()
        }
        None => answer.into_response(),
    }
}

/// `user` and `secret` in base64.
const CREDENTIALS: &str = "Basic dXNlcjpzZWNyZXQ=";

fn is_known(headers: &HeaderMap) -> bool {
    headers.get(header::AUTHORIZATION).is_some_and(|value| value == CREDENTIALS)
}

/// Links to a page, red once that was visited from here: no script may ask for the colour.
const LINKS: &str = "<title>links</title><style>\
    a { font: 100px monospace; text-decoration: none; color: blue } a:visited { color: red } \
    </style><a href=/clicked>██</a><b id=done></b>";

/// Goes to that page by its link: only such a visit counts.
const CLICK: &str = "<title>click</title><a id=link href=/clicked>██</a>\
    <script>setTimeout(() => link.click(), 200)</script>";
const CLICKED: &str = "<title>clicked</title><b id=done></b>";

async fn auth(headers: HeaderMap) -> Response {
    if is_known(&headers) {
        return Html("<title>Welcome</title>").into_response();
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"browser-pool\"")];
    (StatusCode::UNAUTHORIZED, challenge, "credentials needed").into_response()
}

async fn auth_seen(headers: HeaderMap) -> Response {
    axum::Json(json!({ "authorized": is_known(&headers) })).into_response()
}

async fn cached() -> Response {
    ([(header::CACHE_CONTROL, "max-age=3600")], fastrand::u64(..).to_string()).into_response()
}

async fn with_header(UrlPath(name): UrlPath<String>) -> Response {
    let name: HeaderName = name.parse().expect("a test names a header");
    ([(name, "max-age=31536000")], Html("<title>page</title>")).into_response()
}

/// A page with a policy that forbids scripts that are not files, or that puts it into a sandbox.
async fn with_policy(UrlPath(name): UrlPath<String>) -> Response {
    let policy = match &*name {
        "self" => "default-src 'self'",
        "types" => "require-trusted-types-for 'script'; script-src 'self'",
        "sandbox" => "sandbox",
        "scripts" => "sandbox allow-scripts",
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html("<title>page</title>")).into_response()
}

/// A page with a page of another origin in a frame.
async fn frame(request: Request) -> Html<String> {
    let host = request.headers()["host"].to_str().expect("it is text").to_owned();
    let other = host.replace("127.0.0.1", "localhost");
    Html(format!("<title>page</title><iframe src=http://{other}/page></iframe>"))
}

async fn page(request: Request) -> Response {
    let name = request.uri().path().trim_start_matches('/').to_owned();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/site/pages");
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html",
        Some("js") => "text/javascript",
        _ => return (StatusCode::NOT_FOUND, Html("<title>none</title>")).into_response(),
    };
    match tokio::fs::read(Path::new(folder).join(name)).await {
        Ok(bytes) => {
            let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")];
            (headers, bytes).into_response()
        }
        Err(_) => (StatusCode::NOT_FOUND, Html("<title>none</title>")).into_response(),
    }
}

/// Has a visit say why a context is not used again.
const SAYS_WHY: [&str; 2] = ["--set", "log.filter=warn,pool_cli::visit=debug"];

/// What became of the contexts of pages.
#[derive(Debug)]
struct Wiped {
    /// Visits that found a wiped context.
    used: usize,
    /// Pages that took too long to be wiped, as they do on a machine with much else to do.
    late: usize,
}

impl Wiped {
    /// Reads it out of what a visit told.
    fn told(told: &str) -> Self {
        let summary = told.lines().last().unwrap_or_default();
        let used = summary.split(", ").find_map(|part| part.strip_suffix(" in a wiped context"));
        let used = used.map_or(0, |count| count.parse().expect("a number"));
        Self { used, late: told.matches("a page was not wiped in time").count() }
    }

    /// Returns `true` if any context was wiped, or would have been in time.
    fn any(&self) -> bool {
        self.used + self.late > 0
    }

    /// Panics unless this many contexts were used again, or would have been if their wipe had been in time.
    fn assert_at_least(&self, count: usize, of: &str) {
        assert!(self.used > 0 && self.used + self.late >= count, "{of}: {self:?} of {count}");
    }
}

/// Visits a page so many times, one at a time, and runs a script in it each time: what the script
/// found, in the order of the visits, and what became of the contexts.
async fn run(visit: &Visit, urls: &[String], how: &str, script: &str) -> (Vec<Value>, Wiped) {
    let path = visit.path("script.js");
    std::fs::write(&path, script).expect("it can be written");
    let path = path.to_str().expect("it is text");
    let _ = std::fs::remove_file(visit.path("out.jsonl"));
    let arguments = [
        ["--isolation", how, "-n", "1", "--per-host", "1", "--retries", "0", "--script", path]
            .as_slice(),
        &SAYS_WHY,
    ]
    .concat();
    let (code, told) = visit.run(urls, &arguments).await;
    println!("{} {how}: {told}", visit.engine);
    let records = visit.records();
    assert_eq!(code, Some(0), "{} {how}: {told}\n{records:?}", visit.engine);
    assert_eq!(records.len(), urls.len());
    let scripts = records.into_iter().map(|mut record| record["script"].take()).collect();
    (scripts, Wiped::told(&told))
}

fn visits(site: &str, page: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{site}/{page}?{n}")).collect()
}

/// Says what the page finds in every store, and writes some of them.
fn read_and_write(stores: &[&str]) -> String {
    // To look for a shared worker is to start one.
    let looks = [&CLEARED[..], &COSTLY[..]].concat().into_iter();
    let looks: Vec<&str> =
        looks.filter(|store| *store != "sharedWorker" || stores.contains(store)).collect();
    format!(
        "(async () => {{ \
         const look = async () => {{ const found = {{}}; \
           for (const name of {}) found[name] = (await stores[name].read()) || null; \
           return found; }}; \
         const found = await look(); \
         for (const [name, look] of Object.entries(readOnly)) found[name] = (await look()) || null; \
         for (const name of {}) await stores[name].write('left-behind'); \
         found.written = await look(); \
         found.states = []; \
         for (const name of ['geolocation', 'notifications', 'camera', 'clipboard-read', 'midi']) \
           found.states.push((await navigator.permissions.query({{ name }})).state); \
         found.entries = globalThis.navigation?.entries().length > 2; \
         return found; }})()",
        json!(looks),
        json!(stores)
    )
}

/// Splits what was found from what was written then.
fn found(script: &Value) -> (Value, Value) {
    let mut found = script.clone();
    let written = found["written"].take();
    (found, written)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_store_is_empty_for_the_page_after_a_wipe() {
    for engine in ENGINES {
        let (site, visit) = (site().await, Visit::new(engine));
        let urls = visits(&site, "storage.html", 6);
        let (scripts, wiped) = run(&visit, &urls, "wiped", &read_and_write(&CLEARED)).await;
        let (first, _) = found(&scripts[0]);
        for script in &scripts {
            let (now, written) = found(script);
            assert_eq!(now, first, "{engine}");
            for store in CLEARED {
                assert!(now[store].is_null(), "{engine}: {store} is there: {now}");
                assert!(!written[store].is_null(), "{engine}: {store} was not written: {written}");
            }
        }
        // Two workers, and each one's first page has a new context.
        wiped.assert_at_least(4, engine);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_cleared_costs_its_context() {
    for engine in ENGINES {
        let site = site().await;
        for store in COSTLY {
            let visit = Visit::new(engine);
            let urls = visits(&site, "storage.html", 3);
            let script = read_and_write(&[store]);
            let (scripts, wiped) = run(&visit, &urls, "wiped", &script).await;
            for script in &scripts {
                let (now, written) = found(script);
                assert!(now[store].is_null(), "{engine}: {store} is there: {now}");
                assert!(!written[store].is_null(), "{engine}: {store} was not written: {written}");
            }
            assert_eq!(wiped.used, 0, "{engine}: {store}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_leaves_more_than_storage_costs_its_context() {
    for engine in ENGINES {
        let site = site().await;
        let visit = Visit::new(engine);
        let (_, wiped) = run(&visit, &visits(&site, "page", 4), "wiped", "document.cookie").await;
        wiped.assert_at_least(2, engine);
        for page in [
            "with/strict-transport-security",
            "with/alt-svc",
            "with/accept-ch",
            "frame",
            "popup",
            "socket",
        ] {
            let urls = visits(&site, page, 3);
            let (scripts, wiped) = run(&visit, &urls, "wiped", "document.cookie").await;
            assert_eq!(wiped.used, 0, "{engine}: {page}");
            assert!(scripts.iter().all(|cookie| cookie == ""), "{engine}: {page}: {scripts:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_wiped_whatever_its_policy_forbids() {
    const WRITE: &str = "(() => { try { return localStorage.length } \
        catch { return 0 } finally { try { localStorage.left = 1 } catch {} } })()";
    for engine in ENGINES {
        let (site, visit) = (site().await, Visit::new(engine));
        for policy in ["self", "types", "sandbox", "scripts"] {
            let urls = visits(&site, &format!("policy/{policy}"), 6);
            let (scripts, wiped) = run(&visit, &urls, "wiped", WRITE).await;
            assert!(scripts.iter().all(|left| left == 0), "{engine}: {policy}: {scripts:?}");
            // Two workers, and each one's first page has a new context.
            wiped.assert_at_least(4, engine);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_does_while_it_is_wiped_reaches_no_other_page() {
    const LOOK: &str = "globalThis.found";
    for engine in ENGINES {
        let site = site().await;
        // One that is about to go elsewhere may cost its context.
        for (page, used) in [("farewell", 38), ("leaves", 20)] {
            let visit = Visit::new(engine);
            // Two workers take them in turn, and what each visits next looks at what it finds.
            let urls: Vec<String> = (0..40)
                .map(|n| format!("{site}/{}?{n}", if n % 4 < 2 { page } else { "finds" }))
                .collect();
            let (scripts, wiped) = run(&visit, &urls, "wiped", LOOK).await;
            let found: Vec<&Value> = scripts.iter().filter(|found| !found.is_null()).collect();
            assert_eq!(found, [&json!(""); 20], "{engine}: {page}");
            wiped.assert_at_least(used, engine);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_loaded_even_if_it_differs_in_its_fragment_only() {
    for engine in ENGINES {
        let site = site().await;
        for how in ["context", "wiped", "none"] {
            let visit = Visit::new(engine);
            let urls: Vec<String> = ["page", "page#1", "page#2", "", "#1", "page#3"]
                .map(|rest| format!("{site}/{rest}"))
                .into();
            let (scripts, _) = run(&visit, &urls, how, "location.href").await;
            assert_eq!(scripts, urls.iter().map(|url| json!(url)).collect::<Vec<_>>());
            for record in visit.records() {
                assert_eq!(record["status"], 200, "{engine} {how}: {record}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_that_outlives_its_page_brings_reaches_no_other_page() {
    // Longer than the answer takes, so that a page is there when that of the one before comes.
    const LOOK: &str = "new Promise(done => setTimeout(() => done( \
        document.cookie.replace('late=' + location.search.slice(1), 'own')), 600))";
    for engine in ENGINES {
        let site = site().await;
        for page in ["keepalive", "pagehide", "fetch-later"] {
            let visit = Visit::new(engine);
            let urls = visits(&site, page, 6);
            let (scripts, _) = run(&visit, &urls, "wiped", LOOK).await;
            // The answer to what a page asks at once may have come while it was looked at.
            let own = if page == "keepalive" { "own" } else { "" };
            let is_clean = |cookie: &Value| cookie == "" || cookie == own;
            assert!(scripts.iter().all(is_clean), "{engine}: {page}: {scripts:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_page_of_an_earlier_visit_is_drawn_as_a_new_one() {
    // Chromium keeps visited links only where it keeps history: with a profile, and not in the shell.
    for (engine, how, is_seen) in [
        ("shell", &["--isolation", "wiped"][..], false),
        ("chromium", &["--isolation", "wiped"], false),
        ("chromium", &["--isolation", "none", "--profile", "work"], true),
    ] {
        let (site, visit) = (site().await, Visit::new(engine));
        let shots = visit.path("shots");
        // Two workers take them in turn: whichever has the last has clicked before.
        let mut urls = vec![format!("{site}/links")];
        urls.extend(visits(&site, "click", 4));
        urls.extend(visits(&site, "links", 2));
        let shots = shots.to_str().expect("it is text");
        let one = ["-n", "1", "--per-host", "1", "--retries", "0", "--wait-for", "#done"];
        let stored = ["--set", "profiles.work.max_size=1", "--screenshots", shots];
        let (code, told) = visit.run(&urls, &[&one[..], how, &stored, &SAYS_WHY].concat()).await;
        assert_eq!(code, Some(0), "{engine} {how:?}: {told}");
        assert_eq!(Wiped::told(&told).any(), !is_seen, "{engine}: {told}");
        let drawn = |n: usize| {
            let record = visit.record(&urls[n]);
            std::fs::read(record["screenshot"].as_str().expect("a path")).expect("it is there")
        };
        let first = drawn(0);
        for n in [5, 6] {
            assert_eq!(drawn(n) != first, is_seen, "{engine} {how:?}: it is drawn as visited");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_can_go_back_to_none_of_an_earlier_visit() {
    const LOOK: &str =
        "navigation.entries().map(entry => entry.url).filter(url => url.includes('/page?'))";
    for engine in ENGINES {
        for (how, most) in [("wiped", 1), ("none", 6)] {
            let (site, visit) = (site().await, Visit::new(engine));
            let (seen, _) = run(&visit, &visits(&site, "page", 6), how, LOOK).await;
            let lengths = seen.iter().map(|seen| seen.as_array().expect("a list").len());
            assert_eq!(lengths.max(), Some(most), "{engine} {how}: {seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_that_pages_ask_for_are_as_new_after_a_wipe() {
    const ASK: &str = "(async () => { \
        const before = []; \
        for (const name of ['geolocation', 'notifications', 'camera', 'clipboard-read', 'midi']) \
            before.push((await navigator.permissions.query({ name })).state); \
        navigator.geolocation.getCurrentPosition(() => 0, () => 0); \
        Notification.requestPermission(); navigator.requestMIDIAccess().catch(() => 0); \
        navigator.clipboard.writeText('left').catch(() => 0); \
        await new Promise(resolve => setTimeout(resolve, 100)); \
        return before; })()";
    for engine in ENGINES {
        let (site, visit) = (site().await, Visit::new(engine));
        let urls = visits(&site, "page", 12);
        let (states, wiped) = run(&visit, &urls, "wiped", ASK).await;
        wiped.assert_at_least(8, engine);
        assert!(states.iter().all(|state| *state == states[0]), "{engine}: {states:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_share_a_context_find_what_others_left() {
    for engine in ENGINES {
        let (site, visit) = (site().await, Visit::new(engine));
        let urls = visits(&site, "storage.html", 3);
        let stores = [&CLEARED[..], &COSTLY[..]].concat();
        let (scripts, _) = run(&visit, &urls, "none", &read_and_write(&stores)).await;
        let (nothing, _) = found(&scripts[0]);
        for store in &stores {
            assert!(nothing[store].is_null(), "{engine}: {store} is there at first: {nothing}");
        }
        let (last, _) = found(&scripts[2]);
        for store in stores {
            // It lives as long as a page that uses it.
            let kept = store != "sharedWorker";
            assert_eq!(!last[store].is_null(), kept, "{engine}: {store} {last}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_share_a_context_are_several_at_a_time_and_a_bad_one_costs_itself() {
    for engine in ENGINES {
        let (site, visit) = (site().await, Visit::new(engine));
        let mut urls = visits(&site, "popup", 6);
        urls.extend(visits(&site, "loop.html", 1));
        urls.extend(visits(&site, "page", 6));
        // Long enough for a good page on a machine that does much else.
        let arguments = ["--isolation", "none", "-n", "3", "--timeout", "8s", "--retries", "0"];
        let (code, told) = visit.run(&urls, &arguments).await;
        assert_eq!(code, Some(1), "{engine}: {told}");
        for url in urls.iter().filter(|url| !url.contains("loop")) {
            assert_eq!(visit.record(url)["title"], "page", "{engine}: {told}");
        }
        assert_eq!(visit.record(&urls[6])["error"]["code"], "timeout", "{engine}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_replaced_by_a_new_one_ends() {
    // Five pages are replaced, each after a hundred addresses.
    let (site, visit) = (site().await, Visit::new("shell"));
    let urls = visits(&site, "page", 550);
    let child = visit.start(&urls, &["--isolation", "none", "-n", "1"]);
    let pid = child.id();
    let visited = tokio::spawn(end(child));
    let mut most = 0;
    while !visited.is_finished() {
        most = most.max(renderers(pid).len());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let (code, told) = visited.await.expect("it does not panic");
    assert_eq!((code, visit.records().len()), (Some(0), urls.len()), "{told}");
    // The page, one that is ending, and one that is about to begin.
    assert!((1..=3).contains(&most), "{most} renderers at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_through_a_pool_that_runs_is_as_far_apart_as_one_of_its_own() {
    let config = "[pool]\nmin_size = 0\nmax_size = 3\nlease = \"shared\"\n";
    for engine in ENGINES {
        let site = site().await;
        let token = "s3cret-of-this-test";
        let config =
            format!("[gateway]\ntoken = \"{token}\"\n{config}[chrome]\nengine = \"{engine}\"\n");
        let service = Service::start(&config);
        let url = format!("http://{}", service.address);
        for (how, kept) in [("context", false), ("wiped", false), ("none", true)] {
            let visit = Visit::new(engine);
            let urls = visits(&site, "storage.html", 4);
            let path = visit.path("script.js");
            let script = read_and_write(&["cookie", "localStorage"]);
            std::fs::write(&path, script).expect("it can be written");
            let path = path.to_str().expect("it is text");
            let through = ["--url", &url, "--token", token, "--isolation", how, "--script", path];
            let one = ["-n", "1", "--retries", "0"];
            let (code, told) = visit.run(&urls, &[&through[..], &one, &SAYS_WHY].concat()).await;
            assert_eq!(code, Some(0), "{engine} {how}: {told}");
            let last = visit.record(&urls[3]);
            for store in ["cookie", "localStorage"] {
                let is_there = !last["script"][store].is_null();
                assert_eq!(is_there, kept, "{engine} {how}: {store} {last}");
            }
            assert_eq!(Wiped::told(&told).any(), how == "wiped", "{engine}: {told}");
            assert_eq!(visit.processes(), [] as [u32; 0], "no browser of its own");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_not_there_or_says_no_is_told_in_a_sentence() {
    let site = site().await;
    let urls = visits(&site, "page", 1);
    let visit = Visit::new("auto");
    let away = ["--url", "http://127.0.0.1:9", "-n", "1", "--retries", "0"];
    let (code, told) = visit.run(&urls, &away).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("no pool answers at http://127.0.0.1:9"), "{told}");
    let service = Service::start("[gateway]\ntoken = \"s3cret\"\n[pool]\nmin_size = 0\n");
    let visit = Visit::new("auto");
    let url = format!("http://{}", service.address);
    let wrong = ["--url", &url, "--token", "wrong", "-n", "1"];
    let (code, told) = visit.run(&urls, &wrong).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("token"), "{told}");
    assert_eq!(visit.records(), [] as [Value; 0]);
    let mixed = ["--isolation", "wiped", "--profile", "work"];
    let (code, told) = visit.run(&urls, &mixed).await;
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("--isolation wiped"), "{told}");
}
