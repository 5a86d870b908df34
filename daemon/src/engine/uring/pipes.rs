//! Pipes that carry pages from the page cache to a socket, made once and used by one connection at a time.
//!
//! Invariant: a pipe in the pool is empty; one that may not be is closed instead.

use crate::pipe::Pipe;
use std::io;

/// Pipes at once: half of what a user without privileges may have; the rest is the receivers'.
const MAX_PIPES: usize = 32;

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
    pub(super) fn take(&mut self) -> io::Result<Option<Pipe>> {
        if self.lent >= MAX_PIPES {
            return Ok(None);
        }
        let pipe = match self.free.pop() {
            Some(pipe) => pipe,
            None => Pipe::new()?,
        };
        self.lent += 1;
        Ok(Some(pipe))
    }

    /// Takes a pipe back; only one that is `known` to be as it says, and says that it is empty, is kept.
    pub(super) fn give(&mut self, pipe: Pipe, known: bool) {
        self.lent -= 1;
        if known && pipe.held() == 0 {
            self.free.push(pipe);
        }
    }
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
