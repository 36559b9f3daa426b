use std::time::Duration;

use pool_core::testing::{Behaviour, FakeDriver, FakeResource, FakeSpec, Step, conformance};
use pool_core::{Driver, Meta, Reporter, async_trait};

#[tokio::test(start_paused = true)]
async fn a_good_driver_passes_the_suite() {
    // A pool counts its resources from one, so each of the suite's drivers needs its own ledger.
    conformance(move || {
        let fresh = FakeDriver::new();
        for step in [Step::Create, Step::Recycle, Step::Check, Step::Close] {
            fresh.control().set(step, Behaviour::Take(Duration::from_millis(50)));
        }
        fresh
    })
    .configure(|spec: &mut FakeSpec| drop(spec.labels.insert("suite".into(), "yes".into())))
    .leftovers(|driver: &FakeDriver| {
        let existing = driver.control().existing();
        existing.into_iter().map(|id| id.to_string()).collect()
    })
    .await;
}

/// Breaks the contract in one way.
struct Flawed {
    fake: FakeDriver,
    flaw: Flaw,
}

#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    RecyclingSpoils,
    DropPanicsOutsideARuntime,
    RevocationHangs,
    CloseLeavesItBehind,
}

struct Value {
    fake: Option<FakeResource>,
    spoiled: bool,
    flaw: Flaw,
}

impl Drop for Value {
    fn drop(&mut self) {
        if self.flaw == Flaw::DropPanicsOutsideARuntime && self.fake.is_some() {
            tokio::runtime::Handle::current();
        }
        if self.flaw == Flaw::CloseLeavesItBehind {
            std::mem::forget(self.fake.take());
        }
    }
}

#[derive(Debug)]
struct Spoiled;

impl std::fmt::Display for Spoiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("spoiled")
    }
}

impl std::error::Error for Spoiled {}

#[async_trait]
impl Driver for Flawed {
    type Spec = FakeSpec;
    type Resource = Value;
    type Error = Spoiled;

    async fn create(&self, spec: &FakeSpec, meta: &Meta, at: Reporter) -> Result<Value, Spoiled> {
        let fake = self.fake.create(spec, meta, at).await.map_err(|_| Spoiled)?;
        Ok(Value { fake: Some(fake), spoiled: false, flaw: self.flaw })
    }

    async fn check(&self, value: &mut Value, _: &Meta) -> Result<(), Spoiled> {
        if value.spoiled { Err(Spoiled) } else { Ok(()) }
    }

    async fn recycle(&self, value: &mut Value, _: &Meta) -> Result<(), Spoiled> {
        value.spoiled = self.flaw == Flaw::RecyclingSpoils;
        Ok(())
    }

    async fn revoke(&self, _: &Meta) {
        if self.flaw == Flaw::RevocationHangs {
            std::future::pending::<()>().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_breaks_the_contract_is_told_which_rule() {
    let flaws = [
        (Flaw::RecyclingSpoils, "a recycled resource passes its check"),
        (Flaw::DropPanicsOutsideARuntime, "on a thread without a runtime"),
        (Flaw::RevocationHangs, "revoke took longer"),
        (Flaw::CloseLeavesItBehind, "the driver left behind"),
    ];
    for (flaw, rule) in flaws {
        let suite = conformance(move || Flawed { fake: FakeDriver::new(), flaw }).leftovers(
            |driver: &Flawed| {
                let existing = driver.fake.control().existing();
                existing.into_iter().map(|id| id.to_string()).collect()
            },
        );
        let ended = tokio::spawn(async move { suite.await }).await;
        let panic = ended.expect_err("the suite finds the flaw").into_panic();
        let said = panic.downcast_ref::<String>().expect("it says which rule");
        assert!(said.contains(rule), "{said}");
    }
}
