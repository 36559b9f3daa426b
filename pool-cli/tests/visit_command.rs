//! `pool-cli visit`: many URLs, each in a browser of its own, on both engines.

mod gateway_support;

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{Html, Redirect};
use axum::routing::get;
use gateway_support::{Visit, end};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const ENGINES: [&str; 2] = ["shell", "chromium"];

/// Says in its title what an earlier visit has left behind.
const WITNESS: &str = "<title>clean</title><script>
    const seen = [document.cookie, ...Object.keys(localStorage)].filter(Boolean);
    if (seen.length) document.title = 'leak ' + seen;
    document.cookie = 'seen=1';
    localStorage.setItem('seen', '1');
</script>";

/// Has a price after a while, and loads a stylesheet.
const SHOP: &str = "<title>shop</title><link rel=stylesheet href=/style.css>\
    <a href=/page/1>one</a><a href=/page/2 class=next>two</a><script>setTimeout(() => \
    document.body.insertAdjacentHTML('beforeend', '<b id=price data-unit=EUR>9, 90</b>'), 300)</script>";

/// Has what becomes Markdown, and loads an image that is not there.
const ARTICLE: &str = "<title>An article</title><script>document.cookie = 'read=1'</script>\
    <style>p { color: red }</style><h1>Heading</h1><p>Some <b>bold</b> text, \
    <a href=/page/1>a link</a>.</p><ul><li>one</li></ul><img src=/nothing.png alt=picture>";

/// Has nothing in the place of what knows its status.
const HIDES: &str = "<title>hides</title><script>
    Object.defineProperty(window, 'performance', { value: null })</script>";

/// Opens another program.
const MAIL: &str = "<title>mail</title><script>location = 'mailto:a@b.example'</script>";

/// Keeps some pages from all, and others from those of one name.
const ROBOTS: &str = "User-agent: *\nDisallow: /page/1\nCrawl-delay: 1\n\n\
    User-agent: ours\nDisallow: /shop\n";

/// The address of a site whose pages do what their name says.
async fn site() -> String {
    let router = Router::new()
        .route("/page/{n}", get(|Path(_): Path<u32>| async { Html(WITNESS) }))
        .route("/loop", get(|| async { Html("<script>for (;;) {}</script>") }))
        .route("/shop", get(|| async { Html(SHOP) }))
        .route(
            "/style.css",
            get(|| async { ([("content-type", "text/css")], "b { color: rgb(7, 7, 7) }") }),
        )
        .route("/article", get(|| async { Html(ARTICLE) }))
        .route("/tall", get(|| async { Html("<title>tall</title><p style='height: 20000px'>x") }))
        .route("/moved", get(|| async { Redirect::to("/article?from=moved") }))
        .route("/robots.txt", get(|| async { ROBOTS }))
        .route("/hides", get(|| async { Html(HIDES) }))
        .route("/mail", get(|| async { Html(MAIL) }))
        .route("/empty", get(|| async { StatusCode::GONE }))
        .route("/no-content", get(|| async { StatusCode::NO_CONTENT }))
        .route("/download", get(|| async { ([("content-disposition", "attachment")], "bytes") }))
        .route("/endless", get(|| async { Redirect::to("/endless") }))
        .route("/onward/{port}/{*path}", get(async |Path(to)| onward(to)))
        .route("/silence", get(|| async { std::future::pending::<()>().await }))
        .fallback(|| async { (StatusCode::NOT_FOUND, Html("<title>none</title>")) });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// A page whose script goes elsewhere before it is loaded.
fn onward((port, path): (u16, String)) -> Html<String> {
    let to = format!("http://127.0.0.1:{port}/{path}");
    Html(format!("<title>on its way</title><script>location = '{to}'</script>"))
}

fn pages(site: &str, count: u32) -> Vec<String> {
    (0..count).map(|n| format!("{site}/page/{n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_url_is_visited_once_in_a_browser_that_nobody_had() {
    for engine in ENGINES {
        let site = site().await;
        let visit = Visit::new(engine);
        let mut urls = pages(&site, 12);
        urls.push(format!("{site}/nothing"));
        let folder = visit.path("shots");
        let shots = folder.to_str().expect("it is text");
        let (code, told) = visit.run(&urls, &["-n", "3", "--screenshots", shots]).await;
        assert_eq!(code, Some(0), "{engine}: {told}");
        for url in &urls[..12] {
            let record = visit.record(url);
            assert_eq!((&record["status"], &record["title"]), (&200.into(), &"clean".into()));
            let shot = std::fs::read(record["screenshot"].as_str().expect("a path"));
            assert!(shot.expect("it is there").starts_with(b"\x89PNG"), "{engine}: {url}");
        }
        // A page that says that it is not there is a page all the same.
        assert_eq!(visit.record(&urls[12])["status"], 404, "{engine}");
        visit.until_gone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_of_a_page_is_in_its_record_and_in_the_table() {
    for engine in ENGINES {
        let site = site().await;
        let visit = Visit::new(engine);
        let (shop, missing) = (format!("{site}/shop"), format!("{site}/page/1"));
        let script = visit.path("script.js");
        let text =
            "Promise.resolve({ color: getComputedStyle(document.querySelector('b')).color })";
        std::fs::write(&script, text).expect("it can be written");
        let csv = visit.path("out.csv");
        let wanted = [
            // The second page never has one.
            ["--wait-for", "#price"],
            ["--extract", "price=#price"],
            ["--extract", "unit=#price@data-unit"],
            ["--extract", "pages[]=a@href"],
            ["--block", "stylesheet,blocked.example"],
            // Long enough for a good page on a machine that does much else.
            ["--timeout", "10s"],
            ["--retries", "0"],
        ];
        let paths = [&script, &csv].map(|path| path.to_str().expect("it is text"));
        let mut arguments = vec!["--links", "--text", "--script", paths[0], "--csv", paths[1]];
        arguments.extend(wanted.iter().flatten());
        let (code, told) = visit.run(&[shop.clone(), missing.clone()], &arguments).await;
        assert_eq!(code, Some(1), "{engine}: {told}");
        let record = visit.record(&shop);
        let extracted = serde_json::json!({
            "price": "9, 90", "unit": "EUR", "pages": ["/page/1", "/page/2"],
        });
        assert_eq!(record["extract"], extracted, "{engine}: {record} {told}");
        assert_eq!(record["links"], serde_json::json!([missing, format!("{site}/page/2")]));
        assert!(record["text"].as_str().expect("text").contains("9, 90"));
        assert_eq!(record["script"]["color"], "rgb(0, 0, 0)", "{engine}: the style is blocked");
        let error = &visit.record(&missing)["error"];
        assert_eq!(error["code"], "timeout", "{error}");
        assert!(error["message"].as_str().expect("text").contains("#price"), "{error}");
        let table = std::fs::read_to_string(&csv).expect("it is there");
        let head = "url,final_url,status,title,ms,error,attempts,price,unit,pages\r\n";
        assert!(table.starts_with(head), "{table}");
        assert!(
            table.contains(",\"9, 90\",EUR,\"[\"\"/page/1\"\",\"\"/page/2\"\"]\"\r\n"),
            "{table}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_one_host_keep_their_distance_when_asked_to() {
    let (site, visit) = (site().await, Visit::new("shell"));
    let began = Instant::now();
    let manners = ["--delay", "500ms", "--per-host", "1", "-n", "4"];
    let (code, told) = visit.run(&pages(&site, 5), &manners).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_hangs_or_never_comes_costs_only_itself() {
    for engine in ENGINES {
        let site = site().await;
        let visit = Visit::new(engine);
        let mut urls = vec![format!("{site}/loop"), format!("{site}/silence")];
        urls.extend(pages(&site, 6));
        // Long enough for a good page on a machine that does much else.
        let limits = ["-n", "2", "--timeout", "8s", "--retries", "0"];
        let (code, told) = visit.run(&urls, &limits).await;
        assert_eq!(code, Some(1), "{engine}: {told}");
        for url in &urls[..2] {
            assert_eq!(visit.record(url)["error"]["code"], "timeout", "{engine}: {url}");
        }
        for url in &urls[2..] {
            assert_eq!(visit.record(url)["title"], "clean", "{engine}: {url}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_ends_alike_whether_its_requests_are_reported_or_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let nobody = listener.local_addr().expect("it is bound").port();
    drop(listener);
    for engine in ENGINES {
        let site = site().await;
        let port = site.rsplit(':').next().expect("it has a port");
        let expected = [
            (format!("{site}/shop"), json!([200, "shop", null])),
            (format!("{site}/missing"), json!([404, "none", null])),
            (format!("{site}/moved"), json!([200, "An article", null])),
            (format!("{site}/onward/{port}/missing"), json!([404, "none", null])),
            (format!("{site}/hides"), json!([200, "hides", null])),
            (format!("{site}/mail"), json!([200, "mail", null])),
            (format!("{site}/onward/{port}/download"), json!([200, "on its way", null])),
            (format!("{site}/no-content"), json!([null, null, "no_page"])),
            (format!("{site}/download"), json!([null, null, "no_page"])),
            (format!("{site}/endless"), json!([null, null, "too_many_redirects"])),
            (format!("{site}/onward/{nobody}/x"), json!([null, null, "connection_refused"])),
            (format!("http://127.0.0.1:{nobody}/"), json!([null, null, "connection_refused"])),
            ("http://nowhere.invalid/".to_owned(), json!([null, null, "name_not_resolved"])),
        ];
        let mut urls: Vec<String> = expected.iter().map(|(url, _)| url.clone()).collect();
        // Chromium shows a page of its own, whose title is no concern of ours.
        let empty = format!("{site}/empty");
        urls.push(empty.clone());
        let visit = Visit::new(engine);
        let archives = visit.path("archives");
        let archives = archives.to_str().expect("it is text");
        for how in [
            ["--isolation", "context"].as_slice(),
            &["--isolation", "none"],
            &["--isolation", "wiped"],
            &["--har", archives],
        ] {
            let _ = std::fs::remove_file(visit.path("out.jsonl"));
            let (_, told) = visit.run(&urls, &[how, &["-n", "2", "--retries", "0"]].concat()).await;
            for (url, outcome) in &expected {
                let record = visit.record(url);
                let seen = json!([record["status"], record["title"], record["error"]["code"]]);
                assert_eq!(seen, *outcome, "{engine} {how:?}: {url}\n{told}");
            }
            assert_eq!(visit.record(&empty)["status"], 410, "{engine} {how:?}: {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_dies_costs_no_url() {
    for engine in ENGINES {
        let site = site().await;
        let visit = Visit::new(engine);
        // The first two hold their pages open until the browser is killed.
        let mut urls = vec![format!("{site}/silence"), format!("{site}/silence?2")];
        urls.extend(pages(&site, 4));
        let child = visit.start(&urls, &["-n", "4", "--timeout", "5s", "--retries", "1"]);
        let deadline = Instant::now() + Duration::from_secs(60);
        while visit.records().len() < 2 {
            assert!(Instant::now() < deadline, "{engine}: nothing was visited");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for pid in visit.processes() {
            let pid = Pid::from_raw(pid.cast_signed()).expect("it is a pid");
            // It may have ended since.
            let _ = kill_process(pid, Signal::KILL);
        }
        let (_, told) = end(child).await;
        for url in &urls[2..] {
            let record = visit.record(url);
            assert_eq!(record["title"], "clean", "{engine}: {record}\n{told}");
        }
        for url in &urls[..2] {
            assert_eq!(visit.record(url)["error"]["code"], "timeout", "{engine}: {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_not_done_again() {
    let site = site().await;
    let visit = Visit::new("auto");
    let urls = pages(&site, 6);
    let (code, told) = visit.run(&urls[..3], &[]).await;
    assert_eq!(code, Some(0), "{told}");
    // A line that was cut off by a kill is no record.
    let mut text = std::fs::read_to_string(visit.path("out.jsonl")).expect("it is there");
    let last = text.trim_end().rfind('\n').expect("it has three lines");
    text.truncate(last + 12);
    std::fs::write(visit.path("out.jsonl"), text).expect("it can be written");
    let (code, told) = visit.run(&urls, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(visit.records().len(), 6);
    for url in &urls {
        assert_eq!(visit.record(url)["title"], "clean");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_no_url_is_named_and_costs_only_itself() {
    let site = site().await;
    let visit = Visit::new("auto");
    let urls = [format!("{site}/page/1"), "ht!tp:nonsense".to_owned()];
    let (code, told) = visit.run(&urls, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("urls.txt:2: not a URL"), "{told}");
    assert_eq!(visit.record(&urls[1])["error"]["code"], "bad_url");
    assert_eq!(visit.record(&urls[0])["title"], "clean");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_reach_only_the_domains_that_are_allowed() {
    let site = site().await;
    let port = site.rsplit(':').next().expect("it has one").to_owned();
    let elsewhere = format!("http://localhost:{port}/page/1");
    for engine in ENGINES {
        let visit = Visit::new(engine);
        let urls = [format!("{site}/page/0"), elsewhere.clone()];
        let narrow = ["--allow-domains", "127.0.0.1", "--retries", "0"];
        let (code, told) = visit.run(&urls, &narrow).await;
        assert_eq!(code, Some(2), "without a guard: {told}");
        assert!(told.contains("[egress]") && visit.records().is_empty(), "{told}");

        let guarded = [&["--set", "egress.private=allow"][..], &narrow].concat();
        let (code, told) = visit.run(&urls, &guarded).await;
        assert_eq!(code, Some(0), "a refusal is an answer: {told}");
        assert_eq!(visit.record(&urls[0])["title"], "clean", "{told}");
        let refused = visit.record(&elsewhere);
        assert_eq!(refused["status"], 403, "{refused}");
        assert_ne!(refused["title"], "clean", "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_becomes_markdown_with_whole_links() {
    for engine in ENGINES {
        let (site, visit) = (site().await, Visit::new(engine));
        let url = format!("{site}/article");
        let (code, told) = visit.run(std::slice::from_ref(&url), &["--markdown"]).await;
        assert_eq!(code, Some(0), "{engine}: {told}");
        let markdown = visit.record(&url)["markdown"].as_str().expect("text").to_owned();
        for part in [
            "# Heading",
            "Some **bold** text",
            &format!("[a link]({site}/page/1)"),
            "one",
            "/nothing.png)",
        ] {
            assert!(markdown.contains(part), "{engine}: no {part} in {markdown}");
        }
        assert!(!markdown.contains("color: red") && !markdown.contains("cookie"), "{markdown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_each_page_is_as_har_1_2_has_it() {
    for engine in ENGINES {
        let (site, visit) = (site().await, Visit::new(engine));
        let folder = visit.path("archives");
        let (url, gone) = (format!("{site}/moved"), format!("{site}/page/7"));
        let arguments = ["--har", folder.to_str().expect("it is text")];
        let (code, told) = visit.run(&[url.clone(), gone.clone()], &arguments).await;
        assert_eq!(code, Some(0), "{engine}: {told}");
        let read = |url: &str| -> Value {
            let record = visit.record(url);
            let text = std::fs::read(record["har"].as_str().expect("a path")).expect("it is there");
            serde_json::from_slice(&text).expect("it is JSON")
        };
        let archive = read(&url);
        check_har(&archive);
        check_har(&read(&gone));
        let entries = archive["log"]["entries"].as_array().expect("a list");
        let steps: Vec<(u64, String)> = entries
            .iter()
            .map(|entry| {
                let url = entry["request"]["url"].as_str().expect("text").replace(&site, "");
                (entry["response"]["status"].as_u64().expect("a number"), url)
            })
            .filter(|(_, url)| url != "/favicon.ico")
            .collect();
        let wanted = [(303, "/moved"), (200, "/article?from=moved"), (404, "/nothing.png")];
        assert_eq!(steps, wanted.map(|(status, url)| (status, url.to_owned())), "{engine}");
        assert_eq!(entries[0]["response"]["redirectURL"], "/article?from=moved");
        assert_eq!(entries[1]["request"]["queryString"][0]["value"], "moved");
        assert_eq!(archive["log"]["pages"][0]["title"], "An article");
        let size = entries[1]["response"]["content"]["size"].as_u64();
        assert_eq!(size, Some(ARTICLE.len() as u64), "{engine}");
    }
}

/// Checks every member that HAR 1.2 asks for, and its kind.
#[track_caller]
fn check_har(archive: &Value) {
    let has = |object: &Value, texts: &[&str], numbers: &[&str], lists: &[&str]| {
        for name in texts {
            assert!(object[name].is_string(), "{name}: {object}");
        }
        for name in numbers {
            assert!(object[name].is_number(), "{name}: {object}");
        }
        for name in lists {
            for pair in object[name].as_array().unwrap_or_else(|| panic!("{name}: {object}")) {
                assert!(pair["name"].is_string() && pair["value"].is_string(), "{name}: {pair}");
            }
        }
    };
    let log = &archive["log"];
    assert_eq!(log["version"], "1.2");
    has(&log["creator"], &["name", "version"], &[], &[]);
    let page = &log["pages"][0];
    has(page, &["startedDateTime", "id", "title"], &[], &[]);
    has(&page["pageTimings"], &[], &["onContentLoad", "onLoad"], &[]);
    assert!(page["pageTimings"]["onLoad"].as_f64() > Some(0.0), "{page}");
    for entry in log["entries"].as_array().expect("a list") {
        has(entry, &["pageref", "startedDateTime"], &["time"], &[]);
        assert_eq!(entry["pageref"], page["id"]);
        let began = entry["startedDateTime"].as_str().expect("text");
        assert!(humantime::parse_rfc3339(began).is_ok(), "{began}");
        let sizes = ["headersSize", "bodySize"];
        let lists = ["cookies", "headers", "queryString"];
        has(&entry["request"], &["method", "url", "httpVersion"], &sizes, &lists);
        let texts = ["statusText", "httpVersion", "redirectURL"];
        let numbers = ["status", "headersSize", "bodySize"];
        has(&entry["response"], &texts, &numbers, &lists[..2]);
        has(&entry["response"]["content"], &["mimeType"], &["size"], &[]);
        assert!(entry["cache"].is_object(), "{entry}");
        let timings = &entry["timings"];
        let parts = ["blocked", "dns", "connect", "send", "wait", "receive"];
        has(timings, &[], &[&parts[..], &["ssl"]].concat(), &[]);
        let spent = parts.iter().filter_map(|part| timings[part].as_f64());
        let spent: f64 = spent.filter(|time| *time > 0.0).sum();
        let time = entry["time"].as_f64().expect("a number");
        assert!((time - spent).abs() < 0.01, "{time} is not {spent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_robots_txt_allows_is_visited_and_at_its_pace() {
    for engine in ENGINES {
        let site = site().await;
        let urls = [0, 1, 2].map(|n| format!("{site}/page/{n}"));
        let visit = Visit::new(engine);
        let began = Instant::now();
        let (code, told) = visit.run(&urls, &["--robots", "-n", "3"]).await;
        assert_eq!(code, Some(1), "{engine}: {told}");
        assert!(began.elapsed() >= Duration::from_secs(2), "{engine}: {:?}", began.elapsed());
        assert_eq!(visit.record(&urls[1])["error"]["code"], "robots_denied", "{told}");
        for url in [&urls[0], &urls[2]] {
            assert_eq!(visit.record(url)["title"], "clean", "{engine}: {told}");
        }
        let visit = Visit::new(engine);
        let urls = [urls[1].clone(), format!("{site}/shop"), "data:text/html,<title>d".to_owned()];
        let (code, told) = visit.run(&urls, &["--robots=ours"]).await;
        assert_eq!(code, Some(1), "{engine}: {told}");
        assert_eq!(visit.record(&urls[0])["title"], "clean", "{told}");
        assert_eq!(visit.record(&urls[1])["error"]["code"], "robots_denied", "{told}");
        assert_eq!(visit.record(&urls[2])["title"], "d", "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_too_tall_for_a_picture_is_told_by_its_size_and_not_drawn_wrongly() {
    for engine in ENGINES {
        let (site, visit) = (site().await, Visit::new(engine));
        let url = format!("{site}/tall");
        let folder = visit.path("shots");
        let shots = ["--screenshots", folder.to_str().expect("it is text")];
        let whole = [&shots[..], &["--full-page"]].concat();
        let (code, told) = visit.run(std::slice::from_ref(&url), &whole).await;
        assert_eq!(code, Some(1), "{engine}: {told}");
        let record = visit.record(&url);
        assert_eq!(record["error"]["code"], "picture_too_large", "{record}");
        assert_eq!(record["attempts"], 1, "another attempt would go the same way");
        let message = record["error"]["message"].as_str().expect("text");
        assert!(message.contains(" by 20") && message.contains("16384"), "{message}");
        assert_eq!(std::fs::read_dir(&folder).expect("it was made").count(), 0);
        let again = [&shots[..], &["--retry-failed"]].concat();
        let (code, told) = visit.run(&[url], &again).await;
        assert_eq!(code, Some(0), "{engine}: what is in view is drawn: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_again_and_again_loses_nothing_and_does_nothing_twice() {
    for isolation in ["context", "wiped", "none"] {
        let (site, visit) = (site().await, Visit::new("shell"));
        let urls = pages(&site, 60);
        let csv = visit.path("out.csv");
        let csv = ["--csv", csv.to_str().expect("it is text"), "--isolation", isolation];
        let lines = || std::fs::read(visit.path("out.jsonl")).unwrap_or_default();
        let lines = || lines().iter().filter(|byte| **byte == b'\n').count();
        for _ in 0..3 {
            let before = lines();
            let mut child = visit.start(&urls, &csv);
            let deadline = Instant::now() + Duration::from_secs(60);
            while lines() < before + 5 {
                assert!(Instant::now() < deadline, "{isolation}: nothing was visited");
                assert_eq!(child.try_wait().expect("it is ours"), None, "{isolation}: too early");
                tokio::time::sleep(Duration::from_millis(fastrand::u64(1..30))).await;
            }
            child.kill().expect("it runs");
            let _ = end(child).await;
        }
        let (code, told) = visit.run(&urls, &csv).await;
        assert_eq!(code, Some(0), "{isolation}: {told}");
        assert_eq!(visit.records().len(), urls.len(), "{isolation}");
        let table = std::fs::read_to_string(visit.path("out.csv")).expect("it is there");
        assert_eq!(table.lines().count(), urls.len() + 1, "{isolation}: {table}");
        for url in &urls {
            assert_eq!(visit.record(url)["status"], 200, "{isolation}: {told}");
            let rows = table.lines().filter(|row| row.starts_with(&format!("{url},"))).count();
            assert_eq!(rows, 1, "{isolation}: {url}");
        }
    }
}
