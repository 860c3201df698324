//! A consistent copy of the database while the service runs, and when the last one was made.
//!
//! The copy is made by a process of its own, which writes nothing into the database: it leaves a note beside it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::{OpenError, Store, options, protect};
use crate::domain::time::Time;
use crate::planted;

/// The last copy that was made and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    /// When.
    pub at: Time,
    /// How large the copy is.
    pub bytes: u64,
}

/// Writes a consistent copy of the database at `url` to `file`, while others use it, and checks it.
///
/// # Errors
/// When the file exists, cannot be written, or the copy does not pass SQLite's own check.
pub async fn backup(url: &str, file: &Path, now: Time) -> Result<LastBackup, OpenError> {
    let options = options(url)?.create_if_missing(false);
    let source = options.get_filename().to_owned();
    let unusable = |error: &dyn std::fmt::Display| OpenError::Unusable {
        path: source.clone(),
        cause: error.to_string(),
        hint: "check `database.url`",
    };
    if file.exists() {
        return Err(OpenError::Url(format!("{} exists; backup does not overwrite", file.display())));
    }
    let target = file.to_str().ok_or_else(|| OpenError::Url(format!("{} is not valid UTF-8", file.display())))?;
    let mut connection = options.connect().await.map_err(|error| unusable(&error))?;
    if planted::is(planted::Fault::CopiedAsFile) {
        std::fs::copy(&source, file).map_err(|error| unusable(&error))?;
    } else {
        let copied = sqlx::query("VACUUM INTO ?1").bind(target).execute(&mut connection).await;
        copied.map_err(|error| unusable(&error))?;
    }
    connection.close().await.map_err(|error| unusable(&error))?;
    protect(file);
    let copy = SqliteConnectOptions::new().filename(file).read_only(true);
    let mut connection = copy.connect().await.map_err(|error| unusable(&error))?;
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check(1)")
        .fetch_one(&mut connection)
        .await
        .map_err(|error| unusable(&error))?;
    if verdict != "ok" {
        return Err(unusable(&format!("the copy is damaged: {verdict}")));
    }
    let bytes = std::fs::metadata(file).map_err(|error| unusable(&error))?.len();
    let made = LastBackup { at: now, bytes };
    made.note(&source);
    Ok(made)
}

impl LastBackup {
    /// The last one of the database at `database`, if one was made by `recoup backup`; others are not known of.
    pub fn of(database: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(database)).ok()?).ok()
    }

    fn path(database: &Path) -> PathBuf {
        let mut path = database.as_os_str().to_owned();
        path.push(".last-backup");
        path.into()
    }

    /// Leaves a note beside the database. The copy is good without it: where it cannot be written, only the page does not know.
    fn note(self, database: &Path) {
        let path = Self::path(database);
        let written = serde_json::to_vec(&self).map_err(Into::into).and_then(|note| std::fs::write(&path, note));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "cannot note when the backup was made");
        }
    }
}

impl Store {
    /// When the last backup was made, if one was: by `recoup backup`, others are not known of.
    pub async fn last_backup(&self) -> Option<LastBackup> {
        let path = LastBackup::path(self.readers.connect_options().get_filename());
        let note = tokio::fs::read(path).await.ok()?;
        serde_json::from_slice(&note).ok()
    }
}
