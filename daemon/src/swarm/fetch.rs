//! Work for one parent: follow its feed, fetch pieces from it over a few connections.
//!
//! Invariant: a piece that does not match what the piece list says is not held, and its sender is
//! named and not asked again.

use super::claim::{Claim, STALE_CONNECTION};
use super::download::Download;
use super::intake::Intake;
use super::orders::{Attested, Notice, Parent};
use super::state::Expected;
use super::trace::FromParent;
use crate::peer::client::{ClientError, News, PeerConnection};
use crate::store::BlobFile;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Connections to one parent for one task: one works while the other waits for its request's answer.
const CONNECTIONS_PER_PARENT: usize = 2;
/// Pause after a failure, times the number of failures in a row.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Failures to connect in a row after which the scheduler is told.
const UNREACHABLE_AFTER: u32 = 4;
/// A parent stands still that gave fewer than [`CRAWL_BYTES`] in this time, over all its connections. Longer than the scheduler
/// needs to notice that a host is gone: it has one node go on for all, where each would ask the origin for itself.
const CRAWL_WINDOW: Duration = Duration::from_secs(4);
/// Less is not worth waiting for: 4 KiB/s.
const CRAWL_BYTES: u64 = 16 << 10;
const LOOK_AT_PARENT: Duration = Duration::from_millis(250);
/// A parent is found out before its other connection may take a piece over.
const _: () =
    assert!(CRAWL_WINDOW.as_millis() + 2 * LOOK_AT_PARENT.as_millis() < STALE_CONNECTION.as_millis());
/// A parent that was taken away and wrote nothing for this long is left with its piece unfinished.
const FORSAKEN_WINDOW: Duration = Duration::from_millis(300);
/// Waiting workers look again after this, because claims grow stale without an event.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Works with `parent` until it is retired or shunned, or the download ends.
pub(super) async fn from_parent(download: Arc<Download>, parent: Parent) {
    let gone = download.cancel.child_token();
    let traced = FromParent::new(&parent, download.context.source(&parent));
    let workers = (0..CONNECTIONS_PER_PARENT).map(|_| pieces(&download, &parent, &gone, &traced));
    let work = async { tokio::join!(feed(&download, &parent, &gone), futures::future::join_all(workers)) };
    work.instrument(traced.span.clone()).await;
}

fn is_retired(download: &Download, parent: &Parent) -> bool {
    let state = download.state();
    let assigned = state.parents.get(&parent.host_id).is_some_and(|state| !state.retired);
    !assigned || state.outcome.is_some()
}

/// Follows what the parent has, until it has everything or is gone.
async fn feed(download: &Arc<Download>, parent: &Parent, gone: &CancellationToken) {
    let (mut failures, mut changes) = (0, download.changes());
    while !is_retired(download, parent) && !gone.is_cancelled() {
        let following = follow(download, parent, &mut failures);
        let retired = async { while !is_retired(download, parent) && changes.changed().await.is_ok() {} };
        let ended = tokio::select! {
            () = gone.cancelled() => return,
            () = retired => return,
            ended = following => ended,
        };
        match ended {
            // It has everything: nothing more to learn.
            Ok(true) => return,
            Ok(false) => failures += 1,
            Err(error) => {
                failures += 1;
                tracing::debug!(task = %download.task, %error, "feed of a parent ended");
                if gave_nothing(&error) {
                    tried(download, parent, true);
                }
                if failures == UNREACHABLE_AFTER && matches!(error, ClientError::Unreachable { .. }) {
                    report_bad(download, parent, 0, error.to_string());
                }
            }
        }
        tokio::time::sleep((RETRY_PAUSE * failures).min(MAX_RETRY_PAUSE)).await;
    }
}

/// True: the parent has the whole blob.
async fn follow(download: &Arc<Download>, parent: &Parent, failures: &mut u32) -> Result<bool, ClientError> {
    let connection = download.context.client.connect(parent.addr).await?;
    let mut feed = connection.have(&download.task).await?;
    *failures = 0;
    while let Some(news) = feed.next().await? {
        match news {
            News::Complete => return Ok(true),
            News::Size(size) => size_from_parent(download, parent, size).await,
            News::Pieces(pieces) => {
                let alone = !download.context.announce.is_connected();
                let attester: Arc<str> = parent.host_id.as_str().into();
                download.update(|state| {
                    for (piece, digest) in pieces {
                        if let Some(known) = state.parents.get_mut(&parent.host_id) {
                            known.has.insert(piece);
                        }
                        // Without a scheduler the parent's own word has to do until the whole is proven.
                        if alone {
                            let (digests, attester) = (vec![digest], Arc::clone(&attester));
                            state.expect(&Attested { first: piece, digests, attester });
                        }
                    }
                });
            }
        }
    }
    Ok(false)
}

/// A parent's word on the size counts only where there is no scheduler to ask.
async fn size_from_parent(download: &Arc<Download>, parent: &Parent, size: u64) {
    if download.blob().is_none()
        && !download.context.announce.is_connected()
        && let Err(failure) = download.attach(size).await
    {
        tracing::debug!(task = %download.task, parent = %parent.addr, %failure, "size told by a parent");
        download.fail(failure);
    }
}

/// Fetches piece after piece over one connection.
async fn pieces(download: &Arc<Download>, parent: &Parent, gone: &CancellationToken, traced: &FromParent) {
    let (mut connection, mut failures) = (None, 0u32);
    while let Some((blob, piece, expected, claim)) = next(download, parent, gone).await {
        let fetched = tokio::select! {
            () = gone.cancelled() => Err(None),
            () = watched(download, parent, &claim) => Err(None),
            () = forsaken(download, parent, &claim) => Err(None),
            fetched = piece_from(download, parent, &mut connection, &blob, (piece, &expected, &claim)) => {
                fetched.map_err(Some)
            }
        };
        download.release(piece, &claim);
        match fetched {
            Ok(()) => {
                failures = 0;
                let piece = blob.geometry().range(piece);
                traced.got(piece.end - piece.start);
                download.update(|state| state.took(&parent.host_id, claim.age(Instant::now())));
                tried(download, parent, false);
            }
            Err(None) => return,
            Err(Some(error)) => {
                (connection, failures) = (None, failures + 1);
                tracing::debug!(task = %download.task, piece, %error, "piece not fetched");
                if gave_nothing(&error) {
                    tried(download, parent, true);
                }
                match error {
                    ClientError::Protocol { .. } => {
                        shun(download, parent, piece, error.to_string());
                        gone.cancel();
                    }
                    ClientError::Refused { status: 404, .. } => lost(download, parent, piece),
                    _ => {}
                }
                let pause = (RETRY_PAUSE * failures).min(MAX_RETRY_PAUSE);
                let _ = tokio::time::timeout(pause, gone.cancelled()).await;
            }
        }
    }
}

/// Notes when the parent stands still or crawls, and when it no longer does. Does not end: the fetch may come back.
///
/// Of the parent, not of the fetch: of several connections that share a limit, one may get nothing for seconds.
async fn watched(download: &Download, parent: &Parent, claim: &Claim) {
    let (mut mark, mut since, mut still) = (claim.given(), Instant::now(), false);
    loop {
        tokio::time::sleep(LOOK_AT_PARENT).await;
        let (given, now) = (claim.given(), Instant::now());
        let was_still = still;
        if given >= mark + CRAWL_BYTES {
            (mark, since, still) = (given, now, false);
        } else if now.duration_since(since) >= CRAWL_WINDOW {
            (mark, since, still) = (given, now, true);
        } else {
            continue;
        }
        if still || was_still {
            tracing::debug!(task = %download.task, parent = %parent.addr, still, "a parent gives nothing, or again");
            tried(download, parent, still);
        }
    }
}

/// Ends when the parent is no longer assigned and gives nothing: the piece is not waited for.
async fn forsaken(download: &Download, parent: &Parent, claim: &Claim) {
    let mut before = None;
    loop {
        let now = claim.written();
        if before == Some(now) && is_retired(download, parent) {
            return;
        }
        before = Some(now);
        tokio::time::sleep(FORSAKEN_WINDOW).await;
    }
}

/// Notes that a parent gave something, or nothing in time.
fn tried(download: &Download, parent: &Parent, failing: bool) {
    let (id, now) = (&parent.host_id, tokio::time::Instant::now());
    {
        let mut table = download.context.failing.lock();
        if failing {
            table.insert(id.clone(), (), now, now);
        } else {
            table.remove(id);
        }
    }
    download.update(|state| state.tried(id, failing));
}

/// Whether the error says that the parent does not work. One that is busy does, for others.
fn gave_nothing(error: &ClientError) -> bool {
    !matches!(error, ClientError::Refused { status: 404 | 503, .. } | ClientError::Sink { .. })
}

type Next = (Arc<BlobFile>, u32, Expected, Claim);

/// The next piece to fetch from `parent`, once there is one; `None` when there will be none.
async fn next(download: &Download, parent: &Parent, gone: &CancellationToken) -> Option<Next> {
    let mut changes = download.changes();
    loop {
        changes.borrow_and_update();
        if is_retired(download, parent) || gone.is_cancelled() {
            return None;
        }
        if download.context.closing.is_cancelled() {
            gone.cancelled().await;
            return None;
        }
        {
            let mut state = download.state();
            let picked =
                state.claim_from(&parent.host_id, Instant::now(), |count| rand::random_range(0..count));
            if let Some((piece, expected, claim)) = picked
                && let Some(blob) = state.blob.clone()
            {
                return Some((blob, piece, expected, claim));
            }
        }
        tokio::select! {
            () = gone.cancelled() => return None,
            _ = tokio::time::timeout(LOOK_AGAIN, changes.changed()) => {}
        }
    }
}

async fn piece_from(
    download: &Arc<Download>,
    parent: &Parent,
    connection: &mut Option<PeerConnection>,
    blob: &Arc<BlobFile>,
    (piece, expected, claim): (u32, &Expected, &Claim),
) -> Result<(), ClientError> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(download.context.client.connect(parent.addr).await?),
    };
    let mut intake = Intake::new(Arc::clone(blob), piece, claim.clone());
    open.fetch(&download.task, blob.geometry().range(piece), &mut intake).await?;
    let arrived = intake.finish().await;
    let arrived = arrived.map_err(|detail| ClientError::Sink { parent: parent.addr, detail })?;
    if arrived.digest() != expected.digest {
        download.context.metrics.piece_rejected();
        let detail = format!("piece {piece} of {} does not match the piece list", download.task);
        return Err(ClientError::Protocol { parent: parent.addr, detail });
    }
    let source = download.state().parents.get(&parent.host_id).map(|state| state.source);
    let source = source.unwrap_or_else(|| download.context.source(parent));
    let attester = Some(Arc::clone(&expected.attester));
    if let Err(failure) = download.commit(&arrived, source, attester) {
        download.fail(failure);
    }
    Ok(())
}

/// The parent no longer has a piece it told of.
fn lost(download: &Download, parent: &Parent, piece: u32) {
    download.update(|state| {
        if let Some(known) = state.parents.get_mut(&parent.host_id) {
            known.has.remove(piece);
        }
    });
}

fn shun(download: &Download, parent: &Parent, piece: u32, detail: String) {
    tracing::warn!(task = %download.task, peer = %parent.addr, host = %parent.host_id, %detail, "shunning a peer");
    refuse(download, parent, piece, detail.clone());
    // Last, so that no other turn of this download says so a second time.
    download.context.shunned.add(&parent.host_id, parent.addr.ip(), detail, Instant::now());
}

/// Takes nothing more from a parent for this download, and tells the scheduler, which has to think of somebody else.
pub(super) fn refuse(download: &Download, parent: &Parent, piece: u32, detail: String) {
    download.update(|state| {
        if let Some(known) = state.parents.get_mut(&parent.host_id) {
            known.retired = true;
        }
    });
    report_bad(download, parent, piece, detail);
}

fn report_bad(download: &Download, parent: &Parent, piece: u32, detail: String) {
    let (task, host_id) = (download.task, parent.host_id.clone());
    download.context.announce.tell(Notice::BadPeer { task, host_id, piece, detail });
}
