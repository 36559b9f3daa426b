//! A gateway over browsers that are not there: they answer every message with itself.

#![allow(dead_code, unused_imports, reason = "each test file uses its part of it")]

mod browser;
mod hooks;
mod http;
mod service;
mod site;
mod visit;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pool_cli::config::{Config, FleetConfig, Secret};
use pool_cli::fleet::{Fleet, TravellingPool, TravellingProfiles};
use pool_cli::gateway::{Gateway, Server, Settings};
use pool_cli::metrics::Observer;
use pool_cli::pool::tenants;
use pool_core::Pool;
use pool_fleet::{Member, MemoryNetwork};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::http::Response;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

pub(crate) use browser::FakeBrowsers;
pub(crate) use hooks::{Call, Hooks};
pub(crate) use http::{Answer, request};
pub(crate) use service::{Cdp, Service, command, processes_below, renderers};
pub(crate) use site::Site;
pub(crate) use visit::{Visit, end};

/// Longer than anything here may take, such as the end of a pool whose browsers are still starting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Client = WebSocketStream<TcpStream>;

/// A gateway that listens, and the pool behind it.
pub(crate) struct Running {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) server: Server,
    pub(crate) browsers: FakeBrowsers,
    _alerts: JoinSet<()>,
    _state: TempDir,
}

/// Starts a gateway with these settings: two browsers at most, none kept ready.
pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Running {
    start_in(None, change).await
}

/// Starts such a gateway as a node of a fleet, which is ready when it has joined.
pub(crate) async fn start_node(
    network: &MemoryNetwork,
    name: &str,
    change: impl FnOnce(&mut Config),
) -> Running {
    let node = |config: &mut Config| {
        config.fleet = Some(FleetConfig {
            nats: vec!["nats://127.0.0.1:4222".to_owned()],
            node: Some(name.to_owned()),
            secret: Some(Secret::new("the secret of a fleet in a test")),
            ..FleetConfig::default()
        });
        change(config);
    };
    start_in(Some(network), node).await
}

async fn start_in(network: Option<&MemoryNetwork>, change: impl FnOnce(&mut Config)) -> Running {
    let state = tempfile::tempdir().expect("a directory");
    let mut config = Config::default();
    config.pool.state_dir = state.path().to_owned();
    config.pool.min_size = 0;
    config.pool.max_size = 2;
    change(&mut config);
    let browsers = FakeBrowsers::default();
    let observer = Observer::new(&config.pool.name);
    let mut builder = Pool::builder(browsers.clone());
    if !config.tenants.is_empty() {
        builder = builder.policy(tenants(&config).expect("the settings are right"));
    }
    let pool = builder
        .policy(observer.clone())
        .min_size(config.pool.min_size)
        .max_size(config.pool.max_size)
        .max_waiting(config.pool.max_waiting)
        .health_check_interval(config.pool.health_check_interval)
        .build()
        .expect("the settings are right");
    observer.alerts().configure(&config.alerts);
    observer.alerts().set_tenants(config.tenants.keys());
    let alerts = observer.alerts().run();
    let settings = Settings::new(&config).expect("the settings are right");
    let profiles = TravellingProfiles::new(&config, observer.metrics());
    let gateway = Gateway::new(settings, Arc::new(pool.clone()), observer);
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::start(&gateway, listen).await.expect("a port is free");
    if let (Some(network), Some(fleet)) = (network, &config.fleet) {
        let (node, address) = (fleet.node_name(), format!("ws://{}", server.address()));
        let member = Member::new("test", &node, &address).version("1.2.3").label("zone", "here");
        let transport = network.member(&node);
        let secret = fleet.secret.as_ref().expect("it is set");
        gateway.join(if config.profiles.named.is_empty() {
            let joined = pool_fleet::Fleet::join(member, pool, transport.clone()).await;
            Fleet::new(joined.expect("the name is free"), transport, secret)
        } else {
            let member = member.profiles(config.profiles.named.keys().map(String::as_str), false);
            let pool = TravellingPool::new(pool, profiles);
            let joined = pool_fleet::Fleet::join(member, pool, transport.clone()).await;
            Fleet::with_profiles(joined.expect("the name is free"), transport, secret)
        });
    }
    Running { gateway, server, browsers, _alerts: alerts, _state: state }
}

impl Running {
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Connects a client; `path` may have a query.
    pub(crate) async fn connect(&self, path: &str) -> Client {
        self.try_connect(path, &[]).await.expect("the gateway gives a lease").0
    }

    /// Connects a client with headers of its own; the answer is that of the handshake.
    pub(crate) async fn try_connect(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(Client, Response<Option<Vec<u8>>>), Error> {
        let stream = TcpStream::connect(self.address()).await.expect("the gateway listens");
        let mut request = format!("ws://{}{path}", self.address()).into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        // The tests' own limits are not what is tested.
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await
    }

    /// The status and the problem of a handshake that is refused.
    pub(crate) async fn refused(&self, path: &str) -> (u16, serde_json::Value) {
        self.refused_with(path, &[]).await
    }

    pub(crate) async fn refused_with(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> (u16, serde_json::Value) {
        let answer = timeout(PATIENCE, self.try_connect(path, headers)).await.expect("an answer");
        match answer {
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
                assert_eq!(kind, "application/problem+json");
                (response.status().as_u16(), serde_json::from_slice(&body).expect("a problem"))
            }
            other => panic!("not refused: {:?}", other.map(|(_, response)| response)),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        request(self.address(), "GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let json = [("content-type", "application/json")];
        request(self.address(), "POST", path, &json, body).await
    }

    /// Waits until the pool looks like this.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&pool_core::Load) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.gateway.pool().load()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.gateway.pool().load());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a metric has this value.
    pub(crate) async fn until_metric(&self, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.get("/metrics").await.body;
            if text.lines().any(|found| found == line) {
                return;
            }
            assert!(Instant::now() < deadline, "no {line} in\n{text}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Returns a port of loopback at which nobody listens, below those that the kernel gives to whoever asks for any and
/// to each connection: of those, another test may get it before it is used.
pub(crate) fn unused_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| fastrand::u16(10_000..30_000)).take(1000);
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.find(free).expect("one of them is free")
}

/// Sends a message and returns the answer.
pub(crate) async fn ask(client: &mut Client, text: &str) -> String {
    client.send(Message::text(text)).await.expect("the connection is open");
    match timeout(PATIENCE, client.next()).await.expect("an answer") {
        Some(Ok(Message::Text(answer))) => answer.to_string(),
        other => panic!("no answer: {other:?}"),
    }
}

/// Waits for the close frame: its code and reason.
pub(crate) async fn closed(client: &mut Client) -> (u16, String) {
    loop {
        match timeout(PATIENCE, client.next()).await.expect("a close frame") {
            Some(Ok(Message::Close(Some(frame)))) => {
                return (frame.code.into(), frame.reason.to_string());
            }
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    }
}
