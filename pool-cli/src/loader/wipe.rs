use std::borrow::Cow;
use std::time::Duration;

use futures_util::future::try_join_all;
use pool_chrome::cdp::CdpError;
use serde_json::json;
use tokio::time::timeout;

use super::load::Load;
use super::page::Paused;
use super::trace::Trace;
use super::{Page, Trouble, Wait};

/// Script that lists the stores of its origin that are not empty. It runs in an empty document, in
/// which no script of the site has touched anything.
const LEFT: &str = "(async () => { \
    history.replaceState(null, '', '/'); name = ''; localStorage.clear(); sessionStorage.clear(); \
    const left = []; \
    const count = async (store, count) => { \
        try { if (await count() > 0) left.push(store); } catch (error) { left.push(`${store}: ${error}`); } \
    }; \
    await Promise.all([ \
        count('localStorage', () => localStorage.length), \
        count('sessionStorage', () => sessionStorage.length), \
        count('cookies', () => document.cookie.length), \
        count('indexedDB', async () => (await indexedDB.databases()).length), \
        count('cacheStorage', async () => globalThis.caches ? (await caches.keys()).length : 0), \
        count('serviceWorkers', async () => navigator.serviceWorker \
            ? (await navigator.serviceWorker.getRegistrations()).length : 0), \
        count('storage', async () => navigator.storage?.estimate \
            ? (await navigator.storage.estimate()).usage : 0), \
    ]); \
    return left; })()";

/// Script that replaces the document that it runs in by one that holds nothing but a token. It runs
/// in a world of its own, so that no script of the site sees the token. Its promise is settled only
/// if the document stays: because its site forbids such addresses, or for whatever reason.
const REPLACE: &str = "new Promise(stayed => { \
    addEventListener('securitypolicyviolation', () => stayed()); \
    setTimeout(stayed, 200); \
    location.href = \"javascript:'<!--TOKEN-->'\"; })";

/// Time after which a document stays that runs no scripts at all, such as one in a sandbox.
const STAYS: Duration = Duration::from_millis(400);

/// The outcome of wiping a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wiped {
    /// Nothing of what it showed is left in its context.
    Clean,
    /// Something is left, or may be: its context must not be used for another page.
    Stained(Cow<'static, str>),
}

impl Page {
    /// Blanks the page and clears everything of the origin that it showed, so that the next address
    /// finds its context like a new one; then verifies that.
    ///
    /// The page gets an empty document of that origin: its renderer stays, scripts and timers of
    /// the site end, and the stores of its origin can be examined from within. What cannot be
    /// cleared, or was not seen, is a stain.
    ///
    /// # Errors
    ///
    /// If the page or its browser does not do as it is told.
    pub(crate) async fn wipe(&mut self) -> Result<Wiped, Trouble> {
        let Some(path) = self.furniture.blank.clone() else {
            return Ok(stained("a page that is used once"));
        };
        let origin = match (&self.trace.stain, &self.trace.origin) {
            (Some(stain), _) => return Ok(Wiped::Stained(stain.clone())),
            (None, None) => return Ok(stained("a page of no origin")),
            (None, Some(origin)) => origin.clone(),
        };
        // Requests that a page makes while it is being left are only reported by `Fetch`.
        self.paused = Paused::Left;
        let all = json!({ "patterns": [{ "urlPattern": "*" }] });
        self.call("Fetch.enable", all).await?;
        if !self.empty(&origin, &path).await? {
            return Ok(stained("a document that stayed"));
        }
        let documents = self.trace.documents();
        self.clear(&origin).await?;
        let left = self.evaluate(LEFT).await?;
        let cookies = self.cookies().await?;
        if let Some(store) = left.as_array().and_then(|left| left.first()) {
            return Ok(stained(format!("something in {}", store.as_str().unwrap_or("a store"))));
        }
        if !left.is_array() {
            return Ok(stained("stores that could not be looked at"));
        }
        if cookies != 0 {
            return Ok(stained("cookies"));
        }
        let interception = match self.furniture.filter.interception() {
            Some(own) => ("Fetch.enable", own),
            None => ("Fetch.disable", json!({})),
        };
        // Only now: late requests were caught until here, and show as well.
        self.call(interception.0, interception.1).await?;
        self.paused = Paused::Judged;
        self.catch_up().await?;
        if self.trace.documents() != documents {
            return Ok(stained("a document that came later"));
        }
        if let Some(stain) = self.trace.left() {
            return Ok(Wiped::Stained(stain));
        }
        self.trace = Trace::default();
        Ok(Wiped::Clean)
    }

    /// Replaces the document by an empty one of the same origin. Returns `false` if it stays.
    async fn empty(&mut self, origin: &str, path: &str) -> Result<bool, Trouble> {
        self.catch_up().await?;
        // Only another navigation ends one that is under way.
        if !self.trace.navigates() && self.replace(origin).await? {
            return Ok(true);
        }
        self.load = Load::new(self.load.frame(), &[Wait::DomContentLoaded]);
        self.navigate(&format!("{origin}{path}")).await?;
        self.loaded().await?;
        // No script can change it, unlike the result of a promise.
        Ok(self.evaluate("location.pathname").await? == path)
    }

    /// Replaces the document in its place, which takes a fifth of what a navigation takes: only the
    /// renderer takes part in it. Returns `false` if the document may still be there.
    async fn replace(&mut self, origin: &str) -> Result<bool, Trouble> {
        // Each world of a frame makes all its navigations slower, and only one with a name is used
        // again.
        let world = json!({ "frameId": self.load.frame(), "worldName": "browser-pool" });
        let world = match self.call("Page.createIsolatedWorld", world).await {
            Ok(world) => world,
            Err(Trouble::Protocol(CdpError::Refused { .. })) => return Ok(false),
            Err(trouble) => return Err(trouble),
        };
        let token = token();
        let params = json!({
            "contextId": world["executionContextId"],
            "expression": REPLACE.replace("TOKEN", &token),
            "awaitPromise": true,
            "returnByValue": true,
        });
        let session = self.session.clone();
        let replaced = timeout(STAYS, session.call("Runtime.evaluate", params));
        match self.meanwhile(async { Ok(replaced.await) }).await? {
            // The world has gone with its document.
            Ok(Err(CdpError::Refused { .. })) => {}
            Ok(Err(error)) => return Err(error.into()),
            Ok(Ok(_)) | Err(_) => return Ok(false),
        }
        // In a sandbox, it has another origin.
        let seen = self.evaluate("[document.firstChild?.data, origin]").await?;
        Ok(seen == json!([token, origin]))
    }

    /// Clears what the protocol can clear: storage of the origin, cookies and caches of the
    /// context, the history of the page, and what its renderer keeps in memory of what it loaded.
    async fn clear(&mut self, origin: &str) -> Result<(), Trouble> {
        let commands = [
            ("Storage.clearDataForOrigin", json!({ "origin": origin, "storageTypes": "all" })),
            ("Network.clearBrowserCookies", json!({})),
            ("Network.clearBrowserCache", json!({})),
            // The renderer's own cache is emptied when caches are turned off.
            ("Network.setCacheDisabled", json!({ "cacheDisabled": true })),
            ("Network.setCacheDisabled", json!({ "cacheDisabled": false })),
            ("Page.resetNavigationHistory", json!({})),
        ];
        let session = self.session.clone();
        let calls = commands.map(|(method, params)| {
            let session = session.clone();
            async move { session.call(method, params).await }
        });
        self.meanwhile(async { Ok(try_join_all(calls).await.map(drop)?) }).await
    }

    /// Returns the number of cookies in its context, whatever they are for.
    async fn cookies(&mut self) -> Result<usize, Trouble> {
        let root = self.session.client().browser();
        let answer = root.call("Storage.getCookies", json!({}));
        let answer = self.meanwhile(async { Ok(answer.await?) }).await?;
        Ok(answer["cookies"].as_array().map_or(usize::MAX, Vec::len))
    }
}

/// Returns a path for an empty document, which no server has and no site knows.
pub(crate) fn blank_path() -> String {
    format!("/.well-known/blank-{}", token())
}

/// Returns text that nobody can guess.
fn token() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    format!("{:032x}", u128::from_ne_bytes(bytes))
}

fn stained(what: impl Into<Cow<'static, str>>) -> Wiped {
    Wiped::Stained(what.into())
}
