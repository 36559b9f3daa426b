//! S27, S28, S40: what is on the disk.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use browser_pool_tests::process::{Process, ProcessId};
use browser_pool_tests::{
    Case, Cdp, CdpError, Engine, LeaseKind, Setup, case, eventually, for_both_kinds,
};
use rustix::process::Signal;
use serde_json::json;
use toml::Table;

for_both_kinds!(s27_symlink_in_a_directory_that_we_delete, s28_directories_are_private);

/// Links to a directory of somebody else, in every place of ours that will be removed.
async fn s27_symlink_in_a_directory_that_we_delete(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let target = case.home.path().join("precious");
        fs::create_dir(&target).expect("the home is ours");
        fs::write(target.join("file"), "keep me").expect("the home is ours");
        let client = case.service.connect("/").await;
        // Closed one by one, shared leases keep each other's Chromium: all of them are killed.
        let browsers = case.service.browser_pids("").await;
        let directories = directories(&case.home.state_dir().join("run"));
        assert!(directories.len() > 2);
        for directory in &directories {
            // One may have gone since it was listed.
            let _ = symlink(&target, directory.join("link"));
            let _ = symlink(target.join("file"), directory.join("link-to-a-file"));
        }
        for browser in browsers.into_iter().filter_map(ProcessId::of) {
            browser.signal(Signal::KILL);
        }
        drop(client);
        eventually("the directories are removed", Duration::from_secs(20), async || {
            let left = directories.iter().filter(|directory| directory.exists()).count();
            if left == 0 { Ok(()) } else { Err(left) }
        })
        .await;
        assert_kept(&target);

        // The sweep of the next start.
        case.kill_service().await;
        case.oracle.gone(Duration::from_secs(2)).await;
        let run = case.home.state_dir().join("run");
        symlink(&target, run.join("0badf00d")).expect("the home is ours");
        case.restart().await;
        assert!(!run.join("0badf00d").exists(), "the link itself is removed");
        assert_kept(&target);
        fs::remove_dir_all(target).expect("it is there");
    })
    .await;
}

fn assert_kept(target: &Path) {
    let kept = fs::read_to_string(target.join("file"));
    assert_eq!(kept.expect("it was not deleted"), "keep me");
}

/// All directories below this one, itself not among them.
fn directories(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
                found.push(entry.path());
            }
        }
    }
    found
}

async fn s28_directories_are_private(kind: LeaseKind) {
    let profile = match kind {
        LeaseKind::Exclusive => "/?profile=work",
        LeaseKind::Shared => "/",
    };
    let setup = Setup::new().kind(kind).set("profiles.work", Table::new());
    let setup = if kind == LeaseKind::Exclusive { setup.set("pool.max_size", 4) } else { setup };
    case(setup, async |case| {
        let client = case.service.connect(profile).await;
        client.page(&case.site.at("/title.html")).await;
        let own = rustix::process::geteuid().as_raw();
        let roots = [
            case.home.state_dir(),
            case.home.state_dir().join("run"),
            case.home.state_dir().join("profiles"),
        ];
        let below =
            roots.iter().flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
        let directories = below.map(|entry| entry.path()).filter(|path| path.is_dir());
        for directory in roots.iter().filter(|root| root.exists()).cloned().chain(directories) {
            let metadata = fs::metadata(&directory).expect("it is there");
            let mode = metadata.permissions().mode() & 0o777;
            assert_eq!(mode, 0o700, "{directory:?} has {mode:o}");
            assert_eq!(metadata.uid(), own, "{directory:?}");
        }
        client.close().await;
    })
    .await;
}

/// Whatever the umask of whoever starts it.
#[tokio::test(flavor = "multi_thread")]
async fn s28_an_open_umask_opens_nothing() {
    let setup =
        Setup::new().engine(Engine::Shell).wrapper(["sh", "-c", "umask 0; exec \"$0\" \"$@\""]);
    case(setup, async |case| {
        open_to_others(case);
    })
    .await;
}

fn open_to_others(case: &Case) {
    for process in case.oracle.ours.browsers() {
        let arguments = Process::arguments(&process);
        let directory =
            arguments.iter().find_map(|argument| argument.strip_prefix("--user-data-dir="));
        let parent = Path::new(directory.expect("every Chromium has one")).parent();
        let metadata = fs::metadata(parent.expect("it is in the state directory")).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{parent:?}");
    }
    let lock = fs::metadata(case.home.state_dir().join("lock")).expect("it is there");
    assert_eq!(lock.permissions().mode() & 0o077, 0, "the lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn s40_files_left_in_a_chromiums_directory_by_the_shell() {
    s40_files_left_in_a_chromiums_directory(Engine::Shell).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s40_files_left_in_a_chromiums_directory_by_chromium() {
    s40_files_left_in_a_chromiums_directory(Engine::Chromium).await;
}

/// What an exclusive lease downloads, wherever it asks for it to go, is not there for the next
/// lease of its Chromium; and neither is a file that came there in some way that nobody thought of.
async fn s40_files_left_in_a_chromiums_directory(engine: Engine) {
    let setup = Setup::new().engine(engine).size(1).set("profiles.work", Table::new());
    case(setup, async |case| {
        let client = case.service.connect("/").await;
        let browser = case.service.browser_of(&client).await;
        let own = own_directory(browser);
        let state = case.home.state_dir();
        fs::create_dir_all(state.join("profiles/work")).expect("the home is ours");
        symlink(&own, case.home.path().join("link")).expect("the home is ours");
        let reserved = [
            own.join("profile/NativeMessagingHosts"),
            own.join("profile/Default"),
            own.join("profile"),
            own.join("home/.pki"),
            own.join("tmp"),
            state.join("profiles/work"),
            state.join("run/not-there-yet"),
            state.clone(),
            case.home.path().join("link/profile"),
            case.home.path().join("nowhere/../state/run"),
            PathBuf::from(format!("{}\0/x", state.display())),
        ];
        let page = client.page("about:blank").await;
        for path in &reserved {
            for behavior in ["allow", "allowAndName"] {
                let params =
                    json!({ "behavior": behavior, "downloadPath": path.to_string_lossy() });
                let refused = [
                    client.call("Browser.setDownloadBehavior", params.clone()).await,
                    page.call("Browser.setDownloadBehavior", params.clone()).await,
                    page.call("Page.setDownloadBehavior", params).await,
                ];
                for refused in refused {
                    assert!(
                        matches!(&refused, Err(CdpError::Answer { .. })),
                        "{}: {refused:?}",
                        path.display()
                    );
                }
            }
        }
        download(case, &client).await;
        client.close().await;
        assert_nothing_left(case, "after a download to nowhere in particular").await;

        let (again, browser_then) = lease(case).await;
        assert_eq!(browser_then, browser, "a download needs no new Chromium");
        let elsewhere = case.home.path().join("downloads");
        let params = json!({ "behavior": "allow", "downloadPath": elsewhere.to_string_lossy() });
        again.call("Browser.setDownloadBehavior", params).await.expect("it is none of ours");
        download(case, &again).await;
        // Much of what a browser stores, for the names that Chromium makes along the way.
        let page = again.page(&case.site.at("/storage.html")).await;
        page.eval("write('left')").await;
        page.screenshot().await.expect("it is drawn");
        drop(page);
        again.close().await;
        assert!(elsewhere.join("report.bin").exists(), "a download goes where it may");

        for planted in [
            "profile/NativeMessagingHosts/evil.json",
            "profile/Default/left",
            "home/left",
            "tmp/left",
        ] {
            let (client, browser) = lease(case).await;
            let planted = own_directory(browser).join(planted);
            fs::create_dir_all(planted.parent().expect("it has one")).expect("it is ours");
            fs::write(&planted, "left behind").expect("it is ours");
            client.close().await;
            let (next, another) = lease(case).await;
            assert_ne!(another, browser, "the Chromium goes with {}", planted.display());
            assert!(!planted.exists(), "{}", planted.display());
            next.close().await;
        }
        fs::remove_dir_all(elsewhere).expect("it is ours");
    })
    .await;
}

/// The next lease, with the Chromium that it is in.
async fn lease(case: &Case) -> (Cdp, ProcessId) {
    let client = case.service.connect("/").await;
    let browser = case.service.browser_of(&client).await;
    (client, browser)
}

/// The directory that the pool has made for a Chromium.
fn own_directory(browser: ProcessId) -> PathBuf {
    let arguments = Process::read(browser.pid).expect("it lives").arguments();
    let profile = arguments.iter().find_map(|argument| argument.strip_prefix("--user-data-dir="));
    Path::new(profile.expect("every Chromium has one")).parent().expect("it is in one").to_owned()
}

/// Lets a page download something, and waits until that is over, whatever has become of it. The
/// shell says nothing of a download that nobody has allowed.
async fn download(case: &Case, client: &Cdp) {
    let page = client.page(&case.site.at("/title.html")).await;
    let mut events = client.events();
    page.call("Page.navigate", json!({ "url": case.site.at("/download") })).await.expect("it goes");
    let over = async {
        loop {
            let event = events.recv().await.expect("the connection lives");
            let is_over =
                ["completed", "canceled"].iter().any(|it| event["params"]["state"] == **it);
            if event["method"] == "Page.downloadProgress" && is_over {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), over).await;
}

/// Nothing of a download is below the state directory, once the lease's Chromium is clean again.
async fn assert_nothing_left(case: &Case, when: &str) {
    eventually("the browser is idle", Duration::from_secs(10), async || {
        let load = case.service.state().await["load"].clone();
        if load["idle"] == 1 { Ok(()) } else { Err(load) }
    })
    .await;
    let left: Vec<PathBuf> = directories(&case.home.state_dir())
        .iter()
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("report"))
        .collect();
    assert!(left.is_empty(), "{when}: {left:?}");
}
