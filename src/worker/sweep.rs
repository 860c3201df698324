//! Keeps looking: tells generations that time has passed, asks the provider about what is due, answers people's requests.
//!
//! Sleeps until the next generation is due or something changes; a wake-up that got lost costs a minute, no more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::clock::Clock;
use crate::domain::time::Time;
use crate::flow::reconcile::{Ask, AskError, Permit, Reconciler};
use crate::store::{Changes, Store, StoreError};

/// Longest sleep: bounds what a jump of the clock or a lost wake-up can do.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_mins(1);
/// Shortest sleep while a read is under way.
const WHILE_READING: Duration = Duration::from_millis(100);
/// Sleep after the database refused.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// What the sweeper last did: for readiness, and for tests to wait on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Until when it sleeps unless something changes; `None` before it first looked and while a read is under way.
    pub idle_until: Option<Time>,
}

/// The sweeper.
#[derive(Debug)]
pub struct Sweeper {
    reconciler: Arc<Reconciler>,
    store: Store,
    clock: Arc<dyn Clock>,
    /// Without it only people's requests are served.
    enabled: bool,
    asks: mpsc::Receiver<Ask>,
    reads: JoinSet<()>,
    /// There are generations left to be told of the time.
    has_turns: bool,
    status: watch::Sender<Swept>,
}

impl Sweeper {
    /// A sweeper that has not begun.
    pub fn new(
        reconciler: Arc<Reconciler>,
        store: Store,
        clock: Arc<dyn Clock>,
        enabled: bool,
        asks: mpsc::Receiver<Ask>,
    ) -> Self {
        let status = watch::Sender::default();
        Self { reconciler, store, clock, enabled, asks, reads: JoinSet::new(), has_turns: false, status }
    }

    /// What it does, to be watched.
    pub fn status(&self) -> watch::Receiver<Swept> {
        self.status.subscribe()
    }

    /// Sweeps until told to stop; reads under way are finished.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the database is.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        loop {
            // Register for the wake-up before looking.
            let mut changes = self.store.changes();
            let next = match self.look().await {
                Ok(next) => next,
                Err(error @ StoreError::Broken(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "could not look for due generations");
                    Some(self.clock.now() + TROUBLE_PAUSE)
                }
            };
            let now = self.clock.now();
            let sleep = next.map_or(LOOK_AT_LEAST_EVERY, |next| next.since(now)).min(LOOK_AT_LEAST_EVERY);
            // What is due and under way already is not asked about twice; the end of the read wakes us.
            let sleep = if self.reads.is_empty() || self.has_turns { sleep } else { sleep.max(WHILE_READING) };
            let idle = self.reads.is_empty() && !sleep.is_zero();
            let wake_before = now + sleep;
            // Asleep before it is said to be idle: who moves the clock then wakes it.
            let clock = Arc::clone(&self.clock);
            let woken = clock.sleep(sleep);
            if idle && clock.now() >= wake_before {
                continue;
            }
            self.status.send_replace(Swept { idle_until: idle.then_some(wake_before) });
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ask) = self.asks.recv() => self.serve(ask).await,
                Some(read) = self.reads.join_next() => survive(read),
                () = woken => {}
                () = earlier(&mut changes, wake_before), if self.enabled => {}
            }
        }
        while let Some(read) = self.reads.join_next().await {
            survive(read);
        }
        Ok(())
    }

    /// Does all that can be done now; tells when there is something to do next.
    async fn look(&mut self) -> Result<Option<Time>, StoreError> {
        self.reconciler.budget().complain();
        if !self.enabled {
            return Ok(None);
        }
        self.has_turns = self.reconciler.turn().await?;
        while let Some(permit) = self.reconciler.next().await? {
            self.read(&Span::none(), permit, |_| {});
        }
        if self.has_turns { Ok(Some(self.clock.now())) } else { self.reconciler.next_look().await }
    }

    async fn serve(&mut self, ask: Ask) {
        let Ask { id, answer, span } = ask;
        match self.reconciler.begin(id, true).instrument(span.clone()).await {
            // Who asked may have gone; the read is made all the same.
            Ok(permit) => self.read(&span, permit, move |result| drop(answer.send(result))),
            Err(AskError::UnderWay(shared)) => {
                self.reads.spawn(async move { drop(answer.send(shared.wait().await)) });
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    fn read(
        &mut self,
        asked_in: &Span,
        permit: Permit,
        then: impl FnOnce(Result<crate::domain::id::CheckId, AskError>) + Send + 'static,
    ) {
        self.status.send_replace(Swept { idle_until: None });
        let reconciler = Arc::clone(&self.reconciler);
        let checking = asked_in.in_scope(|| tracing::info_span!("check", generations = ?permit.generations()));
        let read = async move {
            let result = reconciler.finish(permit).await;
            if let Err(error) = &result {
                tracing::error!(%error, "an answer of the provider was not kept; it will be asked again");
            }
            then(result.map_err(AskError::from));
        };
        self.reads.spawn(read.instrument(checking));
    }
}

/// Ends when a generation changed so that it wants to be looked at before `planned`.
async fn earlier(changes: &mut broadcast::Receiver<Changes>, planned: Time) {
    loop {
        match changes.recv().await {
            Ok(changes) if changes.iter().all(|change| change.look_at.is_none_or(|at| at >= planned)) => {}
            // Something is due sooner, or we missed what changed: look.
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// A read that panicked has lost its answer, not the generation: its lease runs out and it is read again.
fn survive(read: Result<(), tokio::task::JoinError>) {
    if let Err(error) = read {
        tracing::error!(%error, "a read of the provider died; it will be made again");
    }
}
