//! A driver of pretended browsers, which does what it is told and keeps what it is given.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pool_core::{
    AcquireError, BoxError, Driver, Lease, Meta, Policy, Pool, Reporter, Request, async_trait,
};
use pool_policies::{
    PolicyError, ProfileInstance, ProfileSpec, ProxyAssignment, ProxyResource, ProxySpec, Warm,
    WarmUp,
};

#[derive(Default)]
pub(crate) struct Spec {
    pub(crate) profile: Option<ProfileInstance>,
    pub(crate) proxy: Option<ProxyAssignment>,
}

impl ProfileSpec for Spec {
    fn set_profile(&mut self, instance: ProfileInstance) {
        self.profile = Some(instance);
    }
}

impl ProxySpec for Spec {
    fn set_proxy(&mut self, proxy: ProxyAssignment) {
        self.proxy = Some(proxy);
    }
}

pub(crate) struct Browser {
    pub(crate) id: u64,
    pub(crate) profile: Option<ProfileInstance>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) proxy: Option<ProxyAssignment>,
    pub(crate) warmed: Vec<WarmUp>,
    control: Control,
}

impl ProxyResource for Browser {
    fn proxy(&self) -> Option<&ProxyAssignment> {
        self.proxy.as_ref()
    }
}

#[async_trait]
impl Warm for Browser {
    async fn warm(&mut self, how: &WarmUp) -> Result<(), BoxError> {
        self.warmed.push(how.clone());
        let behaviour = *self.control.0.warm.lock().unwrap();
        match behaviour {
            Warmth::Works => Ok(()),
            Warmth::Fails => Err("the page crashed".into()),
            Warmth::Hangs => std::future::pending().await,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Warmth {
    #[default]
    Works,
    Fails,
    Hangs,
}

/// Says how the driver behaves, and what it has done.
#[derive(Clone, Default)]
pub(crate) struct Control(Arc<Inner>);

#[derive(Default)]
struct Inner {
    launch: Mutex<Duration>,
    warm: Mutex<Warmth>,
    overlooks_proxies: AtomicBool,
    launches_fail: AtomicBool,
    created: AtomicUsize,
    closed: AtomicUsize,
}

impl Control {
    pub(crate) fn launch_takes(&self, time: Duration) {
        *self.0.launch.lock().unwrap() = time;
    }

    pub(crate) fn fail_launches(&self) {
        self.0.launches_fail.store(true, Ordering::Relaxed);
    }

    pub(crate) fn warm_up(&self, warmth: Warmth) {
        *self.0.warm.lock().unwrap() = warmth;
    }

    pub(crate) fn overlook_proxies(&self) {
        self.0.overlooks_proxies.store(true, Ordering::Relaxed);
    }

    pub(crate) fn created(&self) -> usize {
        self.0.created.load(Ordering::Relaxed)
    }

    pub(crate) fn closed(&self) -> usize {
        self.0.closed.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Default)]
pub(crate) struct Browsers {
    pub(crate) control: Control,
}

#[async_trait]
impl Driver for Browsers {
    type Spec = Spec;
    type Resource = Browser;
    type Error = PolicyError;

    async fn create(&self, spec: &Spec, meta: &Meta, _: Reporter) -> Result<Browser, PolicyError> {
        let launch = *self.control.0.launch.lock().unwrap();
        if !launch.is_zero() {
            tokio::time::sleep(launch).await;
        }
        if self.control.0.launches_fail.load(Ordering::Relaxed) {
            return Err(PolicyError::RuntimeGone);
        }
        let directory = match &spec.profile {
            Some(profile) => Some(profile.open().await?.to_owned()),
            None => None,
        };
        self.control.0.created.fetch_add(1, Ordering::Relaxed);
        let overlooks = self.control.0.overlooks_proxies.load(Ordering::Relaxed);
        Ok(Browser {
            id: meta.id.get(),
            profile: spec.profile.clone(),
            directory,
            proxy: spec.proxy.clone().filter(|_| !overlooks),
            warmed: Vec::new(),
            control: self.control.clone(),
        })
    }

    async fn close(&self, browser: Browser, _: &Meta) {
        self.control.0.closed.fetch_add(1, Ordering::Relaxed);
        drop(browser);
    }
}

/// A pool of eight with one policy.
pub(crate) fn pool(policy: impl Policy<Browsers>) -> Pool<Browsers> {
    Pool::builder(Browsers::default()).policy(policy).build().unwrap()
}

pub(crate) fn profile(name: &str) -> Request {
    Request::new().label("profile", name)
}

pub(crate) fn region(name: &str) -> Request {
    Request::new().label("region", name)
}

/// The code with which a request is refused.
pub(crate) fn refusal(result: Result<Lease<Browsers>, AcquireError>) -> &'static str {
    match result {
        Err(AcquireError::Rejected(rejection)) => rejection.code,
        Err(other) => panic!("failed, but was not refused: {other}"),
        Ok(_) => panic!("was not refused"),
    }
}

/// The policy's error that kept a request from being served.
pub(crate) fn cause(error: &AcquireError) -> &PolicyError {
    let error = match error {
        AcquireError::Unavailable { last, .. } => last,
        AcquireError::Timeout { last: Some(last), .. } => last,
        other => panic!("not the failure of a creation: {other}"),
    };
    error.get().downcast_ref().unwrap_or_else(|| panic!("not a policy's: {error}"))
}

/// Waits until a condition holds, on paused time.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    pool_core::testing::until(what, condition).await;
}
