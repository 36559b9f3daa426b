//! `pool-cli lease list` and `pool-cli lease kill`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::ClientArgs;
use crate::exit::Failure;
use crate::table::Table;
use crate::{stdout, table};

/// Subcommands about the leases that clients hold.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// List the leases, oldest first.
    List(ListArgs),
    /// End leases; their clients are told why.
    Kill(KillArgs),
}

/// Arguments of `lease list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Print the JSON of /sessions.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pool: ClientArgs,
}

/// Arguments of `lease kill`.
#[derive(Debug, clap::Args)]
pub struct KillArgs {
    /// The id of a lease or its beginning, a tracking id, or "all".
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    pool: ClientArgs,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    id: String,
    browser_id: u64,
    tracking_id: Option<String>,
    tenant: Option<String>,
    kind: String,
    class: String,
    time_alive_ms: u64,
    idle_ms: u64,
    connections: usize,
}

#[derive(Deserialize)]
struct Killed {
    killed: usize,
}

/// Lists or ends the leases of a pool that runs.
///
/// # Errors
///
/// If no pool answers, or there is no such lease.
pub fn run(args: &Args) -> Result<(), Failure> {
    match args {
        Args::List(args) => list(args),
        Args::Kill(args) => kill(args),
    }
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let client = args.pool.client()?;
    if args.json {
        let sessions: Value = client.get("/sessions")?;
        return stdout::print(&format!("{sessions:#}\n"));
    }
    let sessions: Vec<Session> = client.get("/sessions")?;
    let mut rows =
        Table::new(["lease", "browser", "kind", "class", "held", "silent", "conns", "who"]);
    for session in sessions {
        let who: Vec<String> = session.tenant.into_iter().chain(session.tracking_id).collect();
        rows.add([
            session.id,
            session.browser_id.to_string(),
            session.kind,
            session.class,
            table::duration(session.time_alive_ms),
            table::duration(session.idle_ms),
            session.connections.to_string(),
            who.join(" "),
        ]);
    }
    stdout::print(&rows.to_string())
}

fn kill(args: &KillArgs) -> Result<(), Failure> {
    let client = args.pool.client()?;
    let sessions: Vec<Session> = client.get("/sessions")?;
    // As with commits, the beginning will do where only one begins like that.
    let mut of_prefix = sessions.iter().filter(|session| session.id.starts_with(&args.id));
    let id = match (of_prefix.next(), of_prefix.next()) {
        (Some(only), None) => &only.id,
        _ => &args.id,
    };
    let path = format!("/api/leases/{id}/kill");
    let killed: Option<Killed> = client.post(&path, &json!({}), Duration::from_secs(10))?;
    let killed = killed.map_or(0, |killed| killed.killed);
    stdout::print(&format!(
        "{killed} {}\n",
        if killed == 1 { "lease ended" } else { "leases ended" }
    ))
}
