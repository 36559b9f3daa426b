//! Clients that leave and come back, and those that are silent since they wait.

use std::time::Duration;

use browser_pool_tests::{
    Case, Engine, Home, LeaseKind, Script, Setup, Talk, case, case_in, eventually, for_both_kinds,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::until_released;

for_both_kinds!(
    a_killed_client_leaves_nothing_that_stands_still,
    a_client_finds_its_browser_again_by_name_and_by_address,
    f03_a_client_that_waits_is_not_idle,
);

/// The clients that are driven by a script.
const CLIENTS: [&str; 2] = ["playwright", "puppeteer"];

async fn comes(case: &Case, client: &str, url: &str) -> Talk {
    let script = Script::new("comeback.mjs").args([url, &case.site.url, "--client", client]);
    let mut talk = script.talk();
    assert_eq!(talk.hear().await, json!({ "ready": true }));
    talk
}

async fn does(talk: &mut Talk, line: &str) -> Value {
    let answer = talk.ask(line).await;
    assert!(answer["error"].is_null(), "{line}: {}", answer["error"]);
    answer
}

/// Ends what is kept, so that the next round has browsers.
async fn end_all(case: &Case) {
    assert_eq!(case.service.post("/kill/all", &json!({})).await.status, 200);
    until_released(&case.service, Duration::from_secs(10)).await;
}

async fn a_killed_client_leaves_nothing_that_stands_still(kind: LeaseKind) {
    for engine in [Engine::Shell, Engine::Chromium] {
        case(Setup::new().kind(kind).engine(engine), async |case| {
            for client in CLIENTS {
                for (stop, after) in
                    [("fetch", "fetched"), ("debugger", "resumed"), ("dialog", "false")]
                {
                    let what = format!("{engine} {client} {stop}");
                    let url = case.service.url(&format!("/?session={client}-{stop}"));
                    let mut first = comes(case, client, &url).await;
                    does(&mut first, "leave").await;
                    does(&mut first, &format!("stop {stop}")).await;
                    first.kill().await;
                    let mut second = comes(case, client, &url).await;
                    let found = does(&mut second, "find").await;
                    assert_eq!(found["mark"], 7, "{what}: {found}");
                    assert_eq!(found["after"], after, "{what}: {found}");
                    second.kill().await;
                    end_all(case).await;
                }
            }
        })
        .await;
    }
}

async fn a_client_finds_its_browser_again_by_name_and_by_address(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        for client in CLIENTS {
            let named = case.service.url(&format!("/?session={client}&keep=20000"));
            let plain = case.service.url("/");
            for (how, url) in [("name", &named), ("address", &plain)] {
                let mut first = comes(case, client, url).await;
                does(&mut first, "leave").await;
                let address = does(&mut first, "where").await["browserWSEndpoint"].clone();
                let address = address.as_str().expect("the pool tells it").to_owned();
                let back = if how == "name" { url } else { &address };
                for round in 0..3 {
                    first.kill().await;
                    only_session(case, "waiting").await;
                    first = comes(case, client, back).await;
                    let found = does(&mut first, "find").await;
                    let left = (&found["mark"], &found["cookie"]);
                    assert_eq!(left, (&json!(7), &json!("login=yes")), "{client} {how} {round}");
                    only_session(case, "connected").await;
                }
                does(&mut first, "close").await;
                if client == "puppeteer" {
                    // It sends `Browser.close`: nothing is kept.
                    until_released(&case.service, Duration::from_secs(5)).await;
                } else {
                    only_session(case, "waiting").await;
                    end_all(case).await;
                }
            }
            let mut anew = comes(case, client, &named).await;
            assert_eq!(does(&mut anew, "find").await["mark"], Value::Null, "it is another one");
            let session = only_session(case, "connected").await;
            let last = if client == "puppeteer" { "released" } else { "killed" };
            assert_eq!(session["renewed"], last, "{session}");
            end_all(case).await;
        }
    })
    .await;
}

/// The lease that is held, which must be one, once it is in this state.
async fn only_session(case: &Case, state: &str) -> Value {
    let mut found = Value::Null;
    eventually("the one session", Duration::from_secs(10), async || {
        let sessions = case.service.sessions().await;
        if sessions.len() != 1 || sessions[0]["state"] != state {
            return Err(sessions);
        }
        found = sessions[0].clone();
        Ok(())
    })
    .await;
    found
}

async fn f03_a_client_that_waits_is_not_idle(kind: LeaseKind) {
    const IDLE: Duration = Duration::from_secs(2);
    let home = Home::new();
    let directory = home.path().join("downloads");
    std::fs::create_dir(&directory).expect("the home is ours");
    let allowed = vec![directory.display().to_string()];
    let setup = Setup::new().kind(kind).size(4).set("pool.lease_idle_timeout", "2s");
    case_in(home, setup.set("chrome.directories", allowed), async |case| {
        let limit = Duration::from_secs(15);
        let longer = case.service.connect("/?idle_timeout=60000").await;
        // Each begins as soon as it has its browser: none is silent while another one is waited for.
        let asks = async {
            let patient = case.service.connect("/").await;
            let page = patient.page("about:blank").await;
            let slow = "new Promise(done => setTimeout(done, 5000, 42))";
            assert_eq!(page.eval(slow).await, 42);
            let answered = Instant::now();
            let idle = patient.closed(limit).await;
            assert_eq!(idle.code, 4408, "{idle:?}");
            assert!(idle.at - answered >= IDLE, "too early: {:?}", idle.at - answered);
        };
        let downloads = async {
            let loading = case.service.connect("/").await;
            let page = loading.page("about:blank").await;
            let allow = json!({ "behavior": "allow", "downloadPath": directory });
            loading.call("Browser.setDownloadBehavior", allow).await.expect("it is allowed");
            let url = json!({ "url": case.site.at("/download/slow") });
            page.call("Page.navigate", url).await.expect("it is answered");
            sleep(IDLE * 3).await;
            assert!(loading.has_closed().is_none(), "a download is no silence");
            loading
        };
        let gives_up = async {
            let shorter = case.service.connect("/?idle_timeout=500").await;
            let began = Instant::now();
            let short = shorter.closed(limit).await;
            assert_eq!(short.code, 4408, "{short:?}");
            assert!(short.at - began < IDLE, "{:?}", short.at - began);
        };
        let ((), loading, ()) = tokio::join!(asks, downloads, gives_up);
        assert!(loading.has_closed().is_none() && longer.has_closed().is_none());
        drop((loading, longer));
        until_released(&case.service, Duration::from_secs(5)).await;
    })
    .await;
}
