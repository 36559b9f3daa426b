//! Ends of commands: failures with their message and exit code, and the signals that stop them.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Findings;

/// The command could not do what it was asked to do.
pub const FAILURE: u8 = 1;
/// The command line is wrong; clap exits with it.
pub const USAGE: u8 = 2;
/// The configuration is wrong (`EX_CONFIG` of sysexits).
pub const CONFIG: u8 = 78;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// Failure of a command.
///
/// Any error converts to one with the exit code 1 and its chain of sources as the message.
///
/// # Examples
///
/// ```
/// use pool_cli::exit::Failure;
///
/// let failure = Failure::new("no pool answers at 127.0.0.1:3000").hint("start one: pool-cli run");
/// assert_eq!(
///     failure.to_string(),
///     "error: no pool answers at 127.0.0.1:3000\nhint: start one: pool-cli run\n",
/// );
/// ```
#[derive(Debug)]
#[must_use]
pub struct Failure {
    code: u8,
    message: Option<String>,
    hint: Option<String>,
    findings: Option<Findings>,
}

impl Failure {
    /// Creates a failure with a message in lower case, without a full stop. Exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: FAILURE, message: Some(message.into()), hint: None, findings: None }
    }

    /// Creates a failure that has already printed everything.
    pub fn silent(code: u8) -> Self {
        Self { code, message: None, hint: None, findings: None }
    }

    /// Creates a failure for an unusable configuration. Exit code 78.
    fn config(findings: Findings) -> Self {
        Self { code: CONFIG, message: None, hint: None, findings: Some(findings) }
    }

    /// Adds a hint, in lower case, with the command to try next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the exit code.
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Returns the message, without the hint.
    pub(crate) fn message(&self) -> &str {
        self.message.as_deref().unwrap_or_default()
    }

    /// Prints it to stderr and returns the exit code of the process.
    pub fn report(&self) -> ExitCode {
        anstream::eprint!("{self:#}");
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    /// `error:` and `hint:` lines; with `{:#}` in colour.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(findings) = &self.findings {
            fmt::Display::fmt(findings, f)?;
        }
        let style = |style: Style| if f.alternate() { style } else { Style::new() };
        for (word, text, style) in
            [("error", &self.message, style(ERROR)), ("hint", &self.hint, style(HINT))]
        {
            if let Some(text) = text {
                writeln!(f, "{style}{word}:{style:#} {text}")?;
            }
        }
        Ok(())
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        // There is one blanket impl for `?` on any error, so the one kind with a code of its own is
        // recognized here.
        let error: Box<dyn Error> = Box::new(error);
        let error = match error.downcast::<Findings>() {
            Ok(findings) => return Self::config(*findings),
            Err(error) => error,
        };
        Self::new(chain(&*error))
    }
}

/// Returns an error with all of its sources in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        // Errors that show their source in their own message are not repeated.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

/// SIGINT and SIGTERM, from the call of [`listen`](Self::listen) on.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes over the signals from the system, which would end the process at once.
    ///
    /// # Errors
    ///
    /// If the system does not allow it.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }
}

/// Returns the exit code of a command that a signal stopped: 128 plus its number, as in shells.
pub(crate) fn code_of(signal: SignalKind) -> u8 {
    128 + u8::try_from(signal.as_raw_value()).unwrap_or_default()
}
