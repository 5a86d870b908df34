//! The ring itself: submission, completion, and every line of unsafe code the engine needs.
//!
//! What it may do is fixed before it is enabled: three operations and no registration afterwards
//! (`IORING_REGISTER_RESTRICTIONS`). Memory that the kernel writes into belongs to the ring
//! ([`Buffers`]); everything else moves by descriptor.
//!
//! Invariant: a safe caller cannot make the kernel touch memory that this module does not own.

#![expect(unsafe_code, reason = "submission entries and the cachestat system call have no safe interface")]

use io_uring::register::{Probe, Restriction};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use nix::poll::PollFlags;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// Submission entries: more than connections that can want something between two submissions would
/// only make the ring submit in between.
const ENTRIES: u32 = 256;
/// Completion entries: two operations for every connection there may be, and a reserve.
const COMPLETIONS: u32 = 4096;
/// Kernel threads of this ring. They only ever wait for the disk.
const MAX_WORKERS: u32 = 8;
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
    /// The socket is ready (or broken, which the next call on it will tell).
    Ready,
    /// Bytes of a file arrived in a pipe or a buffer.
    Filled,
    /// A cancellation was carried out.
    Cancelled,
}

/// An operation that ended.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) token: Token,
    /// Not negative: what it says; negative: `-errno`.
    pub(super) result: i32,
    /// The buffer that was filled.
    pub(super) buffer: Option<Buffer>,
}

pub(super) struct Ring {
    ring: IoUring,
    buffers: Option<Buffers>,
}

impl Ring {
    /// A ring for the calling thread, which alone may use it.
    ///
    /// # Errors
    /// In words: what the kernel refuses, and the likely reason.
    pub(super) fn new(buffers: Option<Buffers>) -> Result<Self, String> {
        let ring = build().map_err(|error| refusal(&error))?;
        let submitter = ring.submitter();
        let mut probe = Probe::new();
        submitter.register_probe(&mut probe).map_err(|error| format!("probe io_uring: {error}"))?;
        if let Some((_, name)) = USED.iter().find(|(code, _)| !probe.is_supported(*code)) {
            return Err(format!("the kernel is too old: its io_uring has no {name}"));
        }
        if let Some(buffers) = &buffers {
            buffers.register(&ring).map_err(|error| format!("register buffers with io_uring: {error}"))?;
        }
        // Older kernels start as many threads as they like; nothing else depends on it.
        let _ = submitter.register_iowq_max_workers(&mut [MAX_WORKERS; 2]);
        let mut allowed = USED.map(|(code, _)| Restriction::sqe_op(code));
        submitter
            .register_restrictions(&mut allowed)
            .and_then(|()| submitter.register_enable_rings())
            .map_err(|error| format!("restrict io_uring: {error}"))?;
        Ok(Self { ring, buffers })
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
        let buffers = &mut self.buffers;
        ended.extend(self.ring.completion().filter_map(|entry| {
            let token = Token::unpack(entry.user_data())?;
            let buffer = buffers.as_mut().and_then(|buffers| buffers.filling.remove(&entry.user_data()));
            Some(Completion { token, result: entry.result(), buffer })
        }));
        Ok(())
    }

    fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.pack());
        loop {
            // SAFETY: the only entries with a pointer are reads into `Buffers`, which outlive the ring; nobody
            // else has the buffer until the read has completed, since the ring keeps its handle. Descriptors are looked up by the kernel: a closed one fails, it corrupts nothing.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full: hand over what there is. An error shows again at the next turn.
            let _ = self.ring.submit();
        }
    }
}

const ETIME: i32 = nix::errno::Errno::ETIME as i32;
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
            1 => What::Ready,
            2 => What::Filled,
            3 => What::Cancelled,
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
        fn a_token_survives_the_kernel(slot in 0u32..1 << 24, life: u32, what in 0u8..4) {
            let what = [What::Woken, What::Ready, What::Filled, What::Cancelled][usize::from(what)];
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
