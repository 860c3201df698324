//! A due check: the provider asked, its answer understood, decided, settled.
//!
//! What to ask about comes from the due list in the database, how often from the budget. Who calls this, and when, is
//! `worker/sweep.rs`.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tracing::{Instrument, Span};

use super::lists::{ListChoice, Lists};
use super::under_way::{Place, Shared, UnderWay};
use crate::clock::{Clock, JumpWatch};
use crate::domain::decision::{Answer, Told};
use crate::domain::id::{CheckId, GenerationId};
use crate::domain::lanes::Lanes;
use crate::domain::listing;
use crate::domain::schedule::Rules;
use crate::domain::time::Time;
use crate::planted;
use crate::provider::budget::{Budget, IN_FLIGHT_MAX, Slot, Spent};
use crate::provider::{ListAnswer, Listing, Provider};
use crate::store::{ListRead, Reading, Store, StoreError};
use crate::telemetry::meters;

/// Candidates looked at for every read that can be made: enough that the lanes have a choice.
const CANDIDATES: u32 = 64;
/// Generations told of the time in one transaction.
const TURNS: u32 = 200;
/// People's own requests that may wait for a read.
const ASKS_MAX: usize = 64;
/// A purchase whose answer has not come for so long is looked for.
pub(super) const LATE_ANSWER: Duration = Duration::from_secs(20);
/// What a read may take beyond the request's own time limit, before it counts as dead.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Keeps an eye on everything that is open.
#[derive(Debug)]
pub struct Reconciler {
    store: Store,
    provider: Arc<dyn Provider>,
    rules: Arc<Rules>,
    budget: Arc<Budget>,
    clock: Arc<dyn Clock>,
    lanes: Mutex<Lanes>,
    lists: Lists,
    /// When lost purchases are looked for next, in monotonic time.
    look_for_lost_at: StdMutex<Option<Duration>>,
    under_way: UnderWay,
    jumps: StdMutex<JumpWatch>,
    lease: Duration,
}

/// A read that may be made: written down, and taken out of the budget.
#[derive(Debug)]
pub struct Permit {
    target: Target,
    slot: Slot,
}

/// What is read.
#[derive(Debug)]
enum Target {
    /// The status of one generation.
    Status { reading: Reading, place: Place },
    /// A list.
    List { check: CheckId, choice: ListChoice, places: Vec<Place> },
}

impl Permit {
    /// What is asked about.
    pub fn generations(&self) -> Vec<GenerationId> {
        match &self.target {
            Target::Status { reading, .. } => vec![reading.generation.id],
            Target::List { places, .. } => places.iter().map(|place| place.id).collect(),
        }
    }
}

/// Why a read that somebody asked for was not made.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no such generation, or no id to ask about.
    #[error("there is nothing to ask about")]
    Nothing,
    /// The budget is spent, or the provider wants rest.
    #[error(transparent)]
    Spent(#[from] Spent),
    /// The database could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
    /// It is being asked about already.
    #[error("a read is under way")]
    UnderWay(Shared),
    /// The read that was under way did not end well.
    #[error("the read that was under way was not kept")]
    Interrupted,
}

/// A person's request for a read, and where to answer it.
#[derive(Debug)]
pub struct Ask {
    /// What to ask about.
    pub id: GenerationId,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<CheckId, AskError>>,
    /// The request it came in.
    pub span: Span,
}

/// Where people's requests for a read are handed in.
#[derive(Clone, Debug)]
pub struct Asks(mpsc::Sender<Ask>);

impl Asks {
    /// The two ends: one for the API, one for the worker.
    pub fn channel() -> (Self, mpsc::Receiver<Ask>) {
        let (sender, receiver) = mpsc::channel(ASKS_MAX);
        (Self(sender), receiver)
    }

    /// Asks the provider about one generation now, out of the same budget.
    ///
    /// # Errors
    /// [`AskError`] says why it was not asked.
    pub async fn check(&self, id: GenerationId) -> Result<CheckId, AskError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Ask { id, answer, span: Span::current() }).await.map_err(|_| AskError::Stopping)?;
        answered.await.unwrap_or(Err(AskError::Stopping))
    }
}

impl Reconciler {
    /// A reconciler whose budget remembers the reads before a restart. `timeout`: of one read.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub async fn new(
        store: Store,
        provider: Arc<dyn Provider>,
        rules: Arc<Rules>,
        clock: Arc<dyn Clock>,
        per_minute: u32,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        let now = clock.now();
        store.end_interrupted_checks(&rules, now).await?;
        let reads = store.last_reads(per_minute).await?;
        let ages = reads.into_iter().map(|(sent, answered)| now.since(answered.unwrap_or(sent)));
        let budget = Budget::new(per_minute, Arc::clone(&clock), ages);
        let lease = timeout + LEASE_MARGIN;
        let lanes = Mutex::new(Lanes::new(rules.webhooks));
        Ok(Self {
            store,
            provider,
            rules,
            budget,
            clock,
            lanes,
            lists: Lists::default(),
            look_for_lost_at: StdMutex::default(),
            under_way: UnderWay::default(),
            jumps: StdMutex::default(),
            lease,
        })
    }

    /// The budget, to be looked at.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Tells generations whose time has come that time has passed, so many at once that reads need not wait for the rest. Tells
    /// whether there are more.
    ///
    /// # Errors
    /// [`StoreError`] when that was not kept; it is told again next time.
    pub async fn turn(&self) -> Result<bool, StoreError> {
        if self.clock_has_jumped() {
            self.store.bring_near(&self.rules, self.clock.now()).await?;
        }
        Ok(self.store.turn(&self.rules, TURNS, self.clock.now()).await? == usize::try_from(TURNS).unwrap_or(0))
    }

    fn clock_has_jumped(&self) -> bool {
        self.jumps.lock().unwrap_or_else(PoisonError::into_inner).has_jumped(&*self.clock)
    }

    /// The next due read, if one is due and the budget allows it.
    ///
    /// # Errors
    /// [`StoreError`] when the due list cannot be read or the read cannot be written down.
    pub async fn next(&self) -> Result<Option<Permit>, StoreError> {
        if !self.budget.wait().is_zero() {
            return Ok(None);
        }
        if let Some(permit) = self.next_for_lost().await? {
            return Ok(Some(permit));
        }
        for _ in 0..IN_FLIGHT_MAX {
            let now = self.clock.now();
            let (mut fresh, mut backlog) = self.store.due(CANDIDATES, now).await?;
            fresh.retain(|due| !self.under_way.holds(due.id));
            backlog.retain(|due| !self.under_way.holds(due.id));
            let Some(id) = self.lanes.lock().await.pick(&fresh, &backlog, now) else { return Ok(None) };
            let due: Vec<_> = fresh.iter().chain(&backlog).collect();
            let picked = due.iter().find(|due| due.id == id);
            let choice = picked.and_then(|picked| self.lists.choose_for_due(picked, &due, self.clock.monotonic()));
            if let Some(choice) = choice {
                return self.begin_list(choice).await;
            }
            match self.begin(id, false).await {
                Ok(permit) => return Ok(Some(permit)),
                // Settled or read meanwhile: not sent.
                Err(AskError::Nothing | AskError::UnderWay(_) | AskError::Interrupted) => {}
                Err(AskError::Spent(_) | AskError::Stopping) => return Ok(None),
                Err(AskError::Store(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Takes a read out of the budget and writes it down before it is made.
    ///
    /// # Errors
    /// [`AskError`] says why it may not be made.
    pub async fn begin(&self, id: GenerationId, asked_for: bool) -> Result<Permit, AskError> {
        let place = self.under_way.enter(id).map_err(AskError::UnderWay)?;
        let slot = self.budget.take(asked_for)?;
        match self.store.begin_check(&self.rules, id, asked_for, self.lease, self.clock.now()).await {
            Ok(Some(reading)) => Ok(Permit { target: Target::Status { reading, place }, slot }),
            Ok(None) => {
                slot.give_back();
                Err(AskError::Nothing)
            }
            Err(error) => {
                slot.give_back();
                Err(error.into())
            }
        }
    }

    /// Makes the read and settles what it brings.
    ///
    /// # Errors
    /// [`StoreError`] when the answer was not kept: the read is made again once its lease is over.
    pub async fn finish(&self, permit: Permit) -> Result<CheckId, StoreError> {
        let Permit { target, slot } = permit;
        match target {
            Target::Status { reading, place } => self.finish_status(reading, place, slot).await,
            Target::List { check, choice, places } => self.finish_list(check, choice, &places, slot).await,
        }
    }

    async fn finish_status(&self, reading: Reading, place: Place, slot: Slot) -> Result<CheckId, StoreError> {
        let (generation, family) = (reading.generation.id, reading.generation.family);
        let Some(provider_id) = &reading.generation.provider_id else {
            return Err(StoreError::Failed(format!("a read about {generation}, which has no id")));
        };
        let asking = tracing::info_span!("check.ask", otel.kind = "client", %generation, family = family.path);
        let told = self.provider.status(family, provider_id).instrument(asking).await;
        self.budget.learn(&told);
        drop(slot);
        let http_status = told.http_status.unwrap_or(0);
        meters::check(family, &told.answer);
        tracing::debug!(%generation, http_status, said = told.said, "asked the provider");
        let settling = tracing::info_span!("check.settle", %generation, answer = told.answer.word());
        let decision = self.store.record_answer(&self.rules, &reading, told, self.clock.now());
        let decision = decision.instrument(settling).await?;
        if decision.settled {
            let status = decision.generation.state.status().as_str();
            let recovered = decision.generation.state.learned().is_some_and(|learned| learned.recovered);
            tracing::info!(%generation, status, recovered, "settled by a check");
        }
        place.done.send_replace(Some(reading.check));
        Ok(reading.check)
    }

    /// The next read of a list in which a lost purchase may stand.
    async fn next_for_lost(&self) -> Result<Option<Permit>, StoreError> {
        if planted::is(planted::Fault::LostNotLookedFor) {
            return Ok(None);
        }
        let now = self.clock.now();
        let lost = self.store.lost_purchases(now - LATE_ANSWER).await?;
        let choice = self.lists.choose_for_lost(&lost, self.clock.monotonic(), now);
        let next = choice.as_ref().err().copied().flatten();
        *self.look_for_lost_at.lock().unwrap_or_else(PoisonError::into_inner) = next;
        match choice {
            Ok(choice) => self.begin_list(choice).await,
            Err(_) => Ok(None),
        }
    }

    /// Takes the read of a list out of the budget and writes it down before it is made.
    async fn begin_list(&self, choice: ListChoice) -> Result<Option<Permit>, StoreError> {
        let Ok(slot) = self.budget.take(false) else { return Ok(None) };
        let check = match self.store.begin_stray_check(self.clock.now()).await {
            Ok(check) => check,
            Err(error) => {
                slot.give_back();
                return Err(error);
            }
        };
        self.lists.begin(&choice, self.clock.monotonic());
        // What is being asked about already is not asked about twice.
        let places = choice.due.iter().filter_map(|id| self.under_way.enter(*id).ok()).collect();
        Ok(Some(Permit { target: Target::List { check, choice, places }, slot }))
    }

    async fn finish_list(
        &self,
        check: CheckId,
        choice: ListChoice,
        places: &[Place],
        slot: Slot,
    ) -> Result<CheckId, StoreError> {
        let (list, family) = (choice.list, choice.family);
        let asking = tracing::info_span!("check.list", otel.kind = "client", list = list.path, family = family.path);
        let Listing { answer, http_status, said } = self.provider.list(list).instrument(asking).await;
        let told = Told { answer: meaning(&answer), http_status, said, body: Vec::new() };
        // A list that fails at a provider that answers says nothing of the reads of a status.
        if http_status.is_none() || answer != ListAnswer::Nothing {
            self.budget.learn(&told);
        }
        drop(slot);
        let (now, today) = (self.clock.monotonic(), self.clock.now());
        tracing::debug!(list = list.path, http_status, said = told.said, "asked the provider for a list");
        let entries = match answer {
            ListAnswer::Entries(entries) => entries,
            ListAnswer::Absent | ListAnswer::Paused { .. } | ListAnswer::Nothing => {
                self.lists.learn_silence(&choice, answer == ListAnswer::Absent, now);
                self.store.record_no_list(check, told, today).await?;
                return Ok(check);
            }
        };
        let tells = entries.iter().any(|entry| listing::tells_of(list, family, entry));
        let due = places.iter().map(|place| place.id).collect();
        let read = ListRead { check, list, due };
        let purchases = choice.purchases.clone();
        let outcome = self.store.record_list(&self.rules, read, entries, http_status, purchases, today).await?;
        for found in &outcome.found {
            tracing::info!(generation = %found, list = list.path, "a purchase whose answer was lost was found in a list");
        }
        self.lists.learn(&choice, tells, &outcome.told, now);
        for place in places.iter().filter(|place| outcome.told.contains(&place.id)) {
            place.done.send_replace(Some(check));
        }
        Ok(check)
    }

    /// When to look again at the latest: something is due, or the budget allows what is due already.
    ///
    /// # Errors
    /// [`StoreError`] when the due list cannot be read.
    pub async fn next_look(&self) -> Result<Option<Time>, StoreError> {
        let now = self.clock.now();
        let next = self.store.next_look_at().await?;
        let lost = *self.look_for_lost_at.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = lost.map(|at| now + at.saturating_sub(self.clock.monotonic()));
        let next = next.into_iter().chain(lost).min();
        Ok(next.map(|next| next.max(now + self.budget.wait())))
    }
}

/// What the answer of a list means for the budget.
fn meaning(answer: &ListAnswer) -> Answer {
    match answer {
        // The provider is there and answers.
        ListAnswer::Entries(_) | ListAnswer::Absent => Answer::NotFound,
        ListAnswer::Paused { pause } => Answer::Paused { pause: *pause },
        ListAnswer::Nothing => Answer::Nothing,
    }
}
