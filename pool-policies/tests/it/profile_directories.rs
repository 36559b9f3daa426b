use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pool_policies::{PolicyError, Profile, ProfileInstance, Profiles};

fn profiles(root: &Path, max: usize) -> Profiles {
    Profiles::builder(root).profile("work", Profile::new().max_size(max)).build().unwrap()
}

fn is_busy(result: &Result<ProfileInstance, PolicyError>) -> bool {
    matches!(result, Err(PolicyError::ProfileBusy { .. }))
}

#[test]
fn an_instance_is_held_until_its_last_clone_is_dropped() {
    let root = tempfile::tempdir().unwrap();
    let profiles = profiles(root.path(), 1);
    let first = profiles.claim("work").unwrap();
    let second = first.clone();
    drop(first);
    assert!(is_busy(&profiles.claim("work")));
    drop(second);
    assert_eq!(profiles.claim("work").unwrap().number(), Some(0));
}

#[test]
fn the_instance_used_last_is_taken_first_also_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let first = profiles(root.path(), 3);
    let all: Vec<_> = (0..3).map(|_| first.claim("work").unwrap()).collect();
    let numbers: Vec<_> = all.iter().map(|instance| instance.number().unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2]);
    let [zero, one, two] = all.try_into().unwrap();
    for instance in [zero, two, one] {
        // Time stamps of files are as coarse as the kernel's clock tick.
        std::thread::sleep(Duration::from_millis(20));
        drop(instance);
    }
    drop(first);
    let second = profiles(root.path(), 3);
    let again: Vec<_> = (0..3).map(|_| second.claim("work").unwrap()).collect();
    let numbers: Vec<_> = again.iter().map(|instance| instance.number().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 0]);
}

#[test]
fn no_more_directories_are_used_than_the_maximum() {
    let root = tempfile::tempdir().unwrap();
    let many = profiles(root.path(), 5);
    drop((0..5).map(|_| many.claim("work").unwrap()).collect::<Vec<_>>());
    let few = profiles(root.path(), 2);
    let held: Vec<_> = (0..2).map(|_| few.claim("work").unwrap()).collect();
    assert!(held.iter().all(|instance| instance.number().unwrap() < 2));
    assert!(is_busy(&few.claim("work")));
}

#[test]
fn everything_is_private_even_what_was_not() {
    let root = tempfile::tempdir().unwrap();
    let base = root.path().join("state/profiles");
    drop(profiles(&base, 1).claim("work").unwrap());
    let mode = |path: &str| base.join(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(""), mode("work"), mode("work/0")], [0o700; 3]);
    for path in ["work", "work/0"] {
        let open = PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(base.join(path), open).unwrap();
    }
    let _held = profiles(&base, 1).claim("work").unwrap();
    assert_eq!([mode("work"), mode("work/0")], [0o700; 2]);
}

#[test]
fn no_symlink_below_the_root_is_followed() {
    let root = tempfile::tempdir().unwrap();
    let outside = root.path().join("outside");
    std::fs::create_dir_all(outside.join("0123456789abcdef")).unwrap();
    std::fs::write(outside.join("0123456789abcdef/precious"), "precious").unwrap();

    let as_profile = root.path().join("a");
    std::fs::create_dir(&as_profile).unwrap();
    symlink(&outside, as_profile.join("work")).unwrap();
    assert!(matches!(profiles(&as_profile, 1).claim("work"), Err(PolicyError::Disk { .. })));

    let as_instance = root.path().join("b");
    std::fs::create_dir_all(as_instance.join("work")).unwrap();
    symlink(&outside, as_instance.join("work/0")).unwrap();
    assert!(matches!(profiles(&as_instance, 1).claim("work"), Err(PolicyError::Disk { .. })));

    let as_copies = root.path().join("c");
    std::fs::create_dir_all(as_copies.join("work")).unwrap();
    symlink(&outside, as_copies.join("work/.pool-copies")).unwrap();
    let built = Profiles::builder(&as_copies).profile("work", Profile::new()).build();
    assert!(matches!(built, Err(PolicyError::Disk { .. })));

    let read = std::fs::read_to_string(outside.join("0123456789abcdef/precious")).unwrap();
    assert_eq!(read, "precious");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn a_broken_instance_is_moved_aside_and_the_next_one_is_empty() {
    let root = tempfile::tempdir().unwrap();
    let profiles = profiles(root.path(), 1);
    for round in 0..5 {
        let instance = profiles.claim("work").unwrap();
        assert_eq!(instance.number(), Some(0));
        let path = root.path().canonicalize().unwrap().join("work/0");
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        std::fs::write(path.join("broken"), round.to_string()).unwrap();
        let aside = instance.quarantine().unwrap();
        assert_eq!(std::fs::read_to_string(aside.join("broken")).unwrap(), round.to_string());
        // Two in one millisecond would have the same name.
        std::thread::sleep(Duration::from_millis(2));
    }
    let kept = std::fs::read_dir(root.path().join("work/.quarantine")).unwrap().count();
    assert_eq!(kept, 3);
}

#[tokio::test]
async fn close_gives_an_instance_back() {
    let root = tempfile::tempdir().unwrap();
    let profiles = profiles(root.path(), 1);
    profiles.claim("work").unwrap().close().await;
    assert!(profiles.claim("work").is_ok());
}

#[test]
fn an_unknown_profile_cannot_be_claimed() {
    let root = tempfile::tempdir().unwrap();
    let result = profiles(root.path(), 1).claim("../etc");
    assert!(matches!(result, Err(PolicyError::Unknown { kind: "profile", .. })));
}

/// The other process of the test below.
#[test]
fn hold_an_instance_if_told_to() {
    let Some(root) = std::env::var_os("HOLD_AN_INSTANCE_OF") else { return };
    let _held = profiles(root.as_ref(), 1).claim("work").unwrap();
    println!("held");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn another_process_holds_its_instance_until_it_is_killed() {
    let root = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "profile_directories::hold_an_instance_if_told_to", "--nocapture"])
        .env("HOLD_AN_INSTANCE_OF", root.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("held")));
    let profiles = profiles(root.path(), 1);
    assert!(is_busy(&profiles.claim("work")));
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_busy(&profiles.claim("work")) {
        assert!(Instant::now() < deadline, "the lock outlived its process");
    }
}
