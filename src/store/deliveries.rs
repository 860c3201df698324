//! Webhooks: one transaction takes the delivery, the decision and its events; lists and single ones are read back.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::params;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::pages::{Page, Paging};
use super::provider_bodies::read_headers;
use super::rows::{Stored, impossible};
use super::sql::Sql;
use super::tx::Tx;
use super::walk::{self, Key, NEIGHBOURS_MAX, Walk};
use super::{Store, StoreError};
use crate::domain::callback::Reference;
use crate::domain::decision::{Disposition, Fact};
use crate::domain::delivery_headers::{DeliveryHeaders, Signature};
use crate::domain::experience;
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
    /// What is known of its signature; `None` without one.
    pub signature: Option<Signature>,
    /// The headers that are kept of it.
    pub headers: DeliveryHeaders,
}

impl Arrival {
    /// Understands a body that came by an authentic URL, or that came so once and is run again.
    pub fn of(family: &'static Family, reference: Reference, body: Vec<u8>, replay_of: Option<DeliveryId>) -> Self {
        let (body_sha256, notice) = (Sha256::digest(&body).into(), Notice::parse(&body));
        let (signature, headers) = (None, DeliveryHeaders::default());
        Self { family, reference, body, body_sha256, notice, replay_of, signature, headers }
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
    /// How long it came behind the read that had found the outcome, if it did.
    pub lag: Option<Duration>,
}

/// One received webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// The generation it is about.
    pub generation: Option<GenerationId>,
    /// The family of its URL.
    pub family: &'static Family,
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
    /// What is known of its signature; `None` without one.
    pub signature: Option<Signature>,
}

/// A delivery with its raw body; `None` when retention removed that.
#[derive(Clone, Debug)]
pub struct Received {
    /// The delivery.
    pub delivery: Delivery,
    /// The raw body.
    pub body: Option<Vec<u8>>,
    /// The headers that are kept of it; retention removes them with the body.
    pub headers: DeliveryHeaders,
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

/// What a webhook is about.
enum Subject {
    /// Nothing that it could be told from.
    Nothing,
    /// A generation on record.
    Known(Stored),
    /// One that is first heard of now; not stored yet.
    New(Generation),
}

impl Subject {
    fn id(&self) -> Option<GenerationId> {
        match self {
            Self::Nothing => None,
            Self::Known(stored) => Some(stored.generation.id),
            Self::New(generation) => Some(generation.id),
        }
    }
}

const COLUMNS: &str = "d.id, d.uid, g.uid AS generation_uid, d.family, d.standing, d.received_at, d.disposition, d.reason, \
                       d.body_bytes, d.body_sha256, d.replay_of, d.signature";

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
            "SELECT {COLUMNS}, b.body, b.headers FROM deliveries d LEFT JOIN generations g ON g.id = d.generation
             LEFT JOIN bodies b ON b.delivery = d.id WHERE d.uid = ?1"
        );
        let row =
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.as_bytes().as_slice()).fetch_optional(&self.readers).await?;
        let Some(row) = row else { return Ok(None) };
        let headers = read_headers(row.try_get("headers")?);
        Ok(Some(Received { delivery: read(&row)?, body: row.try_get("body")?, headers }))
    }

    /// What is needed to run a kept body through the intake again.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn replay(&self, id: DeliveryId) -> Result<Replay, StoreError> {
        let Some(Received { delivery, body, headers }) = self.delivery(id).await? else { return Ok(Replay::Unknown) };
        let Some(body) = body else { return Ok(Replay::BodyGone) };
        let reference = match delivery.generation {
            Some(generation) if !delivery.standing => Reference::Generation(generation),
            Some(_) | None => Reference::Standing,
        };
        let arrival = Arrival::of(delivery.family, reference, body, Some(id));
        Ok(Replay::Ready(Arrival { signature: delivery.signature, headers, ..arrival }))
    }

    /// A page of deliveries, newest first unless asked otherwise.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn deliveries(&self, filter: &DeliveryFilter, paging: &Paging) -> Result<Page<Delivery>, StoreError> {
        walk::page(&self.readers, &filter.walks(), COLUMNS, paging, read).await
    }
}

impl DeliveryFilter {
    pub(super) fn walks(&self) -> Vec<Walk> {
        let walk = |from, by: Sql, rest: Sql| Walk {
            from,
            join: GENERATION,
            key: BY_NUMBER,
            by,
            rest,
            rows_max: NEIGHBOURS_MAX,
        };
        let dispositions = || Sql::default().any_of("d.disposition", self.dispositions.iter().map(|word| word.code()));
        if let Some(generation) = self.generation {
            let by = Sql::default().of_generation("d.generation", generation);
            return vec![walk(OF_GENERATION, by, dispositions())];
        }
        if self.dispositions.is_empty() || self.dispositions.contains(&Disposition::Accepted) {
            return vec![walk(ALL, Sql::default(), dispositions())];
        }
        let each = self.dispositions.iter();
        let each = each.map(|word| Sql::new("d.disposition <> 1 AND d.disposition = ").bind(word.code()));
        each.map(|by| walk(OF_DISPOSITION, by, Sql::default())).collect()
    }
}

const BY_NUMBER: Key = Key { time: None, number: "d.id" };
const ALL: &str = "deliveries d NOT INDEXED";
const OF_GENERATION: &str = "deliveries d INDEXED BY deliveries_generation";
const OF_DISPOSITION: &str = "deliveries d INDEXED BY deliveries_disposition";
const GENERATION: &str = "LEFT JOIN generations g ON g.id = d.generation";

impl Tx<'_> {
    fn record_webhook(&mut self, rules: &Rules, arrival: &Arrival, now: Time) -> Result<Recorded, StoreError> {
        let Some((subject, fact)) = self.subject(rules, arrival, now)? else {
            // Settled and told long ago: whatever it says now is a repeat.
            let disposition = if arrival.notice.is_ok() { Disposition::Duplicate } else { Disposition::Unreadable };
            self.sums.tallies.webhook(arrival.family, disposition, None, now);
            return Ok(Recorded { delivery: None, generation: None, disposition, lag: None });
        };
        let generation = subject.id();
        if arrival.notice.is_err() {
            // Kept once per identical body, and asked about once.
            let disposition = Disposition::Unreadable;
            let stored = match subject {
                Subject::Nothing => None,
                Subject::Known(stored) => Some(stored),
                Subject::New(generation) => Some(self.adopt(&generation, rules, now)?),
            };
            let delivery = self.keep(stored.as_ref().map(|stored| stored.row), arrival, disposition, now)?;
            if let (Some(stored), Some(_)) = (&stored, delivery) {
                self.decide(rules, stored, &fact, now)?;
            }
            self.sums.tallies.webhook(arrival.family, disposition, None, now);
            return Ok(Recorded { delivery, generation, disposition, lag: None });
        }
        let (row, before, decision, full) = match subject {
            Subject::Nothing => return Err(StoreError::Failed("a readable webhook about nothing".to_owned())),
            Subject::Known(stored) => {
                let decision = self.decide(rules, &stored, &fact, now)?;
                let full = stored.generation.deliveries >= KEPT_MAX;
                (stored.row, Some(stored.generation), decision, full)
            }
            Subject::New(generation) => {
                let decision = rules.decide(&generation, &fact, self.experience, now);
                self.learn(rules, &generation, &decision, now);
                (self.insert(&decision, now)?, None, decision, false)
            }
        };
        let disposition = decision.disposition.unwrap_or(Disposition::Accepted);
        let lag = before.and_then(|before| experience::lag(&before, &decision.generation));
        self.sums.tallies.webhook(arrival.family, disposition, lag, now);
        let full = full && disposition == Disposition::Duplicate;
        let delivery = if full { None } else { self.keep(Some(row), arrival, disposition, now)? };
        Ok(Recorded { delivery, generation, disposition, lag })
    }

    /// What a webhook is about, and what it means for it; `None` when retention has removed that. A generation nobody has told us of is
    /// taken on.
    fn subject(&mut self, rules: &Rules, arrival: &Arrival, now: Time) -> Result<Option<(Subject, Fact)>, StoreError> {
        let (reference, family) = (arrival.reference, arrival.family);
        let named = match reference {
            Reference::Standing => None,
            Reference::Generation(id) => {
                let stored = self.by_id(id)?;
                if stored.is_none() && self.is_removed(id)? {
                    return Ok(None);
                }
                // An authentic token without a row: we minted it, and have lost the row since (an older backup).
                let new = || Subject::New(self.first_heard_of(rules, id, family, now));
                Some(stored.map_or_else(new, Subject::Known))
            }
        };
        let Ok(notice) = &arrival.notice else {
            return Ok(Some((named.unwrap_or(Subject::Nothing), Fact::UnreadableWebhook)));
        };
        let by_provider_id = self.by_provider_id(family, &notice.provider_id)?;
        let subject = match (named, by_provider_id) {
            (Some(named), Some(other)) if named.id() != Some(other.generation.id) => {
                // The id belongs to another generation: neither is overwritten, and the provider is asked.
                self.decide(rules, &other, &Fact::Doubted, now)?;
                return Ok(Some((named, Fact::ForeignWebhook)));
            }
            (Some(named), _) => named,
            (None, Some(stored)) => Subject::Known(stored),
            (None, None) if self.is_removed_of(family, &notice.provider_id)? => return Ok(None),
            (None, None) => Subject::New(self.first_heard_of(rules, GenerationId::fresh(now), family, now)),
        };
        Ok(Some((
            subject,
            Fact::Webhook { reference, signed: arrival.signature == Some(Signature::Verified), notice: notice.clone() },
        )))
    }

    /// A generation that is first heard of in a webhook; not stored yet.
    fn first_heard_of(&self, rules: &Rules, id: GenerationId, family: &'static Family, now: Time) -> Generation {
        let new = Generation::new(id, family, Via::Webhook, now);
        rules.decide(&new, &Fact::TimePassed, self.experience, now).generation
    }

    /// Stores a generation that is first heard of.
    fn adopt(&mut self, generation: &Generation, rules: &Rules, now: Time) -> Result<Stored, StoreError> {
        let decision = rules.decide(generation, &Fact::TimePassed, self.experience, now);
        let row = self.insert(&decision, now)?;
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
            "INSERT INTO deliveries (uid, generation, family, standing, received_at, disposition, reason, body_bytes, body_sha256,
                                     replay_of, signature)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT DO NOTHING",
            params![
                id.as_bytes().as_slice(),
                generation,
                arrival.family.code(),
                arrival.reference == Reference::Standing,
                now.as_ms(),
                disposition.code(),
                arrival.notice.as_ref().err().map(ToString::to_string),
                i64::try_from(arrival.body.len()).unwrap_or(i64::MAX),
                arrival.body_sha256.as_slice(),
                arrival.replay_of.as_ref().map(|id| id.as_bytes().as_slice()),
                arrival.signature.map(Signature::code),
            ],
        )?;
        if rows == 0 {
            return Ok(None);
        }
        let row = self.last_added();
        let headers = (!arrival.headers.is_empty()).then(|| serde_json::to_string(&arrival.headers).ok()).flatten();
        self.execute(
            "INSERT INTO bodies (delivery, body, headers) VALUES (?1, ?2, ?3)",
            params![row, arrival.body, headers],
        )?;
        Ok(Some(id))
    }
}

fn read(row: &SqliteRow) -> Result<Delivery, StoreError> {
    let id: i64 = row.try_get("id")?;
    let impossible = |column| impossible("deliveries", column, id);
    let uid: Vec<u8> = row.try_get("uid")?;
    let generation: Option<Vec<u8>> = row.try_get("generation_uid")?;
    let (family, disposition) = (row.try_get("family")?, row.try_get("disposition")?);
    let replay_of: Option<Vec<u8>> = row.try_get("replay_of")?;
    let body_bytes: i64 = row.try_get("body_bytes")?;
    Ok(Delivery {
        id: DeliveryId::from_bytes(&uid).ok_or_else(|| impossible("uid"))?,
        generation: generation.as_deref().and_then(GenerationId::from_bytes),
        family: Family::of_code(family).ok_or_else(|| impossible("family"))?,
        standing: row.try_get("standing")?,
        received_at: Time::from_ms(row.try_get("received_at")?),
        disposition: Disposition::of_code(disposition).ok_or_else(|| impossible("disposition"))?,
        reason: row.try_get("reason")?,
        body_bytes: u64::try_from(body_bytes).map_err(|_| impossible("body_bytes"))?,
        body_sha256: row.try_get("body_sha256")?,
        replay_of: replay_of.as_deref().and_then(DeliveryId::from_bytes),
        signature: row.try_get::<Option<u8>, _>("signature")?.and_then(Signature::of_code),
    })
}
