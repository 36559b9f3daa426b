//! The pool of a node, with any driver and with profiles that travel.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pool_core::{AcquireError, Class, Driver, Event, Lease, Pool, Request, async_trait};
use pool_fleet::engine::Acquire;
use pool_fleet::{Cannot, ClassLoad, Load, LocalPool, Reason};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::profiles::{LABEL, LEASED, LOOK, Offered, Place, TravellingProfiles};
use crate::config::machine;
use crate::gateway::Code;
use crate::pool::{Browser, BrowserDriver, Leased};

/// The pool of a node in a fleet, with any driver.
pub trait NodePool: LocalPool<Lease: fmt::Debug> {
    /// [`Pool::decide`].
    ///
    /// # Errors
    ///
    /// The refusal of a policy.
    fn decide(&self, request: &mut Request) -> Result<(Class, Duration), AcquireError>;

    /// Returns a lease in the form that the gateway uses.
    fn leased(lease: Self::Lease) -> Arc<dyn Leased>;
}

impl<D: BrowserDriver> NodePool for Pool<D>
where
    D::Resource: Browser,
{
    fn decide(&self, request: &mut Request) -> Result<(Class, Duration), AcquireError> {
        Self::decide(self, request)
    }

    fn leased(lease: Lease<D>) -> Arc<dyn Leased> {
        Arc::new(lease)
    }
}

impl<D: BrowserDriver> NodePool for TravellingPool<D>
where
    D::Resource: Browser,
{
    fn decide(&self, request: &mut Request) -> Result<(Class, Duration), AcquireError> {
        self.pool.decide(request)
    }

    fn leased(lease: Lease<D>) -> Arc<dyn Leased> {
        Arc::new(lease)
    }
}

/// A pool that claims a travelling profile before it creates a browser for it.
pub struct TravellingPool<D: Driver> {
    pool: Pool<D>,
    profiles: TravellingProfiles,
    memory: Memory,
}

/// Memory in use on this machine, which is read at most once a second.
#[derive(Default)]
struct Memory(Mutex<Option<(Instant, Option<u8>)>>);

impl Memory {
    fn in_use(&self) -> Option<u8> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((at, percent)) if at.elapsed() < LOOK => percent,
            Some(_) | None => {
                let percent = machine::memory_in_use();
                *last = Some((Instant::now(), percent));
                percent
            }
        }
    }
}

impl<D: BrowserDriver> TravellingPool<D>
where
    D::Resource: Browser,
{
    /// Returns a pool whose browsers get their profiles from these.
    #[must_use]
    pub fn new(pool: Pool<D>, profiles: TravellingProfiles) -> Self {
        Self { pool, profiles, memory: Memory::default() }
    }

    pub(super) fn profiles(&self) -> &TravellingProfiles {
        &self.profiles
    }

    /// Closes browsers of travelling profiles that nobody has taken, for as long as the task runs.
    pub(super) fn close_idle(&self) -> AbortHandle {
        let (pool, profiles) = (self.pool.clone(), self.profiles.clone());
        let closing = async move {
            loop {
                sleep(LOOK).await;
                let classes = pool.stats().classes;
                let idle = classes.iter().filter(|stats| stats.load.idle > 0);
                for class in idle.map(|stats| &stats.class) {
                    if class.get(LABEL).is_some_and(|profile| profiles.travels(profile)) {
                        // Leased ones end with their leases in any case.
                        pool.invalidate(|meta| meta.class == *class);
                    }
                }
            }
        };
        tokio::spawn(closing).abort_handle()
    }

    async fn acquire_travelling(
        &self,
        profile: &str,
        instances: usize,
        asked: &Acquire,
    ) -> Result<Lease<D>, Cannot> {
        let began = Instant::now();
        let deadline = began + asked.left;
        let late = || Cannot::new(Reason::Timeout, Code::AcquireTimeout.word(), LATE);
        let mut request = Request::from(asked);
        let Ok(decided) = self.pool.decide(&mut request) else {
            // It says why not, in the words of the fleet.
            return LocalPool::acquire(&self.pool, asked).await;
        };
        let class = decided.0.clone();
        let joined = self.profiles.waiters().join(profile, &request, decided);
        let wait = joined.map_err(|waiting| {
            let why = format!("the queue for profiles is full: {waiting} requests are waiting");
            Cannot::new(Reason::Full, Code::QueueFull.word(), &why)
        })?;
        if !asked.creates {
            // None stays idle: whoever may create one gets it.
            sleep(asked.left).await;
            return Err(late());
        }
        let (claim, _taken) = loop {
            timeout_at(deadline, wait.first()).await.map_err(|_| late())?;
            let claim = tokio::select! {
                biased;
                claim = self.profiles.claim(profile, instances, deadline) => claim?,
                lease = self.untaken(&class, asked) => return Ok(lease),
                () = wait.overtaken() => continue,
            };
            if let Some(taken) = wait.take() {
                break (claim, taken);
            }
        };
        let _offered = Offered::new(&self.profiles, profile, claim);
        let mut asked = asked.clone();
        asked.waited += began.elapsed();
        asked.left = asked.left.saturating_sub(began.elapsed());
        Ok(in_use(LocalPool::acquire(&self.pool, &asked).await?))
    }

    /// Waits for a browser whose client did not wait for it, and takes it with its profile, which
    /// is not free until then. Cancelled halfway, it gives the browser back.
    async fn untaken(&self, class: &Class, asked: &Acquire) -> Lease<D> {
        let mut events = self.pool.events();
        let asked = Acquire { creates: false, ..asked.clone() };
        loop {
            let classes = self.pool.stats().classes;
            // A request that finds none would be counted among those that wait.
            if classes.iter().any(|held| held.class == *class && held.load.idle > 0)
                && let Ok(lease) = LocalPool::acquire(&self.pool, &asked).await
            {
                match lease.travelling() {
                    Some(profile) if !profile.is_lost() => return in_use(lease),
                    // Another node may have its profile by now.
                    Some(_) | None => self.return_untouched(lease),
                }
            }
            let created =
                |event: &Event| matches!(event, Event::Created { class: of, .. } if of == class);
            loop {
                match events.next().await {
                    Some(event) if created(&event) => break,
                    Some(_) => {}
                    // The pool is gone; the claim tells its client.
                    None => std::future::pending().await,
                }
            }
        }
    }
}

#[async_trait]
impl<D: BrowserDriver> LocalPool for TravellingPool<D>
where
    D::Resource: Browser,
{
    type Lease = Lease<D>;

    async fn acquire(&self, asked: &Acquire) -> Result<Lease<D>, Cannot> {
        let label = asked.request.labels.get(LABEL);
        let place = label.map(|profile| (&**profile, self.profiles.place(profile)));
        match place {
            Some((profile, Place::Travels { instances })) => {
                self.acquire_travelling(profile, instances, asked).await
            }
            Some((_, Place::Home(_) | Place::Everywhere)) | None => {
                LocalPool::acquire(&self.pool, asked).await
            }
        }
    }

    fn return_untouched(&self, lease: Lease<D>) {
        if lease.travelling().is_some() {
            self.pool.retire(lease.meta().id);
        }
        lease.return_untouched();
    }

    fn is_launching(&self, asked: &Acquire) -> bool {
        let label = asked.request.labels.get(LABEL);
        if label.is_some_and(|profile| self.profiles.travels(profile)) {
            // It will be launched as soon as the profile is free, which is no sooner anywhere else.
            return asked.creates && LocalPool::load(&self.pool).room > 0;
        }
        LocalPool::is_launching(&self.pool, asked)
    }

    fn load(&self) -> Load {
        let mut load = Load { memory: self.memory.in_use(), ..LocalPool::load(&self.pool) };
        for waiter in self.profiles.waiters().all() {
            // A class that the pool has nothing of may have what any other one may.
            let unlisted = ClassLoad { room: load.room, ..ClassLoad::default() };
            let class = load.classes.entry(waiter.class.to_string().into()).or_insert(unlisted);
            class.waiting = class.waiting.saturating_add(1);
        }
        load
    }
}

impl<D: Driver> fmt::Debug for TravellingPool<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TravellingPool").field("profiles", &self.profiles).finish_non_exhaustive()
    }
}

/// Notes that a client has the browser, so that its profile is worth saving.
fn in_use<D: Driver<Resource: Browser>>(lease: Lease<D>) -> Lease<D> {
    if let Some(used) = lease.travelling() {
        used.claim.used(LEASED);
    }
    lease
}

const LATE: &str = "the profile was in use the whole time";
