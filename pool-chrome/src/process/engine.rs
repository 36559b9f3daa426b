use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::ChromeError;

/// Which Chromium: the small headless shell, or the whole browser.
///
/// The shell is what Playwright launches when headless: it starts in a third of the time and opens
/// a page in a fresh context four times as fast. The whole browser is needed for a window and for
/// extensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "config",
    derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
    serde(rename_all = "lowercase")
)]
pub enum Engine {
    /// The shell when headless and where it is installed, else Chromium.
    #[default]
    Auto,
    /// `chromium-headless-shell`: starts fastest and takes the least memory; headless only.
    Shell,
    /// `chromium`: the whole browser, with extensions and windows.
    Chromium,
}

impl Engine {
    /// The name used in configuration: `auto`, `shell` or `chromium`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Shell => "shell",
            Self::Chromium => "chromium",
        }
    }

    /// Returns `true` if it has neither windows nor extensions.
    #[must_use]
    pub const fn is_headless_only(self) -> bool {
        match self {
            Self::Shell => true,
            Self::Auto | Self::Chromium => false,
        }
    }

    pub(crate) const fn package(self) -> &'static str {
        match self {
            Self::Shell => "chromium-headless-shell",
            Self::Auto | Self::Chromium => "chromium",
        }
    }

    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Auto => &[],
            Self::Shell => &["chromium-headless-shell", "chrome-headless-shell", "headless_shell"],
            Self::Chromium => {
                &["chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome"]
            }
        }
    }

    fn of(executable: &Path) -> Self {
        let name = executable.file_name().unwrap_or_default().to_string_lossy();
        if name.contains("headless-shell") || name.contains("headless_shell") {
            Self::Shell
        } else {
            Self::Chromium
        }
    }

    /// Returns `true` if an executable has one of the usual names of this engine.
    fn is_name(self, executable: &Path) -> bool {
        self.names().iter().any(|name| executable.file_name() == Some(name.as_ref()))
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "Chromium",
            Self::Shell => "headless shell of Chromium",
            Self::Chromium => "Chromium browser",
        })
    }
}

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        [Self::Auto, Self::Shell, Self::Chromium]
            .into_iter()
            .find(|engine| engine.as_str() == name)
            .ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}

/// The name of an engine that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown engine {0:?}: expected \"auto\", \"shell\" or \"chromium\"")]
pub struct UnknownEngine(String);

/// Finds the executable to launch and says which engine it is.
///
/// Looked at in order: `explicit`, the environment variable `CHROME`, the usual names on `PATH`.
/// The first two decide the engine by their name, unless `engine` says it. What is returned is
/// the program itself where the name found is Debian's wrapper script: the wrappers cost a quarter
/// of a second, the shell's stays in front of the browser as a process of its own, and the other
/// reads flags from `/etc/chromium.d` that could open a port.
///
/// `shell_suffices`: whether [`Engine::Auto`] may take the shell, which has neither windows nor
/// extensions.
///
/// # Errors
///
/// [`ChromeError::BadExecutable`] if the one that was named cannot be run,
/// [`ChromeError::WrongEngine`] if its name is that of the other engine, and
/// [`ChromeError::NotFound`] if none was named and none is on `PATH`.
pub fn find_executable(
    engine: Engine,
    explicit: Option<&Path>,
    shell_suffices: bool,
) -> Result<(PathBuf, Engine), ChromeError> {
    let variable = || std::env::var_os("CHROME").filter(|value| !value.is_empty());
    let named = match explicit {
        Some(path) => Some((path.to_owned(), false)),
        None => variable().map(|path| (PathBuf::from(path), true)),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    match named {
        Some((path, by_variable)) => named_executable(engine, path, by_variable, &directories),
        None => usual_executable(engine, shell_suffices, &directories),
    }
}

/// The executable that the configuration or, with `by_variable`, `CHROME` names.
fn named_executable(
    engine: Engine,
    path: PathBuf,
    by_variable: bool,
    directories: &[PathBuf],
) -> Result<(PathBuf, Engine), ChromeError> {
    let found = match path.components().count() {
        1 => directories.iter().map(|dir| dir.join(&path)).find(|path| runnable(path).is_ok()),
        _ => None,
    };
    let found = found.unwrap_or_else(|| path.clone());
    if let Err(source) = runnable(&found) {
        return Err(ChromeError::BadExecutable { path, by_variable, source });
    }
    let is = Engine::of(&found);
    let engine = match engine {
        Engine::Auto => is,
        wanted if is != wanted && is.is_name(&found) => {
            return Err(ChromeError::WrongEngine { executable: path, by_variable, wanted, is });
        }
        // A name of somebody's own says nothing.
        wanted => wanted,
    };
    Ok((behind_wrapper(found), engine))
}

/// The first of the usual names on `PATH`.
fn usual_executable(
    engine: Engine,
    shell_suffices: bool,
    directories: &[PathBuf],
) -> Result<(PathBuf, Engine), ChromeError> {
    let candidates: &[Engine] = match engine {
        Engine::Auto if shell_suffices => &[Engine::Shell, Engine::Chromium],
        Engine::Auto | Engine::Chromium => &[Engine::Chromium],
        Engine::Shell => &[Engine::Shell],
    };
    let mut tried = vec!["CHROME".to_owned()];
    for &candidate in candidates {
        for name in candidate.names() {
            for directory in directories {
                let path = directory.join(name);
                if runnable(&path).is_ok() {
                    return Ok((behind_wrapper(path), candidate));
                }
            }
            tried.push(format!("{name} on PATH"));
        }
    }
    Err(ChromeError::NotFound { engine, tried })
}

fn runnable(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    Ok(())
}

/// The program behind Debian's wrapper `<prefix>/bin/<name>`: `<prefix>/lib/chromium/<name>`.
/// Other wrappers are used as they are; the ones of Google and of Ubuntu end in an `exec`.
fn behind_wrapper(path: PathBuf) -> PathBuf {
    let is_script = |path: &Path| {
        let mut magic = [0; 2];
        File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"#!"
    };
    let program = path
        .file_name()
        .and_then(|name| Some(path.parent()?.parent()?.join("lib/chromium").join(name)));
    match program {
        Some(program) if is_script(&path) && runnable(&program).is_ok() && !is_script(&program) => {
            program
        }
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executable(directory: &Path, name: &str, content: &str) -> PathBuf {
        std::fs::create_dir_all(directory).unwrap();
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn auto_prefers_the_shell_when_headless_and_the_browser_when_not() {
        let root = tempfile::tempdir().unwrap();
        let shell = executable(root.path(), "chromium-headless-shell", "");
        let browser = executable(root.path(), "chromium", "");
        let path = [root.path().to_owned()];
        assert_eq!(usual_executable(Engine::Auto, true, &path).unwrap(), (shell, Engine::Shell));
        let found = usual_executable(Engine::Auto, false, &path).unwrap();
        assert_eq!(found, (browser, Engine::Chromium));
    }

    #[test]
    fn auto_falls_back_to_the_browser_where_no_shell_is_installed() {
        let root = tempfile::tempdir().unwrap();
        let browser = executable(root.path(), "google-chrome", "");
        let path = [root.path().to_owned()];
        let found = usual_executable(Engine::Auto, true, &path).unwrap();
        assert_eq!(found, (browser, Engine::Chromium));
    }

    #[test]
    fn a_name_without_a_path_is_looked_up_on_path() {
        let root = tempfile::tempdir().unwrap();
        let own = executable(root.path(), "my-headless-shell", "");
        let path = [root.path().to_owned()];
        let name = PathBuf::from("my-headless-shell");
        let found = named_executable(Engine::Auto, name.clone(), false, &path).unwrap();
        assert_eq!(found, (own.clone(), Engine::Shell));
        // A name of somebody's own contradicts nothing.
        let found = named_executable(Engine::Chromium, name, false, &path).unwrap();
        assert_eq!(found, (own, Engine::Chromium));
    }

    #[test]
    fn the_error_says_what_was_tried_and_how_to_install() {
        let error = usual_executable(Engine::Shell, true, &[]).unwrap_err().to_string();
        assert!(error.contains("chromium-headless-shell on PATH"), "{error}");
        assert!(error.contains("apt install chromium-headless-shell"), "{error}");
    }

    #[test]
    fn a_named_executable_that_cannot_run_is_an_error_and_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        executable(root.path(), "chromium", "");
        let wrong = root.path().join("absent");
        let path = [root.path().to_owned()];
        let error = named_executable(Engine::Auto, wrong, true, &path).unwrap_err();
        assert!(matches!(error, ChromeError::BadExecutable { .. }), "{error}");
        assert!(error.to_string().contains("CHROME"), "not by what it was named: {error}");
    }

    #[test]
    fn an_executable_of_the_other_engine_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        for (name, wanted) in
            [("chromium-headless-shell", Engine::Chromium), ("google-chrome", Engine::Shell)]
        {
            let path = executable(root.path(), name, "");
            let error = named_executable(wanted, path, false, &[]).unwrap_err();
            assert!(matches!(error, ChromeError::WrongEngine { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_distribution_wrapper_is_replaced_by_the_program_behind_it() {
        let root = tempfile::tempdir().unwrap();
        let wrapper = executable(&root.path().join("bin"), "chromium", "#!/bin/sh\nexec true\n");
        let program = executable(&root.path().join("lib/chromium"), "chromium", "\x7fELF");
        let found = named_executable(Engine::Auto, wrapper, false, &[]).unwrap();
        assert_eq!(found, (program, Engine::Chromium));
    }
}
