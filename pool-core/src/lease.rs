use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{Pooled, Return, State};
use crate::shell::Shell;
use crate::{Driver, Event, Labels, Meta, Verdict};

/// A leased resource in its holder's hands; dropping the lease gives it back.
///
/// The drop never blocks and needs no runtime around it: anything that must be awaited is done by
/// tasks of the pool.
#[must_use = "a lease that is dropped is given back at once"]
pub struct Lease<D: Driver> {
    shell: Arc<Shell<D>>,
    /// `None` only while it ends.
    pooled: Option<Box<Pooled<D::Resource>>>,
}

impl<D: Driver> Lease<D> {
    pub(crate) fn new(
        shell: &Arc<Shell<D>>,
        pooled: Box<Pooled<D::Resource>>,
        labels: &Labels,
    ) -> Self {
        if shell.is_observed() {
            shell.tell(Event::Leased {
                id: pooled.meta.id,
                class: pooled.meta.class.clone(),
                waited: pooled.waited,
                labels: labels.clone(),
            });
        }
        Self { shell: Arc::clone(shell), pooled: Some(pooled) }
    }

    /// Returns the pool's record of the resource.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.pooled().meta
    }

    /// Returns the time that the holder waited for it.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.pooled().waited
    }

    /// Gives the resource back as unusable: it is closed and never leased again.
    pub fn discard(mut self) {
        self.end(|_, _| Return::Discarded);
    }

    /// Gives the resource back as it was: it goes to the next waiter without being recycled, and
    /// the lease does not count as a use.
    ///
    /// It is for a holder that finds out that it does not want the resource before it has touched
    /// it, for example because it was served elsewhere in the meantime.
    pub fn return_untouched(mut self) {
        self.end(|_, _| Return::Untouched);
    }

    fn pooled(&self) -> &Pooled<D::Resource> {
        self.pooled.as_ref().expect("a lease has its resource until it ends")
    }
}

impl<D: Driver> Deref for Lease<D> {
    type Target = D::Resource;

    fn deref(&self) -> &D::Resource {
        &self.pooled().resource
    }
}

impl<D: Driver> DerefMut for Lease<D> {
    fn deref_mut(&mut self) -> &mut D::Resource {
        let pooled = self.pooled.as_mut().expect("a lease has its resource until it ends");
        &mut pooled.resource
    }
}

impl<D: Driver> Drop for Lease<D> {
    fn drop(&mut self) {
        self.end(Self::judge);
    }
}

impl<D: Driver> Lease<D> {
    /// Gives the resource back, unless that has already been done.
    fn end(&mut self, judge: impl FnOnce(&Self, &Pooled<D::Resource>) -> Return) {
        let Some(mut pooled) = self.pooled.take() else { return };
        let now = Instant::now();
        if self.shell.is_observed() {
            // Published before the engine is told, so that it comes before the next `Leased`.
            self.shell.tell(Event::Released {
                id: pooled.meta.id,
                class: pooled.meta.class.clone(),
                held: pooled
                    .leased_at
                    .map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
            });
        }
        let how = judge(self, &pooled);
        if how == Return::Judged(Verdict::Keep) && !self.shell.is_crowded() {
            let quiet = |state: &mut State<_>| state.release_quietly(pooled, now);
            match self.shell.apply_quietly(quiet) {
                Ok(()) => return,
                Err(back) => pooled = back,
            }
        }
        self.shell.apply(|state, fx| state.release(pooled, how, now, fx));
    }

    fn judge(&self, Pooled { resource, meta, .. }: &Pooled<D::Resource>) -> Return {
        // This runs in a drop, perhaps while the holder's own panic unwinds.
        let asked = catch_unwind(AssertUnwindSafe(|| self.shell.driver.needs_recycle(resource)));
        let recycle = match asked {
            Ok(true) => Verdict::Recycle,
            Ok(false) => Verdict::Keep,
            Err(_) => {
                tracing::error!(id = %meta.id, "needs_recycle panicked; the resource is discarded");
                return Return::Discarded;
            }
        };
        if self.shell.policies.is_empty() {
            return Return::Judged(recycle);
        }
        let shell = &self.shell;
        let verdict = shell.policies.released(meta, &|panic| shell.report(panic));
        Return::Judged(verdict.max(recycle))
    }
}

impl<D: Driver> std::fmt::Debug for Lease<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("meta", self.meta()).finish_non_exhaustive()
    }
}
