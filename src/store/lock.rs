//! One process, one database: an advisory lock on a file beside it.
//!
//! The operating system drops the lock with the process, so none is ever left behind. The database file itself is not
//! touched: closing a second descriptor of it would drop SQLite's own locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::beside;
use crate::planted;

/// Looks at who holds it, a hundredth of a second apart.
const WRITTEN_AFTER_MAX: u32 = 20;
/// Stands in the lock file once there is a database: one that is gone then was removed, and is not made anew.
const IS_MADE: &str = "the database is made";

/// Why the lock was not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{holder} holds the database {database}; only one recoup may use it. Stop that one first")]
    Held {
        /// The database.
        database: PathBuf,
        /// Which process.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error(
        "cannot use the lock file {path}: {cause}. The folder of the database has to be one that recoup may write into"
    )]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// There was a database, and it is gone.
    #[error(
        "{database} is gone, and was not created anew. Put it back with its -wal file, or restore a backup; to start empty, remove \
         {lock} and {database}-wal"
    )]
    Gone {
        /// Where it was.
        database: String,
        /// The lock file, which knows of it.
        lock: String,
    },
}

/// Held as long as this lives.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of the database at `database`.
    ///
    /// # Errors
    /// [`LockError::Held`] names the process that has it.
    pub fn acquire(database: &Path) -> Result<Self, LockError> {
        let path = beside(database, ".lock");
        let io = |cause| LockError::Io { path: path.clone(), cause };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if planted::is(planted::Fault::LockIgnored) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { database: database.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(cause)) => return Err(io(cause)),
        }
        let mut before = String::new();
        file.read_to_string(&mut before).map_err(io)?;
        let is_made = before.lines().any(|line| line == IS_MADE);
        if (is_made || beside(database, "-wal").exists()) && !database.exists() {
            return Err(LockError::Gone { database: database.display().to_string(), lock: path.display().to_string() });
        }
        let mut lock = Self { file, path };
        lock.write(is_made)?;
        Ok(lock)
    }

    /// From now on the database is not created any more.
    ///
    /// # Errors
    /// [`LockError::Io`] when that cannot be kept.
    pub fn database_is_made(&mut self) -> Result<(), LockError> {
        self.write(true)
    }

    fn write(&mut self, is_made: bool) -> Result<(), LockError> {
        let text = format!("{}\n{}", std::process::id(), if is_made { format!("{IS_MADE}\n") } else { String::new() });
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        // Shortened last: the mark is there all the time.
        let written = self.file.rewind().and_then(|()| self.file.write_all(text.as_bytes()));
        written
            .and_then(|()| self.file.set_len(length))
            .map_err(|cause| LockError::Io { path: self.path.clone(), cause })
    }

    /// The process that had the lock last, as it wrote itself down.
    pub(super) fn last_holder(database: &Path) -> Option<String> {
        File::open(beside(database, ".lock")).ok().map(|mut file| who(&mut file))
    }

    /// Which process has the lock, if one has. Takes it for a moment, beside others that do the same.
    ///
    /// # Errors
    /// [`LockError::Io`] when the lock file cannot be read.
    pub(super) fn holder(database: &Path) -> Result<Option<String>, LockError> {
        let path = beside(database, ".lock");
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(LockError::Io { path, cause }),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(who(&mut file))),
            Err(TryLockError::Error(cause)) => Err(LockError::Io { path, cause }),
        }
    }
}

/// The process that wrote its id into the lock file.
fn who(file: &mut File) -> String {
    written(file).map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

fn written(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
    text.lines().next().filter(|pid| !pid.is_empty()).map(str::to_owned)
}

/// The same once it is a process that runs: one that is just starting needs a moment to write itself down over the one before.
fn holder(file: &mut File) -> String {
    for _ in 0..WRITTEN_AFTER_MAX {
        if let Some(pid) = written(file).filter(|pid| Path::new("/proc").join(pid).exists()) {
            return format!("process {pid}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    "another process".to_owned()
}
