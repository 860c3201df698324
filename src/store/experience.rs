//! What settled generations taught: loaded with the writer, kept in the transaction that settles.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::rows::impossible;
use super::writer::Tx;
use super::{Store, StoreError};
use crate::domain::decision::Decision;
use crate::domain::experience::{Experience, Kind};
use crate::domain::generation::Generation;
use crate::domain::pace::Pace;
use crate::domain::schedule::Rules;
use crate::domain::time::Time;
use crate::domain::trust::Trust;

impl Store {
    /// All that was learned.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn experience(&self) -> Result<Experience, StoreError> {
        load(&mut *self.readers.acquire().await?).await
    }
}

impl Tx<'_> {
    /// Learns from a decision, and keeps what was learned.
    pub(super) async fn learn(
        &mut self,
        rules: &Rules,
        before: &Generation,
        decision: &Decision,
        now: Time,
    ) -> Result<(), StoreError> {
        let lesson = self.experience.learn(rules, before, decision, now);
        if let Some((kind, pace)) = lesson.pace.and_then(|kind| self.experience.paces.get_key_value(&kind)) {
            sqlx::query(
                "INSERT INTO paces (family, model, duration_seconds, known, times) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET known = excluded.known, times = excluded.times",
            )
            .bind(&kind.family)
            .bind(&kind.model)
            .bind(kind.duration_seconds)
            .bind(integer(pace.known()))
            .bind(bytes(pace.times_ms()))
            .execute(&mut *self.connection)
            .await?;
        }
        if let Some((family, trust)) = lesson.trust.and_then(|family| self.experience.trusts.get_key_value(family.path))
        {
            sqlx::query(
                "INSERT INTO trusts (family, told, missed, late, recent, lags) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO UPDATE SET told = excluded.told, missed = excluded.missed, late = excluded.late,
                                           recent = excluded.recent, lags = excluded.lags",
            )
            .bind(family)
            .bind(integer(trust.told))
            .bind(integer(trust.missed))
            .bind(integer(trust.late))
            .bind(trust.recent().map(u8::from).collect::<Vec<_>>())
            .bind(bytes(trust.lags_ms()))
            .execute(&mut *self.connection)
            .await?;
        }
        Ok(())
    }
}

/// Reads all that was learned.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Experience, StoreError> {
    let paces = sqlx::query("SELECT family, model, duration_seconds, known, times FROM paces");
    let paces = paces.fetch_all(&mut *connection).await?;
    let trusts = sqlx::query("SELECT family, told, missed, late, recent, lags FROM trusts");
    let trusts = trusts.fetch_all(&mut *connection).await?;
    Ok(Experience {
        paces: paces.iter().map(pace).collect::<Result<_, _>>()?,
        trusts: trusts.iter().map(trust).collect::<Result<_, _>>()?,
    })
}

fn pace(row: &SqliteRow) -> Result<(Kind, Pace), StoreError> {
    let kind = Kind {
        family: row.try_get("family")?,
        model: row.try_get("model")?,
        duration_seconds: row.try_get("duration_seconds")?,
    };
    Ok((kind, Pace::stored(count(row, "paces", "known")?, spans(row, "times")?)))
}

fn trust(row: &SqliteRow) -> Result<(String, Trust), StoreError> {
    let count = |column| count(row, "trusts", column);
    let recent: Vec<u8> = row.try_get("recent")?;
    let recent = recent.into_iter().map(|came| came == 1);
    let trust = Trust::stored((count("told")?, count("missed")?, count("late")?), recent, spans(row, "lags")?);
    Ok((row.try_get("family")?, trust))
}

fn count(row: &SqliteRow, table: &'static str, column: &'static str) -> Result<u64, StoreError> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| impossible(table, column, 0))
}

fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn bytes(spans_ms: impl Iterator<Item = u32>) -> Vec<u8> {
    spans_ms.flat_map(u32::to_le_bytes).collect()
}

fn spans(row: &SqliteRow, column: &str) -> Result<Vec<u32>, StoreError> {
    let bytes: Vec<u8> = row.try_get(column)?;
    Ok(bytes.as_chunks().0.iter().map(|span| u32::from_le_bytes(*span)).collect())
}
