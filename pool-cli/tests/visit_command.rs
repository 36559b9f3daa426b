//! `pool-cli visit`: many URLs, each in a browser of its own, on both engines.

mod gateway_support;

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use gateway_support::{command, processes_below};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
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
        .route("/silence", get(|| async { std::future::pending::<()>().await }))
        .fallback(|| async { (StatusCode::NOT_FOUND, Html("<title>none</title>")) });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// A folder with what one visit reads and writes.
struct Visit {
    folder: TempDir,
    engine: &'static str,
}

impl Visit {
    fn new(engine: &'static str) -> Self {
        Self { folder: tempfile::tempdir().expect("a directory"), engine }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, urls: &[String], arguments: &[&str]) -> Child {
        std::fs::write(self.path("urls.txt"), urls.join("\n")).expect("it can be written");
        command()
            .args(["visit", "--set"])
            .arg(format!("chrome.engine={}", self.engine))
            .arg("--out")
            .arg(self.path("out.jsonl"))
            .args(arguments)
            .arg(self.path("urls.txt"))
            .env("XDG_STATE_HOME", self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built")
    }

    /// Runs it to its end: the exit code, and what it told people.
    async fn run(&self, urls: &[String], arguments: &[&str]) -> (Option<i32>, String) {
        end(self.start(urls, arguments)).await
    }

    /// What is known of each URL that is done.
    fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("out.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
    }

    fn record(&self, url: &str) -> Value {
        let found = self.records().into_iter().filter(|record| record["url"] == url);
        let found: Vec<Value> = found.collect();
        assert_eq!(found.len(), 1, "{url} stands there {} times", found.len());
        found[0].clone()
    }

    /// The Chromium processes of this visit.
    fn processes(&self) -> Vec<u32> {
        processes_below(&self.path("browser-pool"))
    }
}

async fn end(child: Child) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output());
    let output = output.await.expect("it waits").expect("it is ours");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
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
        assert_eq!(visit.processes(), [] as [u32; 0], "{engine}");
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
            ["--wait-for", "#price"],
            ["--extract", "price=#price"],
            ["--extract", "unit=#price@data-unit"],
            ["--extract", "pages[]=a@href"],
            ["--block", "stylesheet,blocked.example"],
            ["--timeout", "6s"],
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
