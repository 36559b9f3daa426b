use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::rig::{Ask, Asking, Rig};
use crate::engine::Return;
use crate::{CloseReason, Config, Limits, Verdict};

const CLASSES: usize = 3;
const GROUPS: usize = 3;

/// One thing that happens. Indices are taken modulo the number of candidates.
#[derive(Clone, Debug)]
enum Op {
    Acquire {
        class: usize,
        group: Option<usize>,
        handicap: u64,
        waited: u64,
        creates: bool,
        nowait: bool,
    },
    Poll(usize),
    Expire(usize),
    Cancel(usize),
    Release(usize, Return),
    Finish(usize, bool),
    Lose(usize),
    Resize(usize, usize),
    Limit {
        class: usize,
        min: usize,
        max: usize,
        warm: usize,
    },
    Group(usize, Option<usize>, Option<usize>, f64),
    Invalidate(u64),
    Break(u64),
    Flush,
    Advance(u64),
    Drain(u64),
}

/// Returns operations in which `grouped` of ten requests belong to a group.
fn op(grouped: u32) -> impl Strategy<Value = Op> {
    let how = prop_oneof![
        4 => Just(Return::Judged(Verdict::Keep)),
        4 => Just(Return::Judged(Verdict::Recycle)),
        1 => Just(Return::Judged(Verdict::Discard)),
        1 => Just(Return::Discarded),
        2 => Just(Return::Untouched),
    ];
    let time = prop_oneof![
        6 => 0..2_000_u64,
        3 => 2_000..40_000_u64,
        1 => 40_000..4_000_000_u64,
    ];
    let group = (0..10_u32, 0..GROUPS);
    let group = group.prop_map(move |(chance, group)| (chance < grouped).then_some(group));
    let aged = prop_oneof![3 => Just(0), 1 => 1..3_000_u64];
    prop_oneof![
        20 => (
            (0..CLASSES, group),
            0..3_u64,
            aged,
            prop::bool::weighted(0.8),
            prop::bool::weighted(0.1),
        )
            .prop_map(|((class, group), steps, waited, creates, nowait)| {
                Op::Acquire { class, group, handicap: steps * 900, waited, creates, nowait }
            }),
        8 => any::<usize>().prop_map(Op::Poll),
        2 => any::<usize>().prop_map(Op::Expire),
        6 => any::<usize>().prop_map(Op::Cancel),
        12 => (any::<usize>(), how).prop_map(|(at, how)| Op::Release(at, how)),
        20 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(at, ok)| Op::Finish(at, ok)),
        1 => any::<usize>().prop_map(Op::Lose),
        1 => (0..4_usize, 1..6_usize).prop_map(|(min, max)| Op::Resize(min.min(max), max)),
        1 => (0..CLASSES, 0..3_usize, 1..4_usize, 0..2_usize)
            .prop_map(|(class, min, max, warm)| Op::Limit { class, min, max, warm }),
        1 => (
            0..GROUPS,
            prop::option::of(1..4_usize),
            prop::option::of(0..4_usize),
            prop::sample::select(&[0.5, 1.0, 2.0, 3.0]),
        )
            .prop_map(|(group, leases, waiting, weight)| Op::Group(group, leases, waiting, weight)),
        2 => (1..40_u64).prop_map(Op::Invalidate),
        1 => (1..40_u64).prop_map(Op::Break),
        1 => Just(Op::Flush),
        8 => time.prop_map(Op::Advance),
    ]
}

/// Returns operations that ask for more than there is.
fn flood() -> impl Strategy<Value = Op> {
    let how = prop_oneof![Just(Return::Untouched), Just(Return::Judged(Verdict::Recycle))];
    let class = prop_oneof![6 => Just(0), 1 => 1..CLASSES];
    prop_oneof![
        12 => (class, prop::option::weighted(0.8, 0..GROUPS), 0..3_u64).prop_map(
            |(class, group, steps)| {
                let (handicap, waited) = (steps * 900, 0);
                Op::Acquire { class, group, handicap, waited, creates: true, nowait: false }
            }
        ),
        10 => any::<usize>().prop_map(Op::Poll),
        1 => any::<usize>().prop_map(Op::Cancel),
        8 => (any::<usize>(), how).prop_map(|(at, how)| Op::Release(at, how)),
        8 => any::<usize>().prop_map(|at| Op::Finish(at, true)),
        2 => (0..200_u64).prop_map(Op::Advance),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    let some = |choices: &'static [Option<u64>]| prop::sample::select(choices);
    (
        (0..3_usize, 1..5_usize, 1..4_usize, 2..9_usize),
        some(&[None, Some(0), Some(1_000)]),
        some(&[None, Some(5_000)]),
        some(&[None, Some(8_000)]),
        some(&[None, Some(3_000)]),
        some(&[None, Some(10_000)]),
        some(&[None, Some(6_000)]),
        prop::sample::select(&[None, Some(1), Some(3)]),
    )
        .prop_map(|(sizes, check_after, idle, lifetime, health, hold, wait, uses)| {
            let millis = |time: Option<u64>| time.map(Duration::from_millis);
            Config {
                min_size: sizes.0.min(sizes.1),
                max_size: sizes.1,
                max_creating: sizes.2,
                max_waiting: sizes.3,
                check_after_idle: millis(check_after),
                max_idle_time: millis(idle),
                max_lifetime: millis(lifetime),
                health_check_interval: millis(health),
                hold_limit: millis(hold),
                acquire_timeout: millis(wait),
                max_use_count: uses,
                ..Config::default()
            }
        })
}

fn pick(from: &[&[Ask]], at: usize) -> Option<Ask> {
    let all = from.concat();
    if all.is_empty() { None } else { Some(all[at % all.len()].clone()) }
}

fn step(rig: &mut Rig, op: &Op) {
    match *op {
        Op::Acquire { class, group, handicap, waited, creates, nowait } => rig.acquire(Asking {
            class,
            group,
            handicap: Duration::from_millis(handicap),
            waited: Duration::from_millis(waited),
            creates,
            nowait,
        }),
        Op::Poll(at) => {
            if let Some(ask) = pick(&[&rig.waiting, &rig.granted, &rig.failed], at) {
                rig.poll(&ask);
            }
        }
        Op::Expire(at) => {
            if let Some(ask) = pick(&[&rig.waiting, &rig.granted], at) {
                rig.expire(&ask);
            }
        }
        Op::Cancel(at) => {
            if let Some(ask) = pick(&[&rig.waiting, &rig.granted, &rig.failed], at) {
                rig.cancel(&ask);
            }
        }
        Op::Release(at, how) if !rig.leases.is_empty() => rig.release(at % rig.leases.len(), how),
        Op::Finish(at, ok) if !rig.pending.is_empty() => rig.finish(at % rig.pending.len(), ok),
        Op::Lose(at) if !rig.pending.is_empty() => rig.lose(at % rig.pending.len()),
        Op::Release(..) | Op::Finish(..) | Op::Lose(_) => {}
        Op::Resize(min, max) => rig.resize(min, max),
        Op::Limit { class, min, max, warm } => {
            let limits = Limits { min: Some(min), max: Some(max), warm: Some(warm) };
            rig.set_limits(class, limits);
        }
        Op::Group(group, leases, waiting, weight) => rig.set_group(group, leases, waiting, weight),
        Op::Invalidate(id) => rig.doom(id, CloseReason::Invalidated),
        Op::Break(id) => rig.doom(id, CloseReason::Broken("by itself".into())),
        Op::Flush => rig.flush_idle(),
        Op::Advance(millis) => rig.advance(Duration::from_millis(millis)),
        Op::Drain(millis) => rig.drain(Some(Duration::from_millis(millis))),
    }
}

/// Returns the same cases on every run, unless `PROPTEST_CASES` or `PROPTEST_RNG_SEED` asks for
/// more or others.
fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    let asked = |name| std::env::var_os(name).is_some();
    ProptestConfig {
        cases: if asked("PROPTEST_CASES") { default.cases } else { 200 },
        rng_seed: if asked("PROPTEST_RNG_SEED") { default.rng_seed } else { RngSeed::Fixed(1) },
        failure_persistence: None,
        ..default
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_engine_agrees_with_a_naive_queue(
        config in config(),
        ops in prop::collection::vec(op(0), 1..150),
    ) {
        let mut rig = Rig::new(config, CLASSES, GROUPS);
        for op in &ops {
            step(&mut rig, op);
        }
        rig.serve_everyone();
        rig.end();
    }

    #[test]
    fn groups_are_limited_exactly_and_share_what_they_wait_for(
        config in config(),
        ops in prop::collection::vec(op(8), 1..150),
    ) {
        // With queues longer than elsewhere, or the groups would seldom wait together.
        let config = Config { max_waiting: config.max_waiting * 3, ..config };
        let mut rig = Rig::new(config, CLASSES, GROUPS);
        for op in &ops {
            step(&mut rig, op);
        }
        rig.serve_everyone();
        rig.has_forgotten_all_groups();
        rig.end();
    }

    #[test]
    fn groups_that_flood_the_pool_share_it_by_weight(
        size in 1..4_usize,
        weights in prop::array::uniform3(prop::sample::select(&[0.5, 1.0, 2.0, 4.0])),
        limits in prop::array::uniform3(prop::option::weighted(0.2, 1..3_usize)),
        ops in prop::collection::vec(flood(), 80..160),
    ) {
        let config = Config { max_size: size, acquire_timeout: None, ..Config::default() };
        let mut rig = Rig::new(config, CLASSES, GROUPS);
        for group in 0..GROUPS {
            rig.set_group(group, limits[group], None, weights[group]);
        }
        for op in &ops {
            step(&mut rig, op);
        }
        rig.serve_everyone();
        rig.has_forgotten_all_groups();
        rig.end();
    }

    #[test]
    fn a_drain_at_any_moment_ends_with_nothing_left(
        config in config(),
        before in prop::collection::vec(op(3), 0..60),
        grace in 0..3_000_u64,
        after in prop::collection::vec(op(3), 0..60),
    ) {
        let mut rig = Rig::new(config, CLASSES, GROUPS);
        let drain = Op::Drain(grace);
        for op in before.iter().chain([&drain]).chain(&after) {
            step(&mut rig, op);
        }
        rig.end();
    }
}
