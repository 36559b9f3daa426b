use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use crate::Cdp;

/// Holders of Chromiums, by what each Chromium says of itself: a second holder is noticed.
///
/// Of exclusive leases only.
#[derive(Debug, Default)]
pub struct Holders(Mutex<HashMap<u64, String>>);

/// A Chromium in the hands of one client, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Held<'a> {
    holders: &'a Holders,
    /// The Chromium's process.
    pub browser: u64,
}

impl Holders {
    /// Notes that a client has its Chromium. Drop what is returned before the lease is given back.
    ///
    /// # Panics
    ///
    /// If another client has it, or its mark is in the browser.
    pub async fn hold(&self, client: &Cdp) -> Held<'_> {
        let lease = client.lease.clone().expect("the pool tells the lease");
        let info = client.call("SystemInfo.getProcessInfo", json!({})).await;
        let info = info.unwrap_or_else(|error| panic!("{lease}: {error:?}"));
        let processes = info["processInfo"].as_array().cloned().unwrap_or_default();
        let own = processes.iter().find(|process| process["type"] == "browser");
        let browser = own.and_then(|own| own["id"].as_u64()).expect("a Chromium has a process");
        let other = self.table().insert(browser, lease.clone());
        assert!(other.is_none(), "{browser} has two holders: {other:?} and {lease}");
        let held = Held { holders: self, browser };
        let marks = client.call("Storage.getCookies", json!({})).await.expect("it has a store");
        assert_eq!(marks["cookies"], json!([]), "{lease} finds the mark of another");
        let mark = json!({ "name": "holder", "value": lease, "url": "http://holder.test/" });
        let marked = client.call("Storage.setCookies", json!({ "cookies": [mark] })).await;
        marked.expect("it has a store");
        held
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<u64, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.holders.table().remove(&self.browser);
    }
}
