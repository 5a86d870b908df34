//! Which tables a backup holds, in which order, and how a row gets in.
//!
//! Invariant: names in a statement are those of tables and columns that are here, whatever a file says.

use crate::manager::store::backend::Dialect;
use crate::manager::store::{Store, StoreError, failed};
use serde::{Deserialize, Serialize};
use sqlx::{Any, Transaction};
use std::collections::BTreeMap;

/// Of the live: they register anew.
const LIVE: [&str; 3] = ["managers", "registrations", "schedulers"];

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
}

/// A table as it is here.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Name and kind.
    pub(super) columns: Vec<(String, String)>,
    /// Tables that its rows refer to.
    refers_to: Vec<String>,
}

impl Store {
    /// The statement that inserts a row, values as they come from JSON.
    pub(super) fn insert_into(
        &self,
        known: &BTreeMap<String, Known>,
        table: &Table,
    ) -> Result<String, String> {
        let name: String = table.table.chars().take(64).collect();
        let here = known.get(&table.table).ok_or_else(|| format!("there is no table `{name}`"))?;
        let mut places = Vec::new();
        for (place, column) in table.columns.iter().enumerate() {
            let found = here.columns.iter().find(|(name, _)| name == column);
            let (_, kind) = found.ok_or_else(|| format!("table `{name}` has no column `{column}`"))?;
            let number = place + 1;
            places.push(match self.dialect {
                Dialect::Sqlite => format!("${number}"),
                Dialect::Postgres if is_truth(kind) => format!("CAST(CAST(${number} AS INTEGER) AS BOOLEAN)"),
                // What is missing comes as a number, whatever it would be.
                Dialect::Postgres => format!("CAST(${number} AS {kind})"),
            });
        }
        let overriding = match self.dialect {
            Dialect::Sqlite => "",
            Dialect::Postgres => "OVERRIDING SYSTEM VALUE ",
        };
        let (columns, places) = (table.columns.join(", "), places.join(", "));
        Ok(format!("INSERT INTO {} ({columns}) {overriding}VALUES ({places})", table.table))
    }

    /// Ids that were given once are not given again. SQLite counts by itself.
    pub(super) async fn go_on_counting(
        &self,
        whole: &mut Transaction<'_, Any>,
        known: &BTreeMap<String, Known>,
    ) -> Result<(), StoreError> {
        if self.dialect == Dialect::Sqlite {
            return Ok(());
        }
        for table in known.iter().filter(|(_, known)| known.columns.iter().any(|(name, _)| name == "id")) {
            let name = table.0;
            let sql = format!(
                "SELECT setval(pg_get_serial_sequence('{name}', 'id'), GREATEST((SELECT MAX(id) FROM {name}), 1)) \
                 WHERE pg_get_serial_sequence('{name}', 'id') IS NOT NULL"
            );
            sqlx::query(&sql).execute(&mut **whole).await.map_err(failed("restore"))?;
        }
        Ok(())
    }

    /// The tables that a backup holds, those first that others refer to.
    pub(super) async fn tables_known(
        &self,
        moment: &mut Transaction<'_, Any>,
    ) -> Result<Vec<(String, Known)>, StoreError> {
        const ACT: &str = "list tables";
        let (columns, references) = match self.dialect {
            Dialect::Sqlite => (
                "SELECT tables.name, columns.name AS col, columns.type AS kind FROM sqlite_master AS tables, \
                 pragma_table_info(tables.name) AS columns WHERE tables.type = 'table' ORDER BY 1, columns.cid",
                "SELECT tables.name, keys.\"table\" AS other FROM sqlite_master AS tables, \
                 pragma_foreign_key_list(tables.name) AS keys WHERE tables.type = 'table' ORDER BY 1, 2",
            ),
            Dialect::Postgres => (
                "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT), CAST(data_type AS TEXT) \
                 FROM information_schema.columns WHERE table_schema = current_schema() \
                 ORDER BY table_name, ordinal_position",
                "SELECT CAST(ours.relname AS TEXT), CAST(theirs.relname AS TEXT) FROM pg_constraint AS keys \
                 JOIN pg_class AS ours ON ours.oid = keys.conrelid \
                 JOIN pg_class AS theirs ON theirs.oid = keys.confrelid \
                 JOIN pg_namespace AS spaces ON spaces.oid = ours.relnamespace \
                 WHERE keys.contype = 'f' AND spaces.nspname = current_schema()",
            ),
        };
        let rows: Vec<(String, String, String)> =
            sqlx::query_as(columns).fetch_all(&mut **moment).await.map_err(failed(ACT))?;
        let mut tables = BTreeMap::<String, Known>::new();
        let ours = |table: &String| !table.contains("sql") && !LIVE.contains(&table.as_str());
        for (table, column, kind) in rows.into_iter().filter(|(table, ..)| ours(table)) {
            tables.entry(table).or_default().columns.push((column, kind));
        }
        let rows: Vec<(String, String)> =
            sqlx::query_as(references).fetch_all(&mut **moment).await.map_err(failed(ACT))?;
        for (table, other) in rows {
            if let Some(known) = tables.get_mut(&table).filter(|_| table != other) {
                known.refers_to.push(other);
            }
        }
        Ok(in_order(tables))
    }
}

/// Tables behind those that they refer to.
fn in_order(mut tables: BTreeMap<String, Known>) -> Vec<(String, Known)> {
    let mut ordered: Vec<(String, Known)> = Vec::new();
    while !tables.is_empty() {
        let ready = |known: &Known| known.refers_to.iter().all(|other| !tables.contains_key(other));
        let next = tables.iter().find(|(_, known)| ready(known)).map(|(name, _)| name.clone());
        // In a circle, of which there is none, any will do.
        let Some(name) = next.or_else(|| tables.keys().next().cloned()) else { break };
        if let Some(known) = tables.remove(&name) {
            ordered.push((name, known));
        }
    }
    ordered
}

/// A kind of column that not both databases answer with.
pub(super) fn is_truth(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("boolean")
}
