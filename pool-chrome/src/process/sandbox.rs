use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Once, OnceLock};

use super::Sandbox;
use crate::ChromeError;

static WARNED: Once = Once::new();

/// Whether an executable is launched with its sandbox.
#[derive(Debug)]
pub(super) enum Decision {
    Sandboxed,
    /// As it was asked for.
    Off,
    /// It cannot work here, for this reason.
    Missing(String),
}

impl Decision {
    pub(super) fn is_sandboxed(&self) -> bool {
        matches!(self, Self::Sandboxed)
    }

    /// Says once in the log that browsers go without, and why.
    pub(super) fn report(&self) {
        if let Self::Missing(reason) = self {
            WARNED.call_once(|| {
                tracing::warn!(%reason, "Chromium runs without its sandbox; let only pages that you trust into it");
            });
        }
    }
}

/// Decides whether to launch this executable with its sandbox.
pub(super) fn decide(wanted: Sandbox, executable: &Path) -> Result<Decision, ChromeError> {
    if wanted == Sandbox::Off {
        return Ok(Decision::Off);
    }
    match obstacle(executable) {
        None => Ok(Decision::Sandboxed),
        Some(reason) if wanted == Sandbox::On => Err(ChromeError::NoSandbox { reason }),
        Some(reason) => Ok(Decision::Missing(reason)),
    }
}

/// Returns why no sandbox can work here.
fn obstacle(executable: &Path) -> Option<String> {
    if rustix::process::geteuid().is_root() {
        return Some("Chromium refuses to sandbox when it is run by root".to_owned());
    }
    if has_setuid_helper(executable) {
        return None;
    }
    static NAMESPACES: OnceLock<Option<String>> = OnceLock::new();
    let obstacle = NAMESPACES.get_or_init(namespace_obstacle).clone();
    // A profile of its own lets one program do what AppArmor forbids the others.
    obstacle.filter(|_| !has_apparmor_profile(executable))
}

fn has_setuid_helper(executable: &Path) -> bool {
    let helper = executable.with_file_name("chrome-sandbox");
    fs::metadata(helper).is_ok_and(|metadata| metadata.uid() == 0 && metadata.mode() & 0o4000 != 0)
}

fn namespace_obstacle() -> Option<String> {
    let setting = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    for (path, bad) in [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ] {
        if setting(path).as_deref() == Some(bad) {
            return Some(format!("user namespaces are forbidden ({path} is {bad})"));
        }
    }
    // A container's seccomp filter shows in no file: try.
    let tried = Command::new("unshare")
        .args(["--user", "--map-root-user", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match tried {
        Ok(status) if !status.success() => {
            Some("user namespaces cannot be made here (is this a container?)".to_owned())
        }
        // Without the tool nothing is known: let Chromium try.
        _ => None,
    }
}

fn has_apparmor_profile(executable: &Path) -> bool {
    let Some(path) = executable.to_str() else { return false };
    fs::read_dir("/etc/apparmor.d").into_iter().flatten().flatten().any(|entry| {
        fs::read_to_string(entry.path()).is_ok_and(|profile| {
            profile.lines().any(|line| line.starts_with("profile") && line.contains(path))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_is_off_and_root_is_told_why_on_cannot_be() {
        let executable = Path::new("/usr/lib/chromium/chromium");
        assert!(matches!(decide(Sandbox::Off, executable), Ok(Decision::Off)));
        if rustix::process::geteuid().is_root() {
            assert!(matches!(decide(Sandbox::Auto, executable), Ok(Decision::Missing(_))));
            let error = decide(Sandbox::On, executable).unwrap_err();
            assert!(error.to_string().contains("root"), "{error}");
        }
    }
}
