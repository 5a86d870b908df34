//! What Hawker spared the origins, in bytes and in money.
//!
//! Invariant: bytes that a runtime got count as spared only as far as they did not come from an origin all the same.

use crate::manager::Parts;
use crate::manager::bandwidth::Query;
use crate::manager::store::StoreError;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// One step for all of the time asked for: it begins where that begins, or before.
const ALL_S: i64 = 1 << 40;
/// As many as there can be.
const MAX_CLUSTERS: i64 = 1000;
const MILLION: f64 = 1_000_000.0;

/// What the origins did not have to send.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Saved)]
pub(super) struct SavedView {
    /// Given to runtimes, less what came from origins.
    origin_bytes_avoided: u64,
    /// By the price tables of the clusters; `null`: none has one, or they count in different currencies.
    money: Option<f64>,
    currency: Option<String>,
}

impl SavedView {
    pub(super) async fn since(
        since: i64,
        cluster_id: Option<u64>,
        parts: &Parts,
    ) -> Result<Self, StoreError> {
        let asked = Query { since, step: ALL_S, cluster_id, by_host: false, skip: 0, limit: MAX_CLUSTERS };
        let (clusters, _) = parts.store.bandwidth(&asked).await?;
        let (mut avoided_bytes, mut money) = (0_u64, BTreeMap::<String, i64>::new());
        for step in clusters {
            let delivered = step.usage.delivered;
            let given = [
                delivered.local,
                delivered.peer_same_zone,
                delivered.peer_cross_zone,
                delivered.seed,
                delivered.origin,
            ];
            let given = given.into_iter().fold(0, u64::saturating_add);
            let avoided = given.saturating_sub(step.usage.origin.received);
            avoided_bytes = avoided_bytes.saturating_add(avoided);
            let cluster = parts.directory.cluster(step.cluster_id);
            if let Some(prices) = cluster.and_then(|cluster| cluster.spec.policy.prices.clone()) {
                let saved = prices.saved(avoided, delivered.peer_cross_zone);
                let sum = money.entry(prices.currency).or_default();
                *sum = sum.saturating_add(saved);
            }
        }
        let only = if money.len() == 1 { money.pop_first() } else { None };
        let (currency, money) = only.unzip();
        let money = money.map(|millionths| millionths as f64 / MILLION);
        Ok(Self { origin_bytes_avoided: avoided_bytes, money, currency })
    }
}
