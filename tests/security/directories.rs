//! S27, S28: what is on the disk.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use browser_pool_tests::process::{Process, ProcessId};
use browser_pool_tests::{Case, Engine, LeaseKind, Setup, case, eventually, for_both_kinds};
use rustix::process::Signal;
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
