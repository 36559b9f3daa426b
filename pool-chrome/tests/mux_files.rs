//! The files that a client of a shared lease may name, and those that it may not.

mod mux_support;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mux_support::{Client, ENGINES, Rig, eventually};
use pool_chrome::mux::{FileUse, HolderCommands, LeaseKind, LeaseOptions};
use serde_json::{Map, Value, json};

#[tokio::test]
async fn downloads_are_told_to_their_own_lease_only_and_land_in_its_directory() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let files = tempfile::tempdir().unwrap();
        let options = LeaseOptions::new(LeaseKind::Shared).directory(files.path());
        let lease = rig.mux.open_lease(options).await.unwrap();
        let mut own = Client::new(lease.connect().await.unwrap());
        let (_other, mut other) = rig.client(LeaseKind::Shared).await;
        let inside = json!({ "behavior": "allowAndName", "downloadPath": files.path(),
            "eventsEnabled": true });
        own.ok(None, "Browser.setDownloadBehavior", inside).await;
        let no_files = json!({ "behavior": "default", "eventsEnabled": true });
        other.ok(None, "Browser.setDownloadBehavior", no_files).await;
        let (_, watching) = other.page("about:blank").await;

        // From the page itself, and from a frame in it that is no target of its own.
        let (_, page) = own.page("about:blank").await;
        for from in [
            "document.body",
            "document.body.appendChild(document.createElement('iframe')).contentDocument.body",
        ] {
            let click = format!(
                "(() => {{ const body = {from}; const a = body.ownerDocument.createElement('a'); \
                 a.href = 'data:application/octet-stream,hello'; a.download = 'x.bin'; body.append(a); a.click() }})()"
            );
            own.evaluate(&page, &click).await;
            let begun = own.event("Browser.downloadWillBegin", |_| true).await;
            let guid = begun["params"]["guid"].as_str().unwrap().to_owned();
            own.event("Browser.downloadProgress", |params| {
                params["guid"] == *guid && params["state"] == "completed"
            })
            .await;
            assert_eq!(std::fs::read(files.path().join(&guid)).unwrap(), b"hello");
        }
        other.evaluate(&watching, "6*7").await;
        assert!(
            other.events.iter().all(|event| !event.to_string().contains("download")),
            "{:?}",
            other.events
        );
    }
}

/// Remembers the files that were refused.
#[derive(Debug, Default)]
struct Holder(Mutex<Vec<(FileUse, String)>>);

impl HolderCommands for Holder {
    fn call(&self, _: &str, _: &Map<String, Value>) -> Option<Result<Value, String>> {
        None
    }

    fn file_refused(&self, file: FileUse, path: &str) {
        self.0.lock().unwrap().push((file, path.to_owned()));
    }
}

#[tokio::test]
async fn a_download_to_where_a_shared_lease_may_not_write_is_canceled_and_told() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let (files, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = LeaseOptions::new(LeaseKind::Shared).directory(files.path());
        let lease = rig.mux.open_lease(options).await.unwrap();
        let holder = Arc::new(Holder::default());
        let mut own = Client::new(lease.connect_with(holder.clone()).await.unwrap());
        let (_, page) = own.page("about:blank").await;
        let path = elsewhere.path().to_str().unwrap();
        for (session, method) in
            [(None, "Browser.setDownloadBehavior"), (Some(&*page), "Page.setDownloadBehavior")]
        {
            let outside =
                json!({ "behavior": "allow", "downloadPath": path, "eventsEnabled": true });
            let mut params = outside.clone();
            if session.is_some() {
                own.ok(None, "Browser.setDownloadBehavior", outside).await;
                params.as_object_mut().unwrap().remove("eventsEnabled");
            }
            own.ok(session, method, params).await;
            for from in [
                "document.body",
                "document.body.appendChild(document.createElement('iframe')).contentDocument.body",
            ] {
                let click = format!(
                    "(() => {{ const body = {from}; const a = body.ownerDocument.createElement('a'); \
                     a.href = 'data:application/octet-stream,hello'; a.download = 'x.bin'; \
                     body.append(a); a.click() }})()"
                );
                own.evaluate(&page, &click).await;
                let begun = own.event("Browser.downloadWillBegin", |_| true).await;
                let guid = begun["params"]["guid"].clone();
                own.event("Browser.downloadProgress", |params| {
                    params["guid"] == guid && params["state"] == "canceled"
                })
                .await;
            }
        }
        for directory in [&files, &elsewhere] {
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{engine:?}");
        }
        let upload = json!({ "files": ["/etc/passwd"], "backendNodeId": 1 });
        for _ in 0..2 {
            let refused = own.ask(Some(&page), "DOM.setFileInputFiles", upload.clone()).await;
            let message = refused["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains("[chrome] directories"), "{refused}");
        }
        let told = holder.0.lock().unwrap().clone();
        let once =
            [(FileUse::Download, path.to_owned()), (FileUse::Upload, "/etc/passwd".to_owned())];
        assert_eq!(told, once, "{engine:?}: each once");
        // Where it is allowed it goes there, from then on.
        let inside = json!({ "behavior": "allowAndName", "downloadPath": files.path(),
            "eventsEnabled": true });
        own.ok(None, "Browser.setDownloadBehavior", inside).await;
        let click = "(() => { const a = document.createElement('a'); a.download = 'x'; \
            a.href = 'data:application/octet-stream,hello'; document.body.append(a); a.click() })()";
        own.evaluate(&page, click).await;
        own.event("Browser.downloadProgress", |params| params["state"] == "completed").await;
        assert_eq!(std::fs::read_dir(files.path()).unwrap().count(), 1, "{engine:?}");
    }
}

/// Drags something onto a page and drops it there. Every answer.
async fn drop_on(client: &mut Client, page: &str, data: Value) -> Vec<Value> {
    let mut answers = Vec::new();
    for kind in ["dragEnter", "dragOver", "drop"] {
        let params = json!({ "type": kind, "x": 50, "y": 50, "data": data });
        answers.push(client.ask(Some(page), "Input.dispatchDragEvent", params).await);
    }
    answers
}

/// Drops a file that the lease may name until the page has read it once more: a page that is still loading, or has
/// not been painted yet, takes no drop.
async fn drop_until_read(client: &mut Client, page: &str, own: &Path) {
    client.evaluates_to(page, "typeof reads", &json!("object")).await;
    let reads = client.evaluate(page, "reads.length").await;
    let data = json!({ "items": [], "files": [own], "dragOperationsMask": 1 });
    eventually("a dropped file has been read", async || {
        for answer in drop_on(client, page, data.clone()).await {
            assert!(answer.get("error").is_none(), "{answer}");
        }
        client.evaluate(page, "reads.length").await != reads
    })
    .await;
}

/// A page that reads whatever is dropped on it.
const READER: &str = "data:text/html,<script>reads = []</script>\
    <body style='height:500px' ondragenter='event.preventDefault()' \
    ondragover='event.preventDefault()' ondrop='event.preventDefault(); const file = event.dataTransfer.files[0]; \
    if (file) file.text().then(text => reads.push(text))'>x";

#[tokio::test]
async fn s06_no_parameter_opens_a_file() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let files = tempfile::tempdir().unwrap();
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "secret").unwrap();
        std::fs::write(files.path().join("own"), "own").unwrap();
        let path = secret.path().to_str().unwrap();
        let url = format!("file://{path}");
        let options = LeaseOptions::new(LeaseKind::Shared).directory(files.path());
        let lease = rig.mux.open_lease(options).await.unwrap();
        let mut client = Client::new(lease.connect().await.unwrap());
        let all = json!({ "discover": true, "filter": [{}] });
        client.ok(None, "Target.setDiscoverTargets", all).await;

        let own = files.path().join("own");
        let (_, page) = client.page(READER).await;
        drop_until_read(&mut client, &page, &own).await;
        let dragged = |files: Value, items: Value| json!({ "items": items, "files": files, "dragOperationsMask": 1 });
        let list = |kind: &str, data: &str| json!([{ "mimeType": kind, "data": data }]);
        let commented = format!("# x\n{url}");
        for data in [
            dragged(json!([path]), json!([])),
            dragged(json!([own, path]), json!([])),
            dragged(json!(["/etc"]), json!([])),
            dragged(json!([]), list("text/uri-list", &url)),
            dragged(json!([]), list("Text/URI-List", &commented)),
            dragged(json!([]), list("text/uri-list", "chrome://settings")),
        ] {
            for answer in drop_on(&mut client, &page, data.clone()).await {
                assert_eq!(answer["error"]["code"], -32602, "{engine:?} {data}: {answer}");
            }
        }
        for data in [
            dragged(json!([]), list("text/plain", &url)),
            dragged(json!([]), list("text/html", &format!("<a href={url}>x</a>"))),
            dragged(json!([]), list("text/x-moz-url", &url)),
            dragged(json!([]), list("DownloadURL", &format!("text/plain:x:{url}"))),
        ] {
            drop_on(&mut client, &page, data).await;
        }
        // What those had given the page, it would have read before what comes after them.
        drop_until_read(&mut client, &page, &own).await;
        let others = "reads.filter(text => text !== 'own')";
        assert_eq!(client.evaluate(&page, others).await, json!([]), "{engine:?}");

        let load = json!({ "url": url, "options": { "disableCache": false, "includeCredentials": false } });
        client.fails(Some(&page), "Network.loadNetworkResource", load).await;
        let cache = json!({ "url": "https://example.org/x.js", "data": "AAAA" });
        client.fails(Some(&page), "Page.addCompilationCache", cache).await;

        // A request that is sent on to a file, by its address or by a redirect.
        let patterns = json!({ "patterns": [{ "urlPattern": "*" }] });
        client.ok(Some(&page), "Fetch.enable", patterns).await;
        let location = json!([{ "name": "Location", "value": url }]);
        for (method, mut params) in [
            ("Fetch.continueRequest", json!({ "url": url })),
            ("Fetch.fulfillRequest", json!({ "responseCode": 302, "responseHeaders": location })),
        ] {
            let visit = json!({ "url": "http://127.0.0.1:9/" });
            let visit = client.send(Some(&page), "Page.navigate", visit).await;
            let paused = client.event("Fetch.requestPaused", |_| true).await;
            params["requestId"] = paused["params"]["requestId"].clone();
            client.ok(Some(&page), method, params).await;
            let went = client.reply(visit).await;
            assert!(went["result"]["errorText"].is_string(), "{engine:?} {method}: {went}");
        }
        client.ok(Some(&page), "Fetch.disable", json!({})).await;

        let opened = client.events.iter().find(|event| event.to_string().contains("file:///"));
        assert_eq!(opened, None, "{engine:?}");
    }
}

#[tokio::test]
async fn s06_a_file_that_is_opened_all_the_same_is_closed() {
    for engine in ENGINES {
        let rig = Rig::new(engine).await;
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("own.html"), "<title>own</title>").unwrap();
        let options = LeaseOptions::new(LeaseKind::Shared).directory(files.path());
        let lease = rig.mux.open_lease(options).await.unwrap();
        let mut client = Client::new(lease.connect().await.unwrap());
        let all = json!({ "discover": true, "filter": [{}] });
        client.ok(None, "Target.setDiscoverTargets", all).await;
        let body = "data:text/html,<body style='height:500px'>x";
        let height = "document.body.style.height";
        let (_, page) = client.page(body).await;
        client.evaluates_to(&page, height, &json!("500px")).await;
        // Its own file, which no page takes: the browser opens it.
        let data = json!({ "items": [], "files": [files.path().join("own.html")], "dragOperationsMask": 1 });
        let files = async || {
            let targets = rig.mux.call(None, "Target.getTargets", &json!({})).await.unwrap();
            targets["targetInfos"].to_string().contains("file:///")
        };
        // As an exclusive lease shows, which may have it.
        let (control, mut free) = rig.client(LeaseKind::Exclusive).await;
        let (_, shown) = free.page(body).await;
        free.evaluates_to(&shown, height, &json!("500px")).await;
        // A page that has not been painted yet takes no drop.
        free.ok(Some(&shown), "Page.captureScreenshot", json!({})).await;
        drop_on(&mut free, &shown, data.clone()).await;
        eventually("the file is opened", async || files().await).await;
        control.end().await.unwrap();
        assert!(!files().await, "{engine:?}: it stays");

        client.ok(Some(&page), "Page.captureScreenshot", json!({})).await;
        drop_on(&mut client, &page, data).await;
        // Some milliseconds later it would be there to stay.
        tokio::time::sleep(Duration::from_millis(500)).await;
        eventually("the page of the file is gone", async || !files().await).await;
        let told = client.events.iter().find(|event| event.to_string().contains("file:///"));
        assert_eq!(told, None, "{engine:?}");
        assert_eq!(client.evaluate(&page, "6*7").await, json!(42), "{engine:?}");
    }
}
