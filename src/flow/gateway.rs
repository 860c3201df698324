//! A purchase: intent kept, provider asked once, answer decided, settled.
//!
//! The intent is on disk before the first byte is sent, and what was sent is never sent again. Who calls this lets it run to
//! its end, whether or not the caller is still there (`worker/`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::clock::Clock;
use crate::domain::callback::{CallbackKeys, Reference, callback_url};
use crate::domain::decision::Submission;
use crate::domain::error_code::PROVIDER_UNREACHABLE;
use crate::domain::family::Family;
use crate::domain::generation::Details;
use crate::domain::id::GenerationId;
use crate::domain::outcome::Failure;
use crate::domain::purchase::{self, Order, Reply, SubmitResult};
use crate::domain::refusal::refusal;
use crate::domain::schedule::Rules;
use crate::planted;
use crate::provider::{HttpAnswer, Provider, Purchase, Submitted};
use crate::store::{Begun, Idempotency, Intent, Repeated, Store, StoreError};
use crate::telemetry::meters;

/// Pause before an answer that could not be kept is tried again.
const KEEP_PAUSE: Duration = Duration::from_secs(1);
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
}

/// What a caller wants to buy.
#[derive(Clone, Debug)]
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
    /// The caller's idempotency key: API key and route, and the key.
    pub idempotency: Option<(String, String)>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bought {
    /// Our id.
    pub generation: GenerationId,
    /// What to answer.
    pub reply: Reply,
    /// It is the answer to an earlier request with the same key.
    pub replayed: bool,
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
            self.submit(Purchase { family, body, pieces, content_type, pass_trace: false }).await;
        }
        let intending = tracing::info_span!("purchase.intent", generation = %id, family = wanted.family.path);
        match self.store.begin_purchase(&self.rules, intent, now).instrument(intending).await {
            Ok(Begun::New) => {}
            Ok(Begun::Repeated(repeated)) => return drop(caller.send(repeat(repeated))),
            Err(error) => return drop(caller.send(Err(error.into()))),
        }
        let Wanted { family, order, body, content_type, pass_trace, .. } = wanted;
        let pieces = order.pieces(callback_url.as_deref());
        let purchase = Purchase { family, body, pieces, content_type, pass_trace };
        let submitting =
            tracing::info_span!("purchase.submit", otel.kind = "client", generation = %id, family = family.path);
        let mut submitted = self.submit(purchase.clone()).instrument(submitting).await;
        if planted::is(planted::Fault::BoughtTwice) && matches!(submitted, Submitted::NoAnswer(_)) {
            submitted = self.submit(purchase).await;
        }
        let (submission, reply) = understand(submitted);
        meters::purchase(family, reply.result);
        tracing::info!(%id, family = family.path, result = reply.result.as_str(), http_status = reply.http_status,
            error_code = reply.error_code, said = reply.said, "purchase");
        self.keep(id, submission, reply, caller).await;
    }

    /// What the provider is to call about it: nothing where it does not reach us.
    fn callback_url(&self, family: &Family, id: GenerationId) -> Result<Option<String>, PurchaseError> {
        let Some(public_url) = &self.public_url else { return Ok(None) };
        let token = self.keys.mint(family, Reference::Generation(id)).ok_or(PurchaseError::NoSecret)?;
        Ok(Some(callback_url(public_url, family, &token)))
    }

    /// Sends it; when the service stops meanwhile, waits as long as that allows.
    async fn submit(&self, purchase: Purchase) -> Submitted {
        let patience = self.shutdown_timeout.saturating_sub(SHUTDOWN_RESERVE);
        let given_up = async {
            self.stop.cancelled().await;
            self.clock.sleep(patience).await;
        };
        tokio::select! {
            submitted = self.provider.submit(&purchase) => submitted,
            () = given_up => Submitted::NoAnswer("the service stopped before the answer came".to_owned()),
        }
    }

    /// Keeps the answer. The caller hears of it once it is on disk, or is told that it is not yet.
    async fn keep(
        &self,
        id: GenerationId,
        submission: Submission,
        reply: Reply,
        caller: oneshot::Sender<Result<Bought, PurchaseError>>,
    ) {
        let mut caller = Some(caller);
        loop {
            let now = self.clock.now();
            let kept = self.store.finish_purchase(&self.rules, id, submission.clone(), reply.clone(), now);
            let settling = tracing::info_span!("purchase.settle", generation = %id, result = reply.result.as_str());
            let kept = kept.instrument(settling).await;
            if let Some(caller) = caller.take() {
                let bought = Bought { generation: id, reply: reply.clone(), replayed: false, recorded: kept.is_ok() };
                // Who asked may have gone.
                drop(caller.send(Ok(bought)));
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

fn intent(id: GenerationId, wanted: &Wanted) -> Intent {
    let request_sha256 = wanted.body_sha256;
    let idempotency = wanted.idempotency.clone();
    Intent {
        id,
        family: wanted.family,
        details: Details {
            request: wanted.order.request.clone(),
            metadata: wanted.metadata.clone(),
            ..Details::default()
        },
        callback_url: wanted.order.callback_url.clone(),
        request_bytes: u64::try_from(wanted.body.len()).unwrap_or(u64::MAX),
        request_sha256,
        idempotency: idempotency.filter(|_| !planted::is(planted::Fault::KeyIgnored)).map(|(scope, key)| Idempotency {
            scope,
            key,
            body_sha256: request_sha256,
        }),
    }
}

fn repeat(repeated: Repeated<Reply>) -> Result<Bought, PurchaseError> {
    match repeated {
        Repeated::UnderWay(generation) => Err(PurchaseError::UnderWay(generation)),
        Repeated::OtherBody(generation) => Err(PurchaseError::OtherBody(generation)),
        Repeated::Answered(generation, reply) => Ok(Bought { generation, reply, replayed: true, recorded: true }),
    }
}

/// What an answer means for the money (contract section 6): refused only when it is certain that nothing was bought.
fn understand(submitted: Submitted) -> (Submission, Reply) {
    match submitted {
        Submitted::NotSent(said) => {
            let code = Some(PROVIDER_UNREACHABLE.to_owned());
            let error = Failure { code: code.clone(), text: Some(said.clone()) };
            (Submission::Refused(error), Reply { error_code: code, ..reply(SubmitResult::NotSent, said) })
        }
        Submitted::BrokenOff { status, said } if is_refusal(status) => {
            let answer = HttpAnswer { status, content_type: None, retry_after: None, body: Vec::new() };
            refused(answer, said)
        }
        Submitted::NoAnswer(said) | Submitted::BrokenOff { said, .. } => {
            (Submission::Unclear, reply(SubmitResult::Unclear, said))
        }
        Submitted::Answered(answer) => answered(answer),
    }
}

fn answered(answer: HttpAnswer) -> (Submission, Reply) {
    match answer.status {
        200..=299 => match purchase::accepted(&answer.body) {
            Some((provider_id, price)) => {
                let accepted = reply(SubmitResult::Accepted, "sold".to_owned());
                (Submission::Accepted { provider_id, price }, of(answer, accepted))
            }
            None if planted::is(planted::Fault::GarbageIsRefused) => refused(answer, "refused".to_owned()),
            // The answer is kept, but it says nothing to the caller.
            None => unclear("the answer has no generation id", answer.body),
        },
        status if is_refusal(status) => refused(answer, "refused".to_owned()),
        500..=599 => {
            let error_code = refusal(answer.status, &answer.body).code;
            let unclear = Reply { error_code, ..reply(SubmitResult::Unclear, "an error of the provider".to_owned()) };
            (Submission::Unclear, of(answer, unclear))
        }
        408 => unclear("the provider gave up waiting", answer.body),
        300..=399 => unclear("a redirect, which is not followed", answer.body),
        _ => unclear("an answer that means nothing", answer.body),
    }
}

/// 4xx but 408: the provider says that it did not sell.
fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && status != 408
}

fn refused(answer: HttpAnswer, said: String) -> (Submission, Reply) {
    let error = refusal(answer.status, &answer.body);
    let refused = Reply { error_code: error.code.clone(), ..reply(SubmitResult::Refused, said) };
    (Submission::Refused(error), of(answer, refused))
}

fn unclear(said: &str, body: Vec<u8>) -> (Submission, Reply) {
    (Submission::Unclear, Reply { body, ..reply(SubmitResult::Unclear, said.to_owned()) })
}

fn reply(result: SubmitResult, said: String) -> Reply {
    Reply { result, http_status: None, content_type: None, retry_after: None, error_code: None, said, body: Vec::new() }
}

/// A reply that passes the provider's answer on.
fn of(answer: HttpAnswer, reply: Reply) -> Reply {
    let HttpAnswer { status, content_type, retry_after, body } = answer;
    Reply { http_status: Some(status), content_type, retry_after, body, ..reply }
}
