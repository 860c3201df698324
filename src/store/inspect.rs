//! Looks at a database from outside, beside a service that may have it: is it there, whole, of this version? For `recoup doctor`.
//!
//! Changes nothing. The only write is one that is taken back at once, and only where nobody holds the database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{BUSY_TIMEOUT, Lock, LockError, OpenError, StoreError, options};
use crate::clock::Pacer;

/// Steps of SQLite between two looks at the time.
const STEPS: i32 = 10_000;

/// Whether SQLite finds the file whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    /// It does.
    Yes,
    /// It does not: what it found.
    No(String),
    /// It would have taken too long.
    NotKnown,
}

/// What can be seen of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its file and the journal beside it, in bytes.
    pub bytes: u64,
    /// The SQLite this program runs on.
    pub sqlite: String,
    /// Migrations that a start would run.
    pub behind: usize,
    /// Whether it was made by a later version than this.
    pub ahead: bool,
    /// Whether the file is whole.
    pub whole: Whole,
}

/// Where the database of this URL is.
///
/// # Errors
/// [`OpenError::Url`] when the URL makes no sense.
pub fn path_of(url: &str) -> Result<PathBuf, OpenError> {
    Ok(super::by_one_name(options(url)?.get_filename()))
}

/// Which process holds the database, if one does. Takes its lock for a moment: not to be asked while a service may be starting.
///
/// # Errors
/// [`LockError::Io`] when the lock file cannot be used.
pub fn holder(database: &Path) -> Result<Option<String>, LockError> {
    Lock::holder(database)
}

/// The process that held the database last. Takes no lock: for when it is known to run.
pub fn last_holder(database: &Path) -> Option<String> {
    Lock::last_holder(database)
}

/// Looks at the database at `path`, for `patience` at most.
///
/// # Errors
/// [`StoreError`] when there is none that SQLite could read.
pub fn inspect(path: &Path, patience: Duration) -> Result<Inspection, StoreError> {
    let connection = open(path)?;
    let sqlite = connection.query_row("SELECT sqlite_version()", [], |row| row.get(0))?;
    let landed: i64 =
        connection.query_row("SELECT coalesce(max(version), 0) FROM _sqlx_migrations", [], |row| row.get(0))?;
    let migrations = sqlx::migrate!();
    let behind = migrations.iter().filter(|migration| migration.version > landed).count();
    let ahead = migrations.iter().all(|migration| migration.version < landed);
    let whole = read_through(&connection, patience).unwrap_or_else(|error| Whole::No(error.to_string()));
    Ok(Inspection { bytes: bytes(path), sqlite, behind, ahead, whole })
}

/// Reads through the database for at most that long.
pub(super) fn read_through(connection: &Connection, patience: Duration) -> rusqlite::Result<Whole> {
    let mut end = Pacer::new(patience);
    // The first call starts the time.
    end.is_due();
    connection.progress_handler(STEPS, Some(move || end.is_due()))?;
    match connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(verdict) if verdict == "ok" => Ok(Whole::Yes),
        Ok(found) => Ok(Whole::No(found)),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => {
            Ok(Whole::NotKnown)
        }
        Err(error) => Err(error),
    }
}

/// Whether the database takes writes. For one that nobody holds: makes a write and takes it back.
///
/// # Errors
/// [`StoreError`] says why it does not.
pub fn try_write(path: &Path) -> Result<(), StoreError> {
    let connection = open(path)?;
    connection.execute_batch(
        "BEGIN IMMEDIATE; INSERT INTO heartbeat VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET at = at; ROLLBACK",
    )?;
    Ok(())
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn bytes(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    size(path) + size(Path::new(&log))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn database(folder: &Path) -> PathBuf {
        let path = folder.join("recoup.db");
        let (store, writer) = super::super::Store::open(&format!("sqlite://{}", path.display())).await.unwrap();
        drop((store, writer));
        path
    }

    #[tokio::test]
    async fn a_large_database_is_not_looked_through_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path()).await;
        assert_eq!(inspect(&path, Duration::from_hours(1)).unwrap().whole, Whole::Yes);
        let filler = "CREATE TABLE filler (n INTEGER PRIMARY KEY, text TEXT);
            WITH RECURSIVE up (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < 100000)
            INSERT INTO filler SELECT n, hex(randomblob(20)) FROM up";
        open(&path).unwrap().execute_batch(filler).unwrap();
        assert_eq!(inspect(&path, Duration::ZERO).unwrap().whole, Whole::NotKnown);
    }

    #[tokio::test]
    async fn versions_before_and_after_ours_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path()).await;
        let of = |statement: &str| {
            open(&path).unwrap().execute_batch(statement).unwrap();
            let seen = inspect(&path, Duration::from_hours(1)).unwrap();
            (seen.behind, seen.ahead)
        };
        assert_eq!(of("SELECT 1"), (0, false));
        assert_eq!(
            of("UPDATE _sqlx_migrations SET version = 999 WHERE version = (SELECT max(version) FROM _sqlx_migrations)"),
            (0, true)
        );
        assert_eq!(of("DELETE FROM _sqlx_migrations WHERE version = 999"), (1, false));
    }

    #[tokio::test]
    async fn trying_to_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path()).await;
        try_write(&path).unwrap();
        let beats: i64 =
            open(&path).unwrap().query_row("SELECT count(*) FROM heartbeat", [], |row| row.get(0)).unwrap();
        assert_eq!(beats, 0);
        assert_eq!(holder(&path).unwrap(), None);
        let lock = Lock::acquire(&path).unwrap();
        assert_eq!(holder(&path).unwrap(), Some(format!("process {}", std::process::id())));
        drop(lock);
        assert_eq!(holder(&path).unwrap(), None);
    }
}
