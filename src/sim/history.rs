//! One history: a random world by one seed, event after event.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::check::{Checker, Fault, Step};
use super::clock::SimClock;
use super::service::{PER_MINUTE, PUBLIC_URL, Service};
use super::world::{Counter, Mood, World, fate};
use super::{Broken, SimError};
use crate::clock::Clock;
use crate::domain::family::{FAMILIES, Family};
use crate::domain::id::GenerationId;
use crate::domain::notice::{Notice, Word};
use crate::domain::purchase::{Order, SubmitResult};
use crate::domain::schedule::Rules;
use crate::flow::gateway::{PurchaseError, Wanted};
use crate::flow::reconcile::Permit;
use crate::sandbox::{Fate, PingBody};
use crate::store::Memory;

/// What kind of world it is.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Purchases made in it.
    pub purchases: usize,
    /// Whether anything goes wrong: restarts, trouble, jumps, lies.
    pub faults: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { purchases: 12, faults: true }
    }
}

/// What came of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// SHA-256 over every step and every change it made.
    pub hash: String,
    /// Steps it took.
    pub steps: u64,
    /// Reads it took.
    pub reads: u64,
    /// Purchases that the provider made.
    pub sold: usize,
}

/// Purchases are made within so long.
const BUYING: Duration = Duration::from_mins(40);
/// After this nothing goes wrong any more: what is open then has to end.
const TROUBLE_ENDS: Duration = Duration::from_hours(2);
/// When everything has to be over: a day until it is given up, and the last look.
const END: Duration = Duration::from_hours(29);
/// A calendar that jumped may not be looked at by a budget that remembers by it (see the budget's documentation).
const APART: Duration = Duration::from_secs(62);

#[derive(Debug)]
enum Event {
    Buy { key: Option<String>, prompt: String },
    Webhook { sold: usize, ping: usize, attempt: usize },
    Answer { permit: u64 },
    Sweep,
    Ask,
    Forge,
    Restart { down: Duration },
    Up,
    Jump { ms: i64 },
    SetRight,
    Mood(Mood),
    Pace(u32),
}

/// Runs the history of a seed.
///
/// # Errors
/// [`SimError::Broken`] says which invariant broke and how to see it again.
pub async fn run(memory: &mut Memory, seed: u64, settings: Settings) -> Result<History, SimError> {
    memory.clear().await?;
    crate::domain::id::seed(seed);
    let mut sim = Sim::new(memory, seed, settings).await?;
    sim.plan();
    while let Some(Reverse(next)) = sim.queue.pop() {
        sim.step(next.at, next.event).await?;
    }
    sim.conclude().await
}

#[derive(Debug)]
struct Queued {
    at: Duration,
    nth: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.nth) == (other.at, other.nth)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.nth).cmp(&(other.at, other.nth))
    }
}

struct Sim<'m> {
    memory: &'m Memory,
    seed: u64,
    settings: Settings,
    loss: u8,
    chance: Rng,
    clock: Arc<SimClock>,
    world: Arc<World>,
    rules: Arc<Rules>,
    service: Option<Service>,
    checker: Checker,
    queue: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    permits: HashMap<u64, Permit>,
    asked: Vec<GenerationId>,
    /// When the sweeper wakes.
    wakes_at: Duration,
    /// When the calendar jumped, and when the process started.
    jumped_at: Option<Duration>,
    started_at: Duration,
    disturbed_at: Duration,
    /// What each order came to: sold and told so, by its key.
    orders: HashMap<String, bool>,
    steps: u64,
    doing: String,
    hash: Sha256,
}

impl<'m> Sim<'m> {
    async fn new(memory: &'m Memory, seed: u64, settings: Settings) -> Result<Self, SimError> {
        let mut chance = Rng::with_seed(seed);
        let clock = Arc::new(SimClock::default());
        let per_minute = usize::try_from(PER_MINUTE).unwrap_or(usize::MAX);
        let world = Arc::new(World::new(chance.u64(..), Arc::clone(&clock), per_minute));
        let rules = Arc::new(crate::config::Config::default().rules());
        let service = Service::start(memory, &world, &clock, &rules).await?;
        let loss = [0, 2, 20, 60, 100][chance.usize(0..5)];
        Ok(Self {
            memory,
            seed,
            settings,
            loss,
            chance,
            clock,
            world,
            rules,
            service: Some(service),
            checker: Checker::default(),
            queue: BinaryHeap::new(),
            queued: 0,
            permits: HashMap::new(),
            asked: Vec::new(),
            wakes_at: Duration::MAX,
            jumped_at: None,
            started_at: Duration::ZERO,
            disturbed_at: Duration::ZERO,
            orders: HashMap::new(),
            steps: 0,
            doing: String::new(),
            hash: Sha256::new(),
        })
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse(Queued { at, nth: self.queued, event }));
    }

    fn some_time(&mut self, within: Duration) -> Duration {
        within.mul_f64(self.chance.f64())
    }

    /// Everything that happens by chance is decided before it begins.
    fn plan(&mut self) {
        // Sometimes all at once: more than the budget can follow.
        let burst = self.chance.u8(0..8) == 0;
        let (buying, purchases) =
            if burst { (BUYING / 40, self.settings.purchases * 6) } else { (BUYING, self.settings.purchases) };
        for n in 0..purchases {
            let at = self.some_time(buying);
            let key = self.chance.bool().then(|| format!("key-{n}"));
            let prompt = format!("order {n}");
            if key.is_some() && self.chance.u8(0..3) == 0 {
                let again = at + self.some_time(Duration::from_mins(3));
                self.push(again, Event::Buy { key: key.clone(), prompt: prompt.clone() });
            }
            self.push(at, Event::Buy { key, prompt });
        }
        if !self.settings.faults {
            return;
        }
        self.world.inner().lags = [0, 0, 20, 150];
        for _ in 0..(if burst { 3 } else { 0 }) {
            // In the middle of the first reads, more of them than the budget allows.
            let at = Duration::from_mins(3) + self.some_time(Duration::from_mins(4));
            self.push(at, Event::Restart { down: Duration::from_secs(1) });
        }
        for _ in 0..self.chance.usize(0..6) {
            let (at, down) =
                (self.some_time(TROUBLE_ENDS), Duration::from_secs([0, 5, 100, 600][self.chance.usize(0..4)]));
            self.push(at, Event::Restart { down });
        }
        for _ in 0..self.chance.usize(0..3) {
            let hours = [-87_600, -24, -1, 1, 48, 87_600][self.chance.usize(0..6)];
            let at = self.some_time(TROUBLE_ENDS);
            self.push(at, Event::Jump { ms: hours * 3_600_000 });
        }
        for _ in 0..self.chance.usize(0..4) {
            let mood = [Mood::Down, Mood::Overrun, Mood::KeyRefused][self.chance.usize(0..3)];
            let at = self.some_time(TROUBLE_ENDS - Duration::from_mins(20));
            let until = at + self.some_time(Duration::from_mins(20));
            self.push(at, Event::Mood(mood));
            self.push(until, Event::Mood(Mood::Well));
        }
        for _ in 0..self.chance.usize(0..3) {
            let at = self.some_time(BUYING);
            let pace = [40, 70, 160, 250][self.chance.usize(0..4)];
            self.push(at, Event::Pace(pace));
        }
        for _ in 0..self.chance.usize(0..10) {
            let at = self.some_time(TROUBLE_ENDS);
            self.push(at, Event::Ask);
            let at = self.some_time(TROUBLE_ENDS);
            self.push(at, Event::Forge);
        }
        self.push(TROUBLE_ENDS, Event::Mood(Mood::Well));
        self.push(TROUBLE_ENDS + APART, Event::SetRight);
    }

    async fn step(&mut self, at: Duration, event: Event) -> Result<(), SimError> {
        if at > END || (matches!(event, Event::Sweep) && at != self.wakes_at) {
            return Ok(());
        }
        self.steps += 1;
        self.clock.move_to(at);
        self.doing = format!("{event:?} at {at:?}");
        self.hash.update(&self.doing);
        let step = if matches!(event, Event::Webhook { .. } | Event::Answer { .. }) { Step::Word } else { Step::Time };
        self.act(at, event).await?;
        self.look(step).await?;
        // What fell due is looked at as the sweeper would: at once.
        if self.wakes_at <= at {
            self.sweep(at).await?;
            self.look(Step::Time).await?;
        }
        Ok(())
    }

    async fn act(&mut self, at: Duration, event: Event) -> Result<(), SimError> {
        match event {
            Event::Buy { key, prompt } => self.buy(at, key, prompt).await,
            Event::Webhook { sold, ping, attempt } => self.webhook(at, sold, ping, attempt).await,
            Event::Answer { permit } => self.answer(permit).await,
            Event::Sweep => Ok(()),
            Event::Ask => self.ask(at).await,
            Event::Forge => self.forge(),
            Event::Restart { down } => self.restart(at, down),
            Event::Up => self.up(at).await,
            Event::Jump { ms } => {
                // See APART.
                if at >= self.started_at + APART && self.service.is_some() {
                    self.jumped_at = Some(at);
                    self.clock.jump(ms);
                    self.disturbed_at = at;
                    // The sweeper never sleeps for longer than a minute.
                    self.wake(at + Duration::from_mins(1));
                }
                Ok(())
            }
            Event::SetRight => {
                self.clock.set_right();
                self.disturbed_at = at;
                self.wake(at + Duration::from_mins(1));
                Ok(())
            }
            Event::Mood(mood) => {
                self.world.inner().mood = mood;
                Ok(())
            }
            Event::Pace(pace) => {
                self.world.inner().pace = pace;
                Ok(())
            }
        }
    }

    fn restart(&mut self, at: Duration, down: Duration) -> Result<(), SimError> {
        if let Some(jumped) = self.jumped_at.filter(|jumped| at < *jumped + APART) {
            self.push(jumped + APART, Event::Restart { down });
            return Ok(());
        }
        self.die();
        self.push(at + down, Event::Up);
        Ok(())
    }

    /// kill -9: what was not committed is gone, what was under way is forgotten.
    fn die(&mut self) {
        self.service = None;
        self.permits.clear();
        self.asked.clear();
        self.wakes_at = Duration::MAX;
        self.world.inner().forget_rest();
    }

    async fn up(&mut self, at: Duration) -> Result<(), SimError> {
        if self.service.is_none() {
            self.service = Some(Service::start(self.memory, &self.world, &self.clock, &self.rules).await?);
            (self.started_at, self.disturbed_at) = (at, at);
            let all: Vec<_> = self.checker.known().map(|known| known.id).collect();
            for id in all {
                self.look_at(id, Step::Time).await?;
            }
            self.wake(at);
        }
        Ok(())
    }

    /// A client buys through the gateway, as the provider documents it.
    async fn buy(&mut self, at: Duration, key: Option<String>, prompt: String) -> Result<(), SimError> {
        let faults = self.settings.faults;
        let counter = match self.chance.u8(0..100) {
            _ if !faults => Counter::Sells,
            0..8 => Counter::SellsSilently,
            8..11 => Counter::SellsToTheDead,
            11..14 => Counter::Dies,
            14..18 => Counter::Refuses,
            18..21 => Counter::Fails,
            21..24 => Counter::IsAway,
            _ => Counter::Sells,
        };
        let counter = if self.jumped_at.is_some_and(|jumped| at < jumped + APART) { Counter::Sells } else { counter };
        let plan = fate(&mut self.chance, self.loss, faults);
        let family =
            if self.chance.u8(0..4) == 0 { &FAMILIES[self.chance.usize(0..FAMILIES.len())] } else { &FAMILIES[0] };
        let before = {
            let mut inner = self.world.inner();
            (inner.counter, inner.plan) = (counter, plan);
            inner.sold.len()
        };
        let Some(service) = &self.service else { return Ok(()) };
        let (caller, answer) = oneshot::channel();
        let purchase = service.gateway.clone().purchase(wanted(family, &prompt, key.as_ref()), caller);
        let died = tokio::select! {
            biased;
            () = purchase => false,
            () = self.world.died.notified() => true,
        };
        if died {
            self.die();
            let down = self.some_time(Duration::from_secs(20));
            self.push(at + down, Event::Up);
        } else {
            self.answered(key, answer.await.ok())?;
        }
        let sold = self.world.inner().sold.len();
        for n in before..sold {
            self.announce(at, n);
        }
        Ok(())
    }

    /// Whoever was told that it was sold has it on record; the same key buys once.
    fn answered(
        &mut self,
        key: Option<String>,
        answer: Option<Result<crate::flow::gateway::Bought, PurchaseError>>,
    ) -> Result<(), SimError> {
        let Some(Ok(bought)) = answer else { return Ok(()) };
        let maybe_sold = matches!(bought.reply.result, SubmitResult::Accepted | SubmitResult::Unclear);
        if let Some(key) = key {
            let earlier = self.orders.insert(key, maybe_sold);
            // Keys are kept for a day by the calendar; one that jumps ahead by years forgets them.
            let again = earlier == Some(true) && !bought.replayed && self.jumped_at.is_none();
            self.hold(!again, "P4 the same key never buys twice", || format!("{bought:?}"))?;
        }
        Ok(())
    }

    /// The provider sends its webhooks once it is done.
    fn announce(&mut self, at: Duration, sold: usize) {
        let purchase = self.world.inner().sold[sold].purchase.clone();
        if purchase.plan.fate == Fate::NeverEnds {
            return;
        }
        let takes = purchase.ends_at.since(purchase.bought_at);
        for (ping, plan) in purchase.plan.webhooks.iter().enumerate() {
            let after = Duration::from_millis(plan.after_ms);
            self.push(at + takes + after, Event::Webhook { sold, ping, attempt: 0 });
        }
    }

    async fn webhook(&mut self, at: Duration, sold: usize, ping: usize, attempt: usize) -> Result<(), SimError> {
        let purchase = self.world.inner().sold[sold].purchase.clone();
        let body = purchase.plan.webhooks[ping].body.clone();
        let bytes = purchase.webhook_body(&body, self.clock.true_time());
        let acknowledged = match (&self.service, &purchase.callback_url) {
            (Some(_), Some(url)) => self.receive(url, bytes).await?,
            _ => false,
        };
        if acknowledged {
            let mut inner = self.world.inner();
            match body {
                PingBody::Documented | PingBody::WithoutReason => {
                    let without_url = matches!(purchase.plan.fate, Fate::CompletedWithoutUrl { .. });
                    inner.sold[sold].told |= !without_url;
                }
                PingBody::Contradicting => inner.sold[sold].lied_to = true,
                PingBody::Truncated
                | PingBody::NotJson
                | PingBody::UnknownStatus(_)
                | PingBody::WrongId
                | PingBody::WithoutUrl
                | PingBody::Raw(_) => {}
            }
        } else if let Some(pause) = purchase.family.webhook_pauses.get(attempt) {
            self.push(at + *pause, Event::Webhook { sold, ping, attempt: attempt + 1 });
        }
        Ok(())
    }

    /// Whether it was answered 200.
    async fn receive(&mut self, url: &str, body: Vec<u8>) -> Result<bool, SimError> {
        let Some(service) = &self.service else { return Ok(false) };
        let path = url.strip_prefix(PUBLIC_URL).and_then(|path| path.strip_prefix("/webhooks/")).unwrap_or_default();
        let Some(authentic) = service.intake.authenticate(path) else {
            return self.hold(false, "our own callback URL is authentic", || path.to_owned()).map(|()| false);
        };
        let notice = Notice::parse(&body);
        let recorded = service.intake.receive(authentic, body).await?;
        let about = match recorded.generation {
            Some(id) => service.store.generation(id).await?,
            None => None,
        };
        let kept = match recorded.delivery {
            Some(delivery) => service.store.delivery(delivery).await?.is_some(),
            None => about.is_some(),
        };
        self.hold(kept, "I1 what is acknowledged is kept", || format!("{recorded:?}"))?;
        let outcome = matches!(&notice, Ok(Notice { word: Word::Outcome(_), .. }));
        let visible = about.is_some_and(|about| about.state.settled_at().is_some() || about.attention.is_some());
        self.hold(!outcome || visible, "I1 an acknowledged outcome is seen at once", || format!("{notice:?}"))?;
        Ok(notice.is_ok())
    }

    fn forge(&mut self) -> Result<(), SimError> {
        let Some(service) = &self.service else { return Ok(()) };
        let known = self.checker.known().map(|known| known.id).min();
        let path = format!("{}/{}.AAAA", FAMILIES[0].path, known.unwrap_or(GenerationId::fresh(self.clock.now())));
        let accepted = service.intake.authenticate(&path).is_some();
        self.hold(!accepted, "I9 a forged token is nothing", || path)
    }

    /// A person wants to know now.
    async fn ask(&mut self, at: Duration) -> Result<(), SimError> {
        let mut ids: Vec<_> =
            self.checker.known().filter(|known| known.provider_id.is_some()).map(|known| known.id).collect();
        ids.sort_unstable();
        let (Some(service), false) = (&self.service, ids.is_empty()) else { return Ok(()) };
        let id = ids[self.chance.usize(0..ids.len())];
        if let Ok(permit) = service.reconciler.begin(id, true).await {
            self.begin(at, permit)?;
        }
        Ok(())
    }

    /// What the sweeper does when it wakes.
    async fn sweep(&mut self, at: Duration) -> Result<(), SimError> {
        self.wakes_at = Duration::MAX;
        let Some(service) = &self.service else { return Ok(()) };
        service.reconciler.turn().await?;
        let mut permits = Vec::new();
        while let Some(permit) = service.reconciler.next().await? {
            permits.push(permit);
        }
        let next = service.reconciler.next_look().await?;
        let pause = next.map_or(Duration::MAX, |next| next.since(self.clock.now()));
        for permit in permits {
            self.begin(at, permit)?;
        }
        if pause < Duration::MAX {
            // As the sweeper does: what is due and under way already wakes it when it ends.
            let shortest = if self.permits.is_empty() { Duration::ZERO } else { Duration::from_millis(100) };
            self.wake(at + pause.max(shortest).max(Duration::from_millis(1)));
        }
        Ok(())
    }

    fn begin(&mut self, at: Duration, permit: Permit) -> Result<(), SimError> {
        self.world.read_begins();
        let id = permit.generation();
        let twice = self.asked.contains(&id);
        self.hold(!twice, "a read under way is not made twice", || id.to_string())?;
        self.asked.push(id);
        let latency = Duration::from_millis(self.chance.u64(20..1_500));
        let latency = if self.world.inner().mood == Mood::Down { latency * 15 } else { latency };
        self.queued += 1;
        self.permits.insert(self.queued, permit);
        let permit = self.queued;
        self.push(at + latency, Event::Answer { permit });
        Ok(())
    }

    async fn answer(&mut self, permit: u64) -> Result<(), SimError> {
        // The process that asked may be gone.
        let (Some(permit), Some(service)) = (self.permits.remove(&permit), &self.service) else { return Ok(()) };
        let id = permit.generation();
        service.reconciler.finish(permit).await?;
        self.asked.retain(|asked| *asked != id);
        self.wake(self.clock.monotonic());
        Ok(())
    }

    fn wake(&mut self, at: Duration) {
        if at < self.wakes_at && self.service.is_some() {
            self.wakes_at = at;
            self.push(at, Event::Sweep);
        }
    }

    /// Looks at everything that changed.
    async fn look(&mut self, step: Step) -> Result<(), SimError> {
        let broken = self.world.inner().broken.take();
        if let Some(fault) = broken {
            return Err(self.broken(fault));
        }
        let Some(service) = &mut self.service else { return Ok(()) };
        let mut changed = Vec::new();
        while let Ok(change) = service.changes.try_recv() {
            if !changed.contains(&change.id) {
                changed.push(change.id);
            }
        }
        for id in changed {
            self.look_at(id, step).await?;
        }
        Ok(())
    }

    async fn look_at(&mut self, id: GenerationId, step: Step) -> Result<(), SimError> {
        let Some(service) = &self.service else { return Ok(()) };
        let (Some(generation), audit) = (service.store.generation(id).await?, service.store.audit(id).await?) else {
            return self.hold(false, "what is on record stays", || id.to_string());
        };
        self.hash.update(format!("{generation:?} {audit:?}"));
        if let Some(at) = generation.next_look_at() {
            let now = self.clock.now();
            self.wake(self.clock.monotonic() + at.since(now).max(Duration::from_millis(1)));
        }
        let (now, longest) = (self.clock.now(), self.rules.give_up_after + Duration::from_hours(1));
        // What a jump back put far ahead comes nearer at the sweeper's next look, within a minute.
        let settling = self.clock.monotonic() < self.disturbed_at + APART;
        let longest = if settling { Duration::from_hours(24 * 365 * 30) } else { longest };
        self.checker.look(generation, &audit, step, now, longest).map_err(|fault| self.broken(fault))
    }

    fn hold(&self, holds: bool, rule: &'static str, how: impl FnOnce() -> String) -> Result<(), SimError> {
        if holds { Ok(()) } else { Err(self.broken((rule, how()))) }
    }

    fn broken(&self, (rule, how): Fault) -> SimError {
        let broken = Broken { seed: self.seed, step: self.steps, doing: self.doing.clone(), rule, how };
        SimError::Broken(Box::new(broken))
    }

    /// Everything is over.
    async fn conclude(mut self) -> Result<History, SimError> {
        self.clock.move_to(END);
        self.up(END).await?;
        let sold = self.world.inner().sold.clone();
        for sold in &sold {
            let own = match sold.intent {
                Some(intent) => self.checker.get(intent),
                None => None,
            };
            Checker::conclude(sold, own, self.jumped_at.is_some()).map_err(|fault| self.broken(fault))?;
        }
        let reads = self.world.inner().reads_total;
        Ok(History { hash: hex::encode(self.hash.finalize()), steps: self.steps, reads, sold: sold.len() })
    }
}

fn wanted(family: &'static Family, prompt: &str, key: Option<&String>) -> Wanted {
    let body = Bytes::from(json!({"prompt": prompt}).to_string());
    let order = Order::read(family, &body).unwrap_or_else(|_| unreachable!("a purchase as documented"));
    Wanted {
        family,
        order,
        body_sha256: Sha256::digest(&body).into(),
        body,
        content_type: None,
        metadata: None,
        idempotency: key.map(|key| ("sim".to_owned(), key.clone())),
    }
}
