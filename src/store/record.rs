//! Settling: a decision becomes rows. Generation, outcome, events and unknown codes, all in the caller's transaction.

use std::sync::LazyLock;
use std::time::Duration;

use rusqlite::params;

use super::StoreError;
use super::rows::{self, COLUMNS, MARKS, Stored};
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

static BY_ID: LazyLock<String> = LazyLock::new(|| format!("SELECT id, {COLUMNS} FROM generations WHERE uid = ?1"));
static BY_PROVIDER_ID: LazyLock<String> =
    LazyLock::new(|| format!("SELECT id, {COLUMNS} FROM generations WHERE provider_id = ?1 AND family = ?2"));
static INSERT: LazyLock<String> = LazyLock::new(|| format!("INSERT INTO generations ({COLUMNS}) VALUES ({MARKS})"));
static UPDATE: LazyLock<String> =
    LazyLock::new(|| format!("UPDATE generations SET ({COLUMNS}) = ({MARKS}) WHERE id = ?"));

impl Tx<'_> {
    /// The generation of our id.
    pub(super) fn by_id(&self, id: GenerationId) -> Result<Option<Stored>, StoreError> {
        self.first(&BY_ID, params![id.as_bytes().as_slice()], |row| rows::read(row))
    }

    /// The generation of the provider's id in that family.
    pub(super) fn by_provider_id(
        &self,
        family: &Family,
        provider_id: &ProviderId,
    ) -> Result<Option<Stored>, StoreError> {
        self.first(&BY_PROVIDER_ID, params![provider_id.as_str(), family.path], |row| rows::read(row))
    }

    /// Decides what follows from `fact` and stores it.
    pub(super) fn decide(
        &mut self,
        rules: &Rules,
        stored: &Stored,
        fact: &Fact,
        now: Time,
    ) -> Result<Decision, StoreError> {
        let decision = rules.decide(&stored.generation, fact, self.experience, now);
        if decision.generation != stored.generation {
            self.update(stored.row, &decision.generation)?;
        }
        self.learn(rules, &stored.generation, &decision, now);
        self.tell(stored.row, &decision, now, rules.refund_window)?;
        Ok(decision)
    }

    /// Stores a generation that was not known before, as decided.
    pub(super) fn insert(&mut self, rules: &Rules, decision: &Decision, now: Time) -> Result<i64, StoreError> {
        let mut statement = self.statement(&INSERT)?;
        rows::bind(&mut statement, &decision.generation)?;
        statement.raw_execute()?;
        drop(statement);
        let row = self.last_added();
        self.changed.push(Change::of(&decision.generation));
        self.tell(row, decision, now, rules.refund_window)?;
        Ok(row)
    }

    fn update(&mut self, row: i64, generation: &Generation) -> Result<(), StoreError> {
        let mut statement = self.statement(&UPDATE)?;
        let place = rows::bind(&mut statement, generation)?;
        statement.raw_bind_parameter(place, row)?;
        expect_one(statement.raw_execute()?, "generations", row)?;
        drop(statement);
        self.changed.push(Change::of(generation));
        Ok(())
    }

    /// The outcome's version, the events, and a code nobody has seen yet.
    fn tell(&mut self, row: i64, decision: &Decision, now: Time, refund_window: Duration) -> Result<(), StoreError> {
        if decision.settled {
            self.outcome(row, &decision.generation, now)?;
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
            self.event(row, &decision.generation, sequence, (*kind, &shown), now)?;
        }
        Ok(())
    }

    fn outcome(&mut self, row: i64, generation: &Generation, now: Time) -> Result<(), StoreError> {
        let Some(learned) = generation.state.learned() else { return Ok(()) };
        let error = generation.state.error();
        let code = error.and_then(|error| error.code.as_deref());
        self.execute(
            "INSERT INTO outcomes (generation, version, at, status, source, verification, result_url, error_code, error_text)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                row,
                generation.outcomes,
                now.as_ms(),
                generation.state.status().as_str(),
                learned.source.as_str(),
                learned.verification.as_str(),
                generation.state.result_url(),
                code,
                error.and_then(|error| error.text.as_deref()),
            ],
        )?;
        match code {
            Some(code) if ErrorCode::of(code).is_none() => self.unknown_code(code, generation.family, now),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn unknown_code(&self, code: &str, family: &Family, now: Time) -> Result<(), StoreError> {
        tracing::warn!(error_code = code, family = family.path, "an error code that is not in the catalogue");
        self.execute(
            "INSERT INTO unknown_codes (code, family, seen, last_at) VALUES (?1, ?2, 1, ?3)
             ON CONFLICT (code) DO UPDATE SET seen = seen + 1, last_at = excluded.last_at",
            params![code, family.path, now.as_ms()],
        )?;
        Ok(())
    }

    fn event(
        &self,
        row: i64,
        generation: &Generation,
        sequence: u32,
        (kind, shown): (EventKind, &str),
        now: Time,
    ) -> Result<(), StoreError> {
        let attention = (kind == EventKind::Attention).then_some(generation.attention).flatten();
        self.execute(
            "INSERT INTO events (uid, generation, sequence, at, kind, attention, shown) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                EventId::fresh(now).as_bytes().as_slice(),
                row,
                sequence,
                now.as_ms(),
                kind.as_str(),
                attention.map(Attention::as_str),
                shown,
            ],
        )?;
        Ok(())
    }

    /// Writes down what somebody did.
    pub(super) fn note(&self, row: i64, now: Time, author: &str, text: &str) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO notes (generation, at, author, text) VALUES (?1, ?2, ?3, ?4)",
            params![row, now.as_ms(), author, text],
        )?;
        Ok(())
    }
}

/// Every write says how many rows it expects.
pub(super) fn expect_one(rows: usize, table: &str, id: i64) -> Result<(), StoreError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(StoreError::Failed(format!("{rows} rows of {table} changed for id {id}, not one")))
    }
}
