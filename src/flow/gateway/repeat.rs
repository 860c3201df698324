//! A purchase that repeats an earlier one: never sent, answered with what becomes of the first.
//!
//! A client whose answer was lost sends the same again. Here it waits, as long as it has patience, and hears what a webhook, a list or
//! a read told of the purchase that it has made already.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Bought, Gateway, PurchaseError, Wanted};
use crate::domain::id::GenerationId;
use crate::domain::purchase::{Reply, SubmitResult};
use crate::domain::shape;
use crate::planted;
use crate::store::{PurchaseStanding, Repeated, StoreError};
use crate::telemetry::meters;

/// Repeats that wait at the same time, half of the connections there are; those beyond are answered at once.
const HELD_MAX: usize = 512;
/// When a repeat that has waited in vain is to come again, in seconds: the provider's own client heeds no more than that.
const COME_AGAIN_S: &str = "30";

/// Places for those who wait for what becomes of a purchase that they repeat.
#[derive(Clone, Debug)]
pub struct HeldRepeats(Arc<Semaphore>);

impl Default for HeldRepeats {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(HELD_MAX)))
    }
}

impl HeldRepeats {
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

type Caller = oneshot::Sender<Result<Bought, PurchaseError>>;

impl Gateway {
    /// Answers a request whose idempotency key was used before.
    pub(super) async fn answer_used_key(&self, used: Repeated<Reply>, wanted: Wanted, caller: Caller) {
        let answer = match used {
            Repeated::UnderWay(generation) => Err(PurchaseError::UnderWay(generation)),
            Repeated::OtherBody(generation) => Err(PurchaseError::OtherBody(generation)),
            Repeated::Answered(generation, reply) if reply.result == SubmitResult::Unclear => {
                return self.answer_repeat(generation, true, wanted, caller).await;
            }
            Repeated::Answered(generation, reply) => {
                let bought = Bought { generation, reply, replayed: true, is_repeat: true, recorded: true };
                return self.tell(caller, bought).await;
            }
        };
        drop(caller.send(answer));
    }

    /// Answers a request that repeats a purchase: with what became of it as soon as that is known, else that it is not.
    pub(super) async fn answer_repeat(&self, first: GenerationId, by_key: bool, wanted: Wanted, mut caller: Caller) {
        let Wanted { family, patience, body, room, .. } = wanted;
        // It waits long, and nothing is sent: what waits behind it needs the memory.
        drop((body, room));
        meters::purchase_repeat(family);
        tracing::info!(id = %first, "a purchase is repeated and not sent");
        let place = self.held.place();
        let patience = if place.is_some() { patience } else { Duration::ZERO };
        let heard = tokio::select! {
            known = self.wait_for_first(first, patience) => known,
            // Who has left comes again, or never; neither is told anything now.
            () = caller.closed() => return,
        };
        match heard {
            Ok((standing, Some(reply))) => {
                let replayed = by_key && standing.reply.is_some_and(|kept| kept == reply);
                self.tell(caller, Bought { generation: first, reply, replayed, is_repeat: true, recorded: true }).await;
            }
            Ok((standing, None)) => {
                let kept = standing.reply.filter(|_| by_key);
                let replayed = kept.is_some();
                let reply = Reply { retry_after: Some(COME_AGAIN_S.to_owned()), ..kept.unwrap_or_else(lost_again) };
                drop(caller.send(Ok(Bought { generation: first, reply, replayed, is_repeat: true, recorded: true })));
            }
            Err(error) => drop(caller.send(Err(error.into()))),
        }
        drop(place);
    }

    /// Waits for what becomes of a purchase, at most for so long.
    async fn wait_for_first(
        &self,
        first: GenerationId,
        patience: Duration,
    ) -> Result<(PurchaseStanding, Option<Reply>), StoreError> {
        let over = self.clock.sleep(patience);
        tokio::pin!(over);
        let mut is_over = patience.is_zero() || planted::is(planted::Fault::RepeatNotHeld);
        let watched = self.store.watch(first);
        loop {
            // Registered before looking, so that nothing is missed in between.
            let changed = watched.changed();
            let standing = self.standing(first).await?;
            let reply = known_reply(&standing);
            if reply.is_some() || is_over {
                return Ok((standing, reply));
            }
            tokio::select! {
                () = changed => {}
                // One more look: what is known by now is told.
                () = &mut over => is_over = true,
                () = self.stop.cancelled() => is_over = true,
            }
        }
    }

    /// Waits until a webhook, a list or a read has told what became of a purchase that is under way.
    pub(super) async fn wait_until_known(&self, id: GenerationId) -> Bought {
        let watched = self.store.watch(id);
        let mut changed = watched.changed();
        loop {
            changed.await;
            // Registered before looking, so that nothing is missed in between.
            changed = watched.changed();
            match self.standing(id).await.map(|standing| known_reply(&standing)) {
                Ok(Some(reply)) => {
                    return Bought { generation: id, reply, replayed: false, is_repeat: false, recorded: true };
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%id, %error, "could not look what became of a purchase"),
            }
        }
    }

    /// Tells the caller of a purchase whose own answer was lost what has become known of it.
    pub(super) async fn tell_standing(&self, id: GenerationId, caller: Caller) {
        let reply = self.standing(id).await.map(|standing| known_reply(&standing).unwrap_or_else(lost_again));
        match reply {
            Ok(reply) => {
                self.tell(caller, Bought { generation: id, reply, replayed: false, is_repeat: false, recorded: true })
                    .await;
            }
            Err(error) => drop(caller.send(Err(error.into()))),
        }
    }

    /// Tells a caller what became of a purchase. From then on an equal one is a purchase of its own.
    pub(super) async fn tell(&self, caller: Caller, bought: Bought) {
        let id = bought.generation;
        if caller.send(Ok(bought)).is_err() {
            return;
        }
        if let Err(error) = self.store.note_caller_told(id, self.clock.now()).await {
            tracing::warn!(%id, %error, "that a caller was told was not written down");
        }
    }

    async fn standing(&self, id: GenerationId) -> Result<PurchaseStanding, StoreError> {
        let standing = self.store.purchase_standing(id).await?;
        standing.ok_or_else(|| StoreError::Failed(format!("the purchase {id} is gone")))
    }
}

/// What became of a purchase, as its caller is told; `None` while that is not known.
fn known_reply(standing: &PurchaseStanding) -> Option<Reply> {
    match &standing.reply {
        Some(reply) if reply.result != SubmitResult::Unclear => Some(reply.clone()),
        Some(_) | None => {
            let body = shape::accepted(&standing.generation, &standing.options)?;
            Some(Reply {
                result: SubmitResult::Accepted,
                http_status: Some(201),
                content_type: Some("application/json".to_owned()),
                retry_after: None,
                error_code: None,
                said: "sold: its answer was lost, and it was found".to_owned(),
                body: body.to_string().into_bytes(),
            })
        }
    }
}

/// The answer of the first is still not known.
fn lost_again() -> Reply {
    Reply {
        result: SubmitResult::Unclear,
        http_status: None,
        content_type: None,
        retry_after: None,
        error_code: None,
        said: "it repeats a purchase whose answer was lost".to_owned(),
        body: Vec::new(),
    }
}
