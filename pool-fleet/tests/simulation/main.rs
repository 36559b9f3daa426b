//! Fleets of real engines in virtual time, with a network and machines that fail.
//!
//! After every step: no resource has two holders, every place is accounted for, every client is
//! served or told by its deadline, an ask stands nowhere 3 s after its end, and no request costs
//! more than 25 messages.

#[allow(dead_code, reason = "the benchmark uses the rest")]
mod world;

use std::time::Duration;

use world::load::Stream;
use world::{Fate, Fault, Plan, World};

const SECOND: Duration = Duration::from_secs(1);

/// Clients of two seconds each, until then.
fn stream(nodes: usize, places: usize, busy: f64, until: u64, seed: u64) -> Stream {
    Stream {
        gateways: nodes,
        places: nodes * places,
        busy,
        lease: 2 * SECOND,
        until: Duration::from_secs(until),
        timeout: 20 * SECOND,
        seed,
    }
}

/// Runs a world with a stream of clients and its faults, until all are served or told and all
/// places have come back.
fn run(plan: &Plan, busy: f64, faults: &[(u64, Fault)]) -> World {
    let until = 60;
    let mut world = World::new(plan.clone());
    for visit in stream(plan.nodes, plan.places, busy, until, plan.seed).visits() {
        world.visit(visit);
    }
    for (at, fault) in faults {
        world.fault(Duration::from_millis(*at), fault.clone());
    }
    world.run_until(Duration::from_secs(until + 60));
    settled(&world);
    world
}

/// Panics unless every client has its answer and every place is free again.
fn settled(world: &World) {
    for (visit, fate) in world.fates() {
        assert_ne!(*fate, Fate::Waits, "{visit:?}");
    }
    assert_eq!(world.leased(), 0, "a place is lost");
    for node in world.living() {
        assert_eq!(world.engine(node).asker().waiting(), 0);
        assert_eq!(world.engine(node).holder().waiting(), 0);
    }
}

fn served(world: &World) -> usize {
    world.fates().filter(|(_, fate)| matches!(fate, Fate::Served { .. })).count()
}

#[test]
fn a_healthy_fleet_serves_everybody() {
    let world = run(&Plan::default(), 0.9, &[]);
    assert_eq!(served(&world), world.fates().count());
}

#[test]
fn lost_doubled_and_late_messages_lose_nobody() {
    for seed in 1..=4 {
        let plan = Plan {
            nodes: 4,
            seed,
            loss: 0.05,
            doubled: 0.05,
            jitter: Duration::from_millis(40),
            worn: 0.1,
            ..Plan::default()
        };
        run(&plan, 0.9, &[]);
    }
}

#[test]
fn a_partition_ends_no_lease_and_loses_no_place() {
    for seed in 1..=3 {
        let plan = Plan { nodes: 5, seed, ..Plan::default() };
        let groups = vec![0, 0, 1, 1, 1];
        run(&plan, 0.9, &[(15_000, Fault::Partition(groups)), (35_000, Fault::Heal)]);
    }
}

#[test]
fn nodes_that_die_and_come_back_lose_only_what_they_had() {
    for seed in 1..=3 {
        let plan = Plan { nodes: 5, seed, loss: 0.01, ..Plan::default() };
        let faults = [
            (10_000, Fault::Kill(1)),
            (12_000, Fault::Kill(3)),
            (20_000, Fault::Restart(1)),
            (20_500, Fault::Kill(0)),
            (20_600, Fault::Restart(0)),
            (40_000, Fault::Restart(3)),
        ];
        run(&plan, 0.9, &faults);
    }
}

#[test]
fn whatever_happens_nothing_is_leased_twice() {
    for seed in 1..=12 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let nodes = rng.usize(3..8);
        let plan = Plan {
            nodes,
            places: rng.usize(1..4),
            zones: rng.usize(0..3),
            seed,
            loss: 0.1 * rng.f64(),
            doubled: 0.1 * rng.f64(),
            jitter: Duration::from_millis(rng.u64(0..200)),
            worn: 0.2 * rng.f64(),
            max_waiting: if rng.bool() { 4 } else { 1000 },
            ..Plan::default()
        };
        let mut faults = Vec::new();
        for node in 0..nodes {
            let (from, to) = (rng.u64(5_000..30_000), rng.u64(30_000..55_000));
            let (begin, end) = match rng.u32(0..6) {
                0 => (Fault::Kill(node), Fault::Restart(node)),
                1 => (Fault::Stop(node), Fault::Continue(node)),
                2 => (Fault::Break(node), Fault::Mend(node)),
                3 => {
                    let groups = (0..nodes).map(|_| rng.u32(0..2)).collect();
                    (Fault::Partition(groups), Fault::Heal)
                }
                4 => (Fault::Loss(0.3), Fault::Loss(0.0)),
                _ => (Fault::GiveUp(node), Fault::GiveUp(node)),
            };
            faults.extend([(from, begin), (to, end)]);
        }
        run(&plan, 0.5 + 0.6 * rng.f64(), &faults);
    }
}
