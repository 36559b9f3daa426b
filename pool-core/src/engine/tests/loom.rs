use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ::loom::future::block_on;
use ::loom::sync::{Arc, Mutex};
use ::loom::thread;
use tokio::time::Instant;

use crate::engine::{
    Acquired, Answer, Asked, Effects, Job, Pooled, Return, SlotRef, State, Ticket,
};
use crate::{AcquireError, Class, Config, Labels, Verdict};

/// A resource.
#[derive(Debug)]
struct Toy;

/// A small model of the shell and of `Acquire`: it locks, calls one method, unlocks, and only then
/// wakes the waiters and does the work. All work is done at once and succeeds, except creations
/// that a test holds back.
struct Shell {
    state: Mutex<State<Toy>>,
    /// Creations that a test ends itself. They are not under test, so loom need not know their
    /// lock.
    creations: std::sync::Mutex<Vec<SlotRef>>,
    drained: AtomicBool,
    now: Instant,
}

impl Shell {
    fn new(config: Config) -> Arc<Self> {
        let now = Instant::now();
        let config = Config { seed: Some(1), ..config };
        Arc::new(Self {
            state: Mutex::new(State::new(config, now)),
            creations: std::sync::Mutex::default(),
            drained: AtomicBool::new(false),
            now,
        })
    }

    fn apply<T>(&self, method: impl FnOnce(&mut State<Toy>, &mut Effects<Toy>) -> T) -> T {
        let mut fx = Effects::default();
        let out = {
            let mut state = self.state.lock().expect("no thread panics");
            let out = method(&mut state, &mut fx);
            state.check();
            out
        };
        for waker in fx.wake.drain() {
            waker.wake();
        }
        if fx.drained {
            self.drained.store(true, Ordering::SeqCst);
        }
        for job in fx.jobs {
            self.work(job);
        }
        out
    }

    fn work(&self, job: Job<Toy>) {
        let now = self.now;
        match job {
            Job::Create { slot, .. } => {
                self.creations.lock().expect("no thread panics").push(slot);
            }
            Job::Recycle(pooled) => {
                self.apply(|state, fx| state.recycled(pooled, Ok(()), now, fx));
            }
            Job::Check(pooled) => {
                self.apply(|state, fx| state.checked(pooled, Ok(()), now, fx));
            }
            Job::Close(pooled, _) => {
                self.apply(|state, fx| state.closed(pooled.slot, now, fx));
            }
            Job::Revoke { slot, .. } => {
                self.apply(|state, fx| state.closed(slot, now, fx));
            }
        }
    }

    /// Lets every creation that has begun succeed.
    fn create(&self) {
        loop {
            let slot = self.creations.lock().expect("no thread panics").pop();
            let Some(slot) = slot else { return };
            self.apply(|state, fx| state.created(slot, Toy, self.now, fx));
        }
    }

    fn release(&self, pooled: Box<Pooled<Toy>>, verdict: Verdict) {
        let how = Return::Judged(verdict);
        let pooled = if verdict == Verdict::Keep {
            let mut state = self.state.lock().expect("no thread panics");
            let released = state.release_quietly(pooled, self.now);
            state.check();
            drop(state);
            match released {
                Ok(()) => return,
                Err(pooled) => pooled,
            }
        } else {
            pooled
        };
        self.apply(|state, fx| state.release(pooled, how, self.now, fx));
    }

    fn acquire(this: &Arc<Self>) -> Acquire {
        Acquire { shell: Arc::clone(this), waiting: None, done: false }
    }

    /// Leases the only resource, which is made on the spot.
    fn lease(this: &Arc<Self>) -> Box<Pooled<Toy>> {
        let mut acquire = Self::acquire(this);
        block_on(std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut acquire).poll(cx).is_pending());
            Poll::Ready(())
        }));
        this.create();
        block_on(acquire).expect("it was made")
    }

    /// Asserts that nothing is lost: this many resources are idle, and nobody waits.
    fn ends_with(&self, idle: usize) {
        let state = self.state.lock().expect("no thread panics");
        state.check();
        let load = state.load();
        assert_eq!((load.idle, load.total(), load.waiting), (idle, idle, 0));
    }
}

struct Acquire {
    shell: Arc<Shell>,
    waiting: Option<(usize, Arc<Ticket<Toy>>)>,
    done: bool,
}

impl Acquire {
    fn ask(&mut self, cx: &Context<'_>) -> Option<Answer<Toy>> {
        let asked = Asked {
            class: &Class::default(),
            limits: None,
            handicap: Duration::ZERO,
            group: None,
            labels: &Labels::default(),
            waited: Duration::ZERO,
            creates: true,
            priority: None,
            nowait: false,
            expires_at: None,
            acquired_at: Location::caller(),
        };
        let now = self.shell.now;
        let ticket = Arc::new(Ticket::new(&asked, now, cx.waker().clone()));
        match self.shell.apply(|state, fx| state.acquire(&asked, Some(&ticket), now, fx)) {
            Acquired::Granted(pooled) => Some(Ok(pooled)),
            Acquired::Refused(error) => Some(Err(error)),
            Acquired::Queued(waiter) => {
                self.waiting = Some((waiter, ticket));
                None
            }
            Acquired::UnknownClass | Acquired::NeedsTicket => unreachable!("both were given"),
        }
    }

    /// Times the request out, as a timer would.
    fn expire(mut self) -> Answer<Toy> {
        self.done = true;
        let (waiter, ticket) = self.waiting.take().expect("it waits");
        let now = self.shell.now;
        self.shell.apply(|state, fx| state.expire(waiter, &ticket, now, fx))
    }
}

impl Future for Acquire {
    type Output = Answer<Toy>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &self.waiting {
            None => self.ask(cx),
            Some((_, ticket)) => ticket.poll(cx.waker()),
        };
        match answer {
            Some(answer) => {
                self.done = true;
                Poll::Ready(answer)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if let (Some((waiter, ticket)), false) = (&self.waiting, self.done) {
            let now = self.shell.now;
            drop(self.shell.apply(|state, fx| state.cancel(*waiter, ticket, now, fx)));
        }
    }
}

/// Polls once; if there is no answer, the future is dropped, perhaps with a grant in it.
fn ask_and_leave(shell: &Arc<Shell>) {
    let answer = block_on(async {
        let mut acquire = pin!(Shell::acquire(shell));
        std::future::poll_fn(|cx| Poll::Ready(acquire.as_mut().poll(cx))).await
    });
    if let Poll::Ready(Ok(pooled)) = answer {
        shell.release(pooled, Verdict::Keep);
    }
}

/// Runs a test in every order of events in which no thread is interrupted more than three times.
fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut model = ::loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(test);
}

fn one() -> Config {
    Config { max_size: 1, ..Config::default() }
}

#[test]
fn loom_release_against_cancel_against_acquire() {
    model(|| {
        let shell = Shell::new(one());
        let held = Shell::lease(&shell);
        let leaver = thread::spawn({
            let shell = Arc::clone(&shell);
            move || ask_and_leave(&shell)
        });
        let asker = thread::spawn({
            let shell = Arc::clone(&shell);
            move || {
                let pooled =
                    block_on(Shell::acquire(&shell)).expect("it is served, whoever leaves");
                shell.release(pooled, Verdict::Keep);
            }
        });
        shell.release(held, Verdict::Keep);
        leaver.join().expect("no thread panics");
        asker.join().expect("no thread panics");
        shell.ends_with(1);
    });
}

#[test]
fn loom_release_through_recycling_against_two_waiters() {
    model(|| {
        let shell = Shell::new(one());
        let held = Shell::lease(&shell);
        let askers: Vec<_> = (0..2)
            .map(|_| {
                let shell = Arc::clone(&shell);
                thread::spawn(move || {
                    let pooled = block_on(Shell::acquire(&shell)).expect("both are served");
                    shell.release(pooled, Verdict::Recycle);
                })
            })
            .collect();
        shell.release(held, Verdict::Recycle);
        for asker in askers {
            asker.join().expect("no thread panics");
        }
        shell.ends_with(1);
    });
}

#[test]
fn loom_create_done_against_cancel() {
    model(|| {
        let shell = Shell::new(one());
        let mut acquire = Shell::acquire(&shell);
        block_on(std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut acquire).poll(cx).is_pending());
            Poll::Ready(())
        }));
        let creator = thread::spawn({
            let shell = Arc::clone(&shell);
            move || shell.create()
        });
        let next = thread::spawn({
            let shell = Arc::clone(&shell);
            move || {
                let pooled =
                    block_on(Shell::acquire(&shell)).expect("it gets what the other asked for");
                shell.release(pooled, Verdict::Keep);
            }
        });
        drop(acquire);
        creator.join().expect("no thread panics");
        next.join().expect("no thread panics");
        shell.ends_with(1);
    });
}

#[test]
fn loom_drain_against_release_against_acquire() {
    model(|| {
        let shell = Shell::new(one());
        let held = Shell::lease(&shell);
        let drainer = thread::spawn({
            let shell = Arc::clone(&shell);
            move || {
                let grace = Some(Duration::from_secs(1));
                shell.apply(|state, fx| state.drain(grace, shell.now, fx));
            }
        });
        let asker = thread::spawn({
            let shell = Arc::clone(&shell);
            move || match block_on(Shell::acquire(&shell)) {
                Ok(pooled) => shell.release(pooled, Verdict::Keep),
                Err(error) => assert!(matches!(*error, AcquireError::Closed)),
            }
        });
        shell.release(held, Verdict::Keep);
        drainer.join().expect("no thread panics");
        asker.join().expect("no thread panics");
        assert!(shell.drained.load(Ordering::SeqCst), "whoever waits for it is told");
        shell.ends_with(0);
    });
}

#[test]
fn loom_timeout_against_release() {
    model(|| {
        let shell = Shell::new(one());
        let held = Shell::lease(&shell);
        let mut acquire = Shell::acquire(&shell);
        block_on(std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut acquire).poll(cx).is_pending());
            Poll::Ready(())
        }));
        let holder = thread::spawn({
            let shell = Arc::clone(&shell);
            move || shell.release(held, Verdict::Keep)
        });
        match acquire.expire() {
            Ok(pooled) => shell.release(pooled, Verdict::Keep),
            Err(error) => assert!(matches!(*error, AcquireError::Timeout { .. })),
        }
        holder.join().expect("no thread panics");
        shell.ends_with(1);
    });
}

#[test]
fn loom_revocation_against_release_against_acquire() {
    model(|| {
        let hold_limit = Some(Duration::from_secs(1));
        let shell = Shell::new(Config { hold_limit, check_after_idle: None, ..one() });
        let held = Shell::lease(&shell);
        let warden = thread::spawn({
            let shell = Arc::clone(&shell);
            move || {
                let late = shell.now + Duration::from_secs(2);
                shell.apply(|state, fx| state.tick(late, fx));
                shell.create();
            }
        });
        let asker = thread::spawn({
            let shell = Arc::clone(&shell);
            move || {
                let mut acquire = Shell::acquire(&shell);
                let answer = block_on(std::future::poll_fn(|cx| {
                    let answer = Pin::new(&mut acquire).poll(cx);
                    shell.create();
                    answer
                }));
                // A grant that is not fetched in time is taken back.
                match answer {
                    Ok(pooled) => shell.release(pooled, Verdict::Keep),
                    Err(error) => assert!(matches!(*error, AcquireError::Timeout { .. })),
                }
            }
        });
        shell.release(held, Verdict::Keep);
        warden.join().expect("no thread panics");
        asker.join().expect("no thread panics");
        shell.create();
        let load = shell.state.lock().expect("no thread panics").load();
        assert_eq!((load.leased, load.waiting, load.closing), (0, 0, 0));
        assert!(load.total() <= 1);
    });
}
