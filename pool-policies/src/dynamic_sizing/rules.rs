use std::time::Duration;

/// When to keep more, and when fewer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) interval: Duration,
    pub(super) samples: usize,
    pub(super) scale_up_wait: Duration,
    pub(super) scale_up_by: usize,
    pub(super) scale_down_utilization: f64,
    pub(super) scale_down_by: usize,
    pub(super) cooldown: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            samples: 100,
            scale_up_wait: Duration::from_secs(5),
            scale_up_by: 2,
            scale_down_utilization: 0.3,
            scale_down_by: 1,
            cooldown: Duration::from_secs(60),
        }
    }
}
