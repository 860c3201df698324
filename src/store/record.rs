//! Settling: a decision becomes rows. Generation, events, labels and unknown codes, all in the caller's transaction.
//!
//! What can be told from the generation itself is not written a second time: its only outcome, and how it looked when an event
//! arose. Both are written down when it is about to change.

use std::sync::LazyLock;
use std::time::Duration;

use rusqlite::{Params, params};

use super::StoreError;
use super::rows::{self, COLUMNS, MARKS, PROGRESS, PROGRESS_MARKS, Stored};
use super::tx::{Change, Tx};
use crate::domain::decision::{Decision, Fact};
use crate::domain::error_code::ErrorCode;
use crate::domain::event::EventKind;
use crate::domain::family::Family;
use crate::domain::generation::{Attention, Generation, Via};
use crate::domain::id::{EventId, GenerationId, ProviderId};
use crate::domain::outcome::Source;
use crate::domain::schedule::Rules;
use crate::domain::shown::Shown;
use crate::domain::time::Time;
use crate::planted;

static BY_ID: LazyLock<String> = LazyLock::new(|| format!("SELECT id, {COLUMNS} FROM generations WHERE uid = ?1"));
static BY_PROVIDER_ID: LazyLock<String> =
    LazyLock::new(|| format!("SELECT id, {COLUMNS} FROM generations WHERE provider_id = ?1 AND family = ?2"));
static BY_PROVIDER_ID_ANYWHERE: LazyLock<String> =
    LazyLock::new(|| format!("SELECT id, {COLUMNS} FROM generations WHERE provider_id = ?1 LIMIT 1"));
static INSERT: LazyLock<String> = LazyLock::new(|| format!("INSERT INTO generations ({COLUMNS}) VALUES ({MARKS})"));
static UPDATE: LazyLock<String> =
    LazyLock::new(|| format!("UPDATE generations SET ({COLUMNS}) = ({MARKS}) WHERE id = ?"));
static UPDATE_PROGRESS: LazyLock<String> =
    LazyLock::new(|| format!("UPDATE generations SET ({PROGRESS}) = ({PROGRESS_MARKS}) WHERE id = ?"));

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
        self.first(&BY_PROVIDER_ID, params![rows::compact(provider_id), family.code()], |row| rows::read(row))
    }

    /// A generation of the provider's id in whichever family.
    pub(super) fn by_provider_id_anywhere(&self, provider_id: &ProviderId) -> Result<Option<Stored>, StoreError> {
        self.first(&BY_PROVIDER_ID_ANYWHERE, params![rows::compact(provider_id)], |row| rows::read(row))
    }

    /// Whether retention has removed the generation of our id.
    pub(super) fn is_removed(&self, id: GenerationId) -> Result<bool, StoreError> {
        self.is_remembered("SELECT 1 FROM removed WHERE uid = ?1", params![id.as_bytes().as_slice()])
    }

    /// Whether retention has removed a generation of the provider's id in that family.
    pub(super) fn is_removed_of(&self, family: &Family, provider_id: &ProviderId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM removed WHERE provider_id = ?1 AND family = ?2";
        self.is_remembered(sql, params![rows::compact(provider_id), family.code()])
    }

    /// Whether retention has removed a generation of the provider's id in any family.
    pub(super) fn is_removed_anywhere(&self, provider_id: &ProviderId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM removed WHERE provider_id = ?1";
        self.is_remembered(sql, params![rows::compact(provider_id)])
    }

    fn is_remembered(&self, sql: &str, values: impl Params) -> Result<bool, StoreError> {
        let found = self.first(sql, values, |_| Ok(()))?.is_some();
        Ok(found && !planted::is(planted::Fault::RemovedForgotten))
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
            self.update(stored, &decision.generation, rules.refund_window)?;
        }
        self.learn(rules, &stored.generation, &decision, now);
        self.tell(stored.row, &decision, now)?;
        Ok(decision)
    }

    /// Stores a generation that was not known before, as decided.
    pub(super) fn insert(&mut self, decision: &Decision, now: Time) -> Result<i64, StoreError> {
        let generation = &decision.generation;
        let mut statement = self.statement(&INSERT)?;
        rows::bind(&mut statement, generation)?;
        statement.raw_execute()?;
        drop(statement);
        let row = self.last_added();
        self.label(row, generation)?;
        self.note_equal(row, generation)?;
        self.sums.count(None, Some(generation));
        self.changed.push(Change::of(None, generation));
        self.tell(row, decision, now)?;
        Ok(row)
    }

    fn update(&mut self, stored: &Stored, after: &Generation, refund_window: Duration) -> Result<(), StoreError> {
        let Stored { row, generation: before } = stored;
        self.freeze(stored, refund_window)?;
        self.supersede(*row, before, after)?;
        // Most changes leave alone what was bought, and with it the indexes over that.
        let is_same_purchase = (&before.provider_id, &before.request, &before.submitted_at, &before.metadata)
            == (&after.provider_id, &after.request, &after.submitted_at, &after.metadata);
        let mut statement = self.statement(if is_same_purchase { &UPDATE_PROGRESS } else { &UPDATE })?;
        let bind = if is_same_purchase { rows::bind_progress } else { rows::bind };
        let place = bind(&mut statement, after)?;
        statement.raw_bind_parameter(place, row)?;
        expect_one(statement.raw_execute()?, "generations", *row)?;
        drop(statement);
        if before.metadata != after.metadata {
            self.execute("DELETE FROM labels WHERE generation = ?1", params![row])?;
            self.label(*row, after)?;
        }
        if (&before.request, before.began_at()) != (&after.request, after.began_at()) {
            self.note_equal(*row, after)?;
        }
        self.sums.count(Some(before), Some(after));
        self.changed.push(Change::of(Some(before), after));
        Ok(())
    }

    /// Writes the labels down that a generation is found by.
    fn label(&self, row: i64, generation: &Generation) -> Result<(), StoreError> {
        for (key, value) in &generation.metadata {
            self.execute(
                "INSERT INTO labels (key, value, created_at, generation) VALUES (?1, ?2, ?3, ?4)",
                params![key, value, generation.created_at.as_ms(), row],
            )?;
        }
        Ok(())
    }

    /// Before a generation changes: events told so far keep it as it was at their time.
    pub(super) fn freeze(&self, stored: &Stored, refund_window: Duration) -> Result<(), StoreError> {
        if stored.generation.events == 0 {
            return Ok(());
        }
        let told = self.all(
            "SELECT id, at FROM events WHERE generation = ?1 AND shown IS NULL",
            params![stored.row],
            |row| Ok((row.get::<_, i64>(0)?, Time::from_ms(row.get(1)?))),
        )?;
        for (event, at) in told {
            let shown = Shown::of(stored.generation.clone(), at, refund_window);
            let shown = serde_json::to_string(&shown).map_err(|error| StoreError::Failed(error.to_string()))?;
            self.execute("UPDATE events SET shown = ?1 WHERE id = ?2", params![shown, event])?;
        }
        Ok(())
    }

    /// Before an outcome changes: what it was is kept as a version of its own.
    fn supersede(&self, row: i64, before: &Generation, after: &Generation) -> Result<(), StoreError> {
        let (Some(learned), Some(at)) = (before.state.learned(), before.state.settled_at()) else { return Ok(()) };
        if before.state == after.state {
            return Ok(());
        }
        let error = before.state.error();
        let (verification, signature) = rows::verification_codes(Some(learned.verification));
        // A version whose gaps are filled later stays as it was told.
        self.execute(
            "INSERT INTO outcomes (generation, version, at, status, source, verification, signature, result_url, error_code,
                                   error_text)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
            params![
                row,
                before.outcomes,
                at.as_ms(),
                before.state.status().code(),
                learned.source.code(),
                verification,
                signature,
                before.state.result_url(),
                error.and_then(|error| error.code.as_deref()),
                error.and_then(|error| error.text.as_deref()),
            ],
        )?;
        Ok(())
    }

    /// The events, and a code nobody has seen yet.
    fn tell(&mut self, row: i64, decision: &Decision, now: Time) -> Result<(), StoreError> {
        let generation = &decision.generation;
        let code = generation.state.error().and_then(|error| error.code.as_deref());
        if let Some(code) = code.filter(|code| decision.settled && ErrorCode::of(code).is_none()) {
            self.unknown_code(code, generation.family, now)?;
        }
        let silent = generation.state.learned().is_some_and(|learned| learned.source == Source::Check);
        if decision.events.is_empty() || (planted::is(planted::Fault::SilentCheck) && silent) {
            return Ok(());
        }
        if planted::is(planted::Fault::HalfCommitted) {
            self.connection.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
        }
        let for_caller = generation.via == Via::Gateway && self.callback_url(row)?.is_some();
        // Events come only with a change, which is the last one noted.
        if let Some(change) = self.changed.last_mut() {
            (change.told, change.for_caller) = (true, for_caller);
        }
        let told = u32::try_from(decision.events.len()).unwrap_or(0);
        let first = generation.events.saturating_sub(told);
        for (sequence, kind) in (first + 1..).zip(&decision.events) {
            self.event(row, generation, (sequence, *kind), for_caller, now)?;
        }
        Ok(())
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
        (sequence, kind): (u32, EventKind),
        for_caller: bool,
        now: Time,
    ) -> Result<(), StoreError> {
        let attention = (kind == EventKind::Attention).then_some(generation.attention).flatten();
        self.execute(
            "INSERT INTO events (uid, generation, sequence, at, kind, attention, for_caller) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                EventId::fresh(now).as_bytes().as_slice(),
                row,
                sequence,
                now.as_ms(),
                kind.code(),
                attention.map(Attention::code),
                for_caller,
            ],
        )?;
        Ok(())
    }

    /// Where the caller of the gateway itself wants to be told about a generation.
    pub(super) fn callback_url(&self, row: i64) -> Result<Option<String>, StoreError> {
        let url = self.first("SELECT callback_url FROM submissions WHERE generation = ?1", params![row], |row| {
            Ok(row.get::<_, Option<String>>(0)?)
        })?;
        Ok(url.flatten())
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
