use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Row, Sparkline, Table as Widget, TableState};

use super::view::{KEYS, SECONDS, Table, View};
use crate::api::{Browser, Fleet, Holder, Node, Point, Tenant, Waiter};
use crate::stdout::{duration, mebibytes};

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    // Frame and header take three lines; one more shows that the table is empty.
    let waiters = (view.state.waiters.len() as u16).saturating_add(3).max(4);
    // Without tenants there is no table of them.
    let tenants = match view.state.tenants.len() as u16 {
        0 => 0,
        tenants => tenants.saturating_add(3).min(frame.area().height / 4),
    };
    // And without a fleet there is no table of nodes.
    let nodes = match &view.state.fleet {
        None => 0,
        Some(fleet) => (fleet.nodes.len() as u16).saturating_add(3).min(frame.area().height / 4),
    };
    let [header, plots, nodes, browsers, tenants, waiters, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(HEIGHT),
        Constraint::Length(nodes),
        Constraint::Fill(1),
        Constraint::Length(tenants),
        Constraint::Length(waiters.min(frame.area().height / 3)),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(top_line(view), header);
    draw_plots(frame, plots, view);
    if let Some(fleet) = &view.state.fleet {
        draw_nodes(frame, nodes, fleet);
    }
    draw_browsers(frame, browsers, view);
    if !view.state.tenants.is_empty() {
        draw_tenants(frame, tenants, view);
    }
    draw_waiters(frame, waiters, view);
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
    let question = view.asked.as_ref().and_then(super::view::Change::question);
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

/// Height of the plots with their frames.
pub(super) const HEIGHT: u16 = 5;

/// One of the plots.
struct Plot {
    title: String,
    value: fn(&Point) -> u64,
    /// The value at the top of the plot; `None` for the highest one seen.
    most: Option<u64>,
}

/// The last minutes of load, queue, waits and utilization, side by side.
pub(super) fn draw_plots(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let load = &view.state.load;
    let plots = [
        Plot {
            title: format!("leased {} of {}", load.leased, load.max_size),
            value: |point| point.active as u64,
            most: Some(load.max_size as u64),
        },
        Plot {
            title: format!("waiting {} of {}", load.waiting, load.max_waiting),
            value: |point| point.waiting as u64,
            most: None,
        },
        Plot {
            title: format!("wait p95 {:.0} ms", view.state.wait.p95_ms),
            value: |point| point.p95_wait_ms as u64,
            most: None,
        },
        Plot {
            title: format!("used {:.0} %", load.utilization * 100.0),
            value: |point| (point.utilization * 100.0) as u64,
            most: Some(100),
        },
    ];
    let areas = Layout::horizontal([Constraint::Fill(1); 4]).split(area);
    for (plot, area) in plots.into_iter().zip(areas.iter()) {
        let block = Block::bordered().title(plot.title);
        let columns = columns(&view.points, block.inner(*area).width.into(), plot.value);
        // At least 1: with 0, an empty plot would look full.
        let most = plot.most.or_else(|| columns.iter().max().copied()).unwrap_or_default().max(1);
        let bars = Sparkline::default().block(block).data(columns).max(most).blue();
        frame.render_widget(bars, *area);
    }
}

/// The highest value of each column's seconds, the newest on the right.
fn columns(points: &VecDeque<Point>, width: usize, value: fn(&Point) -> u64) -> Vec<u64> {
    if width == 0 {
        return Vec::new();
    }
    let each = (SECONDS / width).max(1);
    let values: Vec<u64> = points.iter().map(value).collect();
    let mut columns: Vec<u64> = values
        .rchunks(each)
        .take(width)
        .map(|seconds| seconds.iter().max().copied().unwrap_or_default())
        .collect();
    columns.resize(width, 0);
    columns.reverse();
    columns
}

pub(super) fn draw_browsers(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let header = ["browser", "state", "for", "class", "age", "uses", "memory", "who"];
    let widths = [7, 9, 9, 20, 9, 6, 9].map(Constraint::Length);
    let widths = widths.into_iter().chain([Constraint::Fill(1)]);
    let rows = view.state.browsers.iter().map(browser);
    let table = Widget::new(rows, widths).header(Row::new(header).blue().bold());
    let title = format!("Browsers {}", view.state.browsers.len());
    show(frame, area, view, Table::Browsers, table, title);
}

pub(super) fn draw_waiters(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let mut header = vec!["place", "priority", "waited", "expected", "class"];
    let mut widths: Vec<_> = [7, 9, 9, 9].map(Constraint::Length).into();
    widths.push(Constraint::Fill(1));
    if !view.state.tenants.is_empty() {
        header.push("tenant");
        widths.push(Constraint::Length(16));
    }
    let rows = view.state.waiters.iter().map(waiter);
    let table = Widget::new(rows, widths).header(Row::new(header).blue().bold());
    let title = format!("Waiters {}", view.state.load.waiting);
    show(frame, area, view, Table::Waiters, table, title);
}

pub(super) fn draw_tenants(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let header = ["tenant", "leased", "waiting", "share", "leases", "failed", "browser time"];
    let widths = [16, 9, 8, 7, 9, 8].map(Constraint::Length);
    let widths = widths.into_iter().chain([Constraint::Fill(1)]);
    let rows = view.state.tenants.iter().map(tenant);
    let table = Widget::new(rows, widths).header(Row::new(header).blue().bold());
    let title = format!("Tenants {}", view.state.tenants.len());
    let block = Block::bordered().title(title).border_style(Style::new().dim());
    frame.render_widget(table.block(block), area);
}

pub(super) fn draw_nodes(frame: &mut Frame<'_>, area: Rect, fleet: &Fleet) {
    let header = ["node", "phase", "places", "leased", "idle", "waiting", "version", "address"];
    let widths = [20, 9, 7, 7, 6, 8, 9].map(Constraint::Length);
    let widths = widths.into_iter().chain([Constraint::Fill(1)]);
    let rows = fleet.nodes.iter().map(node);
    let table = Widget::new(rows, widths).header(Row::new(header).blue().bold());
    let mut title = Line::from(format!("Nodes {}", fleet.nodes.len()));
    if !fleet.connected {
        title.push_span(format!(", alone: NATS is {}", fleet.connection).red().bold());
    }
    let block = Block::bordered().title(title).border_style(Style::new().dim());
    frame.render_widget(table.block(block), area);
}

fn show(
    frame: &mut Frame<'_>,
    area: Rect,
    view: &View,
    which: Table,
    table: Widget<'_>,
    title: String,
) {
    let active = view.table == which;
    let style = if active { Style::new().bold() } else { Style::new().dim() };
    let table = table.block(Block::bordered().title(title).border_style(style));
    let table = table.row_highlight_style(Modifier::REVERSED);
    let selected = view.selected(which).filter(|_| active);
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(selected));
}

fn browser(browser: &Browser) -> Row<'_> {
    let state = Cell::from(&*browser.state);
    Row::new([
        Cell::from(browser.id.to_string()),
        match &*browser.state {
            "leased" => state.yellow(),
            "idle" => state.green(),
            "closing" => state.red(),
            _ => state.cyan(),
        },
        Cell::from(duration(browser.since_ms)),
        Cell::from(browser.class.as_str()),
        Cell::from(duration(browser.age_ms)),
        Cell::from(browser.uses.to_string()),
        Cell::from(browser.memory_bytes.map(mebibytes).unwrap_or_default()),
        Cell::from(browser.lease.as_ref().map(Holder::who).unwrap_or_default()),
    ])
}

fn node(node: &Node) -> Row<'_> {
    let phase = Cell::from(&*node.phase);
    let row = Row::new([
        Cell::from(node.name.as_str()),
        if node.is_running() { phase.green() } else { phase.yellow() },
        Cell::from(node.places.to_string()),
        Cell::from(node.leased.to_string()),
        Cell::from(node.idle.to_string()),
        Cell::from(node.waiting.to_string()),
        Cell::from(node.version.as_str()),
        Cell::from(node.address.as_str()),
    ]);
    if node.own { row.bold() } else { row }
}

fn tenant(tenant: &Tenant) -> Row<'_> {
    Row::new([
        Cell::from(tenant.name.as_str()),
        Cell::from(tenant.held()),
        Cell::from(tenant.waiting.to_string()),
        Cell::from(tenant.share.to_string()),
        Cell::from(tenant.leases.to_string()),
        Cell::from(tenant.failures.to_string()),
        Cell::from(tenant.time()),
    ])
}

fn waiter(waiter: &Waiter) -> Row<'_> {
    Row::new([
        Cell::from(waiter.position.to_string()),
        Cell::from(waiter.priority.map(|priority| priority.to_string()).unwrap_or_default()),
        Cell::from(duration(waiter.waited_ms)),
        Cell::from(waiter.expected_ms.map(duration).unwrap_or_default()),
        Cell::from(waiter.wanted()),
        Cell::from(waiter.tenant.as_deref().unwrap_or_default()),
    ])
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::style::Modifier;

    use super::*;
    use crate::api::Point;
    use crate::commands::top::News;
    use crate::commands::top::view::tests::state;
    use crate::commands::top::view::{Change, Outcome};

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
        let half = Point {
            active: 2,
            waiting: 1,
            p95_wait_ms: 12.0,
            utilization: 0.5,
            ..Point::default()
        };
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
    fn nodes_have_a_table_in_a_fleet_which_says_when_it_is_cut_off() {
        let mut view = view();
        let (lines, _) = drawn(&view, 92, 28);
        assert!(!lines.iter().any(|line| line.contains("Nodes")), "{lines:#?}");
        let fleet = serde_json::json!({
            "node": "a", "connected": true, "connection": "connected",
            "nodes": [
                {"name": "a", "own": true, "phase": "running", "places": 8, "leased": 6, "idle": 2},
                {"name": "b", "phase": "draining", "places": 4, "leased": 3, "waiting": 1},
            ],
        });
        view.state.fleet = Some(serde_json::from_value(fleet).expect("it is a fleet"));
        let (lines, _) = drawn(&view, 92, 28);
        let line = lines.iter().find(|line| line.contains("draining")).expect("it is shown");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..6], ["│b", "draining", "4", "3", "0", "1"], "{line}");
        if let Some(fleet) = &mut view.state.fleet {
            (fleet.connected, fleet.connection) = (false, "disconnected".to_owned());
        }
        let (lines, _) = drawn(&view, 92, 28);
        assert!(
            lines.iter().any(|line| line.contains("alone: NATS is disconnected")),
            "{lines:#?}"
        );
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

    #[test]
    fn a_column_shows_the_worst_of_its_seconds() {
        let mut points: VecDeque<_> = vec![Point::default(); 5].into();
        points[0].waiting = 7;
        points[3].waiting = 9;
        let waiting = |point: &Point| point.waiting as u64;
        assert_eq!(columns(&points, SECONDS, waiting)[SECONDS - 5..], [7, 0, 0, 9, 0]);
        // Of three columns each has a hundred seconds, and only the last one has any so far.
        assert_eq!(columns(&points, 3, waiting), [0, 0, 9]);
        assert!(columns(&points, 0, waiting).is_empty());
    }
}
