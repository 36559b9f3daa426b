//! Webhooks that are called when clients are not served well.
//!
//! They are for who has no Prometheus; `ops/prometheus/alerts.yml` sees more. The pool only counts
//! what happened; one task for each kind of alert makes the calls, so that no webhook, however
//! slow, holds up the pool or the other webhooks.

mod kind;
mod tally;
mod teller;
mod webhook;

pub use kind::AlertKind;
pub use teller::Alerts;
