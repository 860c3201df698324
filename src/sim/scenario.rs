//! Measured worlds: nothing goes wrong in them but lost webhooks, so that what the reads bring can be counted.

use std::cmp::Reverse;
use std::time::Duration;

use super::SimError;
use super::event::Event;
use super::machine::Sim;
use super::service::PER_MINUTE;
use super::world::Sold;
use crate::domain::time::Time;
use crate::store::Memory;

/// What O3 video offers; clients buy them evenly.
pub(super) const OFFERS: [(&str, u32); 6] = [
    ("kling_o3", 5),
    ("kling_o3", 10),
    ("kling_o3", 15),
    ("kling_o3_pro", 5),
    ("kling_o3_pro", 10),
    ("kling_o3_pro", 15),
];

/// A world to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its chances.
    pub seed: u64,
    /// Bought at once, at the beginning.
    pub at_once: u32,
    /// Bought one after the other from then on.
    pub later: u32,
    /// So many of those a minute.
    pub later_per_minute: u32,
    /// Lost webhooks in percent.
    pub loss: u8,
    /// Of so many one takes up to twice as long as documented; 0 for none.
    pub slow_one_in: u8,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Generations bought.
    pub generations: usize,
    /// Of them without an outcome in the end.
    pub unsettled: usize,
    /// Of them without a webhook.
    pub lost: usize,
    /// Reads that recoup made; the budget of every sliding minute was looked at at each.
    pub reads: u64,
    /// Reads that a client makes who polls each generation as the provider documents.
    pub documented_reads: u64,
    /// Most generations open at a time.
    pub open_max: usize,
    /// From the end of their documented time to when the lost ones were found, shortest first.
    pub found_after: Vec<Duration>,
    /// From when it could be asked about first to the first read, of those bought later, shortest first.
    pub first_looks: Vec<Duration>,
    /// From when the last of those bought at once was due to when the last of them was found.
    pub backlog: Duration,
}

impl Measured {
    /// The share of lost ones that were found so soon after the end of their documented time.
    pub fn found_within(&self, span: Duration) -> f64 {
        let found = self.found_after.iter().filter(|after| **after <= span).count();
        share(found, self.found_after.len())
    }

    /// The reads for each generation.
    pub fn reads_each(&self) -> f64 {
        share(usize::try_from(self.reads).unwrap_or(usize::MAX), self.generations)
    }

    /// The same of the client that polls.
    pub fn documented_reads_each(&self) -> f64 {
        share(usize::try_from(self.documented_reads).unwrap_or(usize::MAX), self.generations)
    }
}

/// So many percent of a sorted list are no longer.
pub fn at_most(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "counts of a few hundred thousand")]
pub(super) fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// How long it takes to ask about so many once, when so many a minute are taken by others.
pub fn unavoidable(generations: u32, others_per_minute: u32) -> Duration {
    let left = PER_MINUTE.saturating_sub(others_per_minute).max(1);
    Duration::from_mins(1).mul_f64(f64::from(generations) / f64::from(left))
}

/// Runs it.
///
/// # Errors
/// [`SimError::Broken`] when an invariant breaks, the budget among them.
pub async fn measure(memory: &mut Memory, scenario: Scenario) -> Result<Measured, SimError> {
    memory.clear().await?;
    crate::domain::id::seed(scenario.seed);
    let mut sim = Sim::new(memory, scenario.seed, false, Duration::MAX).await?;
    sim.loss = scenario.loss;
    sim.world.inner().slow_one_in = scenario.slow_one_in;
    for n in 0..scenario.at_once + scenario.later {
        let later = n.saturating_sub(scenario.at_once);
        let at = Duration::from_mins(1) * later / scenario.later_per_minute.max(1);
        let asked = Some(OFFERS[sim.chance.usize(0..OFFERS.len())]);
        sim.push(at, Event::Buy { key: None, prompt: format!("order {n}"), asked });
    }
    while let Some(Reverse(next)) = sim.queue.pop() {
        sim.step(next.at, next.event).await?;
    }
    sim.look_at_all().await?;
    Ok(evaluate(&sim, scenario))
}

fn evaluate(sim: &Sim<'_>, scenario: Scenario) -> Measured {
    let sold = sim.world.inner().sold.clone();
    let settled_at = |sold: &Sold| sim.checker.get(sold.intent)?.state.settled_at();
    let due_at = |sold: &Sold| Some(sim.checker.get(sold.intent)?.expected_by? + sim.rules.grace);
    let lost = || sold.iter().filter(|sold| sold.purchase.plan.webhooks.is_empty());
    let mut found_after: Vec<_> =
        lost().filter_map(|sold| Some(settled_at(sold)?.since(documented_end(sold)))).collect();
    found_after.sort_unstable();
    let at_once = usize::try_from(scenario.at_once).unwrap_or(usize::MAX).min(sold.len());
    let (first, later) = sold.split_at(at_once);
    let mut first_looks: Vec<_> =
        later.iter().filter_map(|sold| Some(sold.purchase.reads.first()?.since(due_at(sold)?))).collect();
    first_looks.sort_unstable();
    let last_due = first.iter().filter_map(due_at).max();
    let last_found = first.iter().filter_map(settled_at).max();
    Measured {
        generations: sold.len(),
        unsettled: sold.iter().filter(|sold| settled_at(sold).is_none()).count(),
        lost: lost().count(),
        reads: sim.world.inner().reads_total,
        documented_reads: sold.iter().map(documented_reads).sum(),
        open_max: open_max(&sold, settled_at),
        found_after,
        first_looks,
        backlog: last_found.zip(last_due).map(|(found, due)| found.since(due)).unwrap_or_default(),
    }
}

/// The end of the time that the provider documents for it.
fn documented_end(sold: &Sold) -> Time {
    let purchase = &sold.purchase;
    purchase.bought_at + purchase.family.expected(Some(&purchase.model), purchase.seconds).to
}

/// The provider's advice (provider.md section 3): the first read after ten seconds, then steps of five that grow to fifteen.
fn documented_reads(sold: &Sold) -> u64 {
    let takes = sold.purchase.ends_at.since(sold.purchase.bought_at);
    let (mut at, mut step, mut reads) = (Duration::from_secs(10), Duration::from_secs(5), 1);
    while at < takes {
        at += step;
        step = (step + Duration::from_secs(1)).min(Duration::from_secs(15));
        reads += 1;
    }
    reads
}

fn open_max(sold: &[Sold], settled_at: impl Fn(&Sold) -> Option<Time>) -> usize {
    let began = sold.iter().map(|sold| (sold.purchase.bought_at, true));
    let mut turns: Vec<_> = began.chain(sold.iter().filter_map(|sold| Some((settled_at(sold)?, false)))).collect();
    turns.sort_unstable();
    let (mut open, mut most) = (0_usize, 0);
    for (_, begins) in turns {
        open = if begins { open + 1 } else { open.saturating_sub(1) };
        most = most.max(open);
    }
    most
}
