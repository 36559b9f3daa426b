//! S31 to S34: clients that send slowly, nothing, too much, or without end.

use std::time::Duration;

use browser_pool_tests::{Case, LeaseKind, Setup, case, eventually, for_both_kinds, rounds};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::Message;

/// Others are served, and soon.
async fn assert_served(case: &Case) {
    let began = Instant::now();
    let client = case.service.connect("/").await;
    let page = client.page(&case.site.at("/title.html")).await;
    assert_eq!(page.eval("document.title").await, "A page with a title");
    client.close().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "others were served after {took:?}");
}

async fn open(case: &Case) -> TcpStream {
    TcpStream::connect(&case.service.address).await.expect("the kernel accepts")
}

/// Reads to the end, or to an error, which is one.
async fn to_the_end(mut stream: TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn s31_slow_headers() {
    case(Setup::new(), async |case| {
        let began = Instant::now();
        let mut slow = Vec::new();
        for _ in 0..50 {
            let mut stream = open(case).await;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n").await.expect("it is open");
            slow.push(stream);
        }
        assert_served(case).await;
        let ends = futures_util::future::join_all(slow.into_iter().map(|mut stream| async move {
            // A header a second, for as long as it is taken.
            loop {
                let mut byte = [0];
                match timeout(Duration::from_secs(1), stream.read(&mut byte)).await {
                    Ok(Ok(0) | Err(_)) => return,
                    Ok(Ok(_)) => {}
                    Err(_) => {
                        if stream.write_all(b"X: y\r\n").await.is_err() {
                            return;
                        }
                    }
                }
            }
        }));
        let closed = timeout(Duration::from_secs(25), ends).await;
        assert!(closed.is_ok(), "slow headers are waited for after {:?}", began.elapsed());
        println!("closed after {:?}", began.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s32_idle_connections() {
    // As many as the machine lets us open, up to what the threat is.
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, ..limit };
    // Without it there are fewer.
    let _ = setrlimit(Resource::Nofile, wanted);
    let most = getrlimit(Resource::Nofile).current.unwrap_or(1024);
    let count = usize::try_from(most).unwrap_or(1024).saturating_sub(200).min(5000);
    case(Setup::new(), async |case| {
        let mut idle = Vec::with_capacity(count);
        for _ in 0..count {
            idle.push(open(case).await);
        }
        println!("{count} idle connections");
        assert_served(case).await;
        eventually("they are closed", Duration::from_secs(40), async || {
            let held = case.service.process.descriptors();
            if held < 200 { Ok(()) } else { Err(held) }
        })
        .await;
        assert_served(case).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s33_a_header_of_20_mb() {
    case(Setup::new(), async |case| {
        let before = case.service.process.status("VmHWM").expect("it runs");
        for _ in 0..5 {
            let mut stream = open(case).await;
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
                .await
                .expect("it is open");
            let mebibyte = vec![b'x'; 1 << 20];
            for _ in 0..20 {
                // It is cut off at some time.
                if stream.write_all(&mebibyte).await.is_err() {
                    break;
                }
            }
            let answer = timeout(Duration::from_secs(5), to_the_end(stream)).await;
            let answer = answer.expect("it is closed");
            let text = String::from_utf8_lossy(&answer);
            assert!(text.is_empty() || text.contains("431") || text.contains("400"), "{text}");
        }
        let after = case.service.process.status("VmHWM").expect("it runs");
        assert!(after < before + 8 * 1024, "{before} KiB became {after} KiB");
        assert_served(case).await;
    })
    .await;
}

for_both_kinds!(s34_websocket_floods);

async fn s34_websocket_floods(kind: LeaseKind) {
    case(Setup::new().kind(kind).set("gateway.buffer", "16MiB"), async |case| {
        let neighbour = case.service.connect("/").await;
        let page = neighbour.page("about:blank").await;
        let before = case.service.process.status("VmRSS").expect("it runs");
        let flooder = case.service.connect("/").await;
        flooder.read_on(false);
        let flood = async {
            for number in 0..rounds(30_000, 300_000) {
                let message = match number % 3 {
                    0 => Message::Ping(vec![0; 100].into()),
                    1 => Message::text(r#"{"id":1,"method":"Browser.getVersion"}"#),
                    _ => Message::text("x".repeat(200)),
                };
                if flooder.write_message(message).await.is_err() {
                    return;
                }
            }
        };
        let mut slowest = Duration::ZERO;
        let mut peak = before;
        let watch = async {
            loop {
                let began = Instant::now();
                assert_eq!(page.eval("42").await, 42);
                slowest = slowest.max(began.elapsed());
                peak = peak.max(case.service.process.status("VmRSS").expect("it runs"));
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            // One that is not read from may never be done.
            _ = timeout(Duration::from_secs(20), flood) => {}
            () = watch => unreachable!("it goes on for ever"),
        }
        println!("the neighbour's slowest answer took {slowest:?}; {before} KiB became {peak} KiB");
        assert!(slowest < Duration::from_secs(5), "the neighbour waited {slowest:?}");
        assert!(peak <= before + 32 * 1024, "{before} KiB became {peak} KiB");
        drop(flooder);
        neighbour.call("Browser.getVersion", json!({})).await.expect("the neighbour is alive");
        neighbour.close().await;
    })
    .await;
}
