//! Clients that poll: counted in memory, and where it is worth it the first read of what they wait for is made due.
//!
//! Never asks the provider: what is due is read by the sweeper, out of the budget and in its turn. Forgetting everything, as a
//! restart does, costs a read here and there.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::generation::Generation;
use crate::domain::id::GenerationId;
use crate::domain::poll::{Poll, READS_APART};
use crate::domain::schedule::Rules;
use crate::provider::budget::Budget;
use crate::store::{Store, StoreError};

/// Who has not polled for so long has gone: the provider's own client polls every ten seconds at most.
const GONE_AFTER: Duration = Duration::from_secs(20);
/// Who waits with `?wait` polls once a minute: when it was read last is remembered for longer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(150);
/// How often those who have gone are looked for.
const SWEPT_EVERY: Duration = Duration::from_secs(1);
/// Polls of one generation that are considered lie so far apart: who polls in a loop keeps the writer from nothing.
const CONSIDERED_EVERY: Duration = Duration::from_secs(1);
/// Generations remembered; polls of more cause no reads.
const REMEMBERED_MAX: usize = 10_000;
/// Reads are counted for so long.
const MINUTE: Duration = Duration::from_mins(1);

/// Counts who polls, and pulls first reads forward.
#[derive(Clone, Debug)]
pub struct Polls {
    /// Where everything is kept.
    pub store: Store,
    /// How it is judged.
    pub rules: Arc<Rules>,
    /// How often may be asked.
    pub budget: Arc<Budget>,
    /// When it is.
    pub clock: Arc<dyn Clock>,
    /// Whether anything is read by itself: `reconcile.enabled`.
    pub enabled: bool,
    /// Who polls.
    pub seen: Seen,
}

/// Who polls what, and what that brought lately; in time that does not jump.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    polled: HashMap<GenerationId, Polled>,
    /// How many of them are polled at present: counted when swept, and with every new one.
    waiting: u32,
    swept_at: Option<Duration>,
    /// The reads of the last minute that polls caused.
    pulled: VecDeque<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Polled {
    at: Duration,
    considered_at: Option<Duration>,
    pulled_at: Option<Duration>,
}

impl Polls {
    /// A client has asked where `generation` stands. It does not wait for a read: what that brings it is told the next time.
    pub async fn note(&self, generation: &Generation) {
        if let Err(error) = self.pull(generation).await {
            // The client loses nothing by it: the first read comes when it would have come anyway.
            tracing::warn!(generation = %generation.id, %error, "a poll could not pull a read forward");
        }
    }

    /// As [`Self::note`]; tells whether a read was made due.
    ///
    /// # Errors
    /// [`StoreError`] when that was not kept.
    pub async fn pull(&self, generation: &Generation) -> Result<bool, StoreError> {
        let now = self.clock.now();
        if !self.enabled || !self.rules.expects_first_read(generation, now) || !self.budget.wait().is_zero() {
            return Ok(false);
        }
        let at = self.clock.monotonic();
        let Some(poll) = self.consider(generation.id, at) else { return Ok(false) };
        let pulled = self.store.poll(&self.rules, generation.id, poll, now).await;
        let mut memory = self.memory();
        if !matches!(pulled, Ok(true)) {
            memory.give_back(at);
        } else if let Some(polled) = memory.polled.get_mut(&generation.id) {
            polled.pulled_at = Some(at);
        }
        drop(memory);
        pulled
    }

    /// Remembers a poll, and counts a read for it until it is decided: many that poll in the same moment do not all take the same
    /// place. `None` where it is too early for another read or there are too many to remember.
    fn consider(&self, id: GenerationId, at: Duration) -> Option<Poll> {
        let (used, rate) = (self.budget.used(), self.budget.rate());
        let mut memory = self.memory();
        memory.forget(at);
        let room = memory.polled.len() < REMEMBERED_MAX;
        let known = memory.polled.get(&id).copied();
        if known.is_none() && !room {
            return None;
        }
        if known.is_none() {
            memory.waiting += 1;
        }
        let mut polled = known.unwrap_or(Polled { at, considered_at: None, pulled_at: None });
        let since = |earlier: Option<Duration>| earlier.map(|earlier| at.saturating_sub(earlier));
        let is_early = since(polled.considered_at).is_some_and(|ago| ago < CONSIDERED_EVERY);
        let read_ago = since(polled.pulled_at);
        let is_early = is_early || read_ago.is_some_and(|ago| ago < READS_APART);
        polled.at = at;
        if !is_early {
            polled.considered_at = Some(at);
        }
        memory.polled.insert(id, polled);
        // What polls made due and nobody has read yet counts as read.
        let used = used.max(memory.pulled.len());
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        if is_early {
            return None;
        }
        memory.pulled.push_back(at);
        Some(Poll { read_ago, polled: memory.waiting, reads_used: number(used), reads_per_minute: rate })
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.seen.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// A poll caused no read after all.
    fn give_back(&mut self, at: Duration) {
        if let Some(place) = self.pulled.iter().rposition(|pulled| *pulled == at) {
            self.pulled.remove(place);
        }
    }

    fn forget(&mut self, at: Duration) {
        while self.pulled.front().is_some_and(|pulled| *pulled + MINUTE <= at) {
            self.pulled.pop_front();
        }
        if self.swept_at.is_none_or(|swept_at| at >= swept_at + SWEPT_EVERY) {
            self.swept_at = Some(at);
            self.polled.retain(|_, polled| at.saturating_sub(polled.at) < FORGOTTEN_AFTER);
            let waiting = self.polled.values().filter(|polled| at.saturating_sub(polled.at) < GONE_AFTER).count();
            self.waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        }
    }
}
