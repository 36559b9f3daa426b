use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pool_core::{Class, Policy};
use pool_policies::{PolicyError, Profile, ProfileInstance, ProfileMode, Profiles};

use crate::support::{Browsers, Spec};

fn profiles(root: &Path, mode: ProfileMode) -> Profiles {
    Profiles::builder(root).profile("work", Profile::new().mode(mode)).build().unwrap()
}

fn template(root: &Path) -> Profiles {
    profiles(root, ProfileMode::Template)
}

/// What a new resource of the profile would be given.
fn copy(profiles: &Profiles) -> ProfileInstance {
    let (mut class, mut spec) = (Class::default(), Spec::default());
    class.insert("profile", "work");
    Policy::<Browsers>::configure(profiles, &class, &mut spec).unwrap();
    spec.profile.unwrap()
}

fn copies(root: &Path) -> usize {
    std::fs::read_dir(root.join("work/.pool-copies")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_copy_is_of_no_number_and_goes_with_its_last_clone() {
    let root = tempfile::tempdir().unwrap();
    let profiles = template(root.path());
    let instance = copy(&profiles);
    assert_eq!((instance.number(), instance.is_persistent()), (None, false));
    let path = instance.open().await.unwrap().to_owned();
    std::fs::create_dir_all(path.join("Default/Cache")).unwrap();
    std::fs::write(path.join("Default/Cache/data"), "data").unwrap();
    drop(instance.clone());
    assert!(path.exists());
    drop(instance);
    assert_eq!(copies(root.path()), 0);
}

#[tokio::test]
async fn without_a_saved_state_copies_are_of_the_persistent_directory_or_empty() {
    let root = tempfile::tempdir().unwrap();
    let profiles = template(root.path());
    let first = copy(&profiles);
    assert_eq!(std::fs::read_dir(first.open().await.unwrap()).unwrap().count(), 0);

    let persistent = profiles.claim("work").unwrap();
    std::fs::write(persistent.open().await.unwrap().join("login"), "zero").unwrap();
    let while_in_use = copy(&profiles);
    assert!(matches!(while_in_use.open().await, Err(PolicyError::Disk { .. })));
    drop(persistent);
    let path = while_in_use.open().await.unwrap();
    assert_eq!(std::fs::read_to_string(path.join("login")).unwrap(), "zero");
}

#[tokio::test]
async fn a_new_saved_state_replaces_the_old_one_and_leaves_copies_alone() {
    let root = tempfile::tempdir().unwrap();
    let profiles = template(root.path());
    let source = profiles.claim("work").unwrap();
    let file = source.open().await.unwrap().join("login");
    std::fs::write(&file, "one").unwrap();
    profiles.save_template(&source).await.unwrap();
    let old = copy(&profiles);
    let old_file = old.open().await.unwrap().join("login");
    std::fs::write(&file, "two").unwrap();
    profiles.save_template(&source).await.unwrap();
    let new = copy(&profiles);
    let new_file = new.open().await.unwrap().join("login");
    assert_eq!(std::fs::read_to_string(old_file).unwrap(), "one");
    assert_eq!(std::fs::read_to_string(new_file).unwrap(), "two");
    drop((old, new));
    assert_eq!(copies(root.path()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_while_the_state_is_replaced_is_of_one_state() {
    let root = tempfile::tempdir().unwrap();
    let profiles = template(root.path());
    let source = profiles.claim("work").unwrap();
    let directory = source.open().await.unwrap().to_owned();
    let write = move |value: &str| {
        for n in 0..20 {
            std::fs::write(directory.join(n.to_string()), value).unwrap();
        }
    };
    write("start");
    profiles.save_template(&source).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let saver = tokio::spawn({
        let (profiles, over) = (profiles.clone(), over.clone());
        async move {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                write(&n.to_string());
                profiles.save_template(&source).await.unwrap();
            }
        }
    });
    for _ in 0..100 {
        let instance = copy(&profiles);
        let path = instance.open().await.unwrap();
        let values: std::collections::BTreeSet<String> =
            (0..20).map(|n| std::fs::read_to_string(path.join(n.to_string())).unwrap()).collect();
        assert_eq!(values.len(), 1, "{values:?}");
    }
    over.store(true, Ordering::Relaxed);
    saver.await.unwrap();
    assert_eq!(copies(root.path()), 0);
}

#[tokio::test]
async fn an_opening_that_is_given_up_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let profiles = template(root.path());
    let source = profiles.claim("work").unwrap();
    for n in 0..200 {
        std::fs::write(source.open().await.unwrap().join(n.to_string()), "x").unwrap();
    }
    profiles.save_template(&source).await.unwrap();
    for _ in 0..20 {
        let instance = copy(&profiles);
        let opening = async move { instance.open().await.map(Path::to_owned) };
        let _ = tokio::time::timeout(std::time::Duration::ZERO, opening).await;
    }
    pool_core::testing::until("the copies are gone", || copies(root.path()) == 0).await;
}

#[tokio::test]
async fn copies_of_dead_processes_are_swept_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let alive = copy(&template(root.path()));
    alive.open().await.unwrap();
    let copies = root.path().join("work/.pool-copies");
    std::fs::create_dir_all(copies.join("00000000deadbeef/Default")).unwrap();
    std::fs::write(copies.join("00000000deadbeef/Default/Cookies"), "x").unwrap();
    std::fs::create_dir(copies.join("somebody else's")).unwrap();
    let _next = template(root.path());
    assert!(!copies.join("00000000deadbeef").exists());
    assert!(copies.join("somebody else's").exists());
    assert!(alive.open().await.unwrap().exists());
}

#[tokio::test]
async fn a_broken_copy_is_moved_aside() {
    let root = tempfile::tempdir().unwrap();
    let profiles = template(root.path());
    let instance = copy(&profiles);
    std::fs::write(instance.open().await.unwrap().join("broken"), "x").unwrap();
    let aside = instance.quarantine().unwrap();
    drop(instance);
    assert!(aside.join("broken").exists());
    assert_eq!(copies(root.path()), 0);
}
