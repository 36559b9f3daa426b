//! Sockets of processes, as the kernel shows them.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// The ports that were given out: until somebody listens there, they look as free as before.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of 127.0.0.1 that nobody has, and that the kernel gives to nobody who asks for any; another
/// one each time.
///
/// For what must be found at its port again after a restart.
///
/// # Panics
///
/// If all are taken.
#[must_use]
pub fn unused_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| fastrand::u16(10_000..30_000)).take(1000);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.find(|port| free(port) && given.insert(*port)).expect("one of them is free")
}

/// The state of a TCP socket that listens.
const LISTENS: &str = "0A";

#[derive(Debug)]
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    state: String,
    inode: u64,
}

/// The TCP ports at which a process listens.
#[must_use]
pub fn listening(pid: u32) -> HashSet<u16> {
    let own = inodes(pid);
    let rows = rows("tcp").into_iter().chain(rows("tcp6"));
    let listens = rows.filter(|row| row.state == LISTENS && own.contains(&row.inode));
    listens.map(|row| row.local.port()).collect()
}

/// Whom these processes are connected to, by TCP or UDP.
#[must_use]
pub fn peers(pids: impl IntoIterator<Item = u32>) -> HashSet<(&'static str, SocketAddr)> {
    let own: HashSet<u64> = pids.into_iter().flat_map(inodes).collect();
    let tables = ["tcp", "tcp6", "udp", "udp6"];
    let rows =
        tables.into_iter().flat_map(|table| rows(table).into_iter().map(move |row| (table, row)));
    rows.filter(|(_, row)| own.contains(&row.inode) && row.remote.port() != 0)
        .map(|(table, row)| (table, row.remote))
        .collect()
}

fn inodes(pid: u32) -> HashSet<u64> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| {
            let link = fs::read_link(file.path()).ok()?;
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

fn rows(table: &str) -> Vec<Row> {
    let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let read = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some(Row {
            local: address(words.get(1)?)?,
            remote: address(words.get(2)?)?,
            state: (*words.get(3)?).to_owned(),
            inode: words.get(9)?.parse().ok()?,
        })
    };
    text.lines().skip(1).filter_map(read).collect()
}

/// An address in the kernel's own spelling: words of 32 bits in the order of this machine.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> = (0..host.len() / 8)
        .map(|index| {
            let word = host.get(index * 8..index * 8 + 8)?;
            Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
        })
        .collect();
    let bytes = words?.concat();
    let host = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical(),
    };
    Some(SocketAddr::new(host, u16::from_str_radix(port, 16).ok()?))
}
