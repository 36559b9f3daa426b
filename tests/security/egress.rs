//! S03, S11: where a page can lead its browser, with the guard on or behind a region's proxy.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use browser_pool_tests::{
    Case, Cdp, CdpError, Engine, Home, LeaseKind, NameServer, Page, Proxy, Setup, Site, Trap, case,
    case_in, eventually, for_both_kinds, sockets,
};
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use toml::{Table, Value};

const SOON: Duration = Duration::from_secs(20);

for_both_kinds!(
    s03_a_browser_never_reaches_the_pool,
    s11_private_addresses_in_every_spelling,
    s11_whatever_a_page_does_is_judged,
    s11_a_name_that_is_rebound,
    s11_a_region_cannot_be_left,
    s11_a_lease_is_narrowed_to_its_domains,
    s11_a_proxy_that_is_named_is_used_and_nothing_goes_round_it,
    s11_the_page_that_warms_a_browser_is_guarded,
    s11_tunnels_end_with_their_lease_and_their_rules,
);

/// Guarded, with what may be visited all the same.
fn guarded(kind: LeaseKind, private: &str, allow: &[String]) -> Setup {
    let allow: Vec<Value> = allow.iter().map(|pattern| pattern.as_str().into()).collect();
    Setup::new().kind(kind).set("egress.private", private).set("egress.allow", allow)
}

/// Goes to an address: the text of the page, or the error.
async fn visit(page: &Page<'_>, url: &str) -> Result<String, String> {
    let went = page.go(url).await.map_err(|error| format!("{error:?}"))?;
    match went["errorText"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(shown(page).await),
    }
}

/// The text of a page that has loaded, which an error page before it may have done first.
async fn shown(page: &Page<'_>) -> String {
    const TEXT: &str = "location.protocol === 'http:' && document.readyState === 'complete' \
                        ? document.documentElement.textContent : null";
    let text = async {
        loop {
            match page.try_eval(TEXT).await {
                Ok(Json::String(text)) => return text,
                // The error is that of a document that goes meanwhile.
                Ok(_) | Err(CdpError::Answer { .. }) => {}
                Err(error) => panic!("a page is shown: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), text).await.expect("a page is shown")
}

async fn s03_a_browser_never_reaches_the_pool(kind: LeaseKind) {
    let site = Trap::set([127, 0, 0, 1], 0).await;
    // Nothing is private here, so that nothing but the pool is refused.
    case(guarded(kind, "allow", &[]), async |case| {
        let port = case.service.address.rsplit(':').next().expect("it has a port").to_owned();
        let client = case.service.connect("/").await;
        let page = client.page(&site.at("/")).await;
        let witness = case.service.connect("/").await;
        for host in [
            "127.0.0.1", "localhost", "a.localhost", "0.0.0.0", "0", "127.1", "2130706433",
            "0x7f.1", "0177.0.0.1", "127.0.0.1.", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
        ] {
            let pool = format!("http://{host}:{port}");
            let shown = visit(&page, &format!("{pool}/livez")).await;
            let shown = shown.unwrap_or_else(|error| panic!("{host}: {error}"));
            assert!(shown.contains("may not reach the pool"), "{host}: {shown}");
            let led = site.at(&format!("/redirect?to={pool}/kill/all"));
            let shown = visit(&page, &led).await.unwrap_or_else(|error| panic!("{host}: {error}"));
            assert!(shown.contains("may not reach the pool"), "{host} by a redirect: {shown}");
            page.go(&site.at("/")).await.expect("the browser answers");
            let attempts = format!(
                "(async () => {{ const pool = '{pool}'; \
                 for (const path of ['/kill/all', '/api/flush', '/json/version']) {{ \
                   await fetch(pool + path, {{ mode: 'no-cors' }}).catch(() => 0); \
                   const image = new Image(); image.src = pool + path; \
                   const frame = document.createElement('iframe'); frame.src = pool + path; \
                   document.body.append(image, frame); }} \
                 const form = document.createElement('form'); form.method = 'post'; \
                 form.action = pool + '/api/flush'; form.target = 'frame'; \
                 const frame = document.createElement('iframe'); frame.name = 'frame'; \
                 document.body.append(frame, form); form.submit(); \
                 window.open(pool + '/kill/all'); \
                 return await new Promise(done => {{ \
                   const socket = new WebSocket('ws://{host}:{port}/'); \
                   socket.onopen = () => done('open'); socket.onerror = () => done('refused'); }}); \
                 }})()"
            );
            assert_eq!(page.eval(&attempts).await, "refused", "{host}");
        }
        let refused = case.service.metric("browserpool_egress_requests_total", "refused").await;
        // Of each name those that were waited for: a visit, a redirect, three fetches and a WebSocket. Others
        // may have been given up with their page.
        assert!(refused >= 12.0 * 6.0, "{refused}");
        assert_eq!(case.service.sessions().await.len(), 2, "a lease was taken or ended");
        assert!(witness.has_closed().is_none());
        let log = case.home.log();
        assert!(log.contains("egress refused") && log.contains("\"rule\":\"pool\""));
        witness.close().await;
        client.close().await;
    })
    .await;
}

async fn s11_private_addresses_in_every_spelling(kind: LeaseKind) {
    let (open, secret) = (Trap::set([127, 0, 0, 1], 0).await, Trap::set([127, 0, 0, 2], 0).await);
    case(guarded(kind, "deny", &[open.address.to_string()]), async |case| {
        let client = case.service.connect("/").await;
        let page = client.page(&open.at("/")).await;
        assert_eq!(page.eval("document.title").await, "caught", "what is allowed is reached");
        let port = secret.address.port();
        for host in [
            "127.0.0.2",
            "127.2",
            "2130706434",
            "0x7f000002",
            "0x7f.2",
            "0177.0.0.2",
            "[::ffff:127.0.0.2]",
            "[::ffff:7f00:2]",
            "[::7f00:2]",
            "[64:ff9b::7f00:2]",
            "[2002:7f00:2::]",
            "0.0.0.0",
            "[::1]",
            "localhost",
            "x.localhost",
        ] {
            let shown = visit(&page, &format!("http://{host}:{port}/")).await;
            let shown = shown.unwrap_or_else(|error| panic!("{host}: {error}"));
            assert!(shown.contains("only public addresses"), "{host}: {shown}");
            let tunnelled = visit(&page, &format!("https://{host}:{port}/")).await;
            assert_eq!(tunnelled.unwrap_err(), "net::ERR_TUNNEL_CONNECTION_FAILED", "{host}");
        }
        for url in [
            "http://169.254.169.254/latest/meta-data/",
            "http://metadata.google.internal/",
            "http://10.0.0.1/",
            "http://168.63.129.16/",
        ] {
            let shown = visit(&page, url).await.expect("it is answered");
            assert!(shown.contains("may not be visited") || shown.contains("only public"), "{url}");
        }
        assert_eq!((secret.connections(), secret.datagrams()), (0, 0), "{:?}", secret.paths());
        client.close().await;
    })
    .await;
}

/// Everything by which a page can ask another server for something, `TO`, from one at `OWN`.
const ATTEMPTS: &str = r#"(async () => {
    const tag = (name, attributes) => document.body.append(
        Object.assign(document.createElement(name), attributes));
    const late = new Promise(done => setTimeout(done, WAIT));
    const rules = (kind, path) => {
        const script = document.createElement('script');
        script.type = 'speculationrules';
        script.text = JSON.stringify({ [kind]: [{ urls: [TO + path], eagerness: 'immediate' }] });
        document.head.append(script);
    };
    for (const mode of ['no-cors', 'cors']) fetch(TO + '/fetch', { mode }).catch(() => 0);
    const xhr = new XMLHttpRequest(); xhr.open('POST', TO + '/xhr'); xhr.send('x');
    tag('img', { src: TO + '/image' });
    tag('script', { src: TO + '/script.js' });
    tag('link', { rel: 'stylesheet', href: TO + '/style.css' });
    tag('link', { rel: 'prefetch', href: TO + '/prefetch' });
    tag('link', { rel: 'preload', as: 'image', href: TO + '/preload' });
    tag('link', { rel: 'modulepreload', href: TO + '/modulepreload.js' });
    tag('link', { rel: 'preconnect', href: TO });
    tag('link', { rel: 'dns-prefetch', href: 'http://prefetched.dns.example' });
    tag('iframe', { src: TO + '/frame' });
    tag('iframe', { src: OWN + '/redirect?to=' + TO + '/redirected-frame' });
    tag('object', { data: TO + '/object' });
    tag('embed', { src: TO + '/embed' });
    tag('video', { src: TO + '/video', preload: 'auto' });
    document.body.style.background = 'url(' + TO + '/background)';
    new FontFace('far', 'url(' + TO + '/font)').load().catch(() => 0);
    import(TO + '/import.js').catch(() => 0);
    navigator.sendBeacon(TO + '/beacon', 'x');
    new EventSource(TO + '/events');
    new WebSocket(TO.replace('http', 'ws') + '/socket');
    fetch(OWN + '/redirect?to=' + TO + '/redirected', { mode: 'no-cors' }).catch(() => 0);
    fetch(TO.replace('http', 'https') + '/tls').catch(() => 0);
    const worker = OWN + '/any.worker';
    new Worker(worker + '?' + encodeURIComponent(TO + '/worker'));
    new SharedWorker(worker + '?' + encodeURIComponent(TO + '/shared-worker'));
    navigator.serviceWorker.register(worker + '?' + encodeURIComponent(TO + '/service-worker'),
        { scope: '/' }).catch(() => 0);
    rules('prefetch', '/speculated'); rules('prerender', '/prerendered');
    tag('iframe', { name: 'far' });
    const form = document.createElement('form');
    Object.assign(form, { action: TO + '/form', method: 'post', target: 'far' });
    document.body.append(form); form.submit();
    const ping = document.createElement('a');
    Object.assign(ping, { href: '#x', ping: TO + '/ping' });
    document.body.append(ping); ping.click();
    const download = document.createElement('a');
    tag('iframe', { name: 'beside' });
    Object.assign(download, { href: TO + '/file.bin', target: 'beside' });
    document.body.append(download); download.click();
    window.open(TO + '/popup');
    const host = TO.slice('http://'.length);
    try {
        const peer = new RTCPeerConnection({ iceServers: [{ urls: 'stun:' + host }, {
            urls: ['turn:' + host, 'turn:' + host + '?transport=tcp'],
            username: 'u', credential: 'p' }] });
        peer.createDataChannel('c');
        await peer.setLocalDescription(await peer.createOffer());
    } catch {}
    try { new WebTransport(TO.replace('http', 'https') + '/transport').ready.catch(() => 0); } catch {}
    await late;
    return true;
})()"#;

/// What of it is seen at a server that may be asked, whatever the engine.
const SEEN: [&str; 27] = [
    "/fetch",
    "/xhr",
    "/image",
    "/script.js",
    "/style.css",
    "/prefetch",
    "/preload",
    "/modulepreload.js",
    "/frame",
    "/redirected-frame",
    "/object",
    "/embed",
    "/background",
    "/font",
    "/import.js",
    "/beacon",
    "/events",
    "/socket",
    "/redirected",
    "tls",
    "/worker",
    "/shared-worker",
    "/service-worker",
    "/form",
    "/ping",
    "/file.bin",
    "/popup",
];

async fn attempt(page: &Page<'_>, own: &Trap, to: &Trap, wait: u32) {
    page.go(&own.at("/")).await.expect("the browser answers");
    let [own, to] = [own, to].map(|trap| format!("'http://{}'", trap.address));
    let script = ATTEMPTS.replace("OWN", &own).replace("TO", &to);
    page.eval(&script.replace("WAIT", &wait.to_string())).await;
}

/// Looks at the sockets of all Chromiums again and again, and remembers whom they were connected
/// to that is not the pool.
async fn look(case: &Case, stop: &AtomicBool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let (mut looks, mut seen) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let mut own = sockets::listening(case.service.process.pid);
        let chromium = case.oracle.ours.chromium();
        let peers = sockets::peers(chromium.iter().map(|process| process.id.pid));
        // One that was just given up is no listener any more: what is asked of it leads nowhere. One that is
        // new was none before.
        own.extend(sockets::listening(case.service.process.pid));
        let is_own = |table: &str, peer: &std::net::SocketAddr| {
            table == "tcp" && peer.ip().is_loopback() && own.contains(&peer.port())
        };
        let others = peers.iter().filter(|(table, peer)| !is_own(table, peer));
        seen += peers.iter().filter(|(table, peer)| is_own(table, peer)).count();
        found.extend(others.map(|(table, peer)| format!("{table} {peer}")));
        looks += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{looks} looks at /proc/net");
    assert!(seen > 0, "not even what goes through the pool was seen");
    found
}

async fn s11_whatever_a_page_does_is_judged(kind: LeaseKind) {
    for engine in [Engine::Shell, Engine::Chromium] {
        let [own, other, secret] = [
            Trap::set([127, 0, 0, 1], 0).await,
            Trap::set([127, 0, 0, 3], 0).await,
            Trap::set([127, 0, 0, 2], 0).await,
        ];
        let allow = [own.address.to_string(), other.address.to_string()];
        let home = Home::new();
        let names = NameServer::start(HashMap::new()).await;
        let setup = names.used_by(guarded(kind, "deny", &allow).engine(engine), &home);
        case_in(home, setup, async |case| {
            let client = case.service.connect("/").await;
            let page = client.page(&own.at("/")).await;
            let stop = Arc::new(AtomicBool::new(false));
            let doing = async {
                attempt(&page, &own, &secret, 3000).await;
                let led = own.at(&format!("/redirect?to={}", secret.at("/led")));
                let shown = visit(&page, &led).await.expect("it is answered");
                assert!(shown.contains("only public addresses"), "{engine}: {shown}");
                // The same in a context that the client makes.
                let made = client.call("Target.createBrowserContext", json!({})).await;
                let context = made.expect("a context")["browserContextId"].clone();
                let blank = json!({ "url": secret.at("/made"), "browserContextId": context });
                client.call("Target.createTarget", blank).await.expect("a page");
                attempt(&page, &own, &other, 6000).await;
                // Such as workers, which take a while to start.
                eventually(&format!("{engine}: all are let through"), SOON, async || {
                    let seen = other.paths();
                    let missing: Vec<_> =
                        SEEN.iter().filter(|path| !seen.contains(**path)).collect();
                    if missing.is_empty() {
                        Ok(())
                    } else {
                        Err(format!("no {missing:?} in {seen:?}"))
                    }
                })
                .await;
                stop.store(true, Ordering::Relaxed);
            };
            let ((), found) = tokio::join!(doing, look(case, &stop));
            let caught = (secret.connections(), secret.datagrams(), secret.paths());
            assert_eq!(caught, (0, 0, BTreeSet::new()), "{engine}: it was reached");
            assert_eq!(other.datagrams(), 0, "{engine}: a datagram goes through no proxy");
            assert!(found.is_empty(), "{engine}: went round the pool: {found:?}");
            assert!(names.asked().is_empty(), "{engine}: resolved: {:?}", names.asked());
            client.close().await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_without_a_guard_datagrams_do_go_out() {
    // Or the test above would prove nothing of WebRTC and QUIC.
    let (own, other) = (Trap::set([127, 0, 0, 1], 0).await, Trap::set([127, 0, 0, 3], 0).await);
    let loopback = vec![Value::from("--allow-loopback-in-peer-connection")];
    case(Setup::new().set("chrome.args", loopback), async |case| {
        let client = case.service.connect("/").await;
        let page = client.page(&own.at("/")).await;
        attempt(&page, &own, &other, 4000).await;
        eventually("a datagram is seen", SOON, async || {
            if other.datagrams() > 0 { Ok(()) } else { Err("none") }
        })
        .await;
        client.close().await;
    })
    .await;
}

async fn s11_a_name_that_is_rebound(kind: LeaseKind) {
    let open = Trap::set([127, 0, 0, 1], 0).await;
    let secret = Trap::set([127, 0, 0, 2], open.address.port()).await;
    let [public, private] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
    let names = NameServer::start(HashMap::from([
        ("turns.rebind.example", vec![vec![public], vec![private]]),
        ("both.rebind.example", vec![vec![public, private], vec![private, public]]),
        ("late.rebind.example", vec![vec![public], vec![public], vec![public], vec![private]]),
        ("pool.rebind.example", vec![vec![public]]),
    ]))
    .await;
    let home = Home::new();
    let setup = guarded(kind, "deny", &[open.address.to_string()]);
    let setup = names.used_by(setup, &home);
    case_in(home, setup, async |case| {
        let client = case.service.connect("/").await;
        let page = client.page(&open.at("/")).await;
        let port = open.address.port();
        let mut reached = 0;
        for round in 0..8 {
            for name in ["turns", "late"] {
                let url = format!("http://{name}.rebind.example:{port}/{round}");
                match visit(&page, &url).await {
                    Ok(shown) if shown.contains("only public addresses") => {}
                    Ok(shown) => {
                        assert_eq!(shown, "caught", "{name}");
                        reached += 1;
                    }
                    Err(error) => panic!("{name}: {error}"),
                }
            }
            let url = format!("http://both.rebind.example:{port}/{round}");
            let shown = visit(&page, &url).await.expect("it is answered");
            assert!(shown.contains("only public addresses"), "all its addresses: {shown}");
            // One connection that stays, whose name leads elsewhere meanwhile.
            let again = format!("fetch('http://turns.rebind.example:{port}/again').catch(() => 0)");
            page.eval(&again).await;
        }
        assert!(reached >= 4, "it was judged and not merely refused: {reached}");
        let pool = case.service.address.rsplit(':').next().expect("it has a port").to_owned();
        let shown = visit(&page, &format!("http://pool.rebind.example:{pool}/livez")).await;
        assert!(shown.expect("it is answered").contains("may not reach the pool"));
        assert_eq!(secret.connections(), 0, "{:?}", secret.paths());
        let asked = names.asked();
        let foreign: Vec<_> =
            asked.iter().filter(|name| !name.ends_with(".rebind.example")).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
        client.close().await;
    })
    .await;
}

async fn s11_a_region_cannot_be_left(kind: LeaseKind) {
    // `user:password` in base64.
    let proxy = Proxy::start("dXNlcjpwYXNzd29yZA==").await;
    let mut table = Table::new();
    table.insert("url".into(), proxy.url.clone().into());
    table.insert("username".into(), "user".into());
    table.insert("password".into(), "password".into());
    let setup = Setup::new()
        .kind(kind)
        .size(1)
        .set("pool.max_size", 3)
        .set("regions.eu.proxies", vec![Value::Table(table)]);
    let direct = Site::start().await;
    case(setup, async |case| {
        let client = case.service.connect("/?region=eu").await;
        let ways = [
            json!({ "proxyServer": "direct://" }),
            json!({ "proxyServer": "" }),
            json!({ "proxyServer": direct.url }),
            json!({ "proxyServer": "http=127.0.0.1:1;https=direct://" }),
            json!({ "proxyBypassList": "*" }),
            json!({ "proxyServer": proxy.url, "proxyBypassList": "*" }),
            json!({ "proxyServer": proxy.url, "proxyBypassList": "127.0.0.1" }),
        ];
        for way in ways {
            let made = client.call("Target.createBrowserContext", way.clone()).await;
            assert!(matches!(made, Err(CdpError::Answer { .. })), "{way}: {made:?}");
        }
        let made = client.call("Target.createBrowserContext", json!({})).await;
        let context = made.expect("a context of its own")["browserContextId"].clone();
        let params = json!({ "url": case.site.at("/title/made"), "browserContextId": context });
        client.call("Target.createTarget", params).await.expect("a page");
        client.page(&case.site.at("/title/default")).await;
        let both = async || match case
            .site
            .seen()
            .iter()
            .filter(|seen| seen.path.starts_with("/title"))
            .count()
        {
            2.. => Ok(()),
            fewer => Err(fewer),
        };
        eventually("both pages are asked for", SOON, both).await;
        for seen in case.site.seen() {
            assert!(seen.headers.contains_key(Proxy::MARK), "it went round: {seen:?}");
        }
        assert!(direct.seen().is_empty());
        // The proxy is on this machine, and yet no way to the pool.
        let page = client.page("about:blank").await;
        let shown = visit(&page, &format!("http://{}/livez", case.service.address)).await;
        assert!(shown.expect("it is answered").contains("may not reach the pool"));
        client.close().await;
    })
    .await;
}

async fn s11_a_lease_is_narrowed_to_its_domains(kind: LeaseKind) {
    let (open, secret) = (Trap::set([127, 0, 0, 1], 0).await, Trap::set([127, 0, 0, 2], 0).await);
    let allow = ["localhost".to_owned(), open.address.to_string()];
    let port = open.address.port();
    let as_name = format!("http://localhost:{port}/");
    case(guarded(kind, "deny", &allow), async |case| {
        let client = case.service.connect("/?allow_domains=localhost,127.0.0.2").await;
        let page = client.page("about:blank").await;
        assert_eq!(visit(&page, &as_name).await.as_deref(), Ok("caught"));
        let shown = visit(&page, &open.at("/")).await.expect("it is answered");
        assert!(shown.contains("allow_domains"), "narrower than the rules: {shown}");
        let shown = visit(&page, &secret.at("/")).await.expect("it is answered");
        assert!(shown.contains("only public addresses"), "and no wider: {shown}");
        client.close().await;
        // The next lease of the same browser is not.
        let next = case.service.connect("/").await;
        let page = next.page("about:blank").await;
        assert_eq!(visit(&page, &open.at("/")).await.as_deref(), Ok("caught"));
        next.close().await;
        let refused = case.service.try_connect("/?allow_domains=https://x").await;
        assert_eq!(refused.expect_err("it is no domain").status, 400);
        assert_eq!(secret.connections(), 0);
    })
    .await;
    case(Setup::new().kind(kind), async |case| {
        let refused = case.service.try_connect("/?allow_domains=localhost").await;
        let refused = refused.expect_err("nothing would keep it");
        assert_eq!(refused.status, 400);
        assert!(refused.detail().contains("[egress]"), "{}", refused.detail());
    })
    .await;
}

/// Goes to an address in a context of its own with this proxy: the text of the page.
async fn visit_by(client: &Cdp, proxy: &Json, url: &str) -> Result<String, CdpError> {
    let context = client.call("Target.createBrowserContext", proxy.clone()).await?;
    let context = &context["browserContextId"];
    let params = json!({ "url": "about:blank", "browserContextId": context });
    let made = client.call("Target.createTarget", params).await?;
    let target = made["targetId"].as_str().expect("it is told").to_owned();
    let page = Page::attach(client, target).await?;
    let text = visit(&page, url).await.expect("the proxy answers");
    client.call("Target.disposeBrowserContext", json!({ "browserContextId": context })).await?;
    Ok(text)
}

async fn s11_a_proxy_that_is_named_is_used_and_nothing_goes_round_it(kind: LeaseKind) {
    // Each answers whatever it is asked for, as the proxy does in place of the site.
    let proxy = Trap::set([127, 0, 0, 1], 0).await;
    let (site, other) = (Trap::set([127, 0, 0, 2], 0).await, Trap::set([127, 0, 0, 1], 0).await);
    let named = vec![Value::from(proxy.address.to_string())];
    let setup = guarded(kind, "deny", &[]).set("egress.client_proxies", named);
    case(setup, async |case| {
        let client = case.service.connect("/").await;
        let server = |trap: &Trap| format!("http://{}", trap.address);
        // The site is on loopback, which Chromium would ask directly by itself.
        for by in [
            json!({ "proxyServer": server(&proxy) }),
            json!({ "proxyServer": proxy.address.to_string(), "proxyBypassList": "<-loopback>" }),
        ] {
            let before = proxy.connections();
            let shown = visit_by(&client, &by, &site.at("/")).await;
            assert_eq!(shown.expect("it may be named"), "caught", "{by}");
            assert!(proxy.connections() > before, "{by}: the proxy was not asked");
        }
        for round in [
            json!({ "proxyServer": server(&other) }),
            json!({ "proxyServer": "direct://" }),
            json!({ "proxyServer": "" }),
            json!({ "proxyServer": format!("{};{}", server(&proxy), server(&other)) }),
            json!({ "proxyServer": format!("{},direct://", server(&proxy)) }),
            json!({ "proxyServer": format!("http={};https=direct://", proxy.address) }),
            json!({ "proxyServer": server(&proxy), "proxyBypassList": "*" }),
            json!({ "proxyServer": server(&proxy), "proxyBypassList": "127.0.0.2" }),
            json!({ "proxyBypassList": "*" }),
        ] {
            let refused = visit_by(&client, &round, &site.at("/")).await;
            let refused = refused.expect_err("it leads round the guard");
            assert!(format!("{refused:?}").contains("client_proxies"), "{round}: {refused:?}");
        }
        // Without a proxy of its own a context is guarded as before.
        let shown = visit_by(&client, &json!({}), &site.at("/")).await.expect("it is answered");
        assert!(shown.contains("only public addresses"), "{shown}");
        assert_eq!((site.connections(), other.connections()), (0, 0), "{:?}", site.paths());
        client.close().await;
    })
    .await;
}

async fn s11_the_page_that_warms_a_browser_is_guarded(kind: LeaseKind) {
    let site = Trap::set([127, 0, 0, 2], 0).await;
    let setup = |allow: &[String]| {
        guarded(kind, "deny", allow).set("warming.url", site.at("/warm").as_str())
    };
    case(setup(&[]), async |case| {
        case.service.connect("/").await.close().await;
        assert_eq!(site.connections(), 0, "{:?}", site.paths());
    })
    .await;
    // It is visited where that is allowed.
    case(setup(&[site.address.to_string()]), async |case| {
        case.service.connect("/").await.close().await;
        assert!(site.paths().contains("/warm"), "{:?}", site.paths());
    })
    .await;
}

async fn s11_tunnels_end_with_their_lease_and_their_rules(kind: LeaseKind) {
    let open = Trap::set([127, 0, 0, 1], 0).await;
    let setup = guarded(kind, "deny", &[open.address.to_string()]);
    let denied = setup.clone().set("egress.deny", vec![Value::from("127.0.0.0/8")]);
    let denied = denied.set("egress.allow", Vec::<Value>::new());
    case(setup, async |case| {
        let streams = format!(
            "new Promise(done => {{ const events = new EventSource('{}'); \
             events.onmessage = () => done('here') }})",
            open.at("/stays")
        );
        let none = async || if open.open() == 0 { Ok(()) } else { Err(open.open()) };
        let client = case.service.connect("/").await;
        let page = client.page(&open.at("/")).await;
        assert_eq!(page.eval(&streams).await, "here");
        assert_eq!(open.open(), 1);
        client.close().await;
        let took = eventually("the end of the lease is the end of its tunnels", SOON, none).await;
        println!("cut {took:?} after the end of the lease");

        let client = case.service.connect("/").await;
        let page = client.page(&open.at("/")).await;
        assert_eq!(page.eval(&streams).await, "here");
        let state_dir = case.home.state_dir().to_string_lossy().into_owned();
        let changed = denied.clone().set("pool.state_dir", state_dir);
        std::fs::write(case.home.config(), changed.toml()).expect("the home is ours");
        case.service.signal(Signal::HUP);
        let took = eventually("new rules cut what went by the old ones", SOON, none).await;
        println!("cut {took:?} after the change");
        let shown = visit(&page, &open.at("/")).await.expect("it is answered");
        assert!(shown.contains("(deny)"), "{shown}");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_profile_is_guarded_in_its_real_context() {
    let (open, secret) = (Trap::set([127, 0, 0, 1], 0).await, Trap::set([127, 0, 0, 2], 0).await);
    let allow = [open.address.to_string()];
    let setup = guarded(LeaseKind::Exclusive, "deny", &allow)
        .size(1)
        .set("pool.max_size", 3)
        .set("profiles.work.max_size", 1)
        .engine(Engine::Chromium);
    case(setup, async |case| {
        for _ in 0..2 {
            let client = case.service.connect("/?profile=work").await;
            let page = client.page(&open.at("/")).await;
            assert_eq!(page.eval("document.title").await, "caught");
            let shown = visit(&page, &secret.at("/")).await.expect("it is answered");
            assert!(shown.contains("only public addresses"), "{shown}");
            // These look for other machines by themselves.
            for inner in ["chrome://inspect", "chrome://net-internals", "chrome://settings"] {
                let went = page.go(inner).await.expect("it is answered");
                assert!(went["errorText"].is_string(), "{inner}: {went}");
            }
            let way = json!({ "proxyServer": "direct://" });
            assert!(client.call("Target.createBrowserContext", way).await.is_err());
            let made = client.call("Target.createBrowserContext", json!({})).await;
            let context = made.expect("a context of its own")["browserContextId"].clone();
            let params = json!({ "url": secret.at("/made"), "browserContextId": context });
            client.call("Target.createTarget", params).await.expect("a page");
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(secret.connections(), 0, "{:?}", secret.paths());
            client.close().await;
        }
    })
    .await;
}
