//! However a Chromium ends, nothing of it stays.

mod process_support;

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use pool_chrome::process::{Chromium, LaunchOptions};
use process_support::{ENGINES, SOON, State, ask, comes_true, holds_within, signal, state_of};
use rustix::process::Signal;
use serde_json::json;

#[tokio::test]
async fn closing_lets_it_exit_by_itself_and_leaves_nothing() {
    for engine in ENGINES {
        let state = State::new();
        let (chromium, _pipe) = state.ready(LaunchOptions::new().engine(engine)).await;
        let (pid, exited) = (chromium.pid(), chromium.exited());
        chromium.close(SOON).await;
        let status = exited.await.status().unwrap();
        assert!(status.success(), "{engine:?} was not given the time: {status}");
        state.assert_nothing_left();
        assert_eq!(state_of(pid), None, "{engine:?} is a zombie");
    }
}

#[tokio::test]
async fn closing_without_grace_kills() {
    for engine in ENGINES {
        let state = State::new();
        let (chromium, _pipe) = state.ready(LaunchOptions::new().engine(engine)).await;
        let begun = Instant::now();
        chromium.close(Duration::ZERO).await;
        assert!(begun.elapsed() < SOON, "{engine:?}: {:?}", begun.elapsed());
        state.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_stopped_browser_is_killed_after_the_grace() {
    for engine in ENGINES {
        let state = State::new();
        let (chromium, _pipe) = state.ready(LaunchOptions::new().engine(engine)).await;
        signal(chromium.pid(), Signal::STOP);
        let begun = Instant::now();
        chromium.close(Duration::from_millis(300)).await;
        assert!(begun.elapsed() >= Duration::from_millis(300));
        assert!(begun.elapsed() < SOON, "{engine:?}: {:?}", begun.elapsed());
        state.assert_nothing_left();
    }
}

#[tokio::test]
async fn dropping_the_writer_ends_it() {
    for engine in ENGINES {
        let state = State::new();
        let (chromium, pipe) = state.ready(LaunchOptions::new().engine(engine)).await;
        drop(pipe.writer);
        let exit = tokio::time::timeout(SOON, chromium.exited()).await.expect("it stays");
        assert!(exit.status().unwrap().success(), "{engine:?}: {exit}");
    }
}

#[tokio::test]
async fn dropping_the_handle_kills_the_tree_and_leaves_nothing() {
    for engine in ENGINES {
        let state = State::new();
        let (chromium, pipe) = state.ready(LaunchOptions::new().engine(engine)).await;
        let pid = chromium.pid();
        drop((chromium, pipe));
        let gone = comes_true(SOON, || state_of(pid).is_none()).await;
        assert!(gone, "{engine:?}: {:?}", state_of(pid));
        assert!(comes_true(SOON, || state.litter().is_empty()).await);
        state.assert_nothing_left();
    }
}

#[test]
fn dropping_the_handle_needs_no_runtime() {
    let state = State::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (chromium, pipe) = runtime.block_on(state.ready(LaunchOptions::new()));
    drop(runtime);
    let pid = chromium.pid();
    drop((chromium, pipe));
    assert!(holds_within(SOON, || state_of(pid).is_none() && state.litter().is_empty()));
    state.assert_nothing_left();
}

#[tokio::test]
async fn a_browser_killed_from_outside_is_noticed_at_once() {
    for engine in ENGINES {
        let state = State::new();
        let (chromium, mut pipe) = state.ready(LaunchOptions::new().engine(engine)).await;
        ask(&mut pipe, "Target.createTarget", json!({ "url": "about:blank" })).await;
        assert!(chromium.exit().is_none());
        let pid = chromium.pid();
        signal(pid, Signal::KILL);
        let exit = tokio::time::timeout(SOON, chromium.exited()).await.unwrap();
        assert_eq!(exit.status().unwrap().signal(), Some(9));
        assert!(chromium.not_ready().to_string().contains("signal: 9"), "{}", chromium.not_ready());
        // The handle is still held: what is left is cleaned up all the same.
        let gone = comes_true(SOON, || state.litter().is_empty() && state_of(pid).is_none()).await;
        assert!(gone, "{engine:?}");
        state.assert_nothing_left();
        chromium.close(SOON).await;
    }
}

#[tokio::test]
async fn a_stopped_browser_can_be_killed() {
    let state = State::new();
    let (chromium, _pipe) = state.ready(LaunchOptions::new()).await;
    signal(chromium.pid(), Signal::STOP);
    chromium.kill();
    let exit = tokio::time::timeout(SOON, chromium.exited()).await.unwrap();
    assert_eq!(exit.status().unwrap().signal(), Some(9));
}

#[tokio::test]
async fn a_cancelled_close_kills() {
    let state = State::new();
    let (chromium, _pipe) = state.ready(LaunchOptions::new()).await;
    signal(chromium.pid(), Signal::STOP);
    let closing = chromium.close(Duration::from_secs(60));
    assert!(tokio::time::timeout(Duration::from_millis(100), closing).await.is_err());
    assert!(comes_true(SOON, || state.litter().is_empty()).await);
    state.assert_nothing_left();
}

#[tokio::test]
async fn a_cancelled_launch_leaves_nothing() {
    let state = State::new();
    for pause in [0, 1, 2, 4, 8, 16] {
        let launch = Chromium::launch(LaunchOptions::new(), &state.state);
        let launched = tokio::time::timeout(Duration::from_millis(pause), launch).await;
        drop(launched);
    }
    assert!(comes_true(SOON, || state.litter().is_empty() && state.processes().is_empty()).await);
}
