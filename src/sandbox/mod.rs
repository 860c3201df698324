//! The simulated provider: for tests, the demo, and users who want to see recoup work before they pay for anything.
//!
//! Speaks the documented shapes of all families, and on request does everything the real one must be feared to do. Never
//! part of a running service.

mod answers;
mod controls;
mod families;
mod faults;
mod plan;
mod requests;
mod results;
mod script;
mod settings;
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
pub use script::WORDS;
pub use settings::{Idempotency, Lists, Settings};
pub use world::{Asked, Attempt, Purchase, price};

use crate::clock::Clock;
use crate::domain::time::Time;
use crate::provider::{ClientError, http_client};
use world::World;

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
        let world = Mutex::new(World::new(&settings));
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

    /// Misbehaviour of the next answer to a list read.
    pub fn fault_next_list(&self, fault: Fault) {
        self.world().list_faults.push_back(fault);
    }

    /// Which lists there are from now on.
    pub fn set_lists(&self, lists: Lists) {
        self.world().lists = lists;
    }

    /// What `X-Idempotency-Key` does from now on.
    pub fn set_idempotency(&self, idempotency: Idempotency) {
        self.world().idempotency = idempotency;
    }

    /// When lists were read.
    pub fn list_reads(&self) -> Vec<Time> {
        self.world().list_reads.clone()
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
