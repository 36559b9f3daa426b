//! Actions of operators and drivers.

use std::time::Duration;

use super::Rig;
use crate::{CloseReason, Limits, ResourceState};

impl Rig {
    pub(crate) fn resize(&mut self, min: usize, max: usize) {
        self.limits[0].min = Some(min);
        self.call(|state, now, fx| state.resize(min, max, now, fx));
        self.config.max_size = max;
        self.compare();
    }

    pub(crate) fn set_limits(&mut self, class: usize, limits: Limits) {
        let name = self.classes[class].clone();
        self.limits[class] = limits;
        self.call(|state, now, fx| state.set_limits(&name, limits, now, fx));
        self.compare();
    }

    pub(crate) fn doom(&mut self, id: u64, reason: CloseReason) {
        let found = self.state.resources().into_iter().find(|held| held.id.get() == id);
        let Some(info) = found else { return };
        let doomed = self.call(|state, now, fx| state.doom(info.id, reason, now, fx));
        assert_eq!(doomed, info.state != ResourceState::Closing, "what is closing stays so");
        self.compare();
    }

    pub(crate) fn flush_idle(&mut self) {
        let idle = self.idle.len();
        let flushed = self.call(|state, now, fx| state.flush_idle(now, fx));
        assert_eq!(flushed, idle, "all that is idle is flushed");
        self.compare();
    }

    pub(crate) fn drain(&mut self, grace: Option<Duration>) {
        self.draining = true;
        self.call(|state, now, fx| state.drain(grace, now, fx));
        self.compare();
    }
}
