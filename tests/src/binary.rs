use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The `pool-cli` under test: what `POOL_CLI` names, else the one of this build.
///
/// # Panics
///
/// If it cannot be built.
pub fn pool_cli() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("POOL_CLI") {
        Some(path) => PathBuf::from(path),
        // With all features, as every other test has it: they use one binary, and may run meanwhile.
        None => built("pool-cli", &["-p", "pool-cli", "--all-features"]),
    })
}

/// The Chromium of pool-chrome that fails as it is told: what `FAKE_CHROMIUM` names, else the one
/// of this build.
///
/// # Panics
///
/// If it cannot be built.
pub fn fake_chromium() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("FAKE_CHROMIUM") {
        Some(path) => PathBuf::from(path),
        None => built("fake-chromium", &["-p", "pool-chrome", "--features", "testing"]),
    })
}

/// The binary beside this test's own, built if it is missing or older than its sources.
///
/// Cargo tells a test where the binaries of its own package are, but not those of another. A build
/// of the whole workspace has made them; a build of this package alone has not.
fn built(name: &str, arguments: &[&str]) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let profile = own.ancestors().nth(2).expect("it is in target/PROFILE/deps");
    let binary = profile.join(name);
    if is_fresh(&binary) {
        return binary;
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("build").args(arguments).args(["--bin", name]).current_dir(workspace());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo is there, as it has started us");
    assert!(status.success(), "cargo build of {name} failed: {status}");
    binary
}

/// Whether no source that cargo has noted for it is younger.
fn is_fresh(binary: &Path) -> bool {
    let Some(built) = modified(binary) else { return false };
    let Ok(notes) = fs::read_to_string(binary.with_extension("d")) else { return false };
    let Some((_, sources)) = notes.trim().split_once(": ") else { return false };
    sources.split(' ').all(|source| modified(Path::new(source)).is_some_and(|time| time <= built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// The root of the repository.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is in the workspace")
}
