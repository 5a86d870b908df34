//! Bytes of a file looked at through memory, to be hashed without a copy.
//!
//! A page that cannot be had (the file was cut short, the disk failed) is raised by the kernel as SIGBUS. Here it ends
//! as an error: a [`Window`] is known to a handler, which puts an empty page where the fault was and marks the window.
//! Every other SIGBUS goes where it went before.
//!
//! Invariant: there is no window without the handler, and a window's bytes count for nothing until [`Window::look`]
//! has returned without an error.

#![expect(unsafe_code, reason = "mapping files, and answering the faults of that, has no safe form")]

use memmap2::{Mmap, MmapOptions};
use nix::libc::{self, c_int, c_void, siginfo_t};
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Longest window, bytes: it counts as this process's memory while it lasts.
pub const MAX_WINDOW_BYTES: u64 = 4 << 20;
/// Windows at a time; whoever gets none reads. More than threads that may block at once would need is a waste: the
/// handler looks through all of them.
const MAX_WINDOWS: usize = 128;
/// Bits of a [`Slot`]'s place that count its pages.
const PAGES_BITS: u32 = 16;

/// A part of a file, mapped read-only.
#[derive(Debug)]
pub struct Window {
    /// Dropped after the slot was given back, see `drop`.
    map: Mmap,
    slot: &'static Slot,
    /// Of the file; the map begins at the page before.
    range: Range<u64>,
    skip: usize,
}

/// What the handler knows of one window.
#[derive(Debug)]
struct Slot {
    /// Number of the first page and, in the low [`PAGES_BITS`], of pages; 0: free. One word, so that the handler
    /// never sees half of a change.
    place: AtomicU64,
    faulted: AtomicBool,
}

static SLOTS: [Slot; MAX_WINDOWS] =
    [const { Slot { place: AtomicU64::new(0), faulted: AtomicBool::new(false) } }; MAX_WINDOWS];
static PREVIOUS: OnceLock<SigAction> = OnceLock::new();
static INSTALLED: OnceLock<Result<(), nix::errno::Errno>> = OnceLock::new();
/// The handler must not call `sysconf`.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

impl Window {
    /// Maps `range` of `file`, at most [`MAX_WINDOW_BYTES`] of it. Nothing is read yet.
    ///
    /// # Errors
    /// Out of windows or of address space, no handler, an empty range: read instead.
    pub fn of(file: &File, range: Range<u64>) -> io::Result<Self> {
        install()?;
        let range = range.start..range.end.min(range.start.saturating_add(MAX_WINDOW_BYTES));
        let page = PAGE_BYTES.load(Ordering::Relaxed) as u64;
        let start = range.start - range.start % page;
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let length = usize::try_from(range.end.saturating_sub(start)).map_err(invalid)?;
        let skip = usize::try_from(range.start - start).map_err(invalid)?;
        if range.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the bytes are only ever shown to `look`, whose users compute a digest of whatever is there and
        // then learn whether it counts: a change under them gives a wrong digest. That nobody of this process
        // writes there meanwhile is the claim's business; a page that is not there is the handler's.
        let map = unsafe { MmapOptions::new().offset(start).len(length).map(file)? };
        let slot = Slot::take(map.as_ptr() as usize, length)?;
        Ok(Self { map, slot, range, skip })
    }

    /// Which part of the file it shows.
    pub fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// Shows `range` of the file, which lies within the window's.
    ///
    /// # Errors
    /// A page could not be had, now or before: what was shown is not what the file holds.
    pub fn look(&self, range: &Range<u64>, each: impl FnOnce(&[u8])) -> io::Result<()> {
        let at = |offset: u64| usize::try_from(offset.checked_sub(self.range.start)?).ok();
        let bytes = at(range.start).zip(at(range.end)).and_then(|(start, end)| {
            let shown = self.map.get(self.skip..)?;
            shown.get(start..end)
        });
        each(bytes.ok_or(io::ErrorKind::InvalidInput)?);
        if self.slot.faulted.load(Ordering::Acquire) {
            return Err(io::Error::other("a page of the file could not be read"));
        }
        Ok(())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // First the slot, then (by itself) the map: another one may come to lie at the same place.
        self.slot.faulted.store(false, Ordering::Relaxed);
        self.slot.place.store(0, Ordering::Release);
    }
}

impl Slot {
    fn take(address: usize, length: usize) -> io::Result<&'static Self> {
        let page = PAGE_BYTES.load(Ordering::Relaxed);
        let place = ((address / page) as u64) << PAGES_BITS | length.div_ceil(page) as u64;
        let taken = SLOTS
            .iter()
            .find(|slot| slot.place.compare_exchange(0, place, Ordering::AcqRel, Ordering::Relaxed).is_ok());
        taken.ok_or_else(|| io::Error::other("too many windows"))
    }

    /// Addresses of the pages from the one at `address` to the window's end, if it lies in it.
    fn rest(&self, address: usize, page: usize) -> Option<Range<usize>> {
        let place = self.place.load(Ordering::Acquire);
        let start = usize::try_from(place >> PAGES_BITS).ok()? * page;
        let pages = usize::try_from(place & ((1 << PAGES_BITS) - 1)).ok()?;
        let window = start..start + pages * page;
        window.contains(&address).then(|| address - address % page..window.end)
    }
}

/// Once for the process, and for good.
fn install() -> io::Result<()> {
    let installed = INSTALLED.get_or_init(|| {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
        PAGE_BYTES.store(usize::try_from(page).unwrap_or(4096), Ordering::Relaxed);
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESTART;
        let action = SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::empty());
        // SAFETY: `on_fault` does what is allowed in a signal handler alone: atomics, system calls.
        let previous = unsafe { signal::sigaction(Signal::SIGBUS, &action)? };
        // Nobody else sets it: `get_or_init` lets one in.
        let _ = PREVIOUS.set(previous);
        Ok(())
    });
    (*installed).map_err(io::Error::from)
}

/// Runs on the thread that faulted. Async-signal-safe: no allocation, no lock, no log.
extern "C" fn on_fault(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t` to handlers with `SA_SIGINFO`; of SIGBUS it has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Codes of faults are positive; others were sent by somebody.
    if !(code > 0 && patch(address)) {
        pass_on(number, code, info, context);
    }
}

/// Puts empty pages from the one at `address` to the end of the window it lies in, and marks the window.
fn patch(address: usize) -> bool {
    let page = PAGE_BYTES.load(Ordering::Relaxed);
    let Some((slot, rest)) = SLOTS.iter().find_map(|slot| Some((slot, slot.rest(address, page)?))) else {
        return false;
    };
    // Before the pages can be seen.
    slot.faulted.store(true, Ordering::Release);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: these pages belong to a window that is mapped: it is being read by this very thread. They are read-only
    // before and after. `mmap` is a system call without state in libc.
    let mapped = unsafe {
        libc::mmap(rest.start as *mut c_void, rest.end - rest.start, libc::PROT_READ, flags, -1, 0)
    };
    mapped != libc::MAP_FAILED
}

/// What would have happened without this handler.
fn pass_on(number: c_int, code: c_int, info: *mut siginfo_t, context: *mut c_void) {
    match PREVIOUS.get().map(SigAction::handler) {
        Some(SigHandler::SigAction(previous)) => previous(number, info, context),
        Some(SigHandler::Handler(previous)) => previous(number),
        Some(SigHandler::SigIgn) if code <= 0 => {}
        Some(SigHandler::SigIgn | SigHandler::SigDfl) | None => {
            // SAFETY: sets no handler. A fault occurs again on return and then ends the process; what was sent
            // is sent again, and waits for the return as well.
            unsafe {
                let _ = signal::signal(Signal::SIGBUS, SigHandler::SigDfl);
            }
            if code <= 0 {
                let _ = signal::raise(Signal::SIGBUS);
            }
        }
    }
}

#[cfg(test)]
mod tests;
