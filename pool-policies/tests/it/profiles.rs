use std::collections::BTreeSet;
use std::time::Duration;

use pool_core::{Pool, Request};
use pool_policies::{PolicyError, Profile, ProfileMode, Profiles};

use crate::support::{Browsers, cause, pool, profile, refusal, until};

fn work(root: &tempfile::TempDir, profile: Profile) -> Profiles {
    Profiles::builder(root.path()).profile("work", profile).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn resources_of_a_profile_go_to_that_profile_only() {
    let root = tempfile::tempdir().unwrap();
    let profiles = Profiles::builder(root.path())
        .profile("work", Profile::new())
        .profile("home", Profile::new())
        .build()
        .unwrap();
    let pool = pool(profiles);
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        for name in [Some("work"), Some("home"), None] {
            let request = name.map_or_else(Request::new, profile);
            let lease = pool.acquire_with(request).await.unwrap();
            assert_eq!(lease.profile.as_ref().map(|profile| profile.profile()), name);
            seen.insert((name, lease.id));
        }
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_profile_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let pool = pool(work(&root, Profile::new()));
    for name in ["play", "", "../work", "work/../home", "--no-sandbox", "Work"] {
        assert_eq!(refusal(pool.acquire_with(profile(name)).await), "unknown_profile", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn profiles_are_made_on_demand_where_that_is_allowed() {
    let root = tempfile::tempdir().unwrap();
    let like = Profile::new().max_size(1);
    let profiles =
        Profiles::builder(root.path()).on_demand(like).on_demand_limit(2).build().unwrap();
    let pool = pool(profiles);
    for name in ["a", "b", "a"] {
        let lease = pool.acquire_with(profile(name)).await.unwrap();
        assert!(lease.directory.as_ref().unwrap().ends_with(format!("{name}/0")));
    }
    assert_eq!(refusal(pool.acquire_with(profile("c")).await), "too_many_profiles");
    for name in ["", "..", "../x", "a/b", "/etc", "--x", "a b", "a\0b", ".x", "é"] {
        assert_eq!(refusal(pool.acquire_with(profile(name)).await), "invalid_profile", "{name}");
    }
    let there: Vec<_> =
        std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(there.len(), 2, "{there:?}");
}

#[tokio::test(start_paused = true)]
async fn the_default_profile_is_for_requests_that_name_none() {
    let root = tempfile::tempdir().unwrap();
    let profiles = Profiles::builder(root.path())
        .profile("work", Profile::new())
        .default_profile("work")
        .build()
        .unwrap();
    let pool = pool(profiles);
    assert_eq!(pool.acquire().await.unwrap().profile.as_ref().unwrap().profile(), "work");
}

#[tokio::test(start_paused = true)]
async fn a_minimum_is_there_before_anybody_asks_and_a_maximum_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let pool = pool(work(&root, Profile::new().min_size(1).max_size(2)));
    until("the minimum is there", || pool.load().idle == 1).await;
    let first = pool.acquire_with(profile("work")).await.unwrap();
    let second = pool.acquire_with(profile("work")).await.unwrap();
    assert_ne!(first.directory, second.directory);
    let third = pool.acquire_with(profile("work").timeout(Duration::from_secs(1))).await;
    assert!(third.is_err());
    assert!(pool.acquire().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn fifty_acquires_of_one_profile_are_served_one_after_another() {
    let root = tempfile::tempdir().unwrap();
    let pool = pool(work(&root, Profile::new()));
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let lease = pool.acquire_with(profile("work")).await.unwrap();
                let log = lease.directory.as_ref().unwrap().join("log");
                let before = std::fs::read_to_string(&log).unwrap_or_default();
                tokio::time::sleep(Duration::from_millis(10)).await;
                std::fs::write(&log, format!("{before}{n}\n")).unwrap();
                if n % 7 == 0 {
                    lease.discard();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let log = std::fs::read_to_string(root.path().join("work/0/log")).unwrap();
    assert_eq!(log.lines().collect::<BTreeSet<_>>().len(), 50);
    assert!(!root.path().join("work/1").exists());
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_is_there_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    for run in 0..3 {
        let pool = pool(work(&root, Profile::new().max_size(3)));
        let lease = pool.acquire_with(profile("work")).await.unwrap();
        let cookie = lease.directory.as_ref().unwrap().join("cookie");
        assert_eq!(cookie.exists(), run > 0);
        std::fs::write(cookie, "logged in").unwrap();
        drop(lease);
        pool.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_profile_whose_directories_are_in_use_elsewhere_is_busy() {
    let root = tempfile::tempdir().unwrap();
    let other = work(&root, Profile::new());
    let held = other.claim("work").unwrap();
    let pool = pool(work(&root, Profile::new()));
    let error = pool.acquire_with(profile("work")).await.err().unwrap();
    assert!(matches!(
        cause(&error),
        PolicyError::ProfileBusy { profile, instances: 1 } if profile == "work"
    ));
    drop(held);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(pool.acquire_with(profile("work")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn each_lease_of_a_template_starts_from_the_saved_state() {
    let root = tempfile::tempdir().unwrap();
    let profiles = work(&root, Profile::new().mode(ProfileMode::Template).max_size(2));
    let instance = profiles.claim("work").unwrap();
    std::fs::write(instance.open().await.unwrap().join("login"), "saved").unwrap();
    profiles.save_template(&instance).await.unwrap();
    drop(instance);

    let pool = pool(profiles);
    let mut directories = BTreeSet::new();
    for _ in 0..5 {
        let lease = pool.acquire_with(profile("work")).await.unwrap();
        let directory = lease.directory.clone().unwrap();
        assert_eq!(std::fs::read_to_string(directory.join("login")).unwrap(), "saved");
        assert!(!directory.join("dirt").exists());
        std::fs::write(directory.join("dirt"), "").unwrap();
        std::fs::write(directory.join("login"), "changed").unwrap();
        directories.insert(directory);
    }
    assert_eq!(directories.len(), 5);
    pool.close().await;
    assert!(directories.iter().all(|directory| !directory.exists()));
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_is_kept_elsewhere_has_no_directory_here_and_ends_with_its_lease() {
    let root = tempfile::tempdir().unwrap();
    let pool = pool(work(&root, Profile::new().kept_elsewhere(true)));
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let lease = pool.acquire_with(profile("work")).await.unwrap();
        assert!(lease.profile.is_none());
        seen.insert(lease.id);
    }
    assert_eq!(seen.len(), 3);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let build = |name: &str, profile| Profiles::builder(root.path()).profile(name, profile).build();
    assert!(matches!(build("../x", Profile::new()), Err(PolicyError::Name { .. })));
    assert!(matches!(
        build("x", Profile::new().min_size(3).max_size(2)),
        Err(PolicyError::MinAboveMax { kind: "profile", min: 3, max: 2, .. })
    ));
    assert!(matches!(build("x", Profile::new().max_size(0)), Err(PolicyError::Setting { .. })));
    assert!(matches!(build("x", Profile::new().region("a b")), Err(PolicyError::Name { .. })));
    let default = Profiles::builder(root.path()).default_profile("x").build();
    assert!(matches!(default, Err(PolicyError::Unknown { .. })));
    std::fs::write(root.path().join("file"), "").unwrap();
    let in_the_way = Profiles::builder(root.path().join("file/root")).build();
    assert!(matches!(in_the_way, Err(PolicyError::Disk { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_several_classes_closes_idle_profiles_to_make_room() {
    let root = tempfile::tempdir().unwrap();
    let profiles = Profiles::builder(root.path()).on_demand(Profile::new()).build().unwrap();
    let pool = Pool::builder(Browsers::default()).policy(profiles).max_size(2).build().unwrap();
    for n in 0..10 {
        let lease = pool.acquire_with(profile(&format!("user-{n}"))).await.unwrap();
        assert_eq!(lease.profile.as_ref().unwrap().number(), Some(0));
    }
    assert!(pool.load().total() <= 2);
}
