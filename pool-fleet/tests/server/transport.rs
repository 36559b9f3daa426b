//! The transport and the store over real servers: current, the oldest that will do, and too old ones.

use std::io::{BufRead as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use pool_fleet::{
    Connection, NatsAuth, NatsOptions, NatsTransport, Store, Transport, TransportError,
};
use tokio::io::AsyncReadExt as _;

use crate::support::{Failing, Nats, server, until};

/// Longer than a server takes for anything, also on a machine that does three other things.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_current_and_the_oldest_server_do_all_that_is_needed() {
    for version in ["current", "oldest"] {
        let nats = Nats::start_with(version, "");
        let (ann, bob) = (nats.connect().await, nats.connect().await);

        let server = ann.server().await.unwrap();
        assert!(server.stores, "{version}");
        assert!(server.round_trip < SOON, "{server:?}");
        let expected = if version == "oldest" { "2.10." } else { "2.1" };
        assert!(server.version.starts_with(expected), "{server:?}");

        let asked = ann.request("who.bob", "?".into(), SOON).await;
        assert!(matches!(asked, Err(TransportError::NoResponders { .. })), "{asked:?}");
        let mut heard = bob.subscribe("who.*").await.unwrap();
        bob.server().await.unwrap();
        let silent = ann.request("who.bob", "?".into(), Duration::from_millis(100)).await;
        assert!(matches!(silent, Err(TransportError::TimedOut)), "{silent:?}");
        heard.next().await.unwrap();
        let answering = tokio::spawn({
            let bob = bob.clone();
            async move {
                let asked = heard.next().await.unwrap();
                assert_eq!(asked.subject, "who.bob");
                bob.publish(&asked.reply.unwrap(), "I".into()).await.unwrap();
            }
        });
        assert_eq!(ann.request("who.bob", "?".into(), SOON).await.unwrap(), "I");
        answering.await.unwrap();

        entries(&ann, &bob).await;
        objects(&ann, &bob).await;
    }
}

async fn entries(ann: &NatsTransport, bob: &NatsTransport) {
    assert_eq!(ann.get("b", "k=2E.0").await.unwrap(), None);
    let first = ann.put("b", "k=2E.0", "1".into(), None).await.unwrap();
    let lost = bob.put("b", "k=2E.0", "2".into(), None).await;
    assert!(matches!(lost, Err(TransportError::Conflict { .. })), "{lost:?}");
    let second = bob.put("b", "k=2E.0", "2".into(), Some(first)).await.unwrap();
    let lost = ann.put("b", "k=2E.0", "3".into(), Some(first)).await;
    assert!(matches!(lost, Err(TransportError::Conflict { .. })), "{lost:?}");
    assert_eq!(ann.keys("b").await.unwrap(), ["k=2E.0"]);
    let entry = ann.get("b", "k=2E.0").await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.revision), (&b"2"[..], second));
    // A delete is a compare-and-swap as well, and leaves nothing behind.
    let lost = ann.delete("b", "k=2E.0", first).await;
    assert!(matches!(lost, Err(TransportError::Conflict { .. })), "{lost:?}");
    assert!(ann.get("b", "k=2E.0").await.unwrap().is_some());
    ann.delete("b", "k=2E.0", second).await.unwrap();
    assert_eq!(bob.get("b", "k=2E.0").await.unwrap(), None);
    assert!(ann.keys("b").await.unwrap().is_empty());
    assert!(ann.put("b", "k=2E.0", "4".into(), None).await.unwrap() > second);
    let odd = ann.put("b", "no key", "5".into(), None).await;
    assert!(matches!(odd, Err(TransportError::Name { .. })), "{odd:?}");
}

async fn objects(ann: &NatsTransport, bob: &NatsTransport) {
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    assert!(ann.object("o", "crm@x:1/0/1").await.unwrap().is_none());
    let source = Box::pin(std::io::Cursor::new(large.clone()));
    assert_eq!(ann.put_object("o", "crm@x:1/0/1", source).await.unwrap(), 3_000_000);
    ann.put_object("o", "empty", Box::pin(tokio::io::empty())).await.unwrap();
    let mut read = Vec::new();
    bob.object("o", "crm@x:1/0/1").await.unwrap().unwrap().read_to_end(&mut read).await.unwrap();
    assert!(read == large, "the object came back different");
    let mut names = bob.objects("o").await.unwrap();
    names.sort();
    assert_eq!(names, ["crm@x:1/0/1", "empty"]);
    bob.delete_object("o", "crm@x:1/0/1").await.unwrap();
    bob.delete_object("o", "never was").await.unwrap();
    assert!(ann.object("o", "crm@x:1/0/1").await.unwrap().is_none());
    assert_eq!(ann.objects("o").await.unwrap(), ["empty"]);

    // An upload that fails leaves its parts, which are no object's.
    assert_eq!(ann.uploads("o").await.unwrap(), []);
    let failing = Failing::after(&[7; 300_000]);
    ann.put_object("o", "failed", Box::pin(failing)).await.unwrap_err();
    let uploads = bob.uploads("o").await.unwrap();
    assert!(uploads.len() == 1 && uploads[0].parts > 0, "{uploads:?}");
    bob.delete_upload("o", &uploads[0].id).await.unwrap();
    assert_eq!(ann.uploads("o").await.unwrap(), []);
    ann.delete_object("o", "empty").await.unwrap();
    assert_eq!(stored(ann, "OBJ_o").await, 0, "nothing is left of what was removed");
}

/// Returns how many messages a stream of the server has.
async fn stored(transport: &NatsTransport, stream: &str) -> u64 {
    let asked = transport.request(&format!("$JS.API.STREAM.INFO.{stream}"), "".into(), SOON).await;
    let answer: serde_json::Value = serde_json::from_slice(&asked.unwrap()).unwrap();
    answer["state"]["messages"].as_u64().unwrap()
}

#[tokio::test]
async fn a_bucket_that_the_server_does_not_answer_for_holds_up_no_other() {
    let denied = r#"publish: { deny: ["$JS.API.STREAM.INFO.KV_denied", "$JS.API.STREAM.CREATE.KV_denied"] }"#;
    let config = format!(
        "authorization {{ users: [ {{ user: u, password: p, permissions: {{ {denied} }} }} ] }}"
    );
    let nats = Nats::start_with("current", &config);
    let auth = NatsAuth::UserPassword { user: "u".into(), password: "p".into() };
    let ann = NatsTransport::connect(NatsOptions::new([nats.url()]).auth(auth)).await.unwrap();
    let kept = ann.put("b", "k", "1".into(), None).await.unwrap();
    let mut looking = std::pin::pin!(ann.get("denied", "k"));
    let waiting = tokio::time::timeout(Duration::from_millis(100), &mut looking).await;
    assert!(waiting.is_err(), "the server says nothing, and it is given time");
    let others = async {
        assert_eq!(ann.get("b", "k").await.unwrap().unwrap().revision, kept);
        assert_eq!(ann.get("new", "k").await.unwrap(), None);
    };
    tokio::select! {
        answer = looking => panic!("before the others: {answer:?}"),
        () = others => {}
    }
}

/// Returns the refusal of a server that is too old.
async fn refused_by(url: String) -> String {
    let refused = NatsTransport::connect(NatsOptions::new([url])).await.unwrap_err();
    assert!(matches!(refused, TransportError::Refused(_)), "{refused:?}");
    refused.to_string()
}

#[tokio::test]
async fn a_server_below_2_10_is_refused_with_that_sentence() {
    // What an old server says first; a build of one is not to be had everywhere.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let info = r#"{"server_id":"X","version":"2.9.25","max_payload":1048576,"headers":true}"#;
        write!(client, "INFO {info}\r\n").unwrap();
        for line in std::io::BufReader::new(client.try_clone().unwrap()).lines() {
            match line {
                Ok(line) if line == "PING" => client.write_all(b"PONG\r\n").unwrap(),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });
    let sentence = refused_by(url).await;
    assert!(sentence.contains("version 2.9.25: leases need 2.10 or newer"), "{sentence}");

    if server("current").parent().unwrap().with_file_name("refused").exists() {
        let nats = Nats::start_with("refused", "");
        let sentence = refused_by(nats.url()).await;
        assert!(sentence.contains("version 2.9.10: leases need 2.10 or newer"), "{sentence}");
    }
}

#[tokio::test]
async fn who_is_not_known_is_refused_and_learns_why() {
    let config = "authorization { user: pool, password: right }";
    let nats = Nats::start_with("current", config);
    let with = |password: &str| {
        let auth = NatsAuth::UserPassword { user: "pool".into(), password: password.into() };
        NatsTransport::connect(NatsOptions::new([nats.url()]).auth(auth))
    };
    assert!(with("right").await.unwrap().server().await.is_ok());
    for refused in [
        with("canary").await.unwrap_err(),
        NatsTransport::connect(NatsOptions::new([nats.url()])).await.unwrap_err(),
    ] {
        let sentence = format!("{refused} {refused:?}");
        assert!(sentence.contains("does not accept the credentials"), "{sentence}");
        assert!(!sentence.contains("canary"), "{sentence}");
    }
}

#[tokio::test]
async fn a_token_and_an_nkey_are_credentials_too() {
    let nats = Nats::start_with("current", "authorization { token: secret }");
    let token = NatsAuth::Token("secret".into());
    NatsTransport::connect(NatsOptions::new([nats.url()]).auth(token)).await.unwrap();

    // The pair of keys of the documentation of NATS; it opens nothing.
    let public = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    let seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    let config = format!("authorization {{ users: [ {{ nkey: {public} }} ] }}");
    let nats = Nats::start_with("current", &config);
    let nkey = NatsAuth::Nkey(seed.into());
    NatsTransport::connect(NatsOptions::new([nats.url()]).auth(nkey)).await.unwrap();
    let broken = NatsAuth::Nkey("SUcanary".into());
    let refused = NatsTransport::connect(NatsOptions::new([nats.url()]).auth(broken)).await;
    assert!(!refused.unwrap_err().to_string().contains("canary"));
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_never_sees_the_credentials() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let spy = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client.write_all(b"INFO {\"version\":\"2.15.1\",\"max_payload\":1048576}\r\n").unwrap();
        let mut seen = Vec::new();
        std::io::Read::read_to_end(&mut client, &mut seen).ok();
        String::from_utf8_lossy(&seen).into_owned()
    });
    let auth = NatsAuth::UserPassword { user: "pool".into(), password: "canary".into() };
    let options = NatsOptions::new([format!("tls://127.0.0.1:{port}")]).auth(auth);
    assert!(NatsTransport::connect(options).await.is_err());
    let seen = spy.join().unwrap();
    assert!(!seen.contains("canary") && !seen.contains("CONNECT"), "{seen:?}");
}

#[tokio::test]
async fn without_a_server_nothing_is_queued_and_its_return_is_noticed_within_five_seconds() {
    let mut nats = Nats::start();
    let (ann, bob) = (nats.connect().await, nats.connect().await);
    let mut heard = bob.subscribe("news").await.unwrap();
    let kept = ann.put("b", "k", "1".into(), None).await.unwrap();

    nats.kill();
    let (mut of_ann, mut of_bob) = (ann.connection(), bob.connection());
    of_ann.wait_for(|connection| *connection == Connection::Disconnected).await.unwrap();
    of_bob.wait_for(|connection| *connection == Connection::Disconnected).await.unwrap();
    let said = ann.publish("news", "old".into()).await;
    assert!(matches!(said, Err(TransportError::Disconnected)), "{said:?}");
    let asked = ann.request("news", "old".into(), SOON).await;
    assert!(matches!(asked, Err(TransportError::Disconnected)), "{asked:?}");
    assert!(matches!(ann.get("b", "k").await, Err(TransportError::Disconnected)));

    tokio::time::sleep(Duration::from_secs(2)).await;
    nats.restart();
    let returned = Instant::now();
    of_ann.wait_for(Connection::is_connected).await.unwrap();
    of_bob.wait_for(Connection::is_connected).await.unwrap();
    assert!(returned.elapsed() < Duration::from_secs(5), "{:?}", returned.elapsed());
    bob.server().await.unwrap();
    ann.publish("news", "new".into()).await.unwrap();
    assert_eq!(heard.next().await.unwrap().payload, "new");
    assert_eq!(ann.get("b", "k").await.unwrap().unwrap().revision, kept);

    // A server that comes back empty counts on from elsewhere: no revision means two things.
    nats.restart_empty(&ann).await;
    until("the store is back", Duration::from_secs(5), async || {
        matches!(ann.get("b", "k").await, Ok(None))
    })
    .await;
    let again = ann.put("b", "k", "1".into(), None).await.unwrap();
    assert!(again.abs_diff(kept) > 1_000, "{kept} and {again}");
}

#[tokio::test]
async fn a_node_may_start_before_its_server() {
    let mut nats = Nats::start();
    nats.kill();
    let refused = NatsTransport::connect(NatsOptions::new([nats.url()])).await.unwrap_err();
    assert!(matches!(refused, TransportError::Disconnected), "{refused:?}");
    let options = NatsOptions::new([nats.url()]).start_without_server(true);
    let early = NatsTransport::connect(options).await.unwrap();
    let mut connection = early.connection();
    assert_eq!(*connection.borrow(), Connection::Disconnected);
    let mut heard = early.subscribe("news").await.unwrap();
    nats.restart();
    connection.wait_for(Connection::is_connected).await.unwrap();
    early.server().await.unwrap();
    early.publish("news", "hello".into()).await.unwrap();
    assert_eq!(heard.next().await.unwrap().payload, "hello");
}

#[tokio::test]
async fn a_message_that_is_too_large_says_so() {
    let nats = Nats::start();
    let ann = nats.connect().await;
    let large = vec![0; 2_000_000];
    let refused = ann.publish("news", large.into()).await;
    assert!(
        matches!(refused, Err(TransportError::TooLarge { size: 2_000_000, limit: 1_048_576 })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn credentials_travel_by_tls_to_a_server_whose_certificate_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let config = format!(
        "tls {{ cert_file: {cert:?}, key_file: {key:?} }}\nauthorization {{ user: pool, password: right }}"
    );
    let nats = Nats::start_with("current", &config);
    let url = format!("tls://localhost:{}", nats.port());
    let auth = || NatsAuth::UserPassword { user: "pool".into(), password: "right".into() };
    let known = NatsOptions::new([url.clone()]).auth(auth()).root_certificates(&cert);
    let secure = NatsTransport::connect(known).await.unwrap();
    assert!(secure.server().await.is_ok());
    let unknown = NatsTransport::connect(NatsOptions::new([url]).auth(auth())).await;
    let sentence = unknown.unwrap_err().to_string();
    assert!(sentence.contains("TLS"), "{sentence}");
}
