use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::{Instant, sleep};

use super::Problem;
use super::guard::NoToken;

/// Wrong tokens that are answered at once, as a person's mistakes.
const FREE: u32 = 4;

/// How long the first answer after those takes; each further one takes twice as long.
const FIRST: Duration = Duration::from_millis(100);

/// No answer takes longer.
const LONGEST: Duration = Duration::from_secs(5);

/// Half of what a peer has guessed is forgotten for each time as long as this without a guess.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The most answers that wait for one peer; its further guesses are refused at once, so that they take
/// no connection from others.
const WAITING: u32 = 16;

/// So many answers wait for all peers.
const WAITING_IN_ALL: u32 = 1024;

/// So many peers are remembered twice over: those of late, and those before them.
const REMEMBERED: usize = 2048;

/// Slows down peers that guess the token, the more the more they have guessed.
///
/// A right token is never delayed, whoever has guessed at the same address: behind a balancer all
/// clients have one. So this tires who guesses, and makes a flood of guesses visible; that guessing
/// is hopeless is due to the length of the token.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<Peers>);

#[derive(Debug, Default)]
struct Peers {
    recent: HashMap<IpAddr, Guessed>,
    older: HashMap<IpAddr, Guessed>,
    waiting: u32,
}

#[derive(Clone, Copy, Debug)]
struct Guessed {
    wrong: u32,
    last: Instant,
    waiting: u32,
}

/// An answer that waits.
struct Turn<'a> {
    guesses: &'a Guesses,
    peer: IpAddr,
}

impl Guesses {
    /// Returns the refusal of a request without the right token, later if its peer has guessed.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the guess counts all the same.
    pub(super) async fn refuse(&self, peer: Option<IpAddr>, why: NoToken) -> Problem {
        if let (NoToken::Wrong, Some(peer)) = (why, peer) {
            let peer = network(peer);
            let (delay, turn) = self.count(peer);
            if !delay.is_zero() {
                let Some(_turn) = turn else { return too_many(delay) };
                sleep(delay).await;
            }
        }
        why.problem()
    }

    /// Counts a guess. Returns how long its answer takes, and the turn to wait for it.
    fn count(&self, peer: IpAddr) -> (Duration, Option<Turn<'_>>) {
        let now = Instant::now();
        let mut peers = self.lock();
        let in_all = peers.waiting;
        let held = peers.of(peer, now);
        let halvings = now.duration_since(held.last).as_secs() / FORGOTTEN.as_secs();
        let left = u32::try_from(halvings).ok().and_then(|by| held.wrong.checked_shr(by));
        held.wrong = left.unwrap_or(0).saturating_add(1);
        held.last = now;
        let Some(doublings) = held.wrong.checked_sub(FREE + 1) else {
            return (Duration::ZERO, None);
        };
        let delay = FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST);
        if held.waiting >= WAITING || in_all >= WAITING_IN_ALL {
            return (delay, None);
        }
        held.waiting += 1;
        peers.waiting += 1;
        (delay, Some(Turn { guesses: self, peer }))
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peers {
    /// Finds a peer, or makes room for it.
    fn of(&mut self, peer: IpAddr, now: Instant) -> &mut Guessed {
        if !self.recent.contains_key(&peer) {
            if self.recent.len() >= REMEMBERED {
                self.older = std::mem::take(&mut self.recent);
            }
            let known = self.older.remove(&peer);
            let fresh = Guessed { wrong: 0, last: now, waiting: 0 };
            self.recent.insert(peer, known.unwrap_or(fresh));
        }
        self.recent.get_mut(&peer).expect("it was put there if it was missing")
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut peers = self.guesses.lock();
        peers.waiting -= 1;
        let Peers { recent, older, .. } = &mut *peers;
        // One that was forgotten meanwhile begins anew.
        if let Some(held) = recent.get_mut(&self.peer).or_else(|| older.get_mut(&self.peer)) {
            held.waiting = held.waiting.saturating_sub(1);
        }
    }
}

/// Returns what one who guesses has of addresses: of IPv6 commonly a whole network.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(peer) => IpAddr::V4(peer),
        IpAddr::V6(peer) => IpAddr::V6(Ipv6Addr::from_bits(peer.to_bits() >> 64 << 64)),
    }
}

fn too_many(delay: Duration) -> Problem {
    let detail = "too many wrong tokens come from this address";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_wrong_tokens", detail).retry_after(delay)
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn guess(guesses: &Guesses, peer: IpAddr) -> (u16, Duration) {
        let began = Instant::now();
        let problem = guesses.refuse(Some(peer), NoToken::Wrong).await;
        (problem.status().as_u16(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn each_wrong_token_takes_longer_up_to_a_bound_and_is_forgotten() {
        let guesses = Guesses::default();
        let mut took = Vec::new();
        for _ in 0..12 {
            took.push(guess(&guesses, PEER).await.1.as_millis());
        }
        assert_eq!(took, [0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(guess(&guesses, "192.0.2.1".parse().unwrap()).await.1, Duration::ZERO);
        sleep(FORGOTTEN * 2).await;
        assert_eq!(guess(&guesses, PEER).await.1.as_millis(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_token_is_no_guess() {
        let guesses = Guesses::default();
        let began = Instant::now();
        for _ in 0..100 {
            guesses.refuse(Some(PEER), NoToken::Missing).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn few_answers_wait_at_once_and_little_is_remembered() {
        let guesses = Guesses::default();
        let all = join_all((0..100).map(|_| guess(&guesses, PEER))).await;
        let waited = all.iter().filter(|(status, took)| *status == 401 && !took.is_zero());
        assert_eq!(waited.count(), WAITING as usize);
        assert_eq!(all.iter().filter(|(status, _)| *status == 429).count(), 80);
        assert_eq!(guesses.lock().waiting, 0);
        for number in 0..20_000_u128 {
            guess(&guesses, Ipv6Addr::from_bits(number << 64 | number).into()).await;
        }
        let peers = guesses.lock();
        assert!(peers.recent.len() + peers.older.len() <= 2 * REMEMBERED);
    }
}
