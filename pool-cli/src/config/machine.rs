//! Defaults that depend on the machine, and limits of the machine that no setting can change.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketType, bind, socket};
use rustix::process::{Resource, getrlimit};
use schemars::Schema;

/// Removes the default from the schema, which must be the same on every machine.
pub(super) fn computed(schema: &mut Schema) {
    schema.remove("default");
}

/// Returns four browsers for each core, but at most one for each 512 MiB of memory.
///
/// A busy page takes most of a core, but most leased browsers wait for the network.
pub(super) fn max_size() -> usize {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let by_memory = memory().map_or(usize::MAX, |bytes| (bytes >> 29) as usize);
    (cores * 4).min(by_memory).max(1)
}

/// Returns the memory that this process may use, in bytes: that of the machine or of its cgroup.
pub(crate) fn memory() -> Option<u64> {
    let total = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| field(&text, "MemTotal:"))
        .map(|kib| kib << 10);
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    total.into_iter().chain(limit).min()
}

/// Memory of the machine that is in use, in percent.
pub(crate) fn memory_in_use() -> Option<u8> {
    in_use(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn in_use(meminfo: &str) -> Option<u8> {
    let total = field(meminfo, "MemTotal:")?;
    let used = total.saturating_sub(field(meminfo, "MemAvailable:")?);
    Some((used * 100).checked_div(total)?.min(100) as u8)
}

/// Returns the number after a name in a file such as `/proc/meminfo`.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns `$XDG_STATE_HOME/browser-pool`, or else `~/.local/state/browser-pool`, or else a
/// directory under the temporary directory.
pub(super) fn state_dir() -> PathBuf {
    let from =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    from("XDG_STATE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join("browser-pool")
}

/// Returns the reason why a directory and its contents cannot be made at a path, if there is one.
/// Nothing is made or locked, since a pool may be running there.
pub(crate) fn directory_obstacle(path: &Path) -> Option<String> {
    // The last ancestor of a relative path is empty, and stands for the current directory.
    let path = &Path::new(".").join(path);
    let Some(there) = path.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()) else {
        return Some("no such place".to_owned());
    };
    if !there.is_dir() {
        return Some(format!("{} is not a directory", there.display()));
    }
    match access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => None,
        Err(rustix::io::Errno::ROFS) => {
            Some(format!("{} is on a read-only file system", there.display()))
        }
        Err(_) => Some(format!("{} cannot be written", there.display())),
    }
}

/// Returns the error that prevents ever listening on an address here. An address in use at the
/// moment does not count: it will be free some day.
pub(crate) fn address_obstacle(address: SocketAddr) -> Option<io::Error> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // It is bound but never listened on, with the option that servers set, so it is in nobody's
    // way.
    let tried = socket(family, SocketType::STREAM, None).and_then(|socket| {
        set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)
    });
    let error = io::Error::from(tried.err()?);
    (error.kind() != io::ErrorKind::AddrInUse).then_some(error)
}

/// Returns how many files this process may have open once it has raised its limit; `None` if there
/// is no limit.
pub(crate) fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_is_what_is_not_available() {
        assert_eq!(in_use("MemTotal: 1000 kB\nMemAvailable: 250 kB\n"), Some(75));
        assert_eq!(in_use("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), None);
    }
}
