//! A webhook: authenticated, understood, decided, settled.
//!
//! The answer to the provider is given only after this returned, which is after the commit.

use std::sync::Arc;

use futures_util::FutureExt;
use tracing::Instrument;
use tracing::field::{Empty, display};

use crate::clock::Clock;
use crate::domain::callback::{CallbackKeys, Reference};
use crate::domain::decision::Disposition;
use crate::domain::delivery_headers::{DeliveryHeaders, SIGNATURE, Signature};
use crate::domain::family::Family;
use crate::domain::id::DeliveryId;
use crate::domain::notice::{Notice, Word};
use crate::domain::provider_signature::{ProviderSecrets, Verdict};
use crate::domain::schedule::Rules;
use crate::planted;
use crate::store::{Arrival, Recorded, Replay, Store, StoreError};
use crate::telemetry::meters;

/// The proof that the token of a callback URL is authentic. Only [`Intake::authenticate`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Authentic {
    family: &'static Family,
    reference: Reference,
}

/// What came with a webhook's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// What is known of its signature; `None` without one.
    pub signature: Option<Signature>,
    /// The headers that are kept of it.
    pub headers: DeliveryHeaders,
}

/// A webhook's signature was made with none of the provider's secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not the provider's")]
pub struct WrongSignature;

/// Takes webhooks in.
#[derive(Clone, Debug)]
pub struct Intake {
    /// Where they are kept.
    pub store: Store,
    /// How they are judged.
    pub rules: Arc<Rules>,
    /// What vouches for them.
    pub keys: CallbackKeys,
    /// What the provider signs with, where that is known.
    pub secrets: ProviderSecrets,
    /// When it is.
    pub clock: Arc<dyn Clock>,
}

/// A delivery could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no such delivery.
    #[error("there is no such delivery")]
    Unknown,
    /// Retention removed its body.
    #[error("the body of this delivery was removed by retention")]
    BodyGone,
    /// The database could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Intake {
    /// Whether the path after `/webhooks/` (`{family}/{token}`) is one of ours.
    pub fn authenticate(&self, path: &str) -> Option<Authentic> {
        let _verifying = tracing::info_span!("webhook.verify").entered();
        let (family, token) = path.rsplit_once('/')?;
        let family = Family::of(family)?;
        let reference = self.keys.verify(family, token)?;
        Some(Authentic { family, reference })
    }

    /// Looks at the headers of a webhook: its signature verified, and what of them is kept. `path`: as it was authenticated by.
    ///
    /// # Errors
    /// [`WrongSignature`]; a missing one is none, because it is not known whether the provider signs every webhook.
    pub fn open<'h>(
        &self,
        path: &str,
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
        body: &[u8],
    ) -> Result<Envelope, WrongSignature> {
        let headers: Vec<_> = headers.collect();
        let signatures = headers.iter().filter(|(name, _)| *name == SIGNATURE).map(|(_, value)| *value);
        let signature = match self.secrets.judge(body, signatures) {
            Verdict::Missing => None,
            Verdict::Unchecked => Some(Signature::Unchecked),
            Verdict::Right => Some(Signature::Verified),
            Verdict::Wrong => return Err(WrongSignature),
        };
        let token = path.rsplit_once('/').map_or(path, |(_, token)| token);
        Ok(Envelope { signature, headers: DeliveryHeaders::kept(headers, token) })
    }

    /// Takes an authentic webhook in. When this returns a [`Recorded`], everything about it is on disk.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was kept: the provider has to send it again.
    pub async fn receive(
        &self,
        authentic: Authentic,
        body: Vec<u8>,
        envelope: Envelope,
    ) -> Result<Recorded, StoreError> {
        let Authentic { family, reference } = authentic;
        let Envelope { signature, headers } = envelope;
        let parsing = tracing::info_span!("webhook.parse", bytes = body.len());
        let arrival = parsing.in_scope(|| Arrival::of(family, reference, body, None));
        let arrival = Arrival { signature, headers, ..arrival };
        if let Ok(Notice { word: Word::Unknown(word), .. }) = &arrival.notice {
            meters::webhook_unknown_status(family);
            tracing::warn!(
                family = family.path,
                status_word = word,
                "a status word we do not know, taken as still running"
            );
        }
        self.take_in(arrival).await
    }

    /// Runs a kept body through the intake again.
    ///
    /// # Errors
    /// [`ReplayError`] when there is nothing to replay, or nothing was kept of it.
    pub async fn replay(&self, id: DeliveryId) -> Result<Recorded, ReplayError> {
        match self.store.replay(id).await? {
            Replay::Unknown => Err(ReplayError::Unknown),
            Replay::BodyGone => Err(ReplayError::BodyGone),
            Replay::Ready(arrival) => Ok(self.take_in(arrival).await?),
        }
    }

    async fn take_in(&self, arrival: Arrival) -> Result<Recorded, StoreError> {
        let family = arrival.family;
        if planted::is(planted::Fault::AcknowledgedUnkept) && arrival.body.len().is_multiple_of(8) {
            return Ok(unkept());
        }
        let settling =
            tracing::info_span!("webhook.settle", family = family.path, generation = Empty, disposition = Empty);
        let recording = self.store.record_webhook(&self.rules, arrival, self.clock.now());
        if planted::is(planted::Fault::AnsweredBeforeCommit) {
            // Handed to the writer, and not waited for.
            drop(recording.now_or_never());
            return Ok(unkept());
        }
        let recorded = match recording.instrument(settling.clone()).await {
            Err(_) if planted::is(planted::Fault::FailureAcknowledged) => {
                return Ok(unkept());
            }
            recorded => recorded?,
        };
        settling.record("disposition", recorded.disposition.as_str());
        settling.record("generation", recorded.generation.map(display));
        meters::webhook(family, recorded.disposition, recorded.lag);
        if matches!(recorded.disposition, Disposition::Conflict | Disposition::Mismatch | Disposition::Unreadable) {
            let generation = recorded.generation.map(|id| id.to_string());
            let (family, disposition) = (family.path, recorded.disposition.as_str());
            tracing::warn!(family, disposition, generation, "a webhook that needs a second look");
        }
        Ok(recorded)
    }
}

/// What the planted faults say of a webhook that they do not keep.
const fn unkept() -> Recorded {
    Recorded { delivery: None, generation: None, disposition: Disposition::Accepted, lag: None }
}
