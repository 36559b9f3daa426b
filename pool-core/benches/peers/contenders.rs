use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use pool_core::{Driver, Meta, Reporter, Request, async_trait};
use pool_policies::{Priority, Profile, ProfileInstance, ProfileSpec, Profiles};

/// Something small, as a handle to a connection is.
pub(crate) type Item = Box<u64>;

/// A pool under test: it holds at most as many items as it was made with.
///
/// None of them checks an item at hand-out: the peers are told that it is fine by their managers,
/// pool-core's check of what has idled long is switched off.
pub(crate) trait Contender: Clone + Send + Sync + 'static {
    type Guard: Send;
    const NAME: &'static str;
    fn new(size: usize) -> Self;
    fn get(&self) -> impl Future<Output = Self::Guard> + Send;
}

pub(crate) struct Items;

#[async_trait]
impl Driver for Items {
    type Spec = Spec;
    type Resource = Item;
    type Error = Infallible;

    async fn create(&self, _: &Spec, meta: &Meta, _: Reporter) -> Result<Item, Infallible> {
        Ok(Box::new(meta.id.get()))
    }

    fn needs_recycle(&self, _: &Item) -> bool {
        false
    }
}

#[derive(Default)]
pub(crate) struct Spec(Option<ProfileInstance>);

impl ProfileSpec for Spec {
    fn set_profile(&mut self, profile: ProfileInstance) {
        self.0 = Some(profile);
    }
}

#[derive(Clone)]
pub(crate) struct Bare(pool_core::Pool<Items>);

impl Contender for Bare {
    type Guard = pool_core::Lease<Items>;
    const NAME: &'static str = "pool-core";

    fn new(size: usize) -> Self {
        Self(
            pool_core::Pool::builder(Items)
                .max_size(size)
                .max_waiting(1 << 20)
                .check_after_idle(None)
                .build()
                .expect("valid"),
        )
    }

    async fn get(&self) -> Self::Guard {
        self.0.acquire().await.expect("it never fails")
    }
}

/// Profiles and priorities on top, and a request that uses both.
#[derive(Clone)]
pub(crate) struct Stacked {
    pool: pool_core::Pool<Items>,
    request: Request,
    _root: Arc<Root>,
}

pub(crate) struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Contender for Stacked {
    type Guard = pool_core::Lease<Items>;
    const NAME: &'static str = "pool-core + policies";

    fn new(size: usize) -> Self {
        static MADE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let made = MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let root =
            std::env::temp_dir().join(format!("pool-core-bench-{}-{made}", std::process::id()));
        let profiles = Profiles::builder(&root)
            .profile("work", Profile::new().max_size(size))
            .build()
            .expect("valid");
        let pool = pool_core::Pool::builder(Items)
            .policy(profiles)
            .policy(Priority::new())
            .max_size(size)
            .max_waiting(1 << 20)
            .check_after_idle(None)
            .build()
            .expect("valid");
        let request = Request::new().label("profile", "work").priority(3);
        Self { pool, request, _root: Arc::new(Root(root)) }
    }

    async fn get(&self) -> Self::Guard {
        self.pool.acquire_with(self.request.clone()).await.expect("it never fails")
    }
}

pub(crate) struct Manager;

impl deadpool::managed::Manager for Manager {
    type Type = Item;
    type Error = Infallible;

    async fn create(&self) -> Result<Item, Infallible> {
        Ok(Box::new(0))
    }

    async fn recycle(
        &self,
        _: &mut Item,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Infallible> {
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) struct Deadpool(deadpool::managed::Pool<Manager>);

impl Contender for Deadpool {
    type Guard = deadpool::managed::Object<Manager>;
    const NAME: &'static str = "deadpool";

    fn new(size: usize) -> Self {
        Self(deadpool::managed::Pool::builder(Manager).max_size(size).build().expect("valid"))
    }

    async fn get(&self) -> Self::Guard {
        self.0.get().await.expect("it never fails")
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Item;
    type Error = Infallible;

    async fn connect(&self) -> Result<Item, Infallible> {
        Ok(Box::new(0))
    }

    async fn is_valid(&self, _: &mut Item) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Item) -> bool {
        false
    }
}

#[derive(Clone)]
pub(crate) struct Bb8(bb8::Pool<Manager>);

impl Contender for Bb8 {
    type Guard = bb8::PooledConnection<'static, Manager>;
    const NAME: &'static str = "bb8";

    fn new(size: usize) -> Self {
        let size = u32::try_from(size).expect("small");
        Self(bb8::Pool::builder().max_size(size).build_unchecked(Manager))
    }

    async fn get(&self) -> Self::Guard {
        self.0.get_owned().await.expect("it never fails")
    }
}

#[mobc::async_trait]
impl mobc::Manager for Manager {
    type Connection = Item;
    type Error = Infallible;

    async fn connect(&self) -> Result<Item, Infallible> {
        Ok(Box::new(0))
    }

    async fn check(&self, item: Item) -> Result<Item, Infallible> {
        Ok(item)
    }
}

#[derive(Clone)]
pub(crate) struct Mobc(mobc::Pool<Manager>);

impl Contender for Mobc {
    type Guard = mobc::Connection<Manager>;
    const NAME: &'static str = "mobc";

    fn new(size: usize) -> Self {
        let size = size as u64;
        Self(mobc::Pool::builder().max_open(size).max_idle(size).build(Manager))
    }

    async fn get(&self) -> Self::Guard {
        self.0.get().await.expect("it never fails")
    }
}

/// fast_pool wants an error that can be made from a string.
#[derive(Debug)]
pub(crate) struct Failed;

impl From<&str> for Failed {
    fn from(_: &str) -> Self {
        Self
    }
}

pub(crate) struct FastManager;

impl fast_pool::Manager for FastManager {
    type Connection = Item;
    type Error = Failed;

    async fn connect(&self) -> Result<Item, Failed> {
        Ok(Box::new(0))
    }

    async fn check(&self, _: &mut Item) -> Result<(), Failed> {
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) struct FastPool(fast_pool::Pool<FastManager>);

impl Contender for FastPool {
    type Guard = fast_pool::ConnectionGuard<FastManager>;
    const NAME: &'static str = "fast_pool";

    fn new(size: usize) -> Self {
        let pool = fast_pool::Pool::new(FastManager);
        pool.set_max_open(size as u64);
        Self(pool)
    }

    #[allow(clippy::manual_async_fn, reason = "its trait does not promise Send futures")]
    fn get(&self) -> impl Future<Output = Self::Guard> + Send {
        async { self.0.get().await.expect("it never fails") }
    }
}
