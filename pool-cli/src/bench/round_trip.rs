//! Cost of the way through the gateway.

use std::time::{Duration, Instant};

use super::{Cdp, Direct, Launcher, Page, Pool};
use crate::exit::Failure;

/// Pairs of pages: how the threads of one pair come to lie on the cores decides too much of what it
/// takes.
const PAGES: usize = 5;

/// Round trips with each page.
const SAMPLES: usize = 400;

/// Round trips before that, which are not counted.
const WARM_UP: usize = 50;

/// Round trips of `Runtime.evaluate('1')`.
#[derive(Debug, Default)]
pub(crate) struct RoundTrips {
    /// Through the gateway, the multiplexer and the pipe.
    pub(crate) pool: Vec<Duration>,
    /// Over a WebSocket to the debugging port of a Chromium of the same kind.
    pub(crate) direct: Vec<Duration>,
}

/// Measures both ways in turn, one round trip on each.
pub(crate) async fn measure(pool: &Pool, launcher: &Launcher) -> Result<RoundTrips, Failure> {
    let direct = Direct::launch(launcher).await?;
    let mut trips = RoundTrips::default();
    for _ in 0..PAGES {
        trips.alternate(pool, &direct).await?;
    }
    direct.close().await;
    Ok(trips)
}

impl RoundTrips {
    async fn alternate(&mut self, pool: &Pool, direct: &Direct) -> Result<(), Failure> {
        let mut leased = pool.lease().await?;
        let leased_page = leased.cdp.first_page().await?;
        let mut connected = direct.connect().await?;
        let page = connected.open_page().await?;
        for sample in 0..WARM_UP + SAMPLES {
            let through = round_trip(&mut leased.cdp, &leased_page).await?;
            let directly = round_trip(&mut connected, &page).await?;
            if sample >= WARM_UP {
                self.pool.push(through);
                self.direct.push(directly);
            }
        }
        connected.close().await?;
        pool.release(vec![leased]).await?;
        Ok(())
    }
}

async fn round_trip(cdp: &mut Cdp, page: &Page) -> Result<Duration, Failure> {
    let began = Instant::now();
    cdp.evaluate_one(page).await?;
    Ok(began.elapsed())
}
