//! A purchase: intent kept, provider asked once, answer decided, settled.
//!
//! The intent is on disk before the first byte is sent, and what was sent is never sent again: what repeats it waits for what becomes of
//! it (`gateway/repeat.rs`). Who calls this lets it run to its end, whether or not the caller is still there (`worker/`).

mod answer;
mod repeat;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::reconcile::LATE_ANSWER;
use crate::clock::Clock;
use crate::domain::callback::{CallbackKeys, Reference, callback_url};
use crate::domain::decision::Submission;
use crate::domain::family::Family;
use crate::domain::generation::Details;
use crate::domain::id::GenerationId;
use crate::domain::purchase::{Order, Reply, SubmitResult};
use crate::domain::schedule::Rules;
use crate::planted;
use crate::provider::{Provider, Purchase, Submitted};
use crate::store::{Begun, Idempotency, Intent, PurchaseRequest, Store, StoreError};
use crate::telemetry::meters;
pub use repeat::HeldRepeats;

/// Pause before an answer that could not be kept is tried again.
const KEEP_PAUSE: Duration = Duration::from_secs(1);
/// A webhook that is faster than the answer to its purchase waits so long for it.
const OWN_ANSWER_GRACE: Duration = Duration::from_secs(1);
/// Of the time a shutdown may take, what is left for keeping the answer.
const SHUTDOWN_RESERVE: Duration = Duration::from_secs(3);

/// Buys.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Where everything is kept.
    pub store: Store,
    /// Who sells.
    pub provider: Arc<dyn Provider>,
    /// How it is judged.
    pub rules: Arc<Rules>,
    /// Signs callback URLs.
    pub keys: CallbackKeys,
    /// Where the provider reaches us; `None` where it does not, and outcomes are read.
    pub public_url: Option<String>,
    /// When it is.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the service stops.
    pub stop: CancellationToken,
    /// How long stopping may take.
    pub shutdown_timeout: Duration,
    /// Places for those who wait for what becomes of a purchase that they repeat.
    pub held: HeldRepeats,
}

/// What a caller wants to buy.
#[derive(Debug)]
pub struct Wanted {
    /// What is bought from.
    pub family: &'static Family,
    /// What the body asks for.
    pub order: Order,
    /// The body as it came.
    pub body: Bytes,
    /// Its SHA-256.
    pub body_sha256: [u8; 32],
    /// Its `Content-Type`.
    pub content_type: Option<String>,
    /// The caller's labels.
    pub metadata: Option<std::collections::BTreeMap<String, String>>,
    /// The caller named a trace: the provider is told of it, too.
    pub pass_trace: bool,
    /// Who buys and where: API key and route.
    pub scope: String,
    /// The caller's idempotency key.
    pub idempotency_key: Option<String>,
    /// The caller's `X-Request-ID`.
    pub request_id: Option<String>,
    /// How long a repeat waits for what becomes of the first.
    pub patience: Duration,
    /// The place in memory that the body takes, where it is counted; given back with the body.
    pub room: Option<OwnedSemaphorePermit>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bought {
    /// Our id.
    pub generation: GenerationId,
    /// What to answer.
    pub reply: Reply,
    /// It is the answer that was recorded for an earlier request with the same key.
    pub replayed: bool,
    /// This request was not sent on: it repeats the one that made the generation.
    pub is_repeat: bool,
    /// It is on disk. When it is not, keeping it is still tried.
    pub recorded: bool,
}

/// Why nothing was bought.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PurchaseError {
    /// The intent could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no secret to sign the callback URL with.
    #[error("there is no secret to sign callback URLs with")]
    NoSecret,
    /// The same key is under way.
    #[error("the first request with this key is under way")]
    UnderWay(GenerationId),
    /// The same key came with another body.
    #[error("this key was used with another body")]
    OtherBody(GenerationId),
}

impl Gateway {
    /// Buys, and tells `caller`. Keeps what came of it even when nobody listens any more.
    pub async fn purchase(self, wanted: Wanted, caller: oneshot::Sender<Result<Bought, PurchaseError>>) {
        let now = self.clock.now();
        let id = GenerationId::fresh(now);
        let Ok(callback_url) = self.callback_url(wanted.family, id) else {
            drop(caller.send(Err(PurchaseError::NoSecret)));
            return;
        };
        let intent = intent(id, &wanted);
        if planted::is(planted::Fault::IntentAfterwards) {
            let pieces = wanted.order.pieces(callback_url.as_deref());
            let (family, body, content_type) = (wanted.family, wanted.body.clone(), wanted.content_type.clone());
            let purchase = Purchase { generation: id, family, body, pieces, content_type, pass_trace: false };
            self.provider.submit(&purchase).await;
        }
        let intending = tracing::info_span!("purchase.intent", generation = %id, family = wanted.family.path);
        match self.store.begin_purchase(&self.rules, intent, now).instrument(intending).await {
            Ok(Begun::New) => {}
            Ok(Begun::KeyUsed(used)) => return self.answer_used_key(used, wanted, caller).await,
            Ok(Begun::Repeats(first)) => return self.answer_repeat(first, false, wanted, caller).await,
            Err(error) => return drop(caller.send(Err(error.into()))),
        }
        let Wanted { family, order, body, content_type, pass_trace, room, .. } = wanted;
        let pieces = order.pieces(callback_url.as_deref());
        let purchase = Purchase { generation: id, family, body, pieces, content_type, pass_trace };
        let submitting =
            tracing::info_span!("purchase.submit", otel.kind = "client", generation = %id, family = family.path);
        let (submitted, caller) = self.submit(purchase, caller).instrument(submitting).await;
        drop(room);
        let (submission, reply) = answer::understand(submitted);
        meters::purchase(family, reply.result);
        tracing::info!(%id, family = family.path, result = reply.result.as_str(), http_status = reply.http_status,
            error_code = reply.error_code, said = reply.said, "purchase");
        self.keep(id, submission, reply, caller).await;
    }

    /// Sends it. The caller is given back unless it has left, or was answered because a webhook or a list told meanwhile what became of
    /// the purchase.
    async fn submit(
        &self,
        purchase: Purchase,
        caller: oneshot::Sender<Result<Bought, PurchaseError>>,
    ) -> (Submitted, Option<oneshot::Sender<Result<Bought, PurchaseError>>>) {
        let id = purchase.generation;
        let mut caller = Some(caller);
        let mut sending = std::pin::pin!(self.send(&purchase));
        let known = async {
            let bought = self.wait_until_known(id).await;
            // The provider's own answer tells more, and is mostly on its way by then.
            self.clock.sleep(OWN_ANSWER_GRACE).await;
            bought
        };
        let mut known = std::pin::pin!(known);
        let mut late = self.clock.sleep(LATE_ANSWER);
        let mut is_late = false;
        loop {
            tokio::select! {
                biased;
                submitted = &mut sending => return (submitted, caller),
                bought = &mut known, if caller.is_some() => {
                    if let Some(caller) = caller.take() {
                        self.tell(caller, bought).await;
                    }
                }
                () = &mut late, if !is_late => {
                    // From now on it is looked for.
                    is_late = true;
                    self.store.wake(id);
                }
                () = has_left(caller.as_mut()), if caller.is_some() => {
                    caller = None;
                    self.note_caller_left(id).await;
                }
            }
        }
    }

    /// Whoever sends the same again repeats it.
    async fn note_caller_left(&self, id: GenerationId) {
        if let Err(error) = self.store.note_caller_left(id, self.clock.now()).await {
            tracing::warn!(%id, %error, "a caller that left was not written down");
        }
    }

    /// What the provider is to call about it: nothing where it does not reach us.
    fn callback_url(&self, family: &Family, id: GenerationId) -> Result<Option<String>, PurchaseError> {
        let Some(public_url) = &self.public_url else { return Ok(None) };
        let token = self.keys.mint(family, Reference::Generation(id)).ok_or(PurchaseError::NoSecret)?;
        Ok(Some(callback_url(public_url, family, &token)))
    }

    /// Sends it; when the service stops meanwhile, waits as long as that allows.
    async fn send(&self, purchase: &Purchase) -> Submitted {
        let patience = self.shutdown_timeout.saturating_sub(SHUTDOWN_RESERVE);
        let given_up = async {
            self.stop.cancelled().await;
            self.clock.sleep(patience).await;
        };
        let sending = async {
            let submitted = self.provider.submit(purchase).await;
            if planted::is(planted::Fault::BoughtTwice) && matches!(submitted, Submitted::NoAnswer(_)) {
                return self.provider.submit(purchase).await;
            }
            submitted
        };
        tokio::select! {
            submitted = sending => submitted,
            () = given_up => Submitted::NoAnswer("the service stopped before the answer came".to_owned()),
        }
    }

    /// Keeps the answer. The caller hears of it once it is on disk, or is told that it is not yet.
    async fn keep(
        &self,
        id: GenerationId,
        submission: Submission,
        reply: Reply,
        mut caller: Option<oneshot::Sender<Result<Bought, PurchaseError>>>,
    ) {
        loop {
            let now = self.clock.now();
            let kept = self.store.finish_purchase(&self.rules, id, submission.clone(), reply.clone(), now);
            let settling = tracing::info_span!("purchase.settle", generation = %id, result = reply.result.as_str());
            let kept = kept.instrument(settling).await;
            if let Some(caller) = caller.take() {
                let is_known = kept.as_ref().is_ok_and(|decision| decision.generation.provider_id.is_some());
                let recorded = kept.is_ok();
                match reply.result {
                    // A webhook told what became of it before the answer was lost.
                    SubmitResult::Unclear if is_known => self.tell_standing(id, caller).await,
                    SubmitResult::Accepted | SubmitResult::Refused | SubmitResult::NotSent | SubmitResult::Unclear => {
                        let reply = reply.clone();
                        let bought = Bought { generation: id, reply, replayed: false, is_repeat: false, recorded };
                        if caller.send(Ok(bought)).is_err() {
                            self.note_caller_left(id).await;
                        }
                    }
                }
            }
            let Err(error) = kept else { return };
            tracing::error!(%id, %error, "what came of a purchase is not kept yet");
            if self.stop.is_cancelled() || matches!(error, StoreError::Broken(_)) {
                return;
            }
            self.clock.sleep(KEEP_PAUSE).await;
        }
    }
}

/// Ends when the caller has left.
async fn has_left(caller: Option<&mut oneshot::Sender<Result<Bought, PurchaseError>>>) {
    match caller {
        Some(caller) => caller.closed().await,
        None => std::future::pending().await,
    }
}

fn intent(id: GenerationId, wanted: &Wanted) -> Intent {
    let body_sha256 = wanted.body_sha256;
    let scope = wanted.scope.clone();
    let key = wanted.idempotency_key.clone().filter(|_| !planted::is(planted::Fault::KeyIgnored));
    Intent {
        id,
        family: wanted.family,
        details: Details {
            request: wanted.order.request.clone(),
            metadata: wanted.metadata.clone(),
            ..Details::default()
        },
        options: wanted.order.options.clone(),
        callback_url: wanted.order.callback_url.clone(),
        request_bytes: u64::try_from(wanted.body.len()).unwrap_or(u64::MAX),
        request: PurchaseRequest { scope: scope.clone(), body_sha256, request_id: wanted.request_id.clone() },
        idempotency: key.map(|key| Idempotency { scope, key, body_sha256 }),
    }
}
