//! A forwarder that leads out directly and keeps rules, before a client that talks HTTP to it.

mod egress_support;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use egress_support::{HttpProxy, Manner, NOBODY, PASSWORD, SOON, Site, SocksProxy, exchange};
use pool_chrome::egress::{Forwarder, Guard, Pass, Pattern, Private, Rules, Upstream};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

fn patterns(list: &[&str]) -> Vec<Pattern> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

async fn opened(guard: &Arc<Guard>, pass: Pass) -> Forwarder {
    let forwarder = Forwarder::guarded(Arc::clone(guard), None).await.unwrap();
    forwarder.open(pass);
    forwarder
}

async fn client(forwarder: &Forwarder) -> TcpStream {
    TcpStream::connect(forwarder.address()).await.unwrap()
}

fn get(url: &str) -> String {
    format!("GET {url} HTTP/1.1\r\nHost: h\r\n\r\n")
}

fn connect(site: impl std::fmt::Display) -> String {
    format!("CONNECT {site} HTTP/1.1\r\nHost: {site}\r\n\r\n")
}

/// The status, and the text of a refusal.
async fn ask(forwarder: &Forwarder, request: &str) -> io::Result<(String, String)> {
    let (head, body) = exchange(&mut client(forwarder).await, request).await?;
    Ok((head.word(1).to_owned(), String::from_utf8(body).unwrap()))
}

async fn is_refused(forwarder: &Forwarder, host: &str, rule: &str) {
    for request in [get(&format!("http://{host}/")), connect(host)] {
        let (status, text) = ask(forwarder, &request).await.unwrap();
        assert_eq!(status, "403", "{request}");
        assert!(text.contains(rule), "{request} {text}");
    }
}

#[tokio::test]
async fn what_is_allowed_is_carried_both_ways_and_counted() {
    let site = Site::start().await;
    let guard = Guard::new(Rules::new());
    let forwarder = opened(&guard, Pass::new()).await;
    let (status, text) = ask(&forwarder, &get(&site.url("/a"))).await.unwrap();
    assert_eq!((&*status, &*text), ("200", "<!doctype html><title>/a</title>"));
    let seen = site.requests();
    assert_eq!(seen[0].word(1), "/a", "a site gets the path, not the whole URL");
    assert_eq!(seen[0].header("host"), Some(&*site.address.to_string()), "not what the head says");

    let mut tunnel = client(&forwarder).await;
    assert_eq!(exchange(&mut tunnel, &connect(site.address)).await.unwrap().0.word(1), "200");
    let (_, body) = exchange(&mut tunnel, &get("/b")).await.unwrap();
    assert_eq!(body, b"<!doctype html><title>/b</title>");
    let requests = guard.requests();
    assert_eq!((requests.forwarded, requests.refused, requests.failed), (2, 0, 0));
    assert!(forwarder.traffic().received > 0 && forwarder.last_error().is_none());
}

#[tokio::test]
async fn plain_requests_are_judged_one_by_one_on_one_connection() {
    let (site, other) = (Site::start().await, Site::start().await);
    let rules = Rules::new().deny([format!("*:{}", other.address.port()).parse().unwrap()]);
    let forwarder = opened(&Guard::new(rules), Pass::new()).await;
    let mut client = client(&forwarder).await;
    for (url, status) in [
        (site.url("/a"), "200"),
        (other.url("/a"), "403"),
        (site.url("/b"), "200"),
        (other.url("/b"), "403"),
    ] {
        let (head, _) = exchange(&mut client, &get(&url)).await.unwrap();
        assert_eq!(head.word(1), status, "{url}");
    }
    assert!(other.requests().is_empty());
    assert_eq!(site.requests().len(), 2);
}

#[tokio::test]
async fn private_addresses_are_refused_however_they_are_named() {
    let site = Site::start().await;
    let port = site.address.port();
    let forwarder = opened(&Guard::new(Rules::new().private(Private::Deny)), Pass::new()).await;
    for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:7f00:1]", "[::1]", "127.1.2.3"] {
        is_refused(&forwarder, &format!("{host}:{port}"), "only public").await;
    }
    is_refused(&forwarder, "metadata.google.internal:80", "metadata").await;
    // What Chromium would not write is not guessed at.
    for host in ["2130706433", "0x7f.1", "127.0.0.1.", "[::ffff:127.0.0.1]", "u@127.0.0.1"] {
        is_refused(&forwarder, &format!("{host}:{port}"), "spelled").await;
    }
    assert!(site.requests().is_empty());
}

#[tokio::test]
async fn a_refusal_is_text_that_runs_and_remembers_nothing() {
    let forwarder = opened(&Guard::new(Rules::new().private(Private::Deny)), Pass::new()).await;
    let mut client = client(&forwarder).await;
    let (head, _) = exchange(&mut client, &get("http://127.0.0.1:9/")).await.unwrap();
    for (name, value) in [
        ("content-type", "text/plain; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(head.header(name), Some(value));
    }
}

#[tokio::test]
async fn nothing_goes_through_before_it_is_opened_and_after_it_is_closed() {
    let site = Site::start().await;
    let guard = Guard::new(Rules::new());
    let forwarder = Forwarder::guarded(Arc::clone(&guard), None).await.unwrap();
    is_refused(&forwarder, &site.address.to_string(), "no lease").await;
    forwarder.open(Pass::new());
    assert_eq!(ask(&forwarder, &get(&site.url("/"))).await.unwrap().0, "200");
    let another = forwarder.another().await.unwrap();
    is_refused(&another, &site.address.to_string(), "no lease").await;
    forwarder.close();
    is_refused(&forwarder, &site.address.to_string(), "no lease").await;
    assert_eq!(site.requests().len(), 1);
}

#[tokio::test]
async fn tunnels_are_cut_by_the_end_of_a_lease_and_by_a_change_of_rules() {
    let site = Site::start().await;
    let guard = Guard::new(Rules::new());
    let forwarder = opened(&guard, Pass::new()).await;
    let cuts: [&dyn Fn(); 2] =
        [&|| guard.set_rules(Rules::new().private(Private::Deny)), &|| forwarder.close()];
    for cut in cuts {
        guard.set_rules(Rules::new());
        let mut tunnel = client(&forwarder).await;
        assert_eq!(exchange(&mut tunnel, &connect(site.address)).await.unwrap().0.word(1), "200");
        let mut plain = client(&forwarder).await;
        exchange(&mut plain, &get(&site.url("/"))).await.unwrap();
        cut();
        for mut stream in [tunnel, plain] {
            let read = timeout(SOON, stream.read(&mut [0])).await.expect("it is cut");
            assert!(matches!(read, Ok(0) | Err(_)));
        }
        assert_eq!(ask(&forwarder, &get(&site.url("/"))).await.unwrap().0, "403");
    }
}

#[tokio::test]
async fn rules_that_stay_the_same_cut_nothing() {
    let site = Site::start().await;
    let guard = Guard::new(Rules::new());
    let forwarder = opened(&guard, Pass::new()).await;
    let mut tunnel = client(&forwarder).await;
    exchange(&mut tunnel, &connect(site.address)).await.unwrap();
    guard.set_rules(Rules::new());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(exchange(&mut tunnel, &get("/a")).await.unwrap().0.word(1), "200");
}

#[tokio::test]
async fn a_lease_is_narrowed_to_its_domains() {
    let site = Site::start().await;
    let port = site.address.port();
    let pass = Pass::new().domains(patterns(&["localhost", "*.localhost"]));
    let forwarder = opened(&Guard::new(Rules::new()), pass).await;
    let url = format!("http://localhost:{port}/a");
    assert_eq!(ask(&forwarder, &get(&url)).await.unwrap().0, "200");
    is_refused(&forwarder, &site.address.to_string(), "allow_domains").await;
}

#[tokio::test]
async fn a_site_that_cannot_be_reached_fails_a_page_and_is_no_page() {
    let guard = Guard::new(Rules::new());
    let forwarder = opened(&guard, Pass::new()).await;
    for host in [NOBODY, "no-such-name.invalid:80"] {
        assert_eq!(ask(&forwarder, &connect(host)).await.unwrap().0, "502");
        let plain = ask(&forwarder, &get(&format!("http://{host}/"))).await;
        assert_eq!(plain.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
    assert_eq!(guard.requests().failed, 4);
}

#[tokio::test]
async fn the_ports_of_all_forwarders_of_a_guard_are_out_of_reach() {
    let guard = Guard::new(Rules::new());
    let (one, other) = (opened(&guard, Pass::new()).await, opened(&guard, Pass::new()).await);
    is_refused(&one, &other.address().to_string(), "the pool").await;
    is_refused(&one, &format!("localhost:{}", one.address().port()), "the pool").await;
    let gone = other.address();
    drop(other);
    assert_eq!(ask(&one, &connect(gone)).await.unwrap().0, "502", "it is nobody's port now");
}

#[tokio::test]
async fn with_a_proxy_names_and_addresses_are_judged_before_it_is_asked() {
    let site = Site::start().await;
    let port = site.address.port();
    let (http, socks) = (HttpProxy::start(Manner::Good).await, SocksProxy::start().await);
    for proxy in [http.url(), socks.url()] {
        let upstream = Upstream::parse(&proxy).unwrap();
        let upstream = upstream.credentials("user".to_owned(), PASSWORD.to_owned());
        let rules = Rules::new()
            .private(Private::Deny)
            .allow(patterns(&[&format!("{}", site.address)]))
            .deny(patterns(&["*.ads.example"]));
        let forwarder = Forwarder::guarded(Guard::new(rules), upstream).await.unwrap();
        forwarder.open(Pass::new());
        let before = site.requests().len();
        assert_eq!(ask(&forwarder, &get(&site.url("/a"))).await.unwrap().0, "200", "{proxy}");
        assert_eq!(site.requests().len(), before + 1);
        is_refused(&forwarder, &format!("x.ads.example:{port}"), "(deny)").await;
        is_refused(&forwarder, &format!("localhost:{port}"), "only public").await;
        is_refused(&forwarder, "10.0.0.1:80", "only public").await;
        // On one connection, whose next request is for another site.
        let mut client = client(&forwarder).await;
        exchange(&mut client, &get(&site.url("/b"))).await.unwrap();
        let (head, _) = exchange(&mut client, &get("http://10.0.0.1/")).await.unwrap();
        assert_eq!(head.word(1), "403", "{proxy}");
    }
    assert!(http.requests().iter().all(|head| !head.word(1).contains("10.0.0.1")));
}
