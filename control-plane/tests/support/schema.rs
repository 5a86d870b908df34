//! A schema of its own on the PostgreSQL server that `TEST_POSTGRES` names (`cargo xtask test` starts one and runs the
//! tests that are ignored without it). For the library's own tests and those of its users alike.

use sqlx::AnyPool;
use url::Url;

const SERVER: &str = "TEST_POSTGRES";

/// Empty at first.
pub(crate) struct Schema {
    server: AnyPool,
    name: String,
    /// As in `manager.database`.
    pub(crate) url: String,
}

impl Schema {
    pub(crate) async fn make() -> Self {
        let server = std::env::var(SERVER).unwrap_or_else(|_| panic!("{SERVER} names no server"));
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        sqlx::any::install_default_drivers();
        let mut url: Url = server.parse().unwrap();
        let server = AnyPool::connect(&server).await.unwrap();
        sqlx::query(&format!("CREATE SCHEMA {name}")).execute(&server).await.unwrap();
        url.query_pairs_mut().append_pair("options[search_path]", &name);
        Self { server, name, url: url.into() }
    }

    pub(crate) async fn drop(self) {
        sqlx::query(&format!("DROP SCHEMA {} CASCADE", self.name)).execute(&self.server).await.unwrap();
    }
}
