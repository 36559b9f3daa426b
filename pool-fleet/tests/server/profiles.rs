//! Profiles that travel, over a real store.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool_fleet::subject::Subjects;
use pool_fleet::{
    ClaimTimes, ClaimedProfile, Incarnation, NatsOptions, NatsTransport, NodeName, Packing,
    ProfileError, ProfileId, ProfileSettings, Profiles, Store, Transport,
};
use tempfile::TempDir;

use crate::support::{Cable, Failing, Nats, until};

const LONG: Duration = Duration::from_secs(20);

/// The times of a claim, five times as fast.
fn times() -> ClaimTimes {
    let mut times = ClaimTimes::default();
    times.renew /= 5;
    times.lost /= 5;
    times.takeover /= 5;
    times.look /= 5;
    times
}

/// A node that has profiles and nothing else.
struct Node {
    profiles: Profiles,
    transport: Arc<NatsTransport>,
    dir: TempDir,
}

/// Which nodes each node knows.
const FLEET: [&str; 3] = ["a", "b", "c"];

async fn node(name: &'static str, nats: &Nats, known: &'static [&'static str]) -> Node {
    node_at(name, nats.url(), known, tempfile::tempdir().unwrap()).await
}

async fn node_at(
    name: &'static str,
    url: String,
    known: &'static [&'static str],
    dir: TempDir,
) -> Node {
    let settings = ProfileSettings::new(dir.path().join("profiles"));
    node_with(name, url, known, dir, settings).await
}

async fn node_with(
    name: &'static str,
    url: String,
    known: &'static [&'static str],
    dir: TempDir,
    settings: ProfileSettings,
) -> Node {
    let transport = NatsTransport::connect(NatsOptions::new([url])).await.unwrap();
    let settings = settings
        .packing(Packing::new().without(["Cache"]))
        .times(times())
        .settle(Duration::from_millis(300));
    let others = move || -> Vec<NodeName> {
        known.iter().filter(|other| **other != name).map(|other| (*other).into()).collect()
    };
    let profiles = Profiles::new(
        settings,
        Arc::clone(&transport) as Arc<dyn Transport>,
        Arc::clone(&transport) as Arc<dyn Store>,
        Subjects::new("test").unwrap(),
        (name.into(), Incarnation::new(Duration::from_secs(1), fastrand::u32(..))),
        Arc::new(others),
    );
    let served = profiles.clone();
    tokio::spawn(async move { served.serve().await.unwrap() });
    Node { profiles, transport, dir }
}

impl Node {
    async fn claim(&self, profile: &str) -> ClaimedProfile {
        self.profiles.claim(&ProfileId::new(profile, 0), LONG).await.unwrap()
    }
}

fn files(directory: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let content = if path.is_dir() {
            String::from("a directory")
        } else {
            std::fs::read_to_string(&path).unwrap()
        };
        (name, content)
    };
    entries.map(read).collect()
}

fn write(claimed: &ClaimedProfile, name: &str, content: &str) {
    std::fs::write(claimed.directory().join(name), content).unwrap();
}

fn login(content: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("login".to_owned(), content.to_owned())])
}

#[tokio::test]
async fn a_profile_leased_on_a_then_b_then_a_keeps_its_content() {
    let nats = Nats::start();
    let (a, b) = (node("a", &nats, &FLEET[..2]).await, node("b", &nats, &FLEET[..2]).await);
    let on_a = a.claim("crm@example.com:1+x").await;
    assert!(files(&on_a.directory()).is_empty(), "it is new");
    write(&on_a, "login", "ada");
    std::fs::create_dir(on_a.directory().join("Cache")).unwrap();
    assert_eq!(on_a.release(LONG).await.unwrap(), 1);

    let on_b = b.claim("crm@example.com:1+x").await;
    assert_eq!(files(&on_b.directory()), login("ada"), "caches stay behind");
    assert_eq!(on_b.content(), 1);
    // Nobody else has it meanwhile, on whichever node.
    for node in [&a, &b] {
        let id = ProfileId::new("crm@example.com:1+x", 0);
        let busy = node.profiles.claim(&id, Duration::from_millis(300)).await;
        assert!(matches!(busy, Err(ProfileError::Busy { .. })), "{busy:?}");
    }
    write(&on_b, "login", "bob");
    assert_eq!(on_b.release(LONG).await.unwrap(), 2);

    // A has a copy of its own, which is not the newest, and discards it.
    let on_a = a.claim("crm@example.com:1+x").await;
    assert_eq!(files(&on_a.directory()), login("bob"));
    on_a.release_untouched().await.unwrap();
    // Now its copy is the newest and nothing has to travel.
    let copies = a.profiles.copies().await.unwrap();
    assert_eq!(copies, [(ProfileId::new("crm@example.com:1+x", 0), 2)]);
    assert_eq!(files(&a.claim("crm@example.com:1+x").await.directory()), login("bob"));
}

#[tokio::test]
async fn a_node_killed_with_a_profile_loses_only_what_its_lease_did() {
    let nats = Nats::start();
    let b = node("b", &nats, &FLEET[..2]).await;
    // A process of its own, as far as its tasks go.
    let process = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let url = nats.url();
    let leased = process.spawn(async move {
        let a = node_at("a", url, &FLEET[..2], tempfile::tempdir().unwrap()).await;
        let on_a = a.claim("work").await;
        write(&on_a, "login", "saved");
        on_a.release(LONG).await.unwrap();
        let on_a = a.claim("work").await;
        write(&on_a, "login", "half written");
        // Never dropped: a process that is killed gives nothing back.
        std::mem::forget(on_a);
        a
    });
    let a = leased.await.unwrap();
    process.shutdown_background();
    let disk = a.dir;

    let started = Instant::now();
    let on_b = b.claim("work").await;
    let waited = started.elapsed();
    assert!(waited >= times().takeover && waited < times().takeover * 3, "{waited:?}");
    assert_eq!(files(&on_b.directory()), login("saved"));
    write(&on_b, "login", "by b");
    on_b.release(LONG).await.unwrap();

    // A comes back with its disk as it was and does not believe it.
    let a = node_at("a", nats.url(), &FLEET[..2], disk).await;
    assert!(a.profiles.copies().await.unwrap().is_empty(), "what was in use is no copy");
    assert_eq!(files(&a.claim("work").await.directory()), login("by b"));
}

#[tokio::test]
async fn of_many_that_claim_a_profile_one_has_it_at_a_time() {
    let nats = Nats::start();
    let (a, b) = (node("a", &nats, &FLEET[..2]).await, node("b", &nats, &FLEET[..2]).await);
    let claims = (0..6).map(|n| {
        let node = if n % 2 == 0 { &a } else { &b };
        async move {
            let claimed = node.claim("work").await;
            let count = files(&claimed.directory()).get("count").map_or(0, |n| n.parse().unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
            write(&claimed, "count", &(count + 1).to_string());
            claimed.release(LONG).await.unwrap();
        }
    });
    futures_util::future::join_all(claims).await;
    let last = a.claim("work").await;
    assert_eq!(files(&last.directory())["count"], "6", "nobody overwrote another's");
    assert_eq!(last.content(), 6);
}

#[tokio::test]
async fn a_holder_cut_off_ends_its_lease_before_another_has_it_and_cannot_save() {
    let nats = Nats::start();
    let b = node("b", &nats, &FLEET[..2]).await;
    let cable = Cable::to(nats.port()).await;
    let a = node_at("a", cable.url(), &FLEET[..2], tempfile::tempdir().unwrap()).await;
    let on_a = a.claim("work").await;
    write(&on_a, "login", "saved");
    on_a.release(LONG).await.unwrap();
    let on_a = a.claim("work").await;
    assert!(!on_a.is_lost());
    cable.cut(true);
    let started = Instant::now();
    let (lost_after, on_b) = tokio::join!(
        async {
            while !on_a.is_lost() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            started.elapsed()
        },
        b.claim("work"),
    );
    let taken_after = started.elapsed();
    assert!(lost_after < taken_after, "{lost_after:?} and {taken_after:?}");
    assert!(lost_after <= times().lost + Duration::from_millis(500), "{lost_after:?}");
    write(&on_a, "login", "too late");
    cable.cut(false);
    let refused = on_a.release(LONG).await;
    assert!(matches!(refused, Err(ProfileError::Lost)), "{refused:?}");
    assert_eq!(files(&on_b.directory()), login("saved"));
    on_b.release(LONG).await.unwrap();
    assert!(a.profiles.copies().await.unwrap().is_empty(), "its copy is discarded");
    assert_eq!(files(&a.claim("work").await.directory()), login("saved"));
}

#[tokio::test]
async fn while_the_server_is_gone_a_claim_is_refused_and_a_save_waits_for_its_return() {
    let mut nats = Nats::start();
    let a = node("a", &nats, &FLEET[..1]).await;
    let on_a = a.claim("work").await;
    write(&on_a, "login", "ada");
    nats.kill();
    let mut connection = a.transport.connection();
    connection.wait_for(|connection| !connection.is_connected()).await.unwrap();
    let refused = a.profiles.claim(&ProfileId::new("other", 0), LONG).await;
    assert!(matches!(refused, Err(ProfileError::Unavailable(_))), "{refused:?}");
    tokio::time::timeout(LONG, on_a.lost()).await.unwrap();
    let releasing = tokio::spawn(on_a.release(LONG));
    tokio::time::sleep(Duration::from_millis(300)).await;
    nats.restart();
    // Lost by time, but nobody has taken it: nothing of it is lost.
    assert_eq!(releasing.await.unwrap().unwrap(), 1);
    assert_eq!(files(&a.claim("work").await.directory()), login("ada"));
}

#[tokio::test]
async fn a_server_that_comes_back_empty_loses_nothing_that_a_live_node_has() {
    let mut nats = Nats::start();
    let (a, b, c) = (
        node("a", &nats, &FLEET).await,
        node("b", &nats, &FLEET).await,
        node("c", &nats, &FLEET).await,
    );
    for (node, profile, words) in
        [(&a, "one", "by a"), (&b, "one", "by b"), (&c, "two", "by c"), (&a, "held", "before")]
    {
        let claimed = node.claim(profile).await;
        write(&claimed, "login", words);
        claimed.release(LONG).await.unwrap();
    }
    let held = b.claim("held").await;
    write(&held, "login", "after");

    nats.restart_empty(&c.transport).await;

    // Neither is new: the newest copies of both are still there.
    let one = c.claim("one").await;
    assert_eq!((files(&one.directory()), one.content()), (login("by b"), 2));
    let two = a.claim("two").await;
    assert_eq!((files(&two.directory()), two.content()), (login("by c"), 1));
    // The one that is in use is still in use, once, and is saved.
    let busy = c.profiles.claim(&ProfileId::new("held", 0), Duration::from_millis(600)).await;
    assert!(matches!(busy, Err(ProfileError::Busy { .. })), "{busy:?}");
    assert_eq!(held.release(LONG).await.unwrap(), 2);
    assert_eq!(files(&c.claim("held").await.directory()), login("after"));
}

#[tokio::test]
async fn a_profile_is_not_new_while_a_node_that_may_have_it_is_silent() {
    let mut nats = Nats::start();
    let b = node("b", &nats, &FLEET[..2]).await;
    let refused = b.profiles.claim(&ProfileId::new("work", 0), Duration::from_secs(1)).await;
    let Err(ProfileError::Unknown { nodes }) = refused else { panic!("{refused:?}") };
    assert_eq!(nodes, ["a"]);
    let a = node("a", &nats, &FLEET[..2]).await;
    write(&b.claim("work").await, "login", "lost with its lease");
    until("it is given up", LONG, async || {
        let id = ProfileId::new("work", 0);
        match b.profiles.claim(&id, Duration::ZERO).await {
            Ok(claimed) => claimed.release_untouched().await.is_ok(),
            Err(_) => false,
        }
    })
    .await;
    drop(a);

    // By command it is, with the other node silent.
    nats.restart_empty(&b.transport).await;
    until("it is made new", LONG, async || {
        b.profiles.make_new(&ProfileId::new("work", 0)).await.is_ok()
    })
    .await;
    assert_eq!(b.claim("work").await.content(), 0);
}

#[tokio::test]
async fn a_node_that_was_away_does_not_overwrite_a_profile_that_was_made_new() {
    let nats = Nats::start();
    let b = node("b", &nats, &FLEET[..2]).await;
    let cable = Cable::to(nats.port()).await;
    let a = node_at("a", cable.url(), &FLEET[..2], tempfile::tempdir().unwrap()).await;
    for words in ["old", "older by count"] {
        let on_a = a.claim("work").await;
        write(&on_a, "login", words);
        on_a.release(LONG).await.unwrap();
    }
    let mut connection = a.transport.connection();
    cable.cut(true);
    connection.wait_for(|connection| !connection.is_connected()).await.unwrap();
    b.profiles.make_new(&ProfileId::new("work", 0)).await.unwrap();
    cable.cut(false);
    connection.wait_for(pool_fleet::Connection::is_connected).await.unwrap();
    // More than the 300 ms after which it compares its copies with the store.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let on_b = b.claim("work").await;
    assert_eq!((files(&on_b.directory()), on_b.content()), (BTreeMap::new(), 0));
    write(&on_b, "login", "new");
    on_b.release(LONG).await.unwrap();
    let on_a = a.claim("work").await;
    assert_eq!((files(&on_a.directory()), on_a.content()), (login("new"), 1));
}

#[tokio::test]
async fn what_failed_uploads_and_replaced_saves_have_left_is_removed_in_time() {
    let nats = Nats::start();
    let dir = tempfile::tempdir().unwrap();
    // Long enough to see it first.
    let settings = ProfileSettings::new(dir.path().join("profiles")).unused(Duration::from_secs(3));
    let a = node_with("a", nats.url(), &FLEET[..1], dir, settings).await;
    for words in ["first", "last"] {
        let on_a = a.claim("work").await;
        write(&on_a, "login", words);
        on_a.release(LONG).await.unwrap();
    }
    let bucket = Subjects::new("test").unwrap().bucket("profiles");
    let failing = Box::pin(Failing::after(&[7; 300_000]));
    a.transport.put_object(&bucket, "work/0/failed", failing).await.unwrap_err();
    assert_eq!(a.transport.uploads(&bucket).await.unwrap().len(), 1);
    until("both are removed", LONG, async || {
        let uploads = a.transport.uploads(&bucket).await.unwrap();
        uploads.is_empty() && a.transport.objects(&bucket).await.unwrap().len() == 1
    })
    .await;
    assert_eq!(files(&a.claim("work").await.directory()), login("last"));
}
