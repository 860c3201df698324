//! Rows and generations: each turned into the other, and impossible rows refused with their address.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};

use super::StoreError;
use crate::domain::family::Family;
use crate::domain::generation::{Attention, Generation, Request, State, Status, Via, Watch};
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::money::Usd;
use crate::domain::outcome::{Failure, Learned, Source, Verification};
use crate::domain::time::Time;

/// The columns of a generation, in the order of [`bind`]; the row id is not among them.
pub(super) const COLUMNS: &str = "uid, provider_id, family, status, attention, model, duration_seconds, prompt, result_url, \
     error_code, error_text, price_micros, source, verification, recovered, via, created_at, submitted_at, expected_by, \
     settled_at, check_at, turn_at, checks, running_streak, not_found_streak, not_found_at, error_streak, late_answers, late_at, deliveries, \
     webhook_at, claim, refunded_at, outcomes, events, metadata";

/// One placeholder for each of [`COLUMNS`].
pub(super) fn marks() -> String {
    vec!["?"; COLUMNS.split(',').count()].join(", ")
}

/// A generation and where it is stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) row: i64,
    pub(super) generation: Generation,
}

/// One row's fields, with the row's address for errors.
struct Fields<'r> {
    row: &'r SqliteRow,
    id: i64,
}

impl Fields<'_> {
    fn get<'r, T>(&'r self, column: &str) -> Result<T, StoreError>
    where
        T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
    {
        self.row.try_get(column).map_err(|_| self.impossible(column))
    }

    fn time(&self, column: &str) -> Result<Option<Time>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(Time::from_ms))
    }

    fn word<T>(&self, column: &str, parse: fn(&str) -> Option<T>) -> Result<T, StoreError> {
        self.optional_word(column, parse)?.ok_or_else(|| self.impossible(column))
    }

    fn optional_word<T>(&self, column: &str, parse: fn(&str) -> Option<T>) -> Result<Option<T>, StoreError> {
        let word: Option<String> = self.get(column)?;
        word.map(|word| parse(&word).ok_or_else(|| self.impossible(column))).transpose()
    }

    fn needed<T>(&self, value: Option<T>, column: &str) -> Result<T, StoreError> {
        value.ok_or_else(|| self.impossible(column))
    }

    fn impossible(&self, column: &str) -> StoreError {
        impossible("generations", column, self.id)
    }
}

pub(super) fn impossible(table: &str, column: &str, id: i64) -> StoreError {
    StoreError::Impossible(format!("{table}.{column} of row {id}"))
}

/// Reads a row that holds `id` and [`COLUMNS`].
pub(super) fn read(row: &SqliteRow) -> Result<Stored, StoreError> {
    let id: i64 = row.try_get("id").map_err(|error| StoreError::Impossible(error.to_string()))?;
    let fields = Fields { row, id };
    let uid: Vec<u8> = fields.get("uid")?;
    let family: String = fields.get("family")?;
    let metadata: String = fields.get("metadata")?;
    let generation = Generation {
        id: fields.needed(GenerationId::from_bytes(&uid), "uid")?,
        provider_id: fields.optional_word("provider_id", |id| ProviderId::parse(id).ok())?,
        family: fields.needed(Family::of(&family), "family")?,
        state: state(&fields)?,
        attention: fields.optional_word("attention", Attention::parse)?,
        request: Request {
            model: fields.get("model")?,
            duration_seconds: fields.get("duration_seconds")?,
            prompt: fields.get("prompt")?,
        },
        price: fields.get::<Option<i64>>("price_micros")?.map(Usd::from_micros),
        via: fields.word("via", Via::parse)?,
        created_at: Time::from_ms(fields.get("created_at")?),
        submitted_at: fields.time("submitted_at")?,
        expected_by: fields.time("expected_by")?,
        claim: fields.optional_word("claim", |json| serde_json::from_str(json).ok())?,
        webhook_at: fields.time("webhook_at")?,
        refunded_at: fields.time("refunded_at")?,
        watch: Watch {
            check_at: fields.time("check_at")?,
            turn_at: fields.time("turn_at")?,
            checks: fields.get("checks")?,
            running_streak: fields.get("running_streak")?,
            not_found_streak: fields.get("not_found_streak")?,
            not_found_at: fields.time("not_found_at")?,
            error_streak: fields.get("error_streak")?,
            late_answers: fields.get("late_answers")?,
            late_at: fields.time("late_at")?,
        },
        deliveries: fields.get("deliveries")?,
        outcomes: fields.get("outcomes")?,
        events: fields.get("events")?,
        metadata: fields.needed(serde_json::from_str::<BTreeMap<_, _>>(&metadata).ok(), "metadata")?,
    };
    Ok(Stored { row: id, generation })
}

fn state(fields: &Fields<'_>) -> Result<State, StoreError> {
    let at = || fields.needed(fields.time("settled_at")?, "settled_at");
    let error = || Ok::<_, StoreError>(Failure { code: fields.get("error_code")?, text: fields.get("error_text")? });
    Ok(match fields.word("status", Status::parse)? {
        Status::Prepared => State::Prepared,
        Status::Submitting => State::Submitting,
        Status::Unconfirmed => State::Unconfirmed,
        Status::Pending => State::Pending,
        Status::Processing => State::Processing,
        Status::Rejected => State::Rejected { at: at()?, error: error()? },
        Status::Completed => {
            let result_url = fields.needed(fields.get("result_url")?, "result_url")?;
            State::Completed { at: at()?, result_url, learned: learned(fields)? }
        }
        Status::Failed => State::Failed { at: at()?, error: error()?, learned: learned(fields)? },
        Status::Lost => State::Lost { at: at()? },
    })
}

fn learned(fields: &Fields<'_>) -> Result<Learned, StoreError> {
    Ok(Learned {
        source: fields.word("source", Source::parse)?,
        verification: fields.word("verification", Verification::parse)?,
        recovered: fields.get("recovered")?,
    })
}

/// Binds the values of [`COLUMNS`] in their order.
pub(super) fn bind<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    generation: &'q Generation,
) -> Query<'q, Sqlite, SqliteArguments> {
    let Generation { state, request, watch, .. } = generation;
    let (error, learned) = (state.error(), state.learned());
    query
        .bind(generation.id.as_bytes().as_slice())
        .bind(generation.provider_id.as_ref().map(ProviderId::as_str))
        .bind(generation.family.path)
        .bind(state.status().as_str())
        .bind(generation.attention.map(Attention::as_str))
        .bind(request.model.as_deref())
        .bind(request.duration_seconds)
        .bind(request.prompt.as_deref())
        .bind(state.result_url())
        .bind(error.and_then(|error| error.code.as_deref()))
        .bind(error.and_then(|error| error.text.as_deref()))
        .bind(generation.price.map(Usd::as_micros))
        .bind(learned.map(|learned| learned.source.as_str()))
        .bind(learned.map(|learned| learned.verification.as_str()))
        .bind(learned.is_some_and(|learned| learned.recovered))
        .bind(generation.via.as_str())
        .bind(generation.created_at.as_ms())
        .bind(generation.submitted_at.map(Time::as_ms))
        .bind(generation.expected_by.map(Time::as_ms))
        .bind(state.settled_at().map(Time::as_ms))
        .bind(watch.check_at.map(Time::as_ms))
        .bind(watch.turn_at.map(Time::as_ms))
        .bind(watch.checks)
        .bind(watch.running_streak)
        .bind(watch.not_found_streak)
        .bind(watch.not_found_at.map(Time::as_ms))
        .bind(watch.error_streak)
        .bind(watch.late_answers)
        .bind(watch.late_at.map(Time::as_ms))
        .bind(generation.deliveries)
        .bind(generation.webhook_at.map(Time::as_ms))
        .bind(generation.claim.as_ref().and_then(|claim| serde_json::to_string(claim).ok()))
        .bind(generation.refunded_at.map(Time::as_ms))
        .bind(generation.outcomes)
        .bind(generation.events)
        .bind(serde_json::to_string(&generation.metadata).unwrap_or_else(|_| "{}".to_owned()))
}
