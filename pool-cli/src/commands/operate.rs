//! `pool-cli resize`, `reload`, `drain`, `undrain`, `profile` and `lease`: changes to a pool that runs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Killed, Lease, MadeNew, MakeNew, Node, Reloaded, Resize, Resized};
use crate::client::{Client, ClientArgs};
use crate::exit::Failure;
use crate::stdout::{self, Table};

/// Arguments of `resize`.
#[derive(Debug, clap::Args)]
pub struct ResizeArgs {
    /// Minimum number of browsers without a profile or region; by default unchanged.
    #[arg(long, value_name = "N", required_unless_present = "max_size")]
    min_size: Option<usize>,
    /// Maximum number of browsers; by default unchanged.
    #[arg(long, value_name = "N")]
    max_size: Option<usize>,
    #[command(flatten)]
    pool: ClientArgs,
}

/// Changes the number of browsers of a pool, until it is restarted or reloaded. Leases go on.
///
/// # Errors
///
/// If no pool answers, or the sizes contradict each other.
pub fn resize(args: &ResizeArgs) -> Result<(), Failure> {
    let wanted = Resize { min_size: args.min_size, max_size: args.max_size };
    let client = args.pool.client()?;
    let sizes: Option<Resized> = client.post("/api/resize", &wanted, Duration::from_secs(10))?;
    match sizes {
        Some(sizes) => {
            stdout::print(&format!("{} to {} browsers\n", sizes.min_size, sizes.max_size))
        }
        None => Ok(()),
    }
}

/// Arguments of `reload`.
#[derive(Debug, clap::Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    pool: ClientArgs,
}

/// Makes a pool read its configuration again, as SIGHUP does, and prints the outcome.
///
/// # Errors
///
/// The mistakes in the new configuration; the pool then goes on with the old one.
pub fn reload(args: &ReloadArgs) -> Result<(), Failure> {
    let client = args.pool.client()?;
    let reloaded: Option<Reloaded> =
        client.post("/api/reload", &json!({}), Duration::from_secs(30))?;
    let Some(Reloaded { changed, needs_restart }) = reloaded else { return Ok(()) };
    let mut text = String::new();
    for (what, keys) in [("changed", &changed), ("needs a restart", &needs_restart)] {
        for key in keys {
            text.push_str(&format!("{what}: {key}\n"));
        }
    }
    if text.is_empty() {
        text.push_str("nothing has changed\n");
    }
    stdout::print(&text)
}

/// Arguments of `drain`.
#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    /// Drain this node of the fleet: it stops offering browsers to other nodes, but keeps running.
    /// By default the pool at the address is drained, and then ends.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    pool: ClientArgs,
}

/// Makes a pool refuse new leases, let the held ones finish, and end, as SIGTERM does; or makes a
/// node of its fleet stop offering browsers.
///
/// # Errors
///
/// If no pool answers, or it refuses.
pub fn drain(args: &DrainArgs) -> Result<(), Failure> {
    let client = args.pool.client()?;
    if let Some(node) = &args.node {
        return change_node(&client, node, "drain");
    }
    client.post::<()>("/api/drain", &json!({}), Duration::from_secs(10))?;
    anstream::eprintln!(
        "the pool is draining: it ends with its last lease, or when the grace period is over"
    );
    Ok(())
}

/// Arguments of `undrain`.
#[derive(Debug, clap::Args)]
pub struct UndrainArgs {
    /// The node of the fleet.
    #[arg(long, value_name = "NAME")]
    node: String,
    #[command(flatten)]
    pool: ClientArgs,
}

/// Makes a node of the fleet offer browsers to other nodes again.
///
/// # Errors
///
/// If no pool answers, or it refuses.
pub fn undrain(args: &UndrainArgs) -> Result<(), Failure> {
    change_node(&args.pool.client()?, &args.node, "undrain")
}

/// Writes a name as a part of a path.
fn encoded(name: &str) -> percent_encoding::PercentEncode<'_> {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC)
}

fn change_node(client: &Client, node: &str, change: &str) -> Result<(), Failure> {
    let path = format!("/api/fleet/{}/{change}", encoded(node));
    let node: Option<Node> = client.post(&path, &json!({}), Duration::from_secs(10))?;
    let Some(Node { name, phase, leased, .. }) = node else { return Ok(()) };
    stdout::print(&format!("{name}: {phase}, {leased} leased\n"))
}

/// Subcommands about the profiles that travel between the nodes of a fleet.
#[derive(Debug, clap::Subcommand)]
pub enum ProfileArgs {
    /// Make a profile new if its content is lost or damaged: its next lease begins without a login.
    MakeNew(MakeNewArgs),
}

/// Arguments of `profile make-new`.
#[derive(Debug, clap::Args)]
pub struct MakeNewArgs {
    /// The profile. It is left as it is if anybody holds it, or if there is a copy of it.
    #[arg(value_name = "NAME")]
    profile: String,
    /// Which of its states, for a profile with a `max_size` of more than 1.
    #[arg(long, value_name = "N", default_value_t = 0)]
    instance: u32,
    /// Discard any existing content, because it is damaged or no longer wanted.
    #[arg(long)]
    discard: bool,
    #[command(flatten)]
    pool: ClientArgs,
}

/// Time within which a node says whether a profile is lost: it waits for a holder that may be dead.
const MADE_NEW: Duration = Duration::from_secs(30);

/// Changes a profile that travels.
///
/// # Errors
///
/// If no pool answers, or the profile stays as it is.
pub fn profile(args: &ProfileArgs) -> Result<(), Failure> {
    let ProfileArgs::MakeNew(MakeNewArgs { profile, instance, discard, pool }) = args;
    let path = format!("/api/profiles/{}/make-new", encoded(profile));
    let body = MakeNew { instance: *instance, discard: *discard };
    let made = pool.client()?.post(&path, &body, MADE_NEW)?;
    let Some(MadeNew { profile, instance }) = made else { return Ok(()) };
    stdout::print(&match instance {
        0 => format!("{profile} is new\n"),
        _ => format!("{profile}, state {instance}, is new\n"),
    })
}

/// Subcommands about the leases that clients hold.
#[derive(Debug, clap::Subcommand)]
pub enum LeaseArgs {
    /// List the leases, oldest first.
    List(ListArgs),
    /// End leases; their clients receive the reason.
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
    /// The id of a lease or the beginning of one, a tracking id, or "all".
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    pool: ClientArgs,
}

/// Lists or ends the leases of a running pool.
///
/// # Errors
///
/// If no pool answers, or there is no such lease.
pub fn lease(args: &LeaseArgs) -> Result<(), Failure> {
    match args {
        LeaseArgs::List(args) => list(args),
        LeaseArgs::Kill(args) => kill(args),
    }
}

/// The leases of a pool, and of all nodes if it is in a fleet.
const SESSIONS: &str = "/sessions?scope=fleet";

fn list(args: &ListArgs) -> Result<(), Failure> {
    let client = args.pool.client()?;
    if args.json {
        let sessions: Value = client.get(SESSIONS)?;
        return stdout::print(&format!("{sessions:#}\n"));
    }
    let sessions: Vec<Lease> = client.get(SESSIONS)?;
    let mut rows =
        Table::new(["lease", "browser", "kind", "class", "held", "silent", "conns", "who"]);
    for session in sessions {
        let who: Vec<String> = session.tenant.into_iter().chain(session.tracking_id).collect();
        rows.add([
            session.id,
            session.browser_id.to_string(),
            session.kind.into_owned(),
            session.class,
            stdout::duration(session.time_alive_ms),
            stdout::duration(session.idle_ms),
            session.connections.to_string(),
            who.join(" "),
        ]);
    }
    stdout::print(&rows.to_string())
}

fn kill(args: &KillArgs) -> Result<(), Failure> {
    let client = args.pool.client()?;
    let sessions: Vec<Lease> = client.get(SESSIONS)?;
    // As with commits, the beginning of an id will do if it is unique.
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
