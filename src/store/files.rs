//! Whether the files of the database are still those that were opened. What is written into a file that somebody removed or replaced
//! is lost with the process, and nobody would know: the writer looks after every commit, before it answers.
//!
//! Looks by name only; never opens, creates or removes one of them.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::StoreError;
use super::source::Source;
use crate::planted;

/// The database, its log, the log's index, and the lock that keeps others out.
const ENDINGS: [&str; 4] = ["", "-wal", "-shm", ".lock"];

/// A file beside the database.
pub(super) fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// The files of one database.
#[derive(Debug)]
pub(super) struct Files {
    known: Vec<(PathBuf, Option<Identity>)>,
    /// SQLite removes the log with the last connection. While this one is open it does not: a log that is gone was taken.
    anchor: Option<Connection>,
}

/// Which file it is, whatever its name.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl Files {
    /// Those beside `database`. The log and its index are taken for ours when they are first seen behind [`Self::hold`]: until then
    /// somebody else's last connection may remove them.
    pub(super) fn of(database: &Path) -> Self {
        let known = ENDINGS.map(|ending| {
            let path = beside(database, ending);
            let is_ours = !matches!(ending, "-wal" | "-shm");
            let identity = path.metadata().ok().filter(|_| is_ours).as_ref().map(Identity::of);
            (path, identity)
        });
        Self { known: known.into(), anchor: None }
    }

    /// Keeps the log where it is.
    pub(super) fn hold(&mut self, source: &Source) -> Result<(), StoreError> {
        if self.anchor.is_none() {
            let connection = source.open()?;
            connection.pragma_query_value(None, "schema_version", |_| Ok(()))?;
            self.anchor = Some(connection);
        }
        Ok(())
    }

    /// # Errors
    /// [`StoreError::Broken`] names the file that is not the one it was.
    pub(super) fn check(&mut self) -> Result<(), StoreError> {
        for (path, known) in &mut self.known {
            match (path.metadata(), &known) {
                (Ok(metadata), None) => *known = Some(Identity::of(&metadata)),
                (Ok(metadata), Some(known)) if Identity::of(&metadata) == *known => {}
                (Err(error), None) if error.kind() == ErrorKind::NotFound => {}
                (Err(error), _) if error.kind() != ErrorKind::NotFound => {
                    return Err(StoreError::Broken(format!("{} cannot be looked at: {error}", path.display())));
                }
                (Ok(_) | Err(_), _) if planted::is(planted::Fault::FilesUnwatched) => {}
                (Ok(_) | Err(_), _) => return Err(taken(path)),
            }
        }
        Ok(())
    }

    /// Leaves everything as it is: closing the last connection would copy the log and remove it, and neither can be trusted now.
    pub(super) fn leave(self) {
        std::mem::forget(self.anchor);
    }
}

fn taken(path: &Path) -> StoreError {
    StoreError::Broken(format!(
        "{} was removed or replaced while it was in use. Nothing is acknowledged any more, and nothing was created or removed: \
         put the file back, or restore a backup",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database in use, with its log and the log's index.
    fn in_use(folder: &tempfile::TempDir) -> (PathBuf, Source, Files) {
        let path = folder.path().join("files.db");
        let source = Source::File { path: path.clone(), pages_max: None };
        let first = Connection::open(&path).unwrap();
        first.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE numbers (n INTEGER) STRICT").unwrap();
        let mut files = Files::of(&path);
        files.hold(&source).unwrap();
        files.check().unwrap();
        (path, source, files)
    }

    #[test]
    fn each_file_that_is_removed_or_replaced_is_named() {
        for ending in ["", "-wal", "-shm"] {
            for is_replaced in [false, true] {
                let folder = tempfile::tempdir().unwrap();
                let (path, _source, mut files) = in_use(&folder);
                let taken = beside(&path, ending);
                std::fs::rename(&taken, folder.path().join("elsewhere")).unwrap();
                if is_replaced {
                    std::fs::copy(folder.path().join("elsewhere"), &taken).unwrap();
                }
                let error = files.check().unwrap_err();
                let named = format!("{} was removed or replaced", taken.display());
                assert!(matches!(&error, StoreError::Broken(text) if text.contains(&named)), "{error}");
            }
        }
    }

    #[test]
    fn a_log_that_another_connection_removes_before_it_is_held_was_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("files.db");
        let first = Connection::open(&path).unwrap();
        first.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE numbers (n INTEGER) STRICT").unwrap();
        let mut files = Files::of(&path);
        first.close().unwrap();
        assert!(!beside(&path, "-wal").exists(), "the last connection removes it");
        files.hold(&Source::File { path, pages_max: None }).unwrap();
        files.check().unwrap();
    }

    #[test]
    fn connections_that_come_and_go_take_no_file_away() {
        let folder = tempfile::tempdir().unwrap();
        let (_path, source, mut files) = in_use(&folder);
        for n in 0..3 {
            source.open().unwrap().execute("INSERT INTO numbers VALUES (?1)", [n]).unwrap();
            files.check().unwrap();
        }
    }
}
