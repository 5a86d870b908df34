//! Which piece to fetch next from a parent: in order for what a reader waits for, rarest first
//! beyond, so that siblings soon have different pieces to give each other.
//!
//! A function of what it is shown. Invariant: it never picks a piece that is held, that the parent
//! does not have, that somebody is fetching, or whose digest nobody attested.

use hawker_api::pieces::PieceSet;

/// Pieces ahead of a reader that are fetched in order.
const READER_WINDOW: u32 = 8;

/// What the choice depends on.
pub(super) struct View<'a> {
    /// What the parent has.
    pub(super) parent: &'a PieceSet,
    /// What each other parent has.
    pub(super) others: &'a [&'a PieceSet],
    /// Neither held nor being fetched, digest known.
    pub(super) is_open: &'a dyn Fn(u32) -> bool,
    /// The next piece of each reader.
    pub(super) readers: &'a [u32],
}

/// The piece to fetch; `random(n)` gives a number below n.
pub(super) fn pick(view: &View<'_>, random: impl FnOnce(usize) -> usize) -> Option<u32> {
    let candidates: Vec<u32> = view.parent.iter().filter(|piece| (view.is_open)(*piece)).collect();
    let awaited = |piece: &&u32| {
        view.readers.iter().any(|next| (*next..next.saturating_add(READER_WINDOW)).contains(*piece))
    };
    if let Some(piece) = candidates.iter().find(awaited) {
        return Some(*piece);
    }
    let copies = |piece: &u32| view.others.iter().filter(|other| other.contains(*piece)).count();
    let fewest = candidates.iter().map(copies).min()?;
    let rarest: Vec<u32> = candidates.into_iter().filter(|piece| copies(piece) == fewest).collect();
    rarest.get(random(rarest.len())).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(pieces: impl IntoIterator<Item = u32>) -> PieceSet {
        pieces.into_iter().collect()
    }

    #[test]
    fn a_reader_is_served_in_order() {
        let parent = set(0..100);
        let view = View { parent: &parent, others: &[], is_open: &|piece| piece > 11, readers: &[10] };
        assert_eq!(pick(&view, |_| 0), Some(12));
    }

    #[test]
    fn beyond_the_readers_the_rarest_goes_first() {
        let (parent, other) = (set(0..4), set([0, 1, 3]));
        let view = View { parent: &parent, others: &[&other], is_open: &|_| true, readers: &[50] };
        assert_eq!(pick(&view, |count| count - 1), Some(2));
    }

    proptest! {
        #[test]
        fn only_open_pieces_of_the_parent_are_picked(
            parent in proptest::collection::vec(0u32..64, 0..32),
            closed in proptest::collection::vec(0u32..64, 0..64),
            readers in proptest::collection::vec(0u32..64, 0..3),
            seed: usize,
        ) {
            let (parent, closed) = (set(parent), set(closed));
            let is_open = |piece| !closed.contains(piece);
            let view = View { parent: &parent, others: &[], is_open: &is_open, readers: &readers };
            match pick(&view, |count| seed % count) {
                Some(piece) => prop_assert!(parent.contains(piece) && is_open(piece)),
                None => prop_assert!(parent.iter().all(|piece| !is_open(piece))),
            }
        }
    }
}
