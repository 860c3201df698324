//! The simulated provider: for tests, the demo, and users who want to see recoup work before they pay for anything.
//!
//! Speaks the documented shapes of all families, and on request does everything the real one must be feared to do. Never
//! part of a running service.

mod answers;
mod plan;
mod results;
mod shape;
mod webhooks;
mod world;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use plan::{Chances, Fate, Fault, Ping, PingBody, Plan, REASONS};
pub use results::ELSEWHERE;
pub use world::{Attempt, Purchase, price};

use crate::clock::Clock;
use crate::domain::money::Usd;
use crate::provider::{ClientError, http_client};
use world::World;

/// How the simulated provider is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The key it accepts; `None` accepts any.
    pub api_key: Option<String>,
    /// Of its chances: the same seed and the same purchases give the same fates.
    pub seed: u64,
    /// Divides all its times: 60 makes minutes of seconds.
    pub speed: u32,
    /// Status reads a minute, beyond which it answers 429; `None` for no limit.
    pub status_reads_per_minute: Option<u32>,
    /// What is on the account.
    pub funds: Usd,
    /// Misbehaviour by chance.
    pub chances: Chances,
    /// Its own address, to serve results from; `None` gives links that lead nowhere.
    pub results_at: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            api_key: None,
            seed: 1,
            speed: 1,
            status_reads_per_minute: Some(60),
            funds: Usd::from_micros(1_000_000_000),
            chances: Chances::default(),
            results_at: None,
        }
    }
}

/// A simulated provider.
#[derive(Debug)]
pub struct Sandbox {
    settings: Settings,
    clock: Arc<dyn Clock>,
    world: Mutex<World>,
    /// Counts every change, for whoever waits for one.
    changes: watch::Sender<u64>,
    http: reqwest::Client,
    senders: TaskTracker,
    stop: CancellationToken,
}

impl Sandbox {
    /// A provider nobody has bought from yet.
    ///
    /// # Errors
    /// [`ClientError`] when it cannot send webhooks.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Result<Arc<Self>, ClientError> {
        let world = Mutex::new(World::new(settings.seed, settings.funds));
        Ok(Arc::new(Self {
            settings: Settings { speed: settings.speed.max(1), ..settings },
            clock,
            world,
            changes: watch::Sender::new(0),
            http: http_client(webhooks::TIMEOUT)?,
            senders: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Its routes.
    pub fn router(self: &Arc<Self>) -> Router {
        answers::router(Arc::clone(self))
    }

    /// Serves until `stop`; webhooks that are under way are dropped then.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self: Arc<Self>,
        listener: tokio::net::TcpListener,
        stop: CancellationToken,
    ) -> Result<(), io::Error> {
        let ended = stop.clone();
        let serving = axum::serve(listener, self.router()).into_future();
        tokio::select! {
            served = serving => served?,
            () = ended.cancelled() => {}
        }
        self.stop.cancel();
        self.senders.close();
        self.senders.wait().await;
        Ok(())
    }

    /// The fate of the next purchase that has none yet.
    pub fn plan_next(&self, plan: Plan) {
        self.world().plans.push_back(plan);
    }

    /// Misbehaviour of the next answer to a purchase.
    pub fn fault_next_submit(&self, fault: Fault) {
        self.world().submit_faults.push_back(fault);
    }

    /// Misbehaviour of the next answer to a status read.
    pub fn fault_next_status(&self, fault: Fault) {
        self.world().status_faults.push_back(fault);
    }

    /// Misbehaviour of every answer to a status read, until taken back.
    pub fn fault_every_status(&self, fault: Option<Fault>) {
        self.world().every_status = fault;
    }

    /// Everything that was bought and what became of it.
    pub fn ledger(&self) -> Vec<Purchase> {
        self.world().purchases.clone()
    }

    /// Waits until the ledger is as wanted.
    pub async fn until(&self, wanted: impl Fn(&[Purchase]) -> bool) {
        let mut changes = self.changes.subscribe();
        while !wanted(&self.world().purchases) {
            // The sender lives as long as the sandbox that is borrowed here.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
