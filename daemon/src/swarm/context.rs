//! What every download needs of the daemon.

use super::buffers::Buffers;
use super::orders::{Announce, Parent};
use super::shunned::Shunned;
use crate::access::Table;
use crate::config::Verify;
use crate::metrics::{Metrics, Source};
use crate::origin::OriginClient;
use crate::peer::client::PeerClient;
use crate::store::Store;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(super) struct Context {
    pub(super) host_id: Arc<str>,
    pub(super) idc: String,
    pub(super) location: String,
    pub(super) seed: bool,
    pub(super) verify: Verify,
    pub(super) store: Store,
    pub(super) origin: OriginClient,
    pub(super) client: PeerClient,
    pub(super) metrics: Metrics,
    pub(super) announce: Arc<dyn Announce>,
    pub(super) shunned: Shunned,
    /// Parents that gave nothing when last asked, by any download.
    pub(super) failing: Mutex<Table<String, ()>>,
    /// For readers.
    pub(super) buffers: Buffers,
    pub(super) cancel: CancellationToken,
    /// Another daemon takes over: no new piece is begun.
    pub(super) closing: CancellationToken,
}

impl Context {
    /// A parent's class: same IDC and location is the same zone.
    pub(super) fn source(&self, parent: &Parent) -> Source {
        if parent.seed {
            return Source::Seed;
        }
        let same = parent.idc.eq_ignore_ascii_case(&self.idc)
            && parent.location.eq_ignore_ascii_case(&self.location);
        if same { Source::PeerSameZone } else { Source::PeerCrossZone }
    }
}
