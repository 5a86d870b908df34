//! Tells the kernel to begin writing bytes to the disk, so that they do not all wait for the end.
//!
//! Invariant: advice only; what is durable is decided by `sync`.

#![expect(unsafe_code, reason = "sync_file_range(2) has no safe wrapper in the libraries we use")]

use nix::libc::{SYNC_FILE_RANGE_WRITE, sync_file_range};
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Begins to write a range, and waits for nothing but a place in the disk's queue.
pub(super) fn begin(file: &File, range: &Range<u64>) {
    let (Ok(start), Ok(length)) = (i64::try_from(range.start), i64::try_from(range.end - range.start)) else {
        return;
    };
    // SAFETY: no memory is passed; the descriptor is open as long as `file` is borrowed. A file system
    // that cannot says so, and then writes when it likes.
    let _ = unsafe { sync_file_range(file.as_raw_fd(), start, length, SYNC_FILE_RANGE_WRITE) };
}
