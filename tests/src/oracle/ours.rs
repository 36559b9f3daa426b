use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::process::{Process, ProcessId, descendants};
use crate::{Home, Service};

/// The processes that a case has started through its pool.
///
/// A process is ours if a path of the case's home stands in its arguments or its environment, if
/// it is below one that is ours, or if it was so when we last looked: an orphan has lost its parent
/// and a renderer may have overwritten its arguments.
#[derive(Debug)]
pub struct Ours {
    home: PathBuf,
    seen: Mutex<HashSet<ProcessId>>,
    /// Looked at before, and of no interest: a stranger does not become one of ours.
    strangers: Mutex<HashSet<ProcessId>>,
    foreign: Mutex<HashSet<ProcessId>>,
}

impl Ours {
    /// Those of this home.
    #[must_use]
    pub fn of(home: &Home) -> Self {
        let home = home.path().to_path_buf();
        Self {
            home,
            seen: Mutex::default(),
            strangers: Mutex::default(),
            foreign: Mutex::default(),
        }
    }

    /// This one, and what is below it, is of somebody else although it uses a directory of ours.
    pub fn disown(&self, process: ProcessId) {
        self.foreign.lock().unwrap_or_else(PoisonError::into_inner).insert(process);
    }

    /// The Chromium processes that live, helpers too.
    ///
    /// # Panics
    ///
    /// Never in fact.
    #[must_use]
    pub fn chromium(&self) -> Vec<Process> {
        let all = Process::all();
        let foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut not_ours: HashSet<ProcessId> = foreign.clone();
        for process in foreign {
            not_ours.extend(descendants(process.pid, &all).iter().map(|process| process.id));
        }
        // The service stands among them, as its configuration is in the home.
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let (roots, others): (Vec<&Process>, Vec<&Process>) = all
            .iter()
            .filter(|process| !strangers.contains(&process.id))
            .partition(|process| process.mentions(&self.home));
        strangers.extend(others.into_iter().map(|process| process.id));
        let mut ids: HashSet<ProcessId> = roots.iter().map(|process| process.id).collect();
        for root in roots {
            ids.extend(descendants(root.id.pid, &all).iter().map(|process| process.id));
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(ids.difference(&not_ours).copied());
        all.into_iter()
            .filter(|process| seen.contains(&process.id) && !process.is_zombie())
            .filter(|process| !is_service(process) && !is_attendant(process))
            .collect()
    }

    /// The main processes of the Chromiums that live.
    #[must_use]
    pub fn browsers(&self) -> Vec<Process> {
        let mut browsers = self.chromium();
        browsers.retain(Process::is_browser);
        // What one has forked has its arguments until it becomes a program of its own.
        let pids: HashSet<u32> = browsers.iter().map(|process| process.id.pid).collect();
        browsers.retain(|process| !pids.contains(&process.parent));
        browsers
    }

    /// The helpers of this type that live below a Chromium, such as its renderers.
    #[must_use]
    pub fn helpers(&self, browser: ProcessId, kind: &str) -> Vec<Process> {
        let all = Process::all();
        let below = descendants(browser.pid, &all);
        below.into_iter().filter(|process| process.is_helper(kind)).collect()
    }

    /// Dead children that the service has not waited for.
    pub(super) fn zombies(&self, service: &Service) -> Vec<Process> {
        let own = |process: &Process| process.parent == service.process.pid && process.is_zombie();
        Process::all().into_iter().filter(own).collect()
    }
}

fn is_service(process: &Process) -> bool {
    let arguments = process.arguments();
    let is_run = arguments.windows(2).any(|pair| pair[0] == "run" && pair[1] == "--config");
    is_run && !process.is_browser()
}

/// Whether it is what a pool that lives has beside it; once the pool is dead it must go as well.
fn is_attendant(process: &Process) -> bool {
    let is_reaper = process.arguments().first().is_some_and(|name| name == "browser-pool-reaper");
    is_reaper && Process::read(process.parent).is_some_and(|parent| is_service(&parent))
}

pub(super) fn describe(processes: &[Process]) -> Vec<String> {
    processes
        .iter()
        .map(|process| {
            let arguments = process.arguments();
            let kind = arguments.iter().find(|argument| argument.starts_with("--type="));
            let (name, pid) = (&process.name, process.id.pid);
            format!("{name} ({pid}) {}", kind.map_or("", String::as_str))
        })
        .collect()
}
