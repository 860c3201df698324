//! Counts and sums over many generations.

use std::time::Duration;

use super::{Store, StoreError};
use crate::domain::time::Time;

/// An error code that is not in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCode {
    /// As it came.
    pub code: String,
    /// The family it was seen in first.
    pub family: String,
    /// How often outcomes carried it.
    pub seen: i64,
    /// When last.
    pub last_at: Time,
}

/// What waits to be asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Generations that are due.
    pub due: u64,
    /// Since when the first of them is.
    pub oldest: Option<Time>,
    /// Those that fall due soon.
    pub arriving: u64,
}

/// How large the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// Bytes of its file.
    pub bytes: u64,
    /// The SQLite it runs on.
    pub sqlite: String,
}

/// A count that is not carried beyond a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounded(u64);

/// Where counting stops.
const COUNTED_MAX: u64 = 10_000;

impl Bounded {
    /// The count; one beyond the bound stands for all that is more.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Whether there is none.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The count; one more than the bound when there are more.
    pub fn rows(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for Bounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 > COUNTED_MAX { write!(f, "more than {COUNTED_MAX}") } else { write!(f, "{}", self.0) }
    }
}

/// Events on their way, each counted once for every place it goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DispatchCounts {
    /// Not arrived yet.
    pub pending: Bounded,
    /// Given up.
    pub dead: Bounded,
}

impl Store {
    /// How large the database is, and what runs it.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn size(&self) -> Result<Size, StoreError> {
        let (bytes, sqlite): (i64, String) = sqlx::query_as(
            "SELECT page_count * page_size, sqlite_version() FROM pragma_page_count(), pragma_page_size()",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok(Size { bytes: u64::try_from(bytes).unwrap_or(0), sqlite })
    }

    /// How many events are on their way, and how many were given up.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn dispatch_counts(&self) -> Result<DispatchCounts, StoreError> {
        let (pending, dead): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM dispatches WHERE state <> 2 AND state = 1 LIMIT 10001)),
                    (SELECT count(*) FROM (SELECT 1 FROM dispatches WHERE state <> 2 AND state = 3 LIMIT 10001))",
        )
        .fetch_one(&self.readers)
        .await?;
        let bounded = |rows| Bounded(u64::try_from(rows).unwrap_or(0));
        Ok(DispatchCounts { pending: bounded(pending), dead: bounded(dead) })
    }

    /// The codes seen so far that are not in the catalogue, the most frequent first.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn unknown_codes(&self) -> Result<Vec<UnknownCode>, StoreError> {
        let rows: Vec<(String, String, i64, i64)> =
            sqlx::query_as("SELECT code, family, seen, last_at FROM unknown_codes ORDER BY seen DESC, code LIMIT 1000")
                .fetch_all(&self.readers)
                .await?;
        Ok(rows
            .into_iter()
            .map(|(code, family, seen, last_at)| UnknownCode { code, family, seen, last_at: Time::from_ms(last_at) })
            .collect())
    }

    /// What waits to be asked about at `now`, and what will within `ahead`.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn backlog(&self, ahead: Duration, now: Time) -> Result<Backlog, StoreError> {
        let (due, oldest, arriving): (i64, Option<i64>, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM generations WHERE check_at <= ?1),
                    (SELECT min(check_at) FROM generations WHERE check_at <= ?1),
                    (SELECT count(*) FROM generations WHERE check_at > ?1 AND check_at <= ?2)",
        )
        .bind(now.as_ms())
        .bind((now + ahead).as_ms())
        .fetch_one(&self.readers)
        .await?;
        let count = |rows| u64::try_from(rows).unwrap_or(0);
        Ok(Backlog { due: count(due), oldest: oldest.map(Time::from_ms), arriving: count(arriving) })
    }
}
