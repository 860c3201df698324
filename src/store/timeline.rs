//! Everything that happened to one generation, oldest first.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::checks::{self, CheckRecord};
use super::rows;
use super::{Store, StoreError};
use crate::domain::decision::Disposition;
use crate::domain::event::EventKind;
use crate::domain::generation::{Attention, Generation, Status, Via};
use crate::domain::id::{DeliveryId, EventId, GenerationId};
use crate::domain::outcome::{Source, Verification};
use crate::domain::purchase::SubmitResult;
use crate::domain::time::Time;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = TimelineEntry)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// It was bought, or meant to be.
    Submission {
        /// When.
        at: Time,
        /// How it came to be known.
        via: Via,
        /// The provider's id, where known.
        generation_id: Option<String>,
        /// What it cost, where known.
        price: Option<String>,
        /// Bought through us: when the provider answered.
        answered_at: Option<Time>,
        /// Bought through us: what came of it.
        result: Option<SubmitResult>,
        /// The HTTP status of the answer.
        http_status: Option<u16>,
        /// Why it was not sold.
        error_code: Option<String>,
        /// In a few words.
        said: Option<String>,
    },
    /// A webhook came.
    Delivery {
        /// When.
        at: Time,
        /// Which.
        id: DeliveryId,
        /// What became of it.
        disposition: Disposition,
        /// Why it could not be read.
        reason: Option<String>,
        /// Length of its body.
        body_bytes: i64,
        /// The delivery it repeats.
        replay_of: Option<DeliveryId>,
    },
    /// The provider was asked.
    Check {
        /// When it was sent.
        at: Time,
        /// Which.
        id: String,
        /// When it was answered.
        answered_at: Option<Time>,
        /// What kind of answer.
        answer: Option<String>,
        /// Its HTTP status.
        http_status: Option<u16>,
        /// In a few words.
        said: Option<String>,
    },
    /// There was an outcome.
    Outcome {
        /// When it was learned.
        at: Time,
        /// More than one after a correction.
        version: u32,
        /// `completed` or `failed`.
        status: Status,
        /// How it was learned.
        source: Source,
        /// What vouches for it.
        verification: Verification,
        /// The result.
        result_url: Option<String>,
        /// The reason's code.
        error_code: Option<String>,
        /// The reason's text.
        error_text: Option<String>,
    },
    /// The user's systems are told.
    Event {
        /// When it arose.
        at: Time,
        /// Which.
        id: EventId,
        /// Its type.
        r#type: EventKind,
        /// Its number among this generation's events.
        sequence: u32,
        /// For `generation.attention`: why.
        attention: Option<Attention>,
    },
    /// Somebody did something.
    Note {
        /// When.
        at: Time,
        /// Who: the API key's name.
        author: String,
        /// What.
        text: String,
    },
}

impl Entry {
    /// When it happened.
    pub fn at(&self) -> Time {
        match self {
            Self::Submission { at, .. }
            | Self::Delivery { at, .. }
            | Self::Check { at, .. }
            | Self::Outcome { at, .. }
            | Self::Event { at, .. }
            | Self::Note { at, .. } => *at,
        }
    }

    /// Of things at the same time: causes before what follows from them.
    fn rank(&self) -> u8 {
        match self {
            Self::Submission { .. } => 0,
            Self::Note { .. } => 1,
            Self::Delivery { .. } => 2,
            Self::Check { .. } => 3,
            Self::Outcome { .. } => 4,
            Self::Event { .. } => 5,
        }
    }
}

impl Store {
    /// Everything that happened to a generation, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn timeline(&self, generation: &Generation) -> Result<Vec<Entry>, StoreError> {
        let mut entries = vec![self.bought(generation).await?];
        let id = generation.id;
        entries.extend(
            self.entries(
                id,
                "SELECT id, uid, received_at, disposition, reason, body_bytes, replay_of FROM deliveries
                 WHERE generation = (SELECT id FROM generations WHERE uid = ?1) ORDER BY id",
                delivery,
            )
            .await?,
        );
        entries.extend(
            self.entries(
                id,
                "SELECT id, uid, sent_at, answered_at, answer, http_status, said FROM checks
                 WHERE generation = (SELECT id FROM generations WHERE uid = ?1) ORDER BY id",
                |row| checks::record(row).map(check),
            )
            .await?,
        );
        entries.extend(
            self.entries(
                id,
                "SELECT at, version, status, source, verification, signature, result_url, error_code, error_text FROM outcomes
                 WHERE generation = (SELECT id FROM generations WHERE uid = ?1) ORDER BY version",
                outcome,
            )
            .await?,
        );
        entries.extend(only_outcome(generation, &entries));
        entries.extend(
            self.entries(
                id,
                "SELECT id, uid, at, kind, sequence, attention FROM events
                 WHERE generation = (SELECT id FROM generations WHERE uid = ?1) ORDER BY sequence",
                event,
            )
            .await?,
        );
        entries.extend(
            self.entries(
                id,
                "SELECT at, author, text FROM notes
                 WHERE generation = (SELECT id FROM generations WHERE uid = ?1) ORDER BY id",
                note,
            )
            .await?,
        );
        entries.sort_by_key(|entry| (entry.at(), entry.rank()));
        Ok(entries)
    }

    async fn bought(&self, generation: &Generation) -> Result<Entry, StoreError> {
        let submission = self.submission(generation.id).await?;
        let answered_at = submission.as_ref().and_then(|submission| submission.answered_at);
        let reply = submission.and_then(|submission| submission.reply);
        Ok(Entry::Submission {
            answered_at,
            result: reply.as_ref().map(|reply| reply.result),
            http_status: reply.as_ref().and_then(|reply| reply.http_status),
            error_code: reply.as_ref().and_then(|reply| reply.error_code.clone()),
            said: reply.map(|reply| reply.said),
            at: generation.began_at(),
            via: generation.via,
            generation_id: generation.provider_id.as_ref().map(ToString::to_string),
            price: generation.price.map(|price| price.to_string()),
        })
    }

    async fn entries(
        &self,
        id: GenerationId,
        sql: &'static str,
        read: impl Fn(&SqliteRow) -> Result<Entry, StoreError>,
    ) -> Result<Vec<Entry>, StoreError> {
        let rows = sqlx::query(sql).bind(id.as_bytes().as_slice()).fetch_all(&self.readers).await?;
        rows.iter().map(read).collect()
    }
}

fn delivery(row: &SqliteRow) -> Result<Entry, StoreError> {
    let (uid, replay_of): (Vec<u8>, Option<Vec<u8>>) = (row.try_get("uid")?, row.try_get("replay_of")?);
    let impossible = || super::rows::impossible("deliveries", "uid", 0);
    Ok(Entry::Delivery {
        at: Time::from_ms(row.try_get("received_at")?),
        id: DeliveryId::from_bytes(&uid).ok_or_else(impossible)?,
        disposition: Disposition::of_code(row.try_get("disposition")?).ok_or_else(impossible)?,
        reason: row.try_get("reason")?,
        body_bytes: row.try_get("body_bytes")?,
        replay_of: replay_of.as_deref().and_then(DeliveryId::from_bytes),
    })
}

fn check(record: CheckRecord) -> Entry {
    Entry::Check {
        at: record.sent_at,
        id: record.id.to_string(),
        answered_at: record.answered_at,
        answer: record.answer,
        http_status: record.http_status,
        said: record.said,
    }
}

/// The outcome of a generation, unless its versions are written down.
fn only_outcome(generation: &Generation, entries: &[Entry]) -> Option<Entry> {
    let is_current = |entry: &Entry| matches!(entry, Entry::Outcome { version, .. } if *version == generation.outcomes);
    if entries.iter().any(is_current) {
        return None;
    }
    let (learned, error) = (generation.state.learned()?, generation.state.error());
    Some(Entry::Outcome {
        at: generation.state.settled_at()?,
        version: generation.outcomes,
        status: generation.state.status(),
        source: learned.source,
        verification: learned.verification,
        result_url: generation.state.result_url().map(str::to_owned),
        error_code: error.and_then(|error| error.code.clone()),
        error_text: error.and_then(|error| error.text.clone()),
    })
}

fn outcome(row: &SqliteRow) -> Result<Entry, StoreError> {
    let wrong = |column: &str| super::rows::impossible("outcomes", column, 0);
    Ok(Entry::Outcome {
        at: Time::from_ms(row.try_get("at")?),
        version: row.try_get("version")?,
        status: Status::of_code(row.try_get("status")?).ok_or_else(|| wrong("status"))?,
        source: Source::of_code(row.try_get("source")?).ok_or_else(|| wrong("source"))?,
        verification: rows::verification(row.try_get("verification")?, row.try_get("signature")?)
            .ok_or_else(|| wrong("verification"))?,
        result_url: row.try_get("result_url")?,
        error_code: row.try_get("error_code")?,
        error_text: row.try_get("error_text")?,
    })
}

fn event(row: &SqliteRow) -> Result<Entry, StoreError> {
    let uid: Vec<u8> = row.try_get("uid")?;
    let id: i64 = row.try_get("id")?;
    Ok(Entry::Event {
        at: Time::from_ms(row.try_get("at")?),
        id: EventId::from_bytes(&uid).ok_or_else(|| super::rows::impossible("events", "uid", id))?,
        r#type: EventKind::of_code(row.try_get("kind")?)
            .ok_or_else(|| super::rows::impossible("events", "kind", id))?,
        sequence: row.try_get("sequence")?,
        attention: row.try_get::<Option<u8>, _>("attention")?.and_then(Attention::of_code),
    })
}

fn note(row: &SqliteRow) -> Result<Entry, StoreError> {
    Ok(Entry::Note {
        at: Time::from_ms(row.try_get("at")?),
        author: row.try_get("author")?,
        text: row.try_get("text")?,
    })
}
