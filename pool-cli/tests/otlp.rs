//! Traces as a collector of OpenTelemetry gets them, from a pool of real Chromium.

#![cfg(feature = "otlp")]

mod gateway_support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway_support::{Cdp, PATIENCE, Service, ask, start_node, unused_port};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use pool_cli::config::Config;
use pool_cli::logging;
use pool_cli::telemetry::Traces;
use pool_fleet::MemoryNetwork;
use prost::Message;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// The ids of the specification's own example.
const TRACE_ID: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const SPAN_ID: u64 = 0x00f0_67aa_0ba9_02b7;

const CONFIG: &str = "[pool]\nmin_size = 1\nmax_size = 1\nhealth_check_interval = \"100ms\"\n[log]\nfilter = \"warn\"\n";

/// What a collector was sent.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Received {
    fn spans(&self) -> Vec<Span> {
        let received = self.0.lock().expect("nobody panics with it");
        let resources = received.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|spans| &spans.scope_spans).flat_map(|s| s.spans.clone()).collect()
    }

    fn resource(&self) -> HashMap<String, String> {
        let received = self.0.lock().expect("nobody panics with it");
        let resource = received[0].resource_spans[0].resource.as_ref().expect("it has one");
        attributes(&resource.attributes)
    }
}

fn attributes(attributes: &[KeyValue]) -> HashMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    };
    attributes.iter().filter_map(|found| Some((found.key.clone(), text(found)?))).collect()
}

/// A collector on a port of its own, which breaks this many connections before it listens: its
/// address, and what it gets.
async fn collector(broken: usize) -> (String, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    let received = Received::default();
    let kept = received.clone();
    tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.expect("it can accept");
            if connection >= broken {
                tokio::spawn(answer(stream, kept.clone()));
            }
        }
    });
    (address, received)
}

async fn answer(mut stream: TcpStream, received: Received) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).expect("it is text").to_lowercase();
    assert!(head.starts_with("post /v1/traces "), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let length = head.split("content-length: ").nth(1).expect("it has a length");
    let length = length.lines().next().and_then(|length| length.parse().ok());
    let mut body = vec![0; length.expect("a number")];
    stream.read_exact(&mut body).await.expect("it is whole");
    let request = ExportTraceServiceRequest::decode(&*body).expect("it is protobuf");
    received.0.lock().expect("nobody panics with it").push(request);
    let done = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                 content-length: 0\r\nconnection: close\r\n\r\n";
    let _ = stream.write_all(done).await;
}

/// A lease of a client with this `traceparent`, from its beginning to its end.
async fn lease(service: &Service, traceparent: &str) {
    let (client, _) = service.connect_with("/?tenant=acme", &[("traceparent", traceparent)]).await;
    let mut cdp = Cdp::new(client);
    cdp.page("about:blank").await;
    cdp.client.close(None).await.expect("it was open");
}

/// Waits until every browser was checked.
async fn until_checked(service: &Service) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = service.get("/api/state").await.json();
        let browsers = state["browsers"].as_array().expect("a list");
        if browsers.iter().all(|browser| !browser["last_check"].is_null()) {
            return;
        }
        assert!(Instant::now() < deadline, "no check: {state:#}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Ends the pool, which sends what is left, without blocking the collector; its log.
async fn end(mut service: Service) -> String {
    service.signal(Signal::TERM);
    let ended = tokio::task::spawn_blocking(move || {
        let status = service.wait(PATIENCE);
        let log = service.log();
        assert!(status.success(), "{log}");
        log
    });
    ended.await.expect("it ends well")
}

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE_ID:032x}-{SPAN_ID:016x}-{flags}")
}

#[tokio::test]
async fn the_spans_of_a_lease_arrive_below_the_clients_own_span() {
    // The first connection breaks, as an idle one does that the collector has closed: it is told,
    // and tried again.
    let (endpoint, received) = collector(1).await;
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let service = Service::start_with(CONFIG, &variables);
    lease(&service, &traceparent("01")).await;
    until_checked(&service).await;
    // The next one gets the browser reset.
    lease(&service, &traceparent("00")).await;
    let log = end(service).await;

    let spans = received.spans();
    assert!(!spans.is_empty(), "nothing has arrived: {log}");
    assert!(log.contains("the collector does not accept traces"), "{log}");
    let named = |name: &str| -> Vec<&Span> { spans.iter().filter(|s| s.name == name).collect() };
    let [lease] = named("lease")[..] else { panic!("the client records one lease: {spans:#?}") };
    assert_eq!(lease.trace_id, TRACE_ID.to_be_bytes());
    assert_eq!(lease.parent_span_id, SPAN_ID.to_be_bytes());
    let of_lease = attributes(&lease.attributes);
    assert_eq!(of_lease["tenant"], "acme");
    assert_eq!(of_lease["ended"], "released");
    assert_eq!(of_lease["lease"].len(), 8, "the whole id is a secret");

    let [acquire] = named("acquire")[..] else { panic!("it was acquired once: {spans:#?}") };
    assert_eq!(acquire.trace_id, lease.trace_id);
    assert_eq!(acquire.parent_span_id, lease.span_id);
    assert_eq!(attributes(&acquire.attributes)["outcome"], "granted");

    for name in ["launch", "reset", "check"] {
        let found = named(name);
        let of_it = found.iter().find(|span| {
            let of_span = attributes(&span.attributes);
            of_span.get("browser") == of_lease.get("browser") && of_span["class"] == "default"
        });
        let span = of_it.unwrap_or_else(|| panic!("no {name} of the browser in {spans:#?}"));
        assert!(span.parent_span_id.is_empty(), "{name} belongs to no client");
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    }
    let resource = received.resource();
    assert_eq!(resource["service.name"], "browser-pool");
    assert_eq!(resource["browserpool.pool"], "default");
}

/// Both nodes are in this process, and export what they do together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_on_at_the_node_of_a_fleet_that_has_the_browser() {
    let (endpoint, received) = collector(0).await;
    let mut config = Config::default();
    config.telemetry.otlp_endpoint = Some(endpoint);
    let traces = Traces::start(&config).expect("the exporter can be made");
    logging::init_with(&config.log, traces.as_ref()).expect("nobody else logs in this process");
    let network = MemoryNetwork::new();
    let gateway = start_node(&network, "front", |config| config.pool.max_size = 0).await;
    let _node = start_node(&network, "back", |config| config.pool.max_size = 1).await;
    // A node that hears no other one refuses: it hears of this one a moment after that has joined.
    let deadline = Instant::now() + PATIENCE;
    while gateway.get("/readyz").await.status != 200 {
        assert!(Instant::now() < deadline, "it hears no node with browsers");
        sleep(Duration::from_millis(20)).await;
    }

    let header = traceparent("01");
    let connected = gateway.try_connect("/", &[("traceparent", &header)]).await;
    let (mut client, _) = connected.expect("the other node has a browser");
    ask(&mut client, "hello").await;
    client.close(None).await.expect("it was open");
    // Each span is sent some time after it is over.
    let deadline = Instant::now() + 2 * PATIENCE;
    let leases = || received.spans().iter().filter(|span| span.name == "lease").count();
    while leases() < 2 {
        assert!(Instant::now() < deadline, "not in time: {:#?}", received.spans());
        sleep(Duration::from_millis(50)).await;
    }
    let ended = tokio::task::spawn_blocking(move || drop(traces));
    ended.await.expect("the exporter ends");

    let mut spans = received.spans();
    spans.retain(|span| span.trace_id == TRACE_ID.to_be_bytes());
    let child = |parent: &[u8], name: &str| {
        let mut found = spans.iter().filter(|s| s.name == name && s.parent_span_id == parent);
        found.next().unwrap_or_else(|| panic!("no {name} below {parent:x?} in {spans:#?}"))
    };
    let waited = child(&child(&SPAN_ID.to_be_bytes(), "lease").span_id, "acquire");
    let relay = child(&waited.span_id, "relay");
    let of_relay = attributes(&relay.attributes);
    assert_eq!((&*of_relay["node"], &*of_relay["status"]), ("back", "101"));
    let lease = child(&relay.span_id, "lease");
    assert!(attributes(&lease.attributes).contains_key("browser"), "it is where the browser is");
    child(&lease.span_id, "acquire");
}

#[tokio::test]
async fn a_collector_that_is_not_there_keeps_nobody_from_a_browser() {
    let endpoint = format!("http://127.0.0.1:{}", unused_port());
    let config = format!("{CONFIG}[telemetry]\notlp_endpoint = \"{endpoint}\"\n");
    let service = Service::start(&config);
    lease(&service, &traceparent("01")).await;
    let log = end(service).await;
    assert!(log.contains("the collector does not accept traces"), "{log}");
}
