use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::remove::remove;
use super::tree::with_argument;
use crate::ChromeError;

/// Makes a persistent profile ready for a new browser: removes the lock that a killed browser
/// left in it, or refuses if somebody lives there.
///
/// `ours`: the profile stands below a state directory whose lock we hold. Then a lock that names
/// another host is a stale one too: containers get a new host name with every start.
///
/// The headless shell takes no lock at all, so processes that were given this directory are
/// looked for as well.
pub(super) fn unlock(directory: &Path, ours: bool) -> Result<(), ChromeError> {
    let busy = |holder| Err(ChromeError::ProfileBusy { directory: directory.to_owned(), holder });
    let mut argument = b"--user-data-dir=".to_vec();
    argument.extend_from_slice(directory.as_os_str().as_bytes());
    if let Some(pid) = with_argument(&argument) {
        return busy(format!("process {pid}"));
    }
    let Some((host, pid)) = holder(directory) else { return Ok(()) };
    if host != own_host() {
        if !ours {
            return busy(format!("process {pid} on the host {host}"));
        }
    } else if mentions(pid, directory) {
        return busy(format!("process {pid}"));
    }
    tracing::info!(directory = %directory.display(), pid, "unlocked a profile that a dead browser had locked");
    for name in ["SingletonLock", "SingletonCookie", "SingletonSocket"] {
        let path = directory.join(name);
        remove(&path).map_err(ChromeError::file("remove", path))?;
    }
    Ok(())
}

/// Chromium's lock is a link that leads to `host-pid`.
fn holder(directory: &Path) -> Option<(String, u32)> {
    let target = fs::read_link(directory.join("SingletonLock")).ok()?;
    let (host, pid) = target.to_str()?.rsplit_once('-')?;
    Some((host.to_owned(), pid.parse().ok()?))
}

/// Returns `true` if a process lives that could be a browser on this profile. One whose arguments do not
/// name the directory has only inherited the id, unless it uses the default directory, which is
/// never named.
fn mentions(pid: u32, directory: &Path) -> bool {
    let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let named = memchr::memmem::find(&arguments, directory.as_os_str().as_bytes()).is_some();
    let any_browser = memchr::memmem::find(&arguments, b"chrom").is_some();
    let names_another = memchr::memmem::find(&arguments, b"--user-data-dir=").is_some();
    named || (any_browser && !names_another)
}

fn own_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn locked(by: &str) -> tempfile::TempDir {
        let profile = tempfile::tempdir().unwrap();
        symlink(by, profile.path().join("SingletonLock")).unwrap();
        symlink("123", profile.path().join("SingletonCookie")).unwrap();
        profile
    }

    fn is_locked(profile: &tempfile::TempDir) -> bool {
        fs::symlink_metadata(profile.path().join("SingletonLock")).is_ok()
    }

    #[test]
    fn the_lock_of_a_dead_browser_is_removed() {
        let profile = locked(&format!("{}-4194304", own_host()));
        unlock(profile.path(), false).unwrap();
        assert!(!is_locked(&profile));
    }

    #[test]
    fn an_id_that_another_program_has_by_now_keeps_nobody_out() {
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let profile = locked(&format!("{}-{}", own_host(), other.id()));
        let unlocked = unlock(profile.path(), false);
        other.kill().unwrap();
        other.wait().unwrap();
        unlocked.unwrap();
        assert!(!is_locked(&profile));
    }

    #[test]
    fn a_lock_of_another_host_counts_unless_the_profile_is_below_our_own_lock() {
        let profile = locked("elsewhere-7");
        let error = unlock(profile.path(), false).unwrap_err();
        assert!(error.to_string().contains("process 7 on the host elsewhere"), "{error}");
        assert!(is_locked(&profile));
        unlock(profile.path(), true).unwrap();
        assert!(!is_locked(&profile));
    }
}
