//! The bodies in which the provider told of a generation, to be passed on as they came.
//!
//! Only what can be believed by itself: which of them agrees with what is on record is `domain/pass_through.rs`.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError};
use crate::domain::delivery_headers::DeliveryHeaders;
use crate::domain::generation::Generation;
use crate::domain::id::GenerationId;
use crate::domain::pass_through::{Channel, ProviderBody};
use crate::domain::schedule::Confirm;
use crate::domain::time::Time;

/// Bodies of each kind looked at: the newest mostly say what is on record, and what came just before them may.
const BODIES_MAX: u32 = 4;
/// Longer ones are not passed on: a list holds a hundred of them.
const BODY_BYTES_MAX: u32 = 64 * 1_024;

impl Store {
    /// What the provider told of a generation, newest first. A webhook that came by a standing URL without a signature is anybody's word:
    /// it is left out unless every webhook is believed.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn provider_bodies(
        &self,
        generation: &Generation,
        confirm: Confirm,
    ) -> Result<Vec<ProviderBody>, StoreError> {
        let mut bodies: Vec<(Time, ProviderBody)> = Vec::new();
        if generation.deliveries > 0 {
            // accepted, duplicate, unknown status; verified. A repeat of an outcome may tell less than the first did; of one that runs it may
            // tell how far it is.
            let sql = "SELECT d.received_at, b.body, b.headers FROM deliveries d INDEXED BY deliveries_generation
                 CROSS JOIN bodies b ON b.delivery = d.id
                 WHERE d.generation = (SELECT id FROM generations WHERE uid = ?1)
                   AND (d.disposition = 1 OR (?5 AND d.disposition IN (2, 6)))
                   AND (d.standing = 0 OR d.signature = 2 OR ?2) AND length(b.body) <= ?3 ORDER BY d.id DESC LIMIT ?4";
            let rows = sqlx::query(sql).bind(generation.id.as_bytes().as_slice()).bind(confirm == Confirm::Never);
            let rows = rows.bind(BODY_BYTES_MAX).bind(BODIES_MAX).bind(generation.state.outcome().is_none());
            let rows = rows.fetch_all(&self.readers).await?;
            bodies = rows.iter().map(webhook).collect::<Result<_, StoreError>>()?;
        }
        if generation.watch.checks > 0 {
            let sql = "SELECT answered_at, body FROM checks INDEXED BY checks_generation
                 WHERE generation = (SELECT id FROM generations WHERE uid = ?1) AND answer = 'known' AND body IS NOT NULL
                 ORDER BY id DESC LIMIT ?2";
            let rows = sqlx::query(sql).bind(generation.id.as_bytes().as_slice()).bind(BODIES_MAX);
            for row in rows.fetch_all(&self.readers).await? {
                let body = ProviderBody { bytes: row.try_get("body")?, channel: Channel::Read };
                bodies.push((Time::from_ms(row.try_get("answered_at")?), body));
            }
        }
        // Of the same moment the webhook comes first: it says more.
        bodies.sort_by_key(|(at, _)| std::cmp::Reverse(at.as_ms()));
        Ok(bodies.into_iter().map(|(_, body)| body).collect())
    }

    /// The provider's answer to a purchase, as it came.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn purchase_answer(&self, id: GenerationId) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT body FROM submissions WHERE generation = (SELECT id FROM generations WHERE uid = ?1)";
        let body: Option<Option<Vec<u8>>> =
            sqlx::query_scalar(sql).bind(id.as_bytes().as_slice()).fetch_optional(&self.readers).await?;
        Ok(body.flatten())
    }
}

fn webhook(row: &SqliteRow) -> Result<(Time, ProviderBody), StoreError> {
    let headers: Option<String> = row.try_get("headers")?;
    let channel = Channel::Webhook(read_headers(headers));
    Ok((Time::from_ms(row.try_get("received_at")?), ProviderBody { bytes: row.try_get("body")?, channel }))
}

/// Headers as they are stored.
pub(super) fn read_headers(json: Option<String>) -> DeliveryHeaders {
    json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
}
