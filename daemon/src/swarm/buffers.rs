//! Buffers for bodies to the runtime, used again: a fresh one would be zeroed and faulted in page by page.
//!
//! Invariant: at most [`MAX_KEPT`] are kept while nobody uses them.

use parking_lot::Mutex;
use std::sync::Arc;

/// Buffers kept for the next reader: about what one image's pull has under way (4 MiB in all).
const MAX_KEPT: usize = 8;

/// Handle to the buffers; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// One buffer in use; it goes back when it is dropped.
pub(super) struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
}

impl Buffers {
    /// A buffer of `length` bytes of any content.
    pub(super) fn take(&self, length: usize) -> Lent {
        let mut buffer = self.0.lock().pop().unwrap_or_default();
        buffer.resize(length, 0);
        Lent { buffer, home: self.clone() }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl AsMut<[u8]> for Lent {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut kept = self.home.0.lock();
        if kept.len() < MAX_KEPT {
            kept.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_are_bounded() {
        let buffers = Buffers::default();
        let lent: Vec<Lent> = (0..MAX_KEPT + 5).map(|_| buffers.take(100)).collect();
        drop(lent);
        assert_eq!(buffers.0.lock().len(), MAX_KEPT);
        assert_eq!(buffers.take(7).as_ref().len(), 7);
        assert_eq!(buffers.take(700).as_ref().len(), 700);
    }
}
