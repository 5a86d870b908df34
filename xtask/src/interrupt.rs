//! Ctrl-C and SIGTERM as a flag that every wait of xtask looks at, so that whatever a command made
//! is taken down by ordinary unwinding. Not a way to stop other programs.
//!
//! Invariant: after [`install`], no signal but SIGKILL ends xtask without its destructors running.

use anyhow::{Context, Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

thread_local! {
    /// Taking down must not be interrupted by what caused it.
    static SHIELDED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// How often a wait looks at the flag.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Turns SIGINT, SIGTERM and SIGHUP into the flag.
pub(crate) fn install() -> Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED))
            .with_context(|| format!("install the handler of signal {signal}"))?;
    }
    Ok(())
}

/// Whether somebody asked us to stop.
pub(crate) fn requested() -> bool {
    INTERRUPTED.load(Ordering::Relaxed) && !SHIELDED.get()
}

/// Does `work` to its end, whoever asks us to stop.
pub(crate) fn shielded<T>(work: impl FnOnce() -> T) -> T {
    let before = SHIELDED.replace(true);
    let result = work();
    SHIELDED.set(before);
    result
}

/// An error once somebody asked us to stop.
pub(crate) fn check() -> Result<()> {
    if requested() {
        bail!("interrupted");
    }
    Ok(())
}

/// Returns when somebody asks us to stop.
pub(crate) fn wait() {
    while !requested() {
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Repeats `attempt` until it answers, for at most `limit`; the last error says why it did not.
pub(crate) fn poll<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => {}
        }
        check()?;
        std::thread::sleep(LOOK_EVERY);
    }
}
