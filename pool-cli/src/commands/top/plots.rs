use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Stylize;
use ratatui::widgets::{Block, Sparkline};

use super::view::{SECONDS, View};
use crate::client::Point;

/// Height of the plots with their frames.
pub(super) const HEIGHT: u16 = 5;

/// One of the plots.
struct Plot {
    title: String,
    value: fn(&Point) -> u64,
    /// The value at the top of the plot; without it, the highest seen.
    most: Option<u64>,
}

/// The last minutes of load, queue, waits and utilization, side by side.
pub(super) fn plots(frame: &mut Frame<'_>, area: Rect, view: &View) {
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
        // Not 0, or nothing would be as high as everything.
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

#[cfg(test)]
mod tests {
    use super::*;

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
