use super::*;
use crate::transport::memory::{Faults, MemoryNetwork, MemoryTransport};

const LONG: Duration = Duration::from_secs(60);

/// A node that has profiles and nothing else, and knows the nodes `a` and `b`.
struct Node {
    profiles: Profiles,
    transport: Arc<MemoryTransport>,
    _dir: tempfile::TempDir,
}

fn node(network: &MemoryNetwork, name: &'static str) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let settings = ProfileSettings::new(dir.path().join("profiles"));
    node_with(network, name, dir, settings)
}

fn node_with(
    network: &MemoryNetwork,
    name: &'static str,
    dir: tempfile::TempDir,
    settings: ProfileSettings,
) -> Node {
    let transport = network.member(name);
    let others = move || -> Vec<NodeName> {
        ["a", "b"].into_iter().filter(|other| *other != name).map(Arc::from).collect()
    };
    let profiles = Profiles::new(
        settings,
        Arc::clone(&transport) as _,
        Arc::clone(&transport) as _,
        Subjects::new("test").unwrap(),
        (name.into(), Incarnation::new(Duration::from_secs(1), 0)),
        Arc::new(others),
    );
    let served = profiles.clone();
    tokio::spawn(async move { served.serve().await });
    Node { profiles, transport, _dir: dir }
}

fn work() -> ProfileId {
    ProfileId::new("work", 0)
}

impl Node {
    async fn claim(&self) -> ClaimedProfile {
        self.profiles.claim(&work(), LONG).await.unwrap()
    }

    async fn save(&self, login: &str) -> u64 {
        let claimed = self.claim().await;
        std::fs::write(claimed.directory().join("login"), login).unwrap();
        claimed.release(LONG).await.unwrap()
    }

    /// Returns the saved content, and how often it was saved.
    async fn saved(&self) -> (Option<String>, u64) {
        let claimed = self.claim().await;
        let login = std::fs::read_to_string(claimed.directory().join("login")).ok();
        let content = claimed.content();
        claimed.release_untouched().await.unwrap();
        (login, content)
    }
}

/// Saves a profile twice at `a`, cuts `a` off, and makes the profile anew at `b`.
async fn made_new_while_a_is_cut_off(network: &MemoryNetwork) -> (Node, Node) {
    let (a, b) = (node(network, "a"), node(network, "b"));
    a.save("old").await;
    a.save("older by count").await;
    network.cut("a", true);
    b.profiles.make_new(&work()).await.unwrap();
    (a, b)
}

#[tokio::test(start_paused = true)]
async fn a_copy_from_before_a_profile_was_made_new_does_not_overwrite_it() {
    let network = MemoryNetwork::new();
    let (a, b) = made_new_while_a_is_cut_off(&network).await;
    // It comes back, and compares its copies with the store.
    network.cut("a", false);
    sleep(LONG).await;
    assert_eq!(b.saved().await, (None, 0));
    assert_eq!(b.save("new").await, 1);
    assert_eq!(a.saved().await, (Some("new".into()), 1));
}

#[tokio::test(start_paused = true)]
async fn of_copies_from_before_and_after_a_profile_was_made_new_the_new_one_comes_back() {
    let network = MemoryNetwork::new();
    let (a, b) = made_new_while_a_is_cut_off(&network).await;
    assert_eq!(b.save("new").await, 1);
    network.wipe();
    network.cut("a", false);
    assert_eq!(a.saved().await, (Some("new".into()), 1));
}

#[tokio::test(start_paused = true)]
async fn a_holder_from_before_a_profile_was_made_new_cannot_save() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a"), node(&network, "b"));
    a.save("old").await;
    let held = a.claim().await;
    let busy = b.profiles.make_new(&work()).await;
    assert!(matches!(busy, Err(ProfileError::Busy { holder: Some(_) })), "{busy:?}");
    network.wipe();
    // The store knows nothing; the node that has the copy does.
    let busy = b.profiles.make_new(&work()).await;
    assert!(matches!(busy, Err(ProfileError::Busy { .. })), "{busy:?}");
    network.cut("a", true);
    network.wipe();
    b.profiles.make_new(&work()).await.unwrap();
    network.cut("a", false);
    let refused = held.release(LONG).await;
    assert!(matches!(refused, Err(ProfileError::Lost)), "{refused:?}");
    assert_eq!(b.saved().await, (None, 0));
}

#[tokio::test(start_paused = true)]
async fn content_that_is_lost_is_not_found_in_a_copy_from_before_the_profile_was_made_new() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a"), node(&network, "b"));
    a.save("old").await;
    network.cut("a", true);
    b.profiles.make_new(&work()).await.unwrap();
    // The holder made the entry again in an emptied store, and died.
    let (revision, record) = b.profiles.inner.read(&work()).await.unwrap().unwrap();
    let lost = Record { content: 1, ..record };
    b.profiles.inner.write(&work(), &lost, Some(revision)).await.unwrap();
    network.cut("a", false);
    let refused = b.profiles.claim(&work(), LONG).await;
    assert!(matches!(refused, Err(ProfileError::ContentLost)), "{refused:?}");
    assert!(
        b.transport.objects("bp-test-profiles").await.unwrap().len() == 1,
        "nothing is put back"
    );
}

/// Time that the store takes for an answer in the tests that cancel something.
const SLOW: Duration = Duration::from_millis(100);

/// Begins something with a profile, and drops it after each time at which part of it may be under
/// way. Returns what is saved then, once the other node has got the profile.
async fn cancelled<F: Future>(begin: impl Fn(ClaimedProfile) -> F) -> Vec<(Option<String>, u64)> {
    let mut saved = Vec::new();
    for steps in 1..10 {
        let network = MemoryNetwork::new();
        let (a, b) = (node(&network, "a"), node(&network, "b"));
        a.save("saved").await;
        let claimed = a.claim().await;
        std::fs::write(claimed.directory().join("login"), "last").unwrap();
        network.set_faults(Faults::none().store_delay(SLOW), 1);
        tokio::time::timeout(SLOW * steps / 2, begin(claimed)).await.map(drop).ok();
        saved.push(b.free_soon(steps).await);
    }
    saved
}

impl Node {
    /// Returns the saved content of a profile that another node will not hold much longer.
    async fn free_soon(&self, steps: u32) -> (Option<String>, u64) {
        // Time only advances for those that wait, so no claim grows old enough to be taken over.
        let claimed = self.profiles.claim(&work(), Duration::from_secs(5)).await;
        let claimed = claimed.unwrap_or_else(|error| panic!("cancelled after {steps}: {error}"));
        claimed.release_untouched().await.unwrap();
        self.saved().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_cancelled_at_any_moment_is_free_at_once() {
    for steps in 1..14 {
        let network = MemoryNetwork::new();
        let (a, b) = (node(&network, "a"), node(&network, "b"));
        a.save("saved").await;
        network.set_faults(Faults::none().store_delay(SLOW), 1);
        let id = work();
        let claiming = a.profiles.claim(&id, LONG);
        tokio::time::timeout(SLOW * steps / 2, claiming).await.map(drop).ok();
        assert_eq!(b.free_soon(steps).await, (Some("saved".into()), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_cancelled_at_any_moment_is_saved_and_free_at_once() {
    for saved in cancelled(|claimed| claimed.release(LONG)).await {
        assert_eq!(saved, (Some("last".into()), 2));
    }
    for saved in cancelled(ClaimedProfile::release_untouched).await {
        assert_eq!(saved, (Some("saved".into()), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_is_free_once_the_store_is_back() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a"), node(&network, "b"));
    a.save("saved").await;
    network.set_faults(Faults::none().store_delay(SLOW), 1);
    let profiles = a.profiles.clone();
    let claiming = tokio::spawn(async move { profiles.claim(&work(), LONG).await });
    // By then, the first answer has come and the claim is written.
    sleep(SLOW * 3 / 2).await;
    network.cut("a", true);
    let refused = claiming.await.unwrap();
    assert!(matches!(refused, Err(ProfileError::Unavailable(_))), "{refused:?}");
    network.cut("a", false);
    b.profiles.claim(&work(), Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_is_slow_holds_up_no_other_task() {
    for claims in [false, true] {
        let network = MemoryNetwork::new();
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("profiles/work.0");
        std::fs::create_dir_all(&place).unwrap();
        // The mark is a pipe: it is read when somebody has written it, and not before.
        let mark = place.join("mark");
        assert!(std::process::Command::new("mkfifo").arg(&mark).status().unwrap().success());
        let (ran, others) = std::sync::mpsc::channel();
        let disk = std::thread::spawn(move || {
            let ran = others.recv_timeout(Duration::from_secs(5)).is_ok();
            std::fs::write(mark, "no mark").unwrap();
            ran
        });
        // The profiles' own check of the copies happens after the end of this test.
        let settings = ProfileSettings::new(dir.path().join("profiles")).settle(LONG);
        let a = node_with(&network, "a", dir, settings);
        let profiles = a.profiles.clone();
        let reading = tokio::spawn(async move {
            if claims {
                let claimed = profiles.claim(&work(), Duration::ZERO).await;
                assert!(matches!(claimed, Err(ProfileError::Unknown { .. })), "{claimed:?}");
            } else {
                assert_eq!(profiles.copies().await.unwrap(), []);
            }
        });
        sleep(Duration::from_millis(100)).await;
        ran.send(()).unwrap();
        reading.await.unwrap();
        assert!(disk.join().unwrap(), "nothing else ran while the disk was slow");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_knows_where_the_profile_is_in_use() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a"), node(&network, "b"));
    let at = |node: &Node| node.profiles.in_use_at(&work()).map(|node| node.to_string());
    assert_eq!((at(&a), at(&b)), (None, None));
    let held = a.claim().await;
    assert_eq!((at(&a), at(&b)), (Some("a".into()), None), "b has not asked");
    let profiles = b.profiles.clone();
    let waiting = tokio::spawn(async move { profiles.claim(&work(), LONG).await });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(at(&b), Some("a".into()));
    held.release_untouched().await.unwrap();
    let held = waiting.await.unwrap().unwrap();
    assert_eq!((at(&a), at(&b)), (None, Some("b".into())));
    held.release_untouched().await.unwrap();

    // One that gives up knows no more.
    let held = a.claim().await;
    let profiles = b.profiles.clone();
    let gone = profiles.claim(&work(), Duration::from_secs(1)).await;
    assert!(matches!(gone, Err(ProfileError::Busy { .. })), "{gone:?}");
    assert_eq!(at(&b), None);
    held.release_untouched().await.unwrap();
}

/// Returns a node, and the transfers that it tells of.
fn counted(
    network: &MemoryNetwork,
    name: &'static str,
) -> (Node, std::sync::mpsc::Receiver<Transfer>) {
    let (told, transfers) = std::sync::mpsc::channel();
    let dir = tempfile::tempdir().unwrap();
    let settings = ProfileSettings::new(dir.path().join("profiles"))
        .on_transfer(move |transfer| told.send(*transfer).unwrap_or_default());
    (node_with(network, name, dir, settings), transfers)
}

#[tokio::test(start_paused = true)]
async fn each_transfer_is_told_of_once_with_its_size_and_its_end() {
    let network = MemoryNetwork::new();
    let ((a, of_a), (b, of_b)) = (counted(&network, "a"), counted(&network, "b"));
    let told = |transfers: &std::sync::mpsc::Receiver<Transfer>| -> Vec<_> {
        transfers.try_iter().map(|told| (told.direction, told.outcome, told.bytes)).collect()
    };
    a.save("login").await;
    let saved = told(&of_a);
    let [(TransferDirection::Out, TransferOutcome::Ok, bytes)] = saved[..] else {
        panic!("one save, and nothing to fetch: {saved:?}");
    };
    assert!(bytes > 0);

    assert_eq!(b.saved().await, (Some("login".into()), 1));
    assert_eq!(told(&of_b), [(TransferDirection::In, TransferOutcome::Ok, bytes)]);
    // Its copy is the newest by now, and nothing was changed.
    assert_eq!(b.saved().await, (Some("login".into()), 1));
    assert_eq!((told(&of_a), told(&of_b)), (vec![], vec![]));

    // What is tried again is told of again.
    let claimed = b.claim().await;
    network.cut("b", true);
    let saving = claimed.release(LONG);
    let back = async {
        // Before the second try.
        sleep(ClaimTimes::default().renew / 4).await;
        network.cut("b", false);
    };
    assert_eq!(tokio::join!(saving, back).0.unwrap(), 2);
    let saved = told(&of_b);
    let ends: Vec<_> = saved.iter().map(|(direction, outcome, _)| (direction, outcome)).collect();
    let out = &TransferDirection::Out;
    let [failed, ok] = [&TransferOutcome::Error, &TransferOutcome::Ok];
    assert_eq!(ends, [(out, failed), (out, ok)], "{saved:?}");
    assert_eq!(saved[0].2, 0, "nothing arrived");

    // The entry is read and written, then the object is asked for.
    network.set_faults(Faults::none().store_delay(SLOW), 1);
    let id = work();
    let claiming = a.profiles.claim(&id, LONG);
    assert!(tokio::time::timeout(SLOW * 5 / 2, claiming).await.is_err());
    assert_eq!(told(&of_a), [(TransferDirection::In, TransferOutcome::Cancelled, 0)]);
}

impl Node {
    async fn make_new_if_lost(&self) -> Result<(), ProfileError> {
        self.profiles.make_new_if_lost(&work()).await
    }

    /// Removes the saved content from the store, which goes on naming it.
    async fn lose_object(&self) {
        for object in self.transport.objects("bp-test-profiles").await.unwrap() {
            self.transport.delete_object("bp-test-profiles", &object).await.unwrap();
        }
    }
}

/// Returns where a profile was found when it was to be made new.
#[track_caller]
fn kept(made: Result<(), ProfileError>) -> Vec<String> {
    match made {
        Err(ProfileError::Kept { at }) => at,
        other => panic!("it is kept: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_profile_of_which_there_is_something_is_not_made_new() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a"), node(&network, "b"));
    a.save("login").await;
    assert_eq!(kept(b.make_new_if_lost().await), ["in the store"]);
    b.lose_object().await;
    assert_eq!(kept(b.make_new_if_lost().await), ["at a"], "the copy that the entry counts");
    assert_eq!(kept(a.make_new_if_lost().await), ["at a"], "its own copy");
    network.wipe();
    assert_eq!(kept(b.make_new_if_lost().await), ["at a"], "any copy, where the entry is gone");

    let held = a.claim().await;
    let busy = b.make_new_if_lost().await;
    assert!(matches!(busy, Err(ProfileError::Busy { holder: Some(_) })), "{busy:?}");
    network.wipe();
    // The store knows of nothing; the node that has it does.
    for node in [&a, &b] {
        let busy = node.make_new_if_lost().await;
        assert!(matches!(busy, Err(ProfileError::Busy { .. })), "{busy:?}");
    }
    held.release_untouched().await.unwrap();

    network.wipe();
    network.cut("a", true);
    let silent = b.make_new_if_lost().await;
    let Err(ProfileError::Unknown { nodes }) = silent else { panic!("{silent:?}") };
    assert_eq!(nodes, ["a"]);
    network.cut("b", true);
    let away = b.make_new_if_lost().await;
    assert!(matches!(away, Err(ProfileError::Unavailable(_))), "{away:?}");
    network.cut("a", false);
    network.cut("b", false);
    assert_eq!(b.saved().await, (Some("login".into()), 1), "all of it is as it was");
}

#[tokio::test(start_paused = true)]
async fn a_profile_whose_content_is_damaged_is_made_new_if_it_is_discarded() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a"), node(&network, "b"));
    a.save("login").await;
    for object in b.transport.objects("bp-test-profiles").await.unwrap() {
        let damaged = Box::pin(&b"no archive"[..]);
        b.transport.put_object("bp-test-profiles", &object, damaged).await.unwrap();
    }
    let refused = b.profiles.claim(&work(), LONG).await;
    assert!(matches!(refused, Err(ProfileError::Io(_))), "{refused:?}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(kept(b.make_new_if_lost().await), ["in the store"]);
    b.profiles.make_new(&work()).await.unwrap();
    assert_eq!(a.saved().await, (None, 0), "its own copy is of an earlier generation");
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_is_lost_is_made_new_for_good() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a"), node(&network, "b"));
    a.save("older").await;
    b.save("old").await;
    // Its directory was in use, and nobody has saved it.
    drop(b.claim().await);
    sleep(Duration::from_secs(1)).await;
    b.lose_object().await;
    for node in [&a, &b] {
        let lost = node.profiles.claim(&work(), LONG).await;
        assert!(matches!(lost, Err(ProfileError::ContentLost)), "{lost:?}");
    }
    sleep(Duration::from_secs(1)).await;
    b.make_new_if_lost().await.unwrap();
    assert_eq!(a.saved().await, (None, 0));
    // What is new already stays as it is, as does what there has never been.
    a.make_new_if_lost().await.unwrap();
    a.profiles.make_new_if_lost(&ProfileId::new("never", 0)).await.unwrap();
    assert_eq!(a.save("new").await, 1);
    b.lose_object().await;
    assert_eq!(kept(b.make_new_if_lost().await), ["at a"]);
    assert_eq!(a.saved().await, (Some("new".into()), 1));
}

#[tokio::test]
async fn a_dead_holder_does_not_keep_a_profile_from_being_made_new() {
    let network = MemoryNetwork::new();
    let dir = tempfile::tempdir().unwrap();
    let mut times = ClaimTimes::default();
    (times.look, times.takeover) = (Duration::from_millis(10), Duration::from_millis(200));
    let settings =
        ProfileSettings::new(dir.path().join("profiles")).times(times).settle(Duration::ZERO);
    let b = node_with(&network, "b", dir, settings);
    let _a = node(&network, "a");
    let holder =
        Holder { node: "dead".into(), incarnation: b.profiles.inner.incarnation, claim: 1 };
    let lost = Record { content: 3, holder: Some(holder), ..Record::new(1) };
    b.profiles.inner.write(&work(), &lost, None).await.unwrap();
    let began = std::time::Instant::now();
    b.make_new_if_lost().await.unwrap();
    assert!(began.elapsed() >= times.takeover, "it may have been alive");
    assert_eq!(b.saved().await, (None, 0));
}
