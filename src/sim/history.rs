//! One history: a random world by one seed, event after event.

use std::cmp::Reverse;
use std::time::Duration;

use sha2::Digest;

use super::SimError;
use super::check::Checker;
use super::event::Event;
use super::machine::{APART, Sim};
use super::world::{Lists, Mood};
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
    /// SHA-256 over every event and every change it made.
    pub hash: String,
    /// What happened in it: what the queue brought, turns of the sweeper, and reads that were begun.
    pub events: u64,
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
/// Runs the history of a seed.
///
/// # Errors
/// [`SimError::Broken`] says which invariant broke and how to see it again.
pub async fn run(memory: &mut Memory, seed: u64, settings: Settings) -> Result<History, SimError> {
    memory.clear().await?;
    crate::domain::id::seed(seed);
    let mut sim = Sim::new(memory, seed, settings.faults, END).await?;
    sim.plan(settings);
    while let Some(Reverse(next)) = sim.queue.pop() {
        sim.step(next.at, next.event).await?;
    }
    sim.conclude().await
}

impl Sim<'_> {
    /// Everything that happens by chance is decided before it begins.
    fn plan(&mut self, settings: Settings) {
        // In every other world clients poll for what they buy.
        self.polling = self.seed.is_multiple_of(2);
        // Sometimes all at once: more than the budget can follow.
        let burst = self.chance.u8(0..12) == 0;
        let (buying, purchases) =
            if burst { (BUYING / 40, settings.purchases * 10) } else { (BUYING, settings.purchases) };
        for n in 0..purchases {
            let at = self.some_time(buying);
            let key = self.chance.bool().then(|| format!("key-{n}"));
            let prompt = format!("order {n}");
            // Some send it again: with their key, or because they heard nothing.
            if self.chance.u8(0..3) == 0 {
                let again = at + self.some_time(Duration::from_mins(3));
                self.push(again, Event::Buy { key: key.clone(), prompt: prompt.clone(), asked: None });
            }
            self.push(at, Event::Buy { key, prompt, asked: None });
        }
        self.world.inner().lists = [Lists::None, Lists::Documented, Lists::Own][self.chance.usize(0..3)];
        if !self.faults {
            return;
        }
        self.world.inner().lags = [0, 0, 20, 100];
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
            let at = self.some_time(TROUBLE_ENDS.saturating_sub(Duration::from_mins(20)));
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
            self.push(at, Event::Ask { about: None });
            let at = self.some_time(TROUBLE_ENDS);
            self.push(at, Event::Forge);
        }
        self.push(TROUBLE_ENDS, Event::Mood(Mood::Well));
        self.push(TROUBLE_ENDS + APART, Event::SetRight);
    }

    /// Everything is over.
    async fn conclude(mut self) -> Result<History, SimError> {
        self.clock.move_to(END);
        self.up(END).await?;
        let sold = self.world.inner().sold.clone();
        for sold in &sold {
            let own = self.checker.get(sold.intent);
            Checker::conclude(sold, own, self.jumped_at.is_some()).map_err(|fault| self.broken(fault))?;
        }
        let reads = self.world.inner().reads_total;
        Ok(History { hash: hex::encode(self.hash.finalize()), events: self.events, reads, sold: sold.len() })
    }
}
