//! Fleets of real engines in virtual time, beside one perfect central queue with the same clients.
//!
//! Leases are log-normal with a mean of 10 s, nodes have 8 places, a message takes 0.5 ms, clients
//! come to random nodes. Waits are until the lease is connected to. All nodes run in one thread.
//!
//! `cargo bench -p pool-fleet --bench simulation`, or with the numbers of nodes:
//! `cargo bench -p pool-fleet --bench simulation -- 100 1000`

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/simulation/world/mod.rs"]
mod world;

use std::time::{Duration, Instant};

use world::load::{FILLED, Stream, central, mean_and_p99};
use world::{Fate, Plan, World};

const PLACES: usize = 8;
/// Seconds of virtual time that are measured, after half as many that are not.
const SIZES: [(usize, u64); 4] = [(10, 2000), (100, 600), (1000, 30), (5000, 8)];

fn main() {
    let chosen: Vec<usize> = std::env::args().filter_map(|size| size.parse().ok()).collect();
    println!(
        "| nodes | busy | central, mean / p99 s | fleet, mean / p99 s | within bound | elsewhere | \
         messages a request, most | older passed | busiest node, messages/s | run |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (nodes, seconds) in SIZES {
        if !chosen.is_empty() && !chosen.contains(&nodes) {
            continue;
        }
        for busy in [0.70, 0.90, 0.97] {
            run(nodes, seconds, busy);
        }
    }
}

fn run(nodes: usize, seconds: u64, busy: f64) {
    let began = Instant::now();
    let settled = FILLED + Duration::from_secs(seconds / 2);
    let until = settled + Duration::from_secs(seconds);
    let stream = Stream {
        gateways: nodes,
        places: nodes * PLACES,
        busy,
        lease: Duration::from_secs(10),
        until,
        timeout: Duration::from_secs(3600),
        seed: 19,
    };
    let visits = stream.visits();
    let counted = visits.partition_point(|visit| visit.at < settled);
    let mut best = central(&visits, nodes * PLACES).split_off(counted);

    let plan = Plan { nodes, places: PLACES, checked: false, seed: 19, ..Plan::default() };
    let mut world = World::new(plan);
    for &visit in &visits {
        world.visit(visit);
    }
    world.run_until(settled);
    world.counts.restart();
    world.run_until(until);
    let served = world.counts.served;
    let messages = world.counts.messages() as f64 / served as f64;
    let passed = world.counts.passed as f64 / served as f64;
    let elsewhere = 100.0 * world.counts.remote as f64 / served as f64;
    let busiest = world.counts.busiest(settled);
    world.run_until_served();
    let mut waits: Vec<Duration> = world
        .fates()
        .skip(counted)
        .map(|(_, fate)| match fate {
            Fate::Served { wait, .. } => *wait,
            other => panic!("a client was not served: {other:?}"),
        })
        .collect();

    let (central_mean, central_p99) = mean_and_p99(&mut best);
    let (mean, p99) = mean_and_p99(&mut waits);
    let bound = |central: Duration| central.mul_f64(1.5) + Duration::from_millis(50);
    let within = mean <= bound(central_mean) && p99 <= bound(central_p99);
    println!(
        "| {nodes} | {:.0} % | {:.3} / {:.3} | {:.3} / {:.3} | {} | {elsewhere:.0} % | {messages:.1}, \
         {} | {passed:.2} | {busiest} | {:.0?} |",
        busy * 100.0,
        central_mean.as_secs_f64(),
        central_p99.as_secs_f64(),
        mean.as_secs_f64(),
        p99.as_secs_f64(),
        if within { "yes" } else { "no" },
        world.counts.most,
        began.elapsed(),
    );
}
