use std::time::Duration;

use pool_core::{Class, Limits, Pool, Request};
use pool_policies::{DynamicSizing, DynamicSizingBuilder, GeoProxy, PolicyError, Proxy, Region};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::{Browsers, region};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const MIN: usize = 2;
const MAX: usize = 12;

/// A pool whose minimum follows the load, and what it has been at every second.
struct Run {
    pool: Pool<Browsers>,
    start: Instant,
    minima: Vec<usize>,
    jobs: JoinSet<()>,
}

impl Run {
    fn new(sizing: DynamicSizingBuilder) -> Self {
        let pool = Pool::builder(Browsers::default())
            .policy(sizing.build().unwrap())
            .min_size(MIN)
            .max_size(MAX)
            .max_creating(1)
            .max_idle_time(Some(MINUTE))
            .acquire_timeout(None)
            .max_waiting(100_000)
            .seed(Some(1))
            .build()
            .unwrap();
        pool.driver().control.launch_takes(SECOND);
        Self { pool, start: Instant::now(), minima: Vec::new(), jobs: JoinSet::new() }
    }

    fn at(&self) -> Duration {
        self.start.elapsed()
    }

    fn minimum(&self) -> usize {
        minimum(&self.pool, &Class::default())
    }

    /// Lets time pass, with jobs that begin at a rate per minute and hold a resource for a while.
    async fn go_on(&mut self, time: Duration, rate: impl Fn(Duration) -> f64, hold: Duration) {
        let (until, mut due) = (self.at() + time, 0.0);
        while self.at() < until {
            due += rate(self.at()) / 60.0;
            while due >= 1.0 {
                due -= 1.0;
                self.begin(hold);
            }
            sleep(SECOND).await;
            while self.jobs.try_join_next().is_some() {}
            self.minima.push(self.minimum());
            let load = self.pool.load();
            assert!((MIN..=MAX).contains(&self.minimum()), "{} is out of bounds", self.minimum());
            assert!(load.total() <= MAX, "{load:?}");
        }
    }

    fn begin(&mut self, hold: Duration) {
        let pool = self.pool.clone();
        self.jobs.spawn(async move {
            let lease = pool.acquire().await.unwrap();
            sleep(hold).await;
            drop(lease);
        });
    }

    /// Second by second, but only where it changed.
    fn history(&self) -> Vec<(usize, usize)> {
        let changes = self.minima.windows(2).enumerate().filter(|(_, pair)| pair[0] != pair[1]);
        changes.map(|(second, pair)| (second + 1, pair[1])).collect()
    }

    /// How often the minimum turned from growing to shrinking or back.
    fn turns(&self) -> usize {
        let mut before = MIN;
        let directions: Vec<bool> = self
            .history()
            .into_iter()
            .map(|(_, minimum)| std::mem::replace(&mut before, minimum) < minimum)
            .collect();
        directions.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    fn changes(&self) -> usize {
        self.history().len()
    }
}

fn minimum(pool: &Pool<Browsers>, class: &Class) -> usize {
    let stats = pool.stats();
    stats.classes.iter().find(|held| held.class == *class).map_or(0, |class| class.min)
}

/// More than `MAX` resources can do.
fn too_much(_: Duration) -> f64 {
    90.0
}

fn nothing(_: Duration) -> f64 {
    0.0
}

#[tokio::test(start_paused = true)]
async fn silence_changes_nothing() {
    let mut run = Run::new(DynamicSizing::builder());
    run.go_on(60 * MINUTE, nothing, SECOND).await;
    assert_eq!(run.changes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_served_well_changes_nothing() {
    let mut run = Run::new(DynamicSizing::builder());
    run.go_on(60 * MINUTE, |_| 20.0, 10 * SECOND).await;
    assert_eq!(run.changes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_step_of_load_is_followed_up_and_after_it_down_to_the_minimum() {
    let mut run = Run::new(DynamicSizing::builder());
    run.go_on(2 * MINUTE, nothing, SECOND).await;
    run.go_on(10 * MINUTE, too_much, 10 * SECOND).await;
    assert_eq!(run.minimum(), MAX, "{:?}", run.history());
    run.go_on(60 * MINUTE, nothing, SECOND).await;
    assert_eq!(run.minimum(), MIN, "{:?}", run.history());
    assert_eq!(run.turns(), 1, "{:?}", run.history());
    assert_eq!(run.pool.load().total(), MIN);
}

#[tokio::test(start_paused = true)]
async fn it_grows_by_two_above_what_is_there_and_shrinks_by_one_per_interval() {
    let mut run = Run::new(DynamicSizing::builder());
    run.go_on(4 * SECOND, |_| 60.0, 40 * SECOND).await;
    let there = run.pool.load().total();
    // Nobody is served for a long while: those who wait are the only sign of it.
    run.pool.driver().control.launch_takes(25 * SECOND);
    run.go_on(28 * SECOND, |_| 10.0, 40 * SECOND).await;
    assert_eq!(run.minimum(), there.max(run.pool.load().total()) + 2, "{:?}", run.history());

    run.pool.driver().control.launch_takes(SECOND);
    run.go_on(30 * MINUTE, nothing, SECOND).await;
    // The waits of before the growth are not counted again after it, and it cools down.
    assert_eq!(run.history()[..3], [(30, 7), (60, 10), (120, 9)], "{:?}", run.history());
    for pair in run.minima.windows(2) {
        assert!(pair[1] + 1 >= pair[0], "{:?}", run.history());
    }
    assert_eq!(run.minimum(), MIN);
}

#[tokio::test(start_paused = true)]
async fn a_ramp_up_and_down_turns_once() {
    let mut run = Run::new(DynamicSizing::builder());
    let ramp = |at: Duration| {
        let minutes = at.as_secs_f64() / 60.0;
        (if minutes < 20.0 { minutes } else { 40.0 - minutes }).max(0.0) * 5.0
    };
    run.go_on(120 * MINUTE, ramp, 10 * SECOND).await;
    assert_eq!(run.minima.iter().max(), Some(&MAX), "{:?}", run.history());
    assert_eq!(run.minimum(), MIN);
    assert_eq!(run.turns(), 1, "{:?}", run.history());
}

#[tokio::test(start_paused = true)]
async fn a_sawtooth_does_not_make_it_flap() {
    let mut run = Run::new(DynamicSizing::builder());
    let sawtooth = |at: Duration| if at.as_secs() % 480 < 90 { 120.0 } else { 0.0 };
    run.go_on(160 * MINUTE, sawtooth, 10 * SECOND).await;
    // Twenty teeth; to follow each of them would be forty turns.
    assert!((1..=10).contains(&run.turns()), "{} turns: {:?}", run.turns(), run.history());
    let last = run.history().last().unwrap().0;
    assert!(last < run.minima.len() / 2, "it does not calm down: {:?}", run.history());
}

#[tokio::test(start_paused = true)]
async fn it_keeps_what_was_in_use_at_one_moment_although_the_mean_is_low() {
    let mut run = Run::new(DynamicSizing::builder());
    run.go_on(5 * MINUTE, too_much, 10 * SECOND).await;
    for _ in 0..90 {
        for _ in 0..6 {
            run.begin(3 * SECOND);
        }
        run.go_on(40 * SECOND, nothing, SECOND).await;
    }
    assert_eq!(run.minimum(), 6, "{:?}", run.history());
}

#[tokio::test(start_paused = true)]
async fn shrinks_that_are_regretted_become_rare() {
    // A burst every few minutes that waits for slow launches unless enough was kept: the
    // utilization says shrink, the waits say grow.
    let mut run = Run::new(DynamicSizing::builder().scale_down_by(10));
    run.pool.driver().control.launch_takes(8 * SECOND);
    let mut turns = Vec::new();
    for _ in 0..3 {
        run.minima.clear();
        for _ in 0..20 {
            for _ in 0..8 {
                run.begin(20 * SECOND);
            }
            run.go_on(3 * MINUTE, nothing, SECOND).await;
        }
        turns.push(run.turns());
    }
    // Twenty bursts in an hour; to follow each of them would be forty turns.
    assert!(turns[1..].iter().all(|turns| *turns <= 10), "turns in each hour: {turns:?}");
}

#[tokio::test(start_paused = true)]
async fn it_stays_below_a_maximum_that_was_lowered() {
    let mut run = Run::new(DynamicSizing::builder());
    run.go_on(10 * MINUTE, too_much, 10 * SECOND).await;
    let grown = run.minimum();
    run.pool.resize(grown.min(6), 6).unwrap();
    run.go_on(10 * MINUTE, too_much, 10 * SECOND).await;
    assert!(run.minimum() <= 6);
}

#[tokio::test(start_paused = true)]
async fn a_minimum_that_somebody_sets_is_the_one_it_returns_to() {
    let mut run = Run::new(DynamicSizing::builder());
    run.go_on(MINUTE, nothing, SECOND).await;
    run.pool.resize(4, MAX).unwrap();
    run.go_on(5 * MINUTE, too_much, 10 * SECOND).await;
    assert!(run.minimum() > 4);
    run.go_on(60 * MINUTE, nothing, SECOND).await;
    assert_eq!(run.minimum(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_settings_are_those_of_the_builder() {
    let sizing = DynamicSizing::builder()
        .interval(10 * SECOND)
        .scale_up_wait(SECOND)
        .scale_up_by(5)
        .scale_down_utilization(0.9)
        .scale_down_by(3)
        .cooldown(20 * SECOND)
        .samples(5);
    let mut run = Run::new(sizing);
    run.go_on(3 * MINUTE, too_much, 10 * SECOND).await;
    assert_eq!(run.minimum(), MAX);
    run.go_on(10 * MINUTE, nothing, SECOND).await;
    assert_eq!(run.minimum(), MIN);
    let steps: Vec<_> =
        run.minima.windows(2).map(|pair| pair[0] as isize - pair[1] as isize).collect();
    assert_eq!(run.history()[0].0, 10, "{:?}", run.history());
    assert!(steps.iter().min() <= Some(&-5), "{:?}", run.history());
    assert_eq!(steps.iter().max(), Some(&3), "{:?}", run.history());
}

#[tokio::test(start_paused = true)]
async fn classes_grow_apart_and_together_stay_below_the_maximum_of_the_pool() {
    let proxy = || Region::new().proxy(Proxy::parse("http://p.example:1").unwrap());
    let regions = GeoProxy::builder()
        .region("eu", proxy().max_size(7))
        .region("us", proxy())
        .build()
        .unwrap();
    let pool = Pool::builder(Browsers::default())
        .policy(regions)
        .policy(DynamicSizing::builder().build().unwrap())
        .max_size(10)
        .acquire_timeout(None)
        .build()
        .unwrap();
    let mut jobs = JoinSet::new();
    for second in 0..900 {
        for name in ["eu", "us"] {
            let pool = pool.clone();
            jobs.spawn(async move {
                let lease = pool.acquire_with(region(name)).await.unwrap();
                sleep(8 * SECOND).await;
                drop(lease);
            });
        }
        sleep(SECOND).await;
        let stats = pool.stats();
        let kept: usize = stats.classes.iter().map(|class| class.min).sum();
        assert!(kept <= 10, "{kept} are kept after {second} s");
        assert!(stats.classes.iter().all(|class| class.min <= class.load.max_size));
    }
    let of = |name| {
        let mut class = Class::default();
        class.insert("region", name);
        minimum(&pool, &class)
    };
    assert!(of("eu") > 0 && of("us") > 0, "eu {} us {}", of("eu"), of("us"));
    assert_eq!(minimum(&pool, &Class::default()), 0);
}

#[tokio::test(start_paused = true)]
async fn what_it_keeps_is_ready_for_the_next_burst() {
    let mut run = Run::new(DynamicSizing::builder());
    run.go_on(10 * MINUTE, too_much, 10 * SECOND).await;
    run.pool.driver().control.launch_takes(20 * SECOND);
    let waiting = run.jobs.len();
    run.go_on(waiting as u32 * SECOND, nothing, SECOND).await;
    // Longer than resources may idle: without a minimum they would be gone.
    run.go_on(2 * MINUTE, nothing, SECOND).await;
    let began = Instant::now();
    let leases: Vec<_> = futures_of(&run.pool, 4).await;
    assert!(began.elapsed() < SECOND, "{:?}", run.pool.load());
    drop(leases);
}

async fn futures_of(pool: &Pool<Browsers>, count: usize) -> Vec<pool_core::Lease<Browsers>> {
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(pool.acquire_with(Request::new()).await.unwrap());
    }
    leases
}

#[tokio::test(start_paused = true)]
async fn a_class_limit_set_by_hand_is_respected() {
    let proxy = Region::new().proxy(Proxy::parse("http://p.example:1").unwrap());
    let pool = Pool::builder(Browsers::default())
        .policy(GeoProxy::builder().region("eu", proxy).build().unwrap())
        .policy(DynamicSizing::builder().build().unwrap())
        .build()
        .unwrap();
    let mut eu = Class::default();
    eu.insert("region", "eu");
    pool.set_limits(&eu, Limits { min: Some(3), ..Limits::default() });
    sleep(10 * MINUTE).await;
    assert_eq!(minimum(&pool, &eu), 3);
}

#[tokio::test(start_paused = true)]
async fn it_does_not_grow_where_creations_fail() {
    let pool = Pool::builder(Browsers::default())
        .policy(DynamicSizing::builder().build().unwrap())
        .breaker_threshold(1000)
        .acquire_timeout(None)
        .build()
        .unwrap();
    pool.driver().control.fail_launches();
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire().await.map(drop) }
    });
    sleep(10 * MINUTE).await;
    assert!(!waiter.is_finished());
    assert_eq!(minimum(&pool, &Class::default()), 0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for builder in [
        DynamicSizing::builder().interval(Duration::ZERO),
        DynamicSizing::builder().samples(0),
        DynamicSizing::builder().scale_up_by(0),
        DynamicSizing::builder().scale_down_by(0),
        DynamicSizing::builder().scale_down_utilization(1.5),
        DynamicSizing::builder().scale_down_utilization(f64::NAN),
    ] {
        assert!(matches!(builder.build(), Err(PolicyError::Setting { .. })));
    }
}
