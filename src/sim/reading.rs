//! The world without a public address: no webhook ever comes, nobody polls, and outcomes are read. Measured is how far behind the
//! provider they are found.

use std::cmp::Reverse;
use std::time::Duration;

use super::SimError;
use super::event::Event;
use super::machine::Sim;
use super::scenario::{OFFERS, share};
use crate::config::Config;
use crate::domain::schedule::{Rules, Webhooks};
use crate::store::Memory;

/// The world.
#[derive(Clone, Copy, Debug)]
pub struct ReadingScenario {
    /// Of its chances.
    pub seed: u64,
    /// Generations of O3 video that are bought, one after the other.
    pub bought: u32,
    /// So many a minute.
    pub per_minute: u32,
    /// Only the shortest one is bought: five seconds in standard, two to three minutes.
    pub shortest_only: bool,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct ReadBehind {
    /// Generations bought.
    pub generations: usize,
    /// Of them without an outcome in the end.
    pub unsettled: usize,
    /// Reads that recoup made; the budget of every sliding minute was looked at at each.
    pub reads: u64,
    /// From when the provider was done to when that was known, shortest first.
    pub behind: Vec<Duration>,
}

impl ReadBehind {
    /// The reads for each generation.
    pub fn reads_each(&self) -> f64 {
        share(usize::try_from(self.reads).unwrap_or(usize::MAX), self.generations)
    }
}

/// Runs it.
///
/// # Errors
/// [`SimError::Broken`] when an invariant breaks, the budget among them.
pub async fn measure_reading(memory: &mut Memory, scenario: ReadingScenario) -> Result<ReadBehind, SimError> {
    memory.clear().await?;
    crate::domain::id::seed(scenario.seed);
    let rules = Rules { webhooks: Webhooks::NotExpected, ..Config::default().rules() };
    let mut sim = Sim::with_rules(memory, scenario.seed, false, Duration::MAX, rules).await?;
    // Without a callback URL there is none to send.
    sim.loss = 100;
    sim.world.inner().slow_one_in = 0;
    for n in 0..scenario.bought {
        let at = Duration::from_mins(1) * n / scenario.per_minute.max(1);
        let offer = if scenario.shortest_only { 0 } else { sim.chance.usize(0..OFFERS.len()) };
        sim.push(at, Event::Buy { key: None, prompt: format!("order {n}"), asked: Some(OFFERS[offer]) });
    }
    while let Some(Reverse(next)) = sim.queue.pop() {
        sim.step(next.at, next.event).await?;
    }
    sim.look_at_all().await?;
    let sold = sim.world.inner().sold.clone();
    let ended_at = |id: &str| sold.iter().find(|sold| sold.purchase.id == id).map(|sold| sold.purchase.ends_at);
    let behind = sim.checker.known().filter_map(|known| {
        let ended_at = ended_at(known.provider_id.as_ref()?.as_str())?;
        Some(known.state.settled_at()?.since(ended_at))
    });
    let mut behind: Vec<_> = behind.collect();
    behind.sort_unstable();
    let reads = sim.world.inner().reads_total;
    Ok(ReadBehind { generations: sold.len(), unsettled: sold.len() - behind.len(), reads, behind })
}
