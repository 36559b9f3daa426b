use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use pool_core::Event;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::AlertKind;
use super::kind::{reason, tenant};
use super::tally::Tally;
use super::webhook::{Message, call};
use crate::config::AlertsConfig;

/// The alerts of one pool: it counts what is worth one, and calls the webhooks that are set.
#[derive(Debug)]
pub struct Alerts {
    pool: String,
    settings: RwLock<Arc<AlertsConfig>>,
    /// The tenants of the configuration: what clients call themselves is not told.
    tenants: RwLock<BTreeSet<String>>,
    tallies: [Tally; AlertKind::ALL.len()],
}

impl Alerts {
    /// For the pool of this name; without a webhook yet.
    #[must_use]
    pub fn new(pool: &str) -> Self {
        Self {
            pool: pool.to_owned(),
            settings: RwLock::default(),
            tenants: RwLock::default(),
            tallies: std::array::from_fn(|_| Tally::default()),
        }
    }

    /// Calls these webhooks from now on. A call that is under way is finished as it was begun.
    pub fn configure(&self, settings: &AlertsConfig) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings.clone());
    }

    /// Tells apart these tenants from now on.
    pub fn set_tenants<'a>(&self, names: impl IntoIterator<Item = &'a String>) {
        let names = names.into_iter().cloned().collect();
        *self.tenants.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Makes the calls until the set is dropped.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use = "dropping the set ends the calls"]
    pub fn run(self: &Arc<Self>) -> JoinSet<()> {
        AlertKind::ALL.into_iter().map(|kind| tell(Arc::clone(self), kind)).collect()
    }

    /// Counts an event, if it is worth an alert that somebody wants. Never waits.
    pub(crate) fn observe(&self, event: &Event) {
        let Some(kind) = AlertKind::of(event) else { return };
        if kind.url(&self.settings()).is_some() {
            let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
            let tenant = tenant(event).filter(|name| tenants.contains(*name));
            self.tally(kind).add(reason(event), tenant);
        }
    }

    fn settings(&self) -> Arc<AlertsConfig> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn tally(&self, kind: AlertKind) -> &Tally {
        &self.tallies[kind as usize]
    }
}

/// The first of a kind is told at once, what follows once an interval.
async fn tell(alerts: Arc<Alerts>, kind: AlertKind) {
    loop {
        let happened = alerts.tally(kind).take().await;
        let settings = alerts.settings();
        // A reload may have taken it away meanwhile.
        let Some(url) = kind.url(&settings) else { continue };
        let message = Message::new(&alerts.pool, kind, &happened);
        // Neither the address nor the answer is logged: both may hold a secret.
        match call(url, &message, settings.request_timeout, settings.attempts).await {
            Ok(()) => debug!(alert = kind.code(), count = happened.count, "webhook called"),
            Err(failure) => {
                warn!(alert = kind.code(), count = happened.count, "webhook not called: {failure}");
            }
        }
        sleep(settings.interval).await;
    }
}
