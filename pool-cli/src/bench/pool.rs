use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::error::Error;

use super::{Cdp, Step, Steps, Transport};
use crate::api::{Browser, State};
use crate::client::Client;
use crate::exit::Failure;

/// Interval at which the pool is asked whether it has a browser back, which is the precision to
/// which the time of a release is known.
const LOOK: Duration = Duration::from_millis(2);

/// Maximum time to wait for a browser to come back; none takes as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The contestant that leases: a pool behind its gateway, here or elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    client: Arc<Client>,
    /// Query of the address.
    query: String,
}

/// A lease of a pool.
#[derive(Debug)]
pub(crate) struct Leased {
    pub(crate) cdp: Cdp,
    /// The id of the lease.
    id: String,
}

impl Pool {
    /// Returns the pool of a client; `lease` is the kind to ask for, `None` for the pool's default.
    pub(crate) fn new(client: Client, lease: Option<&str>) -> Self {
        let query = lease.map(|kind| format!("lease={kind}")).unwrap_or_default();
        Self { client: Arc::new(client), query }
    }

    /// Leases a browser, which has not answered yet.
    ///
    /// # Errors
    ///
    /// If nobody answers, or the pool refuses.
    pub(crate) async fn lease(&self) -> Result<Leased, Failure> {
        let request = self.client.websocket(&self.query)?;
        match Transport::open(request).await {
            Ok((transport, response)) => {
                let id = response.headers().get("browser-pool-lease");
                let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
                Ok(Leased { cdp: Cdp::new(transport), id })
            }
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let status = response.status().as_u16();
                Err(self.client.refused(status, &String::from_utf8_lossy(body)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Runs one session from nothing to a loaded page.
    pub(crate) async fn session(&self, url: &str) -> Result<(Leased, Steps), Failure> {
        let began = Instant::now();
        let mut leased = self.lease().await?;
        let mut steps = Steps::default();
        steps.walk_leased(began, &mut leased.cdp, url).await?;
        Ok((leased, steps))
    }

    /// Runs one session that opens a page of its own at once.
    async fn new_page(&self) -> Result<(Leased, Duration), Failure> {
        let began = Instant::now();
        let mut leased = self.lease().await?;
        leased.cdp.product().await?;
        leased.cdp.open_page().await?;
        Ok((leased, began.elapsed()))
    }

    /// Runs some sessions at once, each to its end; then as many that open a page of their own.
    pub(crate) async fn round(&self, clients: usize, url: &str) -> Result<Steps, Failure> {
        let sessions = (0..clients).map(|_| self.session(url));
        let sessions = futures_util::future::try_join_all(sessions).await?;
        let mut all = Steps::default();
        let mut leases = Vec::new();
        for (leased, steps) in sessions {
            all.append(steps);
            leases.push(leased);
        }
        for took in self.release(leases).await? {
            all.add(Step::Release, took);
        }
        let sessions = (0..clients).map(|_| self.new_page());
        let sessions = futures_util::future::try_join_all(sessions).await?;
        let (leases, took): (Vec<_>, Vec<_>) = sessions.into_iter().unzip();
        took.into_iter().for_each(|took| all.add(Step::NewPage, took));
        self.release(leases).await?;
        Ok(all)
    }

    /// Returns the kind of a held lease: `exclusive` or `shared`.
    pub(crate) async fn kind(&self, leased: &Leased) -> Result<String, Failure> {
        let sessions = self.state().await?.sessions;
        let own = sessions.into_iter().find(|session| session.id == leased.id);
        own.map(|session| session.kind.into_owned())
            .ok_or_else(|| Failure::new("the pool lost the lease"))
    }

    /// Closes connections, and returns how long each took until the next client could have its
    /// browser: idle again, already with somebody else, or replaced.
    pub(crate) async fn release(&self, leases: Vec<Leased>) -> Result<Vec<Duration>, Failure> {
        let held = self.state().await?.browsers.into_iter();
        let held: HashMap<String, u64> =
            held.filter_map(|browser| Some((browser.lease?.id, browser.id))).collect();
        let mut waiting = Vec::new();
        for Leased { cdp, id } in leases {
            let began = Instant::now();
            cdp.close().await?;
            let browser = held.get(&id).copied();
            waiting.push((
                began,
                browser.ok_or_else(|| Failure::new("the pool lost a lease"))?,
                id,
            ));
        }
        let mut took = Vec::new();
        let began = Instant::now();
        while !waiting.is_empty() {
            if began.elapsed() > PATIENCE {
                let waited = PATIENCE.as_secs();
                return Err(Failure::new(format!(
                    "the pool did not get its browser back within {waited} s"
                )));
            }
            tokio::time::sleep(LOOK).await;
            let browsers = self.state().await?.browsers;
            waiting.retain(|(began, browser, lease)| {
                let now = browsers.iter().find(|now| now.id == *browser);
                let is_back = now.is_none_or(|now| is_free_of(now, lease));
                if is_back {
                    took.push(began.elapsed());
                }
                !is_back
            });
        }
        Ok(took)
    }

    /// Returns the pool's own view of its state.
    async fn state(&self) -> Result<State, Failure> {
        let client = Arc::clone(&self.client);
        tokio::task::spawn_blocking(move || client.get("/api/state")).await?
    }

    /// Checks that the pool answers, accepts the token, and gives leases.
    pub(crate) async fn greet(&self) -> Result<(), Failure> {
        self.client.websocket(&self.query)?;
        self.state().await.map(drop)
    }
}

/// Returns `true` once this lease is over and the browser is ready for the next one.
fn is_free_of(browser: &Browser, lease: &str) -> bool {
    match &*browser.state {
        // Between its grant and the start of its session, it is leased to nobody by name.
        "leased" => browser.lease.as_ref().is_some_and(|holder| holder.id != lease),
        state => state == "idle",
    }
}
