//! Sends events out: one task for each outlet, so that a dead or slow one holds nobody back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use url::Url;

use crate::clock::{Clock, JumpWatch};
use crate::domain::event::Outlook;
use crate::domain::generation::Generation;
use crate::domain::outcome::Source;
use crate::domain::pass_through;
use crate::domain::schedule::Confirm;
use crate::domain::time::Time;
use crate::sink::signature::SigningKeys;
use crate::sink::{Attempt, Message, Sink, TIMEOUT};
use crate::store::{Batch, Handed, Store, StoreError, Wants};
use crate::telemetry::meters;

/// Attempts under way at one outlet.
const IN_FLIGHT_MAX: usize = 64;
/// Events are taken up once there is room for so many: one commit for each would be slower than what comes in.
const ROOM_MIN: usize = IN_FLIGHT_MAX / 2;
/// Attempts under way at one caller's server: a slow one holds back nobody else's.
const PER_CALLER_MAX: usize = 8;
/// How long an event waits for its caller's server to be free. One that takes longer is slow.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the events of a caller whose server is slow step aside.
const STEP_ASIDE: Duration = TIMEOUT;
/// How long an attempt may take before it counts as interrupted.
const LEASE: Duration = TIMEOUT.saturating_add(Duration::from_secs(15));
/// Longest sleep: bounds what a jump of the clock or a lost wake-up can do.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_mins(1);
/// Sleep after the database refused.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// The outlet for callers who named a callback URL of their own.
pub const CALLERS: &str = "callers";

/// Where events go.
#[derive(Clone, Debug)]
pub enum Target {
    /// An endpoint of the configuration; signed.
    Endpoint {
        /// Where.
        url: Url,
        /// Its keys.
        keys: SigningKeys,
    },
    /// Each caller's own callback URL, as the provider told it; signed by the provider where it signed, and by nobody else.
    Callers,
}

/// Sends to one outlet.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    /// The outlet's name.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// What goes there.
    pub wants: Wants,
    /// Which webhooks are believed: only those are passed on.
    pub confirm: Confirm,
    /// How long a refund may take: events tell when it is due.
    pub refund_window: Duration,
    /// Pauses between attempts.
    pub schedule: Arc<[Duration]>,
    /// How it is sent.
    pub sink: Sink,
    /// Where everything is kept.
    pub store: Store,
    /// When it is.
    pub clock: Arc<dyn Clock>,
}

impl Dispatcher {
    /// Sends until told to stop; attempts under way are finished.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the database is.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut attempts = JoinSet::new();
        let mut shares = Shares::default();
        let mut jumps = JumpWatch::default();
        // Register for the wake-up before looking.
        let mut changes = self.store.changes();
        while !stop.is_cancelled() {
            let next = match self.look(&mut attempts, &mut shares, &mut jumps).await {
                Ok(next) => next,
                Err(error @ StoreError::Broken(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, outlet = self.name, "could not look for events to send");
                    Some(self.clock.now() + TROUBLE_PAUSE)
                }
            };
            let has_room = IN_FLIGHT_MAX.saturating_sub(attempts.len()) >= ROOM_MIN;
            let now = self.clock.now();
            let sleep = next.map_or(LOOK_AT_LEAST_EVERY, |next| next.since(now)).min(LOOK_AT_LEAST_EVERY);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = attempts.join_next() => survive(ended),
                () = self.clock.sleep(sleep), if has_room => {}
                () = told(&mut changes, self.wants.callers_only), if has_room => {}
            }
        }
        while let Some(ended) = attempts.join_next().await {
            survive(ended);
        }
        Ok(())
    }

    /// Begins every attempt that can be made now; tells when there is something to do next.
    async fn look(
        &self,
        attempts: &mut JoinSet<()>,
        shares: &mut Shares,
        jumps: &mut JumpWatch,
    ) -> Result<Option<Time>, StoreError> {
        if jumps.has_jumped(&*self.clock) {
            // Times of before lie far ahead then: no event sleeps until they come.
            let now = self.clock.now();
            self.store.bring_events_near(&self.name, Outlook::latest(&self.schedule, now)).await?;
        }
        loop {
            let room = IN_FLIGHT_MAX.saturating_sub(attempts.len());
            if room < ROOM_MIN {
                return Ok(None);
            }
            let now = self.clock.now();
            let handed = self.store.hand_out(&self.name, &self.wants, room, LEASE, self.refund_window, now);
            let Batch { handed, caught_up } = handed.await?;
            let mut aside = Vec::new();
            for one in handed {
                let share = shares.of(&one);
                if share.as_ref().is_some_and(|share| share.is_stuck()) {
                    aside.push(one.dispatch);
                    continue;
                }
                let dispatcher = self.clone();
                attempts.spawn(async move {
                    match share {
                        None => dispatcher.attempt(one).await,
                        Some(share) => dispatcher.attempt_within(&share, one).await,
                    }
                });
            }
            if !aside.is_empty() {
                self.store.put_back(aside, now + STEP_ASIDE).await?;
            }
            if caught_up {
                return self.store.next_attempt_at(&self.name).await;
            }
        }
    }

    /// An attempt once the caller's server is free for it; else the event steps aside, which is no attempt.
    async fn attempt_within(&self, share: &Share, handed: Handed) {
        let place = tokio::select! {
            biased;
            place = share.places.acquire() => place,
            () = self.clock.sleep(PATIENCE) => {
                share.slow.store(true, Ordering::Relaxed);
                if let Err(error) = self.store.put_back(vec![handed.dispatch], self.clock.now() + STEP_ASIDE).await {
                    tracing::warn!(%error, event = %handed.event.id, "an event could not step aside; it waits for its lease to end");
                }
                return;
            }
        };
        let began = self.clock.now();
        self.attempt(handed).await;
        if self.clock.now().since(began) < PATIENCE {
            share.slow.store(false, Ordering::Relaxed);
        }
        drop(place);
    }

    async fn attempt(&self, handed: Handed) {
        let event = &handed.event;
        let trying = tracing::info_span!("dispatch", event = %event.id, generation = %event.generation,
            attempt = handed.attempts + 1, state = Empty);
        self.attempt_once(handed).instrument(trying).await;
    }

    async fn attempt_once(&self, handed: Handed) {
        let sending = tracing::info_span!("dispatch.send", otel.kind = "client");
        let (attempt, event) = (self.send(&handed).instrument(sending).await, &handed.event);
        let now = self.clock.now();
        let nth = handed.attempts + 1;
        let again = |retry_after| Outlook::after_failure(&self.schedule, nth, retry_after, event.id, now);
        let (outlook, status, said) = match attempt {
            Attempt::Delivered { status } => (Outlook::Delivered, Some(status), "delivered".to_owned()),
            Attempt::Gone => {
                self.disable(now).await;
                (again(None), Some(410), "the endpoint wants no more".to_owned())
            }
            Attempt::Failed { status, said, retry_after } => (again(retry_after), status, said),
        };
        let lag = matches!(outlook, Outlook::Delivered).then(|| now.since(event.at));
        meters::event_attempt(outlook.state(), lag);
        Span::current().record("state", outlook.state().as_str());
        if outlook == Outlook::Dead {
            tracing::error!(event = %event.id, generation = %event.generation, outlet = self.name, said, "an event is dead");
        }
        if let Err(error) = self.store.record_attempt(handed.dispatch, outlook, status, said, now).await {
            tracing::error!(%error, event = %event.id, "what came of an event was not kept; it is sent again");
        }
    }

    async fn send(&self, handed: &Handed) -> Attempt {
        let id = handed.event.id.to_string();
        let timestamp_s = self.clock.now().as_ms() / 1_000;
        match (&self.target, &handed.caller) {
            (Target::Endpoint { url, keys }, _) => {
                let body = serde_json::to_vec(&handed.event.body()).unwrap_or_default();
                let message = Message { id: &id, timestamp_s, body, content_type: None, provider_signature: None };
                self.sink.send(url, Some(keys), message).await
            }
            (Target::Callers, Some((generation, url))) => match Url::parse(url) {
                Ok(url) => self.pass_on(generation, &url, &id, timestamp_s).await,
                Err(error) => Attempt::Failed { status: None, said: error.to_string(), retry_after: None },
            },
            (Target::Callers, None) => {
                Attempt::Failed { status: None, said: "there is no address".to_owned(), retry_after: None }
            }
        }
    }

    /// Tells a caller: with the bytes of the webhook that told the outcome, their type and the provider's signature; where a read told it,
    /// with what that said in the shape of a webhook.
    async fn pass_on(&self, generation: &Generation, url: &Url, id: &str, timestamp_s: i64) -> Attempt {
        let bodies = match self.store.provider_bodies(generation, self.confirm).await {
            Ok(bodies) => bodies,
            Err(error) => {
                tracing::warn!(%error, event = id, "what a caller is to be told could not be read");
                return Attempt::Failed {
                    status: None,
                    said: "the database could not be read".to_owned(),
                    retry_after: None,
                };
            }
        };
        let webhook_told = generation.state.learned().is_some_and(|learned| learned.source == Source::Webhook);
        let original = pass_through::original_webhook(generation, &bodies).filter(|_| webhook_told);
        let message = if let Some((body, headers)) = original {
            let (content_type, provider_signature) = (headers.content_type(), headers.signature());
            Message { id, timestamp_s, body: body.to_vec(), content_type, provider_signature }
        } else {
            let body = pass_through::webhook(generation, &bodies).map(|body| body.to_string()).unwrap_or_default();
            Message { id, timestamp_s, body: body.into_bytes(), content_type: None, provider_signature: None }
        };
        self.sink.send(url, None, message).await
    }

    /// 410: nothing more is sent there. One caller's 410 says nothing about the others.
    async fn disable(&self, now: Time) {
        if matches!(self.target, Target::Callers) {
            return;
        }
        tracing::error!(outlet = self.name, "the endpoint answered 410 and is disabled until the next start");
        if let Err(error) = self.store.disable_outlet(&self.name, "it answered 410 Gone", now).await {
            tracing::error!(%error, outlet = self.name, "a disabled endpoint was not kept as such");
        }
    }
}

/// What one caller's server may have under way.
#[derive(Debug)]
struct Share {
    places: Semaphore,
    slow: AtomicBool,
}

impl Share {
    /// It is slow, and has as much under way as it may.
    fn is_stuck(&self) -> bool {
        self.slow.load(Ordering::Relaxed) && self.places.available_permits() == 0
    }
}

/// The shares of the callers' servers that have something under way.
#[derive(Debug, Default)]
struct Shares(HashMap<String, Arc<Share>>);

impl Shares {
    /// The share of the event's caller; an endpoint of the configuration has its queue for itself.
    fn of(&mut self, handed: &Handed) -> Option<Arc<Share>> {
        let (_, url) = handed.caller.as_ref()?;
        self.0.retain(|_, share| Arc::strong_count(share) > 1);
        let server = Url::parse(url).map_or_else(|_| url.clone(), |url| url.origin().ascii_serialization());
        let new = || Arc::new(Share { places: Semaphore::new(PER_CALLER_MAX), slow: AtomicBool::new(false) });
        Some(Arc::clone(self.0.entry(server).or_insert_with(new)))
    }
}

/// Ends when an event came to be, or may have.
async fn told(changes: &mut tokio::sync::broadcast::Receiver<crate::store::Changes>, callers_only: bool) {
    loop {
        match changes.recv().await {
            Ok(changes) if !changes.iter().any(|change| change.told && (change.for_caller || !callers_only)) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// An attempt that panicked has lost its answer, not the event: its lease runs out and it is sent again.
fn survive(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an attempt to send an event died; it will be made again");
    }
}
