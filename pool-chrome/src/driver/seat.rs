use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::fleet::Fleet;
use super::host::Place;
use super::oxide::Oxide;
use super::spec::BrowserSpec;
use crate::ChromeError;
use crate::mux::{ClientProxies, LeaseKind, LeaseOptions, MuxLease};

/// A lease in its place. Dropped, the lease goes first and the place is free then.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) oxide: OnceCell<Oxide>,
    pub(super) lease: Arc<MuxLease>,
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
        if place.forwarder.is_some() {
            // "Through its proxy or nowhere" holds for the contexts of its clients as well.
            options.client_proxies = ClientProxies::Only(Vec::new());
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
        Ok(Self { oxide: OnceCell::new(), lease, directory, place })
    }

    /// Ends the lease completely, checked, and gives the place back for the next one.
    pub(super) async fn clear(self) -> (Place, Result<(), ChromeError>) {
        let Self { oxide, lease, directory, place } = self;
        drop(oxide);
        let ended = lease.end().await.map_err(Into::into);
        drop(directory);
        (place, ended)
    }
}
