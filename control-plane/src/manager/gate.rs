//! Who may call the gRPC service at all: with `manager.joinTokenFile` whoever shows one of its tokens, else everybody.
//!
//! It is one layer before all services, so that no method can be forgotten. Not who a caller is: all who have a token are alike.
//!
//! Invariants: a token is compared in constant time and is in no message; a file that became unusable leaves the tokens read last in force.

use hawker_api::join::{HEADER, JoinToken, JoinTokenError, JoinTokenFile, MANAGER_KEY};
use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use subtle::{Choice, ConstantTimeEq};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// How late a changed file may be noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Refusals are logged this often, with how many there were.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Clones are one gate.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    asks: Option<Arc<Asks>>,
    refusals: Refusals,
}

/// Calls refused.
pub(super) type Refusals = Family<RefusalLabels, Counter>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RefusalLabels {
    token: &'static str,
}

#[derive(Debug)]
struct Asks {
    file: JoinTokenFile,
    tokens: RwLock<Tokens>,
    refused: Mutex<Refused>,
}

/// What is taken, and of which state of the file.
struct Tokens {
    hashes: Vec<Hash>,
    read_at: Option<Stamp>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({} hidden)", self.hashes.len())
    }
}

/// Of equal length whatever was sent.
type Hash = [u8; 32];
/// What changes when a file is written or another one is put in its place.
type Stamp = (u64, u64, i64, i64, i64, i64);

/// Since the last line in the log.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    logged: Option<Instant>,
}

/// What was wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Missing,
    Unknown,
}

impl Refusal {
    fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }

    fn labels(self) -> RefusalLabels {
        RefusalLabels { token: self.name() }
    }

    fn text(self) -> String {
        match self {
            Self::Missing => format!("this manager asks for a join token: {MANAGER_KEY}"),
            Self::Unknown => {
                format!(
                    "this manager asks for a join token, and the one sent is none of its own: {MANAGER_KEY}"
                )
            }
        }
    }
}

impl Gate {
    /// # Errors
    /// There is a file, and it cannot be used.
    pub(super) fn open(file: Option<PathBuf>) -> Result<Self, JoinTokenError> {
        let refusals = Refusals::default();
        let Some(path) = file else {
            tracing::warn!(
                "{MANAGER_KEY} is not set: whoever reaches the gRPC port may join as daemon or scheduler"
            );
            return Ok(Self { asks: None, refusals });
        };
        let file = JoinTokenFile::new(MANAGER_KEY, path);
        let read_at = stamp(file.path());
        let tokens = RwLock::new(Tokens { hashes: hashes(&file.read()?), read_at });
        let asks = Asks { file, tokens, refused: Mutex::default() };
        for refusal in [Refusal::Missing, Refusal::Unknown] {
            drop(refusals.get_or_create(&refusal.labels()));
        }
        Ok(Self { asks: Some(Arc::new(asks)), refusals })
    }

    /// Whether a caller must show a token.
    pub(super) fn asks(&self) -> bool {
        self.asks.is_some()
    }

    pub(super) fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// Reads the file again whenever it changed, until cancelled.
    pub(super) async fn follow_file(&self, cancel: CancellationToken) {
        let Some(asks) = &self.asks else { return };
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let looking = Arc::clone(asks);
            // A panic there is one of this function, and the next look comes.
            let _ = tokio::task::spawn_blocking(move || looking.look()).await;
        }
    }
}

impl Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(asks) = &self.asks else { return Ok(request) };
        let shown = request.metadata().get(HEADER).map(|value| value.as_encoded_bytes());
        let Err(refusal) = asks.check(shown) else { return Ok(request) };
        self.refusals.get_or_create(&refusal.labels()).inc();
        asks.log(refusal, request.remote_addr());
        Err(Status::unauthenticated(refusal.text()))
    }
}

impl Asks {
    fn check(&self, header: Option<&[u8]>) -> Result<(), Refusal> {
        let token = header.and_then(bearer).ok_or(Refusal::Missing)?;
        let shown = hash(token);
        // All of them, whichever matches.
        let known =
            self.tokens.read().hashes.iter().fold(Choice::from(0), |found, own| found | own.ct_eq(&shown));
        if bool::from(known) { Ok(()) } else { Err(Refusal::Unknown) }
    }

    fn look(&self) {
        let now = stamp(self.file.path());
        if now == self.tokens.read().read_at {
            return;
        }
        let read = self.file.read();
        let mut tokens = self.tokens.write();
        tokens.read_at = now;
        match read {
            Ok(read) => {
                tokens.hashes = hashes(&read);
                tracing::info!(file = %self.file.path().display(), tokens = read.len(), "join tokens read again");
            }
            Err(error) => tracing::warn!(%error, "going on with the join tokens read last"),
        }
    }

    fn log(&self, refusal: Refusal, from: Option<SocketAddr>) {
        let count = {
            let mut refused = self.refused.lock();
            refused.count += 1;
            let now = Instant::now();
            if refused.logged.is_some_and(|logged| now.duration_since(logged) < LOG_EVERY) {
                return;
            }
            refused.logged = Some(now);
            std::mem::take(&mut refused.count)
        };
        let from = from.map(tracing::field::display);
        tracing::warn!(from, token = refusal.name(), count, "refused: {MANAGER_KEY} has no such join token");
    }
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

fn hash(token: &[u8]) -> Hash {
    Sha256::digest(token).into()
}

fn hashes(tokens: &[JoinToken]) -> Vec<Hash> {
    tokens.iter().map(|token| hash(token.as_bytes())).collect()
}

/// `None`: there is no such file.
fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()))
}
