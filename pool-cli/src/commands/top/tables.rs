use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::widgets::{Block, Cell, Row, Table as Widget, TableState};

use super::view::{Table, View};
use crate::client::{Browser, Holder, Tenant, Waiter};
use crate::table::{duration, mebibytes};

pub(super) fn browsers(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let header = ["browser", "state", "for", "class", "age", "uses", "memory", "who"];
    let widths = [7, 9, 9, 20, 9, 6, 9].map(Constraint::Length);
    let widths = widths.into_iter().chain([Constraint::Fill(1)]);
    let rows = view.state.browsers.iter().map(browser);
    let table = Widget::new(rows, widths).header(Row::new(header).blue().bold());
    let title = format!("Browsers {}", view.state.browsers.len());
    show(frame, area, view, Table::Browsers, table, title);
}

pub(super) fn waiters(frame: &mut Frame<'_>, area: Rect, view: &View) {
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

pub(super) fn tenants(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let header = ["tenant", "leased", "waiting", "share", "leases", "failed", "browser time"];
    let widths = [16, 9, 8, 7, 9, 8].map(Constraint::Length);
    let widths = widths.into_iter().chain([Constraint::Fill(1)]);
    let rows = view.state.tenants.iter().map(tenant);
    let table = Widget::new(rows, widths).header(Row::new(header).blue().bold());
    let title = format!("Tenants {}", view.state.tenants.len());
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
    let state = Cell::from(browser.state.as_str());
    Row::new([
        Cell::from(browser.id.to_string()),
        match browser.state.as_str() {
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
        Cell::from(waiter.class.as_str()),
        Cell::from(waiter.tenant.as_deref().unwrap_or_default()),
    ])
}
