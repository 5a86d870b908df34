//! Which database there is, how it is reached, and where the two differ.
//!
//! Invariant: a password in the database's address is neither logged nor part of an error.

use super::StoreError;
use log::LevelFilter;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::Migrator;
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection, Executor};
use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use url::Url;

/// Connections to SQLite, which has one writer at a time anyway, and to PostgreSQL, which gives 100 to all.
const SQLITE_CONNECTIONS: u32 = 8;
const POSTGRES_CONNECTIONS: u32 = 16;
/// How long a request waits for a connection, and in SQLite for another writer.
const SQLITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a database that is away a request is told after this.
const POSTGRES_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a start waits for a server that does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The database holds password hashes: nobody else reads it.
pub(super) const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o750;

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

/// Where the manager's data lies: `manager.database`.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file of this manager alone.
    Sqlite(PathBuf),
    /// A server that several managers may share.
    Postgres(Url),
}

/// The two kinds of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// What is no database's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    // Not shown: it may hold a password.
    #[error("is no database: write sqlite:///path/to/file or postgres://user:password@host/name")]
    Scheme,
    #[error("is no address of a PostgreSQL database: {0}")]
    Url(url::ParseError),
    #[error("names no database: write postgres://user:password@host/name")]
    Nameless,
    #[error(
        "has parameter `{0}`, which is not known: sslmode, sslrootcert, sslcert, sslkey, host, options[…]"
    )]
    Parameter(String),
}

impl FromStr for Database {
    type Err = DatabaseError;

    fn from_str(text: &str) -> Result<Self, DatabaseError> {
        if let Some(file) = text.strip_prefix("sqlite://").filter(|file| !file.is_empty()) {
            return Ok(Self::Sqlite(PathBuf::from(file)));
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(DatabaseError::Scheme);
        }
        let url = Url::parse(text).map_err(DatabaseError::Url)?;
        if url.path().trim_start_matches('/').is_empty() {
            return Err(DatabaseError::Nameless);
        }
        let known = ["sslmode", "sslrootcert", "sslcert", "sslkey", "host"];
        let unknown =
            url.query_pairs().find(|(key, _)| !known.contains(&key.as_ref()) && !key.starts_with("options["));
        match unknown {
            Some((key, _)) => Err(DatabaseError::Parameter(key.into_owned())),
            None => Ok(Self::Postgres(url)),
        }
    }
}

impl From<PathBuf> for Database {
    fn from(file: PathBuf) -> Self {
        Self::Sqlite(file)
    }
}

/// Without the password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "{}", file.display()),
            Self::Postgres(url) => {
                let mut shown = url.clone();
                let _ = shown.set_password(None);
                // Parameters may carry one, too.
                shown.set_query(None);
                write!(f, "{shown}")
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

impl Database {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Connects; SQLite's file and its directory are made where they do not exist.
    pub(super) async fn connect(&self) -> Result<AnyPool, StoreError> {
        sqlx::any::install_default_drivers();
        let failed = |source| StoreError::Open { database: self.to_string(), source };
        let pool = match self {
            Self::Sqlite(file) => {
                create(file).map_err(|source| StoreError::Create { database: self.to_string(), source })?;
                AnyPoolOptions::new()
                    .max_connections(SQLITE_CONNECTIONS)
                    .acquire_timeout(SQLITE_TIMEOUT)
                    // A file is there or not: only a server's connection may have died meanwhile.
                    .test_before_acquire(false)
                    .after_connect(|connection, _| Box::pin(prepare_sqlite(connection)))
                    // On a full disk SQLite ends a transaction by itself, and sqlx, whose ROLLBACK fails then, counts it as
                    // open for ever: the connection is of no more use.
                    .before_acquire(|connection, _| {
                        let usable = !connection.is_in_transaction();
                        Box::pin(std::future::ready(Ok(usable)))
                    })
            }
            Self::Postgres(_) => {
                AnyPoolOptions::new().max_connections(POSTGRES_CONNECTIONS).acquire_timeout(POSTGRES_TIMEOUT)
            }
        };
        // Statements are shown at no level: that sqlx asks whether one would be makes `tracing`, where layers have filters
        // of their own, drop the next line of the same thread. Slow ones are shown always.
        let options = AnyConnectOptions::from_str(&self.url()).map_err(failed)?;
        let options = options.log_statements(LevelFilter::Off);
        // What is wrong with a first connection is told at once; a pool tries again until time is up.
        let connecting = AnyConnection::connect_with(&options);
        let late = |_| failed(sqlx::Error::PoolTimedOut);
        let mut first =
            tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(late)?.map_err(failed)?;
        if self.dialect() == Dialect::Sqlite {
            prepare_sqlite(&mut first).await.map_err(failed)?;
        }
        first.close().await.map_err(failed)?;
        pool.connect_with(options).await.map_err(failed)
    }

    /// As sqlx takes it.
    fn url(&self) -> String {
        match self {
            Self::Sqlite(file) => file_url(file),
            Self::Postgres(url) => url.to_string(),
        }
    }
}

impl Dialect {
    pub(super) fn migrations(self) -> &'static Migrator {
        match self {
            Self::Sqlite => &SQLITE_MIGRATIONS,
            Self::Postgres => &POSTGRES_MIGRATIONS,
        }
    }

    /// What begins a transaction: SQLite has one writer at a time, and one that became a writer half-way may
    /// find that it read what is no longer so.
    pub(super) fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// What begins a transaction that only reads, and sees one moment; it holds up no writer.
    pub(super) fn begin_moment(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN DEFERRED",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// `(?, ?), (?, ?)` or `($1, $2), ($3, $4)`: where the values of several rows go. SQLite finds a parameter that has a name, and
    /// `$1` is one, by going through the list of all: a statement of 10,000 values took it a third of a second.
    pub(super) fn places(self, rows: usize, columns: usize) -> String {
        let place = |number: usize| match self {
            Self::Sqlite => "?".to_owned(),
            Self::Postgres => format!("${number}"),
        };
        let row = |row: usize| {
            let places: Vec<String> = (1..=columns).map(|column| place(row * columns + column)).collect();
            format!("({})", places.join(", "))
        };
        (0..rows).map(row).collect::<Vec<_>>().join(", ")
    }

    /// Behind a `SELECT … LIMIT` inside [`super::Store::begin`]: rows that another transaction works on are left out.
    /// In SQLite there is no other one that writes.
    #[expect(dead_code, reason = "for tables that several managers take work from")]
    pub(crate) fn skip_locked(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }
}

async fn prepare_sqlite(connection: &mut AnyConnection) -> sqlx::Result<()> {
    connection.execute("PRAGMA journal_mode = WAL").await?;
    // An answered edit survives a power cut; edits are rare enough to pay for it.
    connection.execute("PRAGMA synchronous = FULL").await?;
    connection.execute("PRAGMA foreign_keys = ON").await?;
    let waits = format!("PRAGMA busy_timeout = {}", SQLITE_TIMEOUT.as_millis());
    connection.execute(waits.as_str()).await.map(drop)
}

/// The file as sqlx takes it: an address whose path may hold any character.
fn file_url(file: &Path) -> String {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut encoded = String::new();
    for byte in file.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                encoded.push(char::from(*byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("sqlite://{encoded}?mode=rw")
}

fn create(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(parent)?;
    }
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_and_show_no_password() {
        let file: Database = "sqlite:///var/lib/hawker/manager.db".parse().unwrap();
        assert_eq!(file, Database::Sqlite("/var/lib/hawker/manager.db".into()));
        let server: Database = "postgres://me:secret@db:5433/hawker?sslmode=require".parse().unwrap();
        assert_eq!(server.to_string(), "postgres://me@db:5433/hawker");
        assert!(!format!("{server:?}").contains("secret"));
        for (text, says) in [
            ("mysql://me:secret@db/hawker", "sqlite:///path"),
            ("sqlite://", "sqlite:///path"),
            ("postgres://db", "names no database"),
            ("postgres://me:secret@db:x/hawker", "port"),
            ("postgres://db/hawker?slmode=require", "slmode"),
        ] {
            let error = text.parse::<Database>().unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_may_have_any_name() {
        assert_eq!(file_url(Path::new("/a b/50%?#.db")), "sqlite:///a%20b/50%25%3F%23.db?mode=rw");
    }
}
