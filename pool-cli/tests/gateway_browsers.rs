//! What a client asks for in its query is what it gets, on real Chromium.

mod gateway_support;

use std::time::{Duration, Instant};

use base64::Engine as _;
use futures_util::StreamExt;
use gateway_support::{Cdp, PATIENCE, Service, Site, unused_port};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_lease_sees_nothing_of_the_one_before() {
    let site = Site::start().await;
    let service = Service::start("[pool]\nmin_size = 1\nmax_size = 1\n");
    for round in 0..3 {
        let mut cdp = Cdp::new(service.connect("/").await);
        let page = cdp.page(&site.url(&format!("/{round}"))).await;
        let found = cdp.evaluate(&page, "document.cookie + localStorage.length").await;
        assert_eq!(found, "0", "round {round}");
        cdp.evaluate(&page, "document.cookie = 'a=1'; localStorage.a = 1; 0").await;
        cdp.client.close(None).await.expect("it was open");
        while let Some(Ok(_)) = cdp.client.next().await {}
    }
    assert!(site.requests("GET /2 ").iter().all(|head| !head.contains("cookie")));
}

#[tokio::test]
async fn a_profile_keeps_its_cookies_over_leases_and_nobody_else_has_them() {
    let site = Site::start().await;
    let service = Service::start(
        "[pool]\nmin_size = 0\nmax_size = 2\n[profiles.work]\nmax_size = 1\n[profiles.play]\n",
    );
    let visit = async |query: &str, path: &str| {
        let mut cdp = Cdp::new(service.connect(query).await);
        let page = cdp.page(&site.url(path)).await;
        let cookie = cdp.evaluate(&page, "document.cookie").await;
        let keep = "document.cookie = 'login=yes; max-age=3600'; 0";
        cdp.evaluate(&page, keep).await;
        cdp.client.close(None).await.expect("it was open");
        while let Some(Ok(_)) = cdp.client.next().await {}
        cookie
    };
    assert_eq!(visit("/?profile=work", "/1").await, "");
    assert_eq!(visit("/?profile=work", "/2").await, "login=yes");
    assert_eq!(visit("/?profile=play", "/3").await, "");
    assert_eq!(visit("/", "/4").await, "");
    let unknown = service.get("/?profile=none").await;
    assert_eq!(unknown.status, 426, "a plain request takes no lease");
}

#[tokio::test]
async fn a_region_goes_through_its_proxy_with_credentials_and_never_directly() {
    let site = Site::start().await;
    let proxy = Proxy::start().await;
    let config = |port: u16| {
        format!(
            "[pool]\nmin_size = 0\nmax_size = 2\n[regions.eu]\n\
             proxies = [{{ url = \"http://127.0.0.1:{port}\", username = \"u\", password = \"c4nary\" }}]\n"
        )
    };
    let service = Service::start(&config(proxy.port));
    let mut cdp = Cdp::new(service.connect("/?region=eu").await);
    let page = cdp.page(&site.url("/through")).await;
    assert_eq!(cdp.evaluate(&page, "document.title").await, "a page");
    assert!(site.requests("/through")[0].contains("via: test-proxy"));
    for pid in service.browsers() {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains("c4nary"));
    }
    assert!(!service.log().contains("c4nary"));
    assert!(!service.get("/api/state").await.body.contains("c4nary"));
    drop(cdp);

    drop(proxy);
    let service = Service::start(&config(unused_port()));
    let stream = TcpStream::connect(&service.address).await.unwrap();
    let url = format!("ws://{}/?region=eu&acquire_timeout=5000", service.address);
    let refused = tokio_tungstenite::client_async(url, stream).await;
    let Err(tokio_tungstenite::tungstenite::Error::Http(answer)) = refused else {
        panic!("a lease without its proxy");
    };
    assert!([503, 408].contains(&answer.status().as_u16()), "{answer:?}");
    let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
    assert!(body.contains("prox") && !body.contains("c4nary"), "{body}");
}

#[tokio::test]
async fn shared_leases_are_browsers_of_their_own_in_one_chromium() {
    let service = Service::start("[pool]\nlease = \"shared\"\nmin_size = 0\nmax_size = 4\n");
    let mut first = Cdp::new(service.connect("/").await);
    let mut second = Cdp::new(service.connect("/").await);
    let page = first.page("data:text/html,<title>one</title>").await;
    second.page("data:text/html,<title>two</title>").await;
    let seen = second.call(None, "Target.getTargets", json!({})).await;
    let targets = seen["targetInfos"].as_array().unwrap();
    let pages: Vec<_> = targets.iter().filter(|target| target["type"] == "page").collect();
    assert_eq!(pages.len(), 2, "its first page and the one that it made: {pages:?}");
    let mut pids = service.browser_pids().await;
    pids.dedup();
    assert_eq!(pids.len(), 1, "one Chromium for both");
    second.call(None, "Browser.close", json!({})).await;
    assert_eq!(first.evaluate(&page, "document.title").await, "one", "it outlives its neighbour");
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_flush_renews_the_chromium_of_shared_leases_and_ends_none() {
    let service = Service::start("[pool]\nlease = \"shared\"\nmin_size = 2\nmax_size = 3\n");
    let mut held = Cdp::new(service.connect("/").await);
    let page = held.page("about:blank").await;
    let pids_in = async |state: &str| -> Vec<Value> {
        let answer = service.get("/api/state").await.json();
        let browsers = answer["browsers"].as_array().expect("a list").clone();
        let found = browsers.into_iter().filter(|browser| browser["state"] == state);
        found.map(|browser| browser["pid"].clone()).collect()
    };
    until("one is idle", async || pids_in("idle").await.len() == 1).await;
    let old = pids_in("leased").await[0].clone();
    assert_eq!(pids_in("idle").await, std::slice::from_ref(&old), "they share a Chromium");

    assert_eq!(service.post("/api/flush").await.json()["closed"], 1);
    let mut next = Cdp::new(service.connect("/").await);
    next.page("about:blank").await;
    let leased = pids_in("leased").await;
    let renewed = leased.iter().filter(|pid| **pid != old).count();
    assert_eq!((leased.len(), renewed), (2, 1), "who comes after it is in another: {leased:?}");
    assert_eq!(held.evaluate(&page, "6 * 7").await, 42);

    drop(held);
    let old = old.as_u64().expect("a number") as u32;
    until("it went with its last lease", async || !service.browsers().contains(&old)).await;
}

#[tokio::test]
async fn clients_choose_the_kind_of_lease_where_they_may() {
    let service = Service::start(
        "[pool]\nlease_choice = true\nmin_size = 0\nmax_size = 4\n[warming]\nmin_idle = 0\n",
    );
    let mut shared = Cdp::new(service.connect("/?lease=shared").await);
    let mut exclusive = Cdp::new(service.connect("/?lease=exclusive").await);
    for cdp in [&mut shared, &mut exclusive] {
        let page = cdp.page("about:blank").await;
        assert_eq!(cdp.evaluate(&page, "1 + 1").await, 2);
    }
    let sessions = service.get("/sessions").await.json();
    let kinds: Vec<_> = sessions.as_array().unwrap().iter().map(|it| it["kind"].clone()).collect();
    assert_eq!(kinds, [json!("shared"), json!("exclusive")]);
    assert_eq!(service.browser_pids().await.len(), 2);
}

#[tokio::test]
async fn the_urgent_go_first_and_the_others_in_the_order_they_came() {
    let service = Service::start("[pool]\nmin_size = 1\nmax_size = 1\n[warming]\nmin_idle = 0\n");
    let mut holder = service.connect("/").await;
    let served = std::sync::Mutex::new(Vec::new());
    let wait = async |name: usize, priority: u8| {
        let mut client = service.connect(&format!("/?priority={priority}")).await;
        served.lock().unwrap().push(name);
        client.close(None).await.expect("it was open");
        while let Some(Ok(_)) = client.next().await {}
    };
    let queued = async |count: u64| {
        while service.get("/api/state").await.json()["load"]["waiting"] != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // In one after the other, so that their order is known.
    let in_order = async |name: usize, priority: u8| {
        queued(name as u64).await;
        wait(name, priority).await;
    };
    let release = async {
        queued(6).await;
        holder.close(None).await.expect("it was open");
    };
    tokio::join!(
        in_order(0, 9),
        in_order(1, 9),
        in_order(2, 9),
        in_order(3, 9),
        in_order(4, 1),
        in_order(5, 9),
        release
    );
    assert_eq!(*served.lock().unwrap(), [4, 0, 1, 2, 3, 5]);
}

/// A proxy that requires credentials and says in each request that it was there.
struct Proxy {
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::serve(stream));
            }
        });
        Self { port, task }
    }

    async fn serve(mut client: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match client.read(&mut byte).await {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let credentials = base64::prelude::BASE64_STANDARD.encode("u:c4nary");
        if !head.contains(&format!("Basic {credentials}")) {
            let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\n\
                           proxy-authenticate: Basic realm=\"x\"\r\ncontent-length: 0\r\n\r\n";
            let _ = client.write_all(refusal.as_bytes()).await;
            return;
        }
        if head.starts_with("CONNECT") {
            let _ =
                client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
            return;
        }
        let Some(host) = head.split(' ').nth(1).and_then(|url| url.strip_prefix("http://")) else {
            return;
        };
        let (host, path) = host.split_once('/').unwrap_or((host, ""));
        let Ok(mut origin) = TcpStream::connect(host).await else { return };
        let request = format!(
            "GET /{path} HTTP/1.1\r\nhost: {host}\r\nvia: test-proxy\r\nconnection: close\r\n\r\n"
        );
        let _ = origin.write_all(request.as_bytes()).await;
        let _ = tokio::io::copy(&mut origin, &mut client).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
