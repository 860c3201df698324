//! How tests and users direct the sandbox over HTTP, in any language: fates, faults, switches, and the ledger.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::Sandbox;
use super::plan::{Fault, Plan};
use super::settings::{Idempotency, Lists};
use super::world::Purchase;

type Shared = State<Arc<Sandbox>>;

pub(super) fn router() -> Router<Arc<Sandbox>> {
    Router::new()
        .route("/sandbox/plans", post(plan))
        .route("/sandbox/faults", post(fault))
        .route("/sandbox/settings", post(switch))
        .route("/sandbox/ledger", get(ledger))
}

/// `POST /sandbox/plans`: the fate of the next purchase.
async fn plan(State(sandbox): Shared, Json(plan): Json<Plan>) -> StatusCode {
    sandbox.plan_next(plan);
    StatusCode::NO_CONTENT
}

/// Which answers misbehave.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum On {
    Submit,
    Status,
    List,
    EveryStatus,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    on: On,
    fault: Option<Fault>,
}

/// `POST /sandbox/faults`: misbehaviour of the next answer, or of every status answer.
async fn fault(State(sandbox): Shared, Json(order): Json<Order>) -> StatusCode {
    match (order.on, order.fault) {
        (On::Submit, Some(fault)) => sandbox.fault_next_submit(fault),
        (On::Status, Some(fault)) => sandbox.fault_next_status(fault),
        (On::List, Some(fault)) => sandbox.fault_next_list(fault),
        (On::EveryStatus, fault) => sandbox.fault_every_status(fault),
        (On::Submit | On::Status | On::List, None) => return StatusCode::UNPROCESSABLE_ENTITY,
    }
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Switches {
    lists: Option<Lists>,
    idempotency: Option<Idempotency>,
}

/// `POST /sandbox/settings`: what of the real provider is not known.
async fn switch(State(sandbox): Shared, Json(switches): Json<Switches>) -> StatusCode {
    if let Some(lists) = switches.lists {
        sandbox.set_lists(lists);
    }
    if let Some(idempotency) = switches.idempotency {
        sandbox.set_idempotency(idempotency);
    }
    StatusCode::NO_CONTENT
}

/// `GET /sandbox/ledger`: everything that was bought and what became of it.
async fn ledger(State(sandbox): Shared) -> Json<Vec<Purchase>> {
    Json(sandbox.ledger())
}
