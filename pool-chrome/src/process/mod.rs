//! Launching and supervising one Chromium: no open port, no orphan, no zombie, no litter.
//!
//! [`Chromium::launch`] starts the process with `--remote-debugging-pipe` and returns a supervised
//! handle and the two halves of the pipe. All files of the process are below one directory of its
//! own in a [`StateDir`]; a thread of its own drains its stderr, notices its exit at once, ends the
//! rest of its process tree and removes the directory. None of that needs an async runtime, so a
//! handle may be dropped anywhere. What a killed program leaves behind is ended by its
//! [reaper](run_as_reaper), or swept away when the state directory is opened again.
//!
//! Linux only: the supervision relies on pidfds and `/proc`.

mod cgroup;
mod chromium;
mod command_line;
mod contents;
mod options;
mod state_dir;
mod supervisor;
mod sweep;
mod tree;

pub(crate) use cgroup::Cgroups;
pub use cgroup::{KernelLimits, NoCgroup, delegated_cgroup};
pub use chromium::{Chromium, Pipe, PipeReader, PipeWriter};
pub use command_line::find_executable;
pub(crate) use contents::Contents;
pub use options::{Engine, LaunchOptions, Sandbox, UnknownEngine, UserData};
pub use state_dir::StateDir;
pub use supervisor::Exit;
pub use sweep::{Sweep, run_as_reaper};
pub(crate) use tree::Work;
