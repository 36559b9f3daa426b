//! What happens where there is no runtime, or no longer one.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use pool_core::testing::{Behaviour, FakeDriver, Step, until};
use pool_core::{AcquireError, Pool, Request};
use tokio::runtime::{Builder, Runtime};

use crate::support::*;

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads are to be had")
}

/// The simplest executor there is: no runtime, no timers.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Arc::new(Unpark(thread::current())).into();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(Duration::from_secs(10)),
        }
    }
}

fn builder(
    runtime: &Runtime,
) -> (pool_core::PoolBuilder<FakeDriver>, pool_core::testing::FakeControl) {
    let driver = FakeDriver::new();
    let control = driver.control();
    (Pool::builder(driver).runtime(runtime.handle().clone()), control)
}

#[test]
fn a_lease_can_be_dropped_on_a_thread_without_a_runtime() {
    let runtime = runtime();
    let (builder, control) = builder(&runtime);
    let pool = builder.max_size(1).build().expect("valid");
    let held = runtime.block_on(pool.acquire()).expect("it is free");
    thread::spawn(move || drop(held)).join().expect("the drop does not panic");
    runtime.block_on(until("it is idle again", || pool.load().idle == 1));
    control.assert_sound();
}

#[test]
fn an_acquire_can_be_dropped_on_a_thread_without_a_runtime() {
    let runtime = runtime();
    let (builder, control) = builder(&runtime);
    let pool = builder.max_size(1).build().expect("valid");
    let held = runtime.block_on(pool.acquire()).expect("it is free");
    let waiter = Box::pin(pool.acquire_with(Request::new().timeout(MINUTE)));
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut waiter = waiter;
            assert!(poll_once(waiter.as_mut()).is_pending(), "it can be polled there, too");
            drop(waiter);
        });
    });
    assert_eq!(pool.load().waiting, 0);
    drop(held);
    control.assert_sound();
}

#[test]
fn a_pool_can_be_used_from_an_executor_that_is_not_tokio() {
    let runtime = runtime();
    let (builder, control) = builder(&runtime);
    let pool = builder.max_size(1).build().expect("valid");
    let held = block_on(pool.acquire()).expect("it is made by the pool's own runtime");
    let short = Request::new().timeout(Duration::from_millis(20));
    let error = block_on(pool.acquire_with(short)).expect_err("it is held");
    assert!(matches!(error, AcquireError::Timeout { .. }));
    drop(held);
    drop(block_on(pool.acquire_with(Request::new().timeout(MINUTE))).expect("it came back"));
    assert!(block_on(pool.drain(MINUTE)).complete);
    control.assert_sound();
}

#[test]
fn a_pool_can_be_dropped_on_a_thread_without_a_runtime() {
    let runtime = runtime();
    let (builder, control) = builder(&runtime);
    let pool = builder.min_size(1).build().expect("valid");
    runtime.block_on(until("it is there", || pool.load().idle == 1));
    thread::spawn(move || drop(pool)).join().expect("the drop does not panic");
    runtime.block_on(until("it is closed", || control.existing().is_empty()));
    assert!(control.dropped_unclosed().is_empty());
    control.assert_sound();
}

#[test]
fn a_lease_and_a_pool_can_be_dropped_after_the_runtime_has_gone() {
    for current_thread in [true, false] {
        let runtime = if current_thread {
            Builder::new_current_thread().enable_all().build().expect("no thread is needed")
        } else {
            runtime()
        };
        let (builder, control) = builder(&runtime);
        let pool = builder.min_size(2).max_size(3).build().expect("valid");
        let held = runtime.block_on(async {
            until("two are there", || pool.load().idle == 2).await;
            pool.acquire().await.expect("one is idle")
        });
        drop(runtime);
        // The pool has ended with its runtime, but for what is out.
        assert_eq!((pool.load().leased, pool.load().total()), (1, 1));
        drop(held);
        // It could not be recycled, and nothing could be made instead: all is accounted for.
        assert_eq!((pool.load().leased, pool.load().recycling), (0, 0));
        assert_eq!(pool.load().creating, 0);
        drop(pool);
        assert!(control.existing().is_empty(), "the values are dropped");
        control.assert_sound();
    }
}

#[test]
fn work_that_is_under_way_when_the_runtime_goes_is_accounted_for() {
    for step in [Step::Create, Step::Recycle, Step::Close] {
        let runtime =
            Builder::new_current_thread().enable_all().build().expect("no thread is needed");
        let (builder, control) = builder(&runtime);
        control.set(step, Behaviour::Hang);
        let pool = builder.max_size(1).build().expect("valid");
        runtime.block_on(async {
            let mut asked = Box::pin(pool.acquire());
            let _ = poll_once(asked.as_mut());
            pool_core::testing::settle().await;
            if step != Step::Create {
                let held = asked.await.expect("it was made");
                if step == Step::Close {
                    held.discard();
                } else {
                    drop(held);
                }
            }
            pool_core::testing::settle().await;
        });
        assert_eq!(pool.load().total(), 1, "{step}");
        drop(runtime);
        assert_eq!(pool.load().total(), 0, "{step}");
        assert!(control.existing().is_empty(), "{step}");
        drop(pool);
    }
}

#[test]
fn an_acquire_after_the_runtime_has_gone_fails_and_does_not_hang() {
    let runtime = runtime();
    let (builder, _control) = builder(&runtime);
    let pool = builder.max_size(1).build().expect("valid");
    drop(runtime);
    let error = block_on(pool.acquire()).expect_err("nothing can be made any more");
    assert!(matches!(error, AcquireError::Unavailable { .. } | AcquireError::Closed), "{error}");
}

#[test]
fn an_acquire_can_be_dropped_after_the_runtime_has_gone() {
    let runtime = runtime();
    let (builder, control) = builder(&runtime);
    let pool = builder.max_size(1).build().expect("valid");
    let held = runtime.block_on(pool.acquire()).expect("it is free");
    let mut waiter = Box::pin(pool.acquire());
    assert!(poll_once(waiter.as_mut()).is_pending());
    let unpolled = pool.acquire();
    drop(runtime);
    let Poll::Ready(Err(error)) = poll_once(waiter.as_mut()) else { panic!("it must be told") };
    assert!(matches!(error, AcquireError::Closed));
    drop(waiter);
    drop(unpolled);
    drop(held);
    assert_eq!((pool.load().total(), pool.load().waiting), (0, 0));
    control.assert_sound();
}

#[test]
fn tasks_on_many_threads_share_a_pool() {
    let runtime =
        Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("threads");
    let (builder, control) = builder(&runtime);
    let pool = builder.max_size(4).max_waiting(10_000).build().expect("valid");
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let pool = pool.clone();
            runtime.spawn(async move {
                for round in 0..50 {
                    if (task + round) % 7 == 0 {
                        start_and_maybe_drop(&pool);
                        continue;
                    }
                    let held = pool.acquire().await.expect("all are served");
                    let used = held.touch();
                    tokio::task::yield_now().await;
                    drop(used);
                    if (task * round) % 31 == 30 {
                        held.discard();
                    }
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("no task panics");
        }
        ends_clean(pool, control).await;
    });
}

fn start_and_maybe_drop(pool: &FakePool) {
    let mut asked = Box::pin(pool.acquire());
    let _ = poll_once(asked.as_mut());
}

#[test]
fn on_many_threads_every_life_is_told_in_order() {
    let runtime =
        Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("threads");
    let (builder, control) = builder(&runtime);
    let pool = builder.max_size(3).event_capacity(1 << 16).build().expect("valid");
    let mut events = pool.events();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let pool = pool.clone();
            runtime.spawn(async move {
                for round in 0..100 {
                    let held = pool.acquire().await.expect("all are served");
                    tokio::task::yield_now().await;
                    if (task + round) % 10 == 0 {
                        held.discard();
                    }
                }
            })
        })
        .collect();
    let mut lives = std::collections::BTreeMap::<_, Vec<_>>::new();
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("no task panics");
        }
        ends_clean(pool, control).await;
        // Up to the end: another thread may tell of the last close after the drain has seen it.
        while let Some(event) = events.next().await {
            if let Some(id) = id_of(&event) {
                lives.entry(id).or_default().push(name(&event));
            }
        }
    });
    for (id, life) in lives {
        // What each may come after: nobody leases what has not been made, or twice.
        let mut before = "nothing";
        for now in &life {
            let fits = match *now {
                "creating" => before == "nothing",
                "created" => before == "creating",
                "leased" => ["created", "recycled"].contains(&before),
                "released" => before == "leased",
                "recycled" => before == "released",
                "closing" => ["created", "released", "recycled"].contains(&before),
                "closed" => before == "closing",
                _ => false,
            };
            assert!(fits, "resource {id}: {now} after {before} in {life:?}");
            before = now;
        }
        assert_eq!(before, "closed", "resource {id}");
    }
}

fn id_of(event: &pool_core::Event) -> Option<u64> {
    use pool_core::Event::{Closed, Closing, Created, Creating, Leased, Recycled, Released};
    match event {
        Creating { id, .. }
        | Created { id, .. }
        | Leased { id, .. }
        | Released { id, .. }
        | Recycled { id, .. }
        | Closing { id, .. }
        | Closed { id, .. } => Some(id.get()),
        _ => None,
    }
}
