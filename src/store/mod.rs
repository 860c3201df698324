//! The database: the only part that knows it is SQLite. Opens, migrates, reads through a pool, writes through one writer.
//!
//! The rest of the code sees [`Store`] and values of `domain/`; another engine would be another `store/`. Never creates a
//! database over a file it cannot read, and never opens the file but through SQLite (closing any other descriptor of it
//! would drop SQLite's locks).

mod audit;
mod backup;
mod checkpoint;
mod checks;
mod credits;
mod deliveries;
mod equal_purchases;
mod events;
mod evidence;
mod examination;
mod experience;
mod files;
mod generations;
mod idempotency;
pub mod inspect;
mod lists;
mod lock;
mod memory;
mod outbox;
mod pages;
#[cfg(test)]
mod plans;
mod provider_bodies;
mod queue;
mod record;
mod redeliveries;
mod repeats;
mod reports;
mod retention;
mod row;
mod rows;
mod sessions;
mod source;
mod sql;
mod submissions;
mod tallies;
mod timeline;
mod tx;
#[cfg(test)]
mod upgrade;
mod vitals;
mod volume;
mod waiters;
mod walk;
mod writer;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::broadcast;

pub use audit::Audit;
pub use backup::{LastBackup, backup};
pub use checks::{CheckRecord, Reading};
pub use deliveries::{Arrival, Delivery, DeliveryFilter, Received, Recorded, Replay};
pub use events::{Dispatch, EventFilter, Told};
pub use generations::{Amended, Created, Creation, Refund, Render};
pub use idempotency::{Idempotency, Repeated};
pub use lists::{ListRead, ListTold};
pub use lock::{Lock, LockError};
pub use memory::Memory;
pub use outbox::{Batch, Handed, Wants};
#[cfg(any(test, fuzzing))]
pub(crate) use pages::cursor;
pub use pages::{Filter, Order, Page, Paging};
pub use repeats::{PurchaseRequest, PurchaseStanding};
pub use reports::{Backlog, Bounded, DispatchCounts, Size, UnknownCode};
pub use sessions::Session;
pub use submissions::{Begun, Intent, SubmissionRecord};
pub use timeline::Entry;
use tx::Change;
pub use tx::Changes;
pub use vitals::{Unsent, Vitals};
pub use waiters::Watched;
pub use writer::Writer;

use source::Source;
use waiters::Waiters;
use writer::Listeners;

use crate::domain::id::GenerationId;
use crate::domain::time::Time;
use crate::planted;

/// The oldest SQLite without the WAL-reset bug, which can lose or corrupt what was committed.
const SQLITE_MIN: (u32, u32, u32) = (3, 51, 3);
/// SQLite's `IOERR_SHMSIZE`: the index of the WAL could not grow, which on a full disk is no fault of the disk.
const SHARED_MEMORY_FULL: u32 = 4_874;
/// Connections that read; writes have their own.
const READERS: u32 = 4;
/// How long a statement waits for somebody else's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Changes a slow listener may lag behind before it is told to look again.
const CHANGES_KEPT: usize = 4_096;

/// Why the database could not do it. The text is for the operator; what a caller is told is decided in `http/problem.rs`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// For now: locked, full, shutting down. The same may work later.
    #[error("the database cannot take it now: {0}")]
    Unavailable(String),
    /// For good: a failed sync, a corrupt file. Nothing may be acknowledged any more.
    #[error("the database is broken: {0}")]
    Broken(String),
    /// A row that cannot be: somebody else wrote it, or we have a bug.
    #[error("impossible row: {0}")]
    Impossible(String),
    /// A statement failed.
    #[error("database statement failed: {0}")]
    Failed(String),
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The URL makes no sense.
    #[error("database.url: {0}")]
    Url(String),
    /// On such a volume committed data can get lost.
    #[error(
        "{folder} is on {name}, a network file system, where neither locks nor syncs can be relied on. Set `database.url` to a local disk"
    )]
    Network {
        /// Where the database was to be.
        folder: PathBuf,
        /// Which one.
        name: &'static str,
    },
    /// The SQLite this was linked with has a bug that loses data.
    #[error("SQLite {0} can lose committed data (WAL-reset bug); 3.51.3 or later is needed")]
    Version(String),
    /// SQLite could not open or migrate it.
    #[error("cannot open the database {path}: {cause}. Nothing was created or changed; {hint}")]
    Unusable {
        /// Where it is.
        path: PathBuf,
        /// What SQLite said.
        cause: String,
        /// What to do.
        hint: &'static str,
    },
}

impl StoreError {
    /// By SQLite's extended result code: the low byte is the class.
    fn of_code(code: Option<u32>, text: String) -> Self {
        match code.map(|code| if code == SHARED_MEMORY_FULL { 13 } else { code & 0xff }) {
            Some(5 | 6 | 13 | 8) => Self::Unavailable(text), // BUSY, LOCKED, FULL, READONLY
            Some(10) if planted::is(planted::Fault::FailedSyncIgnored) => Self::Unavailable(text),
            Some(10 | 11 | 26) => Self::Broken(text), // IOERR, CORRUPT, NOTADB
            _ => Self::Failed(text),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "sqlx adds variants; all but these few are our own mistakes")]
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match &error {
            sqlx::Error::Database(database) => {
                Self::of_code(database.code().and_then(|code| code.parse::<u32>().ok()), text)
            }
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed | sqlx::Error::Io(_) => {
                Self::Unavailable(text)
            }
            _ => Self::Failed(text),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error().and_then(|error| u32::try_from(error.extended_code).ok());
        Self::of_code(code, error.to_string())
    }
}

/// The database, to be cloned freely.
#[derive(Clone, Debug)]
pub struct Store {
    readers: SqlitePool,
    writer: queue::Queue,
    changes: broadcast::Sender<Changes>,
    waiters: Waiters,
    source: Source,
    /// `None` for one that only reads.
    _lock: Option<Arc<Lock>>,
}

impl Store {
    /// Locks, opens, checks and migrates the database; creates it when there is none. The [`Writer`] has to be run for
    /// anything to be written.
    ///
    /// # Errors
    /// [`OpenError`] says which process holds it, or what is wrong with the file and what to do.
    pub async fn open(url: &str) -> Result<(Self, Writer), OpenError> {
        let options = options(url)?;
        let path = by_one_name(options.get_filename());
        let folder = path.parent().unwrap_or(&path);
        if let Some(name) = volume::network(folder) {
            return Err(OpenError::Network { folder: folder.to_owned(), name });
        }
        let mut lock = Lock::acquire(&path)?;
        if planted::is(planted::Fault::CorruptReplaced) {
            replace_corrupt(&path);
        }
        protect(&path);
        let unusable = |error: &dyn std::fmt::Display| OpenError::Unusable {
            path: path.clone(),
            cause: error.to_string(),
            hint: "restore a backup, or move the file and the one ending in .lock away to start empty",
        };
        // A migration may replace a table that others point at; what it leaves is checked.
        let migrating = options.clone().foreign_keys(false);
        let mut connection = migrating.connect().await.map_err(|error| unusable(&error))?;
        check_version(&mut connection).await?;
        migrate(&mut connection).await.map_err(|error| unusable(&error))?;
        lock.database_is_made()?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(BUSY_TIMEOUT)
            // Nothing goes away on a file: to ask before each read is another turn of a thread, for nothing.
            .test_before_acquire(false)
            .connect_lazy_with(options.create_if_missing(false).pragma("query_only", "ON"));
        let changes = broadcast::Sender::new(CHANGES_KEPT);
        let waiters = Waiters::default();
        let listeners = Listeners { changes: changes.clone(), waiters: waiters.clone() };
        connection.close().await.map_err(|error| unusable(&error))?;
        let source = Source::File { path, pages_max: None };
        let (queue, writer) = writer::new(source.clone(), listeners);
        Ok((Self { readers, writer: queue, changes, waiters, source, _lock: Some(Arc::new(lock)) }, writer))
    }

    /// Opens the database only to read, beside the process that has it. Writes are refused.
    ///
    /// # Errors
    /// [`OpenError`] when there is no database that could be read.
    pub async fn open_to_read(url: &str) -> Result<Self, OpenError> {
        let options = options(url)?.create_if_missing(false).pragma("query_only", "ON");
        let path = options.get_filename().to_owned();
        let readers = SqlitePoolOptions::new().max_connections(1).acquire_timeout(BUSY_TIMEOUT);
        let readers = readers.connect_with(options).await.map_err(|error| OpenError::Unusable {
            path: path.clone(),
            cause: error.to_string(),
            hint: "check `database.url`",
        })?;
        let changes = broadcast::Sender::new(1);
        // A queue nobody serves: what is handed in is refused.
        let waiters = Waiters::default();
        let listeners = Listeners { changes: changes.clone(), waiters: waiters.clone() };
        let source = Source::File { path, pages_max: None };
        let (queue, _) = writer::new(source.clone(), listeners);
        Ok(Self { readers, writer: queue, changes, waiters, source, _lock: None })
    }

    /// Hears of every generation that changed, after its commit.
    pub fn changes(&self) -> broadcast::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// Has whoever looks at what is due look at one generation now.
    pub fn wake(&self, id: GenerationId) {
        // Nobody may be listening.
        drop(self.changes.send([Change::wake(id)].into()));
    }

    /// Waits for changes of one generation. Register before looking.
    pub fn watch(&self, id: GenerationId) -> Watched {
        self.waiters.join(id)
    }

    /// Whether the database takes writes right now: makes one.
    ///
    /// # Errors
    /// [`StoreError`] when it does not.
    pub async fn heartbeat(&self, now: Time) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                tx.execute(
                    "INSERT INTO heartbeat VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET at = excluded.at",
                    rusqlite::params![now.as_ms()],
                )?;
                Ok(())
            })
            .await
    }
}

/// However it is reached: the lock, the log and its index are named after it.
fn by_one_name(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn options(url: &str) -> Result<SqliteConnectOptions, OpenError> {
    let options = SqliteConnectOptions::from_str(url).map_err(|error| OpenError::Url(error.to_string()))?;
    Ok(options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // An answered webhook survives power loss only when every commit is synced.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .pragma("temp_store", "MEMORY")
        .pragma("journal_size_limit", "67108864")
        .statement_cache_capacity(256)
        .disable_statement_logging())
}

/// Brings the schema up to date.
async fn migrate(connection: &mut sqlx::SqliteConnection) -> Result<(), StoreError> {
    let failed = |error: MigrateError| {
        StoreError::Failed(if let MigrateError::VersionMissing(version) = error {
            format!("its schema {version} is of a newer recoup, which is the one to be used with it")
        } else {
            error.to_string()
        })
    };
    let is_current = is_current(connection).await;
    migrator().run(&mut *connection).await.map_err(failed)?;
    if is_current {
        return Ok(());
    }
    let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_optional(connection).await?;
    match dangling {
        None => Ok(()),
        Some(_) => Err(StoreError::Impossible("a row points at one that is not there".to_owned())),
    }
}

fn migrator() -> sqlx::migrate::Migrator {
    let mut migrator = sqlx::migrate!();
    if planted::is(planted::Fault::MigratedInPieces) {
        let apart = |one: &sqlx::migrate::Migration| sqlx::migrate::Migration { no_tx: true, ..one.clone() };
        migrator.migrations = migrator.migrations.iter().map(apart).collect();
    }
    migrator
}

/// What nobody should: begins anew where the database cannot be read.
fn replace_corrupt(path: &Path) {
    if std::fs::read(path).is_ok_and(|bytes| !bytes.is_empty() && !bytes.starts_with(b"SQLite format 3\0")) {
        drop(std::fs::remove_file(path));
    }
}

/// Whether nothing is to be migrated: then nothing that grows is looked at.
async fn is_current(connection: &mut sqlx::SqliteConnection) -> bool {
    let landed = sqlx::query_scalar::<_, i64>("SELECT max(version) FROM _sqlx_migrations").fetch_one(connection).await;
    landed.is_ok_and(|landed| sqlx::migrate!().iter().all(|migration| migration.version <= landed))
}

async fn check_version(connection: &mut sqlx::SqliteConnection) -> Result<(), OpenError> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(connection)
        .await
        .map_err(|error| OpenError::Version(error.to_string()))?;
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    if (next(), next(), next()) >= SQLITE_MIN { Ok(()) } else { Err(OpenError::Version(version)) }
}

/// The database holds prompts and result links: readable by its owner only. SQLite gives the files beside it the same
/// mode, so a new one is made private before SQLite opens it. Best effort: some volumes have no modes.
fn protect(path: &Path) {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let private = if path.exists() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
    } else {
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
    };
    if let Err(error) = private {
        tracing::warn!(%error, path = %path.display(), "cannot make the database private");
    }
}
