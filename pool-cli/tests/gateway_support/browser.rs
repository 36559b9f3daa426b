use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pool_chrome::cdp::Client;
use pool_chrome::mux::{HolderCommands, LeaseTerms};
use pool_cli::pool::{
    Browser, BrowserDriver, Commands, Events, LeaseEnd, NoConnection, OpenPage, Version, Vitals,
    Wire,
};
use pool_core::{BoxError, Driver, Meta, Reporter, ResourceId, async_trait};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Makes browsers that answer every message with itself, but for a few words.
///
/// | message | what happens |
/// |---|---|
/// | `close` | it is answered, then the browser ends as by `Browser.close` |
/// | `crash` | the browser's process is gone |
/// | `hang` | the browser is found to hang |
/// | `flood` | messages come without end |
/// | `shut` | it is answered, then the connection ends as one to a page that is closed |
/// | `{"method": "Target.…"}` | pages are opened and closed |
/// | `work`, `rest` | the browser has something to do for its client, until it has not |
/// | `Browserless.…` and JSON | it is answered with what whoever holds the lease answers |
#[derive(Clone, Default)]
pub(crate) struct FakeBrowsers {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    broken: AtomicBool,
    sick: AtomicBool,
    launched: AtomicUsize,
    dead_on_arrival: AtomicUsize,
    terms: Mutex<Vec<LeaseTerms>>,
}

impl FakeBrowsers {
    /// From now on no browser can be launched.
    pub(crate) fn break_launches(&self) {
        self.state.broken.store(true, Ordering::SeqCst);
    }

    /// From now on no browser passes its check.
    pub(crate) fn fail_checks(&self) {
        self.state.sick.store(true, Ordering::SeqCst);
    }

    /// The terms of all leases so far, the oldest first.
    pub(crate) fn terms(&self) -> Vec<LeaseTerms> {
        self.state.terms.lock().unwrap().clone()
    }

    /// The next so many browsers die before their first command.
    pub(crate) fn kill_next(&self, browsers: usize) {
        self.state.dead_on_arrival.store(browsers, Ordering::SeqCst);
    }
}

#[async_trait]
impl Driver for FakeBrowsers {
    type Spec = ();
    type Resource = FakeBrowser;
    type Error = io::Error;

    async fn create(&self, _: &(), _: &Meta, reporter: Reporter) -> io::Result<FakeBrowser> {
        if self.state.broken.load(Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no chromium here"));
        }
        self.state.launched.fetch_add(1, Ordering::SeqCst);
        Ok(FakeBrowser {
            end: Arc::new(watch::Sender::new(None)),
            busy: Arc::default(),
            pages: Arc::new(Mutex::new(vec![page("FAKE", "about:blank")])),
            reporter,
            state: self.state.clone(),
        })
    }

    async fn check(&self, _: &mut FakeBrowser, _: &Meta) -> io::Result<()> {
        if self.state.sick.load(Ordering::SeqCst) {
            return Err(io::Error::other("no page opens"));
        }
        Ok(())
    }

    async fn recycle(&self, browser: &mut FakeBrowser, _: &Meta) -> io::Result<()> {
        browser.end = Arc::new(watch::Sender::new(None));
        *browser.pages.lock().unwrap() = vec![page("FAKE", "about:blank")];
        Ok(())
    }
}

#[async_trait]
impl BrowserDriver for FakeBrowsers {
    fn version(&self) -> Option<Version> {
        (self.state.launched.load(Ordering::SeqCst) > 0).then(|| Version {
            browser: "Chrome/1.2.3.4".into(),
            protocol: "1.3".into(),
            user_agent: "Fake".into(),
            v8: "1".into(),
            webkit: "2".into(),
        })
    }

    fn vitals(&self, _: ResourceId) -> Option<Vitals> {
        None
    }

    async fn measure(&self) {}
}

fn page(id: &str, url: &str) -> OpenPage {
    OpenPage { id: id.to_owned(), title: "<b>Fake</b>".to_owned(), url: url.to_owned() }
}

type Pages = Arc<Mutex<Vec<OpenPage>>>;

pub(crate) struct FakeBrowser {
    end: Arc<watch::Sender<Option<LeaseEnd>>>,
    busy: Arc<AtomicBool>,
    pages: Pages,
    reporter: Reporter,
    state: Arc<State>,
}

#[async_trait]
impl Browser for FakeBrowser {
    async fn begin(&self, terms: &LeaseTerms) -> Result<(), LeaseEnd> {
        self.state.terms.lock().unwrap().push(terms.clone());
        Ok(())
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    async fn connect(&self, holder: Arc<dyn HolderCommands>) -> Result<Wire, LeaseEnd> {
        let one_less = |left: usize| left.checked_sub(1);
        let doomed =
            self.state.dead_on_arrival.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        if doomed.is_ok() {
            self.reporter.broken("died on arrival");
            self.end.send_replace(Some(LeaseEnd::BrowserCrashed));
            return Err(LeaseEnd::BrowserCrashed);
        }
        let (sender, messages) = mpsc::channel(64);
        let end = self.end.clone();
        let commands = FakeCommands {
            sender,
            end: end.clone(),
            busy: self.busy.clone(),
            pages: self.pages.clone(),
            holder,
            reporter: self.reporter.clone(),
        };
        let events = FakeEvents { messages, end: end.subscribe(), flood: false, shut: false };
        Ok(Wire { commands: Box::new(commands), events: Box::new(events) })
    }

    async fn drive(&self) -> Result<Client, LeaseEnd> {
        // It speaks no protocol.
        Err(LeaseEnd::Revoked)
    }

    async fn connect_page(
        &self,
        page: Option<&str>,
        commands: Arc<dyn HolderCommands>,
    ) -> Result<Wire, NoConnection> {
        if page.is_some_and(|page| !self.has_page(page)) {
            return Err(NoConnection::NoPage);
        }
        self.connect(commands).await.map_err(NoConnection::Ended)
    }

    async fn pages(&self) -> Vec<OpenPage> {
        self.pages.lock().unwrap().clone()
    }

    fn has_page(&self, id: &str) -> bool {
        self.pages.lock().unwrap().iter().any(|page| page.id == id)
    }

    async fn ended(&self) -> LeaseEnd {
        let mut end = self.end.subscribe();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| *end).unwrap_or(LeaseEnd::Revoked)
    }

    async fn screenshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(b"png".to_vec())
    }
}

struct FakeCommands {
    sender: mpsc::Sender<Utf8Bytes>,
    end: Arc<watch::Sender<Option<LeaseEnd>>>,
    busy: Arc<AtomicBool>,
    pages: Pages,
    holder: Arc<dyn HolderCommands>,
    reporter: Reporter,
}

#[async_trait]
impl Commands for FakeCommands {
    async fn send(&mut self, message: Utf8Bytes) -> Result<(), LeaseEnd> {
        let answer = match message.split_once(' ') {
            Some((method, params)) if method.starts_with("Browserless.") => {
                let params = serde_json::from_str(params).expect("a test writes JSON");
                format!("{:?}", self.holder.call(method, &params)).into()
            }
            _ if message.contains("\"Target.") => self.target(&message).into(),
            _ => message.clone(),
        };
        match message.as_str() {
            "work" => self.busy.store(true, Ordering::SeqCst),
            "rest" => self.busy.store(false, Ordering::SeqCst),
            _ => {}
        }
        let answered = self.sender.send(answer).await;
        answered.map_err(|_| LeaseEnd::Revoked)?;
        let end = match message.as_str() {
            "close" => LeaseEnd::Released,
            "crash" => LeaseEnd::BrowserCrashed,
            "hang" => LeaseEnd::BrowserHung,
            "starve" => LeaseEnd::BrowserOutOfMemory,
            _ => return Ok(()),
        };
        if end != LeaseEnd::Released {
            self.reporter.broken("told to");
        }
        self.end.send_replace(Some(end));
        Ok(())
    }
}

impl FakeCommands {
    /// Answers a command about pages.
    fn target(&self, message: &str) -> String {
        let command: Value = serde_json::from_str(message).expect("a test writes JSON");
        let params = &command["params"];
        let mut pages = self.pages.lock().unwrap();
        let result = match command["method"].as_str().expect("a command has a method") {
            "Target.createTarget" if params["url"] == "file:///" => {
                let error = json!({ "code": -32000, "message": "blocked" });
                return json!({ "id": command["id"], "error": error }).to_string();
            }
            "Target.createTarget" => {
                let id = format!("FAKE{}", pages.len());
                pages.push(page(&id, params["url"].as_str().expect("a page has an address")));
                json!({ "targetId": id })
            }
            "Target.closeTarget" => {
                pages.retain(|page| page.id != params["targetId"]);
                json!({ "success": true })
            }
            _ => json!({}),
        };
        json!({ "id": command["id"], "result": result }).to_string()
    }
}

struct FakeEvents {
    messages: mpsc::Receiver<Utf8Bytes>,
    end: watch::Receiver<Option<LeaseEnd>>,
    flood: bool,
    shut: bool,
}

#[async_trait]
impl Events for FakeEvents {
    async fn next(&mut self, _: usize, batch: &mut Vec<Utf8Bytes>) -> Result<usize, LeaseEnd> {
        if self.flood {
            batch.push("x".repeat(1 << 20).into());
            return Ok(1);
        }
        if self.shut {
            return Err(LeaseEnd::PageClosed);
        }
        tokio::select! {
            biased;
            Some(message) = self.messages.recv() => {
                self.flood = message.as_str() == "flood";
                self.shut = message.as_str() == "shut";
                batch.push(message);
                Ok(1)
            }
            end = self.end.wait_for(Option::is_some) => {
                Err(end.ok().and_then(|end| *end).unwrap_or(LeaseEnd::Revoked))
            }
        }
    }

    fn try_next(&mut self, _: usize, batch: &mut Vec<Utf8Bytes>) -> usize {
        let before = batch.len();
        batch.extend(self.messages.try_recv());
        batch.len() - before
    }

    fn end(&self) -> Option<LeaseEnd> {
        *self.end.borrow()
    }
}
