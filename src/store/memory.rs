//! A database in memory, for the simulator: the same schema, statements and writer, no disk. It outlives the [`Store`]s opened on
//! it, as a file outlives a process.

use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{ConnectOptions, Executor, SqliteConnection};
use tokio::sync::broadcast;

use super::source::Source;
use super::waiters::Waiters;
use super::writer::{self, Listeners, Writer};
use super::{CHANGES_KEPT, Store, StoreError};

/// Each gets a name of its own.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A database in memory.
#[derive(Debug)]
pub struct Memory {
    uri: String,
    options: SqliteConnectOptions,
    /// While one connection is open the database stays.
    anchor: SqliteConnection,
}

impl Memory {
    /// A fresh one.
    ///
    /// # Errors
    /// [`StoreError`] when SQLite cannot do it.
    pub async fn new() -> Result<Self, StoreError> {
        let uri = format!("file:recoup-{}?mode=memory&cache=shared", NEXT.fetch_add(1, Ordering::Relaxed));
        let options = SqliteConnectOptions::new()
            .filename(&uri)
            .shared_cache(true)
            .journal_mode(SqliteJournalMode::Memory)
            .foreign_keys(true)
            .statement_cache_capacity(256)
            .disable_statement_logging();
        let mut anchor = options.connect().await?;
        let migrated = sqlx::migrate!().run(&mut anchor).await;
        migrated.map_err(|error| StoreError::Failed(error.to_string()))?;
        Ok(Self { uri, options, anchor })
    }

    /// Opens it, as a process that starts does.
    pub fn open(&self) -> (Store, Writer) {
        let readers = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .test_before_acquire(false)
            .connect_lazy_with(self.options.clone());
        let (changes, waiters) = (broadcast::Sender::new(CHANGES_KEPT), Waiters::default());
        let listeners = Listeners { changes: changes.clone(), waiters: waiters.clone() };
        let source = Source::Memory(self.uri.clone());
        let (queue, writer) = writer::new(source.clone(), listeners);
        (Store { readers, writer: queue, changes, waiters, source, _lock: None }, writer)
    }

    /// Empties every table, for the next history.
    ///
    /// # Errors
    /// [`StoreError`] when SQLite cannot do it.
    pub async fn clear(&mut self) -> Result<(), StoreError> {
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_sqlx_%'",
        )
        .fetch_all(&mut self.anchor)
        .await?;
        self.anchor.execute("PRAGMA foreign_keys = OFF").await?;
        for table in tables {
            self.anchor.execute(sqlx::AssertSqlSafe(format!("DELETE FROM {table}"))).await?;
        }
        self.anchor.execute("PRAGMA foreign_keys = ON").await?;
        Ok(())
    }
}
