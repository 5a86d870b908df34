//! What the cluster knows of one task: who has what, who wants it, who fetches it, its piece list.
//!
//! Ordered maps throughout: what the scheduler does must not depend on a hash's chance.
//! Bookkeeping; the choices are `leases`' and `parents`'. Invariant: `copies[i]` is the number of
//! incomplete hosts that hold piece i.

use super::messages::{HostId, Origin, Run};
use hawker_api::pieces::{Geometry, MAX_PIECES, PieceDigest, PieceSet};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Task {
    pub(super) origin: Option<Origin>,
    pub(super) geometry: Option<Geometry>,
    /// Matched the whole digest.
    pub(super) complete: BTreeSet<HostId>,
    /// Hold a part.
    pub(super) partial: BTreeMap<HostId, PieceSet>,
    pub(super) copies: Vec<u32>,
    pub(super) wants: BTreeMap<HostId, Waiting>,
    pub(super) leases: BTreeMap<u64, Lease>,
    /// Hosts that fetch it from the origin, or did and still hold parts: everybody's hope leads to
    /// one of them or to a complete holder, and each of them knows all others.
    pub(super) roots: Vec<HostId>,
    /// Hosts that get no lease, until when and why.
    pub(super) bans: BTreeMap<HostId, (Instant, String)>,
    digests: BTreeMap<u32, (PieceDigest, HostId)>,
    /// Digests not yet told to those who want it.
    pub(super) news: Vec<u32>,
    /// The size is not yet told to those who want it.
    pub(super) size_is_news: bool,
    pub(super) proven: bool,
    /// Who was asked for the piece list, and when.
    pub(super) asked: Option<(HostId, Instant)>,
}

/// A host that wants the task.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) can_fetch: bool,
    pub(super) parents: Vec<HostId>,
    /// The parent that guarantees that everything can be reached.
    pub(super) anchor: Option<HostId>,
    /// Hosts whose anchor this is.
    pub(super) children: usize,
    pub(super) refused: bool,
}

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) host: HostId,
    pub(super) pieces: Range<u32>,
    pub(super) last_sign: Instant,
    /// Pieces of it that came.
    pub(super) got: usize,
    /// Taken over from a daemon that knows it under another id: it ends when its pieces are there.
    pub(super) adopted: bool,
}

impl Task {
    /// Number of pieces; 0 while the size is unknown.
    pub(super) fn count(&self) -> u32 {
        self.geometry.map_or(0, |geometry| geometry.count())
    }

    pub(super) fn size(&self) -> Option<u64> {
        self.geometry.map(|geometry| geometry.size())
    }

    /// Bytes of these pieces; 0 while the size is unknown.
    pub(super) fn bytes(&self, pieces: impl Iterator<Item = u32>) -> u64 {
        let Some(geometry) = self.geometry else { return 0 };
        let length = |piece: u32| {
            let range = geometry.range(piece);
            range.end.saturating_sub(range.start)
        };
        pieces.filter(|piece| *piece < geometry.count()).map(length).sum()
    }

    /// Learns the size; what contradicts it is not believed.
    pub(super) fn learn_size(&mut self, size: u64) {
        if self.geometry.is_some() {
            return;
        }
        let Ok(geometry) = Geometry::new(size) else { return };
        self.geometry = Some(geometry);
        self.size_is_news = true;
        self.copies = vec![0; geometry.count() as usize];
        for lease in self.leases.values_mut() {
            lease.pieces.end = lease.pieces.end.min(geometry.count());
        }
    }

    /// A piece arrived at an incomplete host.
    pub(super) fn add_piece(&mut self, host: &HostId, piece: u32) {
        let Some(copies) = self.copies.get_mut(piece as usize) else { return };
        if self.partial.entry(host.clone()).or_default().insert(piece) {
            *copies += 1;
        }
    }

    /// Forgets what an incomplete host held.
    pub(super) fn drop_pieces(&mut self, host: &HostId) -> bool {
        let Some(pieces) = self.partial.remove(host) else { return false };
        for piece in pieces.iter() {
            if let Some(copies) = self.copies.get_mut(piece as usize) {
                *copies -= 1;
            }
        }
        true
    }

    pub(super) fn is_held(&self, piece: u32) -> bool {
        !self.complete.is_empty() || self.copies.get(piece as usize).is_some_and(|copies| *copies > 0)
    }

    pub(super) fn is_leased(&self, piece: u32) -> bool {
        self.leases.values().any(|lease| lease.pieces.contains(&piece))
    }

    /// Pieces that nobody holds and nobody fetches.
    pub(super) fn needed(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.count()).filter(|piece| !self.is_held(*piece) && !self.is_leased(*piece))
    }

    /// Takes an entry of the piece list; the first one stays.
    pub(super) fn attest(&mut self, piece: u32, digest: PieceDigest, attester: &HostId) {
        if piece < MAX_PIECES && self.geometry.is_none_or(|geometry| piece < geometry.count()) {
            self.digests.entry(piece).or_insert_with(|| {
                self.news.push(piece);
                (digest, attester.clone())
            });
        }
    }

    pub(super) fn knows_digest(&self, piece: u32) -> bool {
        self.digests.contains_key(&piece)
    }

    pub(super) fn knows_all_digests(&self) -> bool {
        self.geometry.is_some() && self.digests.len() >= self.count() as usize
    }

    /// The list from `pieces`, as runs.
    pub(super) fn runs(&self, pieces: impl Iterator<Item = u32>) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for piece in pieces {
            let Some((digest, attester)) = self.digests.get(&piece) else { continue };
            match runs.last_mut() {
                Some(run)
                    if run.first as usize + run.digests.len() == piece as usize
                        && run.attester == *attester =>
                {
                    run.digests.push(*digest);
                }
                _ => runs.push(Run { first: piece, digests: vec![*digest], attester: attester.clone() }),
            }
        }
        runs
    }

    pub(super) fn all_runs(&self) -> Vec<Run> {
        self.runs(self.digests.keys().copied())
    }

    /// Starts over: nothing of the list, and nothing that was checked with it, is believed any more.
    pub(super) fn reset_list(&mut self) {
        self.digests.clear();
        self.news.clear();
        self.proven = false;
        self.asked = None;
        self.partial.clear();
        self.copies.fill(0);
        self.roots.clear();
    }

    /// Nobody has it, wants it or fetches it.
    pub(super) fn is_forgotten(&self) -> bool {
        self.complete.is_empty() && self.partial.is_empty() && self.wants.is_empty() && self.leases.is_empty()
    }
}
