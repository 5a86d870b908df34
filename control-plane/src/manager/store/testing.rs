//! Databases for tests: a file of SQLite, and a schema of a PostgreSQL server.

#[path = "../../../tests/support/schema.rs"]
mod schema;

use super::{Database, Store};
pub(crate) use schema::Schema;
use tempfile::TempDir;

/// Makes of each `async fn name(store: &Store)` two tests, `sqlite::name` and `postgres::name`.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                let (_dir, store) = crate::manager::store::testing::sqlite().await;
                super::$name(&store).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            #[ignore = "needs PostgreSQL: TEST_POSTGRES=postgres://user@host/database"]
            async fn $name() {
                let schema = crate::manager::store::testing::Schema::make().await;
                super::$name(&schema.open().await).await;
                schema.drop().await;
            })*
        }
    };
}
pub(crate) use on_both;

pub(crate) async fn sqlite() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("manager.db").into()).await.unwrap();
    (dir, store)
}

impl Schema {
    pub(crate) fn database(&self) -> Database {
        self.url.parse().unwrap()
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.database()).await.unwrap()
    }
}
