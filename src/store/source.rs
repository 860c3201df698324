//! Where the database is, and how a connection that writes is opened.

use std::path::PathBuf;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{BUSY_TIMEOUT, StoreError, checkpoint};
use crate::planted;

/// Statements of a connection kept prepared.
const STATEMENTS_KEPT: usize = 128;
/// The writer's page cache, in KiB: the pages of ten million generations that new ones touch come and go, memory is bounded.
const CACHE_KIB: i64 = 16 * 1_024;

/// A database that exists already: it is created and migrated through sqlx.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A file.
    File {
        /// Where.
        path: PathBuf,
        /// Pages it may have; a test fills it.
        pages_max: Option<u32>,
    },
    /// SQLite's URI of a database in memory.
    Memory(String),
}

impl Source {
    /// Opens a connection that writes.
    pub(super) fn open(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match self {
            Self::File { path, .. } => Connection::open_with_flags(path, flags)?,
            Self::Memory(uri) => Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?,
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        // Plans never depend on the values bound, so statements are not prepared again for other ones.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        if let Self::File { pages_max, .. } = self {
            // An answered webhook survives power loss only when every commit is synced.
            let synced = if planted::is(planted::Fault::SyncNormal) { "NORMAL" } else { "FULL" };
            connection.pragma_update(None, "synchronous", synced)?;
            connection.pragma_update(None, "cell_size_check", true)?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
            if let Some(pages) = pages_max {
                connection.pragma_update(None, "max_page_count", pages)?;
            }
            checkpoint::watch(&connection);
        }
        Ok(connection)
    }

    /// The connection, opened if it is not.
    pub(super) fn connection<'c>(&self, slot: &'c mut Option<Connection>) -> Result<&'c mut Connection, StoreError> {
        match slot {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(self.open()?)),
        }
    }
}
