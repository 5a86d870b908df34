//! Pipes that carry pages from the page cache to a socket, made once and used by one connection at a time.
//!
//! Invariant: a pipe in the pool is empty; one that may not be is closed instead.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::os::fd::OwnedFd;

/// Pipes at once. The kernel lets a user without `CAP_SYS_RESOURCE` have 64 MiB of pipes
/// (`fs.pipe-user-pages-soft`); more would shrink to two pages each.
const MAX_PIPES: usize = 48;
/// Size of a pipe, bytes: a whole piece of the smallest size in four steps; larger was measured slower.
const PIPE_BYTES: i32 = 1 << 20;
/// Bytes put into a pipe at once: half of it, since a range that is not aligned takes a page more.
const MAX_FILL_BYTES: u32 = 512 << 10;

#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
    /// Bytes that surely fit.
    pub(super) fill_bytes: u32,
}

#[derive(Debug, Default)]
pub(super) struct Pipes {
    free: Vec<Pipe>,
    lent: usize,
}

impl Pipes {
    /// An empty pipe; `None` where all are lent.
    ///
    /// # Errors
    /// The kernel has none (out of descriptors).
    pub(super) fn take(&mut self) -> Result<Option<Pipe>, Errno> {
        if self.lent >= MAX_PIPES {
            return Ok(None);
        }
        let pipe = match self.free.pop() {
            Some(pipe) => pipe,
            None => make()?,
        };
        self.lent += 1;
        Ok(Some(pipe))
    }

    /// Takes a pipe back; only an empty one is kept.
    pub(super) fn give(&mut self, pipe: Pipe, empty: bool) {
        self.lent -= 1;
        if empty {
            self.free.push(pipe);
        }
    }
}

fn make() -> Result<Pipe, Errno> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // Refused where the user's allowance is spent: a small pipe works, only slower.
    let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    let size = fcntl(&write, FcntlArg::F_GETPIPE_SZ)?;
    let fill_bytes = u32::try_from(size / 2).unwrap_or(0).clamp(1, MAX_FILL_BYTES);
    Ok(Pipe { read, write, fill_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_come_back_and_are_bounded() {
        let mut pipes = Pipes::default();
        let mut lent: Vec<Pipe> = std::iter::from_fn(|| pipes.take().unwrap()).collect();
        assert_eq!(lent.len(), MAX_PIPES);
        pipes.give(lent.pop().unwrap(), true);
        pipes.give(lent.pop().unwrap(), false);
        assert_eq!(pipes.free.len(), 1, "a pipe with bytes in it is not kept");
        assert!(pipes.take().unwrap().is_some() && pipes.take().unwrap().is_some());
        assert!(pipes.take().unwrap().is_none());
    }
}
