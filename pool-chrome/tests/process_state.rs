//! The state directory: one pool at a time, swept at start, never another program's Chrome.

mod process_support;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pool_chrome::ChromeError;
use pool_chrome::process::{Chromium, LaunchOptions, StateDir, UserData};
use process_support::{
    ENGINES, SOON, State, comes_true, holds_within, processes_of, signal, state_of,
};
use rustix::process::Signal;

/// A second process of ours that holds a browser until it is killed.
struct Pool {
    process: Child,
    root: tempfile::TempDir,
}

impl Pool {
    /// Runs [`a_pool_that_waits_to_be_killed`] in a process of its own.
    fn start(engine: &str) -> Self {
        let root = tempfile::Builder::new().prefix("pc").tempdir().unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_pool_that_waits_to_be_killed", "--ignored", "--nocapture"])
            .env("POOL_CHROME_TEST_STATE", root.path().join("s"))
            .env("POOL_CHROME_TEST_ENGINE", engine)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pool = Self { process, root };
        let ready = holds_within(Duration::from_secs(20), || pool.state().join("ready").exists());
        assert!(ready, "the second pool does not come up");
        pool
    }

    fn state(&self) -> std::path::PathBuf {
        self.root.path().join("s")
    }

    fn browser(&self) -> u32 {
        fs::read_to_string(self.state().join("ready")).unwrap().parse().unwrap()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test]
#[ignore = "not a test: the other process of the tests below"]
async fn a_pool_that_waits_to_be_killed() {
    let Some(path) = std::env::var_os("POOL_CHROME_TEST_STATE") else { return };
    let engine = std::env::var("POOL_CHROME_TEST_ENGINE").unwrap().parse().unwrap();
    let state = StateDir::open(path).unwrap();
    let (chromium, mut pipe) =
        Chromium::launch(LaunchOptions::new().engine(engine), &state).await.unwrap();
    process_support::ask(&mut pipe, "Browser.getVersion", serde_json::json!({})).await;
    let ready = state.path().join("ready");
    fs::write(ready.with_extension("new"), chromium.pid().to_string()).unwrap();
    fs::rename(ready.with_extension("new"), ready).unwrap();
    std::future::pending::<()>().await;
}

#[test]
fn a_killed_pool_leaves_no_process_and_the_next_start_no_directory() {
    for engine in ENGINES {
        let mut pool = Pool::start(engine.as_str());
        pool.kill();
        let gone = holds_within(SOON, || processes_of(pool.root.path()).is_empty());
        assert!(gone, "{engine:?}: {:?}", processes_of(pool.root.path()));
        let state = StateDir::open(pool.state()).unwrap();
        assert_eq!(state.swept().directories, 1);
        assert_eq!(fs::read_dir(pool.state().join("run")).unwrap().count(), 0);
    }
}

#[test]
fn a_stopped_browser_of_a_killed_pool_is_ended_by_the_next_start() {
    for engine in ENGINES {
        let mut pool = Pool::start(engine.as_str());
        let browser = pool.browser();
        signal(browser, Signal::STOP);
        assert!(holds_within(SOON, || state_of(browser) == Some('T')));
        pool.kill();
        let state = StateDir::open(pool.state()).unwrap();
        assert!(state.swept().processes >= 1, "{:?}", state.swept());
        assert!(processes_of(pool.root.path()).is_empty());
        assert_eq!(fs::read_dir(pool.state().join("run")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn the_sweep_touches_no_other_browser() {
    let other = State::new();
    let (bystander, _pipe) = other.ready(LaunchOptions::new()).await;
    let mut pool = Pool::start("shell");
    // Its id is used again, by somebody else's browser.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let run = pool.state().join("run");
    let directory = fs::read_dir(&run).unwrap().next().unwrap().unwrap().path();
    pool.kill();
    assert!(comes_true(SOON, || processes_of(pool.root.path()).is_empty()).await);
    let reused = format!("{} {} {boot}", bystander.pid(), bystander.start_time() - 1);
    fs::write(directory.join("record"), reused).unwrap();

    let state = StateDir::open(pool.state()).unwrap();

    assert_eq!(state.swept().directories, 1);
    assert!(bystander.exit().is_none());
    bystander.close(SOON).await;
}

#[test]
fn the_sweep_follows_no_link() {
    let root = tempfile::tempdir().unwrap();
    let precious = root.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "kept").unwrap();
    let run = root.path().join("s/run");
    fs::create_dir_all(run.join("00000001/profile")).unwrap();
    symlink(&precious, run.join("00000001/profile/Default")).unwrap();
    symlink(&precious, run.join("00000001/tmp")).unwrap();
    symlink(&precious, run.join("00000002")).unwrap();
    let state = StateDir::open(root.path().join("s")).unwrap();
    assert_eq!(state.swept().directories, 2);
    assert_eq!(fs::read_dir(run).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(precious.join("file")).unwrap(), "kept");
}

#[test]
fn a_link_in_place_of_our_own_directory_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let precious = root.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "kept").unwrap();
    fs::create_dir(root.path().join("s")).unwrap();
    symlink(&precious, root.path().join("s/run")).unwrap();
    let error = StateDir::open(root.path().join("s")).unwrap_err();
    assert!(matches!(error, ChromeError::File { .. }), "{error}");
    assert_eq!(fs::read_to_string(precious.join("file")).unwrap(), "kept");
}

#[test]
fn a_second_pool_on_the_same_directory_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("s");
    let first = StateDir::open(&path).unwrap();
    let error = StateDir::open(&path).unwrap_err();
    let own = std::process::id();
    assert!(matches!(error, ChromeError::StateDirBusy { owner: Some(pid), .. } if pid == own));
    assert!(error.to_string().contains("state_dir"), "{error}");
    drop(first);
    StateDir::open(path).unwrap();
}

#[tokio::test]
async fn the_lock_is_held_until_the_last_browser_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("s");
    let state = StateDir::open(&path).unwrap();
    let (chromium, _pipe) = Chromium::launch(LaunchOptions::new(), &state).await.unwrap();
    drop(state);
    StateDir::open(&path).unwrap_err();
    chromium.close(SOON).await;
    StateDir::open(&path).unwrap();
}

#[tokio::test]
async fn a_persistent_profile_stays_and_is_used_again() {
    for engine in ENGINES {
        let state = State::new();
        let profile = state.state.path().join("profiles/work");
        let options =
            LaunchOptions::new().engine(engine).user_data(UserData::Persistent(profile.clone()));
        for _ in 0..2 {
            let (chromium, _pipe) = state.ready(options.clone()).await;
            assert_eq!(chromium.user_data_dir(), profile);
            chromium.close(SOON).await;
            state.assert_nothing_left();
            assert!(profile.join("Default").is_dir(), "{engine:?}");
        }
    }
}

#[tokio::test]
async fn a_profile_that_a_killed_browser_had_locked_is_unlocked() {
    let [_, chromium] = ENGINES;
    let state = State::new();
    let profile = state.root.path().join("profile");
    let options =
        LaunchOptions::new().engine(chromium).user_data(UserData::Persistent(profile.clone()));
    let (chromium, _pipe) = state.ready(options.clone()).await;
    let lock = profile.join("SingletonLock");
    assert!(fs::symlink_metadata(&lock).is_ok());
    signal(chromium.pid(), Signal::KILL);
    chromium.close(SOON).await;
    assert!(fs::symlink_metadata(&lock).is_ok(), "a killed browser leaves its lock");
    let (chromium, _pipe) = state.ready(options).await;
    chromium.close(SOON).await;
}

#[tokio::test]
async fn a_profile_that_a_foreign_browser_uses_is_busy() {
    for engine in ENGINES {
        let (state, foreign) = (State::new(), State::new());
        let profile = foreign.root.path().join("profile");
        let options =
            LaunchOptions::new().engine(engine).user_data(UserData::Persistent(profile.clone()));
        let (user, _pipe) = foreign.ready(options.clone()).await;
        let error = Chromium::launch(options.clone(), &state.state).await.unwrap_err();
        let ChromeError::ProfileBusy { directory, .. } = &error else { panic!("{error}") };
        assert_eq!(directory, &profile);
        assert!(error.to_string().starts_with("profile_busy"), "{error}");
        assert!(user.exit().is_none(), "the foreign browser lives on");
        state.assert_nothing_left();
        user.close(SOON).await;
        let (chromium, _pipe) = state.ready(options).await;
        chromium.close(SOON).await;
    }
}
