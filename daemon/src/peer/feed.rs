//! The `/have` feed: which pieces are held, then each new one as it is verified, as lines of JSON.
//!
//! ```text
//! {"size":75497472}
//! {"pieces":[[0,"<base64 BLAKE3>"],[1,"…"]]}
//! {"complete":true}
//! ```
//!
//! Both directions of the format. Invariant: what is read is bounded, line by line, before it is believed.

use crate::engine::Lines;
use crate::store::BlobFile;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::future::BoxFuture;
use hawker_api::pieces::{PieceDigest, PieceSet};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::Span;

/// Longest line, bytes.
pub(super) const MAX_LINE_BYTES: usize = 16 << 10;
/// Pieces in one line.
const PIECES_PER_LINE: usize = 64;
/// An empty line goes out after this long without news, so that both sides notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// One line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Line {
    Size(u64),
    Pieces(Vec<(u32, String)>),
    Complete(bool),
}

impl Line {
    pub(super) fn pieces(pieces: &[(u32, PieceDigest)]) -> Self {
        Self::Pieces(pieces.iter().map(|(piece, digest)| (*piece, BASE64_STANDARD.encode(digest))).collect())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// Reads the digest of an entry.
pub(super) fn digest(text: &str) -> Option<PieceDigest> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

/// The feed of one blob for one child.
pub(super) struct Feed {
    coming: Option<watch::Receiver<Option<Arc<BlobFile>>>>,
    blob: Option<Arc<BlobFile>>,
    commits: Option<watch::Receiver<u64>>,
    told: PieceSet,
    ended: bool,
    /// Open as long as the child listens.
    _span: Span,
}

impl Feed {
    pub(super) fn of(blob: Arc<BlobFile>, span: Span) -> Self {
        Self::new(None, Some(blob), span)
    }

    pub(super) fn coming(coming: watch::Receiver<Option<Arc<BlobFile>>>, span: Span) -> Self {
        Self::new(Some(coming), None, span)
    }

    fn new(
        coming: Option<watch::Receiver<Option<Arc<BlobFile>>>>,
        blob: Option<Arc<BlobFile>>,
        span: Span,
    ) -> Self {
        Self { coming, blob, commits: None, told: PieceSet::new(), ended: false, _span: span }
    }

    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.ended {
                return None;
            }
            let Some(blob) = self.blob.clone() else {
                self.arrival().await?;
                continue;
            };
            let Some(commits) = &mut self.commits else {
                self.commits = Some(blob.watch());
                return Some(Line::Size(blob.geometry().size()).bytes());
            };
            commits.borrow_and_update();
            if blob.is_retired() {
                return None;
            }
            let complete = blob.is_complete();
            let news = blob.news(&self.told, PIECES_PER_LINE);
            if !news.is_empty() {
                for (piece, _) in &news {
                    self.told.insert(*piece);
                }
                return Some(Line::pieces(&news).bytes());
            }
            if complete {
                self.ended = true;
                return Some(Line::Complete(true).bytes());
            }
            match tokio::time::timeout(HEARTBEAT, commits.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_quiet) => return Some(b"\n".to_vec()),
            }
        }
    }

    async fn arrival(&mut self) -> Option<()> {
        let coming = self.coming.as_mut()?;
        self.blob = coming.wait_for(Option::is_some).await.ok()?.clone();
        self.coming = None;
        Some(())
    }
}

impl Lines for Feed {
    fn next(&mut self) -> BoxFuture<'_, Option<Vec<u8>>> {
        Box::pin(self.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_line_fits_its_limit() {
        let pieces = vec![(u32::MAX, [0xff; 32]); PIECES_PER_LINE];
        assert!(Line::pieces(&pieces).bytes().len() < MAX_LINE_BYTES);
    }

    #[test]
    fn lines_survive_a_round_trip() {
        let line = Line::pieces(&[(7, [9; 32])]);
        let Ok(Line::Pieces(back)) = serde_json::from_slice(&line.bytes()) else { panic!() };
        assert_eq!(back[0].0, 7);
        assert_eq!(digest(&back[0].1), Some([9; 32]));
        assert_eq!(digest("AAAA"), None);
        assert!(serde_json::from_str::<Line>(r#"{"other":1}"#).is_err());
    }
}
