use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Findings, Ours};
use crate::Home;

/// A service that runs has one directory for each of its Chromiums and nothing else.
pub(super) fn of_a_service(home: &Home, ours: &Ours, findings: &mut Findings) {
    let browsers = ours.browsers().len();
    let directories = entries(&home.state_dir().join("run"));
    if directories.len() != browsers {
        findings.add(format!("{browsers} Chromiums have {directories:?}"));
    }
    let open: Vec<PathBuf> = entries(&home.temp_dir());
    if open.len() > browsers {
        findings.add(format!("left in TMPDIR: {open:?}"));
    }
    user_home(home, findings);
}

/// Without a service there are the profiles, what tenants have used, and files that hold no data.
pub(super) fn of_nobody(home: &Home, findings: &mut Findings) {
    for directory in [home.state_dir().join("run"), home.temp_dir()] {
        let left = entries(&directory);
        if !left.is_empty() {
            findings.add(format!("left behind: {left:?}"));
        }
    }
    let kept = ["lock", "run", "profiles", "usage"];
    let other: Vec<PathBuf> = entries(&home.state_dir())
        .into_iter()
        .filter(|path| path.file_name().is_none_or(|name| !kept.iter().any(|kept| name == *kept)))
        .collect();
    if !other.is_empty() {
        findings.add(format!("left in the state directory: {other:?}"));
    }
    user_home(home, findings);
}

fn user_home(home: &Home, findings: &mut Findings) {
    let left = entries(&home.user_home());
    if !left.is_empty() {
        findings.add(format!("left in HOME: {left:?}"));
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// `/dev/shm` as it was when a case began. It is shared with the whole machine.
#[derive(Debug)]
pub(super) struct SharedMemory(BTreeSet<PathBuf>);

const SHARED_MEMORY: &str = "/dev/shm";

impl SharedMemory {
    pub(super) fn now() -> Self {
        Self(entries(Path::new(SHARED_MEMORY)).into_iter().collect())
    }

    /// What is new there, is Chromium's, and is held by no process.
    pub(super) fn litter(&self, findings: &mut Findings) {
        let own = rustix::process::geteuid().as_raw();
        let is_chromium = |path: &Path| path.to_string_lossy().contains("org.chromium");
        let new: Vec<PathBuf> = entries(Path::new(SHARED_MEMORY))
            .into_iter()
            .filter(|path| !self.0.contains(path) && is_chromium(path))
            .filter(|path| fs::metadata(path).is_ok_and(|metadata| metadata.uid() == own))
            .collect();
        if new.is_empty() {
            return;
        }
        let held = held();
        // What is opened and removed at once, as Chromium does, was gone before it could be looked for.
        let left: Vec<&PathBuf> =
            new.iter().filter(|path| !held.contains(*path) && path.exists()).collect();
        if !left.is_empty() {
            findings.add(format!("left in shared memory: {left:?}"));
        }
    }
}

/// The shared memory that some process has open or mapped.
fn held() -> BTreeSet<PathBuf> {
    let mut held = BTreeSet::new();
    for process in entries(Path::new("/proc")) {
        let open = entries(&process.join("fd")).into_iter();
        held.extend(open.filter_map(|link| fs::read_link(link).ok()));
        let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
        let mapped = maps.lines().filter_map(|line| line.get(line.find(SHARED_MEMORY)?..));
        held.extend(mapped.map(PathBuf::from));
    }
    held
}
