//! The schedulers last known to live, for the next start: until they had time to register again, a restarted
//! manager answers with them instead of "this cluster has no scheduler".

use super::{Store, StoreError, failed, id_from, id_to};
use crate::manager::host::SchedulerHost;
use sqlx::FromRow;

#[derive(FromRow)]
struct Row {
    addr: String,
    hostname: String,
    cluster_id: i64,
    version: String,
}

impl Store {
    pub(crate) async fn schedulers(&self) -> Result<Vec<SchedulerHost>, StoreError> {
        let rows: Vec<Row> =
            sqlx::query_as("SELECT addr, hostname, cluster_id, version FROM schedulers ORDER BY addr")
                .fetch_all(&self.pool)
                .await
                .map_err(failed("list schedulers"))?;
        let host = |row: Row| {
            let scheduler_cluster_id = id_from(row.cluster_id)?;
            let (hostname, addr, version) = (row.hostname, row.addr, row.version);
            Ok(SchedulerHost { hostname, addr, scheduler_cluster_id, version })
        };
        rows.into_iter().map(host).collect()
    }

    pub(crate) async fn replace_schedulers(&self, schedulers: &[SchedulerHost]) -> Result<(), StoreError> {
        let act = failed("store schedulers");
        let mut transaction = self.begin_write("store schedulers").await?;
        sqlx::query("DELETE FROM schedulers").execute(&mut *transaction).await.map_err(act)?;
        for scheduler in schedulers {
            sqlx::query(
                "INSERT INTO schedulers (addr, hostname, cluster_id, version) VALUES ($1, $2, $3, $4)",
            )
            .bind(&scheduler.addr)
            .bind(&scheduler.hostname)
            .bind(id_to(scheduler.scheduler_cluster_id))
            .bind(&scheduler.version)
            .execute(&mut *transaction)
            .await
            .map_err(act)?;
        }
        transaction.commit().await.map_err(act)
    }
}
