use std::collections::VecDeque;

use super::change::{Change, Outcome};
use super::feed::News;
use crate::client::{Browser, Point, State};

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
    /// By number rather than by row, so that it stays on its browser while others come and go.
    browser: Option<u64>,
    /// The row to fall back to when that browser is gone.
    row: usize,
    waiter: usize,
    /// The change to make if the user confirms.
    pub(super) asked: Option<Change>,
    pub(super) notice: Option<Outcome>,
}

/// The table that the keys are about.
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

    /// The row that is selected in a table.
    pub(super) fn selected(&self, table: Table) -> Option<usize> {
        match table {
            Table::Browsers => {
                let browser = self.browser?;
                self.state.browsers.iter().position(|found| found.id == browser)
            }
            Table::Waiters => (self.waiter < self.state.waiters.len()).then_some(self.waiter),
        }
    }

    /// The browser that is selected, if the keys are about browsers.
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
}
