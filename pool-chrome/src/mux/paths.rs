//! Which files a lease may name.

use std::path::{Component, Path, PathBuf};

/// Returns `true` if a path lies in one of the directories, with links followed as far as the path exists.
///
/// The directories that Playwright makes for its downloads count as well: their names are random
/// and it will not work without them.
pub(crate) fn is_inside(path: &str, directories: &[PathBuf]) -> bool {
    let path = Path::new(path);
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(is_plain) || holds_nul(path) {
        return false;
    }
    let Some(real) = resolve(path) else { return false };
    let inside = |directory: &PathBuf| {
        directory.canonicalize().is_ok_and(|directory| real.starts_with(directory))
    };
    directories.iter().any(inside) || is_of_playwright(&real)
}

/// Returns `true` if a path lies in one of the directories that are the pool's own, or may turn out to.
///
/// A relative one is taken from where the pool was started, which is where its Chromiums were.
pub(crate) fn is_reserved(path: &str, reserved: &[PathBuf]) -> bool {
    if path.is_empty() {
        return false;
    }
    let Ok(path) = std::path::absolute(path) else { return true };
    let Some(real) = resolve(&path) else { return true };
    let is_plain = |part: Component<'_>| !matches!(part, Component::ParentDir);
    if holds_nul(&path) || !real.components().all(is_plain) {
        return true;
    }
    let within = |directory: &PathBuf| {
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.clone());
        real.starts_with(directory)
    };
    reserved.iter().any(within)
}

/// Chromium takes a path to end at its first NUL.
fn holds_nul(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&0)
}

/// The path with links followed in the part of it that exists.
fn resolve(path: &Path) -> Option<PathBuf> {
    let existing = path.ancestors().find(|part| part.symlink_metadata().is_ok())?;
    let rest = path.strip_prefix(existing).expect("an ancestor is a prefix");
    let real = existing.canonicalize().ok()?;
    Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
}

fn is_of_playwright(real: &Path) -> bool {
    let Ok(temp) = std::env::temp_dir().canonicalize() else { return false };
    let Ok(inside) = real.strip_prefix(temp) else { return false };
    let first = inside.components().next();
    first
        .is_some_and(|name| name.as_os_str().to_string_lossy().starts_with("playwright-artifacts-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_the_directories_is_inside() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("own");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(root.path().join("secret"), "").unwrap();
        std::os::unix::fs::symlink(root.path(), own.join("up")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", own.join("dangling")).unwrap();
        let directories = [own.clone()];
        let inside = |path: &Path| is_inside(path.to_str().unwrap(), &directories);
        assert!(inside(&own));
        assert!(inside(&own.join("a/b")));
        assert!(!inside(root.path()));
        assert!(!inside(&root.path().join("owner")));
        assert!(!inside(&own.join("../secret")));
        assert!(!inside(&own.join("up/secret")));
        assert!(!inside(&own.join("dangling")));
        assert!(!inside(&own.join("..\0")));
        assert!(!is_inside("own/a", &directories));
        assert!(!is_inside("", &directories));
        assert!(!is_inside("/etc/passwd", &directories));
    }

    #[test]
    fn what_leads_into_the_pools_own_directories_is_reserved() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        std::fs::create_dir_all(state.join("run/1/profile")).unwrap();
        std::os::unix::fs::symlink(&state, root.path().join("link")).unwrap();
        std::os::unix::fs::symlink("state/new", root.path().join("dangling")).unwrap();
        let reserved = [state.clone()];
        let is = |path: &Path| is_reserved(path.to_str().unwrap(), &reserved);
        assert!(is(&state));
        assert!(is(&state.join("run/1/profile/NativeMessagingHosts")));
        assert!(is(&state.join("not/there/yet")));
        assert!(is(&root.path().join("link/run")));
        assert!(is(&root.path().join("link/new")));
        assert!(is(&root.path().join("dangling")), "nobody knows where it leads");
        assert!(is(&root.path().join("new/../state/x")));
        assert!(is(&root.path().join("state\0x")));
        assert!(!is(&root.path().join("states")));
        assert!(!is(&root.path().join("new/directory")));
        assert!(!is_reserved("somewhere", &reserved));
    }
}
