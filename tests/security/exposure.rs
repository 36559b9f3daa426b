//! S01, S02, S22, S23: who may ask, and where.

use std::collections::HashSet;
use std::fs;

use browser_pool_tests::process::Process;
use browser_pool_tests::{
    Cdp, Engine, Home, LeaseKind, Setup, case, for_both_kinds, refused, request,
};

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
            ("GET", "/nothing"),
        ];
        let wrong = [
            None,
            Some("Bearer "),
            Some("Bearer canary-Zk9-toke"),
            Some("Bearer canary-Zk9-tokenn"),
            Some("Basic canary-Zk9-token"),
        ];
        for (method, path) in paths {
            for credentials in wrong {
                let headers: Vec<_> =
                    credentials.map(|value| ("authorization", value)).into_iter().collect();
                let answer = request(&service.address, method, path, &headers, "{}").await;
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
