//! S01, S02, S22, S23: who may ask, and where.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use browser_pool_tests::process::Process;
use browser_pool_tests::{
    Case, Cdp, Engine, Home, LeaseKind, Setup, case, exchange, for_both_kinds, refused, request,
    request_from,
};
use futures_util::future::join_all;

const TOKEN: &str = "canary-Zk9-token";

#[tokio::test(flavor = "multi_thread")]
async fn s01_a_bind_beyond_loopback_wants_a_token() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let (exit, log) = refused(Home::new(), &Setup::new().set("gateway.listen", listen)).await;
        assert_eq!(exit.code, Some(78), "{listen}: {log}");
        assert!(log.contains("token"), "{listen}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s01_every_route_wants_the_token() {
    case(Setup::new().set("gateway.token", TOKEN).tokened(TOKEN), async |case| {
        let service = &case.service;
        let paths = [
            ("GET", "/json/version"),
            ("GET", "/json/version/"),
            ("GET", "/x/json/version?a=b"),
            ("GET", "/pressure"),
            ("GET", "/sessions"),
            ("GET", "/metrics"),
            ("GET", "/api/state"),
            ("GET", "/api/history"),
            ("GET", "/api/stream"),
            ("GET", "/api/browsers/1/page"),
            ("GET", "/api/browsers/1/screenshot"),
            ("GET", "/kill/all"),
            ("DELETE", "/kill/all"),
            ("POST", "/browser_pools/default/acquire"),
            ("POST", "/browser_pools/default/release"),
            ("POST", "/browser_pools/default/flush"),
            ("POST", "/api/resize"),
            ("POST", "/api/flush"),
            ("POST", "/api/drain"),
            ("POST", "/api/reload"),
            ("POST", "/api/browsers/1/retire"),
            ("GET", "/devtools/browser/0123456789abcdef0123456789abcdef"),
            ("GET", "/devtools/browser/0123456789abcdef0123456789abcdef/json/list"),
            ("PUT", "/devtools/browser/0123456789abcdef0123456789abcdef/json/new"),
            ("GET", "/devtools/page/0123456789ABCDEF0123456789ABCDEF"),
            ("GET", "/devtools/page/new"),
            ("GET", "/json/list"),
            ("PUT", "/json/new"),
            ("PUT", "/json/close/0123456789ABCDEF0123456789ABCDEF"),
            ("GET", "/browser_pools"),
            ("PATCH", "/browser_pools/default"),
            ("GET", "/browsers"),
            ("DELETE", "/browsers/0123456789abcdef0123456789abcdef"),
            ("GET", "/profiles"),
            ("GET", "/openapi.json"),
            ("POST", "/content"),
            ("GET", "/chromium/pdf"),
            ("POST", "/screenshot"),
            ("POST", "/scrape"),
            ("GET", "/nothing"),
        ];
        let wrong = [
            None,
            Some("Bearer "),
            Some("Bearer canary-Zk9-toke"),
            Some("Bearer canary-Zk9-tokenn"),
            Some("Basic canary-Zk9-token"),
        ];
        let mut peers = (1_u8..).map(|number| [127, 9, 9, number]);
        for (method, path) in paths {
            for credentials in wrong {
                let headers: Vec<_> =
                    credentials.map(|value| ("authorization", value)).into_iter().collect();
                // Each guess by somebody else, as those of one peer are slowed down.
                let peer = peers.next().expect("there are fewer");
                let address = &service.address;
                let answer = request_from(peer, address, method, path, &headers).await;
                let answer = answer.expect("an answer");
                assert_eq!(answer.status, 401, "{method} {path} with {credentials:?}: {answer:?}");
            }
        }
        for path in ["/", "/chromium", "/?token=wrong", "/chromium?token="] {
            let refused = Cdp::open(&service.address, path, &[]).await.expect_err("no token");
            assert_eq!(refused.status, 401, "{path}: {refused:?}");
        }
        for path in ["/livez", "/readyz", "/healthz"] {
            let answer = request(&service.address, "GET", path, &[], "").await.expect("an answer");
            assert_eq!(answer.status, 200, "{path}");
        }
        let bearer = [("authorization", "Bearer canary-Zk9-token")];
        let by_header = Cdp::open(&service.address, "/", &bearer).await.expect("the right token");
        let by_query = Cdp::open(&service.address, "/?token=canary-Zk9-token", &[]).await;
        by_query.expect("the right token").close().await;
        by_header.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s22_guesses_are_slowed_down_and_the_right_token_is_not() {
    case(Setup::new().set("gateway.token", TOKEN).tokened(TOKEN), async |case| {
        let address = case.service.address.clone();
        let guess = async || {
            let began = Instant::now();
            let wrong = [("authorization", "Bearer canary-Zk9-guess")];
            let answer = request(&address, "GET", "/sessions", &wrong, "").await;
            (answer.expect("an answer").status, began.elapsed())
        };
        for _ in 0..4 {
            assert_eq!(guess().await.0, 401);
        }
        // Each takes twice as long as the one before, until one more takes as long as any may: 5 s.
        // No place is free again before that, and so the flood finds exactly sixteen.
        let slower = join_all((0..7).map(|_| guess())).await;
        assert!(slower.iter().all(|(status, _)| *status == 401), "{slower:?}");
        let flood = join_all((0..60).map(|_| guess()));
        let right = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let began = Instant::now();
            assert_eq!(case.service.get("/sessions").await.status, 200);
            let client = case.service.connect("/").await;
            client.close().await;
            began.elapsed()
        };
        let (flood, right) = tokio::join!(flood, right);
        // It takes as long as a connection does, and never the five seconds of a guess.
        assert!(right < Duration::from_secs(4), "the right token took {right:?}");
        let waited = flood.iter().filter(|(status, _)| *status == 401).count();
        assert_eq!(waited, 16, "{flood:?}");
        assert!(flood.iter().all(|(status, _)| [401, 429].contains(status)), "{flood:?}");
        let longest = flood.iter().map(|(_, took)| *took).max().unwrap_or_default();
        assert!(longest >= Duration::from_secs(4), "{flood:?}");
        let refused = Cdp::open(&address, "/?token=wrong", &[]).await.expect_err("it is wrong");
        assert_eq!(refused.status, 401, "{refused:?}");
    })
    .await;
}

/// A request that comes in the same write as an upgrade that is refused.
const BEHIND: &str = "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn s30_a_refused_upgrade_is_the_end_of_its_connection() {
    const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
                             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let refuse = async |case: &Case, status: u16, path: &str, headers: &str| {
        let host = if headers.contains("Host:") { "" } else { "Host: 127.0.0.1\r\n" };
        let sent = format!("GET {path} HTTP/1.1\r\n{host}{headers}\r\n{BEHIND}");
        let answer = exchange(&case.service.address, sent.as_bytes()).await;
        let answer = answer.unwrap_or_else(|error| panic!("{path} {headers}: {error}"));
        let begin = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&begin), "{path} {headers}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{path} {headers}: {answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{path} {headers}: {answer}");
        assert!(answer.contains("\"detail\":"), "{path} {headers}: {answer}");
    };
    case(Setup::new(), async |case| {
        let unknown = format!("/devtools/browser/{}", "0".repeat(32));
        let over = {
            let client = case.service.connect("/").await;
            let path = format!("/devtools/browser/{}", client.lease.clone().expect("it is told"));
            client.close().await;
            path
        };
        for (status, path, headers) in [
            (403, "/", format!("{HANDSHAKE}Origin: https://evil.example\r\n")),
            (403, "/", format!("{HANDSHAKE}Host: evil.example\r\n")),
            (400, "/?prioritty=1", HANDSHAKE.to_owned()),
            (404, "/?profile=nobody", HANDSHAKE.to_owned()),
            (404, "/nothing", HANDSHAKE.to_owned()),
            (404, &unknown, HANDSHAKE.to_owned()),
            (410, &over, HANDSHAKE.to_owned()),
            (400, "/", HANDSHAKE.replace("13", "12")),
            (400, "/", HANDSHAKE.replace("Connection: Upgrade\r\n", "")),
            (426, "/", "Upgrade: h2c\r\n".to_owned()),
        ] {
            refuse(case, status, path, &headers).await;
        }
        let held = [case.service.connect("/").await, case.service.connect("/").await];
        refuse(case, 408, "/?nowait", HANDSHAKE).await;
        for client in held {
            client.close().await;
        }
    })
    .await;
    case(Setup::new().set("gateway.token", TOKEN).tokened(TOKEN), async |case| {
        refuse(case, 401, "/", HANDSHAKE).await;
        refuse(case, 401, "/?token=wrong", HANDSHAKE).await;
        refuse(case, 401, "/devtools/browser/0", HANDSHAKE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s30_what_a_proxy_could_read_otherwise_is_refused() {
    case(Setup::new(), async |case| {
        let long = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: {}\r\n\r\n", "a".repeat(70_000));
        for (status, sent) in [
            (400, "GET /livez HTTP/1.1\nHost: 127.0.0.1\n\n"),
            (400, "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\nA: b\r\n\r\n"),
            (400, "GET /livez HTTP/1.1\r\n\r\n"),
            (400, "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: localhost\r\n\r\n"),
            (400, "GET http://evil.example/livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
            (400, "GET /live z HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
            (400, "POST /api/flush HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            (400, "POST /api/flush HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"),
            (400, "POST /api/flush HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 18446744073709551615\r\n\r\n{}"),
            (400, "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03"),
            (431, &long),
        ] {
            let sent = format!("{sent}{BEHIND}");
            let answer = exchange(&case.service.address, sent.as_bytes()).await;
            let answer = answer.unwrap_or_else(|error| panic!("{sent:.90}: {error}"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{sent:.90}: {answer}");
            assert!(!answer.contains("HTTP/1.1 200 "), "{sent:.90}: {answer}");
            assert!(answer.contains("\"detail\":"), "{sent:.90}: {answer}");
        }
        // A body of unknown length is taken, and is the last.
        let chunked = "POST /api/flush HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
                       Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        let answer = exchange(&case.service.address, format!("{chunked}{BEHIND}").as_bytes()).await;
        let answer = answer.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s30_absurd_numbers_are_refused_with_a_sentence() {
    case(Setup::new(), async |case| {
        let sizes = [
            "0",
            "-1",
            "1001",
            "1e7",
            "2147483648",
            "9007199254740993",
            "18446744073709551615",
            "1e400",
            "\"NaN\"",
            "null",
        ];
        let numbers =
            ["-1", "1e7", "2147483648", "18446744073709551615", "1e308", "1e400", "\"NaN\""];
        let mut bodies = Vec::new();
        for number in sizes {
            bodies.push(("/api/resize", format!("{{\"max_size\":{number}}}")));
            bodies
                .push(("/api/resize", format!("{{\"min_size\":{number},\"max_size\":{number}}}")));
        }
        for number in numbers {
            for name in ["acquire_timeout_seconds", "timeout_seconds", "priority"] {
                bodies.push(("/browser_pools/default/acquire", format!("{{\"{name}\":{number}}}")));
            }
        }
        bodies.push(("/api/resize", "[".repeat(60_000)));
        let before = case.service.state().await["load"].clone();
        let json = [("content-type", "application/json")];
        for (path, body) in &bodies {
            let answer = request(&case.service.address, "POST", path, &json, body).await;
            let answer = answer.unwrap_or_else(|error| panic!("{body:.90}: {error}"));
            if body.contains(":null") {
                assert_eq!(answer.status, 200, "{path} {body:.90}: {answer:?}");
            } else {
                assert_eq!(answer.status, 400, "{path} {body:.90}: {answer:?}");
                assert!(answer.json()["detail"].is_string(), "{path} {body:.90}: {answer:?}");
            }
        }
        for number in [
            "-1",
            "0",
            "1e7",
            "9007199254740993",
            "18446744073709551615",
            "99999999999999999999",
            "NaN",
        ] {
            for name in ["timeout", "acquire_timeout", "priority"] {
                if (name, number) == ("acquire_timeout", "0") {
                    continue;
                }
                let refused = case.service.try_connect(&format!("/?{name}={number}")).await;
                let refused = refused.expect_err("it is absurd");
                assert_eq!(refused.status, 400, "{name}={number}: {refused:?}");
                assert!(refused.detail().contains(name), "{name}={number}: {refused:?}");
            }
            let path = format!("/api/browsers/{number}/page");
            assert_eq!(case.service.get(&path).await.status, 404, "{path}");
        }
        let after = case.service.state().await["load"].clone();
        for name in ["min_size", "max_size", "leased"] {
            assert_eq!(before[name], after[name], "{name}");
        }
    })
    .await;
}

for_both_kinds!(s02_take_over_by_the_debug_port, s23_lease_ids);

async fn s02_take_over_by_the_debug_port(kind: LeaseKind) {
    for engine in [Engine::Shell, Engine::Chromium] {
        case(Setup::new().kind(kind).engine(engine), async |case| {
            let client = case.service.connect("/").await;
            client.page(&case.site.at("/workers.html")).await;
            let chromium = case.oracle.ours.chromium();
            assert!(!chromium.is_empty());
            let listening = listening_sockets();
            for process in chromium {
                let sockets = sockets(&process);
                let open: Vec<_> = sockets.intersection(&listening).collect();
                assert!(open.is_empty(), "{engine}: {process:?} listens on {open:?}");
                let arguments = process.arguments().join(" ");
                assert!(!arguments.contains("remote-debugging-port"), "{engine}: {arguments}");
            }
            client.close().await;
        })
        .await;
    }
}

/// The inodes of all TCP sockets that listen, and of all UDP sockets that are bound beyond
/// loopback or not connected.
fn listening_sockets() -> HashSet<String> {
    let mut inodes = HashSet::new();
    for table in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // 0A is LISTEN.
            if fields.get(3) == Some(&"0A") {
                inodes.extend(fields.get(9).map(|inode| (*inode).to_owned()));
            }
        }
    }
    inodes
}

fn sockets(process: &Process) -> HashSet<String> {
    let open = fs::read_dir(format!("/proc/{}/fd", process.id.pid)).into_iter().flatten().flatten();
    open.filter_map(|entry| {
        let link = fs::read_link(entry.path()).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        Some(inode)
    })
    .collect()
}

async fn s23_lease_ids(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let mut seen = HashSet::new();
        for _ in 0..20 {
            let client = case.service.connect("/").await;
            let id = client.lease.clone().expect("the pool tells the lease");
            let path = format!("/devtools/browser/{id}");
            let again = case.service.connect(&path).await;
            assert_eq!(again.lease.as_deref(), Some(&*id), "the same lease");
            again.close().await;
            client.close().await;

            let hex = id.bytes().filter(u8::is_ascii_hexdigit).count();
            assert!(hex >= 32, "{id} has less than 128 bits");
            assert!(seen.insert(id), "an id was given twice");
            let over = case.service.try_connect(&path).await.expect_err("it is over");
            assert_eq!(over.status, 410, "{over:?}");
        }
        let unknown = format!("/devtools/browser/{}", "0".repeat(32));
        let unknown = case.service.try_connect(&unknown).await.expect_err("there is none");
        assert_eq!(unknown.status, 404, "{unknown:?}");
        // No two are near each other: about half of all bits differ.
        let ids: Vec<u128> = seen
            .iter()
            .filter_map(|id| u128::from_str_radix(&id.replace('-', ""), 16).ok())
            .collect();
        for pair in ids.windows(2) {
            let differ = (pair[0] ^ pair[1]).count_ones();
            assert!((20..=108).contains(&differ), "{differ} bits differ: {pair:x?}");
        }
    })
    .await;
}
