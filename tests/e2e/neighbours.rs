//! Six clients at once in one Chromium: none sees anything of another, and what happens to one
//! concerns no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use browser_pool_tests::{Case, Engine, LeaseKind, Script, Setup, Talk, case, eventually, rounds};
use chromiumoxide::browser::Browser;
use chromiumoxide::cdp::browser_protocol::target::{CreateTargetParams, GetTargetsParams};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How soon nothing is left of a client that went.
const GONE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn six_clients_on_the_shell() {
    six_clients(Engine::Shell).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn six_clients_on_chromium() {
    six_clients(Engine::Chromium).await;
}

async fn six_clients(engine: Engine) {
    let setup = Setup::new()
        .engine(engine)
        .kind(LeaseKind::Shared)
        .set("pool.leases_per_browser", 6)
        .size(6)
        .set("warming.min_idle", 0);
    case(setup, async |case| {
        for number in 0..rounds(2, 20) {
            round(case, number).await;
        }
    })
    .await;
}

async fn round(case: &Case, number: usize) {
    let mut neighbours = join_all([
        Neighbour::script(case, "playwright-1", "neighbour.mjs", "playwright"),
        Neighbour::script(case, "playwright-2", "neighbour.mjs", "playwright"),
        Neighbour::script(case, "puppeteer-1", "neighbour.mjs", "puppeteer"),
        Neighbour::script(case, "puppeteer-2", "neighbour.mjs", "puppeteer"),
        Neighbour::script(case, "python-1", "neighbour.py", ""),
    ])
    .await;
    neighbours.push(Neighbour::chromiumoxide(case, "oxide-1").await);
    let pids: BTreeSet<u32> = case.service.browser_pids("leased").await.into_iter().collect();
    assert_eq!(pids.len(), 1, "they are in one Chromium");
    look_around(&mut neighbours).await;

    let mut closes = neighbours.remove(number % neighbours.len());
    let scripts = neighbours.iter().position(|other| matches!(other.client, Client::Script(_)));
    let killed = neighbours.remove(scripts.expect("most are scripts"));
    let gone = [closes.name, killed.name];
    closes.close().await;
    let Client::Script(talk) = killed.client else { unreachable!("it was looked for") };
    talk.kill().await;
    let since = Instant::now();
    eventually("their leases are over", GONE, async || match case.service.sessions().await.len() {
        4 => Ok(()),
        left => Err(left),
    })
    .await;
    sleep_until(since + GONE).await;

    // What beats now beats for longer than a page that is on its way out.
    case.site.forget();
    eventually("the others go on", GONE, async || {
        let beating = beating(case);
        match neighbours.iter().find(|other| !beating.contains(other.name)) {
            None => Ok(()),
            Some(silent) => Err(silent.name),
        }
    })
    .await;
    let beating = beating(case);
    assert!(gone.iter().all(|name| !beating.contains(*name)), "{gone:?} beat still: {beating:?}");
    look_around(&mut neighbours).await;
    drop(neighbours);
    eventually("all leases are over", GONE, async || match case.service.sessions().await.len() {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
    case.oracle.at_rest(&case.service).await;
}

/// The names of those whose pages the site hears.
fn beating(case: &Case) -> BTreeSet<String> {
    let name = |path: &str| path.split_once("beat=").map(|(_, name)| name.to_owned());
    case.site.seen().iter().filter_map(|seen| name(&seen.path)).collect()
}

/// Each sees its own pages, and nothing that bears another's name.
async fn look_around(neighbours: &mut [Neighbour]) {
    for neighbour in neighbours {
        let name = neighbour.name;
        let mut seen = neighbour.look().await;
        for list in ["titles", "targets", "cookies"] {
            let list = seen[list].as_array_mut().expect("a list");
            list.sort_by_key(ToString::to_string);
        }
        let pages = json!(["page", "popup", "second"].map(|page| format!("{name}-{page}")));
        let own = json!({ "titles": pages, "targets": pages, "cookies": [name, name],
            "storage": { "who": name } });
        assert_eq!(seen, own, "{name} sees what is not its own");
    }
}

struct Neighbour {
    name: &'static str,
    client: Client,
}

enum Client {
    Script(Box<Talk>),
    Oxide(Box<Oxide>),
}

impl Neighbour {
    async fn script(case: &Case, name: &'static str, script: &str, client: &str) -> Self {
        let mut script = Script::new(script)
            .args([&case.service.url("/"), &case.site.url])
            .args(["--name", name]);
        if !client.is_empty() {
            script = script.args(["--client", client]);
        }
        let mut talk = script.talk();
        talk.hear().await;
        Self { name, client: Client::Script(Box::new(talk)) }
    }

    async fn chromiumoxide(case: &Case, name: &'static str) -> Self {
        Self { name, client: Client::Oxide(Box::new(Oxide::start(case, name).await)) }
    }

    async fn look(&mut self) -> Value {
        match &mut self.client {
            Client::Script(talk) => talk.ask("look").await,
            Client::Oxide(oxide) => oxide.look().await,
        }
    }

    async fn close(&mut self) {
        match &mut self.client {
            Client::Script(talk) => drop(talk.ask("close").await),
            Client::Oxide(oxide) => drop(oxide.browser.close().await.expect("it closes")),
        }
    }
}

/// The same as the scripts, in chromiumoxide.
struct Oxide {
    browser: Browser,
    handler: JoinHandle<()>,
    page: chromiumoxide::Page,
}

impl Oxide {
    async fn start(case: &Case, name: &str) -> Self {
        let url = case.service.url("/");
        let (browser, mut handler) = Browser::connect(url).await.expect("it is served");
        let handler = tokio::spawn(async move { while handler.next().await.is_some() {} });
        let at = |words: &str| case.site.at(&format!("/title/{name}-{words}"));
        let mark = format!(
            "document.cookie = 'who={name}; Path=/'; localStorage.setItem('who', '{name}'); \
             setInterval(() => fetch('/echo?beat={name}'), 100); 0"
        );
        // The page that every lease begins with, of which the client learns some time later.
        let mut page = None;
        eventually("the first page is there", Duration::from_secs(20), async || {
            page = browser.pages().await.expect("the pages").into_iter().next();
            if page.is_some() { Ok(()) } else { Err(()) }
        })
        .await;
        let page = page.expect("it was waited for");
        page.goto(at("page")).await.expect("it is served");
        page.evaluate(mark.as_str()).await.expect("marked");
        page.evaluate(format!("void window.open('{}')", at("popup"))).await.expect("a popup");
        let context = browser.create_browser_context(Default::default()).await.expect("a context");
        let mut second = CreateTargetParams::new(at("second"));
        second.browser_context_id = Some(context);
        let second = browser.new_page(second).await.expect("a page");
        second.evaluate(mark.as_str()).await.expect("marked");
        let mut oxide = Self { browser, handler, page };
        // Nothing else tells when the popup has loaded.
        eventually("the popup is there", Duration::from_secs(20), async || {
            let seen = oxide.look().await;
            if seen["titles"].to_string().contains("-popup") { Ok(()) } else { Err(seen) }
        })
        .await;
        oxide
    }

    async fn look(&mut self) -> Value {
        let mut titles = Vec::new();
        // Two pages of one context have its one cookie.
        let mut cookies = BTreeMap::new();
        for page in self.browser.pages().await.expect("the pages") {
            let title = page.get_title().await.expect("the title").unwrap_or_default();
            for cookie in page.get_cookies().await.expect("the cookies") {
                cookies.insert((title.ends_with("second"), cookie.name), cookie.value);
            }
            titles.push(title);
        }
        // `fetch_targets` would cut off the pages that are there.
        let targets = self.browser.execute(GetTargetsParams::default()).await;
        let targets = targets.expect("the targets").result.target_infos;
        let targets = targets.into_iter().filter(|target| target.r#type == "page");
        let targets: Vec<String> = targets.map(|target| target.title).collect();
        let storage = self.page.evaluate("({ ...localStorage })").await.expect("the storage");
        let storage: Value = storage.into_value().expect("JSON");
        let cookies: Vec<&String> = cookies.values().collect();
        json!({ "titles": titles, "targets": targets, "cookies": cookies, "storage": storage })
    }
}

impl Drop for Oxide {
    fn drop(&mut self) {
        self.handler.abort();
    }
}
