//! What one operation on the waiting queue costs when it is short and when it is very long.
//!
//! A hundred classes with one resource each, all leased, and N requests waiting. Then, at that
//! depth: a request joins, a request in the middle of the queue goes away, a resource comes back
//! and is granted to the best waiter of its class.
//!
//! `cargo bench -p pool-core --bench queue`

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use pool_core::{
    Acquire, AcquireError, Class, Driver, Lease, Limits, Meta, Policy, Pool, Reporter, Request,
    async_trait,
};

const CLASSES: usize = 100;

struct Items;

#[async_trait]
impl Driver for Items {
    type Spec = ();
    type Resource = u64;
    type Error = Infallible;

    async fn create(&self, _: &(), meta: &Meta, _: Reporter) -> Result<u64, Infallible> {
        Ok(meta.id.get())
    }

    fn needs_recycle(&self, _: &u64) -> bool {
        false
    }
}

/// A class per value of the label `class`.
struct ByLabel(Vec<Class>);

impl Policy<Items> for ByLabel {
    fn classify(&self, request: &Request, class: &mut Class) {
        let index: usize = request.get("class").and_then(|at| at.parse().ok()).expect("labelled");
        *class = self.0[index].clone();
    }

    fn limit(&self, _: &Class) -> Option<Limits> {
        Some(Limits { max: Some(1), ..Limits::default() })
    }
}

type Waiting<'a> = Pin<Box<Acquire<'a, Items>>>;

/// Nanoseconds per operation at one depth.
struct Costs {
    enqueue: f64,
    cancel: f64,
    grant: f64,
}

fn main() {
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let depths: &[usize] = if quick { &[1_000] } else { &[1_000, 10_000, 100_000] };
    let rounds = if quick { 1 } else { 9 };
    let mut table: Vec<Vec<Costs>> = depths.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (depth, costs) in depths.iter().zip(&mut table) {
            costs.push(runtime.block_on(measure(*depth)));
        }
    }
    type Pick = fn(&Costs) -> f64;
    let picks: [(&str, Pick); 3] =
        [("enqueue", |c| c.enqueue), ("cancel", |c| c.cancel), ("grant", |c| c.grant)];
    for (name, pick) in picks {
        let medians: Vec<f64> = table.iter().map(|costs| median(costs.iter().map(pick))).collect();
        for (depth, value) in depths.iter().zip(&medians) {
            let ratio = value / medians[0];
            println!(
                "{}",
                serde_json::json!({
                    "bench": format!("queue_{name}"), "pool": "pool-core", "waiters": depth,
                    "value": value.round(), "unit": "ns",
                    "ratio_to_1000_waiters": (ratio * 100.0).round() / 100.0,
                })
            );
        }
    }
}

async fn measure(depth: usize) -> Costs {
    let classes = (0..CLASSES).map(|index| {
        let mut class = Class::default();
        class.insert("class", index.to_string());
        class
    });
    let pool = Pool::builder(Items)
        .policy(ByLabel(classes.collect()))
        .max_size(CLASSES)
        .max_creating(CLASSES)
        .max_waiting(usize::MAX)
        .acquire_timeout(None)
        .build()
        .expect("valid");
    let requests: Vec<Request> =
        (0..CLASSES).map(|index| Request::new().label("class", index.to_string())).collect();
    let mut leases = Vec::new();
    for request in &requests {
        leases.push(pool.acquire_with(request.clone()).await.expect("it never fails"));
    }

    let join = |index: usize| -> Waiting<'_> {
        Box::pin(pool.acquire_with(requests[index % CLASSES].clone()))
    };
    let mut queue: Vec<VecDeque<Waiting<'_>>> = (0..CLASSES).map(|_| VecDeque::new()).collect();
    for index in 0..depth {
        let mut waiting = join(index);
        assert!(poll(&mut waiting).is_pending());
        queue[index % CLASSES].push_back(waiting);
    }

    let turns = 500;
    let mut joined: Vec<Waiting<'_>> = (0..turns).map(join).collect();
    let start = Instant::now();
    for waiting in &mut joined {
        assert!(poll(waiting).is_pending());
    }
    let enqueue = per_turn(start, turns);

    let mut leaving = Vec::new();
    for turn in 0..turns {
        let class = &mut queue[turn % CLASSES];
        leaving.push(class.remove(class.len() / 2).expect("ten wait in each class at least"));
        let tail = std::mem::replace(&mut joined[turn], join(turn));
        queue[turn % CLASSES].push_back(tail);
    }
    let start = Instant::now();
    for waiting in leaving {
        drop(waiting);
    }
    let cancel = per_turn(start, turns);

    let start = Instant::now();
    for turn in 0..turns {
        let index = turn % CLASSES;
        let lease: Lease<Items> = leases.swap_remove(index);
        drop(lease);
        let mut first = queue[index].pop_front().expect("ten wait in each class at least");
        let Poll::Ready(granted) = poll(&mut first) else { panic!("the best waiter is granted") };
        leases.push(granted.expect("it never fails"));
        let last = leases.len() - 1;
        leases.swap(index, last);
    }
    let grant = per_turn(start, turns);
    Costs { enqueue, cancel, grant }
}

fn poll(waiting: &mut Waiting<'_>) -> Poll<Result<Lease<Items>, AcquireError>> {
    waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn per_turn(start: Instant, turns: usize) -> f64 {
    start.elapsed().as_nanos() as f64 / turns as f64
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
