//! What is known of one download at one moment: parents, claims, leases, readers, outcome.
//!
//! Plain data with time passed in; no I/O, no waiting.

use super::claim::{Claim, Claims, STALE_CLAIM};
use super::failure::Failure;
use super::orders::{Assignment, Attested, Parent};
use super::plan::{self, View};
use crate::metrics::Source;
use crate::origin::{Credentials, ObjectKind, OriginObject};
use crate::status::BySource;
use crate::store::BlobFile;
use hawker_api::pieces::{MAX_PIECES, PieceDigest, PieceSet};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

/// A parent in reserve is asked after this long without a piece from anywhere; from then on it is one like the others.
/// Longer than the first pieces take that several children fetch at once over a slow link; a parent that gives no bytes
/// is given up sooner, and then its pieces are the reserve's.
const RESERVE_AFTER: Duration = Duration::from_secs(8);
/// No answer from the scheduler to a first Want: the origin is asked without it.
const ANSWER_LIMIT: Duration = Duration::from_millis(2500);
/// Parents of a cluster without scheduler get this long to give a piece.
const ALONE_LIMIT: Duration = Duration::from_secs(3);
/// Parents that all give nothing get this long, since there was last a piece: one may be back in a moment.
const FAILING_LIMIT: Duration = Duration::from_millis(300);
/// The origin stopped in the middle: for this long readers are sent elsewhere instead of waiting with it.
const ORIGIN_STALL: Duration = Duration::from_secs(10);
/// No piece from anywhere for this long: the origin is asked, whatever the scheduler thinks.
const PROGRESS_LIMIT: Duration = Duration::from_secs(10);

/// Digest of a piece and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) digest: PieceDigest,
    pub(super) attester: Arc<str>,
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
    /// It was asked and gave nothing, in time, since it last did.
    pub(super) failing: bool,
    /// Bytes of it that were written.
    given: Arc<AtomicU64>,
    /// For its last piece.
    took: Option<Duration>,
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
    claims: Claims,
    pub(super) leases: BTreeMap<u64, LeaseState>,
    /// Per piece: where it came from here, and who attested it.
    pub(super) origins: HashMap<u32, (Source, Arc<str>)>,
    pub(super) readers: HashMap<u64, u32>,
    pub(super) interest: usize,
    pub(super) last_interest: Instant,
    pub(super) outcome: Option<Outcome>,
    pub(super) ended: Option<SystemTime>,
    pub(super) refused: Option<String>,
    /// When a fetch from the origin last broke off without an answer; a piece ends it.
    pub(super) origin_stopped: Option<Instant>,
    started: Instant,
    answered: bool,
    pub(super) last_progress: Instant,
    pub(super) fetched: BySource,
}

impl State {
    /// What may be shown to the origin of `object`: nothing, unless the caller gave it for that very one.
    pub(super) fn credentials_for(&self, object: &OriginObject) -> Credentials {
        let is_file = |object: &OriginObject| object.kind == ObjectKind::File;
        let same = object.registry == self.object.registry && is_file(object) == is_file(&self.object);
        if same { self.credentials.clone() } else { Credentials::none() }
    }

    pub(super) fn new(object: OriginObject, credentials: Credentials, now: Instant) -> Self {
        Self {
            object,
            credentials,
            announced_size: None,
            blob: None,
            expected: HashMap::new(),
            parents: BTreeMap::new(),
            claims: Claims::default(),
            leases: BTreeMap::new(),
            origins: HashMap::new(),
            readers: HashMap::new(),
            interest: 0,
            last_interest: now,
            outcome: None,
            ended: None,
            refused: None,
            origin_stopped: None,
            started: now,
            answered: false,
            last_progress: now,
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
                let (has, id) = (PieceSet::new(), parent.host_id.clone());
                let new = ParentState {
                    parent,
                    source,
                    has,
                    retired: false,
                    staffed: false,
                    failing: false,
                    given: Arc::default(),
                    took: None,
                };
                self.parents.insert(id, new);
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
        self.call_up_reserves(now);
        let blob = self.blob.as_ref()?;
        let state = self.parents.get(parent).filter(|state| !state.retired)?;
        let active = |(id, other): &(&String, &ParentState)| *id != parent && !other.retired;
        let others: Vec<_> = self.parents.iter().filter(active).map(|(_, other)| &other.has).collect();
        let held = blob.held();
        let is_open = |piece| {
            let open = !held.contains(piece) && self.expected.contains_key(&piece);
            let quick = state.took.unwrap_or(STALE_CLAIM);
            let in_vain = self.claims.get(piece).is_some_and(|claim| claim.is_in_vain(&state.given, now));
            let spared = state.parent.reserve && self.others_may_give(piece);
            open && !in_vain && !spared && !self.is_claimed(piece, now, quick)
        };
        let readers: Vec<u32> = self.readers.values().copied().collect();
        let view = View { parent: &state.has, others: &others, is_open: &is_open, readers: &readers };
        let piece = plan::pick(&view, random)?;
        let (expected, given) = (self.expected.get(&piece)?.clone(), Arc::clone(&state.given));
        let failing = state.failing;
        let claim = self.claims.claim(piece, now, Arc::clone(&given));
        if failing {
            // It may show that it works again, and nobody waits for that.
            self.claims.lapse(&given, true);
        }
        Some((piece, expected, claim))
    }

    /// Whether a parent that is not in reserve has the piece, or did not say yet what it has.
    fn others_may_give(&self, piece: u32) -> bool {
        let others = self.parents.values().filter(|other| !other.retired && !other.parent.reserve);
        others.into_iter().any(|other| other.has.is_empty() || other.has.contains(piece))
    }

    /// The others gave nothing for a while: the scheduler's picture of them is not the truth.
    fn call_up_reserves(&mut self, now: Instant) {
        if now.duration_since(self.last_progress) >= RESERVE_AFTER {
            self.parents.values_mut().for_each(|state| state.parent.reserve = false);
        }
    }

    /// Whether somebody is fetching the piece who is not overdue for one who needs `quick` for a piece.
    pub(super) fn is_claimed(&self, piece: u32, now: Instant, quick: Duration) -> bool {
        let length = self.blob.as_ref().map_or(0, |blob| {
            let range = blob.geometry().range(piece);
            range.end - range.start
        });
        self.claims.get(piece).is_some_and(|claim| !claim.is_overdue(length, now, quick))
    }

    /// Whether nobody is fetching anything.
    pub(super) fn is_idle(&self) -> bool {
        self.claims.is_empty()
    }

    /// Ends all claims; who writes at this moment is waited for.
    pub(super) fn revoke_claims(&mut self) {
        self.claims.revoke();
    }

    /// Claims a piece for the origin, from whoever had it.
    pub(super) fn claim(&mut self, piece: u32, now: Instant) -> Claim {
        self.claims.claim(piece, now, Arc::default())
    }

    /// Ends a claim: nothing is written under it any more.
    pub(super) fn release(&mut self, piece: u32, claim: &Claim) {
        self.claims.release(piece, claim);
    }

    /// A parent gave a piece, in this time.
    pub(super) fn took(&mut self, parent: &str, took: Duration) {
        if let Some(parent) = self.parents.get_mut(parent) {
            parent.took = Some(took);
        }
    }

    /// A parent gave something, or nothing in time.
    pub(super) fn tried(&mut self, parent: &str, failing: bool) {
        if let Some(parent) = self.parents.get_mut(parent) {
            parent.failing = failing;
            self.claims.lapse(&parent.given, failing);
        }
    }

    /// Parents that have given nothing here yet, and lately nothing to other downloads either.
    pub(super) fn known_to_fail(&mut self, failing: impl Fn(&String) -> bool) {
        for (id, parent) in &mut self.parents {
            parent.failing |= parent.has.is_empty() && failing(id);
        }
    }

    /// Whether waiting for `piece` is in vain for now: the origin stopped, and no parent that works has it.
    pub(super) fn is_stuck(&self, piece: u32, now: Instant) -> bool {
        let stopped = self.origin_stopped.is_some_and(|since| now.duration_since(since) < ORIGIN_STALL);
        let mut active = self.parents.values().filter(|parent| !parent.retired && !parent.failing);
        stopped && !active.any(|parent| parent.has.contains(piece))
    }

    /// Whether the origin is to be asked on this node's own account.
    pub(super) fn own_fetch_is_due(&self, connected: bool, now: Instant) -> bool {
        if self.outcome.is_some() || !self.leases.is_empty() {
            return false;
        }
        let quiet = now.duration_since(self.last_progress);
        let mut active = self.parents.values().filter(|parent| !parent.retired).peekable();
        let parents = active.peek().is_some();
        if parents && active.all(|parent| parent.failing) && quiet > FAILING_LIMIT {
            return true;
        }
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
