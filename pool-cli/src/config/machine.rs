//! Defaults that depend on the machine.

use std::path::PathBuf;

use schemars::Schema;

/// What the schema, which is the same everywhere, says instead of a default.
pub(super) fn computed(schema: &mut Schema) {
    schema.remove("default");
}

/// Four browsers for each core, and no more than one for each 512 MiB of memory.
///
/// A busy page takes most of a core, but most leased browsers wait for the network.
pub(super) fn max_size() -> usize {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let by_memory = memory().map_or(usize::MAX, |bytes| (bytes >> 29) as usize);
    (cores * 4).min(by_memory).max(1)
}

/// Memory that this process may use, in bytes: that of the machine or of its cgroup.
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

/// The number after a name in a file such as `/proc/meminfo`.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `$XDG_STATE_HOME/browser-pool`, else `~/.local/state/browser-pool`, else under the temporary
/// directory.
pub(super) fn state_dir() -> PathBuf {
    let from =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    from("XDG_STATE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join("browser-pool")
}
