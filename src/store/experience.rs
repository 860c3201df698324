//! What settled generations taught: loaded with the writer, kept in the transaction that settles.

use rusqlite::{Connection, params};

use super::row::Row;
use super::rows::impossible;
use super::tx::{self, Tx};
use super::{Store, StoreError};
use crate::domain::decision::Decision;
use crate::domain::experience::{Experience, Kind};
use crate::domain::generation::Generation;
use crate::domain::pace::Pace;
use crate::domain::schedule::Rules;
use crate::domain::time::Time;
use crate::domain::trust::Trust;

const PACES: &str = "SELECT family, model, duration_seconds, known, times FROM paces";
const TRUSTS: &str = "SELECT family, told, missed, late, recent, lags FROM trusts";

impl Store {
    /// All that was learned.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn experience(&self) -> Result<Experience, StoreError> {
        // The writer knows best; without one, what was written down last.
        if let Ok(experience) = self.writer.run(|tx| Ok(tx.experience.clone())).await {
            return Ok(experience);
        }
        let paces = sqlx::query(PACES).fetch_all(&self.readers).await?;
        let trusts = sqlx::query(TRUSTS).fetch_all(&self.readers).await?;
        Ok(Experience {
            paces: paces.iter().map(pace).collect::<Result<_, _>>()?,
            trusts: trusts.iter().map(trust).collect::<Result<_, _>>()?,
        })
    }
}

impl Tx<'_> {
    /// Learns from a decision.
    pub(super) fn learn(&mut self, rules: &Rules, before: &Generation, decision: &Decision, now: Time) {
        let lesson = self.experience.learn(rules, before, decision, now);
        self.lessons.paces.extend(lesson.pace);
        self.lessons.trusts.extend(lesson.trust.map(|family| family.path));
    }

    /// Keeps what was learned.
    pub(super) fn write_lessons(&mut self) -> Result<(), StoreError> {
        let lessons = std::mem::take(self.lessons);
        for (kind, pace) in lessons.paces.iter().filter_map(|kind| self.experience.paces.get_key_value(kind)) {
            self.execute(
                "INSERT INTO paces (family, model, duration_seconds, known, times) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET known = excluded.known, times = excluded.times",
                params![kind.family, kind.model, kind.duration_seconds, integer(pace.known()), bytes(pace.times_ms())],
            )?;
        }
        for (family, trust) in lessons.trusts.iter().filter_map(|family| self.experience.trusts.get_key_value(*family))
        {
            self.execute(
                "INSERT INTO trusts (family, told, missed, late, recent, lags) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO UPDATE SET told = excluded.told, missed = excluded.missed, late = excluded.late,
                                           recent = excluded.recent, lags = excluded.lags",
                params![
                    family,
                    integer(trust.told),
                    integer(trust.missed),
                    integer(trust.late),
                    trust.recent().map(u8::from).collect::<Vec<_>>(),
                    bytes(trust.lags_ms()),
                ],
            )?;
        }
        Ok(())
    }
}

/// Reads all that was learned, for the writer.
pub(super) fn load(connection: &Connection) -> Result<Experience, StoreError> {
    let paces = tx::all(connection, PACES, [], |row| pace(row))?;
    let trusts = tx::all(connection, TRUSTS, [], |row| trust(row))?;
    Ok(Experience { paces: paces.into_iter().collect(), trusts: trusts.into_iter().collect() })
}

fn pace(row: &impl Row) -> Result<(Kind, Pace), StoreError> {
    let kind =
        Kind { family: row.get("family")?, model: row.get("model")?, duration_seconds: row.get("duration_seconds")? };
    Ok((kind, Pace::stored(count(row, "paces", "known")?, spans(row, "times")?)))
}

fn trust(row: &impl Row) -> Result<(String, Trust), StoreError> {
    let count = |column| count(row, "trusts", column);
    let recent: Vec<u8> = row.get("recent")?;
    let recent = recent.into_iter().map(|came| came == 1);
    let trust = Trust::stored((count("told")?, count("missed")?, count("late")?), recent, spans(row, "lags")?);
    Ok((row.get("family")?, trust))
}

fn count(row: &impl Row, table: &'static str, column: &'static str) -> Result<u64, StoreError> {
    u64::try_from(row.get::<i64>(column)?).map_err(|_| impossible(table, column, 0))
}

fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn bytes(spans_ms: impl Iterator<Item = u32>) -> Vec<u8> {
    spans_ms.flat_map(u32::to_le_bytes).collect()
}

fn spans(row: &impl Row, column: &str) -> Result<Vec<u32>, StoreError> {
    let bytes: Vec<u8> = row.get(column)?;
    Ok(bytes.as_chunks().0.iter().map(|span| u32::from_le_bytes(*span)).collect())
}
