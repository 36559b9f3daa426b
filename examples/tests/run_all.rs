//! Every example runs as a reader would run it, and prints what it says it does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;

/// What an example prints.
fn run(example: &str) -> String {
    let output = Command::new(built(example))
        .timeout(Duration::from_secs(120))
        .output()
        .expect("an example that is there can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{example} failed: {}", text(&output.stderr));
    text(&output.stdout)
}

/// An example that was built beside this test, as `cargo test` does unless it is told what to test.
fn built(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test runs from a file");
    let profile = test.ancestors().nth(2).expect("tests are built into <profile>/deps");
    let program = profile.join("examples").join(example);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(example).with_extension("rs");
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    // None is less than any time: what is not built is too old.
    let current = changed(&program) >= changed(&source);
    assert!(current, "{} is not built as it is: cargo build --examples", program.display());
    program
}

/// Asserts that each line stands in the output, in this order.
#[track_caller]
fn assert_lines<'a>(output: &str, lines: impl IntoIterator<Item = &'a str>) {
    let mut rest = output;
    for line in lines {
        let Some(at) = rest.find(line) else { panic!("{line:?} is missing in:\n{output}") };
        rest = &rest[at + line.len()..];
    }
}

#[test]
fn quick_start_serves_eight_jobs_in_turn_with_two_presses() {
    let output = run("quick_start");
    let jobs: Vec<String> = (1..=8).map(|job| format!("job {job} printed on press")).collect();
    assert_lines(&output, jobs.iter().map(String::as_str));
    assert_lines(&output, ["and 2 presses", "a third one at once: no resource was free within"]);
}

#[test]
fn titles_reads_twelve_pages_with_two_browsers() {
    let output = run("titles");
    let titles: Vec<String> = (1..=12).map(|page| format!("Page {page} of 12!")).collect();
    assert_lines(&output, titles.iter().map(String::as_str));
    assert_lines(&output, ["12 pages in", "12 leases of 2 browsers"]);
}

#[test]
fn tenants_are_served_by_their_shares_and_held_to_their_limits() {
    let output = run("tenants");
    assert_lines(&output, ["modest has 1 lease, and may not have more", "large got", "small got"]);
    let (_, ratio) = output.rsplit_once("large got ").expect("the last line");
    let ratio: f64 = ratio.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
    assert!((3.5..=4.5).contains(&ratio), "{output}");
}

#[test]
fn custom_policy_serves_small_jobs_first_and_holds_tenants_to_their_allowance() {
    assert_lines(
        &run("custom_policy"),
        [
            "small jobs first: a thumbnail, an icon, a report",
            "ada has two rooms and asks for another: no resource was free",
            "ada: ada has used",
            "bob: here is room 3 of tenant=bob",
            "eve: there is no tenant \"eve\"",
        ],
    );
}

#[test]
fn tenant_report_tells_who_holds_and_who_waited_by_the_labels_of_requests() {
    let output = run("tenant_report");
    assert_lines(
        &output,
        [
            "eve: no resource was free",
            "ada: holds 1, had 2, waited ",
            "bob: holds 1, had 1, waited ",
            "eve: holds 0, had 0, waited 0 ms in all, refused 1",
        ],
    );
    // Ada did not queue, yet even an idle room is looked at before it is leased: that may take a while.
    let (_, bob) = output.split_once("bob: holds 1, had 1, waited ").expect("bob's line");
    let waited: u64 = bob.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
    assert!(waited >= 50, "the example keeps bob waiting for 50 ms: {output}");
}

#[test]
fn priorities_serves_the_urgent_first_and_the_patient_too() {
    assert_lines(
        &run("priorities"),
        [
            "priority 1\n  priority 9",
            "served: customer, crawler 1, crawler 2, crawler 3, crawler 4, crawler 5",
            "crawler was served after",
        ],
    );
}

#[test]
fn profiles_stays_logged_in_over_leases_and_a_restart_and_nowhere_else() {
    assert_lines(
        &run("profiles"),
        [
            "log in with profile work: welcome",
            "the next lease of work:   hello, ada",
            "profile private:          hello, stranger",
            "no profile:               hello, stranger",
            "a profile misspelt:       there is no profile \"wrok\"",
            "work after a restart:     hello, ada",
        ],
    );
}

#[test]
fn geo_proxy_goes_through_the_region_or_nowhere() {
    let output = run("geo_proxy");
    assert_lines(
        &output,
        [
            "eu-west: shop.example as eu-west sees it",
            "us-east: shop.example as us-east sees it",
            "ap-south: shop.example as us-east sees it",
            "af-north: no resource can be created at present: every proxy of region",
            "the-moon: there is no region \"the-moon\"",
            "a proxy of af-north is out of service",
            "a proxy of eu-west is in service",
        ],
    );
    assert!(!output.contains("secret"), "the password is printed");
}
