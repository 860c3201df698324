//! Rows and generations: each turned into the other, and impossible rows refused with their address.

use std::collections::BTreeMap;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Statement, ToSql};
use sqlx::TypeInfo;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{Sqlite, SqliteTypeInfo, SqliteValueRef};
use uuid::Uuid;

use super::StoreError;
use super::row::{Row, Value};
use super::sql::Value as SqlValue;
use crate::domain::family::Family;
use crate::domain::generation::{Attention, Generation, Request, State, Status, Via, Watch};
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::money::Usd;
use crate::domain::outcome::{Failure, Learned, Source, Verification};
use crate::domain::time::Time;

/// The columns of a generation, each a place in a row that holds `id` and [`COLUMNS`]: first those that change as it goes on,
/// then those that say what was bought and change rarely, if ever.
macro_rules! columns {
    ($first:ident $(, $progress:ident)*; $($identity:ident),*) => {
        #[allow(non_camel_case_types, reason = "named as in the schema")]
        #[derive(Clone, Copy)]
        enum Column { id, $first $(, $progress)* $(, $identity)* }

        impl Column {
            #[expect(clippy::as_conversions, reason = "a variant's place among the variants")]
            fn place(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self {
                    Self::id => "id",
                    Self::$first => stringify!($first),
                    $(Self::$progress => stringify!($progress),)*
                    $(Self::$identity => stringify!($identity),)*
                }
            }
        }

        /// What changes as a generation goes on, in the order of [`bind_progress`].
        pub(super) const PROGRESS: &str = concat!(stringify!($first) $(, ", ", stringify!($progress))*);
        /// One placeholder for each of [`PROGRESS`].
        pub(super) const PROGRESS_MARKS: &str = concat!("?" $(, columns!(@mark $progress))*);
        /// All columns but the row id, in the order of [`bind`].
        pub(super) const COLUMNS: &str =
            concat!(stringify!($first) $(, ", ", stringify!($progress))* $(, ", ", stringify!($identity))*);
        /// One placeholder for each of [`COLUMNS`].
        pub(super) const MARKS: &str = concat!("?" $(, columns!(@mark $progress))* $(, columns!(@mark $identity))*);
        /// The row id and [`COLUMNS`] of `generations g`, where it is joined.
        pub(super) const JOINED: &str =
            concat!("g.id, g.", stringify!($first) $(, ", g.", stringify!($progress))* $(, ", g.", stringify!($identity))*);
        /// Places of a row that [`read`] takes.
        pub(super) const WIDTH: usize = [Column::id, Column::$first $(, Column::$progress)* $(, Column::$identity)*].len();
    };
    (@mark $column:ident) => { ", ?" };
}

columns!(
    status, attention, result_url, error_code, error_text, price_micros, source, verification, signature, recovered, expected_by, settled_at,
    check_at, turn_at, checks, running_streak, not_found_streak, not_found_at, error_streak, late_answers, late_at, deliveries,
    webhook_at, claim, refunded_at, outcomes, events;
    uid, provider_id, family, model, duration_seconds, prompt, via, created_at, submitted_at, metadata
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

    /// One of an enum, stored as a number.
    fn one<T>(&self, column: Column, of_code: fn(u8) -> Option<T>) -> Result<T, StoreError> {
        self.needed(self.optional(column, of_code)?, column)
    }

    fn optional<V: Value, T>(
        &self,
        column: Column,
        parse: impl FnOnce(V) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let value: Option<V> = self.get(column)?;
        value.map(|value| self.needed(parse(value), column)).transpose()
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

/// Reads a row that begins with `id` and [`COLUMNS`].
pub(super) fn read(row: &impl Row) -> Result<Stored, StoreError> {
    let id = row.at(Column::id.place())?;
    let fields = Fields { row, id };
    let uid: Vec<u8> = fields.get(Column::uid)?;
    let labels = |json: String| serde_json::from_str::<BTreeMap<_, _>>(&json).ok();
    let generation = Generation {
        id: fields.needed(GenerationId::from_bytes(&uid), Column::uid)?,
        provider_id: fields.optional(Column::provider_id, |Compact(text)| ProviderId::parse(&text).ok())?,
        family: fields.one(Column::family, Family::of_code)?,
        state: state(&fields)?,
        attention: fields.optional(Column::attention, Attention::of_code)?,
        request: Request {
            model: fields.get(Column::model)?,
            duration_seconds: fields.get(Column::duration_seconds)?,
            prompt: fields.get(Column::prompt)?,
        },
        price: fields.get::<Option<i64>>(Column::price_micros)?.map(Usd::from_micros),
        via: fields.one(Column::via, Via::of_code)?,
        created_at: Time::from_ms(fields.get(Column::created_at)?),
        submitted_at: fields.time(Column::submitted_at)?,
        expected_by: fields.time(Column::expected_by)?,
        claim: fields.optional(Column::claim, |json: String| serde_json::from_str(&json).ok())?,
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
        metadata: fields.optional(Column::metadata, labels)?.unwrap_or_default(),
    };
    Ok(Stored { row: id, generation })
}

fn state(fields: &Fields<'_, impl Row>) -> Result<State, StoreError> {
    let at = || fields.needed(fields.time(Column::settled_at)?, Column::settled_at);
    let error = || {
        Ok::<_, StoreError>(Failure { code: fields.get(Column::error_code)?, text: fields.get(Column::error_text)? })
    };
    Ok(match fields.one(Column::status, Status::of_code)? {
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
        source: fields.one(Column::source, Source::of_code)?,
        verification: fields.needed(
            verification(fields.get(Column::verification)?, fields.get(Column::signature)?),
            Column::verification,
        )?,
        recovered: fields.get(Column::recovered)?,
    })
}

/// What vouches for an outcome, as it is stored: the words that came with signatures stand in a column of their own, beside a 1.
pub(super) fn verification_codes(verification: Option<Verification>) -> (Option<u8>, Option<u8>) {
    match verification {
        Some(Verification::Signature) => (Some(1), Some(1)),
        Some(Verification::TokenAndSignature) => (Some(1), Some(2)),
        Some(other) => (Some(other.code()), None),
        None => (None, None),
    }
}

/// What [`verification_codes`] made a number of.
pub(super) fn verification(verification: u8, signature: Option<u8>) -> Option<Verification> {
    match (verification, signature) {
        (1, Some(1)) => Some(Verification::Signature),
        (1, Some(2)) => Some(Verification::TokenAndSignature),
        (code, None) => Verification::of_code(code),
        (_, Some(_)) => None,
    }
}

/// Binds the values of [`PROGRESS`] from the first placeholder on; tells which one is next.
pub(super) fn bind_progress(statement: &mut Statement<'_>, generation: &Generation) -> Result<usize, StoreError> {
    let Generation { state, watch, .. } = generation;
    let (error, learned) = (state.error(), state.learned());
    let mut next = 1;
    let mut bind = |value: &dyn ToSql| {
        next += 1;
        statement.raw_bind_parameter(next - 1, value)
    };
    bind(&state.status().code())?;
    bind(&generation.attention.map(Attention::code))?;
    bind(&state.result_url())?;
    bind(&error.and_then(|error| error.code.as_deref()))?;
    bind(&error.and_then(|error| error.text.as_deref()))?;
    bind(&generation.price.map(Usd::as_micros))?;
    bind(&learned.map(|learned| learned.source.code()))?;
    let (verification, signature) = verification_codes(learned.map(|learned| learned.verification));
    bind(&verification)?;
    bind(&signature)?;
    bind(&learned.is_some_and(|learned| learned.recovered))?;
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
    Ok(next)
}

/// Binds the values of [`COLUMNS`] from the first placeholder on; tells which one is next.
pub(super) fn bind(statement: &mut Statement<'_>, generation: &Generation) -> Result<usize, StoreError> {
    let Generation { request, metadata, .. } = generation;
    let mut next = bind_progress(statement, generation)?;
    let mut bind = |value: &dyn ToSql| {
        next += 1;
        statement.raw_bind_parameter(next - 1, value)
    };
    bind(&generation.id.as_bytes().as_slice())?;
    bind(&generation.provider_id.as_ref().map(compact))?;
    bind(&generation.family.code())?;
    bind(&request.model.as_deref())?;
    bind(&request.duration_seconds)?;
    bind(&request.prompt.as_deref())?;
    bind(&generation.via.code())?;
    bind(&generation.created_at.as_ms())?;
    bind(&generation.submitted_at.map(Time::as_ms))?;
    let labels = (!metadata.is_empty()).then(|| serde_json::to_string(metadata).ok()).flatten();
    bind(&labels)?;
    Ok(next)
}

/// An id of the provider as it is stored: 16 bytes for a UUID in its canonical spelling, text for anything else.
pub(super) fn compact(id: &ProviderId) -> SqlValue {
    let text = id.as_str();
    match Uuid::try_parse(text) {
        Ok(uuid) if uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text => {
            SqlValue::Bytes(uuid.into_bytes().to_vec())
        }
        Ok(_) | Err(_) => SqlValue::Text(text.to_owned()),
    }
}

/// The text of what [`compact`] made.
struct Compact(String);

impl Compact {
    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(|uuid| Self(uuid.hyphenated().to_string()))
    }
}

impl FromSql for Compact {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_blob() {
            Ok(bytes) => Self::of_bytes(bytes).ok_or(FromSqlError::InvalidType),
            Err(_) => value.as_str().map(|text| Self(text.to_owned())),
        }
    }
}

impl sqlx::Type<Sqlite> for Compact {
    fn type_info() -> SqliteTypeInfo {
        <String as sqlx::Type<Sqlite>>::type_info()
    }

    fn compatible(_: &SqliteTypeInfo) -> bool {
        true
    }
}

impl<'r> sqlx::Decode<'r, Sqlite> for Compact {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        let is_bytes = sqlx::ValueRef::type_info(&value).name() == "BLOB";
        if is_bytes {
            let bytes = <&[u8] as sqlx::Decode<'r, Sqlite>>::decode(value)?;
            return Self::of_bytes(bytes).ok_or_else(|| "not 16 bytes".into());
        }
        <String as sqlx::Decode<'r, Sqlite>>::decode(value).map(Self)
    }
}
