mod bench;
mod cancelled;
mod lifecycle;
mod pooled;
mod revoked;

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use bench::Bench;

use crate::Driver;

/// Puts a driver through everything that a pool does to one, and panics where it breaks the
/// contract of [`Driver`].
///
/// Await what it returns, inside a Tokio runtime; paused time is fine. The `factory` is called
/// once or more and must give a driver that works: the suite is about what a working driver does
/// when its calls are dropped half-way, its resources are dropped on a thread without a runtime,
/// or revoked in the hands of their holder.
///
/// # Examples
///
/// ```
/// use pool_core::testing::{FakeDriver, conformance};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// conformance(FakeDriver::new).await;
/// # }
/// ```
pub fn conformance<D: Driver>(factory: impl Fn() -> D + Send + Sync + 'static) -> Conformance<D> {
    Conformance {
        factory: Box::new(factory),
        configure: Box::new(|_| {}),
        leftovers: Box::new(|_| Vec::new()),
        patience: Duration::from_secs(60),
    }
}

/// A run of the suite, from [`conformance`]; await it.
#[must_use = "nothing is tested until it is awaited"]
pub struct Conformance<D: Driver> {
    factory: Box<dyn Fn() -> D + Send + Sync>,
    configure: Configure<D>,
    leftovers: Leftovers<D>,
    patience: Duration,
}

type Configure<D> = Box<dyn Fn(&mut <D as Driver>::Spec) + Send + Sync>;
type Leftovers<D> = Box<dyn Fn(&D) -> Vec<String> + Send + Sync>;

impl<D: Driver> Conformance<D> {
    /// Edits the spec of every resource. Default: the spec's own default.
    pub fn configure(mut self, configure: impl Fn(&mut D::Spec) + Send + Sync + 'static) -> Self {
        self.configure = Box::new(configure);
        self
    }

    /// Names what a driver has left behind (processes, directories, sockets) when none of its
    /// resources is alive. The suite waits for an empty list after each rule, and panics when
    /// there is none in time. Default: always empty.
    pub fn leftovers(
        mut self,
        leftovers: impl Fn(&D) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.leftovers = Box::new(leftovers);
        self
    }

    /// Timeout of any one step. Default: 60 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    async fn run(self) {
        let mut bench = Bench::new(self);
        lifecycle::run(&mut bench).await;
        cancelled::run(&mut bench).await;
        revoked::run(&mut bench).await;
        pooled::run(&bench).await;
    }
}

impl<D: Driver> IntoFuture for Conformance<D> {
    type Output = ();
    type IntoFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<D: Driver> fmt::Debug for Conformance<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conformance").field("patience", &self.patience).finish_non_exhaustive()
    }
}
