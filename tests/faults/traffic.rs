//! F04, F28, F50, F51: much at once, both ways, and clients that are slow to take it.

use std::time::Duration;

use browser_pool_tests::process::ProcessId;
use browser_pool_tests::{
    Case, Cdp, Home, LeaseKind, Page, Script, Setup, case, case_alone, eventually, for_both_kinds,
    rounds,
};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use crate::support::until_released;

for_both_kinds!(
    f04_client_stops_reading_while_the_page_floods,
    f28_memory_comes_back_after_large_answers,
    f50_huge_messages_arrive_and_cost_no_more_than_twice_their_size,
    f50_a_message_over_the_limit_ends_with_a_code_that_arrives,
    f51_a_client_that_is_busy_is_held_back_and_not_cut,
);

const MB: usize = 1_000_000;

async fn f04_client_stops_reading_while_the_page_floods(kind: LeaseKind) {
    const BUFFER_KIB: u64 = 64 * 1024;
    // What a busy allocator keeps.
    const MORE_KIB: u64 = 32 * 1024;
    let setup = Setup::new().kind(kind).set("gateway.buffer", "64MiB");
    case(setup, async |case| {
        let neighbour = case.service.connect("/").await;
        let calm = neighbour.page("about:blank").await;
        let deaf = Cdp::open_narrow(&case.service.address, "/?trackingId=deaf").await;
        let deaf = deaf.expect("a lease is free");
        let page = deaf.page("about:blank").await;
        page.call("Runtime.enable", json!({})).await.expect("the page answers");
        let before = case.service.process.status("VmRSS").expect("it runs");
        let flood = json!({ "url": case.site.at("/flood.html?bytes=10000") });
        page.call("Page.navigate", flood).await.expect("the page answers");
        deaf.read_on(false);
        let began = Instant::now();

        let mut peak = before;
        eventually("the lease of the deaf client is over", Duration::from_secs(60), async || {
            peak = peak.max(case.service.process.status("VmRSS").expect("it runs"));
            assert_eq!(calm.eval("42").await, 42, "the neighbour is served");
            let sessions = case.service.sessions().await;
            let held = sessions.iter().any(|session| session["trackingId"] == "deaf");
            if held { Err(peak) } else { Ok(()) }
        })
        .await;
        let held = began.elapsed();
        println!("cut after {held:?}; {before} KiB became {peak} KiB");
        if kind == LeaseKind::Exclusive {
            assert!(held >= Duration::from_secs(30), "cut after {held:?}: it could be held back");
        }
        assert!(peak <= before + BUFFER_KIB + MORE_KIB, "{before} KiB became {peak} KiB");
        case.service.until_ended("slow_reader", |ended| ended == 1.0).await;

        // It is told when it reads again.
        deaf.read_on(true);
        let closed = deaf.closed(Duration::from_secs(10)).await;
        assert_eq!(closed.code, 1008, "{closed:?}");
        assert!(closed.reason.starts_with("slow_reader"), "{closed:?}");
        neighbour.close().await;
        until_released(&case.service, Duration::from_secs(5)).await;
    })
    .await;
}

/// An answer of so many bytes.
async fn large_answer(page: &Page<'_>, bytes: usize) {
    let answer = page.eval(&format!("'x'.repeat({bytes})")).await;
    assert_eq!(answer.as_str().map(str::len), Some(bytes));
}

async fn f28_memory_comes_back_after_large_answers(kind: LeaseKind) {
    const KEPT_KIB: u64 = 10 * 1024;
    case_alone(Home::new(), Setup::new().kind(kind), async |case| {
        let case: &Case = case;
        let client = case.service.connect("/").await;
        let page = client.page("about:blank").await;
        large_answer(&page, 1000).await;
        let resident = || case.service.process.status("VmRSS").expect("it runs");
        let before = resident();
        let back = async |what: &str| {
            let page = &page;
            let taken = eventually(what, Duration::from_secs(10), async || {
                // Small ones go on meanwhile, on the same connection.
                large_answer(page, 1000).await;
                let after = resident();
                if after <= before + KEPT_KIB { Ok(()) } else { Err((before, after)) }
            })
            .await;
            println!("{what}: back after {taken:.1?}, {before} KiB are {} KiB", resident());
        };
        for _ in 0..3 {
            large_answer(&page, 60 * MB).await;
        }
        back("three of 60 MB").await;
        large_answer(&page, 150 * MB).await;
        back("one of 150 MB").await;
        // Of the size at which an allocator keeps what it gets back.
        for size in [9 * MB, 6 * MB, 500_000] {
            join_all((0..80 * MB / size).map(|_| large_answer(&page, size))).await;
        }
        back("many of a few MB").await;
        for size in [9 * MB, 6 * MB, 500_000] {
            let command = format!("'{}'.length", "x".repeat(size));
            join_all((0..80 * MB / size).map(|_| page.eval(&command))).await;
        }
        back("many commands of a few MB").await;
        let text = "x".repeat(99 * MB);
        assert_eq!(page.eval(&format!("'{text}'.length")).await, 99 * MB);
        drop(text);
        back("a command of 99 MB").await;
        // Small ones share the heap with everything else, where one piece in use can keep all below it, so as many as
        // wait at once may stay; but not those of each time.
        for _ in 0..20 {
            join_all((0..400).map(|_| large_answer(&page, 20_000))).await;
        }
        back("many of 20 kB, again and again").await;
        client.close().await;
    })
    .await;
}

/// The most memory that a process had while something was done, beyond what it had before, in
/// bytes.
async fn peak(process: ProcessId, does: impl Future<Output = ()>) -> usize {
    let status = |field| process.status(field).expect("it runs");
    let reset = std::fs::write(format!("/proc/{}/clear_refs", process.pid), "5");
    reset.expect("the peak of our own process can be reset");
    let before = status("VmRSS");
    does.await;
    usize::try_from(status("VmHWM").saturating_sub(before) * 1024).expect("it fits")
}

async fn f50_huge_messages_arrive_and_cost_no_more_than_twice_their_size(kind: LeaseKind) {
    // Of the machinery around them.
    const MORE: usize = 8 * MB;
    case_alone(Home::new(), Setup::new().kind(kind), async |case| {
        let case: &Case = case;
        let client = case.service.connect("/").await;
        let page = client.page("about:blank").await;
        let command = async |size: usize| {
            let text = "x".repeat(size);
            assert_eq!(page.eval(&format!("'{text}'.length")).await, size);
        };
        let answer = async |size: usize| large_answer(&page, size).await;
        let both = async |size: usize| {
            let text = "x".repeat(size);
            let same = page.eval(&format!("'{text}'")).await;
            assert_eq!(same.as_str().map(str::len), Some(size));
        };
        let process = case.service.process;
        let mut costs = Vec::new();
        costs.push(("a command of 99 MB", 99 * MB, peak(process, command(99 * MB)).await));
        costs.push(("an answer of 99 MB", 99 * MB, peak(process, answer(99 * MB)).await));
        let several = async {
            join_all((0..3).map(|_| both(20 * MB))).await;
        };
        costs.push(("three of 20 MB both ways", 120 * MB, peak(process, several).await));
        for (what, size, cost) in costs {
            println!("{what} cost {} MB", cost / MB);
            assert!(cost <= 2 * size + MORE, "{what} cost {cost} bytes");
        }
        assert!(client.has_closed().is_none());
        client.close().await;
    })
    .await;
}

/// Runs rows of the script with large messages, and returns once all have passed.
async fn big(case: &Case, rows: &str, times: usize) {
    let url = case.service.url("/");
    let script =
        Script::new("big.mjs").args([&url, "--rounds", &times.to_string(), "--only", rows]);
    let outcome = script.run(Duration::from_secs(600)).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    for line in &outcome.lines {
        println!("{line}");
    }
    let failed: Vec<_> = outcome.lines.iter().filter(|line| line["ok"] != true).collect();
    assert!(!outcome.lines.is_empty() && failed.is_empty(), "{failed:?}");
}

async fn f50_a_message_over_the_limit_ends_with_a_code_that_arrives(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        big(case, "a command of 106 MB", rounds(3, 21)).await;
        // Of a client that writes it to the end before it reads anything, too.
        let client = case.service.connect("/").await;
        let page = client.page("about:blank").await;
        client.read_on(false);
        let params = json!({ "expression": "x".repeat(106 * MB) });
        let _ = client.begin(Some(&page.session), "Runtime.evaluate", params).await;
        client.read_on(true);
        let closed = client.closed(Duration::from_secs(20)).await;
        assert_eq!(closed.code, 1009, "{closed:?}");
        until_released(&case.service, Duration::from_secs(10)).await;
    })
    .await;
}

async fn f51_a_client_that_is_busy_is_held_back_and_not_cut(kind: LeaseKind) {
    const ROWS: &str = "two of 20 MB,four of 9 MB,eight of 6 MB,busy for 3 s";
    case_alone(Home::new(), Setup::new().kind(kind), async |case| {
        big(case, ROWS, rounds(2, 21)).await;
        let cut = case.service.metric("browserpool_leases_ended_total", "slow_reader").await;
        assert_eq!(cut, 0.0);
    })
    .await;
}
