//! Checks of the directory and the port.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use bytesize::ByteSize;
use rustix::fs::statvfs;

use super::diagnosis::Diagnosis;
use crate::config::machine;

/// Less than this fills up with a few profiles.
const ROOM: ByteSize = ByteSize::mib(512);

pub(super) fn state_dir(path: &Path) -> Diagnosis {
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

pub(super) fn port(listen: SocketAddr) -> Diagnosis {
    const NAME: &str = "port";
    match TcpListener::bind(listen) {
        Ok(_) => Diagnosis::ok(NAME, format!("{listen} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Diagnosis::fail(
            NAME,
            format!("{listen} is in use, perhaps by a pool that runs"),
            format!("see by whom: ss -ltnp 'sport = :{}', or use --listen", listen.port()),
        ),
        Err(error) => {
            Diagnosis::fail(NAME, format!("{listen}: {error}"), "set `listen` in [gateway]")
        }
    }
}
