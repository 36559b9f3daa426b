//! F34 to F37: a machine that has nothing left, and what the kernel does about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use browser_pool_tests::process::{Process, descendants};
use browser_pool_tests::{
    Case, Home, LeaseKind, Setup, SmallDisk, case, case_in, eventually, for_both_kinds, refused,
};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::support::{kill_idle, until_full, works};

for_both_kinds!(
    f35_the_kernel_ends_a_browser_before_the_pool,
    f36_each_browser_is_in_a_cgroup_of_its_own,
);

#[tokio::test(flavor = "multi_thread")]
async fn f34_disk_full() {
    let home = Home::new();
    let Some(disk) = SmallDisk::on(&home.state_dir()) else {
        eprintln!("not tested: a file system can only be mounted by root");
        return;
    };
    case_in(home, Setup::new(), async |case| {
        let filler = disk.fill();
        kill_idle(case).await;
        let began = Instant::now();
        let refused = eventually_refused(case).await;
        println!("refused after {:?}: {refused}", began.elapsed());
        assert!(
            refused.contains("No space left on device") || refused.contains("launch"),
            "{refused}"
        );
        disk.empty(filler);
        eventually("it heals by itself", Duration::from_secs(90), async || {
            let load = case.service.state().await["load"].clone();
            if load["idle"] == load["min_size"] { Ok(()) } else { Err(load) }
        })
        .await;
    })
    .await;
    drop(disk);
}

/// The sentence of a refusal for want of a browser. What still comes up, in the room that another
/// has left, is killed.
async fn eventually_refused(case: &Case) -> String {
    let mut told = String::new();
    eventually("a lease is refused", Duration::from_secs(30), async || {
        match case.service.try_connect("/?acquire_timeout=5000").await {
            Err(refused) if [408, 503].contains(&refused.status) => {
                told = refused.detail().to_owned();
                Ok(())
            }
            Err(refused) => Err(format!("{refused:?}")),
            Ok(client) => {
                case.service.browser_of(&client).await.signal(Signal::KILL);
                Err("there was a browser".to_owned())
            }
        }
    })
    .await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn f37_descriptors_exhausted() {
    // Enough for two Chromiums and a few clients.
    let setup = Setup::new().wrapper(["prlimit", "--nofile=90:90"]);
    case(setup, async |case| {
        let mut crowd = Vec::new();
        for _ in 0..150 {
            crowd
                .push(TcpStream::connect(&case.service.address).await.expect("the kernel accepts"));
        }
        eventually("they are exhausted", Duration::from_secs(9), async || {
            let held = case.service.process.descriptors();
            if held >= 80 { Ok(()) } else { Err(held) }
        })
        .await;
        let used = case.service.process.cpu_seconds();
        sleep(Duration::from_secs(3)).await;
        let used = case.service.process.cpu_seconds() - used;
        assert!(used < 1.0, "it spins: {used} s of CPU in 3 s");
        // Launches that fail for want of descriptors are not to end anything else.
        kill_idle(case).await;
        sleep(Duration::from_secs(1)).await;
        drop(crowd);
        eventually("it serves again", Duration::from_secs(60), async || {
            match case.service.try_connect("/?acquire_timeout=5000").await {
                Ok(client) => works(&client).await,
                Err(refused) => Err(format!("{refused:?}")),
            }
        })
        .await;
        until_full(&case.service).await;
    })
    .await;
}

async fn f35_the_kernel_ends_a_browser_before_the_pool(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let client = case.service.connect("/").await;
        works(&client).await.expect("it is a browser");
        let score = |pid: u32| -> Option<i32> {
            let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?;
            Some(text.trim().parse().expect("it is a number"))
        };
        let pool = score(case.service.process.pid).expect("it lives");
        let chromium = case.oracle.ours.chromium();
        assert!(chromium.len() > 4, "{chromium:?}");
        for process in chromium {
            // A renderer may have gone meanwhile.
            let Some(browser) = score(process.id.pid) else { continue };
            assert!(browser > pool, "{}: {browser}, the pool {pool}", process.name);
        }
    })
    .await;
}

/// The directory in which this process could make control groups, if it could.
fn cgroups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
    let root = PathBuf::from(format!("{mount}{}", group_of(std::process::id())?));
    let probe = root.join(format!("browser-pool-probe-{}", std::process::id()));
    fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).ok()?;
    Some(root)
}

/// The control group of a process, below the mount.
fn group_of(pid: u32) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    Some(groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_end_matches('/').to_owned())
}

/// The groups of this pool's browsers.
fn browser_groups(root: &Path, home: &Home) -> Vec<PathBuf> {
    let names = |directory: PathBuf| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let directories = names(home.state_dir().join("run"));
    let groups = names(root.to_owned()).into_iter();
    let is_its = |name: &String| {
        name.strip_prefix("browser-").is_some_and(|id| directories.iter().any(|it| it == id))
    };
    groups.filter(is_its).map(|name| root.join(name)).collect()
}

async fn f36_each_browser_is_in_a_cgroup_of_its_own(kind: LeaseKind) {
    let Some(root) = cgroups() else {
        eprintln!("not tested: no cgroup v2 that this user may divide");
        return;
    };
    let setup = Setup::new().kind(kind).set("chrome.memory_max", "2GiB");
    case(setup, async |case| {
        let client = case.service.connect("/").await;
        works(&client).await.expect("it is a browser");
        let own = group_of(case.service.process.pid).expect("it has one");
        assert!(own.ends_with("/browser-pool-main"), "{own}");
        // From the first instruction: none of what they have started is elsewhere.
        let browsers = case.oracle.ours.browsers();
        let mut found = Vec::new();
        for browser in &browsers {
            let group = group_of(browser.id.pid).expect("it has one");
            assert!(group.contains("/browser-") && group != own, "{group}");
            for helper in descendants(browser.id.pid, &Process::all()) {
                // One that has ended meanwhile is in none.
                if let Some(its) = group_of(helper.id.pid) {
                    assert_eq!(its, group, "{}", helper.name);
                }
            }
            found.push(group);
        }
        found.dedup();
        assert_eq!(found.len(), browsers.len(), "they share one: {found:?}");
        let groups = browser_groups(&root, &case.home);
        assert_eq!(groups.len(), browsers.len());
        for group in &groups {
            let limit = fs::read_to_string(group.join("memory.max"));
            match &limit {
                Ok(limit) => assert_eq!(limit.trim(), (2_u64 << 30).to_string()),
                Err(_) => assert!(case.home.log().contains("does not enforce all limits")),
            }
        }
        // One that dies takes its group with it.
        let browser = case.service.browser_of(&client).await;
        browser.signal(Signal::KILL);
        eventually("its group is gone", Duration::from_secs(5), async || {
            let left = groups.iter().filter(|group| group.exists()).count();
            if left < groups.len() { Ok(()) } else { Err(left) }
        })
        .await;
        until_full(&case.service).await;
        // Those of a pool that was killed go with what it has left.
        let groups = browser_groups(&root, &case.home);
        assert!(!groups.is_empty());
        case.kill_service().await;
        case.oracle.gone(Duration::from_secs(5)).await;
        case.restart().await;
        let left: Vec<_> = groups.iter().filter(|group| group.exists()).collect();
        assert!(left.is_empty(), "{left:?}");
    })
    .await;
    // That of the pool itself, which a process in it cannot remove, goes with the unit or container
    // that it is in; an error means that another pool is in it.
    let _ = fs::remove_dir(root.join("browser-pool-main"));
}

#[tokio::test(flavor = "multi_thread")]
async fn f36_limits_that_are_required_and_cannot_be_held() {
    let has_memory = cgroups().is_some_and(|root| {
        let controllers = fs::read_to_string(root.join("cgroup.controllers"));
        controllers.is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"))
    });
    if has_memory {
        eprintln!("not tested: the kernel could hold them here");
        return;
    }
    let setup = Setup::new().set("chrome.memory_max", "2GiB").set("chrome.limits", "required");
    let (exit, log) = refused(Home::new(), &setup).await;
    assert_eq!(exit.code, Some(78), "{log}");
    assert!(log.contains("cannot enforce the limits"), "{log}");
}
