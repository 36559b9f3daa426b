//! The forwarder between a client that talks HTTP to it and proxies that want credentials.

mod egress_support;

use std::io;
use std::time::Duration;

use egress_support::{
    BASIC, HttpProxy, Manner, NOBODY, PASSWORD, SOON, Site, SocksProxy, exchange, read_head,
};
use pool_chrome::egress::{Forwarder, ProxyError, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

fn upstream(url: &str) -> Upstream {
    Upstream::parse(url).unwrap().credentials("user".to_owned(), PASSWORD.to_owned())
}

async fn forwarder(url: &str) -> Forwarder {
    Forwarder::start(upstream(url)).await.unwrap()
}

async fn client(forwarder: &Forwarder) -> TcpStream {
    TcpStream::connect(forwarder.address()).await.unwrap()
}

fn get(url: &str) -> String {
    format!("GET {url} HTTP/1.1\r\nHost: h\r\nProxy-Connection: keep-alive\r\nX-Case: kept\r\n\r\n")
}

fn connect(site: impl std::fmt::Display) -> String {
    format!("CONNECT {site} HTTP/1.1\r\nHost: {site}\r\n\r\n")
}

#[tokio::test]
async fn a_plain_request_reaches_the_site_with_credentials_for_the_proxy_only() {
    let (site, proxy) = (Site::start().await, HttpProxy::start(Manner::Good).await);
    let forwarder = forwarder(&proxy.url()).await;
    let mut client = client(&forwarder).await;
    let (head, body) = exchange(&mut client, &get(&site.url("/a"))).await.unwrap();
    assert_eq!(head.word(1), "200");
    assert_eq!(body, b"<!doctype html><title>/a</title>");
    let asked = &proxy.requests()[0];
    assert_eq!(asked.header("proxy-authorization"), Some(BASIC));
    assert_eq!(asked.header("proxy-connection"), None);
    let seen = &site.requests()[0];
    assert_eq!(seen.header("proxy-authorization"), None);
    assert!(seen.0.contains(&"X-Case: kept".to_owned()), "{seen:?}");
}

#[tokio::test]
async fn one_connection_of_the_client_is_one_connection_to_the_proxy() {
    let (site, proxy) = (Site::start().await, HttpProxy::start(Manner::Good).await);
    let forwarder = forwarder(&proxy.url()).await;
    let mut first = client(&forwarder).await;
    for _ in 0..5 {
        exchange(&mut first, &get(&site.url("/a"))).await.unwrap();
    }
    assert_eq!(proxy.connections(), 1);
    exchange(&mut client(&forwarder).await, &get(&site.url("/a"))).await.unwrap();
    assert_eq!(proxy.connections(), 2, "two of the client's never share one");
}

#[tokio::test]
async fn bodies_of_some_size_pass_both_ways() {
    let site = Site::start().await;
    let (http, socks) = (HttpProxy::start(Manner::Good).await, SocksProxy::start().await);
    for proxy in [http.url(), socks.url()] {
        let forwarder = forwarder(&proxy).await;
        let body = "0123456789".repeat(300_000);
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
            site.url("/echo"),
            body.len()
        );
        let mut client = client(&forwarder).await;
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut reading, mut writing) = client.into_split();
        let sent = body.clone();
        let sending = tokio::spawn(async move {
            writing.write_all(sent.as_bytes()).await.unwrap();
            writing
        });
        let mut stream = BufReader::new(&mut reading);
        let head = read_head(&mut stream).await.unwrap().unwrap();
        let mut echoed = vec![0; head.length()];
        stream.read_exact(&mut echoed).await.unwrap();
        assert!(echoed == body.as_bytes());
        sending.await.unwrap();
        let traffic = forwarder.traffic();
        assert!(traffic.sent > 3_000_000 && traffic.received > 3_000_000, "{traffic:?}");
        assert_eq!(traffic.connections, 1);
    }
}

#[tokio::test]
async fn a_tunnel_carries_bytes_until_one_side_ends_it() {
    let site = Site::start().await;
    let (http, socks) = (HttpProxy::start(Manner::Good).await, SocksProxy::start().await);
    for proxy in [http.url(), socks.url()] {
        let forwarder = forwarder(&proxy).await;
        let mut client = client(&forwarder).await;
        let (head, _) = exchange(&mut client, &connect(site.address)).await.unwrap();
        assert_eq!(head.word(1), "200");
        for path in ["/a", "/b"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
            let (_, body) = exchange(&mut client, &request).await.unwrap();
            assert_eq!(body, format!("<!doctype html><title>{path}</title>").as_bytes());
        }
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert!(forwarder.last_error().is_none());
    }
}

#[tokio::test]
async fn names_are_resolved_by_a_socks_proxy_and_never_here() {
    let (site, proxy) = (Site::start().await, SocksProxy::start().await);
    let forwarder = forwarder(&proxy.url()).await;
    let port = site.address.port();
    let mut client = client(&forwarder).await;
    for host in ["one.example", "two.example"] {
        let url = format!("http://{host}:{port}/a");
        let (head, _) = exchange(&mut client, &get(&url)).await.unwrap();
        assert_eq!(head.word(1), "200");
    }
    assert_eq!(proxy.targets(), [format!("one.example:{port}"), format!("two.example:{port}")]);
    assert_eq!(site.requests()[0].word(1), "/a", "a site gets the path, not the whole URL");
}

/// What a client sees of a proxy that does not work: a 502 to `CONNECT`, no answer to a plain
/// request, and the site untouched.
async fn assert_fails(forwarder: &Forwarder, site: &Site) -> ProxyError {
    let (head, _) = exchange(&mut client(forwarder).await, &connect(site.address)).await.unwrap();
    assert_eq!(head.word(1), "502");
    let tunnelled = forwarder.last_error().unwrap();
    let plain = exchange(&mut client(forwarder).await, &get(&site.url("/"))).await;
    assert_eq!(plain.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert!(site.requests().is_empty(), "{:?}", site.requests());
    let error = forwarder.last_error().unwrap();
    assert!(error.blames_proxy() && tunnelled.blames_proxy(), "{tunnelled} {error}");
    assert!(!format!("{error} {error:?} {forwarder:?}").contains(PASSWORD));
    error
}

#[tokio::test]
async fn a_proxy_that_is_down_is_an_error_and_never_passed_by() {
    let site = Site::start().await;
    for scheme in ["http", "socks5"] {
        let forwarder = forwarder(&format!("{scheme}://{NOBODY}")).await;
        let error = assert_fails(&forwarder, &site).await;
        assert!(matches!(error, ProxyError::Connect { .. }), "{error}");
        assert!(matches!(forwarder.probe(SOON).await, Err(ProxyError::Connect { .. })));
    }
}

#[tokio::test]
async fn refused_credentials_are_told_to_the_operator_and_not_to_the_browser() {
    let site = Site::start().await;
    let (http, socks) = (HttpProxy::start(Manner::Denies).await, SocksProxy::start().await);
    let wrong =
        Upstream::parse(&socks.url()).unwrap().credentials("user".to_owned(), "x".to_owned());
    for upstream in [upstream(&http.url()), wrong] {
        let forwarder = Forwarder::start(upstream).await.unwrap();
        let error = assert_fails(&forwarder, &site).await;
        assert!(matches!(error, ProxyError::Credentials { given: true, .. }), "{error}");
        let probed = forwarder.probe(SOON).await.unwrap_err();
        assert!(probed.to_string().ends_with("refuses the credentials"), "{probed}");
    }
}

#[tokio::test]
async fn missing_credentials_are_told_apart_from_wrong_ones() {
    let (http, socks) = (HttpProxy::start(Manner::Good).await, SocksProxy::start().await);
    for proxy in [http.url(), socks.url()] {
        let probed = Upstream::parse(&proxy).unwrap().probe(SOON).await.unwrap_err();
        assert!(probed.to_string().ends_with("requires credentials"), "{probed}");
    }
}

#[tokio::test]
async fn a_proxy_that_breaks_off_or_babbles_is_an_error() {
    let site = Site::start().await;
    for manner in [Manner::Closes, Manner::Babbles] {
        let proxy = HttpProxy::start(manner).await;
        let forwarder = forwarder(&proxy.url()).await;
        let error = assert_fails(&forwarder, &site).await;
        assert!(matches!(error, ProxyError::Broken { .. }), "{manner:?}: {error}");
        forwarder.probe(SOON).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_silent_proxy_is_found_out_by_the_probe() {
    let proxy = HttpProxy::start(Manner::Silent).await;
    for url in [proxy.url(), format!("socks5://{}", proxy.address)] {
        let error = upstream(&url).probe(Duration::from_millis(200)).await.unwrap_err();
        assert!(matches!(error, ProxyError::Timeout { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_good_proxy_passes_the_probe_without_a_word_to_any_site() {
    let (http, socks) = (HttpProxy::start(Manner::Good).await, SocksProxy::start().await);
    upstream(&http.url()).probe(SOON).await.unwrap();
    upstream(&socks.url()).probe(SOON).await.unwrap();
    assert_eq!(http.requests()[0].word(1), "proxy-check.invalid:443");
    assert!(socks.targets().is_empty());
}

#[tokio::test]
async fn a_site_that_cannot_be_reached_is_not_blamed_on_the_proxy() {
    let (http, socks) = (HttpProxy::start(Manner::Good).await, SocksProxy::start().await);
    for proxy in [http.url(), socks.url()] {
        let forwarder = forwarder(&proxy).await;
        let (head, _) = exchange(&mut client(&forwarder).await, &connect(NOBODY)).await.unwrap();
        assert_eq!(head.word(1), "502");
        let error = forwarder.last_error().unwrap();
        assert!(matches!(error, ProxyError::Refused { .. }) && !error.blames_proxy(), "{error}");
        assert!(error.to_string().contains(NOBODY), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_comes_back_is_used_again() {
    let (site, proxy) = (Site::start().await, HttpProxy::start(Manner::Closes).await);
    let forwarder = forwarder(&proxy.url()).await;
    assert_fails(&forwarder, &site).await;
    proxy.behave(Manner::Good);
    let (head, _) = exchange(&mut client(&forwarder).await, &get(&site.url("/"))).await.unwrap();
    assert_eq!(head.word(1), "200");
    assert!(forwarder.last_error().is_none());
}

#[tokio::test]
async fn what_is_no_proxy_request_is_refused() {
    let proxy = HttpProxy::start(Manner::Good).await;
    let forwarder = forwarder(&proxy.url()).await;
    for request in ["GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", &get("https://site.example/")] {
        let (head, _) = exchange(&mut client(&forwarder).await, request).await.unwrap();
        assert_eq!(head.word(1), "400");
    }
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn dropping_the_forwarder_closes_its_port_and_its_tunnels() {
    let (site, proxy) = (Site::start().await, HttpProxy::start(Manner::Good).await);
    let forwarder = forwarder(&proxy.url()).await;
    let address = forwarder.address();
    let mut client = client(&forwarder).await;
    exchange(&mut client, &connect(site.address)).await.unwrap();
    drop(forwarder);
    let end = tokio::time::timeout(SOON, client.read(&mut [0])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).await.is_err());
}
