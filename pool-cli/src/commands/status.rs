//! `pool-cli status`.

use std::fmt::Write;

use serde_json::Value;

use crate::api::{Browser, Fleet, Holder, Node, State, Tenant, Waiter};
use crate::client::{Client, ClientArgs};
use crate::exit::{Failure, Signals};
use crate::stdout::{self, Table};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the JSON of /api/state.
    #[arg(long)]
    json: bool,
    /// Refresh every second until a signal such as Ctrl-C; with --json, print a line each time.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    pool: ClientArgs,
}

/// Waiters on one screen.
const WAITERS: usize = 10;

/// Nodes on one screen.
const NODES: usize = 40;

/// Errors on one screen.
const ERRORS: usize = 3;

/// Shows the status of a running pool on one screen.
///
/// # Errors
///
/// If no pool answers; with `--watch`, also if the pool ends.
pub fn run(args: &Args) -> Result<(), Failure> {
    let client = args.pool.client()?;
    if args.watch {
        return watch(client, args.json);
    }
    stdout::print(&if args.json {
        format!("{:#}\n", client.get::<Value>("/api/state")?)
    } else {
        screen(&client.get("/api/state")?)?
    })
}

/// Shows each new state until a signal ends it.
fn watch(client: Client, json: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let shown = tokio::task::spawn_blocking(move || show_all(&client, json));
        tokio::select! {
            outcome = shown => outcome?,
            _ = signals.next() => Ok(()),
        }
    });
    // The thread may be waiting for the pool's next state; nobody waits for that.
    runtime.shutdown_background();
    outcome
}

fn show_all(client: &Client, json: bool) -> Result<(), Failure> {
    for state in client.stream()? {
        let state = state?;
        // One line each, for programs that read lines.
        let more = if json {
            stdout::offer(&format!("{state}\n"))?
        } else {
            stdout::redraw(&screen(&serde_json::from_str(&state)?)?)?
        };
        if more.is_break() {
            return Ok(());
        }
    }
    Err(Failure::new(format!("the pool at {} has ended", client.address())))
}

fn screen(state: &State) -> Result<String, Failure> {
    let State { load, counters, wait, .. } = state;
    let mut text = String::new();
    let draining = if state.draining { ", draining" } else { "" };
    writeln!(
        text,
        "pool {:?}, version {}, up {}{draining}",
        state.pool,
        state.version,
        stdout::duration(state.uptime_ms)
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
        stdout::mebibytes(state.memory_bytes)
    )?;
    writeln!(
        text,
        "clients   {} waiting; wait over the last minute: mean {:.0} ms, p95 {:.0} ms",
        load.waiting, wait.avg_ms, wait.p95_ms
    )?;
    writeln!(
        text,
        "totals    {} leases, {} timeouts, {} refused, {} failed\n",
        counters.acquired, counters.timeouts, counters.rejected, counters.errors
    )?;
    if let Some(fleet) = &state.fleet {
        writeln!(text, "{}", nodes(fleet)?)?;
    }
    text.push_str(&browsers(&state.browsers).to_string());
    if !state.tenants.is_empty() {
        write!(text, "\n{}", tenants(&state.tenants))?;
    }
    if !state.waiters.is_empty() {
        write!(text, "\n{}", waiters(&state.waiters))?;
    }
    for error in state.errors.iter().take(ERRORS) {
        write!(text, "\n{}", error.line())?;
    }
    if !state.errors.is_empty() {
        text.push('\n');
    }
    Ok(text)
}

/// Returns the table of the nodes, below any problems of the fleet.
fn nodes(fleet: &Fleet) -> Result<String, Failure> {
    let mut text = String::new();
    if !fleet.connected {
        writeln!(text, "{} is alone: NATS is {}\n", fleet.node, fleet.connection)?;
    }
    let header = [
        "node", "phase", "places", "leased", "idle", "waiting", "memory", "age", "version",
        "address",
    ];
    let mut rows = Table::new(header);
    for node in fleet.nodes.iter().take(NODES) {
        let Node { name, own, phase, places, leased, idle, waiting, .. } = node;
        rows.add([
            format!("{name}{}", if *own { " *" } else { "" }),
            phase.to_string(),
            places.to_string(),
            leased.to_string(),
            idle.to_string(),
            waiting.to_string(),
            node.memory.map_or("-".to_owned(), |percent| format!("{percent} %")),
            stdout::duration(node.uptime_ms),
            node.version.clone(),
            node.address.clone(),
        ]);
    }
    write!(text, "{rows}")?;
    match fleet.nodes.len().saturating_sub(NODES) {
        0 => {}
        more => writeln!(text, "and {more} more: pool-cli status --json")?,
    }
    Ok(text)
}

fn browsers(browsers: &[Browser]) -> Table<8> {
    let mut rows = Table::new(["browser", "state", "for", "class", "age", "uses", "memory", "who"]);
    for browser in browsers {
        rows.add([
            browser.id.to_string(),
            browser.state.to_string(),
            stdout::duration(browser.since_ms),
            browser.class.clone(),
            stdout::duration(browser.age_ms),
            browser.uses.to_string(),
            browser.memory_bytes.map(stdout::mebibytes).unwrap_or_default(),
            browser.lease.as_ref().map(Holder::who).unwrap_or_default(),
        ]);
    }
    rows
}

fn tenants(tenants: &[Tenant]) -> Table<7> {
    let header = ["tenant", "leased", "waiting", "share", "leases", "failed", "browser time"];
    let mut rows = Table::new(header);
    for tenant in tenants {
        rows.add([
            tenant.name.clone(),
            tenant.held(),
            tenant.waiting.to_string(),
            tenant.share.to_string(),
            tenant.leases.to_string(),
            tenant.failures.to_string(),
            tenant.time(),
        ]);
    }
    rows
}

fn waiters(waiters: &[Waiter]) -> Table<5> {
    let mut rows = Table::new(["place", "priority", "class", "waited", "tenant"]);
    for waiter in waiters.iter().take(WAITERS) {
        rows.add([
            waiter.position.to_string(),
            waiter.priority.map(|priority| priority.to_string()).unwrap_or_default(),
            waiter.wanted(),
            stdout::duration(waiter.waited_ms),
            waiter.tenant.clone().unwrap_or_default(),
        ]);
    }
    rows
}
