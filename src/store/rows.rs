//! Rows and generations: each turned into the other, and impossible rows refused with their address.

use std::collections::BTreeMap;

use rusqlite::{Statement, ToSql};

use super::StoreError;
use super::row::{Row, Value};
use crate::domain::family::Family;
use crate::domain::generation::{Attention, Generation, Request, State, Status, Via, Watch};
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::money::Usd;
use crate::domain::outcome::{Failure, Learned, Source, Verification};
use crate::domain::time::Time;

/// The columns of a generation, each a place in a row that holds `id` and [`COLUMNS`].
macro_rules! columns {
    ($first:ident $(, $column:ident)*) => {
        #[allow(non_camel_case_types, reason = "named as in the schema")]
        #[derive(Clone, Copy)]
        enum Column { id, $first $(, $column)* }

        impl Column {
            #[expect(clippy::as_conversions, reason = "a variant's place among the variants")]
            fn place(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self {
                    Self::id => "id",
                    Self::$first => stringify!($first),
                    $(Self::$column => stringify!($column),)*
                }
            }
        }

        /// The columns of a generation, in the order of [`bind`]; the row id is not among them.
        pub(super) const COLUMNS: &str = concat!(stringify!($first) $(, ", ", stringify!($column))*);
        /// One placeholder for each of [`COLUMNS`].
        pub(super) const MARKS: &str = concat!("?" $(, ", ?", columns!(@nothing $column))*);
    };
    (@nothing $column:ident) => { "" };
}

columns!(
    uid,
    provider_id,
    family,
    status,
    attention,
    model,
    duration_seconds,
    prompt,
    result_url,
    error_code,
    error_text,
    price_micros,
    source,
    verification,
    recovered,
    via,
    created_at,
    submitted_at,
    expected_by,
    settled_at,
    check_at,
    turn_at,
    checks,
    running_streak,
    not_found_streak,
    not_found_at,
    error_streak,
    late_answers,
    late_at,
    deliveries,
    webhook_at,
    claim,
    refunded_at,
    outcomes,
    events,
    metadata
);

/// A generation and where it is stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) row: i64,
    pub(super) generation: Generation,
}

/// One row's fields, with the row's address for errors.
struct Fields<'r, R> {
    row: &'r R,
    id: i64,
}

impl<R: Row> Fields<'_, R> {
    fn get<T: Value>(&self, column: Column) -> Result<T, StoreError> {
        self.row.at(column.place()).map_err(|_| self.impossible(column))
    }

    fn time(&self, column: Column) -> Result<Option<Time>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(Time::from_ms))
    }

    fn word<T>(&self, column: Column, parse: fn(&str) -> Option<T>) -> Result<T, StoreError> {
        self.needed(self.optional_word(column, parse)?, column)
    }

    fn optional_word<T>(&self, column: Column, parse: fn(&str) -> Option<T>) -> Result<Option<T>, StoreError> {
        let word: Option<String> = self.get(column)?;
        word.map(|word| self.needed(parse(&word), column)).transpose()
    }

    fn needed<T>(&self, value: Option<T>, column: Column) -> Result<T, StoreError> {
        value.ok_or_else(|| self.impossible(column))
    }

    fn impossible(&self, column: Column) -> StoreError {
        impossible("generations", column.name(), self.id)
    }
}

pub(super) fn impossible(table: &str, column: &str, id: i64) -> StoreError {
    StoreError::Impossible(format!("{table}.{column} of row {id}"))
}

/// Reads a row that holds `id` and [`COLUMNS`].
pub(super) fn read(row: &impl Row) -> Result<Stored, StoreError> {
    let id = row.at(Column::id.place())?;
    let fields = Fields { row, id };
    let uid: Vec<u8> = fields.get(Column::uid)?;
    let family: String = fields.get(Column::family)?;
    let metadata: String = fields.get(Column::metadata)?;
    let generation = Generation {
        id: fields.needed(GenerationId::from_bytes(&uid), Column::uid)?,
        provider_id: fields.optional_word(Column::provider_id, |id| ProviderId::parse(id).ok())?,
        family: fields.needed(Family::of(&family), Column::family)?,
        state: state(&fields)?,
        attention: fields.optional_word(Column::attention, Attention::parse)?,
        request: Request {
            model: fields.get(Column::model)?,
            duration_seconds: fields.get(Column::duration_seconds)?,
            prompt: fields.get(Column::prompt)?,
        },
        price: fields.get::<Option<i64>>(Column::price_micros)?.map(Usd::from_micros),
        via: fields.word(Column::via, Via::parse)?,
        created_at: Time::from_ms(fields.get(Column::created_at)?),
        submitted_at: fields.time(Column::submitted_at)?,
        expected_by: fields.time(Column::expected_by)?,
        claim: fields.optional_word(Column::claim, |json| serde_json::from_str(json).ok())?,
        webhook_at: fields.time(Column::webhook_at)?,
        refunded_at: fields.time(Column::refunded_at)?,
        watch: Watch {
            check_at: fields.time(Column::check_at)?,
            turn_at: fields.time(Column::turn_at)?,
            checks: fields.get(Column::checks)?,
            running_streak: fields.get(Column::running_streak)?,
            not_found_streak: fields.get(Column::not_found_streak)?,
            not_found_at: fields.time(Column::not_found_at)?,
            error_streak: fields.get(Column::error_streak)?,
            late_answers: fields.get(Column::late_answers)?,
            late_at: fields.time(Column::late_at)?,
        },
        deliveries: fields.get(Column::deliveries)?,
        outcomes: fields.get(Column::outcomes)?,
        events: fields.get(Column::events)?,
        metadata: fields.needed(serde_json::from_str::<BTreeMap<_, _>>(&metadata).ok(), Column::metadata)?,
    };
    Ok(Stored { row: id, generation })
}

fn state(fields: &Fields<'_, impl Row>) -> Result<State, StoreError> {
    let at = || fields.needed(fields.time(Column::settled_at)?, Column::settled_at);
    let error = || {
        Ok::<_, StoreError>(Failure { code: fields.get(Column::error_code)?, text: fields.get(Column::error_text)? })
    };
    Ok(match fields.word(Column::status, Status::parse)? {
        Status::Prepared => State::Prepared,
        Status::Submitting => State::Submitting,
        Status::Unconfirmed => State::Unconfirmed,
        Status::Pending => State::Pending,
        Status::Processing => State::Processing,
        Status::Rejected => State::Rejected { at: at()?, error: error()? },
        Status::Completed => {
            let result_url = fields.needed(fields.get(Column::result_url)?, Column::result_url)?;
            State::Completed { at: at()?, result_url, learned: learned(fields)? }
        }
        Status::Failed => State::Failed { at: at()?, error: error()?, learned: learned(fields)? },
        Status::Lost => State::Lost { at: at()? },
    })
}

fn learned(fields: &Fields<'_, impl Row>) -> Result<Learned, StoreError> {
    Ok(Learned {
        source: fields.word(Column::source, Source::parse)?,
        verification: fields.word(Column::verification, Verification::parse)?,
        recovered: fields.get(Column::recovered)?,
    })
}

/// Binds the values of [`COLUMNS`] in their order, from the first placeholder on; tells which one is next.
pub(super) fn bind(statement: &mut Statement<'_>, generation: &Generation) -> Result<usize, StoreError> {
    let Generation { state, request, watch, .. } = generation;
    let (error, learned) = (state.error(), state.learned());
    let mut next = 0;
    let mut bind = |value: &dyn ToSql| {
        next += 1;
        statement.raw_bind_parameter(next, value)
    };
    bind(&generation.id.as_bytes().as_slice())?;
    bind(&generation.provider_id.as_ref().map(ProviderId::as_str))?;
    bind(&generation.family.path)?;
    bind(&state.status().as_str())?;
    bind(&generation.attention.map(Attention::as_str))?;
    bind(&request.model.as_deref())?;
    bind(&request.duration_seconds)?;
    bind(&request.prompt.as_deref())?;
    bind(&state.result_url())?;
    bind(&error.and_then(|error| error.code.as_deref()))?;
    bind(&error.and_then(|error| error.text.as_deref()))?;
    bind(&generation.price.map(Usd::as_micros))?;
    bind(&learned.map(|learned| learned.source.as_str()))?;
    bind(&learned.map(|learned| learned.verification.as_str()))?;
    bind(&learned.is_some_and(|learned| learned.recovered))?;
    bind(&generation.via.as_str())?;
    bind(&generation.created_at.as_ms())?;
    bind(&generation.submitted_at.map(Time::as_ms))?;
    bind(&generation.expected_by.map(Time::as_ms))?;
    bind(&state.settled_at().map(Time::as_ms))?;
    bind(&watch.check_at.map(Time::as_ms))?;
    bind(&watch.turn_at.map(Time::as_ms))?;
    bind(&watch.checks)?;
    bind(&watch.running_streak)?;
    bind(&watch.not_found_streak)?;
    bind(&watch.not_found_at.map(Time::as_ms))?;
    bind(&watch.error_streak)?;
    bind(&watch.late_answers)?;
    bind(&watch.late_at.map(Time::as_ms))?;
    bind(&generation.deliveries)?;
    bind(&generation.webhook_at.map(Time::as_ms))?;
    bind(&generation.claim.as_ref().and_then(|claim| serde_json::to_string(claim).ok()))?;
    bind(&generation.refunded_at.map(Time::as_ms))?;
    bind(&generation.outcomes)?;
    bind(&generation.events)?;
    bind(&serde_json::to_string(&generation.metadata).unwrap_or_else(|_| "{}".to_owned()))?;
    Ok(next + 1)
}
