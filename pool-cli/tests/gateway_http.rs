//! The routes that are no WebSocket, and who may use them.

mod gateway_support;

use std::time::Duration;

use futures_util::StreamExt;
use gateway_support::{PATIENCE, Running, ask, closed, request, start};
use pool_cli::config::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn with_token() -> Running {
    start(|config| config.gateway.token = Some(Secret::new("s3cret"))).await
}

#[tokio::test]
async fn discovery_hands_out_all_six_fields_and_takes_no_lease() {
    let pool = start(|_| ()).await;
    let address = pool.address();
    for path in [
        "/json/version",
        "/json/version/?priority=1",
        "/some/path/json/version?priority=1",
        "/?priority=1/json/version",
    ] {
        let answer = pool.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let json = answer.json();
        for field in ["Browser", "Protocol-Version", "User-Agent", "V8-Version", "WebKit-Version"] {
            assert!(json[field].is_string(), "{path}: {field}");
        }
        let query = if path.contains("priority") { "?priority=1" } else { "" };
        assert_eq!(json["webSocketDebuggerUrl"], format!("ws://{address}/{query}"), "{path}");
        assert_eq!(pool.gateway.pool().load().leased, 0);
    }
    let mistake = pool.get("/json/version?prioritty=1").await;
    assert_eq!((mistake.status, mistake.code().as_str()), (400, "unknown_parameter"));
}

#[tokio::test]
async fn a_token_in_the_path_goes_on_in_what_is_handed_out() {
    let pool = with_token().await;
    let answer = pool.get("/t/s3cret/json/version?priority=1").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let url = answer.json()["webSocketDebuggerUrl"].as_str().expect("an address").to_owned();
    assert_eq!(url, format!("ws://{}/?token=s3cret&priority=1", pool.address()));
    for path in ["/?priority=1&token=s3cret", "/t/s3cret", "/t/s3cret/chromium?priority=1"] {
        let mut client = pool.connect(path).await;
        assert_eq!(ask(&mut client, "hello").await, "hello", "{path}");
    }
    assert_eq!(pool.get("/t/wrong/json/version").await.status, 401);
    assert_eq!(pool.get("/json/version").await.status, 401);
}

#[tokio::test]
async fn the_protocol_and_the_browsers_are_told() {
    let pool = start(|_| ()).await;
    for path in ["/json/protocol", "/json/protocol/", "/json/protocol?x=1"] {
        let protocol = pool.get(path).await.json();
        assert_eq!(protocol["version"]["major"], "1", "{path}");
        assert!(protocol["domains"].as_array().is_some_and(|all| all.len() > 40), "{path}");
    }
    assert_eq!(pool.get("/json/version").await.status, 200);
    assert_eq!(pool.get("/meta").await.json()["chromium"], "1.2.3.4");
    assert_eq!(pool.get("/active").await.status, 204);
}

#[tokio::test]
async fn small_letters_and_an_address_without_a_path_are_understood() {
    let pool = start(|_| ()).await;
    let answer = request(pool.address(), "get", "/json/version", &[], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = request(pool.address(), "GET", "?priority=1", &[], "").await;
    assert_eq!(answer.status, 426, "{answer:?}");
    let mut stream = TcpStream::connect(pool.address()).await.expect("it listens");
    let upgrade = format!(
        "GET ?trackingId=bare HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        pool.address()
    );
    stream.write_all(upgrade.as_bytes()).await.expect("it reads");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 101");
    assert_eq!(pool.get("/sessions").await.json()[0]["trackingId"], "bare");
}

#[tokio::test]
async fn pressure_is_in_the_shape_of_browserless() {
    let pool = start(|_| ()).await;
    let _client = pool.connect("/").await;
    let pressure = &pool.get("/pressure").await.json()["pressure"];
    assert_eq!(pressure["isAvailable"], true);
    assert_eq!(pressure["running"], 1);
    assert_eq!(pressure["queued"], 0);
    assert_eq!(pressure["maxConcurrent"], 2);
    assert_eq!((&pressure["counts"], &pressure["leasesPerBrowser"]), (&"leases".into(), &1.into()));
    assert_eq!(pressure["maxQueued"], 1000);
    assert_eq!(pressure["recentlyRejected"], 0);
    let plain = [("accept", "text/plain")];
    assert_eq!(request(pool.address(), "GET", "/pressure", &plain, "").await.status, 200);
    pool.gateway.ask_drain();
    assert_eq!(request(pool.address(), "GET", "/pressure", &plain, "").await.status, 503);
    assert_eq!(pool.get("/readyz").await.status, 503);
    assert_eq!(pool.get("/livez").await.status, 200);
}

#[tokio::test]
async fn pressure_says_that_shared_leases_are_not_browsers() {
    let pool = start(|config| config.pool.lease = pool_cli::config::LeaseKind::Shared).await;
    let pressure = &pool.get("/pressure").await.json()["pressure"];
    assert_eq!((&pressure["counts"], &pressure["leasesPerBrowser"]), (&"leases".into(), &8.into()));
}

#[test]
fn the_pool_refuses_before_playwright_gives_up_by_itself() {
    let default = pool_cli::config::Config::default().pool.acquire_timeout;
    assert!(default <= Duration::from_secs(25), "{default:?}");
}

#[tokio::test]
async fn sessions_are_listed_and_killed_by_id_by_tracking_id_and_all() {
    let pool = start(|config| config.pool.max_size = 3).await;
    let mut clients = Vec::new();
    for name in ["a", "b", "c"] {
        clients.push(pool.connect(&format!("/?trackingId={name}&tenant=t")).await);
    }
    let sessions = pool.get("/sessions").await.json();
    let sessions = sessions.as_array().expect("a list");
    assert_eq!(sessions.len(), 3);
    assert_eq!(sessions[1]["trackingId"], "b");
    assert_eq!(sessions[1]["tenant"], "t");
    let id = sessions[0]["id"].as_str().expect("an id").to_owned();

    assert_eq!(pool.post(&format!("/kill/{id}"), "").await.json()["killed"], 1);
    assert_eq!(closed(&mut clients[0]).await.0, 1000);
    pool.until("one is over", |load| load.leased == 2).await;
    assert_eq!(pool.post(&format!("/kill/{id}"), "").await.status, 410);
    assert_eq!(pool.post("/kill/nobody", "").await.status, 404);
    let killed = request(pool.address(), "DELETE", "/kill/b", &[], "").await;
    assert_eq!(killed.json()["killed"], 1);
    assert_eq!(pool.post("/kill/all", "").await.json()["killed"], 1);
    pool.until("all are over", |load| load.leased == 0).await;
    assert_eq!(pool.get("/sessions").await.json(), serde_json::json!([]));
}

#[tokio::test]
async fn a_lease_by_rest_lasts_over_connections_until_it_is_released() {
    let pool = with_token().await;
    let token = [("authorization", "Bearer s3cret"), ("content-type", "application/json")];
    let post =
        async |path: &str, body: &str| request(pool.address(), "POST", path, &token, body).await;
    let acquired = post("/browser_pools/default/acquire", r#"{"acquire_timeout_seconds":5}"#).await;
    assert_eq!(acquired.status, 200, "{acquired:?}");
    let acquired = acquired.json();
    let url = acquired["cdp_ws_url"].as_str().expect("an address").to_owned();
    let path = url.strip_prefix(&format!("ws://{}", pool.address())).expect("it is ours");
    for _ in 0..2 {
        let mut client = pool.connect(path).await;
        assert_eq!(ask(&mut client, "hello").await, "hello");
        client.close(None).await.expect("it was open");
        while let Some(Ok(_)) = client.next().await {}
        assert_eq!(pool.gateway.pool().load().leased, 1, "it is still held");
    }
    let mut client = pool.connect(path).await;
    let id = acquired["session_id"].as_str().expect("an id");
    let release = format!(r#"{{"session_id":"{id}"}}"#);
    assert_eq!(post("/browser_pools/default/release", &release).await.status, 204);
    assert_eq!(closed(&mut client).await.0, 1000);
    pool.until("given back", |load| load.leased == 0).await;
    assert_eq!(post("/browser_pools/default/release", &release).await.status, 410);
    assert_eq!(post("/browser_pools/default/flush", "").await.status, 204);
    pool.until("flushed", |load| load.total() == 0).await;
    assert_eq!(post("/browser_pools/other/acquire", "{}").await.status, 404);
    assert_eq!(post("/browser_pools/default/acquire", r#"{"headles":true}"#).await.status, 400);
}

#[tokio::test]
async fn a_lease_by_rest_that_times_out_is_204() {
    let pool = start(|config| config.pool.max_size = 1).await;
    let _holder = pool.connect("/").await;
    let answer = pool.post("/browser_pools/default/acquire", r#"{"acquire_timeout_seconds":0.1}"#);
    assert_eq!(answer.await.status, 204);
}

#[tokio::test]
async fn every_route_but_the_probes_wants_the_token() {
    let pool = with_token().await;
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(pool.get(path).await.status, 200, "{path}");
    }
    for path in ["/json/protocol", "/meta", "/active"] {
        assert_eq!(pool.get(path).await.status, 401, "{path}");
    }
    let reads = ["/", "/json/version", "/pressure", "/sessions", "/metrics", "/api/state"];
    let more = ["/api/history", "/api/stream", "/nothing/here"];
    let live = ["/api/browsers/1/page", "/api/browsers/1/screenshot"];
    for path in reads.into_iter().chain(more).chain(live) {
        let answer = pool.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{path}");
        assert!(answer.head.contains("www-authenticate: bearer"), "{path}");
    }
    for wrong in ["Bearer s3cre", "Bearer s3crett", "Basic s3cret"] {
        let wrong = [("authorization", wrong)];
        assert_eq!(request(pool.address(), "GET", "/sessions", &wrong, "").await.status, 401);
    }
    let changes = ["/api/resize", "/api/flush", "/api/drain", "/api/reload", "/api/leases/x/kill"];
    let more = ["/api/browsers/1/retire", "/browser_pools/default/acquire"];
    for path in changes.into_iter().chain(more) {
        assert_eq!(pool.post(path, "{}").await.status, 401, "{path}");
    }
    assert_eq!(pool.get("/kill/all").await.status, 401);
    // As browserless has it: who shows the token may do so in the query, of a GET too.
    assert_eq!(pool.get("/kill/all?token=s3cret").await.json()["killed"], 0);
    assert_eq!(pool.post("/api/flush?token=s3cret", "{}").await.json()["closed"], 0);
    for path in ["/", "/chromium", "/?token=wrong"] {
        assert_eq!(pool.refused(path).await.0, 401, "{path}");
    }
    assert_eq!(pool.get("/pressure?token=s3cret").await.status, 200);
    let mut client = pool.try_connect("/", &[("authorization", "Bearer s3cret")]).await.unwrap().0;
    assert_eq!(ask(&mut client, "hello").await, "hello");
    assert!(!pool.gateway.is_draining());
}

#[tokio::test]
async fn the_dashboard_is_for_everybody_and_holds_nothing() {
    let pool = with_token().await;
    let person = [("accept", "text/html,*/*;q=0.8")];
    let page = request(pool.address(), "GET", "/", &person, "").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/html"), "{}", page.head);
    assert!(page.head.contains("default-src 'none'"), "{}", page.head);
    assert!(!page.head.contains("unsafe"), "{}", page.head);
    // The page, what it names, and what its modules import from each other.
    let mut names: Vec<String> = words_after(&page.body, "=\"dashboard/");
    let mut seen = 0;
    while let Some(name) = names.get(seen).cloned() {
        seen += 1;
        let path = format!("/dashboard/{name}");
        let file = pool.get(&path).await;
        assert_eq!(file.status, 200, "{path}");
        let kind = match name.rsplit('.').next() {
            Some("js") => "text/javascript",
            Some("css") => "text/css",
            _ => "image/svg+xml",
        };
        assert!(file.head.contains(&format!("content-type: {kind}")), "{path}: {}", file.head);
        let tag = file.head.lines().find_map(|line| line.strip_prefix("etag: "));
        let again = [("if-none-match", tag.expect("it has one"))];
        assert_eq!(request(pool.address(), "GET", &path, &again, "").await.status, 304, "{path}");
        for import in words_after(&file.body, "from './") {
            if !names.contains(&import) {
                names.push(import);
            }
        }
    }
    assert!(names.iter().any(|name| name == "vendor/uplot/uPlot.esm.js"), "{names:?}");
    assert_eq!(pool.get("/dashboard/nothing.js").await.status, 404);
    let rebound = [("host", "evil.example"), ("accept", "text/html")];
    let open = start(|_| ()).await;
    assert_eq!(request(open.address(), "GET", "/", &rebound, "").await.status, 403);
}

/// What stands after each `mark`, up to the quote.
fn words_after(text: &str, mark: &str) -> Vec<String> {
    let rests = text.split(mark).skip(1);
    rests.filter_map(|rest| rest.split(['"', '\'']).next()).map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused_for_http_and_websocket() {
    let pool = start(|_| ()).await;
    for path in ["/pressure", "/json/version", "/sessions", "/kill/all", "/metrics"] {
        let rebound = [("host", "evil.example:3000")];
        let answer = request(pool.address(), "GET", path, &rebound, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "foreign_host"), "{path}");
        let foreign = [("origin", "https://evil.example")];
        let answer = request(pool.address(), "GET", path, &foreign, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "foreign_origin"), "{path}");
    }
    for headers in
        [[("host", "evil.example")], [("origin", "http://evil.example")], [("origin", "null")]]
    {
        assert_eq!(pool.refused_with("/", &headers).await.0, 403, "{headers:?}");
    }
    for headers in [&[][..], &[("content-type", "text/plain")], &[("sec-fetch-site", "none")]] {
        for (method, path) in [("POST", "/api/flush"), ("GET", "/kill/all"), ("HEAD", "/kill/all")]
        {
            let answer = request(pool.address(), method, path, headers, "").await;
            assert_eq!(answer.status, 403, "{method} {path} {headers:?}");
        }
    }
    assert_eq!(pool.get("/kill/all").await.code(), "cross_site");
    assert_eq!(pool.gateway.pool().load().total(), 0);
}

#[tokio::test]
async fn slow_and_endless_headers_are_cut_off_while_others_are_served() {
    let pool = start(|_| ()).await;
    let mut slow = TcpStream::connect(pool.address()).await.expect("it listens");
    slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.expect("it reads");
    let mut endless = TcpStream::connect(pool.address()).await.expect("it listens");
    let flood = async {
        let line = [b'a'; 64 * 1024];
        endless.write_all(b"GET / HTTP/1.1\r\nx: ").await?;
        for _ in 0..320 {
            endless.write_all(&line).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let written = flood.await;
    let mut answer = Vec::new();
    let read = endless.read_to_end(&mut answer).await;
    let refused = written.is_err() || read.is_err() || answer.starts_with(b"HTTP/1.1 431");
    assert!(refused, "20 MB of headers were taken: {}", String::from_utf8_lossy(&answer));
    assert_eq!(pool.get("/livez").await.status, 200);
    let mut rest = Vec::new();
    let cut = tokio::time::timeout(Duration::from_secs(15), slow.read_to_end(&mut rest)).await;
    assert!(cut.is_ok(), "a connection without a whole request is closed");
}

#[tokio::test]
async fn the_state_is_one_snapshot_and_is_streamed() {
    let pool = start(|_| ()).await;
    let _client = pool.connect("/?tenant=t").await;
    let state = pool.get("/api/state").await.json();
    assert_eq!(state["load"]["leased"], 1);
    assert_eq!(state["browsers"][0]["state"], "leased");
    assert_eq!(state["browsers"][0]["lease"]["tenant"], "t");
    assert_eq!(state["sessions"][0]["id"], state["browsers"][0]["lease"]["id"]);
    assert!(state["events"].as_array().unwrap().iter().any(|event| event["event"] == "leased"));
    let shot = pool.get("/api/browsers/1/screenshot").await;
    assert_eq!((shot.status, shot.body.as_str()), (200, "png"));
    assert_eq!(pool.get("/api/browsers/9/screenshot").await.status, 404);
    assert_eq!(pool.get("/api/browsers/1/page").await.json()["title"], "<b>Fake</b>");
    assert_eq!(pool.get("/api/browsers/9/page").await.status, 404);

    let mut stream = TcpStream::connect(pool.address()).await.expect("it listens");
    let head = format!("GET /api/stream HTTP/1.1\r\nhost: {}\r\n\r\n", pool.address());
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let mut text = String::new();
    let two = async {
        while text.matches("data: {").count() < 2 {
            let mut chunk = [0; 4096];
            let read = stream.read(&mut chunk).await.expect("it is open");
            assert!(read > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
    };
    tokio::time::timeout(PATIENCE, two).await.expect("one each second");
}

#[tokio::test]
async fn the_pool_is_changed_over_the_api() {
    let pool = start(|_| ()).await;
    let _client = pool.connect("/").await;
    assert_eq!(pool.post("/api/resize", r#"{"max_size":5}"#).await.json()["max_size"], 5);
    assert_eq!(pool.gateway.pool().load().max_size, 5);
    let bad = pool.post("/api/resize", r#"{"min_size":6}"#).await;
    assert_eq!((bad.status, bad.code().as_str()), (400, "bad_size"));
    assert_eq!(pool.post("/api/resize", r#"{"size":6}"#).await.status, 400);
    assert_eq!(pool.post("/api/browsers/1/retire", "").await.status, 204);
    assert_eq!(pool.post("/api/browsers/77/retire", "").await.status, 404);
    assert_eq!(pool.post("/api/flush", "").await.json()["closed"], 0);
    assert_eq!(pool.post("/api/reload", "").await.status, 501);
    assert_eq!(pool.post("/api/drain", "").await.status, 202);
    assert!(pool.gateway.is_draining());
}
