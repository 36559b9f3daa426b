//! A fleet as its users and operators see it, over gateways whose browsers are not there.

mod gateway_support;

use std::sync::Arc;
use std::time::Duration;

use gateway_support::{Answer, PATIENCE, Running, ask, command, request, start, start_node};
use pool_cli::config::{Config, ProfileConfig, Scope, Secret, TenantConfig};
use pool_fleet::subject::Subjects;
use pool_fleet::{
    ClaimedProfile, Incarnation, MemoryNetwork, ProfileId, ProfileSettings, Profiles, Store,
    Transport,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Two nodes of one place each, which hear each other.
async fn two(change: impl Fn(&mut Config) + Send + Sync) -> (MemoryNetwork, Running, Running) {
    let network = MemoryNetwork::new();
    let size = |config: &mut Config| {
        config.pool.max_size = 1;
        change(config);
    };
    let (a, b) =
        tokio::join!(start_node(&network, "a", size), start_node(&network, "b.test", size));
    for node in [&a, &b] {
        until("both are heard", async || names(node).await == ["a", "b.test"]).await;
    }
    (network, a, b)
}

/// Waits until what others hear has come here: a beat a second.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn nodes(node: &Running) -> Vec<Value> {
    let token = ("authorization", "Bearer operator");
    let answer = request(node.address(), "GET", "/api/fleet", &[token], "").await;
    answer.json()["nodes"].as_array().expect("a list").clone()
}

async fn names(node: &Running) -> Vec<String> {
    let names = nodes(node).await;
    names.iter().map(|node| node["name"].as_str().expect("a name").to_owned()).collect()
}

/// Returns one figure of each node, as this one hears them.
async fn each(node: &Running, figure: &str) -> Vec<Value> {
    nodes(node).await.iter().map(|node| node[figure].clone()).collect()
}

async fn status(node: &Running, path: &str) -> u16 {
    node.get(path).await.status
}

#[tokio::test]
async fn every_node_lists_all_of_them_and_what_they_have() {
    let (_network, a, b) = two(|_| ()).await;
    let mut client = a.connect("/").await;
    ask(&mut client, "hello").await;
    until("b hears of the lease", async || each(&b, "leased").await == [1, 0]).await;
    let fleet = b.get("/api/fleet").await.json();
    assert_eq!(fleet["node"], "b.test");
    assert_eq!((&fleet["connected"], &fleet["connection"]), (&json!(true), &json!("connected")));
    let mut first = fleet["nodes"][0].clone();
    let uptime = first.as_object_mut().and_then(|node| node.remove("uptime_ms"));
    assert!(uptime.is_some_and(|ms| ms.is_u64()), "{fleet:#}");
    let expected = json!({
        "name": "a", "own": false, "address": format!("ws://{}", a.address()), "version": "1.2.3",
        "phase": "running", "labels": {"zone": "here"}, "places": 1, "kept": 0, "leased": 1,
        "idle": 0, "creating": 0, "room": 0, "waiting": 0, "queued": 0, "oldest_wait_ms": 0,
        "memory": null,
    });
    assert_eq!(first, expected);
    assert_eq!(fleet["nodes"][1]["own"], true);
    let state = b.get("/api/state").await.json();
    assert_eq!(
        state["fleet"]["nodes"].as_array().map(Vec::len),
        Some(2),
        "the dashboard has it too"
    );
}

#[tokio::test]
async fn a_node_without_browsers_gets_none_by_a_change_of_its_size() {
    let network = MemoryNetwork::new();
    let gateway = start_node(&network, "front", |config| config.pool.max_size = 0).await;
    let refused = gateway.post("/api/resize", r#"{"max_size":4}"#).await;
    assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("bad_size")));
    assert!(refused.body.contains("restart"), "{refused:?}");
}

#[tokio::test]
async fn a_node_is_drained_and_undrained_from_any() {
    let (_network, a, b) = two(|_| ()).await;
    let drained = b.post("/api/fleet/a/drain", "{}").await;
    assert_eq!((drained.status, &drained.json()["phase"]), (200, &json!("draining")));
    until("b hears it", async || each(&b, "phase").await == ["draining", "running"]).await;
    assert_eq!((status(&a, "/readyz").await, status(&b, "/readyz").await), (503, 200));
    assert_eq!(status(&a, "/livez").await, 200);

    let undrained = b.post("/api/fleet/a/undrain", "{}").await;
    assert_eq!((undrained.status, &undrained.json()["phase"]), (200, &json!("running")));
    assert_eq!(status(&a, "/readyz").await, 200);
    // Its own name needs no other node, and one with a dot is one all the same.
    assert_eq!(a.post("/api/fleet/a/drain", "{}").await.json()["phase"], "draining");
    assert_eq!(a.post("/api/fleet/b.test/drain", "{}").await.json()["name"], "b.test");
    let unknown = a.post("/api/fleet/c/drain", "{}").await;
    assert_eq!((unknown.status, &unknown.json()["code"]), (503, &json!("node_lost")));
}

/// A node that has nothing but profiles, and that the others do not hear.
struct Holder {
    profiles: Profiles,
    _dir: TempDir,
}

impl Holder {
    fn new(network: &MemoryNetwork, name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let transport = network.member(name);
        let profiles = Profiles::new(
            ProfileSettings::new(dir.path()).settle(Duration::ZERO),
            Arc::clone(&transport) as Arc<dyn Transport>,
            transport as Arc<dyn Store>,
            Subjects::new("test").expect("it is a name"),
            (name.into(), Incarnation::new(Duration::from_secs(1), 0)),
            Arc::new(Vec::new),
        );
        Self { profiles, _dir: dir }
    }

    async fn claim(&self, profile: &str) -> ClaimedProfile {
        let claimed = self.profiles.claim(&ProfileId::new(profile, 0), PATIENCE).await;
        claimed.expect("nobody has it")
    }
}

/// The command is a process of its own, which this one must answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_is_made_new_where_nobody_has_anything_of_it() {
    let network = MemoryNetwork::new();
    let a = start_node(&network, "a", |config| {
        let mut profile = |name: &str, profile| config.profiles.named.insert(name.into(), profile);
        profile("work", ProfileConfig::default());
        profile("two", ProfileConfig { max_size: Some(2), ..ProfileConfig::default() });
        profile("at-home", ProfileConfig { home: Some("a".into()), ..ProfileConfig::default() });
    })
    .await;
    let make_new = async |profile: &str, body: &str| {
        let answer = a.post(&format!("/api/profiles/{profile}/make-new"), body).await;
        (answer.status, answer.json())
    };
    let refused = async |profile: &str, body: &str| {
        let (status, problem) = make_new(profile, body).await;
        (status, problem["code"].clone())
    };
    assert_eq!(refused("nobody", "{}").await, (404, json!("unknown_profile")));
    assert_eq!(refused("work", r#"{"instance":1}"#).await, (404, json!("unknown_profile")));
    assert_eq!(refused("work", r#"{"force":true}"#).await, (400, json!("bad_body")));
    assert_eq!(refused("at-home", "{}").await, (409, json!("profile_stays")));
    let made = make_new("two", r#"{"instance":1}"#).await;
    assert_eq!(made, (200, json!({"profile": "two", "instance": 1})));

    let holder = Holder::new(&network, "holder");
    let claimed = holder.claim("work").await;
    let (status, problem) = make_new("work", "").await;
    let expected = (409, &json!("profile_in_use"), &json!("holder"));
    assert_eq!((status, &problem["code"], &problem["node"]), expected);
    claimed.release(PATIENCE).await.expect("the store is there");
    let (status, problem) = make_new("work", "").await;
    assert_eq!((status, &problem["code"]), (409, &json!("profile_kept")));
    assert!(
        problem["detail"].as_str().is_some_and(|why| why.contains("in the store")),
        "{problem}"
    );

    let url = format!("http://{}", a.address());
    let run = async |arguments: &'static [&'static str]| {
        let mut command = command();
        command.args(["profile", "make-new"]).args(arguments).env("POOL_URL", &url);
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let output = output.expect("no panic").expect("the binary is built");
        let text = |bytes| String::from_utf8(bytes).expect("it is text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, _, error) = run(&["work"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("still has a copy: in the store"), "{error}");
    let new = (Some(0), "work is new\n".into(), String::new());
    assert_eq!(run(&["work", "--discard"]).await, new);
    let claimed = holder.claim("work").await;
    assert_eq!(claimed.content(), 0, "its copy is discarded");
    claimed.release(PATIENCE).await.expect("the store is there");

    let store = network.member("store");
    for object in store.objects("bp-test-profiles").await.expect("it is there") {
        store.delete_object("bp-test-profiles", &object).await.expect("it is there");
    }
    assert_eq!(run(&["work"]).await, new);
    assert_eq!(holder.claim("work").await.content(), 0, "for every node");
    let events = a.get("/api/state").await.json()["events"].to_string();
    assert!(events.contains("profile_made_new"), "{events}");

    network.cut("a", true);
    assert_eq!(refused("work", "{}").await, (503, json!("profile_store_unavailable")));
}

/// The command is a process of its own, which this one must answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_for_a_profile_is_seen_wherever_waiting_is_counted() {
    let network = MemoryNetwork::new();
    let a = start_node(&network, "a", |config| {
        config.pool.max_size = 4;
        config.profiles.named.insert("work".into(), ProfileConfig::default());
        config.gateway.token = Some(Secret::new("operator"));
        for name in ["ada", "ben"] {
            let (token, allow) = (Some(Secret::new(name)), vec![Scope::Lease, Scope::View]);
            let tenant = TenantConfig { token, allow, ..TenantConfig::default() };
            config.tenants.insert(name.into(), tenant);
        }
    })
    .await;
    let holder = Holder::new(&network, "holder");
    let claimed = holder.claim("work").await;
    let get = async |path: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        request(a.address(), "GET", path, &[("authorization", &bearer)], "").await
    };
    let seen = async {
        let state = async || get("/api/state", "operator").await.json();
        until("it waits, and why is known", async || {
            state().await["waiters"][0]["why"] == "profile in use at holder"
        })
        .await;
        let state = state().await;
        let waiter = &state["waiters"][0];
        let shown = (&waiter["profile"], &waiter["tenant"], &waiter["priority"]);
        assert_eq!(shown, (&json!("work"), &json!("ada"), &json!(3)));
        assert_eq!((&waiter["position"], &waiter["expected_ms"]), (&json!(1), &json!(null)));
        assert_eq!(state["load"]["waiting"], 1);
        assert!(state["oldest_wait_ms"].is_u64(), "{state}");
        let tenants = state["tenants"].as_array().expect("a list").iter();
        let waiting: Vec<_> = tenants.map(|tenant| (&tenant["name"], &tenant["waiting"])).collect();
        let [ada, ben] = [json!("ada"), json!("ben")];
        assert_eq!(waiting, [(&ada, &json!(1)), (&ben, &json!(0))]);
        assert_eq!(get("/api/state", "ben").await.json()["waiters"], json!([]), "not its own");

        assert_eq!(get("/pressure", "operator").await.json()["pressure"]["queued"], 1);
        let text = get("/metrics", "operator").await.body;
        assert!(text.contains("browserpool_pending_requests{pool=\"default\"} 1\n"), "{text}");
        let oldest = "browserpool_oldest_pending_request_age_seconds{pool=\"default\"} 0\n";
        assert!(!text.contains(oldest), "{text}");
        until("the fleet hears of it", async || {
            (each(&a, "waiting").await, each(&a, "queued").await)
                == (vec![1.into()], vec![1.into()])
        })
        .await;
        let figures = get("/api/autoscale", "operator").await.json();
        assert_eq!(figures["waiting"], 1, "{figures}");
        let all = get("/pressure?scope=fleet", "operator").await.json();
        let pressure = (&all["pressure"]["queued"], &all["pressure"]["isAvailable"]);
        assert_eq!(pressure, (&json!(1), &json!(true)), "and there is room for others");

        let url = format!("http://{}", a.address());
        let mut command = command();
        command.arg("status").env("POOL_URL", url).env("POOL_TOKEN", "operator");
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let output = output.expect("no panic").expect("the binary is built");
        let screen = String::from_utf8(output.stdout).expect("it is text");
        assert!(screen.contains("1 waiting"), "{screen}");
        assert!(screen.contains("profile in use at holder"), "{screen}");
        claimed.release_untouched().await.expect("the store is there");
    };
    let (mut client, ()) = tokio::join!(a.connect("/?profile=work&priority=3&token=ada"), seen);
    ask(&mut client, "hello").await;
    let state = get("/api/state", "operator").await.json();
    assert_eq!((&state["load"]["waiting"], &state["waiters"]), (&json!(0), &json!([])));
    assert_eq!(state["oldest_wait_ms"], json!(null));

    // One that gives up leaves nothing behind.
    drop(client);
    let held = holder.claim("work").await;
    let (status, _) = a.refused("/?profile=work&token=ada&acquire_timeout=300").await;
    assert_eq!(status, 408);
    assert_eq!(get("/api/state", "operator").await.json()["load"]["waiting"], 0);
    drop(held);
}

#[tokio::test]
async fn a_profile_that_comes_to_a_node_is_counted() {
    let network = MemoryNetwork::new();
    let a = start_node(&network, "a", |config| {
        config.profiles.named.insert("work".into(), ProfileConfig::default());
    })
    .await;
    let holder = Holder::new(&network, "holder");
    holder.claim("work").await.release(PATIENCE).await.expect("the store is there");
    let _client = a.connect("/?profile=work").await;
    let text = a.get("/metrics").await.body;
    for line in [
        r#"transfers_total{pool="default",direction="in",outcome="ok"} 1"#,
        r#"transfer_seconds_count{pool="default",direction="in"} 1"#,
    ] {
        let line = format!("browserpool_fleet_profile_{line}\n");
        assert!(text.contains(&line), "no {line} in\n{text}");
    }
}

/// The commands are processes of their own, which this one must answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_show_the_nodes_and_leases_of_all_and_change_any_of_them() {
    let (network, a, b) = two(|_| ()).await;
    let url = format!("http://{}", a.address());
    let run = |arguments: &'static [&str]| {
        let mut command = command();
        command.args(arguments).env("POOL_URL", &url);
        async {
            let output = tokio::task::spawn_blocking(move || command.output()).await;
            let output = output.expect("no panic").expect("the binary is built");
            let text = |bytes| String::from_utf8(bytes).expect("it is text");
            (output.status.code(), text(output.stdout), text(output.stderr))
        }
    };
    let drained = run(&["drain", "--node", "b.test"]).await;
    assert_eq!(drained, (Some(0), "b.test: draining, 0 leased\n".into(), String::new()));
    until("a hears it", async || each(&a, "phase").await == ["running", "draining"]).await;
    let (_, screen, _) = run(&["status"]).await;
    let row = |name: &str| -> Vec<String> {
        let line = screen.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{screen}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    let address = |node: &Running| format!("ws://{}", node.address());
    // Between the two halves is its age.
    let (own, other) = (row("a *"), row("b.test"));
    assert_eq!(own[1..8], ["*", "running", "1", "0", "0", "0", "-"]);
    assert_eq!(other[..7], ["b.test", "draining", "1", "0", "0", "0", "-"]);
    for (row, node) in [(&own, &a), (&other, &b)] {
        assert!(row[row.len() - 3].ends_with('s'), "no age: {row:?}");
        assert_eq!(row[row.len() - 2..], ["1.2.3".to_owned(), address(node)]);
    }
    let (code, _, error) = run(&["drain", "--node", "c"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("nothing is heard from the node \"c\""), "{error}");
    assert_eq!(run(&["undrain", "--node", "b.test"]).await.1, "b.test: running, 0 leased\n");

    let _client = b.connect("/?trackingId=job-7").await;
    let (_, list, _) = run(&["lease", "list"]).await;
    assert!(
        list.lines().any(|line| line.starts_with("b.test.") && line.contains("job-7")),
        "{list}"
    );
    let killed = run(&["lease", "kill", "b.test."]).await;
    assert_eq!(killed, (Some(0), "1 lease ended\n".into(), String::new()));

    network.cut("a", true);
    until("a is alone", async || names(&a).await == ["a"]).await;
    let (_, screen, _) = run(&["status"]).await;
    assert!(screen.contains("a is alone: NATS is disconnected"), "{screen}");
}

#[tokio::test]
async fn a_scaler_counts_each_client_once_and_gets_no_figures_of_half_a_fleet() {
    let (network, a, b) = two(|config| config.pool.min_size = 1).await;
    let (mut first, mut second) = (a.connect("/").await, b.connect("/").await);
    ask(&mut first, "hello").await;
    ask(&mut second, "hello").await;
    let third = async {
        let _client = a.connect("/").await;
    };
    let figures = async {
        let figures = async || b.get("/api/autoscale").await.json();
        until("the third waits", async || figures().await["waiting"] == 1).await;
        until("it has waited a while", async || {
            figures().await["oldest_wait_seconds"].as_f64() > Some(0.5)
        })
        .await;
        let Value::Object(mut figures) = figures().await else { panic!("no object") };
        figures.remove("oldest_wait_seconds");
        let expected =
            json!({"nodes": 2, "places": 2, "leased": 2, "waiting": 1, "wanted_places": 5});
        assert_eq!(Value::Object(figures), expected);
        assert_eq!(each(&b, "queued").await, [1, 1], "it stands in both queues");
        drop(first);
    };
    tokio::join!(third, figures);

    network.cut("b.test", true);
    until("b is alone", async || names(&b).await == ["b.test"]).await;
    let refused = b.get("/api/autoscale").await;
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("fleet_unavailable")));
    assert_eq!(status(&b, "/readyz").await, 200, "it serves its own clients");
}

#[tokio::test]
async fn sessions_and_pressure_answer_for_all_nodes_and_say_who_is_missing() {
    let (_network, a, b) = two(|_| ()).await;
    let (mut first, mut second) =
        (a.connect("/?trackingId=one").await, b.connect("/?trackingId=two").await);
    ask(&mut first, "hello").await;
    ask(&mut second, "hello").await;
    let told = |answer: Answer| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let leases = answer.json();
        let leases = leases.as_array().expect("a list");
        leases.iter().map(|lease| (text(&lease["node"]), text(&lease["trackingId"]))).collect()
    };
    let [one, two] = [("a", "one"), ("b.test", "two")].map(|(node, id)| (node.into(), id.into()));
    assert_eq!(told(a.get("/sessions").await), std::slice::from_ref(&one));
    assert_eq!(told(a.get("/sessions?scope=fleet").await), [one.clone(), two]);
    assert_eq!(status(&a, "/sessions?scope=world").await, 400);

    until("a hears of both", async || each(&a, "leased").await == [1, 1]).await;
    let pressure = async |path| a.get(path).await.json()["pressure"].clone();
    let (here, all) = (pressure("/pressure").await, pressure("/pressure?scope=fleet").await);
    assert_eq!((&here["running"], &here["maxConcurrent"]), (&json!(1), &json!(1)));
    assert_eq!((&all["running"], &all["maxConcurrent"]), (&json!(2), &json!(2)));

    drop(b.server);
    let answer = a.get("/sessions?scope=fleet").await;
    assert!(answer.head.contains("browser-pool-missing: b.test"), "{}", answer.head);
    assert_eq!(told(answer), [one]);
}

#[tokio::test]
async fn a_node_without_browsers_is_ready_once_it_hears_one_with_them_and_counts_what_it_relays() {
    let network = MemoryNetwork::new();
    let gateway = start_node(&network, "gateway", |config| config.pool.max_size = 0).await;
    let answer = gateway.get("/readyz").await;
    assert_eq!((answer.status, &*answer.body), (503, "no live node with browsers is known\n"));
    let _node = start_node(&network, "node", |_| ()).await;
    until("it is ready", async || status(&gateway, "/readyz").await == 200).await;

    let mut client = gateway.connect("/").await;
    ask(&mut client, "hello").await;
    let text = gateway.get("/metrics").await.body;
    for line in [
        r#"grants_total{pool="default",where="local"} 0"#,
        r#"grants_total{pool="default",where="remote"} 1"#,
        r#"grant_seconds_count{pool="default",where="remote"} 1"#,
        r#"relayed_connections{pool="default"} 1"#,
        r#"nodes{pool="default",phase="running"} 2"#,
        r#"connected{pool="default"} 1"#,
    ] {
        assert!(text.contains(&format!("browserpool_fleet_{line}\n")), "no {line} in\n{text}");
    }
}

#[tokio::test]
async fn a_tenant_sees_its_own_leases_of_all_nodes_and_changes_none() {
    let (_network, a, b) = two(|config| {
        config.gateway.token = Some(Secret::new("operator"));
        for (name, allow) in
            [("ada", vec![Scope::Lease, Scope::View]), ("scaler", vec![Scope::Metrics])]
        {
            let token = Some(Secret::new(name));
            let tenant = TenantConfig { token, allow, ..TenantConfig::default() };
            config.tenants.insert(name.to_owned(), tenant);
        }
    })
    .await;
    let _own = b.connect("/?token=ada&trackingId=own").await;
    let _other = a.connect("/?token=operator").await;
    let get = async |token, path| {
        let bearer = format!("Bearer {token}");
        request(a.address(), "GET", path, &[("authorization", &bearer)], "").await
    };
    let seen = get("ada", "/sessions?scope=fleet").await.json();
    assert_eq!(seen.as_array().map(Vec::len), Some(1), "{seen}");
    assert_eq!((&seen[0]["node"], &seen[0]["trackingId"]), (&json!("b.test"), &json!("own")));
    // The query may hold the token as well, and goes on without the scope.
    let seen = a.get("/sessions?token=ada&scope=fleet").await.json();
    assert_eq!(seen.as_array().map(Vec::len), Some(1), "{seen}");

    assert_eq!(get("ada", "/api/fleet").await.status, 403);
    assert_eq!(get("ada", "/api/autoscale").await.status, 403);
    assert_eq!(get("scaler", "/api/autoscale").await.status, 200);
    assert!(get("ada", "/api/state").await.json()["fleet"].is_null(), "it sees no addresses");
    for node in ["a", "b.test"] {
        for (token, status) in [("ada", 403), ("guessed", 401)] {
            let bearer = format!("Bearer {token}");
            let headers =
                [("authorization", bearer.as_str()), ("content-type", "application/json")];
            for path in [format!("/api/fleet/{node}/drain"), "/api/profiles/x/make-new".into()] {
                let answer = request(a.address(), "POST", &path, &headers, "{}").await;
                assert_eq!(answer.status, status, "{path} {token}");
            }
        }
    }
    assert_eq!(each(&a, "phase").await, ["running", "running"]);
}

#[tokio::test]
async fn a_client_waits_on_whose_offer_is_of_a_node_that_begins_to_drain() {
    let network = MemoryNetwork::new();
    let (gateway, place) = (
        |config: &mut Config| config.pool.max_size = 0,
        |config: &mut Config| config.pool.max_size = 1,
    );
    let (front, drains, stays) = tokio::join!(
        start_node(&network, "front", gateway),
        start_node(&network, "drains", place),
        start_node(&network, "stays", place),
    );
    until("all are heard", async || names(&front).await.len() == 3).await;
    let mut taken = stays.connect("/").await;
    ask(&mut taken, "hello").await;
    until("it is known to be taken", async || each(&front, "leased").await == [0, 0, 1]).await;
    // As between SIGTERM and the word of it that the fleet gets.
    drains.gateway.ask_drain();
    let waits = front.connect("/");
    let freed = async {
        until("the offer is redeemed in vain", async || {
            let fleet = front.get("/api/fleet").await.json();
            fleet["counters"]["connections_failed"].as_u64().is_some_and(|failed| failed > 0)
        })
        .await;
        drop(taken);
    };
    let (mut client, ()) = tokio::join!(waits, freed);
    ask(&mut client, "hello").await;
    assert_eq!(stays.get("/sessions").await.json().as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_pool_that_is_in_no_fleet_says_so_and_speaks_for_itself() {
    let pool = start(|config| config.pool.min_size = 1).await;
    for answer in [
        pool.get("/api/fleet").await,
        pool.post("/api/fleet/a/drain", "{}").await,
        pool.post("/api/profiles/x/make-new", "{}").await,
    ] {
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("no_fleet")));
    }
    let _client = pool.connect("/").await;
    let figures = pool.get("/api/autoscale").await.json();
    let expected = json!({
        "nodes": 1, "places": 2, "leased": 1, "waiting": 0, "oldest_wait_seconds": 0.0,
        "wanted_places": 2,
    });
    assert_eq!(figures, expected);
    let leases = pool.get("/sessions?scope=fleet").await.json();
    assert!(leases.as_array().is_some_and(|all| all.len() == 1), "{leases}");
    assert!(leases[0].get("node").is_none(), "{leases}");
    assert!(pool.get("/api/state").await.json()["fleet"].is_null());
}

#[tokio::test]
async fn a_name_that_could_not_be_freed_is_still_that_of_the_next_lease() {
    let (network, a, b) = two(|_| ()).await;
    let mut client = a.connect("/?session=mine").await;
    ask(&mut client, "hello").await;
    // The lease ends while the store of the names cannot be reached.
    network.cut("a", true);
    assert_eq!(a.post("/kill/all", "{}").await.status, 200);
    drop(client);
    until("it is over", async || a.get("/sessions").await.json() == json!([])).await;
    network.cut("a", false);
    until("a is back", async || names(&a).await == ["a", "b.test"]).await;
    let mut next = a.connect("/?session=mine").await;
    ask(&mut next, "hello").await;
    drop(next);
    // And for a client that comes to another node.
    let mut joined = b.connect("/?session=mine").await;
    ask(&mut joined, "hello").await;
    assert_eq!(a.get("/sessions").await.json()[0]["session"], "mine");
}

#[tokio::test]
async fn a_client_with_an_offer_does_not_wait_for_one_that_waits_for_the_same_name() {
    let (_network, a, b) = two(|_| ()).await;
    let mut here = a.connect("/").await;
    ask(&mut here, "hello").await;
    let mut there = b.connect("/").await;
    ask(&mut there, "hello").await;
    // The older one comes from a, so that the browser of b is offered to it while b's own client waits.
    let waiting = async |node: &Running| {
        nodes(node).await.iter().map(|node| node["waiting"].as_u64().unwrap_or(0)).sum::<u64>()
    };
    let older = a.connect("/?session=mine");
    let younger = async {
        until("the older one waits", async || waiting(&a).await == 1).await;
        b.connect("/?session=mine").await
    };
    let freed = async {
        until("both wait", async || waiting(&b).await == 2).await;
        drop(there);
    };
    let (mut older, mut younger, ()) = tokio::join!(older, younger, freed);
    ask(&mut older, "hello").await;
    ask(&mut younger, "hello").await;
    let leases = b.get("/sessions?scope=fleet").await.json();
    let of_the_name = leases.as_array().expect("a list").iter();
    assert_eq!(of_the_name.filter(|lease| lease["session"] == "mine").count(), 1, "{leases}");
    let counters = a.get("/api/fleet").await.json()["counters"].clone();
    assert_eq!(counters["connections_failed"], 0, "it was connected at once: {counters}");
}
