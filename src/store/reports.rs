//! Counts and sums over many generations.

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

/// How many generations are open, and how many reads are waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that are due.
    pub due: i64,
    /// Generations that call for a person.
    pub attention: i64,
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

    /// What is waiting at `now`.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn counts(&self, now: Time) -> Result<Counts, StoreError> {
        let (due, attention): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM generations WHERE check_at <= ?1),
                    (SELECT count(*) FROM generations WHERE attention IS NOT NULL)",
        )
        .bind(now.as_ms())
        .fetch_one(&self.readers)
        .await?;
        Ok(Counts { due, attention })
    }
}
