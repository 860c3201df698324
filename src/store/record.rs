//! Settling: a decision becomes rows. Generation, outcome, events and unknown codes, all in the caller's transaction.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::StoreError;
use super::rows::{self, COLUMNS, Stored};
use super::writer::{Change, Tx};
use crate::domain::decision::{Decision, Fact};
use crate::domain::error_code::ErrorCode;
use crate::domain::event::EventKind;
use crate::domain::family::Family;
use crate::domain::generation::{Attention, Generation};
use crate::domain::id::{EventId, GenerationId, ProviderId};
use crate::domain::outcome::Source;
use crate::domain::schedule::Rules;
use crate::domain::shown::Shown;
use crate::domain::time::Time;
use crate::planted;

impl Tx<'_> {
    /// The generation of our id.
    pub(super) async fn by_id(&mut self, id: GenerationId) -> Result<Option<Stored>, StoreError> {
        by_id(self.connection, id).await
    }

    /// The generation of the provider's id in that family.
    pub(super) async fn by_provider_id(
        &mut self,
        family: &Family,
        provider_id: &ProviderId,
    ) -> Result<Option<Stored>, StoreError> {
        let sql = format!("SELECT id, {COLUMNS} FROM generations WHERE provider_id = ?1 AND family = ?2");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(provider_id.as_str())
            .bind(family.path)
            .fetch_optional(&mut *self.connection)
            .await?;
        row.as_ref().map(rows::read).transpose()
    }

    /// Decides what follows from `fact` and stores it.
    pub(super) async fn decide(
        &mut self,
        rules: &Rules,
        stored: &Stored,
        fact: &Fact,
        now: Time,
    ) -> Result<Decision, StoreError> {
        let decision = rules.decide(&stored.generation, fact, self.experience, now);
        if decision.generation != stored.generation {
            self.update(stored.row, &decision.generation).await?;
        }
        self.learn(rules, &stored.generation, &decision, now).await?;
        self.tell(stored.row, &decision, now, rules.refund_window).await?;
        Ok(decision)
    }

    /// Stores a generation that was not known before, as decided.
    pub(super) async fn insert(&mut self, rules: &Rules, decision: &Decision, now: Time) -> Result<i64, StoreError> {
        let sql = format!("INSERT INTO generations ({COLUMNS}) VALUES ({})", rows::marks());
        let query = rows::bind(sqlx::query(sqlx::AssertSqlSafe(sql)), &decision.generation);
        let row = query.execute(&mut *self.connection).await?.last_insert_rowid();
        self.changed.push(Change::of(&decision.generation));
        self.tell(row, decision, now, rules.refund_window).await?;
        Ok(row)
    }

    async fn update(&mut self, row: i64, generation: &Generation) -> Result<(), StoreError> {
        let sql = format!("UPDATE generations SET ({COLUMNS}) = ({}) WHERE id = ?", rows::marks());
        let query = rows::bind(sqlx::query(sqlx::AssertSqlSafe(sql)), generation).bind(row);
        expect_one(query.execute(&mut *self.connection).await?.rows_affected(), "generations", row)?;
        self.changed.push(Change::of(generation));
        Ok(())
    }

    /// The outcome's version, the events, and a code nobody has seen yet.
    async fn tell(
        &mut self,
        row: i64,
        decision: &Decision,
        now: Time,
        refund_window: Duration,
    ) -> Result<(), StoreError> {
        if decision.settled {
            self.outcome(row, &decision.generation, now).await?;
        }
        let silent = decision.generation.state.learned().is_some_and(|learned| learned.source == Source::Check);
        if decision.events.is_empty() || (planted::is(planted::Fault::SilentCheck) && silent) {
            return Ok(());
        }
        // Events come only with a change, which is the last one noted.
        if let Some(change) = self.changed.last_mut() {
            change.told = true;
        }
        let shown = Shown::of(decision.generation.clone(), now, refund_window);
        let shown = serde_json::to_string(&shown).map_err(|error| StoreError::Failed(error.to_string()))?;
        let told = u32::try_from(decision.events.len()).unwrap_or(0);
        let first = decision.generation.events.saturating_sub(told);
        for (sequence, kind) in (first + 1..).zip(&decision.events) {
            self.event(row, &decision.generation, sequence, (*kind, &shown), now).await?;
        }
        Ok(())
    }

    async fn outcome(&mut self, row: i64, generation: &Generation, now: Time) -> Result<(), StoreError> {
        let Some(learned) = generation.state.learned() else { return Ok(()) };
        let result_url = generation.state.result_url();
        let error = generation.state.error();
        let code = error.and_then(|error| error.code.as_deref());
        sqlx::query(
            "INSERT INTO outcomes (generation, version, at, status, source, verification, result_url, error_code, error_text)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )
        .bind(row)
        .bind(generation.outcomes)
        .bind(now.as_ms())
        .bind(generation.state.status().as_str())
        .bind(learned.source.as_str())
        .bind(learned.verification.as_str())
        .bind(result_url)
        .bind(code)
        .bind(error.and_then(|error| error.text.as_deref()))
        .execute(&mut *self.connection)
        .await?;
        match code {
            Some(code) if ErrorCode::of(code).is_none() => self.unknown_code(code, generation.family, now).await,
            Some(_) | None => Ok(()),
        }
    }

    pub(super) async fn unknown_code(&mut self, code: &str, family: &Family, now: Time) -> Result<(), StoreError> {
        tracing::warn!(error_code = code, family = family.path, "an error code that is not in the catalogue");
        sqlx::query(
            "INSERT INTO unknown_codes (code, family, seen, last_at) VALUES (?1, ?2, 1, ?3)
             ON CONFLICT (code) DO UPDATE SET seen = seen + 1, last_at = excluded.last_at",
        )
        .bind(code)
        .bind(family.path)
        .bind(now.as_ms())
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    async fn event(
        &mut self,
        row: i64,
        generation: &Generation,
        sequence: u32,
        (kind, shown): (EventKind, &str),
        now: Time,
    ) -> Result<(), StoreError> {
        let attention = (kind == EventKind::Attention).then_some(generation.attention).flatten();
        sqlx::query(
            "INSERT INTO events (uid, generation, sequence, at, kind, attention, shown) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(EventId::fresh(now).as_bytes().as_slice())
        .bind(row)
        .bind(sequence)
        .bind(now.as_ms())
        .bind(kind.as_str())
        .bind(attention.map(Attention::as_str))
        .bind(shown)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Writes down what somebody did.
    pub(super) async fn note(&mut self, row: i64, now: Time, author: &str, text: &str) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO notes (generation, at, author, text) VALUES (?1, ?2, ?3, ?4)")
            .bind(row)
            .bind(now.as_ms())
            .bind(author)
            .bind(text)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}

/// The generation of our id.
pub(super) async fn by_id(connection: &mut SqliteConnection, id: GenerationId) -> Result<Option<Stored>, StoreError> {
    let sql = format!("SELECT id, {COLUMNS} FROM generations WHERE uid = ?1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.as_bytes().as_slice()).fetch_optional(connection).await?;
    row.as_ref().map(rows::read).transpose()
}

/// Every write says how many rows it expects.
pub(super) fn expect_one(rows: u64, table: &str, id: i64) -> Result<(), StoreError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(StoreError::Failed(format!("{rows} rows of {table} changed for id {id}, not one")))
    }
}
