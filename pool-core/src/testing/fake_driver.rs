use async_trait::async_trait;

use super::{Behaviour, FakeControl, FakeError, FakeResource, FakeSpec, Outcome, Step};
use crate::{Driver, Meta, Reporter};

/// A driver whose every step does what a test tells it to, through its [`FakeControl`].
///
/// Without being told anything it makes a [`FakeResource`] at once and never fails.
#[derive(Clone, Debug, Default)]
pub struct FakeDriver {
    control: FakeControl,
}

impl FakeDriver {
    /// A driver with a control of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The handle that scripts and watches it.
    #[must_use]
    pub fn control(&self) -> FakeControl {
        self.control.clone()
    }

    async fn perform(&self, step: Step, meta: &Meta) -> Result<(), FakeError> {
        let entry = self.control.ledger.begin(step, meta);
        let mut behaviour = self.control.decide(step);
        if behaviour == Behaviour::Hold {
            behaviour = self.control.hold(step, meta.id).await;
        }
        let passes = match behaviour {
            // Held again when it was let go: nothing else is said, so it is let through.
            Behaviour::Pass | Behaviour::Hold => true,
            Behaviour::Fail => false,
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Panic => panic!("{step} of resource {} was told to panic", meta.id),
            Behaviour::Take(time) => {
                tokio::time::sleep(time).await;
                true
            }
            Behaviour::FailAfter(time) => {
                tokio::time::sleep(time).await;
                false
            }
        };
        entry.end(if passes { Outcome::Done } else { Outcome::Failed });
        if passes { Ok(()) } else { Err(FakeError { step, id: meta.id }) }
    }
}

#[async_trait]
impl Driver for FakeDriver {
    type Spec = FakeSpec;
    type Resource = FakeResource;
    type Error = FakeError;

    async fn create(
        &self,
        spec: &FakeSpec,
        meta: &Meta,
        reporter: Reporter,
    ) -> Result<FakeResource, FakeError> {
        self.control.keep_reporter(meta.id, reporter);
        self.perform(Step::Create, meta).await?;
        Ok(FakeResource::new(meta, spec, &self.control.ledger))
    }

    async fn check(&self, resource: &mut FakeResource, meta: &Meta) -> Result<(), FakeError> {
        debug_assert_eq!(resource.id(), meta.id, "a check got the wrong meta");
        self.perform(Step::Check, meta).await
    }

    fn needs_recycle(&self, _: &FakeResource) -> bool {
        self.control.needs_recycle()
    }

    async fn recycle(&self, resource: &mut FakeResource, meta: &Meta) -> Result<(), FakeError> {
        debug_assert_eq!(resource.id(), meta.id, "a recycle got the wrong meta");
        self.perform(Step::Recycle, meta).await
    }

    async fn close(&self, resource: FakeResource, meta: &Meta) {
        debug_assert_eq!(resource.id(), meta.id, "a close got the wrong meta");
        // It cannot fail, whatever it was told.
        let _ = self.perform(Step::Close, meta).await;
    }

    async fn revoke(&self, meta: &Meta) {
        let _ = self.perform(Step::Revoke, meta).await;
    }
}
