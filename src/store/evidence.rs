//! Everything on record about one generation, as evidence.

use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::provider_bodies::read_headers;
use super::rows::impossible;
use super::{Store, StoreError};
use crate::domain::credits::CreditState;
use crate::domain::decision::Disposition;
use crate::domain::delivery_headers::Signature;
use crate::domain::equal_purchases::EqualPurchases;
use crate::domain::evidence::{Checked, Delivered, Evidence, Message, Subject, Submitted};
use crate::domain::generation::Generation;
use crate::domain::id::{CheckId, DeliveryId, GenerationId};
use crate::domain::time::Time;

/// Messages of each kind at most: the oldest, which tell what happened first.
const MESSAGES_MAX: u32 = 500;
const MADE_BY: &str = concat!("recoup ", env!("CARGO_PKG_VERSION"));

impl Store {
    /// The evidence about a generation. `summary`: what there is to say in a sentence.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn evidence(
        &self,
        generation: &Generation,
        summary: String,
        now: Time,
        refund_window: Duration,
    ) -> Result<Evidence, StoreError> {
        let id = generation.id;
        let purchase = self.submission(id).await?.map(|record| {
            let reply = record.reply;
            Submitted {
                sent_at: record.sent_at,
                answered_at: record.answered_at,
                request_bytes: record.request_bytes,
                request_sha256: hex::encode(record.request_sha256),
                result: reply.as_ref().map(|reply| reply.result),
                http_status: reply.as_ref().and_then(|reply| reply.http_status),
                said: reply.as_ref().map(|reply| reply.said.clone()),
                answer: reply.map(|reply| Message::whole(reply.body)),
            }
        });
        let deliveries =
            "SELECT d.uid, d.received_at, d.disposition, d.reason, d.signature, b.body, b.headers, d.body_bytes,
                    d.body_sha256 FROM deliveries d LEFT JOIN bodies b ON b.delivery = d.id
             WHERE d.generation = (SELECT id FROM generations WHERE uid = ?1) ORDER BY d.id LIMIT ?2";
        let checks = "SELECT uid, sent_at, answered_at, http_status, said, body FROM checks
             WHERE generation = (SELECT id FROM generations WHERE uid = ?1) ORDER BY id LIMIT ?2";
        let equal = self.equal_generations(generation).await?;
        let equal_purchases = EqualPurchases::of(generation, &equal, now, refund_window).purchases();
        Ok(Evidence {
            equal_purchases,
            made_at: now,
            made_by: MADE_BY,
            summary,
            generation: Subject::of(generation, CreditState::of(generation, now, refund_window)),
            purchase,
            deliveries: self.messages(id, deliveries, delivered).await?,
            checks: self.messages(id, checks, checked).await?,
        })
    }

    async fn messages<T>(
        &self,
        id: GenerationId,
        sql: &'static str,
        read: fn(&SqliteRow) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = sqlx::query(sql).bind(id.as_bytes().as_slice()).bind(MESSAGES_MAX).fetch_all(&self.readers).await?;
        rows.iter().map(read).collect()
    }
}

fn delivered(row: &SqliteRow) -> Result<Delivered, StoreError> {
    let uid: Vec<u8> = row.try_get("uid")?;
    let bytes: i64 = row.try_get("body_bytes")?;
    let sha256: Vec<u8> = row.try_get("body_sha256")?;
    let disposition = Disposition::of_code(row.try_get("disposition")?);
    Ok(Delivered {
        id: DeliveryId::from_bytes(&uid).ok_or_else(|| impossible("deliveries", "uid", 0))?,
        received_at: Time::from_ms(row.try_get("received_at")?),
        disposition: disposition.ok_or_else(|| impossible("deliveries", "disposition", 0))?.as_str().to_owned(),
        reason: row.try_get("reason")?,
        signature: row.try_get::<Option<u8>, _>("signature")?.and_then(Signature::of_code),
        headers: read_headers(row.try_get("headers")?).without_proxies(),
        message: Message::hashed(u64::try_from(bytes).unwrap_or(0), &sha256, row.try_get("body")?),
    })
}

fn checked(row: &SqliteRow) -> Result<Checked, StoreError> {
    let uid: Vec<u8> = row.try_get("uid")?;
    Ok(Checked {
        id: CheckId::from_bytes(&uid).ok_or_else(|| impossible("checks", "uid", 0))?,
        sent_at: Time::from_ms(row.try_get("sent_at")?),
        answered_at: row.try_get::<Option<i64>, _>("answered_at")?.map(Time::from_ms),
        http_status: row.try_get("http_status")?,
        said: row.try_get("said")?,
        answer: row.try_get::<Option<Vec<u8>>, _>("body")?.map(Message::whole),
    })
}
