//! The provider of the simulator: sells, makes, forgets, misbehaves, and keeps the ledger that is the oracle.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::BoxFuture;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::clock::SimClock;
use crate::clock::Clock;
use crate::domain::decision::{Answer, Told};
use crate::domain::family::Family;
use crate::domain::generation::State;
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::purchase::{Order, Piece};
use crate::provider::{self, HttpAnswer, ListAnswer, Listing, Provider, Submitted};
use crate::sandbox::{Asked, ELSEWHERE, Fate, Plan, Purchase, price};
use crate::store::Store;

/// The provider counts reads in this window.
const MINUTE: Duration = Duration::from_mins(1);

/// How the provider is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// As documented.
    Well,
    /// 5xx, garbage, silence.
    Down,
    /// 429 for every read.
    Overrun,
    /// 401 for everything.
    KeyRefused,
}

/// Which lists the provider has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lists {
    /// None.
    None,
    /// Those of the paths without a slash.
    Documented,
    /// One of every family.
    Own,
}

/// What the next purchase meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counter {
    /// It is sold.
    Sells,
    /// It is sold, and the answer gets lost.
    SellsSilently,
    /// It is sold, and then this process dies.
    SellsToTheDead,
    /// This process dies before anything is sent.
    Dies,
    /// It is refused.
    Refuses,
    /// 5xx; nothing is sold.
    Fails,
    /// There is no connection.
    IsAway,
}

/// A purchase and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Sold {
    pub(super) purchase: Purchase,
    /// What the intent was, by the idempotency key.
    pub(super) intent: GenerationId,
    /// Its status lags behind its webhook by so much.
    pub(super) lag: Duration,
    /// A webhook that told the truth was answered 200.
    pub(super) told: bool,
    /// One that did not was.
    pub(super) lied_to: bool,
}

#[derive(Debug)]
pub(super) struct Inner {
    chance: Rng,
    pub(super) sold: Vec<Sold>,
    by_id: HashMap<String, usize>,
    pub(super) mood: Mood,
    pub(super) counter: Counter,
    pub(super) lists: Lists,
    /// Seconds by which status answers may lag behind webhooks.
    pub(super) lags: [u64; 4],
    /// Of so many one takes up to twice as long as documented; 0 for none.
    pub(super) slow_one_in: u8,
    /// Multiplies all its times, in percent.
    pub(super) pace: u32,
    pub(super) plan: Plan,
    /// When reads were made, in time that does not jump.
    reads: VecDeque<Duration>,
    /// No read is welcome before.
    rest_until: Duration,
    pub(super) reads_total: u64,
    pub(super) intents: Vec<GenerationId>,
    /// Something that must never happen, and did.
    pub(super) broken: Option<(&'static str, String)>,
}

/// The provider.
#[derive(Debug)]
pub(super) struct World {
    inner: Mutex<Inner>,
    clock: std::sync::Arc<SimClock>,
    /// Where an intent has to be on record before anything is sent.
    pub(super) store: Mutex<Option<Store>>,
    pub(super) per_minute: usize,
    /// This process has died in the middle of a purchase.
    pub(super) died: tokio::sync::Notify,
}

impl World {
    pub(super) fn new(seed: u64, clock: std::sync::Arc<SimClock>, per_minute: usize) -> Self {
        let inner = Inner {
            chance: Rng::with_seed(seed),
            sold: Vec::new(),
            by_id: HashMap::new(),
            mood: Mood::Well,
            counter: Counter::Sells,
            lists: Lists::None,
            lags: [0; 4],
            slow_one_in: 30,
            pace: 100,
            plan: Plan::default(),
            reads: VecDeque::new(),
            rest_until: Duration::ZERO,
            reads_total: 0,
            intents: Vec::new(),
            broken: None,
        };
        let died = tokio::sync::Notify::new();
        Self { inner: Mutex::new(inner), clock, store: Mutex::default(), per_minute, died }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A read is sent.
    pub(super) fn read_begins(&self) {
        let now = self.clock.monotonic();
        let mut inner = self.inner();
        while inner.reads.front().is_some_and(|read| *read + MINUTE <= now) {
            inner.reads.pop_front();
        }
        inner.reads.push_back(now);
        inner.reads_total += 1;
        if inner.reads.len() > self.per_minute {
            let read = format!("{} reads in one minute", inner.reads.len());
            inner.break_rule("I7 the budget holds in every sliding minute", read);
        }
        let rest_until = inner.rest_until;
        if now < rest_until {
            inner.break_rule(
                "C4 a 429 is heeded",
                format!("a read at {now:?}, rest was asked for until {rest_until:?}"),
            );
        }
    }

    fn answer(&self, family: &'static Family, id: &ProviderId) -> Told {
        let now = self.clock.true_time();
        let mut inner = self.inner();
        let known = inner.by_id.get(id.as_str()).copied();
        let mut headers = HeaderMap::new();
        let (mood, trouble) = (inner.mood, inner.chance.u8(0..4));
        let lag = known.map_or(Duration::ZERO, |n| inner.sold[n].lag);
        let (status, body) = match mood {
            Mood::Down if trouble < 2 => {
                return Told {
                    answer: Answer::Nothing,
                    http_status: None,
                    said: "no answer".to_owned(),
                    body: Vec::new(),
                };
            }
            Mood::Down if trouble == 2 => (200, b"<html>".to_vec()),
            Mood::Down => (503, b"down".to_vec()),
            Mood::KeyRefused => (401, b"{}".to_vec()),
            Mood::Overrun => {
                let seconds = inner.chance.u64(1..90);
                headers.insert(RETRY_AFTER, seconds.into());
                inner.rest_until = self.clock.monotonic() + Duration::from_secs(seconds);
                (429, b"{}".to_vec())
            }
            Mood::Well => match known.map(|n| &mut inner.sold[n].purchase) {
                Some(purchase) if purchase.plan.fate != Fate::Forgotten && purchase.family == family => {
                    purchase.reads.push(now);
                    (200, purchase.status_body(now - lag).to_string().into_bytes())
                }
                Some(_) | None => (404, b"{}".to_vec()),
            },
        };
        let status = StatusCode::from_u16(status).unwrap_or_default();
        provider::understand(status, &headers, id, body)
    }

    /// The list of a family: a bare array, newest first.
    fn latest(&self, family: &'static Family) -> Listing {
        let now = self.clock.true_time();
        let mut inner = self.inner();
        let (mood, trouble) = (inner.mood, inner.chance.u8(0..2));
        let lists = match inner.lists {
            Lists::None => false,
            Lists::Own => true,
            Lists::Documented => !family.path.contains('/'),
        };
        let mut headers = HeaderMap::new();
        let (status, body) = match mood {
            Mood::Down if trouble == 0 => {
                let said = "no answer".to_owned();
                return Listing { answer: ListAnswer::Nothing, http_status: None, said };
            }
            Mood::Down => (503, "down".to_owned()),
            Mood::KeyRefused => (401, "{}".to_owned()),
            Mood::Overrun => {
                let seconds = inner.chance.u64(1..90);
                headers.insert(RETRY_AFTER, seconds.into());
                inner.rest_until = self.clock.monotonic() + Duration::from_secs(seconds);
                (429, "{}".to_owned())
            }
            Mood::Well if !lists => (404, "{}".to_owned()),
            Mood::Well => {
                let listed = inner.sold.iter().rev();
                let listed =
                    listed.filter(|sold| sold.purchase.family == family && sold.purchase.plan.fate != Fate::Forgotten);
                let listed = listed.map(|sold| sold.purchase.status_body(now - sold.lag)).take(100);
                (200, listed.collect::<serde_json::Value>().to_string())
            }
        };
        provider::list::understand(status, &headers, body.as_bytes())
    }

    async fn sell(&self, request: &provider::Purchase) -> Submitted {
        let intent = request.generation;
        self.expect_intent(intent).await;
        let counter = self.inner().counter;
        match counter {
            Counter::IsAway => return Submitted::NotSent("refused".to_owned()),
            Counter::Dies => return self.die().await,
            Counter::Fails => return answered(500, b"Internal Server Error".to_vec()),
            Counter::Refuses => return answered(422, br#"{"detail":"INVALID_DURATION"}"#.to_vec()),
            Counter::Sells | Counter::SellsSilently | Counter::SellsToTheDead => {}
        }
        let sold = self.make(request, intent);
        match counter {
            Counter::SellsSilently => Submitted::NoAnswer("no answer in time".to_owned()),
            Counter::SellsToTheDead => self.die().await,
            Counter::Sells | Counter::Dies | Counter::Refuses | Counter::Fails | Counter::IsAway => {
                answered(201, sold.accepted_body().to_string().into_bytes())
            }
        }
    }

    /// The intent is on disk before anything is sent, and one intent is sent once.
    async fn expect_intent(&self, intent: GenerationId) {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kept = match store {
            Some(store) => store.generation(intent).await.ok().flatten(),
            None => None,
        };
        let mut inner = self.inner();
        if !kept.is_some_and(|kept| kept.state == State::Submitting) {
            inner.break_rule("I6 nothing is sent before the intent is kept", intent.to_string());
        }
        if inner.intents.contains(&intent) {
            inner.break_rule("I5 an intent is sent once", intent.to_string());
        }
        inner.intents.push(intent);
    }

    async fn die(&self) -> Submitted {
        self.died.notify_one();
        std::future::pending().await
    }

    fn make(&self, request: &provider::Purchase, intent: GenerationId) -> Purchase {
        let now = self.clock.true_time();
        let order = Order::read(request.family, &request.body).ok();
        let wanted = order.map(|order| order.request).unwrap_or_default();
        let model = wanted.model.unwrap_or_default();
        let mut inner = self.inner();
        let expected = request.family.expected(Some(&model), wanted.duration_seconds);
        let spread = (expected.to.saturating_sub(expected.from)).mul_f64(inner.chance.f64());
        let one_in = inner.slow_one_in;
        let slow = if one_in > 0 && inner.chance.u8(0..one_in) == 0 {
            expected.to.mul_f64(inner.chance.f64())
        } else {
            Duration::ZERO
        };
        let takes = (expected.from + spread + slow) * inner.pace / 100;
        // The provider fails a generation by itself after its limit (provider.md section 3).
        let takes = takes.min(request.family.hard_limit.unwrap_or(Duration::from_mins(15)));
        let takes = inner.plan.takes_ms.map_or(takes, Duration::from_millis);
        let id = format!("p-{}-{}", inner.sold.len(), inner.chance.u32(..));
        let purchase = Purchase {
            id: id.clone(),
            family: request.family,
            price: price(request.family, &model, wanted.duration_seconds),
            model,
            seconds: wanted.duration_seconds,
            prompt: wanted.prompt.unwrap_or_default(),
            callback_url: callback_url(request),
            asked: Asked::default(),
            plan: inner.plan.clone(),
            bought_at: now,
            starts_at: now + Duration::from_secs(20).min(takes / 2),
            ends_at: now + takes,
            reads: Vec::new(),
            attempts: Vec::new(),
            results_at: ELSEWHERE.to_owned(),
        };
        let place = inner.sold.len();
        inner.by_id.insert(id, place);
        let lag = inner.chance.usize(0..4);
        let lag = Duration::from_secs(inner.lags[lag]);
        inner.sold.push(Sold { purchase: purchase.clone(), intent, lag, told: false, lied_to: false });
        purchase
    }
}

impl Inner {
    /// A process that starts does not know that rest was asked for.
    pub(super) fn forget_rest(&mut self) {
        self.rest_until = Duration::ZERO;
    }

    pub(super) fn break_rule(&mut self, rule: &'static str, how: String) {
        self.broken.get_or_insert((rule, how));
    }
}

impl Provider for World {
    fn status<'a>(&'a self, family: &'static Family, provider_id: &'a ProviderId) -> BoxFuture<'a, Told> {
        Box::pin(std::future::ready(self.answer(family, provider_id)))
    }

    fn list<'a>(&'a self, family: &'static Family) -> BoxFuture<'a, Listing> {
        Box::pin(std::future::ready(self.latest(family)))
    }

    fn submit<'a>(&'a self, purchase: &'a provider::Purchase) -> BoxFuture<'a, Submitted> {
        Box::pin(self.sell(purchase))
    }

    fn balance(&self) -> BoxFuture<'_, Result<HttpAnswer, String>> {
        let answer = HttpAnswer {
            status: 200,
            content_type: Some("application/json".to_owned()),
            retry_after: None,
            body: br#"{"balance":"1000.0000"}"#.to_vec(),
        };
        Box::pin(std::future::ready(Ok(answer)))
    }
}

fn answered(status: u16, body: Vec<u8>) -> Submitted {
    Submitted::Answered(HttpAnswer { status, content_type: None, retry_after: None, body })
}

fn callback_url(request: &provider::Purchase) -> Option<String> {
    let body: Vec<u8> = request
        .pieces
        .iter()
        .flat_map(|piece| match piece {
            Piece::Kept(range) => request.body.slice(range.clone()).to_vec(),
            Piece::Written(text) => text.clone().into_bytes(),
        })
        .collect();
    let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
    Some(body.get("callback_url")?.as_str()?.to_owned())
}
