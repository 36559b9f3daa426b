//! Where pages may go on real Chromium, and what a client sees of it where they may not.

mod mux_support;

use std::time::Duration;

use mux_support::{Client, ENGINES, KINDS, Rig, Site, eventually, every_lease};
use pool_chrome::mux::{DefaultContext, LeaseKind, LeaseOptions};
use pool_chrome::process::Engine;
use serde_json::{Value, json};
use tokio::time::timeout;

/// The shell cannot tell a port that Chromium never asks from one that nobody listens at.
const UNREACHABLE: &str = "http://127.0.0.1:9/";

const BLOCKED: &str = "net::ERR_BLOCKED_BY_ADMINISTRATOR";

/// A page whose events are told.
async fn listening_page(client: &mut Client) -> String {
    let (_, page) = client.page("about:blank").await;
    client.ok(Some(&page), "Page.enable", json!({})).await;
    client.ok(Some(&page), "Page.setLifecycleEventsEnabled", json!({ "enabled": true })).await;
    client.events.clear();
    page
}

/// What a client is told of a navigation, in this order. What comes with a picture in the page
/// that shows an error, or late from the page before, is left out.
async fn told(client: &mut Client, page: &str, loader: &Value) -> Vec<String> {
    client.event("Page.frameStoppedLoading", |_| true).await;
    let of_it = |event: &Value| {
        let params = &event["params"];
        let of = params.get("loaderId").or(params["frame"].get("loaderId"));
        match (event["method"].as_str()?, params["name"].as_str()) {
            ("Page.lifecycleEvent", Some(name @ ("init" | "DOMContentLoaded" | "load"))) => {
                (of == Some(loader)).then(|| name.to_owned())
            }
            ("Page.frameNavigated", _) => {
                let frame = &params["frame"];
                let failed = frame["unreachableUrl"].is_string();
                Some(format!("{} {failed} {}", of == Some(loader), frame["url"]))
            }
            (
                method @ ("Page.frameStartedLoading"
                | "Page.domContentEventFired"
                | "Page.loadEventFired"),
                _,
            ) => Some(method.to_owned()),
            _ => None,
        }
    };
    let own = client.events.iter().filter(|event| event["sessionId"] == *page);
    own.filter_map(of_it).collect()
}

/// The addresses that a lease may not go to.
fn refused(options: &LeaseOptions) -> &'static [&'static str] {
    match (options.kind, options.default_context) {
        (LeaseKind::Shared, _) => &["file:///etc/passwd", "chrome://version", "chrome://crash"],
        (_, DefaultContext::Real) => &["chrome://quit", "devtools://devtools/x"],
        _ => &["chrome://settings", "chrome://quit", "devtools://devtools/x"],
    }
}

#[tokio::test]
async fn a_refused_navigation_is_told_as_one_that_fails() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for options in every_lease() {
            let (_lease, mut client) = rig.client_of(options.clone()).await;
            let page = listening_page(&mut client).await;
            let params = json!({ "url": UNREACHABLE });
            let failed = client.ok(Some(&page), "Page.navigate", params).await;
            let expected = told(&mut client, &page, &failed["loaderId"]).await;
            assert!(expected.len() > 6, "{expected:?}");
            for url in refused(&options) {
                let page = listening_page(&mut client).await;
                let went = client.ok(Some(&page), "Page.navigate", json!({ "url": url })).await;
                assert_eq!(went["errorText"], BLOCKED, "{url}");
                let keys =
                    |went: &Value| went.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
                assert_eq!(keys(&went), keys(&failed));
                let told = told(&mut client, &page, &went["loaderId"]).await;
                assert_eq!(told, expected, "{engine:?} {url}");
                // In a frame of the page as well, and the page goes on.
                let frame = "(() => { document.body.append(document.createElement('iframe')) })()";
                client.evaluate(&page, frame).await;
                let tree = client.ok(Some(&page), "Page.getFrameTree", json!({})).await;
                let frame = tree["frameTree"]["childFrames"][0]["frame"]["id"].clone();
                let params = json!({ "url": url, "frameId": frame });
                let went = client.ok(Some(&page), "Page.navigate", params).await;
                assert_eq!(went["errorText"], BLOCKED, "{url}");
                assert_eq!(went["frameId"], frame);
                let params = json!({ "url": "data:text/html,<title>on</title>" });
                let went = client.ok(Some(&page), "Page.navigate", params).await;
                assert!(went.get("errorText").is_none(), "{went}");
                client.evaluates_to(&page, "document.title", &json!("on")).await;
            }
        }
    }
}

#[tokio::test]
async fn no_interception_of_a_client_sees_a_refused_navigation() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let (_lease, mut client) = rig.client(LeaseKind::Shared).await;
        let page = listening_page(&mut client).await;
        client.ok(Some(&page), "Fetch.enable", json!({})).await;
        let params = json!({ "url": "file:///etc/passwd" });
        let went = client.ok(Some(&page), "Page.navigate", params).await;
        assert_eq!(went["errorText"], BLOCKED);
        told(&mut client, &page, &went["loaderId"]).await;
        assert!(client.events.iter().all(|event| event["method"] != "Fetch.requestPaused"));
    }
}

#[tokio::test]
async fn what_is_no_address_is_told_in_the_words_of_chromium() {
    // As JSON, since half a pair of surrogates is no text of ours.
    let wrong = [
        r#""example.com""#,
        r#""//example.com""#,
        r#""http://""#,
        r#""http://[""#,
        r#""http://\ud800""#,
        r#""\ud800""#,
        r#""http://1.2.3.4.5/""#,
        r#""chrome://[""#,
        r#""""#,
    ];
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for options in every_lease() {
            let (_lease, mut client) = rig.client_of(options).await;
            let (_, page) = client.page("about:blank").await;
            for (at, url) in wrong.iter().enumerate() {
                let id = 1000 + i32::try_from(at).unwrap();
                client
                    .send_text(&format!(
                        r#"{{"id":{id},"method":"Page.navigate","params":{{"url":{url}}},"sessionId":"{page}"}}"#
                    ))
                    .await;
                let reply = client.reply(id).await;
                assert_eq!(
                    reply["error"],
                    json!({ "code": -32000, "message": "Cannot navigate to invalid URL" }),
                    "{engine:?} {url}"
                );
            }
            // Chromium takes these for addresses.
            for url in ["http://exa mple.invalid/", "http://xn--/"] {
                let went = client.ok(Some(&page), "Page.navigate", json!({ "url": url })).await;
                assert_eq!(went["errorText"], "net::ERR_NAME_NOT_RESOLVED", "{url}");
            }
        }
        // A page is made of them as Chromium makes it, or not.
        for kind in KINDS {
            let (_lease, mut client) = rig.client(kind).await;
            for url in ["example.com", "//example.com", "", "http://[", "http://1.2.3.4.5/"] {
                let params = json!({ "url": url });
                let direct = rig.mux.call(None, "Target.createTarget", &params).await;
                let pooled = client.ask(None, "Target.createTarget", params).await;
                assert_eq!(direct.is_ok(), pooled.get("error").is_none(), "{url}: {pooled}");
                if let Err(error) = direct {
                    let message = pooled["error"]["message"].as_str().unwrap();
                    assert!(error.to_string().contains(message), "{url}: {error}, {pooled}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_static_pages_of_chromium_are_open_to_all() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for options in every_lease() {
            let (_lease, mut client) = rig.client_of(options.clone()).await;
            for url in ["chrome://terms", "chrome://credits/"] {
                let page = listening_page(&mut client).await;
                let went = client.ok(Some(&page), "Page.navigate", json!({ "url": url })).await;
                // The shell has no pages of its own, and says so.
                let has_it = options.kind == LeaseKind::Shared || engine == Engine::Chromium;
                let error = (!has_it).then_some("net::ERR_INVALID_URL");
                assert_eq!(went["errorText"].as_str(), error, "{engine:?} {url}");
                client.event("Page.loadEventFired", |_| true).await;
                if has_it {
                    let text = client.evaluate(&page, "document.body.innerText").await;
                    assert!(text.as_str().unwrap().len() > 20, "{engine:?} {url}: {text}");
                }
                // It is no page that a shared lease is kept from seeing.
                let made = client.ok(None, "Target.createTarget", json!({ "url": url })).await;
                let params = json!({ "targetId": made["targetId"] });
                client.ok(None, "Target.closeTarget", params).await;
            }
        }
    }
}

#[tokio::test]
async fn a_static_page_of_chromium_may_be_sent_to_any_other_one() {
    // Which is why a shared lease is shown another page in its place.
    let rig = Rig::new(Engine::Chromium).await;
    let options = [LeaseKind::Exclusive, LeaseKind::Shared];
    for (kind, reaches) in options.into_iter().zip([true, false]) {
        let (_lease, mut client) = rig.client(kind).await;
        let page = listening_page(&mut client).await;
        client.ok(Some(&page), "Page.navigate", json!({ "url": "chrome://terms" })).await;
        client.event("Page.loadEventFired", |_| true).await;
        let params = json!({ "expression": "location.href = 'chrome://version'" });
        client.ok(Some(&page), "Runtime.evaluate", params).await;
        if reaches {
            // Is the rule still needed?
            let there = json!("chrome://version/");
            client.evaluates_to(&page, "location.href", &there).await;
        } else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let there = client.evaluate(&page, "location.href").await;
            assert_ne!(there, json!("chrome://version/"));
        }
    }
}

#[tokio::test]
async fn a_page_of_an_exclusive_lease_can_be_ended_by_an_address() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for options in every_lease().filter(|options| options.kind == LeaseKind::Exclusive) {
            for url in ["chrome://crash", "chrome://kill"] {
                let (lease, mut client) = rig.client_of(options.clone()).await;
                client.ok(None, "Target.setDiscoverTargets", json!({ "discover": true })).await;
                let (target, page) = client.page("about:blank").await;
                client.ok(Some(&page), "Inspector.enable", json!({})).await;
                client.send(Some(&page), "Page.navigate", json!({ "url": url })).await;
                client.event("Inspector.targetCrashed", |_| true).await;
                client.event("Target.targetCrashed", |params| params["targetId"] == *target).await;
                assert!(lease.has_crashed_page());
                lease.end().await.unwrap();
            }
            let (lease, mut client) = rig.client_of(options).await;
            let (_, page) = client.page("about:blank").await;
            client.send(Some(&page), "Page.navigate", json!({ "url": "chrome://hang" })).await;
            eventually("it hangs", async || {
                let params = json!({ "expression": "1" });
                let id = client.send(Some(&page), "Runtime.evaluate", params).await;
                timeout(Duration::from_millis(300), client.reply(id)).await.is_err()
            })
            .await;
            client.page("about:blank").await;
            lease.end().await.unwrap();
        }
        assert!(rig.mux.end_reason().is_none());
    }
}

#[tokio::test]
async fn a_page_made_with_a_slow_address_listens_to_a_client_that_did_not_ask_to_wait() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for options in every_lease() {
            for attaches in [false, true] {
                let site = Site::start().await;
                let (_lease, mut client) = rig.client_of(options.clone()).await;
                if attaches {
                    let params = json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true });
                    client.ok(None, "Target.setAutoAttach", params).await;
                }
                let (target, page) = client.page(&site.url("/silent")).await;
                client.ok(Some(&page), "Page.enable", json!({})).await;
                assert_eq!(client.evaluate(&page, "6*7").await, json!(42));
                eventually("it goes there, once", async || site.silences() == 1).await;

                // It can be sent elsewhere all the same.
                let params = json!({ "url": site.url("/other") });
                client.ok(Some(&page), "Page.navigate", params).await;
                client.evaluates_to(&page, "document.title", &json!("/other")).await;
                client.ok(None, "Target.closeTarget", json!({ "targetId": target })).await;

                // One that is sent elsewhere at once never goes there.
                let (_, page) = client.page(&site.url("/silent")).await;
                let params = json!({ "url": site.url("/another") });
                client.ok(Some(&page), "Page.navigate", params).await;
                client.evaluates_to(&page, "document.title", &json!("/another")).await;
                tokio::time::sleep(Duration::from_millis(300)).await;
                assert_eq!(client.evaluate(&page, "document.title").await, json!("/another"));
                assert_eq!(site.silences(), 1);
            }
        }
    }
}

#[tokio::test]
async fn a_page_made_with_an_address_has_been_nowhere_else() {
    let site = Site::start().await;
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for kind in KINDS {
            let (_lease, mut client) = rig.client(kind).await;
            // Whether its client attaches or only looks.
            let (_, attached) = client.page(&site.url("/here")).await;
            let made =
                client.ok(None, "Target.createTarget", json!({ "url": site.url("/there") })).await;
            let is_there = |target: &Value| target["url"].as_str() == Some(&site.url("/there"));
            eventually("it goes there by itself", async || {
                let targets = client.ok(None, "Target.getTargets", json!({})).await;
                targets["targetInfos"].as_array().unwrap().iter().any(is_there)
            })
            .await;
            let params = json!({ "targetId": made["targetId"], "flatten": true });
            let late = client.ok(None, "Target.attachToTarget", params).await;
            let late = late["sessionId"].as_str().unwrap().to_owned();
            for (page, title) in [(attached, "/here"), (late, "/there")] {
                // It is there, and cannot go back.
                let seen = "[document.title, history.length]";
                client.evaluates_to(&page, seen, &json!([title, 1])).await;
            }
        }
    }
}

#[tokio::test]
async fn a_page_made_with_an_address_has_loaded_no_other() {
    let site = Site::start().await;
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        for options in every_lease() {
            let (_lease, mut client) = rig.client_of(options).await;
            // The first is the warm one.
            for path in ["/first", "/second", "/third"] {
                let page = loaded_page(&mut client, &site.url(path)).await;
                let title = client.evaluate(&page, "document.title").await;
                assert_eq!(title, json!(path), "{engine:?}");
            }
            // Where there is nothing to go to, the empty page is what has loaded.
            let page = loaded_page(&mut client, &site.url("/nothing")).await;
            assert_eq!(client.evaluate(&page, "location.href").await, json!("about:blank"));
        }
    }
}

/// A page that its client takes for loaded, as chromiumoxide does.
async fn loaded_page(client: &mut Client, url: &str) -> String {
    // None of the events of an earlier page.
    client.events.clear();
    let (_, page) = client.page(url).await;
    client.ok(Some(&page), "Page.enable", json!({})).await;
    let on = json!({ "enabled": true });
    client.ok(Some(&page), "Page.setLifecycleEventsEnabled", on).await;
    client.event("Page.lifecycleEvent", |params| params["name"] == "load").await;
    page
}

#[tokio::test]
async fn a_page_of_a_client_that_waits_is_held_before_its_first_request() {
    // The whole browser holds nothing.
    let rig = Rig::new(Engine::Shell).await;
    let site = Site::start().await;
    for kind in KINDS {
        let (_lease, mut client) = rig.client(kind).await;
        let params = json!({ "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true });
        client.ok(None, "Target.setAutoAttach", params).await;
        let before = site.silences();
        let made =
            client.ok(None, "Target.createTarget", json!({ "url": site.url("/silent") })).await;
        let about_it = |params: &Value| params["targetInfo"]["targetId"] == made["targetId"];
        let attached = client.event("Target.attachedToTarget", about_it).await;
        assert_eq!(attached["params"]["waitingForDebugger"], json!(true));
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(site.silences(), before);
        let session = attached["params"]["sessionId"].as_str().unwrap();
        client.send(Some(session), "Runtime.runIfWaitingForDebugger", json!({})).await;
        eventually("it goes there", async || site.silences() == before + 1).await;
    }
}
