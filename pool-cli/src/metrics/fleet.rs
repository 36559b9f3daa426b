use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::exposition::{Family, Maker};
use crate::api::Fleet;

/// Phases of a node that is heard.
const PHASES: [&str; 3] = ["starting", "running", "draining"];

/// Places of a lease, as seen from the node that its client came to.
const PLACES: [&str; 2] = ["local", "remote"];

/// The series of a pool that is in a fleet.
pub(super) struct FleetSeries {
    nodes: Family<Gauge>,
    connected: Gauge,
    asks: Counter,
    offers: Family<Counter>,
    grants: Family<Counter>,
    relayed: Gauge,
    seconds: Family<Histogram>,
}

impl FleetSeries {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Self {
            nodes: make.gauges(
                "browserpool_fleet_nodes",
                "Nodes of the fleet that this one hears, itself included, by phase.",
                "phase",
                PHASES,
            ),
            connected: make.gauge(
                "browserpool_fleet_connected",
                "1 while this node is connected to NATS; without, it goes on alone.",
            ),
            asks: make.counter(
                "browserpool_fleet_asks_total",
                "Requests of clients here that were sent to other nodes, each node counted.",
            ),
            offers: make.counters(
                "browserpool_fleet_offers_total",
                "Browsers of this node that were offered to others, by outcome.",
                "outcome",
                ["accepted", "declined", "unanswered"],
            ),
            grants: make.counters(
                "browserpool_fleet_grants_total",
                "Leases of clients here, by where the browser is: local or remote.",
                "where",
                PLACES,
            ),
            relayed: make.gauge(
                "browserpool_fleet_relayed_connections",
                "Connections of clients here to browsers of other nodes.",
            ),
            seconds: make.seconds_by(
                "browserpool_fleet_grant_seconds",
                "Time from a request to its lease, by where the browser is.",
                "where",
                PLACES,
            ),
        }
    }

    /// Counts a lease of a client.
    pub(super) fn granted(&self, is_local: bool, took: Duration) {
        let place = if is_local { "local" } else { "remote" };
        self.seconds.of(place).record(took.as_secs_f64());
    }

    pub(super) fn set(&self, fleet: &Fleet) {
        for phase in PHASES {
            let nodes = fleet.nodes.iter().filter(|node| node.phase == phase).count();
            self.nodes.of(phase).set(nodes as f64);
        }
        self.connected.set(f64::from(u8::from(fleet.connected)));
        self.relayed.set(fleet.relayed as f64);
        let counters = &fleet.counters;
        self.asks.absolute(counters.asks);
        self.offers.of("accepted").absolute(counters.offers_accepted);
        self.offers.of("declined").absolute(counters.offers_declined);
        self.offers.of("unanswered").absolute(counters.offers_unanswered);
        self.grants.of("local").absolute(counters.granted_here);
        self.grants.of("remote").absolute(counters.granted_there);
    }
}
