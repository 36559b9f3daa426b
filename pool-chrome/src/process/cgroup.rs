//! Control groups of the kernel: one for each browser, with limits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Access, access};

/// The group of the pool's own process, below the one that it was started in: a group that passes
/// controllers down to others may have no process of its own.
const MAIN: &str = "browser-pool-main";

/// The file in a browser's directory that names its group.
const NOTE: &str = "cgroup";

/// The period in which a CPU limit is enforced, in microseconds: the kernel's default.
const PERIOD: u64 = 100_000;

/// Limits that the kernel enforces on all processes of one browser together.
///
/// # Examples
///
/// ```
/// use pool_chrome::process::KernelLimits;
///
/// let limits = KernelLimits::new().memory(1 << 30).cpus(1.5).pids(500);
/// assert!(!limits.is_none());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct KernelLimits {
    /// Bytes of memory. Above nine tenths of it, the browser is slowed down; if it needs more than
    /// all of it, it is killed as a whole. Default: no limit.
    pub memory: Option<u64>,
    /// Number of CPUs, which may be fractional. Default: no limit.
    pub cpus: Option<f64>,
    /// Processes and threads. Default: no limit.
    pub pids: Option<u64>,
    /// Makes a pool refuse to start if the kernel cannot enforce them. Default: it starts without
    /// them.
    pub required: bool,
}

impl KernelLimits {
    /// Returns options without any limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`memory`](Self::memory).
    #[must_use]
    pub fn memory(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.memory = bytes.into();
        self
    }

    /// Sets [`cpus`](Self::cpus).
    #[must_use]
    pub fn cpus(mut self, cpus: impl Into<Option<f64>>) -> Self {
        self.cpus = cpus.into();
        self
    }

    /// Sets [`pids`](Self::pids).
    #[must_use]
    pub fn pids(mut self, pids: impl Into<Option<u64>>) -> Self {
        self.pids = pids.into();
        self
    }

    /// Sets [`required`](Self::required).
    #[must_use]
    pub fn required(mut self, required: bool) -> Self {
        self.required = required;
        self
    }

    /// Returns `true` if there are no limits at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.controllers().is_empty()
    }

    fn controllers(&self) -> Vec<&'static str> {
        let all = [
            ("memory", self.memory.is_some()),
            ("cpu", self.cpus.is_some()),
            ("pids", self.pids.is_some()),
        ];
        all.into_iter().filter_map(|(name, is_set)| is_set.then_some(name)).collect()
    }

    /// Returns the files of a group, each with its controller and its contents.
    fn files(&self) -> Vec<(&'static str, &'static str, String)> {
        let mut files = Vec::new();
        if let Some(bytes) = self.memory {
            // Slowed down first: Chromium gives memory back when it runs short.
            files.push(("memory", "memory.high", (bytes / 10 * 9).to_string()));
            files.push(("memory", "memory.max", bytes.to_string()));
            // A browser that has lost one of its processes is useless.
            files.push(("memory", "memory.oom.group", "1".to_owned()));
        }
        if let Some(cpus) = self.cpus {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a number of CPUs is small and positive, and a part of a microsecond none"
            )]
            let quota = (cpus * PERIOD as f64) as u64;
            // The kernel accepts no less.
            files.push(("cpu", "cpu.max", format!("{} {PERIOD}", quota.max(1000))));
        }
        if let Some(pids) = self.pids {
            files.push(("pids", "pids.max", pids.to_string()));
        }
        files
    }
}

/// Reason why browsers cannot have control groups, or not with all limits.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoCgroup {
    /// There is no cgroup hierarchy of version 2.
    #[error("cgroup v2 is not mounted")]
    NotMounted,
    /// The group that the pool was started in does not belong to the pool.
    #[error("the cgroup {} is not delegated to the pool: {source}", path.display())]
    NotDelegated {
        /// The group.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The group has no controllers for some of the limits.
    #[error("the cgroup {} has no controller for {}", path.display(), missing.join(", "))]
    NoController {
        /// The group.
        path: PathBuf,
        /// The names of the controllers.
        missing: Vec<&'static str>,
    },
    /// Other processes are in the group, so it cannot pass controllers down.
    #[error("other processes are in the cgroup {}", path.display())]
    Occupied {
        /// The group.
        path: PathBuf,
    },
}

/// The control group in which the pool makes children.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    root: PathBuf,
    limits: KernelLimits,
    missing: Vec<&'static str>,
}

impl Cgroups {
    /// Takes the group that this process is in: moves the process into a child of it, and passes
    /// down the controllers that the limits need, as far as there are any.
    pub(crate) fn take(limits: KernelLimits) -> Result<Self, NoCgroup> {
        Self::take_in(root()?, limits)
    }

    fn take_in(root: PathBuf, limits: KernelLimits) -> Result<Self, NoCgroup> {
        let (present, missing) = controllers(&root, &limits);
        let denied = |source| NoCgroup::NotDelegated { path: root.clone(), source };
        let main = root.join(MAIN);
        match fs::create_dir(&main) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(denied(error));
            }
            _ => {}
        }
        let undo = || {
            // What cannot be undone does no harm: an empty group, or one with this process.
            let _ = fs::write(root.join("cgroup.procs"), "0");
            let _ = fs::remove_dir(&main);
        };
        if let Err(error) = fs::write(main.join("cgroup.procs"), "0") {
            undo();
            return Err(denied(error));
        }
        let wanted: String = present.iter().map(|name| format!("+{name} ")).collect();
        if !present.is_empty()
            && let Err(error) = fs::write(root.join("cgroup.subtree_control"), wanted.trim_end())
        {
            undo();
            return Err(if error.kind() == io::ErrorKind::ResourceBusy {
                NoCgroup::Occupied { path: root }
            } else {
                denied(error)
            });
        }
        Ok(Self { root, limits, missing })
    }

    /// Returns the group that was taken.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Returns why some of the limits are not enforced, if that is so.
    pub(crate) fn shortcoming(&self) -> Option<NoCgroup> {
        let missing = self.missing.clone();
        (!missing.is_empty()).then(|| NoCgroup::NoController { path: self.root.clone(), missing })
    }

    /// Makes a group for the browser that has this directory.
    pub(super) fn create(&self, directory: &Path) -> io::Result<Cgroup> {
        let path = self.root.join(name(directory));
        // First, so that the next sweep knows of it whatever happens in between.
        fs::write(directory.join(NOTE), path.as_os_str().as_encoded_bytes())?;
        fs::create_dir(&path)?;
        let cgroup = Cgroup::at(path);
        for (controller, file, text) in self.limits.files() {
            if !self.missing.contains(&controller)
                && let Err(error) = fs::write(cgroup.path.join(file), text)
            {
                cgroup.remove();
                return Err(error);
            }
        }
        Ok(cgroup)
    }
}

/// Returns the group that a pool started here would take, or the reason why it could not enforce
/// these limits. Changes nothing.
///
/// # Errors
///
/// The error with which a pool with [`required`](KernelLimits::required) limits would fail.
pub fn delegated_cgroup(limits: &KernelLimits) -> Result<PathBuf, NoCgroup> {
    let root = root()?;
    let (_, missing) = controllers(&root, limits);
    for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
        access(root.join(file), Access::WRITE_OK)
            .map_err(|error| NoCgroup::NotDelegated { path: root.clone(), source: error.into() })?;
    }
    if !missing.is_empty() {
        return Err(NoCgroup::NoController { path: root, missing });
    }
    Ok(root)
}

/// Returns the group that this process was started in.
fn root() -> Result<PathBuf, NoCgroup> {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let own = own_group(&read("mountinfo"), &read("cgroup")).ok_or(NoCgroup::NotMounted)?;
    // Another pool of this process has already taken it.
    let is_main = own.file_name().is_some_and(|name| name == MAIN);
    Ok(if is_main { own.parent().map(Path::to_owned).unwrap_or(own) } else { own })
}

/// Returns the directory of a process's group, from its `/proc/PID/mountinfo` and
/// `/proc/PID/cgroup`.
fn own_group(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (shown, mounted) = mounts.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let mut words = mount.split(' ').skip(3);
        source.starts_with("cgroup2 ").then_some((words.next()?, words.next()?))
    })?;
    let below = Path::new(group).strip_prefix(shown).ok()?;
    Some(Path::new(mounted).join(below))
}

/// Returns the controllers that the limits need: those that a group has, and those that it lacks.
fn controllers(root: &Path, limits: &KernelLimits) -> (Vec<&'static str>, Vec<&'static str>) {
    let text = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    limits.controllers().into_iter().partition(|name| text.split_whitespace().any(|it| it == *name))
}

/// Returns the name of the group of a browser with this directory.
fn name(directory: &Path) -> String {
    format!("browser-{}", directory.file_name().unwrap_or_default().to_string_lossy())
}

/// The control group of one browser. Clones refer to the same group.
#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    /// Set when [`is_out_of_memory`](Self::is_out_of_memory) has seen it, since the group is
    /// removed soon after.
    was_out_of_memory: Arc<AtomicBool>,
}

impl Cgroup {
    fn at(path: PathBuf) -> Self {
        Self { path, was_out_of_memory: Arc::default() }
    }

    /// Returns the group that any pool has made for the browser with this directory.
    pub(super) fn of(directory: &Path) -> Option<Self> {
        let path = PathBuf::from(fs::read_to_string(directory.join(NOTE)).ok()?);
        // This may kill and remove nothing but a group, and only the one with the right name.
        let is_its = path.file_name().is_some_and(|held| *held == *name(directory));
        (is_its && path.join("cgroup.procs").is_file()).then(|| Self::at(path))
    }

    /// Returns the file through which a process joins.
    pub(super) fn door(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Kills all processes in it at once, including those that are about to be forked.
    pub(super) fn kill(&self) {
        // Before Linux 5.14 there is no such file, and the processes are killed one by one.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// Returns `true` if the kernel has killed it because it needed more memory than it is allowed.
    pub(super) fn is_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        let mut kills = events.lines().filter_map(|line| line.strip_prefix("oom_kill "));
        if kills.any(|count| count != "0") {
            self.was_out_of_memory.store(true, Ordering::Relaxed);
        }
        self.was_out_of_memory.load(Ordering::Relaxed)
    }

    /// Removes it, once its last process is gone.
    pub(super) fn remove(&self) {
        for pause in [0, 5, 20, 80, 300] {
            std::thread::sleep(Duration::from_millis(pause));
            match fs::remove_dir(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(_) => {}
            }
        }
        tracing::warn!(path = %self.path.display(), "the cgroup of a browser cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    const MOUNTS: &str = "\
        31 24 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
        32 31 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    fn all_limits() -> KernelLimits {
        KernelLimits::new().memory(1000).cpus(1.5).pids(300)
    }

    /// Returns a directory tree that stands in for a delegated group with controllers.
    fn stand_in(controllers: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), controllers).unwrap();
        root
    }

    #[test]
    fn the_own_group_is_found_where_it_is_mounted() {
        let groups = "4:memory:/x\n0::/system.slice/pool.service\n";
        let at = |path: &str| Some(PathBuf::from(path));
        let found = own_group(MOUNTS, groups);
        assert_eq!(found, at("/sys/fs/cgroup/unified/system.slice/pool.service"));
        // A container that sees part of the hierarchy.
        let mounts = "41 31 0:38 /docker/4711 /sys/fs/cgroup rw - cgroup2 cgroup rw";
        assert_eq!(own_group(mounts, "0::/docker/4711/pool"), at("/sys/fs/cgroup/pool"));
        assert_eq!(own_group(mounts, "0::/elsewhere"), None);
        assert_eq!(own_group("", groups), None);
        assert_eq!(own_group(MOUNTS, "4:memory:/x\n"), None, "no version 2");
    }

    #[test]
    fn a_group_gets_the_limits_and_its_parent_the_controllers() {
        let root = stand_in("cpuset cpu io memory hugetlb pids\n");
        let run = tempfile::tempdir().unwrap();
        let directory = run.path().join("1234abcd");
        fs::create_dir(&directory).unwrap();

        let cgroups = Cgroups::take_in(root.path().to_owned(), all_limits()).unwrap();
        assert!(cgroups.shortcoming().is_none());
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(read("browser-pool-main/cgroup.procs"), "0");
        assert_eq!(read("cgroup.subtree_control"), "+memory +cpu +pids");

        cgroups.create(&directory).unwrap();
        let group = |file: &str| read(&format!("browser-1234abcd/{file}"));
        assert_eq!(group("memory.high"), "900");
        assert_eq!(group("memory.max"), "1000");
        assert_eq!(group("memory.oom.group"), "1");
        assert_eq!(group("cpu.max"), "150000 100000");
        assert_eq!(group("pids.max"), "300");
    }

    #[test]
    fn a_controller_that_is_not_there_is_told_and_done_without() {
        let root = stand_in("cpu pids\n");
        let run = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::take_in(root.path().to_owned(), all_limits()).unwrap();
        let told = cgroups.shortcoming().unwrap().to_string();
        assert!(told.ends_with("has no controller for memory"), "{told}");
        cgroups.create(run.path()).unwrap();
        let group = root.path().join(name(run.path()));
        assert!(group.join("pids.max").exists() && !group.join("memory.max").exists());
    }

    #[test]
    fn an_end_for_want_of_memory_is_known_after_the_group_is_gone() {
        let root = stand_in("memory\n");
        let group = Cgroup::at(root.path().join("browser-1"));
        fs::create_dir(&group.path).unwrap();
        assert!(!group.is_out_of_memory());
        let events = group.path.join("memory.events");
        fs::write(&events, "low 0\nhigh 7\nmax 3\noom 0\noom_kill 0\noom_group_kill 0\n").unwrap();
        assert!(!group.is_out_of_memory());
        fs::write(&events, "low 0\nhigh 7\nmax 3\noom 1\noom_kill 5\noom_group_kill 1\n").unwrap();
        assert!(group.is_out_of_memory());
        fs::remove_file(&events).unwrap();
        group.remove();
        assert!(!group.path.exists() && group.is_out_of_memory());
    }

    #[test]
    fn only_the_group_that_has_its_name_is_taken_for_a_browsers() {
        let root = stand_in("");
        let run = tempfile::tempdir().unwrap();
        let directory = run.path().join("1234abcd");
        fs::create_dir(&directory).unwrap();
        assert!(Cgroup::of(&directory).is_none());
        for (group, is_its) in [("browser-1234abcd", true), ("system.slice", false)] {
            let path = root.path().join(group);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("cgroup.procs"), "").unwrap();
            fs::write(directory.join(NOTE), path.to_str().unwrap()).unwrap();
            assert_eq!(Cgroup::of(&directory).is_some(), is_its, "{group}");
        }
    }

    /// Returns a real group of the kernel's, if this process may make one.
    fn real_group() -> Option<PathBuf> {
        let path = root().ok()?.join(format!("browser-pool-test-{}", fastrand::u32(..)));
        fs::create_dir(&path).ok()?;
        Some(path)
    }

    fn sleeper(group: &Cgroup) -> Child {
        let script = "echo 0 > \"$0\" && exec sleep 1000";
        Command::new("sh").args(["-c", script]).arg(group.door()).spawn().unwrap()
    }

    #[test]
    fn the_kernel_kills_all_that_is_in_a_group() {
        let Some(path) = real_group() else {
            eprintln!("not tested: no cgroup v2 that this user may write");
            return;
        };
        let group = Cgroup::at(path);
        let mut inside = [sleeper(&group), sleeper(&group)];
        let members = || fs::read_to_string(group.door()).unwrap();
        while members().lines().count() < inside.len() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!group.is_out_of_memory());
        group.kill();
        for child in &mut inside {
            let status = child.wait().unwrap();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        }
        group.remove();
        assert!(!group.path.exists());
    }
}
