use std::collections::VecDeque;
use std::time::Duration;

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::News;
use crate::api::{Browser, Point, State};
use crate::client::Client;

/// State of the screen: the pool as last received, and the user's place in it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) address: String,
    pub(super) state: State,
    /// The last seconds, oldest first.
    pub(super) points: VecDeque<Point>,
    /// The reason why there is no news.
    pub(super) lost: Option<String>,
    pub(super) table: Table,
    /// By number rather than by row, so that the selection stays on its browser while others come
    /// and go.
    browser: Option<u64>,
    /// The row to fall back to when that browser is gone.
    row: usize,
    waiter: usize,
    /// The change to make if the user confirms.
    pub(super) asked: Option<Change>,
    pub(super) notice: Option<Outcome>,
}

/// The table that the keys apply to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Browsers,
    Waiters,
}

/// Seconds that the plots show.
pub(super) const SECONDS: usize = 300;

impl View {
    pub(super) fn new(address: &str, state: State) -> Self {
        let browser = state.browsers.first().map(|browser| browser.id);
        Self {
            address: address.to_owned(),
            state,
            points: VecDeque::new(),
            lost: None,
            table: Table::Browsers,
            browser,
            row: 0,
            waiter: 0,
            asked: None,
            notice: None,
        }
    }

    pub(super) fn learn(&mut self, news: News) {
        match news {
            News::History(points) => self.points = points.into(),
            News::State(state) => {
                self.points.push_back(state.point());
                self.state = *state;
                self.lost = None;
                self.settle();
            }
            News::Lost(why) => self.lost = Some(why),
        }
        let old = self.points.len().saturating_sub(SECONDS);
        self.points.drain(..old);
    }

    pub(super) fn tell(&mut self, outcome: Outcome) {
        self.notice = Some(outcome);
    }

    /// Returns the selected row of a table.
    pub(super) fn selected(&self, table: Table) -> Option<usize> {
        match table {
            Table::Browsers => {
                let browser = self.browser?;
                self.state.browsers.iter().position(|found| found.id == browser)
            }
            Table::Waiters => (self.waiter < self.state.waiters.len()).then_some(self.waiter),
        }
    }

    /// Returns the selected browser, if the keys apply to browsers.
    pub(super) fn browser(&self) -> Option<&Browser> {
        let row = self.selected(Table::Browsers)?;
        (self.table == Table::Browsers).then(|| &self.state.browsers[row])
    }

    /// Moves the selection by this many rows.
    pub(super) fn step(&mut self, rows: isize) {
        let row = self.selected(self.table).unwrap_or_default();
        match self.table {
            Table::Browsers => {
                self.row = row.saturating_add_signed(rows);
                self.browser = None;
            }
            Table::Waiters => self.waiter = row.saturating_add_signed(rows),
        }
        self.settle();
    }

    /// Keeps the selection within the tables.
    fn settle(&mut self) {
        match self.selected(Table::Browsers) {
            Some(row) => self.row = row,
            None => {
                self.row = self.row.min(self.state.browsers.len().saturating_sub(1));
                self.browser = self.state.browsers.get(self.row).map(|browser| browser.id);
            }
        }
        self.waiter = self.waiter.min(self.state.waiters.len().saturating_sub(1));
    }
}

/// The keys, as the footer shows them.
pub(super) const KEYS: [(&str, &str); 7] = [
    ("j/k", "select"),
    ("tab", "table"),
    ("r", "retire"),
    ("x", "end lease"),
    ("f", "flush idle"),
    ("d", "drain"),
    ("q", "quit"),
];

/// The consequence of a terminal event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// The screen is drawn anew.
    Draw,
    Quit,
    /// The pool is asked to do something.
    Change(Change),
}

impl View {
    pub(super) fn react(&mut self, event: &Event) -> Reaction {
        match event.as_key_press_event() {
            Some(key) => self.press(key),
            // A change of size.
            None => Reaction::Draw,
        }
    }

    fn press(&mut self, key: KeyEvent) -> Reaction {
        if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
            // Ctrl-D does not drain, and Esc followed at once by a letter is not that letter.
            let ctrl_c =
                key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            return if ctrl_c { Reaction::Quit } else { Reaction::Draw };
        }
        self.notice = None;
        if let Some(change) = self.asked.take() {
            return match key.code {
                KeyCode::Char('y' | 'Y') => Reaction::Change(change),
                // Anything else does not count as a yes.
                _ => Reaction::Draw,
            };
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Reaction::Quit,
            KeyCode::Char('j') | KeyCode::Down => self.step(1),
            KeyCode::Char('k') | KeyCode::Up => self.step(-1),
            KeyCode::Tab | KeyCode::BackTab => {
                self.table = match self.table {
                    Table::Browsers => Table::Waiters,
                    Table::Waiters => Table::Browsers,
                };
            }
            KeyCode::Char('r') => {
                let change = self.browser().map(|browser| Change::Retire { browser: browser.id });
                return self.ask(change, "no browser is selected");
            }
            KeyCode::Char('x') => {
                let change = self.browser().and_then(Change::end_lease);
                return self.ask(change, "the selected browser is not held by a client");
            }
            KeyCode::Char('f') => return self.ask(Some(Change::Flush), ""),
            KeyCode::Char('d') => return self.ask(Some(Change::Drain), ""),
            _ => {}
        }
        Reaction::Draw
    }

    /// Makes a change, after asking if it has a question.
    fn ask(&mut self, change: Option<Change>, none: &str) -> Reaction {
        match change {
            None => self.notice = Some(Outcome { text: none.to_owned(), failed: true }),
            Some(change) if change.question().is_none() => return Reaction::Change(change),
            change => self.asked = change,
        }
        Reaction::Draw
    }
}

/// A change to the pool, made by a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Closes a browser; if it is leased, when it comes back.
    Retire { browser: u64 },
    /// Ends the lease of a browser.
    EndLease { browser: u64, lease: String, who: String },
    /// Closes the idle browsers.
    Flush,
    /// Lets leases finish and ends the pool.
    Drain,
}

/// Result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) text: String,
    pub(super) failed: bool,
}

/// Timeout of a change: longer than the pool takes for any of them.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

impl Change {
    /// Returns the change that ends a browser's lease, if a client holds it.
    pub(super) fn end_lease(browser: &Browser) -> Option<Self> {
        let holder = browser.lease.as_ref()?;
        Some(Self::EndLease { browser: browser.id, lease: holder.id.clone(), who: holder.who() })
    }

    /// Returns the question to ask first; `None` for changes that disturb nobody.
    pub(super) fn question(&self) -> Option<String> {
        match self {
            Self::Retire { .. } => None,
            Self::EndLease { browser, who, .. } => {
                Some(format!("end the lease of browser {browser}, held by {who}?"))
            }
            Self::Flush => Some("close all idle browsers?".to_owned()),
            Self::Drain => Some("drain: give no new leases, and end with the last one?".to_owned()),
        }
    }

    /// Asks the pool to make the change.
    pub(super) fn make(&self, client: &Client) -> Outcome {
        let path = match self {
            Self::Retire { browser } => format!("/api/browsers/{browser}/retire"),
            Self::EndLease { lease, .. } => format!("/api/leases/{lease}/kill"),
            Self::Flush => "/api/flush".to_owned(),
            Self::Drain => "/api/drain".to_owned(),
        };
        match client.post::<Value>(&path, &json!({}), PATIENCE) {
            Ok(answer) => Outcome { text: self.done(&answer.unwrap_or_default()), failed: false },
            Err(failure) => Outcome { text: failure.message().to_owned(), failed: true },
        }
    }

    fn done(&self, answer: &Value) -> String {
        match self {
            Self::Retire { browser } => format!("browser {browser} is retired"),
            Self::EndLease { browser, .. } => format!("the lease of browser {browser} has ended"),
            Self::Flush => format!("{} idle browsers closed", answer["closed"]),
            Self::Drain => "the pool is draining".to_owned(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A pool with these browsers, of which the leased ones have a holder, and this many waiters.
    pub(in crate::commands::top) fn state(browsers: &[(u64, &str)], waiters: usize) -> State {
        let leased = browsers.iter().filter(|(_, state)| *state == "leased").count();
        let browsers: Vec<_> = browsers
            .iter()
            .map(|(id, state)| {
                let holder = json!({
                    "id": format!("{id:032x}"), "tenant": "acme", "tracking_id": "job-7",
                    "peer": "127.0.0.1:9", "held_ms": 5,
                });
                json!({
                    "id": id, "class": "default", "state": state, "since_ms": 1_500,
                    "age_ms": 61_000, "uses": 4, "memory_bytes": 200 << 20,
                    "lease": (*state == "leased").then_some(holder),
                })
            })
            .collect();
        let waiters: Vec<_> = (1..=waiters)
            .map(|position| {
                json!({
                    "position": position, "class": "default", "priority": 5,
                    "waited_ms": 2_000, "expected_ms": 4_000,
                })
            })
            .collect();
        let state = json!({
            "pool": "default", "version": "0.1.0", "uptime_ms": 7_260_000, "draining": false,
            "load": {
                "idle": browsers.len() - leased, "leased": leased, "waiting": waiters.len(),
                "total": browsers.len(), "min_size": 1, "max_size": 4, "max_waiting": 1000,
                "utilization": 0.5,
            },
            "counters": { "acquired": 9, "timeouts": 0, "rejected": 0, "errors": 0 },
            "wait": { "avg_ms": 3.0, "p95_ms": 12.0 },
            "memory_bytes": 400 << 20,
            "browsers": browsers, "waiters": waiters, "errors": [],
        });
        serde_json::from_value(state).expect("it is a state")
    }

    #[test]
    fn the_selection_stays_on_its_browser_while_others_come_and_go() {
        let mut view = View::new("", state(&[(1, "idle"), (2, "leased"), (3, "idle")], 0));
        view.step(1);
        assert_eq!(view.browser().map(|browser| browser.id), Some(2));
        view.learn(News::State(Box::new(state(&[(2, "leased"), (3, "idle")], 0))));
        assert_eq!(view.browser().map(|browser| browser.id), Some(2));
        view.step(9);
        view.learn(News::State(Box::new(state(&[(2, "leased")], 0))));
        assert_eq!(view.browser().map(|browser| browser.id), Some(2));
        view.learn(News::State(Box::new(state(&[], 0))));
        assert!(view.browser().is_none());
        view.learn(News::State(Box::new(state(&[(7, "idle")], 0))));
        assert_eq!(view.browser().map(|browser| browser.id), Some(7));
    }

    #[test]
    fn what_was_lost_is_found_with_the_next_state_and_the_plots_are_bounded() {
        let mut view = View::new("", state(&[], 0));
        view.learn(News::Lost("no pool answers".to_owned()));
        assert!(view.lost.is_some());
        view.learn(News::History(vec![Point::default(); 3600]));
        view.learn(News::State(Box::new(state(&[], 2))));
        assert!(view.lost.is_none());
        assert_eq!(view.points.len(), SECONDS);
        assert_eq!(view.points.back().map(|point| point.waiting), Some(2));
    }

    fn press(view: &mut View, code: KeyCode) -> Reaction {
        view.react(&Event::Key(KeyEvent::from(code)))
    }

    #[test]
    fn retiring_takes_one_key_and_ending_a_lease_a_yes() {
        let mut view = View::new("", state(&[(1, "idle"), (2, "leased")], 0));
        let retire = Reaction::Change(Change::Retire { browser: 1 });
        assert_eq!(press(&mut view, KeyCode::Char('r')), retire);
        assert_eq!(press(&mut view, KeyCode::Char('x')), Reaction::Draw);
        assert!(view.notice.take().is_some_and(|notice| notice.failed), "browser 1 has no lease");

        press(&mut view, KeyCode::Down);
        assert_eq!(press(&mut view, KeyCode::Char('x')), Reaction::Draw);
        let asked = view.asked.clone().expect("it asks");
        // The key for "drain" is no yes either.
        assert_eq!(press(&mut view, KeyCode::Char('d')), Reaction::Draw);
        assert!(view.asked.is_none());
        press(&mut view, KeyCode::Char('x'));
        assert_eq!(press(&mut view, KeyCode::Char('y')), Reaction::Change(asked));
    }

    #[test]
    fn draining_and_flushing_ask_before() {
        let mut view = View::new("", state(&[], 0));
        for (key, change) in [('d', Change::Drain), ('f', Change::Flush)] {
            assert_eq!(press(&mut view, KeyCode::Char(key)), Reaction::Draw);
            assert_eq!(press(&mut view, KeyCode::Char('y')), Reaction::Change(change));
        }
    }

    #[test]
    fn keys_about_browsers_do_nothing_among_waiters() {
        let mut view = View::new("", state(&[(1, "leased")], 3));
        press(&mut view, KeyCode::Tab);
        press(&mut view, KeyCode::Down);
        assert_eq!(view.selected(Table::Waiters), Some(1));
        for key in ['r', 'x'] {
            assert_eq!(press(&mut view, KeyCode::Char(key)), Reaction::Draw);
            assert!(view.asked.is_none());
        }
    }

    #[test]
    fn ctrl_c_quits_even_from_a_question_and_esc_only_leaves_it() {
        let mut view = View::new("", state(&[], 0));
        press(&mut view, KeyCode::Char('d'));
        assert_eq!(press(&mut view, KeyCode::Esc), Reaction::Draw);
        press(&mut view, KeyCode::Char('d'));
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(view.react(&Event::Key(ctrl_c)), Reaction::Quit);
        view.asked = None;
        let ctrl_d = KeyEvent::new(KeyCode::Char('d'), KeyModifiers::CONTROL);
        assert_eq!(view.react(&Event::Key(ctrl_d)), Reaction::Draw);
        assert!(view.asked.is_none());
        assert_eq!(press(&mut view, KeyCode::Esc), Reaction::Quit);
    }
}
