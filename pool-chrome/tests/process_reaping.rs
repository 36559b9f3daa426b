//! A pool that is process 1 of a container, or a subreaper, inherits the helpers of dead browsers.
//!
//! One test, in a file of its own: what it sets holds for the whole process.

mod process_support;

use pool_chrome::process::LaunchOptions;
use process_support::{
    ENGINES, SOON, State, ask, comes_true, group_of, parent_of, pids, signal, zombies,
};
use rustix::process::{Signal, getpid, set_child_subreaper};
use serde_json::json;

#[tokio::test]
async fn orphans_of_a_browser_do_not_stay_zombies() {
    set_child_subreaper(Some(getpid())).unwrap();
    for engine in ENGINES {
        let state = State::new();
        for _ in 0..3 {
            let (chromium, mut pipe) = state.ready(LaunchOptions::new().engine(engine)).await;
            ask(&mut pipe, "Target.createTarget", json!({ "url": "about:blank" })).await;
            let browser = chromium.pid();

            // A zygote dies: what it has started becomes ours.
            let mut zygote = None;
            let found = comes_true(SOON, || {
                zygote = pids().find(|pid| {
                    parent_of(*pid) == Some(browser)
                        && group_of(*pid) == Some(browser)
                        && pids().any(|child| parent_of(child) == Some(*pid))
                });
                zygote.is_some()
            });
            assert!(found.await, "there is a zygote with children");
            signal(zygote.unwrap(), Signal::KILL);
            assert!(comes_true(SOON, || zombies() == 0).await, "{engine:?}: while it runs");

            signal(browser, Signal::KILL);
            chromium.close(SOON).await;
            assert!(comes_true(SOON, || zombies() == 0).await, "{engine:?}: after its death");
            state.assert_nothing_left();
        }
    }
}
