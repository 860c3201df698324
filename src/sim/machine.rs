//! The machine: events in the order of their time, the service stepped through them, and a look after each.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use sha2::{Digest, Sha256};
use tokio::sync::broadcast::error::TryRecvError;

use super::check::{Checker, Fault, Step};
use super::clock::SimClock;
use super::event::{Event, Queued};
use super::service::{PER_MINUTE, Service};
use super::world::{Mood, World};
use super::{Broken, SimError};
use crate::clock::Clock;
use crate::domain::id::GenerationId;
use crate::domain::schedule::{Rules, Webhooks};
use crate::flow::reconcile::Permit;
use crate::store::Memory;

/// A calendar that jumped may not be looked at by a budget that remembers by it, and what the jump put far ahead comes near with the
/// sweeper's next look.
pub(super) const APART: Duration = Duration::from_secs(62);

/// One world, one service, one seed.
pub(super) struct Sim<'m> {
    pub(super) memory: &'m Memory,
    pub(super) seed: u64,
    /// Whether anything goes wrong: restarts, trouble, jumps, lies.
    pub(super) faults: bool,
    /// Webhooks that get lost, in percent.
    pub(super) loss: u8,
    /// When it is over.
    pub(super) ends_at: Duration,
    pub(super) chance: Rng,
    pub(super) clock: Arc<SimClock>,
    pub(super) world: Arc<World>,
    pub(super) rules: Arc<Rules>,
    pub(super) service: Option<Service>,
    pub(super) checker: Checker,
    pub(super) queue: BinaryHeap<Reverse<Queued>>,
    pub(super) queued: u64,
    pub(super) permits: HashMap<u64, Permit>,
    pub(super) asked: Vec<GenerationId>,
    /// When the sweeper wakes.
    pub(super) wakes_at: Duration,
    /// When the calendar jumped, and when the process started.
    pub(super) jumped_at: Option<Duration>,
    pub(super) started_at: Duration,
    pub(super) disturbed_at: Duration,
    /// What each order came to: sold and told so, by its key.
    pub(super) orders: HashMap<String, bool>,
    /// Since when a purchase without a key has no answer that says what became of it, by its body.
    pub(super) unanswered: HashMap<[u8; 32], Duration>,
    /// Clients poll for what they buy.
    pub(super) polling: bool,
    /// When a client that polls heard of the outcome, by its place in the ledger.
    pub(super) heard: HashMap<usize, Duration>,
    /// What happened so far: what the queue brought, turns of the sweeper, and reads that were begun.
    pub(super) events: u64,
    pub(super) doing: String,
    pub(super) hash: Sha256,
}

impl<'m> Sim<'m> {
    pub(super) async fn new(memory: &'m Memory, seed: u64, faults: bool, ends_at: Duration) -> Result<Self, SimError> {
        let webhooks = Webhooks::Expected;
        Self::with_rules(memory, seed, faults, ends_at, Rules { webhooks, ..crate::config::Config::default().rules() })
            .await
    }

    pub(super) async fn with_rules(
        memory: &'m Memory,
        seed: u64,
        faults: bool,
        ends_at: Duration,
        rules: Rules,
    ) -> Result<Self, SimError> {
        let mut chance = Rng::with_seed(seed);
        let clock = Arc::new(SimClock::default());
        let per_minute = usize::try_from(PER_MINUTE).unwrap_or(usize::MAX);
        let world = Arc::new(World::new(chance.u64(..), Arc::clone(&clock), per_minute));
        let rules = Arc::new(rules);
        let service = Service::start(memory, &world, &clock, &rules).await?;
        let loss = [0, 2, 20, 60, 100][chance.usize(0..5)];
        Ok(Self {
            memory,
            seed,
            faults,
            loss,
            ends_at,
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
            unanswered: HashMap::new(),
            polling: false,
            heard: HashMap::new(),
            events: 0,
            doing: String::new(),
            hash: Sha256::new(),
        })
    }

    pub(super) fn push(&mut self, at: Duration, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse(Queued { at, nth: self.queued, event }));
    }

    pub(super) fn some_time(&mut self, within: Duration) -> Duration {
        within.mul_f64(self.chance.f64())
    }

    pub(super) async fn step(&mut self, at: Duration, event: Event) -> Result<(), SimError> {
        if at > self.ends_at || (matches!(event, Event::Sweep) && at != self.wakes_at) {
            return Ok(());
        }
        self.events += 1;
        self.clock.move_to(at);
        self.doing = format!("{event:?} at {at:?}");
        self.hash.update(&self.doing);
        let woken = matches!(event, Event::Sweep);
        let step = if matches!(event, Event::Webhook { .. } | Event::Answer { .. }) { Step::Word } else { Step::Time };
        self.act(at, event).await?;
        self.look(step).await?;
        // What fell due is looked at as the sweeper would: at once.
        if self.wakes_at <= at {
            self.events += u64::from(!woken);
            self.sweep(at).await?;
            self.look(Step::Time).await?;
        }
        Ok(())
    }

    async fn act(&mut self, at: Duration, event: Event) -> Result<(), SimError> {
        match event {
            Event::Buy { key, prompt, asked } => self.buy(at, key, prompt, asked).await,
            Event::Order { prompt, product } => self.order(at, prompt, product).await,
            Event::Poll(waiting) => self.poll(at, waiting).await,
            Event::Webhook { sold, ping, attempt } => self.webhook(at, sold, ping, attempt).await,
            Event::Answer { permit } => self.answer(permit).await,
            Event::Sweep => Ok(()),
            Event::Ask { about } => self.ask(at, about).await,
            Event::Forge => self.forge(),
            Event::Restart { down } => {
                self.restart(at, down);
                Ok(())
            }
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

    fn restart(&mut self, at: Duration, down: Duration) {
        if let Some(jumped) = self.jumped_at.filter(|jumped| at < *jumped + APART) {
            self.push(jumped + APART, Event::Restart { down });
            return;
        }
        self.die();
        self.push(at + down, Event::Up);
    }

    /// kill -9: what was not committed is gone, what was under way is forgotten.
    pub(super) fn die(&mut self) {
        self.service = None;
        self.permits.clear();
        self.asked.clear();
        self.wakes_at = Duration::MAX;
        self.world.inner().forget_rest();
    }

    pub(super) async fn up(&mut self, at: Duration) -> Result<(), SimError> {
        if self.service.is_none() {
            self.service = Some(Service::start(self.memory, &self.world, &self.clock, &self.rules).await?);
            (self.started_at, self.disturbed_at) = (at, at);
            self.look_at_all().await?;
            self.wake(at);
        }
        Ok(())
    }

    /// What the sweeper does when it wakes.
    async fn sweep(&mut self, at: Duration) -> Result<(), SimError> {
        self.wakes_at = Duration::MAX;
        let Some(service) = &self.service else { return Ok(()) };
        let more = service.reconciler.turn().await?;
        let mut permits = Vec::new();
        while let Some(permit) = service.reconciler.next().await? {
            permits.push(permit);
        }
        let next = service.reconciler.next_look().await?;
        let pause = next.map_or(Duration::MAX, |next| next.since(self.clock.now()));
        for permit in permits {
            self.begin(at, permit)?;
        }
        if more {
            self.wake(at + Duration::from_millis(1));
        }
        if pause < Duration::MAX {
            // As the sweeper does: what is due and under way already wakes it when it ends.
            let shortest = if self.permits.is_empty() { Duration::ZERO } else { Duration::from_millis(100) };
            self.wake(at + pause.max(shortest).max(Duration::from_millis(1)));
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, at: Duration, permit: Permit) -> Result<(), SimError> {
        self.events += 1;
        self.world.read_begins();
        let ids = permit.generations();
        let twice = ids.iter().any(|id| self.asked.contains(id));
        self.hold(!twice, "a read under way is not made twice", || format!("{ids:?}"))?;
        self.asked.extend(&ids);
        let again = self.faults && self.chance.u8(0..20) == 0;
        if let Some(id) = ids.first().filter(|_| again) {
            self.push(at + Duration::from_millis(10), Event::Ask { about: Some(*id) });
        }
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
        let ids = permit.generations();
        service.reconciler.finish(permit).await?;
        self.asked.retain(|asked| !ids.contains(asked));
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
        loop {
            match service.changes.try_recv() {
                Ok(news) => {
                    for change in news.iter() {
                        if !changed.contains(&change.id) {
                            changed.push(change.id);
                        }
                    }
                }
                // More changed than is kept for a slow listener: what was missed is looked at with its next change, or at the end.
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        for id in changed {
            self.look_at(id, step).await?;
        }
        Ok(())
    }

    /// Looks at everything that is known.
    pub(super) async fn look_at_all(&mut self) -> Result<(), SimError> {
        let all: Vec<_> = self.checker.known().map(|known| known.id).collect();
        for id in all {
            self.look_at(id, Step::Word).await?;
        }
        Ok(())
    }

    async fn look_at(&mut self, id: GenerationId, step: Step) -> Result<(), SimError> {
        let Some(service) = &self.service else { return Ok(()) };
        let Some((generation, audit)) = service.store.audit(id).await? else {
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

    pub(super) fn hold(&self, holds: bool, rule: &'static str, how: impl FnOnce() -> String) -> Result<(), SimError> {
        if holds { Ok(()) } else { Err(self.broken((rule, how()))) }
    }

    pub(super) fn broken(&self, (rule, how): Fault) -> SimError {
        let broken = Broken { seed: self.seed, event: self.events, doing: self.doing.clone(), rule, how };
        SimError::Broken(Box::new(broken))
    }
}
