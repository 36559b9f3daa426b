//! `pool-cli doctor`.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use bytesize::ByteSize;
use pool_chrome::ChromeError;
use pool_chrome::process::{self, Chromium, LaunchOptions, NoCgroup, StateDir, delegated_cgroup};
use pool_fleet::{NatsTransport, Transport, TransportError};
use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use ureq::Agent;

use crate::config::{Config, ConfigArgs, Engine, FleetConfig, Limits, Sandbox, machine};
use crate::exit::{self, Failure};
use crate::fleet::namesake;
use crate::stdout;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON: whether all is well, and a list of checks with verdict, finding and remedy.
    #[arg(long)]
    json: bool,
}

/// Checks everything that a pool needs from its machine, and suggests remedies.
///
/// A browser is really launched, in a directory of its own, and asked for its version. In a fleet,
/// it connects to the NATS server, and looks for the node at its own address.
///
/// # Errors
///
/// Exit code 1 when something would keep the pool from working.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (config, configuration) = configuration(&args.config);
    let mut diagnoses = vec![configuration];
    if config.pool.max_size == 0 {
        let found = "none needed: `max_size` is 0, and clients get the browsers of other nodes";
        diagnoses.push(Diagnosis::ok("engine", found));
    } else {
        diagnoses.extend(examine(&config)?);
        diagnoses.push(shared_memory(&config));
        diagnoses.push(memory(&config));
        diagnoses.push(processes(&config));
        diagnoses.push(limits(&config));
        diagnoses.push(fonts());
    }
    diagnoses.push(open_files(&config));
    diagnoses.push(state_dir(&config.pool.state_dir));
    diagnoses.push(port(config.gateway.listen));
    if let Some(fleet) = &config.fleet {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        diagnoses.extend(runtime.block_on(nats(fleet)));
        diagnoses.push(runtime.block_on(advertised(fleet, config.gateway.listen))?);
        // A host name that is still being looked up must not delay the answer.
        runtime.shutdown_background();
    }

    let is_well = diagnoses.iter().all(|diagnosis| diagnosis.verdict != Verdict::Fail);
    if args.json {
        let answer = serde_json::json!({ "ok": is_well, "checks": diagnoses });
        stdout::print(&format!("{answer:#}\n"))?;
    } else {
        let lines: String = diagnoses.iter().map(|diagnosis| format!("{diagnosis:#}")).collect();
        stdout::print(&lines)?;
    }
    if is_well { Ok(()) } else { Err(Failure::silent(exit::FAILURE)) }
}

/// Returns the configuration to check with: the defaults if it cannot be used.
fn configuration(args: &ConfigArgs) -> (Config, Diagnosis) {
    let file = args.file.as_ref().map(|file| file.display().to_string());
    let name = file.clone().unwrap_or_else(|| "no file: the defaults and the environment".into());
    match args.loader().load() {
        Ok(loaded) if loaded.warnings.is_empty() => {
            (loaded.config, Diagnosis::ok("configuration", name))
        }
        Ok(loaded) => {
            let found = format!("{name}: {} warnings", loaded.warnings.len());
            let remedy = format!("see them: pool-cli check {}", file.unwrap_or_default());
            (loaded.config, Diagnosis::warn("configuration", found, remedy.trim_end()))
        }
        Err(findings) => {
            let found = format!(
                "{name}: {} findings; the other checks assume the defaults",
                findings.iter().len()
            );
            let remedy = format!("see them: pool-cli check {}", file.unwrap_or_default());
            (Config::default(), Diagnosis::fail("configuration", found, remedy.trim_end()))
        }
    }
}

/// Result of one check, with its remedy.
#[derive(Debug, Serialize)]
struct Diagnosis {
    name: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// The pool works, but not as well as it could, or not for long.
    Warn,
    /// The pool does not work.
    Fail,
}

impl Diagnosis {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), remedy: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, remedy: Some(remedy.into()), ..Self::ok(name, found) }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, remedy: Some(remedy.into()), ..Self::ok(name, found) }
    }
}

impl fmt::Display for Diagnosis {
    /// Prints one line, and one more for the remedy; with `{:#}` in colour.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_colour = f.alternate();
        let style = |style: Style| if in_colour { style } else { Style::new() };
        let (word, colour) = match self.verdict {
            Verdict::Ok => ("ok", style(AnsiColor::Green.on_default())),
            Verdict::Warn => ("warn", style(AnsiColor::Yellow.on_default().bold())),
            Verdict::Fail => ("fail", style(AnsiColor::Red.on_default().bold())),
        };
        writeln!(f, "{colour}{word:<4}{colour:#}  {:<13}  {}", self.name, self.found)?;
        match &self.remedy {
            Some(remedy) => {
                let hint = style(AnsiColor::Cyan.on_default().bold());
                writeln!(f, "      {hint}hint:{hint:#} {remedy}")
            }
            None => Ok(()),
        }
    }
}

/// Checks the engine, the sandbox, and a launch.
fn examine(config: &Config) -> Result<Vec<Diagnosis>, Failure> {
    let engine = engine(config);
    if engine.verdict == Verdict::Fail {
        return Ok(vec![engine]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::Builder::new().prefix("pool-cli-doctor-").tempdir()?;
    let state = StateDir::open(directory.path())?;
    Ok(vec![
        engine,
        runtime.block_on(sandbox(config, &state)),
        runtime.block_on(launch(config, &state)),
    ])
}

fn options(config: &Config, sandbox: process::Sandbox) -> LaunchOptions {
    config.driver().launch_options().sandbox(sandbox)
}

fn engine(config: &Config) -> Diagnosis {
    let chrome = &config.chrome;
    // The sandbox has a line of its own.
    match options(config, process::Sandbox::Off).check() {
        Ok((path, process::Engine::Chromium))
            if chrome.engine == Engine::Auto && chrome.headless && chrome.args.is_empty() =>
        {
            Diagnosis::warn(
                "engine",
                format!("{}, but not the headless shell", path.display()),
                "it starts in a third of the time: apt install chromium-headless-shell, or set \
                 engine = \"chromium\"",
            )
        }
        Ok((path, _)) => Diagnosis::ok("engine", path.display().to_string()),
        Err(error) => Diagnosis::fail(
            "engine",
            error.to_string(),
            "apt install chromium-headless-shell chromium, or set `executable` in [chrome]",
        ),
    }
}

/// Tries the sandbox rather than guess: what forbids one does not show in any single place.
async fn sandbox(config: &Config, state: &StateDir) -> Diagnosis {
    if config.chrome.sandbox == Sandbox::Off {
        return Diagnosis::warn(
            "sandbox",
            "turned off in the configuration",
            "leave `sandbox` out: \"auto\" turns it off only where it cannot work",
        );
    }
    match answer(options(config, process::Sandbox::On), state).await {
        Ok(_) => Diagnosis::ok("sandbox", "works"),
        Err(error) => {
            let found = match &error {
                Failed::Chrome(ChromeError::NoSandbox { reason }) => reason.clone(),
                other => other.to_string(),
            };
            let remedy = "run as a user that is not root, with user namespaces allowed; open only \
                          pages that you trust in browsers without a sandbox";
            match config.chrome.sandbox {
                Sandbox::On => Diagnosis::fail("sandbox", found, remedy),
                Sandbox::Auto | Sandbox::Off => {
                    Diagnosis::warn("sandbox", format!("off: {found}"), remedy)
                }
            }
        }
    }
}

async fn launch(config: &Config, state: &StateDir) -> Diagnosis {
    match answer(config.driver().launch_options(), state).await {
        Ok((version, took)) => {
            Diagnosis::ok("launch", format!("{version} answers after {} ms", took.as_millis()))
        }
        Err(error) => Diagnosis::fail(
            "launch",
            error.to_string(),
            "see what is missing: ldd $(readlink -f $(which chromium)) | grep 'not found'",
        ),
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Chrome(#[from] ChromeError),
    #[error("the pipe broke: {0}")]
    Pipe(#[from] std::io::Error),
    #[error("it answered with something other than its version")]
    Answer,
}

/// Launches a browser, asks for its version, and closes it.
async fn answer(options: LaunchOptions, state: &StateDir) -> Result<(String, Duration), Failed> {
    let timeout = options.launch_timeout;
    let began = Instant::now();
    let (chromium, mut pipe) = Chromium::launch(options, state).await?;
    let asked = async {
        pipe.writer.write_all(b"{\"id\":1,\"method\":\"Browser.getVersion\"}\0").await?;
        let mut message = Vec::new();
        loop {
            match pipe.reader.read_u8().await? {
                0 => break Ok::<_, std::io::Error>(message),
                byte => message.push(byte),
            }
        }
    };
    let answered = tokio::time::timeout(timeout, asked).await;
    let took = began.elapsed();
    let failed = chromium.not_ready();
    drop(pipe);
    chromium.close(Duration::from_secs(2)).await;
    let Ok(Ok(message)) = answered else { return Err(failed.into()) };
    let message: serde_json::Value =
        serde_json::from_slice(&message).map_err(|_| Failed::Answer)?;
    let version = message["result"]["product"].as_str().ok_or(Failed::Answer)?;
    Ok((version.to_owned(), took))
}

/// Memory of a browser with a page or two, as measured: between a headless shell and a
/// whole Chromium.
const BROWSER: ByteSize = ByteSize::mib(250);

/// Shared memory that the pages of one browser usually take.
const SHARED: ByteSize = ByteSize::mib(64);

/// Processes and threads of one browser.
const TASKS: u64 = 120;

fn shared_memory(config: &Config) -> Diagnosis {
    const NAME: &str = "/dev/shm";
    let remedy = "mount -o remount,size=1g /dev/shm, or docker run --shm-size=1g";
    // In that case Chromium is told to use its directory for temporary files.
    let instead = "shared memory is put into the state directory, which may be a slow disk";
    let writable = access("/dev/shm", Access::WRITE_OK | Access::EXEC_OK).is_ok();
    let Some(stat) = statvfs("/dev/shm").ok().filter(|_| writable) else {
        return Diagnosis::warn(NAME, format!("it cannot be used: {instead}"), remedy);
    };
    let free = ByteSize::b(stat.f_bavail.saturating_mul(stat.f_frsize));
    let wanted = ByteSize::b(SHARED.as_u64() * config.pool.max_size as u64);
    let found = format!("{} free", shown(free));
    if free < SHARED {
        Diagnosis::warn(NAME, format!("{found}: {instead}"), remedy)
    } else if free < wanted {
        let found =
            format!("{found}, {} browsers may need {}", config.pool.max_size, shown(wanted));
        Diagnosis::warn(NAME, found, remedy)
    } else {
        Diagnosis::ok(NAME, found)
    }
}

fn memory(config: &Config) -> Diagnosis {
    const NAME: &str = "memory";
    let Some(bytes) = machine::memory() else {
        return Diagnosis::warn(NAME, "unknown", "mount /proc");
    };
    let memory = ByteSize::b(bytes);
    let wanted = ByteSize::b(BROWSER.as_u64() * config.pool.max_size as u64);
    let found = format!(
        "{}, {} browsers take about {}",
        shown(memory),
        config.pool.max_size,
        shown(wanted)
    );
    if memory < wanted {
        let fits = (bytes / BROWSER.as_u64()).max(1);
        Diagnosis::warn(NAME, found, format!("set max_size = {fits} in [pool]"))
    } else {
        Diagnosis::ok(NAME, found)
    }
}

/// Checks the limit of open files: a pipe and a directory for each browser, and a socket for each
/// client, leased or waiting.
fn open_files(config: &Config) -> Diagnosis {
    const NAME: &str = "open files";
    let pool = &config.pool;
    let wanted = (64 + 16 * pool.max_size + pool.max_waiting) as u64;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < wanted => Diagnosis::warn(
            NAME,
            format!(
                "at most {limit}, but {wanted} are needed if all {} clients wait",
                pool.max_waiting
            ),
            format!("ulimit -n {wanted}, or LimitNOFILE={wanted} in a systemd unit"),
        ),
        Some(limit) => Diagnosis::ok(NAME, format!("at most {limit}")),
        None => Diagnosis::ok(NAME, "no limit"),
    }
}

fn processes(config: &Config) -> Diagnosis {
    const NAME: &str = "processes";
    let wanted = TASKS * config.pool.max_size as u64;
    let cgroup = std::fs::read_to_string("/sys/fs/cgroup/pids.max").ok();
    let cgroup = cgroup.and_then(|text| text.trim().parse().ok());
    let limit = getrlimit(Resource::Nproc).current.into_iter().chain(cgroup).min();
    match limit {
        Some(limit) if limit < wanted => Diagnosis::warn(
            NAME,
            format!("at most {limit}; {} browsers need about {wanted}", config.pool.max_size),
            format!("ulimit -u {wanted}, TasksMax={wanted} in a unit, or docker run --pids-limit"),
        ),
        Some(limit) => Diagnosis::ok(NAME, format!("at most {limit}")),
        None => Diagnosis::ok(NAME, "no limit"),
    }
}

/// Checks that the kernel would enforce the limits of browsers for a pool started in this way.
fn limits(config: &Config) -> Diagnosis {
    const NAME: &str = "cgroups";
    let limits = config.chrome.kernel_limits();
    let reason = match delegated_cgroup(&limits) {
        Ok(path) if limits.is_none() => {
            let found = format!("{} is delegated to this user; no limits are set", path.display());
            return Diagnosis::ok(NAME, found);
        }
        Ok(path) => {
            let found = format!("the limits of browsers are enforced, below {}", path.display());
            return Diagnosis::ok(NAME, found);
        }
        Err(reason) => reason,
    };
    if limits.is_none() {
        return Diagnosis::ok(NAME, format!("none, and no limits are set: {reason}"));
    }
    let remedy = match reason {
        NoCgroup::NotMounted => "boot with systemd.unified_cgroup_hierarchy=1",
        _ => {
            "Delegate=yes and ProtectControlGroups=no in a systemd unit; a container needs a \
             writable /sys/fs/cgroup, and the pool as its only process at first"
        }
    };
    let found = format!("the limits of browsers are not enforced: {reason}");
    match config.chrome.limits {
        Limits::Auto => Diagnosis::warn(NAME, found, remedy),
        Limits::Required => Diagnosis::fail(NAME, found, remedy),
    }
}

fn fonts() -> Diagnosis {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let directories = [
        PathBuf::from("/usr/share/fonts"),
        PathBuf::from("/usr/local/share/fonts"),
        home.join(".fonts"),
        home.join(".local/share/fonts"),
    ];
    let count: usize = directories.iter().map(|directory| count_fonts(directory, 6)).sum();
    if count == 0 {
        Diagnosis::warn(
            "fonts",
            "none: text is shown as boxes",
            "apt install fonts-liberation fonts-noto-core fonts-noto-color-emoji",
        )
    } else {
        Diagnosis::ok("fonts", format!("{count} files"))
    }
}

fn count_fonts(directory: &Path, depth: usize) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let count = |path: PathBuf| {
        if path.is_dir() {
            return if depth == 0 { 0 } else { count_fonts(&path, depth - 1) };
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_font = matches!(extension, Some("ttf" | "otf" | "ttc" | "pfb" | "woff2"));
        usize::from(is_font)
    };
    entries.flatten().map(|entry| count(entry.path())).sum()
}

fn shown(size: ByteSize) -> String {
    size.display().iec().to_string()
}

/// Minimum free space: less than this fills up with a few profiles.
const ROOM: ByteSize = ByteSize::mib(512);

fn state_dir(path: &Path) -> Diagnosis {
    const NAME: &str = "state";
    let shown = path.display();
    if let Some(obstacle) = machine::directory_obstacle(path) {
        return Diagnosis::fail(
            NAME,
            format!("{shown}: {obstacle}"),
            "set `state_dir` in [pool] to a directory that can be written, or change its owner",
        );
    }
    let there = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path);
    let Ok(stat) = statvfs(there) else { return Diagnosis::ok(NAME, shown.to_string()) };
    let free = ByteSize::b(stat.f_bavail.saturating_mul(stat.f_frsize));
    let found = format!("{shown}, {} free", free.display().iec());
    if free < ROOM {
        Diagnosis::warn(NAME, found, "make room, or set `state_dir` in [pool] to another disk")
    } else {
        Diagnosis::ok(NAME, found)
    }
}

fn port(listen: SocketAddr) -> Diagnosis {
    const NAME: &str = "port";
    match TcpListener::bind(listen) {
        Ok(_) => Diagnosis::ok(NAME, format!("{listen} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Diagnosis::fail(
            NAME,
            format!("{listen} is in use, perhaps by a running pool"),
            format!(
                "see which process has it: ss -ltnp 'sport = :{}', or use --listen",
                listen.port()
            ),
        ),
        Err(error) => {
            Diagnosis::fail(NAME, format!("{listen}: {error}"), "set `listen` in [gateway]")
        }
    }
}

/// Maximum time for the questions to the NATS servers.
const NATS: Duration = Duration::from_secs(10);

/// Checks the server, and the name of this node in its fleet.
async fn nats(fleet: &FleetConfig) -> Vec<Diagnosis> {
    const NAME: &str = "nats";
    let connected = timeout(NATS, async {
        let transport = NatsTransport::connect(fleet.nats_options()?).await?;
        let server = transport.server().await?;
        Ok((transport, server))
    });
    let (transport, server) = match connected.await.unwrap_or(Err(TransportError::TimedOut)) {
        Ok(connected) => connected,
        Err(error) => {
            let found = format!("{}: {}", fleet.nats.join(", "), exit::chain(&error));
            let remedy = "make sure that a server runs there and accepts these credentials, or \
                          change [fleet]; without a server a node has only its own browsers";
            return vec![Diagnosis::fail(NAME, found, remedy)];
        }
    };
    let milliseconds = server.round_trip.as_secs_f64() * 1000.0;
    let found = format!("version {} answers after {milliseconds:.1} ms", server.version);
    let server = if server.stores {
        Diagnosis::ok(NAME, format!("{found}, with JetStream"))
    } else {
        let remedy =
            "start it with -js: JetStream keeps the profiles that travel and the names of sessions";
        Diagnosis::warn(NAME, format!("{found}, without JetStream"), remedy)
    };
    vec![server, name(fleet, &*transport).await]
}

/// Checks that no other live node has this node's name.
async fn name(fleet: &FleetConfig, transport: &dyn Transport) -> Diagnosis {
    const NAME: &str = "node";
    let node = fleet.node_name();
    let place = match namesake(fleet, transport).await {
        Ok(None) => {
            return Diagnosis::ok(
                NAME,
                format!("the name {node} is free in the fleet {}", fleet.name),
            );
        }
        Ok(Some(address)) if address.is_empty() => String::new(),
        Ok(Some(address)) => format!(" at {address}"),
        Err(error) => {
            let remedy = "let this user publish and subscribe to bp.> and _INBOX.>";
            return Diagnosis::fail(NAME, format!("{node}: {}", exit::chain(&error)), remedy);
        }
    };
    Diagnosis::fail(
        NAME,
        format!("{node} is a live node{place}, perhaps a pool running here"),
        "set another `node` in [fleet], or end that one",
    )
}

/// Maximum time for a request to this node at its own address.
const REACH: Duration = Duration::from_secs(3);

/// Looks for this node at the address where the others should reach it: for a pool that is running
/// here, or otherwise for a stand-in server that answers with a word that nobody else knows.
async fn advertised(fleet: &FleetConfig, listen: SocketAddr) -> Result<Diagnosis, Failure> {
    const NAME: &str = "advertise";
    let word = format!("{:016x}", getrandom::u64()?);
    let mut listen = listen;
    let mut stand_in = None;
    if let Ok(listener) = tokio::net::TcpListener::bind(listen).await {
        listen = listener.local_addr()?;
        stand_in = Some(tokio::spawn(say(listener, word.clone())));
    }
    let address = fleet.advertised(listen).expect("the configuration has been checked");
    let url = format!("{}/livez", address.replacen("ws", "http", 1));
    let heard = tokio::task::spawn_blocking(move || ask(&url)).await?;
    let found = match heard {
        Ok(heard) if stand_in.is_some() && heard == word => {
            return Ok(Diagnosis::ok(NAME, format!("{address} leads to this node")));
        }
        Ok(_) if stand_in.is_none() => {
            return Ok(Diagnosis::ok(NAME, format!("{address} answers")));
        }
        Ok(_) => format!("{address} does not lead to {listen}: something else answers"),
        Err(error) => format!("{address} cannot be reached from here: {error}"),
    };
    let remedy = "set `advertise` in [fleet] to the address at which the other nodes reach this one, \
                  and open its port for them";
    Ok(Diagnosis::warn(NAME, found, remedy))
}

/// Answers every request with a word.
async fn say(listener: tokio::net::TcpListener, word: String) {
    while let Ok((mut client, _)) = listener.accept().await {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{word}",
            word.len()
        );
        // In a task of its own: a proxy may hold a connection open without sending anything.
        tokio::spawn(async move {
            if client.read(&mut [0; 4096]).await.is_ok() {
                client.write_all(answer.as_bytes()).await.ok();
            }
        });
    }
}

fn ask(url: &str) -> Result<String, ureq::Error> {
    let config = Agent::config_builder().proxy(None).timeout_global(Some(REACH));
    let mut answer = config.build().new_agent().get(url).call()?;
    answer.body_mut().read_to_string()
}
