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

impl Store {
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

    /// How many generations call for a person.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn needing_attention(&self) -> Result<i64, StoreError> {
        let count = sqlx::query_scalar("SELECT count(*) FROM generations WHERE attention IS NOT NULL");
        Ok(count.fetch_one(&self.readers).await?)
    }
}
