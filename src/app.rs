//! Wiring only: a configuration, listeners and a clock become a running service.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, Endpoint, Scope, reached_at};
use crate::domain::callback::CallbackKeys;
use crate::domain::event::EventKind;
use crate::domain::provider_signature::ProviderSecrets;
use crate::flow::adopt::Adopter;
use crate::flow::balance::BalanceReader;
use crate::flow::gateway::{Gateway, HeldRepeats};
use crate::flow::intake::Intake;
use crate::flow::poll::{Polls, Seen};
use crate::flow::reconcile::{Asks, Reconciler};
use crate::http::server::{self, Limits};
use crate::http::{self, Api, ApiKeys, AppState, Counter, Crowds, Everything, Gate, Parts, Places, Probe};
use crate::provider::budget::Budget;
use crate::provider::{ClientError, Provider, ProviderClient};
use crate::sink::Sink;
use crate::sink::egress::Egress;
use crate::sink::signature::SigningKeys;
use crate::store::{OpenError, Store, StoreError, Wants};
use crate::telemetry;
use crate::worker::dispatch::{CALLERS, Dispatcher, Target};
use crate::worker::retention::Retention;
use crate::worker::sweep::{Sweeper, Swept};
use crate::worker::{Tasks, retention, upkeep, watch as watching};

/// What the workers may take to end after the last request has.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(35);

/// Connections that the system keeps until we take them.
const NEWCOMERS_MAX: u32 = 1_024;

/// The service could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The database cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It can be opened and not read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The HTTP client cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Which.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
}

/// Where the service listens.
#[derive(Debug)]
pub struct Listeners {
    /// For everybody; for webhooks only when there is an admin listener.
    pub public: TcpListener,
    /// For everything else.
    pub admin: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the configuration names; in a runtime.
    ///
    /// # Errors
    /// [`BuildError::Listen`] names the address.
    pub fn bind(config: &Config) -> Result<Self, BuildError> {
        let bind = |address: SocketAddr| {
            listen_at(address).map_err(|cause| BuildError::Listen { address: address.to_string(), cause })
        };
        Ok(Self { public: bind(config.server.listen)?, admin: config.server.admin_listen.map(bind).transpose()? })
    }
}

/// The standard library's own way keeps 128 newcomers: of a burst the rest would try again only a second later.
fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(NEWCOMERS_MAX)?.into_std()
}

/// A service that runs.
#[derive(Debug)]
pub struct App {
    tasks: Tasks,
    store: Store,
    sweeper: watch::Receiver<Swept>,
    /// How long stopping may take in all.
    patience: Duration,
}

impl App {
    /// Opens the database, starts the workers and the listeners. Runs until `stop` or until a part of it dies.
    ///
    /// # Errors
    /// [`BuildError`] says what could not be built.
    pub async fn start(
        config: &Config,
        listeners: Listeners,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, BuildError> {
        let metrics = telemetry::metrics();
        let (store, writer) = Store::open(&config.database.url).await?;
        let tasks = Tasks::new(stop.clone());
        tasks.spawn("writer", writer.run());
        tasks.spawn("upkeep", upkeep::run(metrics.clone(), Arc::clone(&clock), stop.clone()));

        let rules = Arc::new(config.rules());
        let timeout = config.provider.request_timeout.0;
        let (base_url, key) = (&config.provider.base_url, config.provider.api_key.clone());
        let provider = ProviderClient::new(base_url, key, timeout, config.provider.purchase_limit())?;
        let provider: Arc<dyn Provider> = Arc::new(provider);
        store.end_interrupted_purchases(&rules, clock.now()).await?;
        let per_minute = config.provider.status_checks_per_minute;
        let (asked_of, by, time) = (Arc::clone(&provider), Arc::clone(&rules), Arc::clone(&clock));
        let reconciler = Reconciler::new(store.clone(), asked_of, by, time, per_minute, timeout).await?;
        let reconciler = Arc::new(reconciler);
        let budget = Arc::clone(reconciler.budget());
        let (asks, asked) = Asks::channel();
        let sweeper = Sweeper::new(reconciler, store.clone(), Arc::clone(&clock), config.reconcile.enabled, asked);
        let swept = sweeper.status();
        tasks.spawn("sweeper", sweeper.run(stop.clone()));
        tasks.spawn("database", watching::run(store.clone(), Arc::clone(&clock), stop.clone()));
        let removing = retention::run(retention_of(config), store.clone(), Arc::clone(&clock), stop.clone());
        tasks.spawn("retention", removing);

        let keys = CallbackKeys::new(config.webhook.secrets.iter().map(crate::secret::Secret::expose));
        let api = Api {
            store: store.clone(),
            rules,
            keys,
            public_url: config.server.public_url.as_ref().map(ToString::to_string),
            clock,
            stop: stop.clone(),
        };
        let polls = polls(config, &api, &budget);
        let state = Arc::new(Everything {
            intake: intake(config, &api),
            counter: counter(config, tasks.clone(), provider, &polls, &api),
            polls,
            api,
            gate: gate(config),
            asks,
            api_keys: api_keys(config),
            parts: Parts {
                budget,
                sweeper: swept.clone(),
                metrics,
                outlets: outlets(config),
                metrics_open: listeners.admin.is_some(),
                provider_url: config.provider.base_url.clone(),
                listening_at: listening_at(config, &listeners),
            },
            crowds: Crowds::default(),
        });
        dispatch(&tasks, config, &state.api).await?;
        listen(&tasks, config, listeners, &state, &stop);
        let patience = config.server.shutdown_timeout.0 + SHUTDOWN_MARGIN;
        Ok(Self { tasks, store, sweeper: swept, patience })
    }

    /// What the sweeper does, for tests to wait on.
    pub fn sweeper(&self) -> watch::Receiver<Swept> {
        self.sweeper.clone()
    }

    /// Waits until the service has stopped: told to, or because a part of it died.
    ///
    /// # Errors
    /// What died.
    pub async fn stopped(self) -> Result<(), String> {
        let Self { tasks, store, sweeper, patience } = self;
        tasks.stop().cancelled().await;
        // The writer ends when the last handle is gone; the listeners and workers let go of theirs as they end.
        drop((store, sweeper));
        match tokio::time::timeout(patience, tasks.ended()).await {
            Ok(()) => tasks.failure().map_or(Ok(()), Err),
            Err(_) => Err(tasks.failure().unwrap_or_else(|| "some requests did not end in time".to_owned())),
        }
    }
}

fn listen(tasks: &Tasks, config: &Config, listeners: Listeners, state: &AppState, stop: &CancellationToken) {
    let connections = usize::try_from(config.server.max_connections).unwrap_or(usize::MAX);
    let limits = Limits {
        places: Places::within(connections, 1 + usize::from(listeners.admin.is_some())),
        shutdown_timeout: config.server.shutdown_timeout.0,
    };
    let public = match listeners.admin {
        None => http::whole_router(state),
        Some(admin) => {
            tasks.spawn("admin listener", server::serve(admin, http::admin_router(state), limits, stop.clone()));
            http::public_router(state)
        }
    };
    tasks.spawn("listener", server::serve(listeners.public, public, limits, stop.clone()));
}

/// Where this machine reaches the operator's side; the port may have been chosen by the system.
fn listening_at(config: &Config, listeners: &Listeners) -> String {
    let listener = listeners.admin.as_ref().unwrap_or(&listeners.public);
    let configured = config.server.admin_listen.unwrap_or(config.server.listen);
    format!("http://{}", reached_at(listener.local_addr().unwrap_or(configured)))
}

/// The names of the places that events go to.
fn outlets(config: &Config) -> Arc<[String]> {
    let endpoints = config.events.endpoints.iter().map(|endpoint| endpoint.url.to_string());
    endpoints.chain([CALLERS.to_owned()]).collect()
}

/// One task for each place that events go to.
async fn dispatch(tasks: &Tasks, config: &Config, api: &Api) -> Result<(), BuildError> {
    let sink = Sink::new(Egress { allow_private: config.events.allow_private_addresses })?;
    let schedule: Arc<[_]> = config.events.retry_schedule.iter().map(|pause| pause.0).collect();
    let callers =
        Wants { kinds: vec![EventKind::Completed, EventKind::Failed, EventKind::Corrected], callers_only: true };
    let endpoint = |endpoint: &Endpoint| {
        let keys = SigningKeys::new(endpoint.secrets.iter().chain([&endpoint.secret]));
        let wants = Wants { kinds: endpoint.kinds(), callers_only: false };
        (endpoint.url.to_string(), Target::Endpoint { url: endpoint.url.clone(), keys }, wants)
    };
    let outlets = config.events.endpoints.iter().map(endpoint);
    for (name, target, wants) in outlets.chain([(CALLERS.to_owned(), Target::Callers, callers)]) {
        // Before anything can happen: a new outlet gets what happens from now on.
        api.store.open_outlet(&name, wants.callers_only, api.clock.now()).await?;
        let dispatcher = Dispatcher {
            name,
            target,
            wants,
            schedule: Arc::clone(&schedule),
            confirm: api.rules.confirm,
            refund_window: api.rules.refund_window,
            sink: sink.clone(),
            store: api.store.clone(),
            clock: Arc::clone(&api.clock),
        };
        tasks.spawn("dispatcher", dispatcher.run(api.stop.clone()));
    }
    Ok(())
}

fn polls(config: &Config, api: &Api, budget: &Arc<Budget>) -> Polls {
    Polls {
        store: api.store.clone(),
        rules: Arc::clone(&api.rules),
        budget: Arc::clone(budget),
        clock: Arc::clone(&api.clock),
        enabled: config.reconcile.enabled,
        seen: Seen::default(),
    }
}

fn counter(config: &Config, tasks: Tasks, provider: Arc<dyn Provider>, polls: &Polls, api: &Api) -> Counter {
    let gateway = Gateway {
        store: api.store.clone(),
        provider: Arc::clone(&provider),
        rules: Arc::clone(&api.rules),
        keys: api.keys.clone(),
        public_url: api.public_url.clone(),
        clock: Arc::clone(&api.clock),
        stop: api.stop.clone(),
        shutdown_timeout: config.server.shutdown_timeout.0,
        held: HeldRepeats::default(),
    };
    let adopter = Adopter {
        store: api.store.clone(),
        provider: Arc::clone(&provider),
        rules: Arc::clone(&api.rules),
        budget: Arc::clone(&polls.budget),
        clock: Arc::clone(&api.clock),
        unknown: Arc::default(),
    };
    let balance = BalanceReader::new(provider, Arc::clone(&polls.budget), Arc::clone(&api.clock));
    Counter::new(
        gateway,
        adopter,
        balance,
        polls.clone(),
        tasks,
        bytes(config.gateway.max_body),
        config.gateway.repeat_wait.0,
    )
}

fn bytes(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

fn retention_of(config: &Config) -> Retention {
    Retention {
        payloads: config.retention.payloads.0,
        generations: config.retention.generations.0,
        refund_window: config.reconcile.refund_window.0,
        outlets: outlets(config),
    }
}

fn intake(config: &Config, api: &Api) -> Intake {
    Intake {
        secrets: ProviderSecrets::new(config.webhook.signing_secrets()),
        store: api.store.clone(),
        rules: Arc::clone(&api.rules),
        keys: api.keys.clone(),
        clock: Arc::clone(&api.clock),
    }
}

fn gate(config: &Config) -> Gate {
    Gate {
        body_bytes_max: bytes(config.webhook.max_body),
        allow_ips: config.webhook.allow_ips.as_slice().into(),
        trusted_proxies: config.webhook.trusted_proxies.as_slice().into(),
        probe: Probe::new(),
    }
}

fn api_keys(config: &Config) -> ApiKeys {
    let one = (!config.api.key.is_empty()).then(|| ("api.key", config.api.key.expose(), Scope::ALL.as_slice()));
    let named = config.api.keys.iter().map(|key| (key.name.as_str(), key.secret.expose(), key.scopes.as_slice()));
    ApiKeys::new(one.into_iter().chain(named))
}
