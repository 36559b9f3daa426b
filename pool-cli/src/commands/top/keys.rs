use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};

use super::change::{Change, Outcome};
use super::view::{Table, View};

/// The keys as the footer shows them.
pub(super) const KEYS: [(&str, &str); 7] = [
    ("j/k", "select"),
    ("tab", "table"),
    ("r", "retire"),
    ("x", "end lease"),
    ("f", "flush idle"),
    ("d", "drain"),
    ("q", "quit"),
];

/// Consequence of an event of the terminal.
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
            // Ctrl-D is not the key to drain, nor Esc and a letter in one go that letter.
            let ctrl_c =
                key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            return if ctrl_c { Reaction::Quit } else { Reaction::Draw };
        }
        self.notice = None;
        if let Some(change) = self.asked.take() {
            return match key.code {
                KeyCode::Char('y' | 'Y') => Reaction::Change(change),
                // Anything else is no yes.
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
                return self.ask(change, "no browser is selected that a client holds");
            }
            KeyCode::Char('f') => return self.ask(Some(Change::Flush), ""),
            KeyCode::Char('d') => return self.ask(Some(Change::Drain), ""),
            _ => {}
        }
        Reaction::Draw
    }

    /// Makes a change, after a question where there is one.
    fn ask(&mut self, change: Option<Change>, none: &str) -> Reaction {
        match change {
            None => self.notice = Some(Outcome { text: none.to_owned(), failed: true }),
            Some(change) if change.question().is_none() => return Reaction::Change(change),
            change => self.asked = change,
        }
        Reaction::Draw
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::state;
    use super::*;

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
