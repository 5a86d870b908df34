//! A bar on standard error, and where the bytes come from.
//!
//! Invariant: what is shown of sources is the daemon's own count for this task since the start.

use crate::daemon::Daemon;
use crate::table::bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the daemon is asked for sources.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
const SOURCES: [(&str, &str); 5] = [
    ("local", "store"),
    ("peer_same_zone", "peers"),
    ("peer_cross_zone", "far peers"),
    ("seed", "seed"),
    ("origin", "origin"),
];

pub(super) struct Progress {
    bar: ProgressBar,
    name: String,
    started: Instant,
    quiet: bool,
    task: Arc<Mutex<String>>,
    watcher: Option<(Sender<()>, JoinHandle<()>)>,
    daemon: Daemon,
}

impl Progress {
    pub(super) fn new(daemon: &Daemon, name: &str, quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        let (daemon, task) = (daemon.clone(), Arc::default());
        let (name, started) = (name.to_owned(), Instant::now());
        Self { bar, name, started, quiet, task, watcher: None, daemon }
    }

    /// What is fetched is known now.
    pub(super) fn begin(&self, size: Option<u64>, task: &str) {
        let template = match size {
            Some(_) => "{prefix} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
            None => "{prefix} {spinner} {bytes} {bytes_per_sec} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_prefix(self.name.clone());
        if let Some(size) = size {
            self.bar.set_length(size);
        }
        task.clone_into(&mut self.task.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn watch(mut self) -> Self {
        if !self.bar.is_hidden() {
            let (daemon, bar, task) = (self.daemon.clone(), self.bar.clone(), Arc::clone(&self.task));
            let (stop, stopped) = channel();
            let thread = std::thread::spawn(move || {
                while stopped.recv_timeout(ASK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    let task = task.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    if let Some(sources) = sources(&daemon, &task) {
                        bar.set_message(sources);
                    }
                }
            });
            self.watcher = Some((stop, thread));
        }
        self
    }

    pub(super) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// So many bytes were for nothing.
    pub(super) fn back(&self, bytes: u64) {
        self.bar.set_position(self.bar.position().saturating_sub(bytes));
    }

    pub(super) fn position(&self) -> u64 {
        self.bar.position()
    }

    pub(super) fn note(&self, text: &str) {
        self.bar.println(text);
    }

    /// Says how it went; errors are the caller's to tell.
    #[expect(clippy::print_stderr, reason = "the result, for people")]
    pub(super) fn finish(mut self, well: bool) {
        if let Some((stop, thread)) = self.watcher.take() {
            drop(stop);
            // A panic there would be shown already.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
        if !well || self.quiet {
            return;
        }
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (seconds, count) = (self.started.elapsed().as_secs_f64(), self.bar.position());
        let rate = count as f64 / seconds.max(f64::EPSILON);
        let from = sources(&self.daemon, &task).map(|sources| format!("; {sources}")).unwrap_or_default();
        eprintln!("{}: {} in {seconds:.2} s, {:.1} MiB/s{from}", self.name, bytes(count), rate / 1_048_576.0);
    }
}

/// `peers 60 %, origin 40 %` of what the daemon fetched for the task; nothing fetched: it had it.
fn sources(daemon: &Daemon, task: &str) -> Option<String> {
    let status = daemon.status().ok()?;
    let tasks = status.get("tasks")?.as_array()?;
    let Some(fetched) = tasks.iter().find(|entry| entry.get("task").and_then(Value::as_str) == Some(task))
    else {
        return Some("from this node's store".to_owned());
    };
    let fetched = fetched.get("fetched")?;
    let count = |key: &str| fetched.get(key).and_then(Value::as_u64).unwrap_or(0);
    let total: u64 = SOURCES.iter().map(|(key, _)| count(key)).sum();
    let shares = SOURCES.iter().filter(|(key, _)| count(key) > 0);
    let shares: Vec<_> = shares
        .map(|(key, name)| format!("{name} {:.0} %", 100.0 * count(key) as f64 / total as f64))
        .collect();
    (total > 0).then(|| format!("from {}", shares.join(", ")))
}
