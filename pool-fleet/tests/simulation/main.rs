//! Fleets of real engines in virtual time, with a network and machines that fail.
//!
//! After every step: no resource has two holders, every place is accounted for, every client is
//! served or told by its deadline, an ask stands nowhere 3 s after its end, and no request costs
//! more than 25 messages.

#[allow(dead_code, reason = "the benchmark uses the rest")]
mod world;

use std::time::Duration;

use pool_fleet::{Phase, Reason};
use world::load::{Stream, central, mean_and_p99};
use world::{Fate, Fault, Plan, Visit, World, is_refused};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

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

/// Returns how long a client has waited for its lease.
fn wait(world: &World, client: usize) -> Duration {
    match world.fate(client) {
        Fate::Served { wait, .. } => *wait,
        other => panic!("client {client} was not served: {other:?}"),
    }
}

fn visit(at: u64, gateway: usize, lease: u64) -> Visit {
    Visit {
        at: Duration::from_millis(at),
        gateway,
        lease: Duration::from_millis(lease),
        timeout: 20 * SECOND,
        priority: 5,
    }
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
    for seed in 1..=8 {
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

#[test]
fn the_order_of_the_fleet_is_the_order_of_one_machine() {
    let mut world = World::new(Plan::default());
    // Six browsers are taken, then thirty wait at one gateway, and one with the first priority.
    let first: Vec<usize> = (0..6).map(|n| world.visit(visit(3000 + n, 0, 1000))).collect();
    let waiting: Vec<usize> =
        (0..30).map(|n| world.visit(visit(3100 + 5 * n, 0, 700 + 7 * n))).collect();
    let urgent = world.visit(Visit { priority: 1, ..visit(3300, 2, 500) });
    world.run_until(40 * SECOND);

    settled(&world);
    let nodes: std::collections::BTreeSet<usize> = first
        .iter()
        .map(|&client| match world.fate(client) {
            Fate::Served { node, .. } => *node,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(nodes.len(), 3, "all nodes serve the clients of one");
    let served = |client: usize| world.arrived(client) + wait(&world, client);
    for (place, pair) in waiting.windows(3).enumerate() {
        assert!(served(pair[0]) <= served(pair[2]), "{place}: order kept within one place");
    }
    let before = waiting.iter().filter(|&&client| served(client) < served(urgent)).count();
    assert!(before <= 1, "priority 1 is next, after {before}");
}

#[test]
fn one_waiter_launches_one_resource() {
    let mut world = World::new(Plan { nodes: 5, warm: false, ..Plan::default() });
    let client = world.visit(visit(3000, 0, 1000));
    world.run_until(10 * SECOND);
    assert!(matches!(world.fate(client), Fate::Served { .. }));
    assert_eq!(world.resources(), 1, "however many nodes know of it");
}

#[test]
fn the_right_to_create_moves_to_a_node_with_room() {
    let mut world = World::new(Plan { nodes: 3, places: 1, warm: false, ..Plan::default() });
    // The only places with room are elsewhere, and one of those cannot create.
    world.fault(2500 * MILLISECOND, Fault::Break(1));
    let first = world.visit(visit(3000, 0, 15_000));
    let second = world.visit(visit(5000, 0, 1000));
    world.run_until(30 * SECOND);
    assert_eq!(wait(&world, first), SECOND, "created at its own node");
    assert!(wait(&world, second) < 2 * SECOND, "created at the node with room");
    assert!(matches!(world.fate(second), Fate::Served { node: 2, .. }));
}

#[test]
fn a_creator_that_dies_is_replaced() {
    let mut world = World::new(Plan { nodes: 3, places: 1, warm: false, ..Plan::default() });
    world.visit(visit(3000, 0, 15_000));
    world.visit(visit(3000, 1, 15_000));
    let client = world.visit(visit(5000, 0, 1000));
    // The third node creates for it, and dies before it is done.
    world.fault(5500 * MILLISECOND, Fault::Kill(2));
    world.fault(6500 * MILLISECOND, Fault::Restart(2));
    world.run_until(30 * SECOND);
    assert!(wait(&world, client) < 6 * SECOND, "{:?}", wait(&world, client));
}

#[test]
fn when_nobody_can_the_worst_reason_is_told_at_once() {
    let mut world = World::new(Plan { nodes: 3, warm: false, ..Plan::default() });
    for node in 0..3 {
        world.fault(2500 * MILLISECOND, Fault::Break(node));
    }
    let client = world.visit(visit(5000, 0, 1000));
    world.run_until(30 * SECOND);
    assert!(is_refused(world.fate(client), Reason::Unavailable), "{:?}", world.fate(client));
    let Fate::Refused { wait, .. } = world.fate(client) else { unreachable!() };
    assert!(*wait < 50 * MILLISECOND, "{wait:?}");
}

#[test]
fn a_full_fleet_refuses_at_once() {
    let plan = Plan { nodes: 3, places: 1, max_waiting: 2, ..Plan::default() };
    let mut world = World::new(plan);
    let clients: Vec<usize> = (0..40).map(|n| world.visit(visit(3000 + 20 * n, 0, 5000))).collect();
    world.run_until(60 * SECOND);
    let full: Vec<&Fate> = clients
        .iter()
        .map(|&client| world.fate(client))
        .filter(|fate| is_refused(fate, Reason::Full))
        .collect();
    assert!(full.len() > 20, "{}", full.len());
    for fate in full {
        let Fate::Refused { wait, .. } = fate else { unreachable!() };
        assert!(*wait < 50 * MILLISECOND, "{wait:?}");
    }
}

#[test]
fn a_stopped_gateway_costs_the_others_one_offer() {
    let mut world = World::new(Plan { nodes: 3, places: 1, ..Plan::default() });
    for node in 0..3 {
        world.visit(visit(3000, node, 3000));
    }
    // Thirty clients of the first node stand at the head of all queues when it stops.
    for n in 0..30 {
        world.visit(visit(3100 + n, 0, 500));
    }
    let behind = world.visit(visit(4000, 1, 500));
    world.fault(5000 * MILLISECOND, Fault::Stop(0));
    world.fault(25_000 * MILLISECOND, Fault::Continue(0));
    world.run_until(80 * SECOND);
    // The places come free at 6 s: half a second for the offer that nobody answers.
    assert!(wait(&world, behind) < 2600 * MILLISECOND, "{:?}", wait(&world, behind));
    settled(&world);
}

#[test]
fn an_offer_that_is_accepted_too_late_is_nobodys() {
    // A way of 300 ms: every reply comes after the 500 ms of the offer.
    let plan = Plan { nodes: 2, places: 1, delay: 300 * MILLISECOND, ..Plan::default() };
    let mut world = World::new(plan);
    let first = world.visit(visit(4000, 0, 2000));
    let late = world.visit(visit(4100, 0, 1000));
    world.run_until(60 * SECOND);
    assert!(world.counts.missed > 0, "the connection meets no lease");
    assert!(matches!(world.fate(first), Fate::Served { node: 0, .. }));
    assert!(matches!(world.fate(late), Fate::Served { .. }), "it waits on, and is served");
    settled(&world);
}

#[test]
fn a_drain_offers_nothing_more_and_ends_no_lease() {
    for seed in 1..=2 {
        let plan = Plan { nodes: 4, seed, ..Plan::default() };
        let faults = [(20_000, Fault::Drain(2)), (22_000, Fault::Drain(3))];
        let world = run(&plan, 0.9, &faults);
        let after = world.fates().filter(|(visit, fate)| {
            let late = visit.at > Duration::from_millis(20_100) && visit.gateway != 2;
            late && matches!(fate, Fate::Served { node: 2, .. })
        });
        assert_eq!(after.count(), 0, "a draining node serves other nodes");
    }
}

#[test]
fn a_second_node_of_a_name_refuses_to_start() {
    let mut world = World::new(Plan::default());
    world.run_until(5 * SECOND);
    let second = world.add("n1");
    world.run_until(10 * SECOND);
    assert!(world.taken(second) && !world.joined(second));
    assert!(!world.taken(1), "the first one goes on");
}

#[test]
fn of_two_nodes_with_one_name_that_meet_the_younger_drains() {
    let mut world = World::new(Plan::default());
    world.fault(3 * SECOND, Fault::Partition(vec![0, 0, 0, 1]));
    world.run_until(5 * SECOND);
    let second = world.add("n1");
    world.run_until(10 * SECOND);
    assert!(world.joined(second), "it cannot know");
    world.fault(10 * SECOND, Fault::Heal);
    world.run_until(15 * SECOND);
    assert!(world.taken(second) && !world.taken(1));
    let phase = |node: usize| world.engine(node).membership().own().phase;
    assert_eq!((phase(1), phase(second)), (Phase::Running, Phase::Draining));
}

#[test]
fn a_node_that_is_gone_is_noticed() {
    let mut world = World::new(Plan::default());
    world.fault(5 * SECOND, Fault::Kill(1));
    world.fault(20 * SECOND, Fault::Leave(2));
    world.run_until(5 * SECOND);
    let knows = |world: &World, node: &str| world.engine(0).membership().get(node).is_some();
    assert!(knows(&world, "n1") && knows(&world, "n2"));
    world.run_until(10 * SECOND);
    assert!(!knows(&world, "n1") && knows(&world, "n2"), "after three beats");
    world.run_until(20 * SECOND + 10 * MILLISECOND);
    assert!(!knows(&world, "n2"), "one that says goodbye, at once");
}

#[test]
fn a_large_fleet_is_heard_in_part_and_waits_as_one_queue() {
    let nodes = 400;
    let stream = Stream { lease: SECOND, ..stream(nodes, 1, 0.9, 6, 3) };
    let visits = stream.visits();
    let plan = Plan { nodes, places: 1, zones: 3, checked: false, ..Plan::default() };
    let mut world = World::new(plan);
    for &visit in &visits {
        world.visit(visit);
    }
    world.run_until(6 * SECOND);
    world.run_until_served();
    for node in [0, 100, 399] {
        let known = world.engine(node).membership().nodes().count();
        assert!((80..=300).contains(&known), "{known} are known");
    }
    let counted = visits.partition_point(|visit| visit.at < 4 * SECOND);
    let mut best = central(&visits, nodes).split_off(counted);
    let mut waits: Vec<Duration> =
        (counted..visits.len()).map(|client| wait(&world, client)).collect();
    let (best, _) = mean_and_p99(&mut best);
    let (mean, _) = mean_and_p99(&mut waits);
    assert!(mean <= best.mul_f64(1.5) + 50 * MILLISECOND, "{mean:?} beside {best:?}");
}
