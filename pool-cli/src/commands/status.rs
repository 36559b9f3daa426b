//! `pool-cli status`.

use std::fmt::Write;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, ClientArgs};
use crate::exit::Failure;
use crate::stdout;
use crate::table::{self, Table};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON, as /api/state has it.
    #[arg(long)]
    json: bool,
    /// Show it anew every second until a signal ends it.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    pool: ClientArgs,
}

#[derive(Deserialize)]
struct State {
    pool: String,
    version: String,
    uptime_ms: u64,
    draining: bool,
    load: Load,
    counters: Counters,
    wait: Wait,
    memory_bytes: u64,
    browsers: Vec<Browser>,
    waiters: Vec<Waiter>,
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Load {
    idle: usize,
    leased: usize,
    waiting: usize,
    total: usize,
    min_size: usize,
    max_size: usize,
    utilization: f64,
}

#[derive(Deserialize)]
struct Counters {
    acquired: u64,
    timeouts: u64,
    rejected: u64,
    errors: u64,
}

#[derive(Deserialize)]
struct Wait {
    avg_ms: f64,
    p95_ms: f64,
}

#[derive(Deserialize)]
struct Browser {
    id: u64,
    class: String,
    state: String,
    since_ms: u64,
    age_ms: u64,
    uses: u64,
    memory_bytes: Option<u64>,
    lease: Option<Holder>,
}

#[derive(Deserialize)]
struct Holder {
    peer: Option<String>,
    tenant: Option<String>,
    tracking_id: Option<String>,
}

#[derive(Deserialize)]
struct Waiter {
    position: usize,
    class: String,
    priority: Option<u8>,
    waited_ms: u64,
}

#[derive(Deserialize)]
struct Entry {
    event: String,
    reason: Option<String>,
}

/// Waiters on one screen.
const WAITERS: usize = 10;

/// Errors on one screen.
const ERRORS: usize = 3;

/// Shows how a pool does, on one screen.
///
/// # Errors
///
/// If no pool answers.
pub fn run(args: &Args) -> Result<(), Failure> {
    let client = args.pool.client()?;
    loop {
        let text = if args.json {
            let state: Value = client.get("/api/state")?;
            // One line each while it is watched, for programs that read lines.
            if args.watch { format!("{state}\n") } else { format!("{state:#}\n") }
        } else {
            screen(&client)?
        };
        if !args.watch {
            return stdout::print(&text);
        }
        let home = if args.json { "" } else { "\x1b[H\x1b[2J" };
        stdout::print(&format!("{home}{text}"))?;
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn screen(client: &Client) -> Result<String, Failure> {
    let state: State = client.get("/api/state")?;
    let State { load, counters, wait, .. } = &state;
    let mut text = String::new();
    let draining = if state.draining { ", draining" } else { "" };
    writeln!(
        text,
        "pool {:?}, version {}, up {}{draining}",
        state.pool,
        state.version,
        table::duration(state.uptime_ms)
    )?;
    writeln!(
        text,
        "browsers  {} of {} ({} kept): {} leased, {} idle; {:.0} % used, {}",
        load.total,
        load.max_size,
        load.min_size,
        load.leased,
        load.idle,
        load.utilization * 100.0,
        table::mebibytes(state.memory_bytes)
    )?;
    writeln!(
        text,
        "clients   {} wait; the last minute's waited {:.0} ms, 95 % less than {:.0} ms",
        load.waiting, wait.avg_ms, wait.p95_ms
    )?;
    writeln!(
        text,
        "so far    {} leases, {} timeouts, {} refused, {} failed\n",
        counters.acquired, counters.timeouts, counters.rejected, counters.errors
    )?;
    text.push_str(&browsers(&state.browsers).to_string());
    if !state.waiters.is_empty() {
        write!(text, "\n{}", waiters(&state.waiters))?;
    }
    for error in state.errors.iter().take(ERRORS) {
        write!(text, "\n{}: {}", error.event, error.reason.as_deref().unwrap_or_default())?;
    }
    if !state.errors.is_empty() {
        text.push('\n');
    }
    Ok(text)
}

fn browsers(browsers: &[Browser]) -> Table<8> {
    let mut rows = Table::new(["browser", "state", "for", "class", "age", "uses", "memory", "who"]);
    for browser in browsers {
        let who = browser.lease.as_ref().map(|holder| {
            let names = [&holder.tenant, &holder.tracking_id, &holder.peer];
            let names: Vec<&str> = names.into_iter().filter_map(|name| name.as_deref()).collect();
            names.join(" ")
        });
        rows.add([
            browser.id.to_string(),
            browser.state.clone(),
            table::duration(browser.since_ms),
            browser.class.clone(),
            table::duration(browser.age_ms),
            browser.uses.to_string(),
            browser.memory_bytes.map(table::mebibytes).unwrap_or_default(),
            who.unwrap_or_default(),
        ]);
    }
    rows
}

fn waiters(waiters: &[Waiter]) -> Table<4> {
    let mut rows = Table::new(["place", "priority", "class", "waited"]);
    for waiter in waiters.iter().take(WAITERS) {
        rows.add([
            waiter.position.to_string(),
            waiter.priority.map(|priority| priority.to_string()).unwrap_or_default(),
            waiter.class.clone(),
            table::duration(waiter.waited_ms),
        ]);
    }
    rows
}
