//! The trace of a client: where its id is, and where it is not.

mod gateway_support;

use gateway_support::{PATIENCE, Service, request};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN_ID: &str = "00f067aa0ba902b7";

/// One browser, ready; what it does at every lease is logged too.
const CONFIG: &str = "[pool]\nmin_size = 1\nmax_size = 1\n\
                      [log]\nformat = \"json\"\nfilter = \"info,pool_cli=debug\"\n";

fn traceparent() -> String {
    format!("00-{TRACE_ID}-{SPAN_ID}-01")
}

/// Waits for the lines of the log with this message, as many as that.
async fn logged(service: &Service, message: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = service.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<_> = lines.filter(|line| line["message"] == message).collect();
        if found.len() >= count {
            return found;
        }
        assert!(Instant::now() < deadline, "not {count} times {message:?} in\n{log}");
        sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_trace_is_in_the_audit_line_and_the_spans_of_its_lease_and_told_nobody() {
    let service = Service::start(CONFIG);
    let (mut client, answer) = service.connect_with("/", &[("traceparent", &traceparent())]).await;
    let told = [
        format!("{:?}", answer.headers()),
        service.get("/sessions").await.body,
        service.get("/api/state").await.body,
        service.get("/metrics").await.body,
    ];
    for told in told {
        assert!(!told.contains(TRACE_ID), "{told}");
    }
    client.close(None).await.expect("it was open");
    assert_eq!(logged(&service, "lease over", 1).await[0]["trace_id"], TRACE_ID);
    let leased = &logged(&service, "leased", 1).await[0];
    let spans: Vec<_> = leased["spans"].as_array().expect("it has spans").clone();
    let named: Vec<_> = spans.iter().map(|span| (&span["name"], &span["trace_id"])).collect();
    let trace_id = json!(TRACE_ID);
    assert_eq!(named, [(&json!("lease"), &trace_id), (&json!("acquire"), &trace_id)]);
}

#[tokio::test]
async fn a_lease_by_rest_has_the_trace_of_its_request() {
    let service = Service::start(CONFIG);
    let address = service.address.parse().expect("an address");
    let headers = [("content-type", "application/json"), ("traceparent", &traceparent() as &str)];
    let acquired = request(address, "POST", "/browser_pools/default/acquire", &headers, "{}").await;
    assert_eq!(acquired.status, 200, "{}", acquired.body);
    assert!(!acquired.body.contains(TRACE_ID) && !acquired.head.contains(TRACE_ID));
    let body = json!({ "session_id": acquired.json()["session_id"] }).to_string();
    let headers = &headers[..1];
    let released = request(address, "POST", "/browser_pools/default/release", headers, &body).await;
    assert_eq!(released.status, 204, "{}", released.body);
    assert_eq!(logged(&service, "lease over", 1).await[0]["trace_id"], TRACE_ID);
}

#[tokio::test]
async fn a_malformed_traceparent_costs_nobody_the_browser_and_is_not_logged() {
    let service = Service::start(CONFIG);
    let malformed = format!("00-{}-{SPAN_ID}-01", TRACE_ID.to_uppercase());
    let (mut client, _) = service.connect_with("/", &[("traceparent", &malformed)]).await;
    client.close(None).await.expect("it was open");
    assert!(logged(&service, "lease over", 1).await[0].get("trace_id").is_none());
    assert!(!service.log().to_lowercase().contains(TRACE_ID));
}
