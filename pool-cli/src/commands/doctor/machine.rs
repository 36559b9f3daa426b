//! Checks of the machine's resources.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use pool_chrome::process::{NoCgroup, delegated_cgroup};
use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, getrlimit};

use super::diagnosis::Diagnosis;
use crate::config::{Config, Limits, machine};
use crate::pool::kernel_limits;

/// Memory of a browser with a page or two, as measured: between a headless shell and a
/// whole Chromium.
const BROWSER: ByteSize = ByteSize::mib(250);

/// Shared memory that the pages of one browser usually take.
const SHARED: ByteSize = ByteSize::mib(64);

/// Processes and threads of one browser.
const TASKS: u64 = 120;

pub(super) fn shared_memory(config: &Config) -> Diagnosis {
    const NAME: &str = "/dev/shm";
    let remedy = "mount -o remount,size=1g /dev/shm, or docker run --shm-size=1g";
    // Chromium is told to use its directory for temporary files then.
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
            format!("{found}, {} browsers may want {}", config.pool.max_size, shown(wanted));
        Diagnosis::warn(NAME, found, remedy)
    } else {
        Diagnosis::ok(NAME, found)
    }
}

pub(super) fn memory(config: &Config) -> Diagnosis {
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

/// A pipe and a directory for each browser, a socket for each client, leased or waiting.
pub(super) fn open_files(config: &Config) -> Diagnosis {
    const NAME: &str = "open files";
    let pool = &config.pool;
    let wanted = (64 + 16 * pool.max_size + pool.max_waiting) as u64;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < wanted => Diagnosis::warn(
            NAME,
            format!("at most {limit}; {wanted} if all {} may wait", pool.max_waiting),
            format!("ulimit -n {wanted}, or LimitNOFILE={wanted} in a unit of systemd"),
        ),
        Some(limit) => Diagnosis::ok(NAME, format!("at most {limit}")),
        None => Diagnosis::ok(NAME, "no limit"),
    }
}

pub(super) fn processes(config: &Config) -> Diagnosis {
    const NAME: &str = "processes";
    let wanted = TASKS * config.pool.max_size as u64;
    let cgroup = std::fs::read_to_string("/sys/fs/cgroup/pids.max").ok();
    let cgroup = cgroup.and_then(|text| text.trim().parse().ok());
    let limit = getrlimit(Resource::Nproc).current.into_iter().chain(cgroup).min();
    match limit {
        Some(limit) if limit < wanted => Diagnosis::warn(
            NAME,
            format!("at most {limit}; {} browsers have about {wanted}", config.pool.max_size),
            format!("ulimit -u {wanted}, TasksMax={wanted} in a unit, or docker run --pids-limit"),
        ),
        Some(limit) => Diagnosis::ok(NAME, format!("at most {limit}")),
        None => Diagnosis::ok(NAME, "no limit"),
    }
}

/// Tells whether the kernel would hold the limits of browsers for a pool that is started as this is.
pub(super) fn limits(config: &Config) -> Diagnosis {
    const NAME: &str = "cgroups";
    let limits = kernel_limits(&config.chrome);
    let reason = match delegated_cgroup(&limits) {
        Ok(path) if limits.is_none() => {
            let found = format!("{} is this user's to divide; no limits are set", path.display());
            return Diagnosis::ok(NAME, found);
        }
        Ok(path) => {
            let found = format!("the limits of browsers hold, below {}", path.display());
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
            "Delegate=yes and ProtectControlGroups=no in a unit of systemd; a container needs a \
             /sys/fs/cgroup that it may write, and the pool as its only process at first"
        }
    };
    let found = format!("the limits of browsers do not hold: {reason}");
    match config.chrome.limits {
        Limits::Auto => Diagnosis::warn(NAME, found, remedy),
        Limits::Required => Diagnosis::fail(NAME, found, remedy),
    }
}

pub(super) fn fonts() -> Diagnosis {
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
