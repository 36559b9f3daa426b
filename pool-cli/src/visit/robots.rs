use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use texting_robots::Robot;
use tokio::sync::OnceCell;
use url::Url;

use crate::loader::Trouble;

/// Number of bytes of a `robots.txt` that count, as in RFC 9309.
pub(crate) const LONGEST: usize = 500 * 1024;

/// Maximum number of hosts whose rules are kept; beyond it they are requested again.
const HOSTS: usize = 4_096;

/// Maximum crawl-delay: a host that asks for a day would hold up a run for ever.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// The rules of hosts, according to their `robots.txt`.
#[derive(Debug)]
pub(crate) struct Robots {
    /// The name under which the rules are read.
    agent: String,
    known: Mutex<HashMap<String, Arc<OnceCell<Rules>>>>,
}

/// The answer of a host to the request for its `robots.txt`.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A file, or its beginning.
    Text(Vec<u8>),
    /// There is none.
    Nothing,
    /// It did not answer, or failed: nothing on it may be visited.
    Unreachable(String),
}

/// The verdict of a host on an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may be visited, this long after the page before it.
    Allowed(Option<Duration>),
    /// It may not.
    Denied,
    /// The rules could not be read, for this reason.
    Unknown(String),
}

#[derive(Debug)]
enum Rules {
    Of(Robot),
    None,
    Unreachable(String),
}

impl Robots {
    pub(crate) fn new(agent: String) -> Self {
        Self { agent, known: Mutex::default() }
    }

    /// Returns the address of the `robots.txt` for an address, if its scheme has one.
    pub(crate) fn address(url: &str) -> Option<String> {
        let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        url.join("/robots.txt").ok().map(String::from)
    }

    /// Returns `true` if the rules at this address are known.
    pub(crate) fn knows(&self, address: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(address).is_some_and(|rules| rules.initialized())
    }

    /// Judges an address by the rules at another address; `ask` gets them, once for each host.
    ///
    /// # Errors
    ///
    /// The error of `ask`; the next call asks again.
    pub(crate) async fn judge(
        &self,
        url: &str,
        address: &str,
        ask: impl Future<Output = Result<Asked, Trouble>>,
    ) -> Result<Verdict, Trouble> {
        let rules = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= HOSTS && !known.contains_key(address) {
                known.clear();
            }
            Arc::clone(known.entry(address.to_owned()).or_default())
        };
        let read = async { ask.await.map(|asked| self.read(asked)) };
        Ok(match rules.get_or_try_init(|| read).await? {
            Rules::None => Verdict::Allowed(None),
            Rules::Unreachable(why) => Verdict::Unknown(why.clone()),
            Rules::Of(robot) if robot.allowed(url) => Verdict::Allowed(delay(robot)),
            Rules::Of(_) => Verdict::Denied,
        })
    }

    fn read(&self, asked: Asked) -> Rules {
        match asked {
            Asked::Text(text) => match Robot::new(&self.agent, whole_lines(&text)) {
                Ok(robot) => Rules::Of(robot),
                Err(error) => Rules::Unreachable(format!("its robots.txt is wrong: {error}")),
            },
            Asked::Nothing => Rules::None,
            Asked::Unreachable(why) => Rules::Unreachable(why),
        }
    }
}

/// Returns the part of a file that counts: a rule that is cut off could mean something else.
fn whole_lines(text: &[u8]) -> &[u8] {
    match text.get(..LONGEST) {
        Some(read) if text.len() > LONGEST => {
            let end = read.iter().rposition(|byte| matches!(byte, b'\n' | b'\r'));
            &read[..end.unwrap_or_default()]
        }
        Some(_) | None => text,
    }
}

fn delay(robot: &Robot) -> Option<Duration> {
    let delay = Duration::try_from_secs_f32(robot.delay?).unwrap_or(LONGEST_DELAY);
    Some(delay.min(LONGEST_DELAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "User-agent: *\nDisallow: /private\nCrawl-delay: 2\n\n\
        User-agent: mine\nAllow: /private/open\nDisallow: /private\nCrawl-delay: 100000\n";

    async fn judge(agent: &str, url: &str, asked: Asked) -> Verdict {
        let address = Robots::address(url).expect("it has one");
        let robots = Robots::new(agent.to_owned());
        robots.judge(url, &address, async { Ok(asked) }).await.expect("it was asked")
    }

    fn text() -> Asked {
        Asked::Text(TEXT.into())
    }

    #[tokio::test]
    async fn the_rules_for_the_name_count_and_else_those_for_all() {
        let seconds = |seconds| Verdict::Allowed(Some(Duration::from_secs(seconds)));
        assert_eq!(judge("other", "http://a/x", text()).await, seconds(2));
        assert_eq!(judge("other", "http://a/private/open", text()).await, Verdict::Denied);
        assert_eq!(judge("mine", "http://a/private/open", text()).await, seconds(60));
        assert_eq!(judge("mine", "http://a/private", text()).await, Verdict::Denied);
    }

    #[tokio::test]
    async fn a_host_without_rules_allows_all_and_one_that_fails_allows_nothing() {
        let all = Verdict::Allowed(None);
        assert_eq!(judge("a", "http://a/x", Asked::Nothing).await, all);
        let failed = Asked::Unreachable("it answered with status 503".into());
        assert!(matches!(judge("a", "http://a/x", failed).await, Verdict::Unknown(_)));
        assert_eq!(Robots::address("data:,x"), None);
        assert_eq!(Robots::address("http://a:8/b?c").as_deref(), Some("http://a:8/robots.txt"));
    }

    #[tokio::test]
    async fn so_many_bytes_of_a_file_count_and_no_half_of_a_rule() {
        let rules = |filler: usize| {
            // Two bytes each.
            let filler = "\u{e9}".repeat(filler / 2);
            format!("User-agent: *\n#{filler}\nDisallow: /x\nDisallow: /y/z\n").into_bytes()
        };
        let within = LONGEST - rules(0).len();
        let denied = |url, filler| judge("a", url, Asked::Text(rules(filler)));
        assert_eq!(denied("http://a/x", within).await, Verdict::Denied);
        assert_eq!(denied("http://a/y/z", within).await, Verdict::Denied);
        // What is read ends with `Disallow: /y/`.
        assert_eq!(denied("http://a/x", within + 2).await, Verdict::Denied);
        assert_eq!(denied("http://a/y/a", within + 2).await, Verdict::Allowed(None));
        assert_eq!(denied("http://a/x", LONGEST).await, Verdict::Allowed(None));
    }

    #[tokio::test]
    async fn a_host_is_asked_once() {
        let robots = Robots::new("a".into());
        let asked = std::cell::Cell::new(0);
        for page in ["http://a/1", "http://a/2"] {
            let ask = async {
                asked.set(asked.get() + 1);
                Ok(Asked::Nothing)
            };
            robots.judge(page, "http://a/robots.txt", ask).await.expect("it was asked");
        }
        assert_eq!(asked.get(), 1);
        assert!(robots.knows("http://a/robots.txt"));
    }
}
