//! How the database itself is: its files, the disk under them, the writes that wait, and the events that are still to be sent.
//! Everything here is looked up, nothing is counted: it is asked for at every scrape.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::source::Source;
use super::{LastBackup, Store, StoreError};
use crate::domain::time::Time;

/// The writer and what is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Writes that wait for the present group to be committed.
    pub writes_waiting: usize,
    /// The longest that any of them can have waited.
    pub oldest_write: Duration,
    /// Bytes of the log beside the database file.
    pub log_bytes: u64,
    /// Bytes left to us on its disk, where the system says so.
    pub disk_free_bytes: Option<u64>,
    /// When a backup last succeeded, since 1970.
    pub last_backup: Option<Duration>,
}

/// The events that are still to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// When the oldest of them arose.
    pub oldest: Option<Time>,
    /// Places that are sent nothing, because they said so.
    pub disabled: u64,
}

impl Store {
    /// How the writer and the files are. What the system does not tell is left out.
    pub fn vitals(&self) -> Vitals {
        let (writes_waiting, oldest_write) = (self.writer.length(), self.writer.oldest());
        let Source::File { path, .. } = &self.source else {
            return Vitals { writes_waiting, oldest_write, ..Vitals::default() };
        };
        let backup = LastBackup::of(path).and_then(|made| u64::try_from(made.at.as_ms()).ok());
        Vitals {
            writes_waiting,
            oldest_write,
            log_bytes: std::fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len()),
            disk_free_bytes: rustix::fs::statvfs(path).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            last_backup: backup.map(Duration::from_millis),
        }
    }

    /// The events that are still to be sent to these outlets.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn unsent(&self, names: &[String]) -> Result<Unsent, StoreError> {
        let mut snapshot = self.readers.begin().await?;
        let outlets: Vec<(i64, String, i64, bool, bool)> =
            sqlx::query_as("SELECT id, name, position, callers_only, disabled_at IS NOT NULL FROM outlets")
                .fetch_all(&mut *snapshot)
                .await?;
        let mut unsent = Unsent::default();
        for (outlet, name, position, callers_only, disabled) in outlets {
            // One of an earlier configuration is served by nobody.
            if !names.contains(&name) {
                continue;
            }
            if disabled {
                unsent.disabled += 1;
                continue;
            }
            let next = if callers_only { NEXT_FOR_CALLERS } else { NEXT };
            let next: Option<i64> = sqlx::query_scalar(next).bind(position).fetch_optional(&mut *snapshot).await?;
            let begun: Option<i64> = sqlx::query_scalar(BEGUN).bind(outlet).fetch_optional(&mut *snapshot).await?;
            let oldest = next.into_iter().chain(begun).map(Time::from_ms).chain(unsent.oldest).min();
            unsent.oldest = oldest;
        }
        Ok(unsent)
    }
}

/// The first event that an outlet has not looked at.
const NEXT: &str = "SELECT at FROM events WHERE id > ?1 ORDER BY id LIMIT 1";
const NEXT_FOR_CALLERS: &str =
    "SELECT at FROM events INDEXED BY events_for_caller WHERE for_caller = 1 AND id > ?1 ORDER BY id LIMIT 1";
/// The first event that was tried, or is being tried, and has not arrived.
const BEGUN: &str = "SELECT at FROM events WHERE id =
     (SELECT event FROM dispatches INDEXED BY dispatches_state WHERE state <> 2 AND state = 1 AND outlet = ?1 ORDER BY event LIMIT 1)";

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
