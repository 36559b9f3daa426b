use std::path::PathBuf;
use std::sync::{Arc, Weak};

use tokio::sync::OnceCell;

use super::fleet::Fleet;
use super::gate::Gate;
use super::host::Place;
use super::oxide::Oxide;
use super::spec::BrowserSpec;
use crate::ChromeError;
use crate::egress::{Forwarder, Pass};
use crate::mux::{ClientProxies, LeaseKind, LeaseOptions, LeaseTerms, MuxLease};

/// A lease in its place. Dropped, the lease goes first and the place is free then.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) oxide: OnceCell<Oxide>,
    pub(super) lease: Arc<MuxLease>,
    /// Where the lease is guarded or proxied. After `lease`, whose contexts know its port.
    pub(super) gate: Option<Gate>,
    directory: Option<Directory>,
    pub(super) place: Place,
}

/// The directory of a shared lease's files; goes with its drop.
#[derive(Debug)]
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed now goes with the process.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Seat {
    /// Opens a lease in a place.
    pub(super) async fn take(
        fleet: &Fleet,
        place: Place,
        spec: &BrowserSpec,
    ) -> Result<Self, ChromeError> {
        let kind = spec.kind(fleet.config.lease);
        let mut options = LeaseOptions::new(kind)
            .default_context(spec.default_context())
            .warm_page(fleet.config.warm_page);
        let gate = Gate::new(&place, options.default_context).await?;
        if let Some(gate) = &gate {
            options.proxy = Some(gate.proxy_server());
            // Through the gate or nowhere: that holds for the contexts of its clients as well.
            options.client_proxies = ClientProxies::Only(fleet.config.client_proxies.clone());
        }
        options.reserved = fleet.reserved(&place);
        let mut directory = None;
        if kind == LeaseKind::Shared {
            let path = place.lease_directory();
            std::fs::create_dir(&path).map_err(ChromeError::file("create", &path))?;
            directory = Some(Directory(path.clone()));
            options = options.directory(path);
            options.directories.extend(fleet.config.directories.iter().cloned());
        }
        let lease = Arc::new(place.mux.open_lease(options).await?);
        place.count_lease();
        if fleet.config.warm_page {
            // A page was made: no need to prove it once more.
            place.health.proven();
        }
        Ok(Self { oxide: OnceCell::new(), lease, gate, directory, place })
    }

    /// Lets the lease out to where its terms allow; only the first time counts.
    pub(super) fn let_out(&self, terms: &LeaseTerms) {
        if let Some(gate) = &self.gate {
            let pass =
                || Pass::new().domains(terms.allow_domains.clone()).holder(terms.holder.clone());
            gate.open(pass);
        }
    }

    pub(super) fn forwarder(&self) -> Weak<Forwarder> {
        self.gate.as_ref().map_or_else(Weak::new, |gate| Arc::downgrade(gate.forwarder()))
    }

    /// Ends the lease completely, checked, and gives the place back for the next one.
    pub(super) async fn clear(self) -> (Place, Result<(), ChromeError>) {
        let Self { oxide, lease, gate, directory, place } = self;
        drop(oxide);
        if let Some(gate) = &gate {
            gate.close();
        }
        let ended = lease.end().await.map_err(Into::into);
        if let Some(gate) = gate
            && ended.is_ok()
        {
            gate.finish();
        }
        drop(directory);
        (place, ended)
    }
}
