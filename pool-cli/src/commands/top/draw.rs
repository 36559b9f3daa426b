use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Stylize;
use ratatui::text::{Line, Span};

use super::keys::KEYS;
use super::view::View;
use super::{plots, tables};
use crate::table::{duration, mebibytes};

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    // Frame and header are three lines; with one more the table is seen to be empty.
    let waiters = (view.state.waiters.len() as u16).saturating_add(3).max(4);
    // There is no table where there are no tenants.
    let tenants = match view.state.tenants.len() as u16 {
        0 => 0,
        tenants => tenants.saturating_add(3).min(frame.area().height / 4),
    };
    let [header, plots, browsers, tenants, waiters, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(plots::HEIGHT),
        Constraint::Fill(1),
        Constraint::Length(tenants),
        Constraint::Length(waiters.min(frame.area().height / 3)),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(top_line(view), header);
    plots::plots(frame, plots, view);
    tables::browsers(frame, browsers, view);
    if !view.state.tenants.is_empty() {
        tables::tenants(frame, tenants, view);
    }
    tables::waiters(frame, waiters, view);
    draw_footer(frame, footer, view);
}

fn top_line(view: &View) -> Line<'_> {
    let state = &view.state;
    let mut line = Line::from(vec![
        format!("pool {:?}", state.pool).bold(),
        format!(" {} at {}", state.version, view.address).into(),
    ]);
    match &view.lost {
        Some(lost) => line.push_span(format!(", trying again: {lost}").red().bold()),
        None => line.push_span(format!(
            ", up {}, {}, {} leases so far",
            duration(state.uptime_ms),
            mebibytes(state.memory_bytes),
            state.counters.acquired,
        )),
    }
    if state.draining {
        line.push_span(", draining".yellow().bold());
    }
    line
}

fn draw_footer(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let question = view.asked.as_ref().and_then(super::change::Change::question);
    let line = match (question, &view.notice) {
        (Some(question), _) => Line::from(vec![question.bold(), " y: yes, n: no".into()]),
        (None, Some(notice)) if notice.failed => Line::from(notice.text.as_str()).red(),
        (None, Some(notice)) => Line::from(notice.text.as_str()).green(),
        (None, None) => {
            let keys = KEYS.into_iter();
            keys.flat_map(|(key, what)| [key.bold(), Span::from(format!(" {what}   "))]).collect()
        }
    };
    frame.render_widget(line, area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::style::Modifier;

    use super::super::change::{Change, Outcome};
    use super::super::feed::News;
    use super::super::view::tests::state;
    use super::*;
    use crate::client::Point;

    fn drawn(view: &View, width: u16, height: u16) -> (Vec<String>, Terminal<TestBackend>) {
        let mut terminal =
            Terminal::new(TestBackend::new(width, height)).expect("it is only memory");
        terminal.draw(|frame| draw(frame, view)).expect("it is only memory");
        let cells = terminal.backend().buffer().content();
        let text = |row: &[ratatui::buffer::Cell]| {
            row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned()
        };
        (cells.chunks(width.into()).map(text).collect(), terminal)
    }

    fn view() -> View {
        View::new("http://127.0.0.1:3000", state(&[(1, "idle"), (2, "leased")], 2))
    }

    #[test]
    fn the_screen_shows_header_plots_tables_and_keys() {
        let mut view = view();
        let half = Point { active: 2, waiting: 1, p95_wait_ms: 12.0, utilization: 0.5 };
        view.learn(News::History(vec![half; 300]));
        let (lines, terminal) = drawn(&view, 92, 20);
        let expected = r#"
pool "default" 0.1.0 at http://127.0.0.1:3000, up 2 h 1 m, 400 MiB, 9 leases so far
┌leased 1 of 4────────┐┌waiting 2 of 1000────┐┌wait p95 12 ms───────┐┌used 50 %────────────┐
│                     ││█████████████████████││█████████████████████││                     │
│▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄││█████████████████████││█████████████████████││▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄│
│█████████████████████││█████████████████████││█████████████████████││█████████████████████│
└─────────────────────┘└─────────────────────┘└─────────────────────┘└─────────────────────┘
┌Browsers 2────────────────────────────────────────────────────────────────────────────────┐
│browser state     for       class                age       uses   memory    who           │
│1       idle      1.5 s     default              1 m 1 s   4      200 MiB                 │
│2       leased    1.5 s     default              1 m 1 s   4      200 MiB   acme job-7 127│
│                                                                                          │
│                                                                                          │
│                                                                                          │
└──────────────────────────────────────────────────────────────────────────────────────────┘
┌Waiters 2─────────────────────────────────────────────────────────────────────────────────┐
│place   priority  waited    expected  class                                               │
│1       5         2.0 s     4.0 s     default                                             │
│2       5         2.0 s     4.0 s     default                                             │
└──────────────────────────────────────────────────────────────────────────────────────────┘
j/k select   tab table   r retire   x end lease   f flush idle   d drain   q quit"#;
        assert_eq!(lines.join("\n"), expected.trim_start());
        let cell = |row| terminal.backend().buffer()[(1, row)].modifier;
        assert!(cell(8).contains(Modifier::REVERSED), "the first browser is selected");
        assert!(!cell(9).contains(Modifier::REVERSED));
    }

    #[test]
    fn tenants_have_a_table_where_there_are_any() {
        let mut view = view();
        let (lines, _) = drawn(&view, 92, 24);
        assert!(!lines.iter().any(|line| line.contains("Tenants")), "{lines:#?}");
        let tenants = serde_json::json!([{
            "name": "scrapers", "leased": 2, "waiting": 1, "max_leases": 3, "share": 2.0,
            "leases": 40, "failures": 5, "browser_seconds": 61.0,
        }]);
        view.state.tenants = serde_json::from_value(tenants).expect("they are tenants");
        let (lines, _) = drawn(&view, 92, 24);
        let line = lines.iter().find(|line| line.contains("scrapers")).expect("it is shown");
        assert!(line.contains("2 of 3") && line.contains("40"), "{line}");
    }

    #[test]
    fn the_footer_asks_and_tells() {
        let mut view = view();
        let footer = |view: &View| drawn(view, 92, 20).0.pop().expect("there are lines");
        view.asked = Change::end_lease(&view.state.browsers[1]);
        assert_eq!(
            footer(&view),
            "end the lease of browser 2, held by acme job-7 127.0.0.1:9? y: yes, n: no"
        );
        view.asked = None;
        view.tell(Outcome { text: "there is no lease of this id".to_owned(), failed: true });
        assert_eq!(footer(&view), "there is no lease of this id");
    }

    #[test]
    fn a_pool_that_is_gone_is_said_to_be_and_its_last_state_stays() {
        let mut view = view();
        view.learn(News::Lost("no pool answers".to_owned()));
        let (lines, _) = drawn(&view, 100, 20);
        assert!(lines[0].contains("trying again: no pool answers"), "{}", lines[0]);
        assert!(lines.iter().any(|line| line.contains("acme job-7")));
    }

    #[test]
    fn the_selected_row_is_in_sight_and_no_size_is_too_small() {
        let browsers: Vec<_> = (1..=50).map(|id| (id, "idle")).collect();
        let mut view = View::new("", state(&browsers, 200));
        view.step(39);
        let (lines, _) = drawn(&view, 80, 24);
        assert!(lines.iter().any(|line| line.contains("40      idle")), "{lines:#?}");
        for (width, height) in [(1, 1), (3, 2), (10, 5), (20, 60), (200, 3)] {
            drawn(&view, width, height);
        }
    }
}
