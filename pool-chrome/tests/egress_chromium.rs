//! Both engines behind a forwarder: everything through the proxy, or not at all.

mod egress_support;
mod process_support;

use std::fs;
use std::time::Duration;

use egress_support::{HttpProxy, Manner, NOBODY, PASSWORD, SOON, Site, SocksProxy};
use pool_chrome::egress::{Forwarder, Upstream};
use pool_chrome::process::{Chromium, Engine, LaunchOptions, Pipe};
use process_support::{ENGINES, State, ask, evaluate, navigate, open_page};
use serde_json::{Value, json};
use tokio::net::UdpSocket;

/// WebRTC leaves loopback out unless it is told to take it.
fn with_loopback(engine: Engine) -> LaunchOptions {
    LaunchOptions::new().engine(engine).args(["--allow-loopback-in-peer-connection"])
}

struct Proxied {
    state: State,
    forwarder: Forwarder,
    chromium: Chromium,
    pipe: Pipe,
    page: String,
}

impl Proxied {
    async fn start(engine: Engine, proxy: &str) -> Self {
        let upstream = Upstream::parse(proxy).unwrap();
        let upstream = upstream.credentials("user".to_owned(), PASSWORD.to_owned());
        let forwarder = Forwarder::start(upstream).await.unwrap();
        let state = State::new();
        let options = with_loopback(engine).proxy_server(forwarder.proxy_server());
        let (chromium, mut pipe) = state.ready(options).await;
        let page = open_page(&mut pipe).await;
        Self { state, forwarder, chromium, pipe, page }
    }

    async fn go(&mut self, url: &str) -> String {
        navigate(&mut self.pipe, &self.page, url).await
    }

    async fn evaluate(&mut self, script: &str) -> Value {
        evaluate(&mut self.pipe, &self.page, script).await
    }
}

/// The title, once the page has one.
const TITLE: &str = "new Promise(resolve => document.readyState == 'complete'
    ? resolve(document.title) : addEventListener('load', () => resolve(document.title)))";

#[tokio::test]
async fn pages_and_web_sockets_go_through_the_proxy_loopback_too() {
    for engine in ENGINES {
        let site = Site::start().await;
        let (http, socks) = (HttpProxy::start(Manner::Good).await, SocksProxy::start().await);
        for proxy in [http.url(), socks.url()] {
            let mut browser = Proxied::start(engine, &proxy).await;
            assert_eq!(browser.go(&site.url("/a")).await, "", "{proxy}");
            assert_eq!(browser.evaluate(TITLE).await, "/a", "{proxy}");
            let script = format!(
                "new Promise((resolve, reject) => {{
                    const socket = new WebSocket('ws://{}/socket');
                    socket.onopen = () => socket.send('hello');
                    socket.onmessage = event => resolve(event.data);
                    socket.onerror = () => reject('no');
                }})",
                site.address
            );
            assert_eq!(browser.evaluate(&script).await, "hello", "{proxy}");
            assert!(browser.forwarder.traffic().received > 0);
        }
        let asked = http.requests();
        let methods: Vec<&str> = asked.iter().map(|head| head.word(0)).collect();
        assert!(methods.contains(&"GET") && methods.contains(&"CONNECT"), "{methods:?}");
        let mut targets = socks.targets();
        targets.retain(|target| *target != site.address.to_string());
        assert_eq!(targets, [""; 0], "{engine:?} asked somebody else");
    }
}

#[tokio::test]
async fn the_password_is_in_no_argument_and_no_environment() {
    for engine in ENGINES {
        let (site, proxy) = (Site::start().await, HttpProxy::start(Manner::Good).await);
        let mut browser = Proxied::start(engine, &proxy.url()).await;
        assert_eq!(browser.go(&site.url("/a")).await, "");
        for pid in browser.state.processes() {
            for file in ["cmdline", "environ"] {
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                assert!(!String::from_utf8_lossy(&text).contains(PASSWORD), "{pid} {file}");
            }
        }
        assert!(!browser.chromium.stderr().contains(PASSWORD));
    }
}

#[tokio::test]
async fn a_dead_proxy_fails_the_page_and_nothing_reaches_the_site() {
    let denies = HttpProxy::start(Manner::Denies).await;
    for engine in ENGINES {
        for proxy in [format!("http://{NOBODY}"), format!("socks5://{NOBODY}"), denies.url()] {
            let site = Site::start().await;
            let mut browser = Proxied::start(engine, &proxy).await;
            let plain = browser.go(&site.url("/a")).await;
            assert_eq!(plain, "net::ERR_EMPTY_RESPONSE", "{proxy}");
            let tunnelled = browser.go(&format!("https://{}/a", site.address)).await;
            assert_eq!(tunnelled, "net::ERR_TUNNEL_CONNECTION_FAILED", "{proxy}");
            assert!(site.requests().is_empty());
            assert!(browser.forwarder.last_error().unwrap().blames_proxy());
        }
    }
}

#[tokio::test]
async fn a_dead_forwarder_is_an_error_and_no_direct_connection() {
    for engine in ENGINES {
        let (site, proxy) = (Site::start().await, HttpProxy::start(Manner::Good).await);
        let upstream = Upstream::parse(&proxy.url()).unwrap();
        let forwarder = Forwarder::start(upstream).await.unwrap();
        let state = State::new();
        let options = LaunchOptions::new().engine(engine).proxy_server(forwarder.proxy_server());
        drop(forwarder);
        let (_chromium, mut pipe) = state.ready(options).await;
        let page = open_page(&mut pipe).await;
        let error = navigate(&mut pipe, &page, &site.url("/a")).await;
        assert_eq!(error, "net::ERR_PROXY_CONNECTION_FAILED");
        assert!(site.requests().is_empty());
    }
}

/// Asks a STUN server at this port from a page, and waits until no more is to come.
fn stun(port: u16) -> String {
    format!(
        "(async () => {{
            const peer = new RTCPeerConnection({{iceServers: [{{urls: 'stun:127.0.0.1:{port}'}}]}});
            peer.createDataChannel('c');
            await peer.setLocalDescription(await peer.createOffer());
            await new Promise(resolve => setTimeout(resolve, 1500));
            return peer.localDescription.sdp;
        }})()"
    )
}

async fn heard(socket: &UdpSocket) -> bool {
    tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut [0; 2048])).await.is_ok()
}

#[tokio::test]
async fn web_rtc_does_not_go_around_the_proxy() {
    for engine in ENGINES {
        let site = Site::start().await;
        let stun_server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let script = stun(stun_server.local_addr().unwrap().port());

        let state = State::new();
        let (chromium, mut pipe) = state.ready(with_loopback(engine)).await;
        let page = open_page(&mut pipe).await;
        assert_eq!(navigate(&mut pipe, &page, &site.url("/")).await, "");
        evaluate(&mut pipe, &page, &script).await;
        assert!(
            heard(&stun_server).await,
            "{engine:?}: without a proxy it does, or this proves nothing"
        );
        chromium.close(SOON).await;
        while heard(&stun_server).await {}

        let proxy = HttpProxy::start(Manner::Good).await;
        let mut browser = Proxied::start(engine, &proxy.url()).await;
        assert_eq!(browser.go(&site.url("/")).await, "");
        let offer = browser.evaluate(&script).await;
        assert!(offer.as_str().unwrap().contains("webrtc-datachannel"), "{offer}");
        assert!(!heard(&stun_server).await, "{engine:?}: {offer}");
        // Nor does it tell the page an address of this machine.
        assert!(!offer.as_str().unwrap().contains("a=candidate"), "{engine:?}: {offer}");
        ask(&mut browser.pipe, "Browser.close", json!({})).await;
    }
}
