//! `hawker top`: what this node's daemon moves right now, for whom, and within which limits.
//!
//! Two status documents make a [`View`] (`sample`), which is drawn (`screen`) or printed. Invariant: the terminal is left as it was
//! found, whatever ends the command.

mod sample;
mod screen;

use super::Output;
use crate::daemon::Daemon;
use crate::table;
use anyhow::{Context, Result, ensure};
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use sample::{Sample, View};
use screen::{Position, draw};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Shortest and longest time between two looks, seconds.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.2..=60.0;

#[derive(Args)]
pub(crate) struct TopArguments {
    /// Time between two looks, seconds.
    #[arg(long, default_value = "1")]
    interval: f64,
    /// Print one view, over one interval, instead of a live screen.
    #[arg(long)]
    once: bool,
    #[arg(short, long, value_enum, default_value = "table", requires = "once")]
    output: Output,
}

pub(crate) fn run(daemon: &Daemon, top: &TopArguments) -> Result<()> {
    ensure!(
        INTERVALS.contains(&top.interval),
        "--interval {}: {} to {} seconds",
        top.interval,
        INTERVALS.start(),
        INTERVALS.end()
    );
    let interval = Duration::from_secs_f64(top.interval);
    if top.once {
        return once(daemon, interval, top.output);
    }
    ensure!(std::io::stdout().is_terminal(), "no terminal to draw on: --once prints one view");
    live(daemon, interval)
}

fn look(daemon: &Daemon) -> Result<Sample> {
    let status = daemon.status()?;
    Ok(Sample::new(status, Instant::now()))
}

fn once(daemon: &Daemon, interval: Duration, output: Output) -> Result<()> {
    let first = look(daemon)?;
    std::thread::sleep(interval);
    let view = View::between(&first, &look(daemon)?);
    match output {
        Output::Json => table::json(&view),
        Output::Table => screen::print(&view),
    }
}

fn live(daemon: &Daemon, interval: Duration) -> Result<()> {
    // The first look before the screen: an error is better read on a plain terminal.
    let mut last = look(daemon)?;
    let mut terminal = ratatui::try_init().context("take over the terminal")?;
    let ended = watch(daemon, interval, &mut last, &mut terminal);
    ratatui::restore();
    ended
}

fn watch(
    daemon: &Daemon,
    interval: Duration,
    last: &mut Sample,
    terminal: &mut ratatui::DefaultTerminal,
) -> Result<()> {
    let (mut view, mut trouble, mut position) = (View::between(last, last), None, Position::default());
    let mut due = Instant::now() + interval.min(Duration::from_millis(500));
    loop {
        terminal.draw(|frame| draw(frame, &view, &mut position, trouble.as_deref()))?;
        let left = due.saturating_duration_since(Instant::now());
        if event::poll(left).context("wait for a key")? {
            match asked(&event::read().context("read a key")?) {
                Asked::End => return Ok(()),
                Asked::Move(by) => position.scroll(by),
                Asked::Switch => position.switch(),
                Asked::Nothing => {}
            }
            continue;
        }
        due = Instant::now() + interval;
        match look(daemon) {
            Ok(now) => {
                view = View::between(last, &now);
                (*last, trouble) = (now, None);
            }
            // A daemon that restarts comes back.
            Err(error) => trouble = Some(format!("{error:#}")),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    End,
    Move(isize),
    /// Scroll the other list.
    Switch,
    Nothing,
}

fn asked(event: &Event) -> Asked {
    let Event::Key(key) = event else { return Asked::Nothing };
    if key.kind == KeyEventKind::Release {
        return Asked::Nothing;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Asked::End,
        KeyCode::Char('q') | KeyCode::Esc => Asked::End,
        KeyCode::Down | KeyCode::Char('j') => Asked::Move(1),
        KeyCode::Up | KeyCode::Char('k') => Asked::Move(-1),
        KeyCode::PageDown => Asked::Move(10),
        KeyCode::PageUp => Asked::Move(-10),
        KeyCode::Tab => Asked::Switch,
        _ => Asked::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::crossterm::event::KeyEvent;

    #[test]
    fn keys() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        assert_eq!(asked(&key(KeyCode::Char('q'), KeyModifiers::NONE)), Asked::End);
        assert_eq!(asked(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)), Asked::End);
        assert_eq!(asked(&key(KeyCode::Char('c'), KeyModifiers::NONE)), Asked::Nothing);
        assert_eq!(asked(&key(KeyCode::PageUp, KeyModifiers::NONE)), Asked::Move(-10));
        assert_eq!(asked(&Event::FocusLost), Asked::Nothing);
    }
}
