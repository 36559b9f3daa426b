//! The fleet as its users and operators see it: `/api/fleet`, `/api/autoscale`, and `?scope=fleet`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use pool_fleet::{Beat, ClassLoad, Connection, Phase, ProfileError, Snapshot};
use url::form_urlencoded;

use super::relay::Detour;
use super::request::Body;
use super::{Code, Gateway, Problem};
use crate::api::{
    Autoscale, Fleet, FleetCounters, Killed, Lease, MadeNew, MakeNew, Node, Severity,
};
use crate::exit::chain;
use crate::fleet::NotMadeNew;

/// The nodes that a request is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Scope {
    /// The node that answers.
    #[default]
    Node,
    /// All nodes that are heard.
    Fleet,
}

impl Scope {
    /// Reads `?scope=`.
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        let scope = uri_pairs(uri).find(|(name, _)| name == "scope");
        match scope.as_ref().map(|(_, scope)| &**scope) {
            None | Some("node") => Ok(Self::Node),
            Some("fleet") => Ok(Self::Fleet),
            Some(_) => Err(Problem::new(Code::BadParameter, "scope must be node or fleet")),
        }
    }
}

/// Header that names the nodes that are missing from an answer for the fleet.
const MISSING: HeaderName = HeaderName::from_static("browser-pool-missing");

/// Adds the other nodes' answers to the leases of this one. A node that does not answer is named in
/// a header.
pub(super) async fn with_others(
    gateway: &Gateway,
    detour: Option<&Detour>,
    uri: &Uri,
    mut leases: Vec<Lease>,
) -> Response {
    let (Some(fleet), Some(detour)) = (gateway.see_fleet().await, detour) else {
        return Json(leases).into_response();
    };
    let mut missing = Vec::new();
    for (node, answer) in ask_others(&fleet, detour, &without_scope(uri)).await {
        match answer.ok().and_then(|body| serde_json::from_slice::<Vec<Lease>>(&body).ok()) {
            Some(more) => leases.extend(more),
            None => missing.push(node.name.as_str()),
        }
    }
    let mut response = Json(leases).into_response();
    if !missing.is_empty()
        && let Ok(names) = HeaderValue::from_str(&missing.join(","))
    {
        response.headers_mut().insert(MISSING, names);
    }
    response
}

/// Asks all other nodes the question that this one was asked.
async fn ask_others<'a>(
    fleet: &'a Fleet,
    detour: &Detour,
    uri: &Uri,
) -> Vec<(&'a Node, Result<Bytes, Problem>)> {
    let others = fleet.nodes.iter().filter(|node| !node.own);
    let asks = others.map(|node| async move { (node, detour.ask(node, uri).await) });
    join_all(asks).await
}

/// Ends leases of the other nodes, in the same way as this one was asked to. Returns how many were
/// ended.
pub(super) async fn kill_elsewhere(gateway: &Gateway, detour: &Detour, uri: &Uri) -> usize {
    let Some(fleet) = gateway.see_fleet().await else { return 0 };
    let answers = ask_others(&fleet, detour, uri).await.into_iter();
    // A node that has none of these leases answers that it does not know them.
    let killed =
        answers.filter_map(|(_, answer)| serde_json::from_slice::<Killed>(&answer.ok()?).ok());
    killed.map(|killed| killed.killed).sum()
}

/// Returns the address at which each node is asked about itself only.
fn without_scope(uri: &Uri) -> Uri {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(uri_pairs(uri).filter(|(name, _)| name != "scope"));
    let uri = format!("{}?{}", uri.path(), query.finish());
    uri.parse().expect("a path and an encoded query are an address")
}

fn uri_pairs(uri: &Uri) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}

/// `GET /api/fleet`.
pub(super) async fn fleet(State(gateway): State<Arc<Gateway>>) -> Result<Json<Fleet>, Problem> {
    gateway.see_fleet().await.map(Json).ok_or_else(no_fleet)
}

/// `POST /api/fleet/{node}/drain`, once it has come to that node.
pub(super) async fn drain(
    State(gateway): State<Arc<Gateway>>,
    Path(node): Path<String>,
) -> Result<Json<Node>, Problem> {
    gateway.fleet().ok_or_else(no_fleet)?.drain();
    gateway.own_node(&node).await
}

/// `POST /api/fleet/{node}/undrain`, once it has come to that node.
pub(super) async fn undrain(
    State(gateway): State<Arc<Gateway>>,
    Path(node): Path<String>,
) -> Result<Json<Node>, Problem> {
    gateway.fleet().ok_or_else(no_fleet)?.undrain();
    gateway.own_node(&node).await
}

/// `POST /api/profiles/{profile}/make-new`: of a profile that travels, and whose content is lost or
/// is to be discarded.
pub(super) async fn make_new(
    State(gateway): State<Arc<Gateway>>,
    Path(profile): Path<String>,
    Body(body): Body<MakeNew>,
) -> Result<Json<MadeNew>, Problem> {
    let fleet = gateway.fleet().ok_or_else(no_fleet)?;
    let made = fleet.make_new(&profile, &body).await;
    made.map_err(|why| not_made_new(&profile, &why))?;
    let MakeNew { instance, discard } = body;
    let content = if discard { "discarded" } else { "lost" };
    tracing::warn!(profile, instance, content, "a profile was made new");
    let reason = format!("{profile}, state {instance}: its content was {content}");
    gateway.observer().journal().note("profile_made_new", Severity::Info, reason);
    Ok(Json(MadeNew { profile, instance }))
}

/// The problem of an operator whose profile was not made new.
fn not_made_new(profile: &str, why: &NotMadeNew) -> Problem {
    let error = match why {
        NotMadeNew::Unknown => {
            let detail = format!("there is no profile {profile:?}");
            return Problem::new(Code::UnknownProfile, detail);
        }
        NotMadeNew::NoInstance { instances } => {
            let detail = match instances {
                1 => format!("{profile:?} has one state, 0"),
                _ => format!("{profile:?} has {instances} states, 0 to {}", instances - 1),
            };
            return Problem::new(Code::UnknownProfile, detail);
        }
        NotMadeNew::Stays => {
            let detail = format!("{profile:?} does not travel: it stays on each node that has it");
            return Problem::new(Code::ProfileStays, detail);
        }
        NotMadeNew::Alone => {
            let detail =
                "the NATS server of the fleet, which stores the profiles, cannot be reached";
            return store_away(detail);
        }
        NotMadeNew::Profile(error) => error,
    };
    match error {
        ProfileError::Busy { holder } => {
            let problem = Problem::new(Code::ProfileInUse, error.to_string());
            match holder {
                Some(holder) => problem.at_node(&holder.node),
                None => problem,
            }
        }
        ProfileError::Kept { .. } => Problem::new(Code::ProfileKept, error.to_string()),
        ProfileError::Unavailable(_) | ProfileError::Unknown { .. } => store_away(chain(error)),
        // Of the disk of this node; there is nothing else that it does.
        _ => Problem::new(Code::Unavailable, chain(error)).retry_after(Duration::from_secs(1)),
    }
}

fn store_away(detail: impl Into<String>) -> Problem {
    let problem = Problem::new(Code::ProfileStoreUnavailable, detail);
    problem.retry_after(Duration::from_secs(2))
}

/// `GET /api/autoscale`, for the whole fleet, or for a pool that is not in one.
///
/// A node that is cut off from its fleet refuses: it would speak for itself alone, and a scaler
/// would believe that nobody needs the others.
pub(super) async fn autoscale(
    State(gateway): State<Arc<Gateway>>,
) -> Result<Json<Autoscale>, Problem> {
    let Some(fleet) = gateway.see_fleet().await else {
        let stats = gateway.pool().stats();
        let (leased, waiting) = (stats.load.leased, stats.load.waiting);
        let kept: usize = stats.classes.iter().map(|class| class.min).sum();
        return Ok(Json(Autoscale {
            nodes: 1,
            places: stats.load.max_size,
            leased,
            waiting,
            oldest_wait_seconds: stats.oldest_wait.unwrap_or_default().as_secs_f64(),
            wanted_places: leased + waiting + kept,
        }));
    };
    if !fleet.connected {
        let detail =
            format!("NATS is {}, so this node cannot answer for its fleet", fleet.connection);
        let problem = Problem::new(Code::FleetUnavailable, detail);
        return Err(problem.retry_after(Duration::from_secs(5)));
    }
    Ok(Json(Autoscale::of(&fleet.nodes)))
}

impl Autoscale {
    pub(super) fn of(nodes: &[Node]) -> Self {
        let running = || nodes.iter().filter(|node| node.is_running());
        // Leases of a draining node have to go on somewhere, but it keeps nothing ready.
        let leased = nodes.iter().map(|node| node.leased).sum();
        let waiting = nodes.iter().map(|node| node.waiting).sum();
        let kept: usize = running().map(|node| node.kept).sum();
        let oldest = nodes.iter().map(|node| node.oldest_wait_ms).max().unwrap_or_default();
        Self {
            nodes: running().count(),
            places: running().map(|node| node.places).sum(),
            leased,
            waiting,
            oldest_wait_seconds: Duration::from_millis(oldest).as_secs_f64(),
            wanted_places: leased + waiting + kept,
        }
    }
}

impl Gateway {
    /// Returns the present state of the fleet, and remembers it for those that cannot wait for it.
    /// Returns `None` if the pool is not in a fleet.
    pub(super) async fn see_fleet(&self) -> Option<Fleet> {
        let fleet = self.fleet()?;
        let seen = match fleet.snapshot().await {
            Some(snapshot) => view(&snapshot, fleet.relays()),
            None => Fleet {
                node: fleet.name().to_owned(),
                connection: "closed, since this node has left the fleet".to_owned(),
                ..Fleet::default()
            },
        };
        self.remember_fleet(seen.clone());
        Some(seen)
    }

    async fn own_node(&self, name: &str) -> Result<Json<Node>, Problem> {
        let nodes = self.see_fleet().await.ok_or_else(no_fleet)?.nodes;
        let own = nodes.into_iter().find(|node| node.own && node.name == name);
        own.map(Json).ok_or_else(|| super::relay::node_lost(name))
    }
}

fn no_fleet() -> Problem {
    Problem::new(Code::NoFleet, "this pool is not in a fleet: its configuration has no [fleet]")
}

fn view(snapshot: &Snapshot, relayed: usize) -> Fleet {
    let others = snapshot.nodes.iter().map(|beat| node(beat, false));
    let mut nodes: Vec<Node> = others.chain([node(&snapshot.own, true)]).collect();
    nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let counters = &snapshot.counters;
    Fleet {
        node: snapshot.own.node.to_string(),
        connected: snapshot.connection.is_connected(),
        connection: match &snapshot.connection {
            Connection::Connected => "connected".to_owned(),
            Connection::Disconnected => "disconnected".to_owned(),
            Connection::Refused(reason) => format!("refused: {reason}"),
            Connection::Closed => "closed".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        },
        nodes,
        relayed,
        counters: FleetCounters {
            granted_here: counters.granted_here,
            granted_there: counters.granted_there,
            connections_failed: counters.connections_failed,
            refused: counters.refused,
            asks: counters.asks,
            offers_accepted: counters.offers_accepted,
            offers_declined: counters.offers_declined,
            offers_unanswered: counters.offers_unanswered,
            taken: counters.taken,
        },
    }
}

fn node(beat: &Beat, own: bool) -> Node {
    let sum =
        |of: fn(&ClassLoad) -> u32| beat.load.classes.values().map(|load| of(load) as usize).sum();
    Node {
        name: beat.node.to_string(),
        own,
        address: beat.address.to_string(),
        version: beat.version.to_string(),
        phase: phase(beat.phase).into(),
        labels: beat
            .labels
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        places: beat.load.places as usize,
        kept: beat.load.kept as usize,
        leased: sum(|load| load.leased),
        idle: sum(|load| load.idle),
        creating: sum(|load| load.creating),
        room: beat.load.room as usize,
        waiting: beat.clients as usize,
        queued: sum(|load| load.waiting),
        oldest_wait_ms: beat.oldest_wait_ms,
        uptime_ms: beat.uptime_ms,
        memory: beat.load.memory,
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Draining => "draining",
        Phase::Gone => "gone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(phase: &'static str, leased: usize, waiting: usize) -> Node {
        Node { phase: phase.into(), places: 8, kept: 2, leased, waiting, ..Node::default() }
    }

    #[test]
    fn a_scaler_counts_every_client_and_only_places_that_stay() {
        let gateway =
            Node { waiting: 3, oldest_wait_ms: 1500, phase: "running".into(), ..Node::default() };
        let nodes = [node("running", 8, 1), node("draining", 5, 0), gateway];
        let expected = Autoscale {
            nodes: 2,
            places: 8,
            leased: 13,
            waiting: 4,
            oldest_wait_seconds: 1.5,
            wanted_places: 13 + 4 + 2,
        };
        assert_eq!(Autoscale::of(&nodes), expected);
    }

    #[test]
    fn a_scope_is_a_node_or_the_fleet() {
        let scope = |uri| Scope::of(&Uri::from_static(uri)).map_err(|problem| problem.code());
        assert_eq!((scope("/sessions"), scope("/?token=x")), (Ok(Scope::Node), Ok(Scope::Node)));
        assert_eq!(scope("/sessions?a=b&scope=fleet"), Ok(Scope::Fleet));
        assert_eq!(scope("/?scope=world"), Err("bad_parameter"));
    }
}
