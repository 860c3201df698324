//! One process, one database: an advisory lock on a file beside it.
//!
//! The operating system drops the lock with the process, so none is ever left behind. The database file itself is not
//! touched: closing a second descriptor of it would drop SQLite's own locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

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
    #[error("cannot use the lock file {path}: {cause}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// Held as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the database at `database`.
    ///
    /// # Errors
    /// [`LockError::Held`] names the process that has it.
    pub fn acquire(database: &Path) -> Result<Self, LockError> {
        let path = beside(database);
        let io = |cause| LockError::Io { path: path.clone(), cause };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { database: database.to_owned(), holder: who(&mut file) });
            }
            Err(TryLockError::Error(cause)) => return Err(io(cause)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }

    /// The process that had the lock last, as it wrote itself down.
    pub(super) fn last_holder(database: &Path) -> Option<String> {
        File::open(beside(database)).ok().map(|mut file| who(&mut file))
    }

    /// Which process has the lock, if one has. Takes it for a moment, beside others that do the same.
    ///
    /// # Errors
    /// [`LockError::Io`] when the lock file cannot be read.
    pub(super) fn holder(database: &Path) -> Result<Option<String>, LockError> {
        let path = beside(database);
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

fn beside(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    PathBuf::from(path)
}

/// The process that wrote its id into the lock file.
fn who(file: &mut File) -> String {
    let mut pid = String::new();
    match file.read_to_string(&mut pid) {
        Ok(_) if !pid.trim().is_empty() => format!("process {}", pid.trim()),
        Ok(_) | Err(_) => "another process".to_owned(),
    }
}
