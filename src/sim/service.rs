//! The service of the simulator: the real flows on a database in memory, without sockets.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::clock::SimClock;
use super::world::World;
use crate::clock::Clock;
use crate::domain::callback::CallbackKeys;
use crate::domain::provider_signature::ProviderSecrets;
use crate::domain::schedule::{Rules, Webhooks};
use crate::flow::gateway::{Gateway, HeldRepeats};
use crate::flow::intake::Intake;
use crate::flow::poll::{Polls, Seen};
use crate::flow::reconcile::Reconciler;
use crate::provider::Provider;
use crate::store::{Changes, Memory, Store, StoreError};

/// Where the provider would reach us.
pub(super) const PUBLIC_URL: &str = "https://recoup.example";
/// Status reads a minute.
pub(super) const PER_MINUTE: u32 = 48;
/// Time limit of a read.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A process that runs.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) store: Store,
    pub(super) intake: Intake,
    pub(super) gateway: Gateway,
    pub(super) reconciler: Reconciler,
    pub(super) polls: Polls,
    pub(super) changes: broadcast::Receiver<Changes>,
    /// Ends with the process.
    _writer: JoinSet<Result<(), StoreError>>,
}

impl Service {
    pub(super) async fn start(
        memory: &Memory,
        world: &Arc<World>,
        clock: &Arc<SimClock>,
        rules: &Arc<Rules>,
    ) -> Result<Self, StoreError> {
        let (store, writer) = memory.open();
        let mut writers = JoinSet::new();
        writers.spawn(writer.run_here());
        let clock: Arc<dyn Clock> = clock.clone();
        let provider: Arc<dyn Provider> = world.clone();
        let rules = Arc::clone(rules);
        let public_url = (rules.webhooks == Webhooks::Expected).then(|| PUBLIC_URL.to_owned());
        let keys = CallbackKeys::new(["a secret of the simulator"]);
        // As App::start does.
        store.end_interrupted_purchases(&rules, clock.now()).await?;
        let reconciler = Reconciler::new(
            store.clone(),
            Arc::clone(&provider),
            Arc::clone(&rules),
            Arc::clone(&clock),
            PER_MINUTE,
            TIMEOUT,
        )
        .await?;
        let polls = Polls {
            store: store.clone(),
            rules: Arc::clone(&rules),
            budget: Arc::clone(reconciler.budget()),
            clock: Arc::clone(&clock),
            enabled: true,
            seen: Seen::default(),
        };
        *world.store.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(store.clone());
        Ok(Self {
            intake: Intake {
                secrets: ProviderSecrets::default(),
                store: store.clone(),
                rules: Arc::clone(&rules),
                keys: keys.clone(),
                clock: Arc::clone(&clock),
            },
            gateway: Gateway {
                store: store.clone(),
                provider,
                rules,
                keys,
                public_url,
                clock,
                stop: CancellationToken::new(),
                shutdown_timeout: Duration::from_secs(25),
                held: HeldRepeats::default(),
            },
            reconciler,
            polls,
            changes: store.changes(),
            store,
            _writer: writers,
        })
    }
}
