use std::time::Duration;

/// One way to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Exit,
    Linger,
    Silent,
    Flood,
    Stubborn,
    Wrong,
    Slow(Duration),
    Hang(String),
    Fail(String),
    Die(String),
    DieAfter(usize),
}

impl Mode {
    fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        Some(match name {
            "exit" => Self::Exit,
            "linger" => Self::Linger,
            "silent" => Self::Silent,
            "flood" => Self::Flood,
            "stubborn" => Self::Stubborn,
            "wrong" => Self::Wrong,
            "slow" => Self::Slow(Duration::from_millis(value.parse().ok()?)),
            "hang" => Self::Hang(value.to_owned()),
            "fail" => Self::Fail(value.to_owned()),
            "die" => Self::Die(value.to_owned()),
            "die-after" => Self::DieAfter(value.parse().ok()?),
            _ => return None,
        })
    }
}

/// All ways in which this run fails.
#[derive(Debug)]
pub(crate) struct Modes(Vec<Mode>);

impl Modes {
    /// Other arguments are Chromium's and mean nothing here.
    pub(crate) fn from_args(args: impl Iterator<Item = String>) -> Self {
        let modes = args.filter_map(|arg| {
            let text = arg.strip_prefix("--fake-mode=")?;
            Some(Mode::parse(text).unwrap_or_else(|| panic!("there is no mode {text:?}")))
        });
        Self(modes.collect())
    }

    pub(crate) fn has(&self, mode: &Mode) -> bool {
        self.0.contains(mode)
    }

    pub(crate) fn pause(&self) -> Option<Duration> {
        self.0.iter().find_map(|mode| match mode {
            Mode::Slow(pause) => Some(*pause),
            _ => None,
        })
    }
}
