//! What is known of one download at one moment: parents, claims, leases, readers, outcome.
//!
//! Plain data with time passed in; no I/O, no waiting. Invariant: a piece has at most one claim that
//! may still write; taking a claim over first takes the former holder's right to write.

use super::failure::Failure;
use super::orders::{Assignment, Attested, Parent};
use super::plan::{self, View};
use crate::metrics::Source;
use crate::origin::{Credentials, OriginObject};
use crate::status::BySource;
use crate::store::BlobFile;
use hawker_api::pieces::{MAX_PIECES, PieceDigest, PieceSet};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A claim older than this may be taken over by another parent.
pub(super) const STALE_CLAIM: Duration = Duration::from_secs(4);
/// No answer from the scheduler to a first Want: the origin is asked without it.
const ANSWER_LIMIT: Duration = Duration::from_millis(2500);
/// Parents of a cluster without scheduler get this long to give a piece.
const ALONE_LIMIT: Duration = Duration::from_secs(3);
/// No piece from anywhere for this long: the origin is asked, whatever the scheduler thinks.
const PROGRESS_LIMIT: Duration = Duration::from_secs(10);

/// Digest of a piece and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) digest: PieceDigest,
    pub(super) attester: Arc<str>,
}

/// The right to write one piece, until somebody takes it over.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) since: Instant,
    /// Held while writing, so that no write happens after it was taken away.
    pub(super) valid: Arc<Mutex<bool>>,
}

#[derive(Debug)]
pub(super) struct ParentState {
    pub(super) parent: Parent,
    pub(super) source: Source,
    pub(super) has: PieceSet,
    /// No longer assigned: its workers end.
    pub(super) retired: bool,
    /// Its workers run.
    pub(super) staffed: bool,
}

#[derive(Debug)]
pub(super) struct LeaseState {
    pub(super) pieces: Range<u32>,
    pub(super) object: OriginObject,
    pub(super) staffed: bool,
}

/// How a download ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// The whole digest matched here.
    Verified,
    Failed(Failure),
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) object: OriginObject,
    pub(super) credentials: Credentials,
    /// Told by the scheduler; there is a file for it a moment later.
    pub(super) announced_size: Option<u64>,
    pub(super) blob: Option<Arc<BlobFile>>,
    pub(super) expected: HashMap<u32, Expected>,
    pub(super) parents: BTreeMap<String, ParentState>,
    claims: HashMap<u32, Claim>,
    pub(super) leases: BTreeMap<u64, LeaseState>,
    /// Per piece: where it came from here, and who attested it.
    pub(super) origins: HashMap<u32, (Source, Arc<str>)>,
    pub(super) readers: HashMap<u64, u32>,
    pub(super) interest: usize,
    pub(super) last_interest: Instant,
    pub(super) outcome: Option<Outcome>,
    pub(super) ended: Option<SystemTime>,
    pub(super) refused: Option<String>,
    started: Instant,
    answered: bool,
    pub(super) last_progress: Instant,
    pub(super) delivered: BySource,
    pub(super) fetched: BySource,
}

impl State {
    pub(super) fn new(object: OriginObject, credentials: Credentials, now: Instant) -> Self {
        Self {
            object,
            credentials,
            announced_size: None,
            blob: None,
            expected: HashMap::new(),
            parents: BTreeMap::new(),
            claims: HashMap::new(),
            leases: BTreeMap::new(),
            origins: HashMap::new(),
            readers: HashMap::new(),
            interest: 0,
            last_interest: now,
            outcome: None,
            ended: None,
            refused: None,
            started: now,
            answered: false,
            last_progress: now,
            delivered: BySource::default(),
            fetched: BySource::default(),
        }
    }

    /// The first outcome stays.
    pub(super) fn end(&mut self, outcome: Outcome) {
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            self.ended = Some(SystemTime::now());
        }
    }

    /// Takes the scheduler's word; `zone` tells a parent's class of source.
    pub(super) fn assigned(&mut self, assignment: Assignment, zone: impl Fn(&Parent) -> Source) {
        self.answered = true;
        self.refused = assignment.refused;
        self.announced_size = self.announced_size.or(assignment.size);
        for attested in assignment.digests {
            self.expect(&attested);
        }
        let Some(parents) = assignment.parents else { return };
        for state in self.parents.values_mut() {
            state.retired = true;
        }
        for parent in parents {
            let source = zone(&parent);
            let known =
                self.parents.get_mut(&parent.host_id).filter(|state| state.parent.addr == parent.addr);
            if let Some(state) = known {
                (state.retired, state.parent, state.source) = (false, parent, source);
            } else {
                let (has, staffed, id) = (PieceSet::new(), false, parent.host_id.clone());
                self.parents.insert(id, ParentState { parent, source, has, retired: false, staffed });
            }
        }
    }

    pub(super) fn expect(&mut self, attested: &Attested) {
        let entries = (attested.first..MAX_PIECES).zip(&attested.digests);
        for (piece, digest) in entries {
            let attester = Arc::clone(&attested.attester);
            self.expected.entry(piece).or_insert(Expected { digest: *digest, attester });
        }
    }

    pub(super) fn leased(&mut self, id: u64, pieces: Range<u32>, object: OriginObject) {
        self.answered = true;
        self.leases.insert(id, LeaseState { pieces, object, staffed: false });
    }

    /// The next piece for a worker of `parent`, claimed for it.
    pub(super) fn claim_from(
        &mut self,
        parent: &str,
        now: Instant,
        random: impl FnOnce(usize) -> usize,
    ) -> Option<(u32, Expected, Claim)> {
        let blob = self.blob.as_ref()?;
        let state = self.parents.get(parent).filter(|state| !state.retired)?;
        let active = |(id, other): &(&String, &ParentState)| *id != parent && !other.retired;
        let others: Vec<_> = self.parents.iter().filter(active).map(|(_, other)| &other.has).collect();
        let held = blob.held();
        let is_open = |piece| {
            !held.contains(piece) && self.expected.contains_key(&piece) && !self.is_claimed(piece, now)
        };
        let readers: Vec<u32> = self.readers.values().copied().collect();
        let view = View { parent: &state.has, others: &others, is_open: &is_open, readers: &readers };
        let piece = plan::pick(&view, random)?;
        let expected = self.expected.get(&piece)?.clone();
        Some((piece, expected, self.claim(piece, now)))
    }

    /// Whether somebody is fetching the piece and not overdue.
    pub(super) fn is_claimed(&self, piece: u32, now: Instant) -> bool {
        self.claims.get(&piece).is_some_and(|claim| now.duration_since(claim.since) < STALE_CLAIM)
    }

    /// Claims a piece, from whoever had it.
    pub(super) fn claim(&mut self, piece: u32, now: Instant) -> Claim {
        let claim = Claim { since: now, valid: Arc::new(Mutex::new(true)) };
        if let Some(former) = self.claims.insert(piece, claim.clone()) {
            *former.valid.lock() = false;
        }
        claim
    }

    /// Ends a claim, if it is still the piece's.
    pub(super) fn release(&mut self, piece: u32, claim: &Claim) {
        if self.claims.get(&piece).is_some_and(|current| Arc::ptr_eq(&current.valid, &claim.valid)) {
            self.claims.remove(&piece);
        }
    }

    /// Whether the origin is to be asked on this node's own account.
    pub(super) fn own_fetch_is_due(&self, connected: bool, now: Instant) -> bool {
        if self.outcome.is_some() || !self.leases.is_empty() {
            return false;
        }
        let quiet = now.duration_since(self.last_progress);
        let parents = self.parents.values().any(|parent| !parent.retired);
        if !connected || self.refused.is_some() {
            return !parents || quiet > ALONE_LIMIT;
        }
        if !self.answered && now.duration_since(self.started) > ANSWER_LIMIT {
            return true;
        }
        quiet > PROGRESS_LIMIT
    }

    pub(super) fn count(of: &mut BySource, source: Source, bytes: u64) {
        *match source {
            Source::Local => &mut of.local,
            Source::PeerSameZone => &mut of.peer_same_zone,
            Source::PeerCrossZone => &mut of.peer_cross_zone,
            Source::Seed => &mut of.seed,
            Source::Origin => &mut of.origin,
        } += bytes;
    }
}
