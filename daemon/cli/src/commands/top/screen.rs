//! How a view is drawn: header, rates against limits, peers, tasks; and printed, for `--once`.
//!
//! Invariant: it fits 80 × 24, and a smaller terminal cuts lists, never the header.

use super::sample::{Choice, ClassRate, PeerRate, TaskRate, View};
use crate::table::{self, bytes};
use anyhow::Result;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use std::io::Write;

/// Lines above the lists, and of the rates with their heading.
const HEADER_LINES: u16 = 5;
const RATE_LINES: u16 = 7;
/// Cells of a bar.
const BAR: usize = 10;
/// Shown of a task's digest.
const TASK_CHARS: usize = 26;

/// How far the lists are scrolled, and which of them the keys move.
#[derive(Debug, Default)]
pub(super) struct Position {
    peers: usize,
    tasks: usize,
    on_tasks: bool,
}

impl Position {
    pub(super) fn scroll(&mut self, by: isize) {
        let list = if self.on_tasks { &mut self.tasks } else { &mut self.peers };
        *list = list.saturating_add_signed(by);
    }

    pub(super) fn switch(&mut self) {
        self.on_tasks = !self.on_tasks;
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, view: &View, position: &mut Position, trouble: Option<&str>) {
    let head_lines = HEADER_LINES.min(frame.area().height);
    let [head, rest] =
        Layout::vertical([Constraint::Length(head_lines), Constraint::Fill(1)]).areas(frame.area());
    let [rates, peers, tasks, foot] = Layout::vertical([
        Constraint::Length(RATE_LINES),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(rest);
    frame.render_widget(Paragraph::new(header(view, trouble)), head);
    frame.render_widget(rate_table(view), rates);
    position.peers = position.peers.min(view.peers.len().saturating_sub(1));
    position.tasks = position.tasks.min(view.tasks.len().saturating_sub(1));
    draw_peers(frame, view, position, peers);
    draw_tasks(frame, view, position, tasks);
    let keys = if position.on_tasks { "tasks" } else { "peers" };
    let foot_line =
        format!("q quit   up/down scroll {keys}   tab other list   every {:.1} s", view.interval_seconds);
    frame.render_widget(Paragraph::new(foot_line).style(Style::new().add_modifier(Modifier::DIM)), foot);
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn header(view: &View, trouble: Option<&str>) -> Vec<Line<'static>> {
    let title = format!("{} ({}, {})", view.hostname, view.ip, view.kind);
    let cluster = if view.cluster.is_empty() { "no cluster" } else { &view.cluster };
    let capacity = match view.store_capacity_bytes {
        0 => String::new(),
        capacity => format!(" of {}", bytes(capacity)),
    };
    let trouble = match (trouble, view.warnings.as_slice()) {
        (Some(trouble), _) => Span::styled(trouble.to_owned(), Style::new().add_modifier(Modifier::REVERSED)),
        (None, []) => Span::raw(""),
        (None, [only]) => Span::styled(format!("warning: {only}"), bold()),
        (None, [first, rest @ ..]) => {
            Span::styled(format!("warning: {first} (and {} more)", rest.len()), bold())
        }
    };
    vec![
        Line::from(vec![
            Span::styled(title, bold()),
            Span::raw(format!(
                "  {cluster}  store {}{capacity}  {}",
                bytes(view.store_used_bytes),
                view.version
            )),
        ]),
        Line::raw(format!("scheduler {}", view.scheduler)),
        chosen("engine", &view.engine),
        chosen("shaper", &view.shaper),
        Line::from(trouble),
    ]
}

fn chosen(what: &str, choice: &Choice) -> Line<'static> {
    Line::from(vec![
        Span::raw(format!("{what} ")),
        Span::styled(choice.name.clone(), bold()),
        Span::raw(format!(": {}", choice.reason)),
    ])
}

fn rate_table(view: &View) -> Table<'static> {
    let rows = view.classes.iter().map(|class| Row::new(rate_cells(class).map(Cell::from)));
    let widths = [9, 13, 13, 25, 16].map(Constraint::Length);
    Table::new(rows, widths)
        .header(Row::new(["CLASS", "SENT/s", "RECEIVED/s", "LIMIT/s", "IN USE"]).style(bold()))
}

fn rate_cells(class: &ClassRate) -> [String; 5] {
    let limit = match class.limit {
        0 => "none".to_owned(),
        limit => format!("{} ({})", bytes(limit), class.limit_from),
    };
    let used = class.used.map_or_else(String::new, |used| format!("{} {:>3.0} %", bar(used), used * 100.0));
    [class.class.clone(), bytes(class.sent), bytes(class.received), limit, used]
}

/// `####------`
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and BAR")]
fn bar(used: f64) -> String {
    let full = (used.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "#".repeat(full), "-".repeat(BAR - full))
}

/// Of a list: the first column has what the others leave.
fn widths<const N: usize>(others: [u16; N]) -> Vec<Constraint> {
    std::iter::once(Constraint::Fill(1)).chain(others.map(Constraint::Length)).collect()
}

const PEER_HEADINGS: [&str; 7] = ["PEER", "SENT/s", "RECEIVED/s", "MOVED", "RTT", "RESENT", "CONN"];

fn draw_peers(frame: &mut Frame<'_>, view: &View, position: &Position, area: Rect) {
    let rows = view.peers.iter().skip(position.peers).map(|peer| Row::new(peer_cells(peer).map(Cell::from)));
    let widths = widths([11, 11, 11, 9, 6, 4]);
    let mut headings = PEER_HEADINGS.map(str::to_owned);
    headings[0] = format!("PEER ({})", view.peers.len());
    frame.render_widget(Table::new(rows, widths).header(Row::new(headings).style(bold())), area);
}

fn peer_cells(peer: &PeerRate) -> [String; 7] {
    let rtt = match peer.srtt_us {
        0 => String::new(),
        us => format!("{:.2} ms", us as f64 / 1000.0),
    };
    [
        peer.ip.clone(),
        bytes(peer.sent),
        bytes(peer.received),
        bytes(peer.sent_bytes.saturating_add(peer.received_bytes)),
        rtt,
        peer.retransmits.to_string(),
        peer.connections.to_string(),
    ]
}

const TASK_HEADINGS: [&str; 6] = ["TASK", "SIZE", "DONE", "RATE/s", "FROM", "STATE"];

fn draw_tasks(frame: &mut Frame<'_>, view: &View, position: &Position, area: Rect) {
    let rows = view.tasks.iter().skip(position.tasks).map(|task| {
        let style = if task.running { bold() } else { Style::new() };
        Row::new(task_cells(task).map(Cell::from)).style(style)
    });
    let widths = widths([11, 5, 11, 10, 11]);
    let mut headings = TASK_HEADINGS.map(str::to_owned);
    headings[0] = format!("TASK ({})", view.tasks.len());
    frame.render_widget(Table::new(rows, widths).header(Row::new(headings).style(bold())), area);
}

fn task_cells(task: &TaskRate) -> [String; 6] {
    let done = match task.pieces_total {
        0 => "?".to_owned(),
        total => format!("{} %", task.pieces_held * 100 / total),
    };
    let name = task.task.chars().take(TASK_CHARS).collect();
    let source = task.source.replace("peer_same_zone", "same zone").replace("peer_cross_zone", "other zone");
    let rate = if task.running { bytes(task.rate) } else { String::new() };
    [name, bytes(task.size), done, rate, source, task.state.clone()]
}

/// One view as text, whole.
pub(super) fn print(view: &View) -> Result<()> {
    let mut out = std::io::stdout();
    for line in header(view, None) {
        let line = line.to_string();
        if !line.is_empty() {
            writeln!(out, "{line}")?;
        }
    }
    writeln!(out)?;
    let rows: Vec<Vec<String>> = view.classes.iter().map(|class| rate_cells(class).to_vec()).collect();
    table::print(&["CLASS", "SENT/s", "RECEIVED/s", "LIMIT/s", "IN USE"], &rows)?;
    writeln!(out)?;
    let rows: Vec<Vec<String>> = view.peers.iter().map(|peer| peer_cells(peer).to_vec()).collect();
    table::print(&PEER_HEADINGS, &rows)?;
    writeln!(out)?;
    let rows: Vec<Vec<String>> = view.tasks.iter().map(|task| task_cells(task).to_vec()).collect();
    table::print(&TASK_HEADINGS, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn view() -> View {
        let peer = |number: u64| PeerRate {
            ip: format!("10.71.1.{number}"),
            sent: 12_000_000,
            received: 0,
            sent_bytes: 1 << 40,
            received_bytes: 0,
            srtt_us: 230,
            retransmits: 3,
            connections: 2,
        };
        let task = |number: u64| TaskRate {
            task: format!("sha256:{number:064}"),
            size: 10 << 30,
            pieces_held: 30,
            pieces_total: 40,
            rate: 900 << 20,
            source: "peer_cross_zone".to_owned(),
            state: "downloading".to_owned(),
            running: true,
        };
        let class = |class: &str, limit, used| ClassRate {
            class: class.to_owned(),
            sent: 11_800_000,
            received: 125_000_000,
            limit,
            limit_from: "cluster".to_owned(),
            used,
        };
        View {
            hostname: "a1".to_owned(),
            ip: "10.71.1.11".to_owned(),
            kind: "peer".to_owned(),
            cluster: "cluster-1".to_owned(),
            scheduler: "10.71.9.3:8002 connected".to_owned(),
            engine: Choice { name: "io_uring".to_owned(), reason: "the kernel has it".to_owned() },
            shaper: Choice { name: "ebpf".to_owned(), reason: "programs loaded".to_owned() },
            classes: vec![
                class("upload", 12_500_000, Some(0.94)),
                class("download", 0, None),
                class("origin", 0, None),
                class("control", 0, None),
                class("others", 125_000_000, Some(0.09)),
            ],
            peers: (1..40).map(peer).collect(),
            tasks: (1..40).map(task).collect(),
            warnings: vec!["no scheduler: pulls use known peers and the origin".to_owned()],
            interval_seconds: 1.0,
            ..View::default()
        }
    }

    fn drawn(width: u16, height: u16, position: &mut Position, trouble: Option<&str>) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &view(), position, trouble)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn everything_is_on_a_screen_of_80_by_24() {
        let lines = drawn(80, 24, &mut Position::default(), None);
        let screen = lines.join("\n");
        for expected in [
            "a1 (10.71.1.11, peer)  cluster-1",
            "scheduler 10.71.9.3:8002 connected",
            "engine io_uring: the kernel has it",
            "shaper ebpf: programs loaded",
            "warning: no scheduler",
            "upload    11.25 MiB     119.21 MiB    11.92 MiB (cluster)",
            "#########-  94 %",
            "others",
            "PEER (39)",
            "10.71.1.1              11.44 MiB   0 B         1.00 TiB    0.23 ms   3      2",
            "TASK (39)",
            "  10.00 GiB   75 %  900.00 MiB  other zone downloading",
            "q quit",
        ] {
            assert!(screen.contains(expected), "`{expected}` is not on\n{screen}");
        }
        assert!(lines[23].starts_with("q quit"), "{screen}");
    }

    #[test]
    fn lists_scroll_and_stop_at_their_end() {
        let mut position = Position::default();
        position.scroll(5);
        assert!(drawn(80, 24, &mut position, None).iter().any(|line| line.starts_with("10.71.1.6 ")));
        position.scroll(1000);
        assert!(drawn(80, 24, &mut position, None).iter().any(|line| line.starts_with("10.71.1.39 ")));
        position.switch();
        position.scroll(1);
        let screen = drawn(80, 24, &mut position, None).join("\n");
        assert!(screen.contains("scroll tasks") && position.tasks == 1, "{screen}");
    }

    #[test]
    fn a_tiny_terminal_keeps_the_header_and_trouble_is_shown() {
        let lines = drawn(40, 6, &mut Position::default(), Some("ask the daemon: refused"));
        assert!(lines[0].starts_with("a1 (10.71.1.11, peer)"), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("refused")), "{lines:?}");
        drawn(1, 1, &mut Position::default(), None);
    }
}
