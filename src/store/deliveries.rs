//! Webhooks: one transaction takes the delivery, the decision and its events; lists and single ones are read back.

use std::sync::Arc;

use rusqlite::params;
use sha2::{Digest, Sha256};
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{QueryBuilder, Row};

use super::pages::{self, Page, Paging};
use super::rows::{Stored, impossible};
use super::writer::Tx;
use super::{Store, StoreError};
use crate::domain::callback::Reference;
use crate::domain::decision::{Disposition, Fact};
use crate::domain::family::Family;
use crate::domain::generation::{Generation, Via};
use crate::domain::id::{DeliveryId, GenerationId};
use crate::domain::notice::{Notice, Unreadable};
use crate::domain::schedule::Rules;
use crate::domain::time::Time;

/// One generation keeps this many deliveries; repeats beyond that are only counted, so that nobody who learned one URL can
/// fill the disk with it (reliability.md T4).
const KEPT_MAX: u32 = 100;

/// An authentic webhook as it reached us.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The family of its URL.
    pub family: &'static Family,
    /// What its token names.
    pub reference: Reference,
    /// The raw body.
    pub body: Vec<u8>,
    /// Its SHA-256.
    pub body_sha256: [u8; 32],
    /// What it says.
    pub notice: Result<Notice, Unreadable>,
    /// The delivery it is a replay of.
    pub replay_of: Option<DeliveryId>,
}

impl Arrival {
    /// Understands a body that came by an authentic URL, or that came so once and is run again.
    pub fn of(family: &'static Family, reference: Reference, body: Vec<u8>, replay_of: Option<DeliveryId>) -> Self {
        let (body_sha256, notice) = (Sha256::digest(&body).into(), Notice::parse(&body));
        Self { family, reference, body, body_sha256, notice, replay_of }
    }
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its id; `None` when nothing new was kept of it.
    pub delivery: Option<DeliveryId>,
    /// The generation it is about, where there is one.
    pub generation: Option<GenerationId>,
    /// What became of it.
    pub disposition: Disposition,
}

/// One received webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// The generation it is about.
    pub generation: Option<GenerationId>,
    /// The family of its URL.
    pub family: String,
    /// Whether it came by a standing URL.
    pub standing: bool,
    /// When it came.
    pub received_at: Time,
    /// What became of it.
    pub disposition: Disposition,
    /// Why it could not be read.
    pub reason: Option<String>,
    /// Length of its body in bytes.
    pub body_bytes: u64,
    /// Hash of its body.
    pub body_sha256: Vec<u8>,
    /// The delivery it is a replay of.
    pub replay_of: Option<DeliveryId>,
}

/// A delivery with its raw body; `None` when retention removed that.
#[derive(Clone, Debug)]
pub struct Received {
    /// The delivery.
    pub delivery: Delivery,
    /// The raw body.
    pub body: Option<Vec<u8>>,
}

/// What came of the wish to replay a delivery.
#[derive(Clone, Debug)]
pub enum Replay {
    /// There is no such delivery.
    Unknown,
    /// Its body was removed.
    BodyGone,
    /// It can be run again.
    Ready(Arrival),
}

/// Which deliveries to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Any of these.
    pub dispositions: Vec<Disposition>,
    /// Of this generation.
    pub generation: Option<GenerationId>,
}

const COLUMNS: &str = "d.id, d.uid, g.uid AS generation_uid, d.family, d.standing, d.received_at, d.disposition, d.reason, \
                       d.body_bytes, d.body_sha256, d.replay_of";

impl Store {
    /// Takes a webhook in: delivery, outcome and events in one transaction.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was kept: the provider has to send it again.
    pub async fn record_webhook(
        &self,
        rules: &Arc<Rules>,
        arrival: Arrival,
        now: Time,
    ) -> Result<Recorded, StoreError> {
        let rules = Arc::clone(rules);
        self.writer.run(move |tx| tx.record_webhook(&rules, &arrival, now)).await
    }

    /// One delivery with its body.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<Received>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS}, d.body FROM deliveries d LEFT JOIN generations g ON g.id = d.generation WHERE d.uid = ?1"
        );
        let row =
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.as_bytes().as_slice()).fetch_optional(&self.readers).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Received { delivery: read(&row)?, body: row.try_get("body")? }))
    }

    /// What is needed to run a kept body through the intake again.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn replay(&self, id: DeliveryId) -> Result<Replay, StoreError> {
        let Some(Received { delivery, body }) = self.delivery(id).await? else { return Ok(Replay::Unknown) };
        let Some(body) = body else { return Ok(Replay::BodyGone) };
        let family = Family::of(&delivery.family).ok_or_else(|| impossible("deliveries", "family", 0))?;
        let reference = match delivery.generation {
            Some(generation) if !delivery.standing => Reference::Generation(generation),
            Some(_) | None => Reference::Standing,
        };
        Ok(Replay::Ready(Arrival::of(family, reference, body, Some(id))))
    }

    /// A page of deliveries, newest first unless asked otherwise.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn deliveries(&self, filter: &DeliveryFilter, paging: &Paging) -> Result<Page<Delivery>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(format!(
            "SELECT {COLUMNS} FROM deliveries d LEFT JOIN generations g ON g.id = d.generation WHERE TRUE"
        ));
        pages::any_of(&mut query, "d.disposition", filter.dispositions.iter().map(|word| word.as_str()));
        if let Some(generation) = filter.generation {
            query.push(" AND d.generation = (SELECT id FROM generations WHERE uid = ");
            query.push_bind(generation.as_bytes().to_vec()).push(")");
        }
        pages::finish(&mut query, "d.id", paging);
        let rows = query.build().fetch_all(&self.readers).await?;
        pages::page(&rows, paging, read)
    }
}

impl Tx<'_> {
    fn record_webhook(&mut self, rules: &Rules, arrival: &Arrival, now: Time) -> Result<Recorded, StoreError> {
        let (stored, fact) = self.subject(rules, arrival, now)?;
        let generation = stored.as_ref().map(|stored| stored.generation.id);
        if arrival.notice.is_err() {
            // Kept once per identical body, and asked about once.
            let disposition = Disposition::Unreadable;
            let delivery = self.keep(stored.as_ref().map(|stored| stored.row), arrival, disposition, now)?;
            if let (Some(stored), Some(_)) = (&stored, delivery) {
                self.decide(rules, stored, &fact, now)?;
            }
            return Ok(Recorded { delivery, generation, disposition });
        }
        let Some(stored) = stored else {
            return Err(StoreError::Failed("a readable webhook about nothing".to_owned()));
        };
        let decision = self.decide(rules, &stored, &fact, now)?;
        let disposition = decision.disposition.unwrap_or(Disposition::Accepted);
        let full = stored.generation.deliveries >= KEPT_MAX && disposition == Disposition::Duplicate;
        let delivery = if full { None } else { self.keep(Some(stored.row), arrival, disposition, now)? };
        Ok(Recorded { delivery, generation, disposition })
    }

    /// The generation a webhook is about, and what it means for it. One nobody has told us of is taken on.
    fn subject(&mut self, rules: &Rules, arrival: &Arrival, now: Time) -> Result<(Option<Stored>, Fact), StoreError> {
        let reference = arrival.reference;
        let fact = match &arrival.notice {
            Ok(notice) => Fact::Webhook { reference, notice: notice.clone() },
            Err(_) => Fact::UnreadableWebhook,
        };
        let by_provider_id = match &arrival.notice {
            Ok(notice) => self.by_provider_id(arrival.family, &notice.provider_id)?,
            Err(_) => None,
        };
        let stored = match reference {
            Reference::Standing if arrival.notice.is_err() => return Ok((None, fact)),
            Reference::Standing => match by_provider_id {
                Some(stored) => stored,
                None => self.adopt(rules, GenerationId::fresh(now), arrival.family, now)?,
            },
            Reference::Generation(id) => {
                let stored = match self.by_id(id)? {
                    Some(stored) => stored,
                    // The token is authentic: we minted it, and have lost the row since (an older backup).
                    None => self.adopt(rules, id, arrival.family, now)?,
                };
                match by_provider_id {
                    Some(other) if other.generation.id != id => {
                        // The id belongs to another generation: neither is overwritten, and the provider is asked.
                        self.decide(rules, &other, &Fact::Doubted, now)?;
                        return Ok((Some(stored), Fact::ForeignWebhook));
                    }
                    Some(_) | None => stored,
                }
            }
        };
        Ok((Some(stored), fact))
    }

    /// Takes on a generation that is first heard of in a webhook.
    fn adopt(
        &mut self,
        rules: &Rules,
        id: GenerationId,
        family: &'static Family,
        now: Time,
    ) -> Result<Stored, StoreError> {
        let new = Generation::new(id, family, Via::Webhook, now);
        let decision = rules.decide(&new, &Fact::TimePassed, self.experience, now);
        let row = self.insert(rules, &decision, now)?;
        Ok(Stored { row, generation: decision.generation })
    }

    fn keep(
        &mut self,
        generation: Option<i64>,
        arrival: &Arrival,
        disposition: Disposition,
        now: Time,
    ) -> Result<Option<DeliveryId>, StoreError> {
        let id = DeliveryId::fresh(now);
        let rows = self.execute(
            "INSERT INTO deliveries (uid, generation, family, standing, received_at, disposition, reason, body, body_bytes,
                                     body_sha256, replay_of)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT DO NOTHING",
            params![
                id.as_bytes().as_slice(),
                generation,
                arrival.family.path,
                arrival.reference == Reference::Standing,
                now.as_ms(),
                disposition.as_str(),
                arrival.notice.as_ref().err().map(ToString::to_string),
                arrival.body,
                i64::try_from(arrival.body.len()).unwrap_or(i64::MAX),
                arrival.body_sha256.as_slice(),
                arrival.replay_of.as_ref().map(|id| id.as_bytes().as_slice()),
            ],
        )?;
        Ok((rows == 1).then_some(id))
    }
}

fn read(row: &SqliteRow) -> Result<Delivery, StoreError> {
    let id: i64 = row.try_get("id")?;
    let impossible = |column| impossible("deliveries", column, id);
    let uid: Vec<u8> = row.try_get("uid")?;
    let generation: Option<Vec<u8>> = row.try_get("generation_uid")?;
    let disposition: String = row.try_get("disposition")?;
    let replay_of: Option<Vec<u8>> = row.try_get("replay_of")?;
    let body_bytes: i64 = row.try_get("body_bytes")?;
    Ok(Delivery {
        id: DeliveryId::from_bytes(&uid).ok_or_else(|| impossible("uid"))?,
        generation: generation.as_deref().and_then(GenerationId::from_bytes),
        family: row.try_get("family")?,
        standing: row.try_get("standing")?,
        received_at: Time::from_ms(row.try_get("received_at")?),
        disposition: Disposition::parse(&disposition).ok_or_else(|| impossible("disposition"))?,
        reason: row.try_get("reason")?,
        body_bytes: u64::try_from(body_bytes).map_err(|_| impossible("body_bytes"))?,
        body_sha256: row.try_get("body_sha256")?,
        replay_of: replay_of.as_deref().and_then(DeliveryId::from_bytes),
    })
}
