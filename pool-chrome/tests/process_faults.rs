//! What supervision makes of a Chromium that fails, with the fake one.

mod process_support;

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use pool_chrome::ChromeError;
use pool_chrome::process::LaunchOptions;
use process_support::{SOON, State, ask, comes_true, next_message, zombies};
use serde_json::json;
use tokio::io::AsyncWriteExt;

fn fake(modes: &[&str]) -> LaunchOptions {
    LaunchOptions::new()
        .executable(env!("CARGO_BIN_EXE_fake-chromium"))
        .args(modes.iter().map(|mode| format!("--fake-mode={mode}")))
}

#[tokio::test]
async fn the_fake_opens_and_closes_pages_like_a_chromium() {
    let state = State::new();
    let (chromium, mut pipe) = state.ready(fake(&[])).await;
    let attach = json!({ "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true });
    ask(&mut pipe, "Target.setAutoAttach", attach).await;
    let create = br#"{"id":2,"method":"Target.createTarget","params":{"url":"about:blank"}}"#;
    pipe.writer.write_all(create).await.unwrap();
    pipe.writer.write_all(b"\0").await.unwrap();
    let attached = next_message(&mut pipe).await.unwrap();
    assert_eq!(attached["method"], "Target.attachedToTarget");
    assert_eq!(attached["params"]["waitingForDebugger"], true);
    let created = next_message(&mut pipe).await.unwrap();
    assert_eq!(created["result"]["targetId"], attached["params"]["targetInfo"]["targetId"]);
    chromium.close(SOON).await;
    state.assert_nothing_left();
}

#[tokio::test]
async fn one_that_exits_at_once_says_why() {
    let state = State::new();
    let (chromium, mut pipe) = state.launch(fake(&["exit"])).await;
    let exit = tokio::time::timeout(SOON, chromium.exited()).await.unwrap();
    assert_eq!(exit.status().unwrap().code(), Some(21));
    assert_eq!(exit.stderr(), "[FATAL:fake] cannot open the display");
    assert!(next_message(&mut pipe).await.is_none());
    let error = chromium.not_ready();
    assert!(matches!(error, ChromeError::Exited(_)));
    assert!(error.to_string().contains("cannot open the display"), "{error}");
    assert!(comes_true(SOON, || state.litter().is_empty()).await);
}

#[tokio::test]
async fn one_that_never_answers_is_an_error_of_time() {
    let state = State::new();
    let (chromium, mut pipe) = state.launch(fake(&["silent"])).await;
    let asked = ask(&mut pipe, "Browser.getVersion", json!({}));
    assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err());
    let error = chromium.not_ready();
    assert!(
        matches!(error, ChromeError::LaunchTimeout { waited, .. } if waited.as_millis() >= 200)
    );
    chromium.close(SOON).await;
    state.assert_nothing_left();
}

#[tokio::test]
async fn a_flood_on_stderr_neither_blocks_it_nor_fills_our_memory() {
    let state = State::new();
    let (chromium, mut pipe) = state.ready(fake(&["flood"])).await;
    for _ in 0..1000 {
        ask(&mut pipe, "Browser.getVersion", json!({})).await;
    }
    let tail = chromium.stderr();
    assert!(tail.len() <= 8 * 1024 && tail.contains("of many"), "{} bytes", tail.len());
    chromium.close(SOON).await;
    state.assert_nothing_left();
}

#[tokio::test]
async fn a_stubborn_one_is_killed_after_the_grace() {
    let state = State::new();
    let (chromium, _pipe) = state.ready(fake(&["stubborn"])).await;
    let exited = chromium.exited();
    let begun = Instant::now();
    chromium.close(Duration::from_millis(200)).await;
    assert!((200..5000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!(exited.await.status().unwrap().signal(), Some(9));
    state.assert_nothing_left();
}

#[tokio::test]
async fn one_that_dies_in_a_command_ends_the_pipe() {
    for mode in ["die:Page.enable", "die-after:2"] {
        let state = State::new();
        let (chromium, mut pipe) = state.ready(fake(&[mode])).await;
        ask(&mut pipe, "Target.getTargets", json!({})).await;
        pipe.writer.write_all(b"{\"id\":9,\"method\":\"Page.enable\"}\0").await.unwrap();
        assert!(next_message(&mut pipe).await.is_none());
        let exit = tokio::time::timeout(SOON, chromium.exited()).await.unwrap();
        assert_eq!(exit.status().unwrap().signal(), Some(9));
        assert!(exit.stderr().contains("told to die"));
    }
}

#[tokio::test]
async fn one_that_hangs_in_a_command_still_answers_the_others() {
    let state = State::new();
    let (_chromium, mut pipe) = state.ready(fake(&["hang:Target.createTarget"])).await;
    let asked = ask(&mut pipe, "Target.createTarget", json!({ "url": "about:blank" }));
    assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err());
    assert!(ask(&mut pipe, "Browser.getVersion", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn a_hundred_that_fail_leave_nothing() {
    let state = State::new();
    for _ in 0..100 {
        let (chromium, pipe) = state.launch(fake(&["exit"])).await;
        drop((chromium, pipe));
    }
    assert!(comes_true(SOON, || state.litter().is_empty() && state.processes().is_empty()).await);
    assert_eq!(zombies(), 0);
}
