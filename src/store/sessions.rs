//! Who is logged in on the page. Knows neither cookies nor keys, only what was made of them; `http/page/session.rs` makes it.

use rusqlite::params;

use super::{Store, StoreError};
use crate::domain::time::Time;

/// A session as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Hash of what the browser holds.
    pub token_sha256: [u8; 32],
    /// What ties it to its API key.
    pub key_mac: [u8; 32],
    /// When it ends by itself.
    pub expires_at: Time,
}

impl Store {
    /// Begins a session; those that have ended are forgotten.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn begin_session(&self, session: Session, now: Time) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                tx.execute("DELETE FROM sessions WHERE expires_at <= ?1", params![now.as_ms()])?;
                tx.execute(
                    "INSERT INTO sessions (token_sha256, key_mac, expires_at) VALUES (?1, ?2, ?3)",
                    params![session.token_sha256.as_slice(), session.key_mac.as_slice(), session.expires_at.as_ms()],
                )?;
                Ok(())
            })
            .await
    }

    /// What ties a session to its key; `None` when it has ended or never was.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn session(&self, token_sha256: [u8; 32], now: Time) -> Result<Option<Vec<u8>>, StoreError> {
        let mac = sqlx::query_scalar("SELECT key_mac FROM sessions WHERE token_sha256 = ?1 AND expires_at > ?2");
        Ok(mac.bind(token_sha256.as_slice()).bind(now.as_ms()).fetch_optional(&self.readers).await?)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn end_session(&self, token_sha256: [u8; 32]) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                tx.execute("DELETE FROM sessions WHERE token_sha256 = ?1", params![token_sha256.as_slice()])?;
                Ok(())
            })
            .await
    }
}
