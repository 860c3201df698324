//! A world of clients that poll, as the provider's own does: what their polls cost in reads, and when they hear of what no webhook
//! told.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::SimError;
use super::event::Event;
use super::machine::Sim;
use super::scenario::{at_most, share};
use super::world::Sold;
use crate::domain::family::{FAMILIES, Family};
use crate::domain::id::ProviderId;
use crate::store::Memory;

/// A world of pollers.
#[derive(Clone, Copy, Debug)]
pub struct Pollers {
    /// Its chances.
    pub seed: u64,
    /// What they buy.
    pub kinds: Kinds,
    /// How many.
    pub bought: u32,
    /// So many a minute.
    pub per_minute: u32,
    /// Lost webhooks in percent.
    pub loss: u8,
    /// Of so many one takes up to twice as long as documented; 0 for none.
    pub slow_one_in: u8,
    /// Whether polls pull first reads forward.
    pub pulls: bool,
}

/// What is bought in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// O3 video in its six offers, evenly.
    O3,
    /// Every family, model and duration of the table, evenly.
    All,
    /// Every family evenly, and within it every model and duration.
    Families,
    /// This one of all of them.
    One(usize),
}

/// What is done later than so long before a client's patience ends cannot be heard of well before.
const LAST_MINUTE: Duration = Duration::from_mins(1);

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct MeasuredPolls {
    /// Generations bought.
    pub generations: usize,
    /// Of them without an outcome in the end.
    pub unsettled: usize,
    /// Reads that recoup made; the budget of every sliding minute was looked at at each.
    pub reads: u64,
    /// The lost ones that were done a minute before their clients' patience ended.
    pub lost: Heard,
    /// Those that were done in the last minute.
    pub last_minute: Heard,
    /// The same of each kind.
    pub kinds: BTreeMap<String, Heard>,
}

/// When clients heard of what no webhook told.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Generations.
    pub of: usize,
    /// How long behind the provider those heard of it who still were there, shortest first.
    pub behind: Vec<Duration>,
    /// How long before the end of their patience, shortest first.
    pub left: Vec<Duration>,
}

impl Heard {
    /// The share that was heard of in time.
    pub fn in_time(&self) -> f64 {
        share(self.behind.len(), self.of)
    }

    fn add(&mut self, behind: Option<Duration>, left: Duration) {
        self.of += 1;
        if let Some(behind) = behind {
            self.behind.push(behind);
            self.left.push(left);
        }
    }

    fn sort(&mut self) {
        self.behind.sort_unstable();
        self.left.sort_unstable();
    }

    /// So many percent heard of it no longer behind the provider.
    pub fn behind(&self, percent: usize) -> Duration {
        at_most(&self.behind, percent)
    }
}

impl MeasuredPolls {
    /// The reads for each generation.
    pub fn reads_each(&self) -> f64 {
        share(usize::try_from(self.reads).unwrap_or(usize::MAX), self.generations)
    }
}

/// What can be bought: a model, and its seconds where it has any.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) family: &'static Family,
    pub(super) model: &'static str,
    pub(super) seconds: Option<u32>,
}

impl Product {
    fn name(self) -> String {
        let seconds = self.seconds.map(|seconds| format!(" {seconds} s")).unwrap_or_default();
        format!("{} {}{seconds}", self.family.path, self.model)
    }
}

/// Everything of a family.
pub(super) fn products(family: &'static Family) -> Vec<Product> {
    let of = |model: &'static crate::domain::family::Model| {
        let seconds = model.offers.iter().map(|offer| Some(offer.seconds));
        let seconds: Vec<_> = if model.offers.is_empty() { vec![None] } else { seconds.collect() };
        seconds.into_iter().map(|seconds| Product { family, model: model.name, seconds })
    };
    family.models.iter().flat_map(of).collect()
}

/// How the provider's own client polls (provider.md section 13).
#[derive(Clone, Copy, Debug)]
struct Client {
    first: Duration,
    longest: Duration,
    patience: Duration,
}

fn client(family: &Family) -> Client {
    let of = |first, longest, patience| Client {
        first: Duration::from_secs(first),
        longest: Duration::from_secs(longest),
        patience: Duration::from_mins(patience),
    };
    match family.path {
        "gemini" => of(1, 5, 5),
        "chatgpt-images" => of(2, 10, 5),
        "veo" => of(3, 15, 10),
        _ => of(2, 10, 10),
    }
}

/// A client that waits for one generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) sold: usize,
    pub(super) since: Duration,
    delay: Duration,
}

impl Sim<'_> {
    /// The client of what was just sold begins to poll.
    pub(super) fn begin_polling(&mut self, at: Duration, sold: usize) {
        let delay = client(self.world.inner().sold[sold].purchase.family).first;
        self.push(at, Event::Poll(Waiting { sold, since: at, delay }));
    }

    /// A client asks where its generation stands, and again later unless it is over.
    pub(super) async fn poll(&mut self, at: Duration, waiting: Waiting) -> Result<(), SimError> {
        let (family, id) = {
            let inner = self.world.inner();
            let purchase = &inner.sold[waiting.sold].purchase;
            (purchase.family, purchase.id.clone())
        };
        let client = client(family);
        let left = (waiting.since + client.patience).saturating_sub(at);
        let known = match (&self.service, ProviderId::parse(&id)) {
            (Some(service), Ok(id)) => service.store.generation_in(family, &id).await?,
            _ => None,
        };
        if let (Some(service), Some(known)) = (&self.service, &known) {
            if known.state.settled_at().is_some() {
                self.heard.insert(waiting.sold, at);
                return Ok(());
            }
            service.polls.pull(known).await?;
        }
        if !left.is_zero() {
            let delay = (waiting.delay.mul_f64(1.5)).min(client.longest);
            self.push(at + waiting.delay.min(left), Event::Poll(Waiting { delay, ..waiting }));
        }
        Ok(())
    }
}

/// Runs it.
///
/// # Errors
/// [`SimError::Broken`] when an invariant breaks, the budget among them.
pub async fn measure_pollers(memory: &mut Memory, world: Pollers) -> Result<MeasuredPolls, SimError> {
    memory.clear().await?;
    crate::domain::id::seed(world.seed);
    let mut sim = Sim::new(memory, world.seed, false, Duration::MAX).await?;
    sim.loss = world.loss;
    if let Some(service) = &mut sim.service {
        service.polls.enabled = world.pulls;
    }
    sim.world.inner().slow_one_in = world.slow_one_in;
    let all: Vec<_> = FAMILIES.iter().flat_map(products).collect();
    let o3 = products(&FAMILIES[0]);
    for n in 0..world.bought {
        let at = Duration::from_mins(1) * n / world.per_minute.max(1);
        let one_of = |products: &[Product], chance: &mut fastrand::Rng| products[chance.usize(0..products.len())];
        let product = match world.kinds {
            Kinds::O3 => one_of(&o3, &mut sim.chance),
            Kinds::All => one_of(&all, &mut sim.chance),
            Kinds::Families => {
                let family = &FAMILIES[sim.chance.usize(0..FAMILIES.len())];
                one_of(&products(family), &mut sim.chance)
            }
            Kinds::One(n) => all[n % all.len()],
        };
        sim.push(at, Event::Order { prompt: format!("order {n}"), product });
    }
    while let Some(Reverse(next)) = sim.queue.pop() {
        sim.step(next.at, next.event).await?;
    }
    sim.look_at_all().await?;
    Ok(evaluate(&sim))
}

fn evaluate(sim: &Sim<'_>) -> MeasuredPolls {
    let sold = sim.world.inner().sold.clone();
    let is_settled = |sold: &Sold| sim.checker.get(sold.intent).and_then(|own| own.state.settled_at()).is_some();
    let mut measured = MeasuredPolls {
        generations: sold.len(),
        unsettled: sold.iter().filter(|sold| !is_settled(sold)).count(),
        reads: sim.world.inner().reads_total,
        ..MeasuredPolls::default()
    };
    for (n, sold) in sold.iter().enumerate() {
        let purchase = &sold.purchase;
        let takes = purchase.ends_at.since(purchase.bought_at);
        let patience = client(purchase.family).patience;
        if !purchase.plan.webhooks.is_empty() || takes >= patience {
            continue;
        }
        let took = sim.heard.get(&n).map(|at| super::clock::since_start(*at).since(purchase.bought_at));
        let behind = took.map(|took| took.saturating_sub(takes));
        let left = patience.saturating_sub(took.unwrap_or(patience));
        if takes + LAST_MINUTE > patience {
            measured.last_minute.add(behind, left);
            continue;
        }
        measured.lost.add(behind, left);
        let model = FAMILIES.iter().flat_map(products).find(|product| {
            product.family == purchase.family && product.model == purchase.model && product.seconds == purchase.seconds
        });
        measured.kinds.entry(model.map(Product::name).unwrap_or_default()).or_default().add(behind, left);
    }
    measured.lost.sort();
    measured.last_minute.sort();
    measured.kinds.values_mut().for_each(Heard::sort);
    measured
}
