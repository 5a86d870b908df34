//! The ring itself: submission, completion, and every line of unsafe code the engine needs.
//!
//! What it may do is fixed before it is enabled: three operations and no registration afterwards
//! (`IORING_REGISTER_RESTRICTIONS`). Memory that the kernel writes into belongs to the ring
//! ([`Buffers`]); everything else moves by descriptor.
//!
//! Invariant: a safe caller cannot make the kernel touch memory that this module does not own.

#![expect(unsafe_code, reason = "submission entries and the cachestat system call have no safe interface")]

use super::zero_copy::ZeroCopy;
use crate::store::BlobFile;
use io_uring::register::{Probe, Restriction};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::poll::PollFlags;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// Submission entries: more than connections that can want something between two submissions would
/// only make the ring submit in between.
const ENTRIES: u32 = 256;
/// Completion entries: three operations for every connection there may be, and the sends from mappings.
const COMPLETIONS: u32 = 4096;
/// Kernel threads of this ring. They only ever wait for the disk.
const MAX_WORKERS: u32 = 8;
/// `IORING_SEND_ZC_REPORT_USAGE` of <linux/io_uring.h>: a notification tells whether the kernel copied. Since Linux 6.2.
const REPORT_USAGE: u16 = 1 << 3;
/// `cachestat(2)`, since Linux 6.5; the same number on every architecture.
const SYS_CACHESTAT: i64 = 451;

const USED: [(u8, &str); 4] = [
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::Splice::CODE, "SPLICE"),
    (opcode::ReadFixed::CODE, "READ_FIXED"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

/// Which operation of which life of which slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) slot: u32,
    pub(super) life: u32,
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Another thread has put something into the inbox.
    Woken,
    /// Something arrived at the socket (or it broke, which the next call on it will tell).
    Arrived,
    /// The socket takes more (or is broken).
    Ready,
    /// Bytes of a file arrived in a pipe or a buffer.
    Filled,
    /// A cancellation was carried out.
    Cancelled,
    /// The socket took bytes of a mapping, or will not.
    Sent,
    /// In the kernel's hands alone: a send from a mapping, by its number.
    Mapped,
}

/// An operation that ended.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) token: Token,
    /// Not negative: what it says; negative: `-errno`.
    pub(super) result: i32,
    /// It will complete again.
    pub(super) more: bool,
    /// The buffer that was filled.
    pub(super) buffer: Option<Buffer>,
}

/// How bytes get through a ring beside by descriptor.
pub(super) enum Way {
    Descriptors,
    Buffers(Buffers),
    Mappings(ZeroCopy),
}

pub(super) struct Ring {
    ring: IoUring,
    buffers: Option<Buffers>,
    zero_copy: Option<ZeroCopy>,
    /// Why there are no zero-copy sends any more; until it is asked for.
    off: Option<String>,
}

impl Ring {
    /// A ring for the calling thread, which alone may use it.
    ///
    /// # Errors
    /// In words: what the kernel refuses, and the likely reason.
    pub(super) fn new(way: Way) -> Result<Self, String> {
        let ring = build().map_err(|error| refusal(&error))?;
        let submitter = ring.submitter();
        let mut probe = Probe::new();
        submitter.register_probe(&mut probe).map_err(|error| format!("probe io_uring: {error}"))?;
        if let Some((_, name)) = USED.iter().find(|(code, _)| !probe.is_supported(*code)) {
            return Err(format!("the kernel is too old: its io_uring has no {name}"));
        }
        let (buffers, mut zero_copy) = match way {
            Way::Descriptors => (None, None),
            Way::Buffers(buffers) => (Some(buffers), None),
            Way::Mappings(zero_copy) => (None, Some(zero_copy)),
        };
        // Pages that may have to be read first never go by mapping: without `cachestat`, that would be all of them.
        let missing = if !probe.is_supported(opcode::SendZc::CODE) {
            Some("the kernel is too old: its io_uring has no SEND_ZC")
        } else if !has_cachestat() {
            Some(
                "the kernel has no cachestat (as Linux before 6.5), or refuses it: what can be sent without waiting is not known",
            )
        } else {
            None
        };
        let off = zero_copy.take_if(|_| missing.is_some()).and(missing).map(str::to_owned);
        if let Some(buffers) = &buffers {
            buffers.register(&ring).map_err(|error| format!("register buffers with io_uring: {error}"))?;
        }
        // Older kernels start as many threads as they like; nothing else depends on it.
        let _ = submitter.register_iowq_max_workers(&mut [MAX_WORKERS; 2]);
        let zero_copy_alone = zero_copy.as_ref().map(|_| opcode::SendZc::CODE);
        let allowed = USED.iter().map(|(code, _)| *code).chain(zero_copy_alone);
        let mut allowed: Vec<Restriction> = allowed.map(Restriction::sqe_op).collect();
        submitter
            .register_restrictions(&mut allowed)
            .and_then(|()| submitter.register_enable_rings())
            .map_err(|error| format!("restrict io_uring: {error}"))?;
        Ok(Self { ring, buffers, zero_copy, off })
    }

    /// Completes whenever something more arrives at `socket`, until it is cancelled or says that it was the last time:
    /// nothing has to be armed again for every request, and peers come up in the order in which they asked.
    pub(super) fn watch(&mut self, socket: BorrowedFd<'_>, token: Token) {
        let events = u32::from(PollFlags::POLLIN.bits().cast_unsigned());
        self.push(opcode::PollAdd::new(Fd(socket.as_raw_fd()), events).multi(true).build(), token);
    }

    /// Completes once when `socket` is readable or writable.
    pub(super) fn poll(&mut self, socket: BorrowedFd<'_>, events: PollFlags, token: Token) {
        let events = u32::from(events.bits().cast_unsigned());
        let entry = opcode::PollAdd::new(Fd(socket.as_raw_fd()), events).build();
        self.push(entry, token);
    }

    /// Moves up to `bytes` of `file` from `offset` into `pipe`, on a kernel thread that may wait for the disk.
    ///
    /// Both must stay open until it completes: the kernel looks them up late.
    pub(super) fn fill_pipe(
        &mut self,
        file: &File,
        offset: u64,
        pipe: BorrowedFd<'_>,
        bytes: u32,
        token: Token,
    ) {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let (file, pipe) = (Fd(file.as_raw_fd()), Fd(pipe.as_raw_fd()));
        self.push(opcode::Splice::new(file, offset, pipe, -1, bytes).build(), token);
    }

    /// Reads up to `bytes` of `file` from `offset` into a buffer, which comes back with the completion.
    pub(super) fn fill_buffer(&mut self, file: &File, offset: u64, buffer: Buffer, bytes: u32, token: Token) {
        let Some(buffers) = &mut self.buffers else { return };
        let memory = buffers.memory(&buffer);
        let bytes = bytes.min(u32::try_from(memory.len()).unwrap_or(u32::MAX));
        let entry =
            opcode::ReadFixed::new(Fd(file.as_raw_fd()), memory.as_mut_ptr(), bytes, 0).offset(offset);
        buffers.filling.insert(token.pack(), buffer);
        self.push(entry.build(), token);
    }

    /// Sends up to `bytes` of `blob` from `offset`, by reference to a mapping of it; `token` ends when the socket took them.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub(super) fn send_mapped(
        &mut self,
        socket: BorrowedFd<'_>,
        (blob, range, more): (&Arc<BlobFile>, Range<u64>, bool),
        token: Token,
    ) -> io::Result<()> {
        let Some(zero_copy) = &mut self.zero_copy else { return Err(io::ErrorKind::Unsupported.into()) };
        if range.end > blob.geometry().size() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let bytes = u32::try_from(range.end - range.start).map_err(|_| io::ErrorKind::InvalidInput)?;
        let offset = usize::try_from(range.start).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (number, start) = zero_copy.begin(blob, offset, token)?;
        let flags = nix::libc::MSG_NOSIGNAL | if more { nix::libc::MSG_MORE } else { 0 };
        let entry = opcode::SendZc::new(Fd(socket.as_raw_fd()), start, bytes);
        let entry = entry.flags(flags).zc_flags(REPORT_USAGE).build();
        self.push(entry, Token { slot: number, life: 0, what: What::Mapped });
        Ok(())
    }

    /// Whether [`Self::send_mapped`] may be used now.
    pub(super) fn can_send_mapped(&self) -> bool {
        self.zero_copy.as_ref().is_some_and(ZeroCopy::is_ready)
    }

    /// No sends from mappings from now on.
    pub(super) fn stop_mapping(&mut self, why: String) {
        if let Some(zero_copy) = &mut self.zero_copy {
            zero_copy.turn_off();
        }
        self.off = Some(why);
    }

    /// Why sends from mappings have stopped, once.
    pub(super) fn mapping_stopped(&mut self) -> Option<String> {
        self.off.take()
    }

    /// Lets go of what is not needed any more.
    pub(super) fn tick(&mut self) {
        if let Some(zero_copy) = &mut self.zero_copy {
            zero_copy.tick();
        }
    }

    pub(super) fn buffers(&self) -> Option<&Buffers> {
        self.buffers.as_ref()
    }

    pub(super) fn buffers_mut(&mut self) -> Option<&mut Buffers> {
        self.buffers.as_mut()
    }

    /// Ends what `token` started; that completes too.
    pub(super) fn cancel(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.pack()).build();
        self.push(entry, Token { what: What::Cancelled, ..token });
    }

    /// Submits, waits (not at all, or for something to complete, or for `limit`), and takes what completed.
    ///
    /// # Errors
    /// The ring is of no more use.
    pub(super) fn turn(&mut self, limit: Option<Duration>, ended: &mut Vec<Completion>) -> io::Result<()> {
        let entered = match limit {
            None => self.ring.submitter().submit_with_args(0, &SubmitArgs::new()),
            Some(limit) => {
                let limit = Timespec::from(limit);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
        };
        match entered.map_err(|error| error.raw_os_error().map_or(error, io::Error::from_raw_os_error)) {
            Ok(_) => {}
            // Nothing completed, a signal came, or completions must be taken first.
            Err(error) if matches!(error.raw_os_error(), Some(ETIME | EINTR | EBUSY | EAGAIN)) => {}
            Err(error) => return Err(error),
        }
        let (buffers, zero_copy, off) = (&mut self.buffers, &mut self.zero_copy, &mut self.off);
        ended.extend(self.ring.completion().filter_map(|entry| {
            let mut token = Token::unpack(entry.user_data())?;
            if token.what == What::Mapped {
                let zero_copy = zero_copy.as_mut()?;
                if cqueue::notif(entry.flags()) {
                    *off = zero_copy.notified(token.slot, entry.result()).or(off.take());
                    return None;
                }
                if entry.result() == -EINVAL {
                    *off = zero_copy.refused().or(off.take());
                }
                token = zero_copy.ended(token.slot, cqueue::more(entry.flags()))?;
            }
            let buffer = buffers.as_mut().and_then(|buffers| buffers.filling.remove(&entry.user_data()));
            let more = cqueue::more(entry.flags());
            Some(Completion { token, result: entry.result(), more, buffer })
        }));
        Ok(())
    }

    /// Puts something else behind the ring's descriptor: the kernel refuses it from now on.
    #[cfg(test)]
    pub(super) fn take_away(&mut self) {
        let other = nix::sys::eventfd::EventFd::new().expect("an eventfd");
        // SAFETY: both descriptors are open; the ring's is closed by the ring alone, whatever is behind it.
        let result = unsafe { nix::libc::dup2(other.as_fd().as_raw_fd(), self.ring.as_raw_fd()) };
        assert_eq!(result, self.ring.as_raw_fd());
    }

    fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.pack());
        loop {
            // SAFETY: the only entries with a pointer are reads into `Buffers`, which outlive the ring (nobody else has
            // the buffer until the read has completed, since the ring keeps its handle), and sends from mappings,
            // which `ZeroCopy` keeps for as long as the kernel may look at them. Descriptors are looked up by the kernel: a closed one fails, it corrupts nothing.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full: hand over what there is. An error shows again at the next turn.
            let _ = self.ring.submit();
        }
    }
}

const ETIME: i32 = nix::errno::Errno::ETIME as i32;
const EINVAL: i32 = nix::errno::Errno::EINVAL as i32;
const EINTR: i32 = nix::errno::Errno::EINTR as i32;
const EBUSY: i32 = nix::errno::Errno::EBUSY as i32;
const EAGAIN: i32 = nix::errno::Errno::EAGAIN as i32;

/// The best ring this kernel has: flags that make it cheaper go first when it does not know them.
fn build() -> io::Result<IoUring> {
    let deferred = IoUring::builder()
        .setup_cqsize(COMPLETIONS)
        .setup_r_disabled()
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(ENTRIES);
    match deferred {
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINVAL as i32) => {
            IoUring::builder().setup_cqsize(COMPLETIONS).setup_r_disabled().build(ENTRIES)
        }
        built => built,
    }
}

fn refusal(error: &io::Error) -> String {
    use nix::errno::Errno;
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => {
            let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
            match sysctl.trim() {
                "" | "0" => "io_uring is forbidden here, probably by a seccomp profile".to_owned(),
                value => format!("io_uring is forbidden here: kernel.io_uring_disabled is {value}"),
            }
        }
        Some(Errno::ENOSYS) => "the kernel has no io_uring".to_owned(),
        Some(Errno::ENOMEM) => "no memory for a ring may be locked (RLIMIT_MEMLOCK)".to_owned(),
        _ => format!("set up io_uring: {error}"),
    }
}

impl Token {
    const SLOT_BITS: u32 = 24;

    fn pack(self) -> u64 {
        let slot = u64::from(self.slot) & ((1 << Self::SLOT_BITS) - 1);
        slot << 40 | u64::from(self.life) << 8 | self.what as u64
    }

    fn unpack(packed: u64) -> Option<Self> {
        let what = match packed & 0xff {
            0 => What::Woken,
            1 => What::Arrived,
            2 => What::Ready,
            3 => What::Filled,
            4 => What::Cancelled,
            5 => What::Sent,
            6 => What::Mapped,
            _ => return None,
        };
        let life = u32::try_from(packed >> 8 & u64::from(u32::MAX)).ok()?;
        Some(Self { slot: u32::try_from(packed >> 40).ok()?, life, what })
    }
}

/// Memory for reading files into, in equal parts, pinned once for all.
pub(super) struct Buffers {
    memory: Vec<u8>,
    free: Vec<Buffer>,
    filling: HashMap<u64, Buffer>,
}

/// One part, for one use at a time.
#[derive(Debug)]
pub(super) struct Buffer(usize);

impl Buffers {
    /// Size of one buffer, bytes: where reading and sending by copies was measured to stop gaining.
    pub(super) const BUFFER_BYTES: usize = 256 << 10;

    pub(super) fn new(count: usize) -> Self {
        Self {
            memory: vec![0; count * Self::BUFFER_BYTES],
            free: (0..count).map(Buffer).collect(),
            filling: HashMap::new(),
        }
    }

    fn register(&self, ring: &IoUring) -> io::Result<()> {
        let iov_base = self.memory.as_ptr().cast_mut().cast();
        let memory = nix::libc::iovec { iov_base, iov_len: self.memory.len() };
        // SAFETY: the memory is never moved or grown, and is freed after the ring; the kernel has pinned
        // its pages by then, so that even a read that ends later writes into nothing of ours.
        unsafe { ring.submitter().register_buffers(&[memory]) }
    }

    pub(super) fn take(&mut self) -> Option<Buffer> {
        self.free.pop()
    }

    pub(super) fn give(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }

    /// What the last read put into a buffer.
    pub(super) fn read(&self, buffer: &Buffer) -> &[u8] {
        let start = buffer.0 * Self::BUFFER_BYTES;
        &self.memory[start..start + Self::BUFFER_BYTES]
    }

    fn memory(&mut self, buffer: &Buffer) -> &mut [u8] {
        let start = buffer.0 * Self::BUFFER_BYTES;
        &mut self.memory[start..start + Self::BUFFER_BYTES]
    }
}

#[repr(C)]
struct CacheRange {
    offset: u64,
    length: u64,
}

#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether all pages of a range are in the page cache, also those still being read. `None`: not to be known.
pub(super) fn is_cached(file: &File, offset: u64, length: u64) -> Option<bool> {
    let page = u64::try_from(page_size()).ok()?;
    let (range, mut stat) = (CacheRange { offset, length }, CacheStat::default());
    // SAFETY: both structures have the layout of <linux/mman.h> and live over the call.
    let result = unsafe {
        nix::libc::syscall(SYS_CACHESTAT, file.as_fd().as_raw_fd(), &raw const range, &raw mut stat, 0)
    };
    let pages = (offset + length).div_ceil(page) - offset / page;
    (result == 0).then_some(stat.cached >= pages)
}

/// Whether [`is_cached`] can be asked at all.
fn has_cachestat() -> bool {
    let (range, mut stat) = (CacheRange { offset: 0, length: 0 }, CacheStat::default());
    // SAFETY: both structures have the layout of <linux/mman.h> and live over the call; no such descriptor exists.
    let result = unsafe { nix::libc::syscall(SYS_CACHESTAT, -1, &raw const range, &raw mut stat, 0) };
    result == -1 && nix::errno::Errno::last() == nix::errno::Errno::EBADF
}

fn page_size() -> i64 {
    // SAFETY: no preconditions.
    unsafe { nix::libc::sysconf(nix::libc::_SC_PAGESIZE) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    proptest! {
        #[test]
        fn a_token_survives_the_kernel(slot in 0u32..1 << 24, life: u32, what in 0u8..7) {
            let what = [What::Woken, What::Arrived, What::Ready, What::Filled, What::Cancelled, What::Sent, What::Mapped]
                [usize::from(what)];
            let token = Token { slot, life, what };
            prop_assert_eq!(Token::unpack(token.pack()), Some(token));
        }
    }

    #[test]
    fn what_was_just_written_is_cached() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        // `None` on kernels before 6.5.
        assert_ne!(is_cached(&file, 0, 10_000), Some(false));
        assert_ne!(is_cached(&file, 0, 1 << 20), Some(true));
    }
}
