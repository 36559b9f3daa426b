//! The engine under a fake clock: no runtime, no tasks, every interleaving written down.

mod model;
mod rig;
