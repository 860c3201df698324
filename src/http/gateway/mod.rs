//! `/gateway`: a drop-in for the provider. Purchases, status reads, lists and the balance in its own shape, everything else is 404.
//!
//! Says what a request means and who may make it; each meaning has a file of its own.

mod balance;
mod buy;
mod list;
mod look;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::Response;
use axum::routing::any;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub(super) use list::{LIMIT, LIMIT_MAX, OFFSET_MAX};

use super::AppState;
use super::auth::ApiKeys;
use super::extract::Named;
use super::problem::Problem;
use super::seats::Seat;
use crate::config::Scope;
use crate::domain::family::Family;
use crate::domain::id::ProviderId;
use crate::flow::adopt::Adopter;
use crate::flow::balance::BalanceReader;
use crate::flow::gateway::Gateway;
use crate::flow::poll::Polls;
use crate::worker::Tasks;

/// Bodies of purchases held at the same time, in bytes: ten of the largest.
const HELD_BYTES_MAX: usize = 640 * 1_024 * 1_024;
const KIB: usize = 1_024;

/// Everything the drop-in is made of.
#[derive(Clone, Debug)]
pub struct Counter {
    /// Buys.
    pub gateway: Gateway,
    /// Takes on what others bought.
    pub adopter: Adopter,
    /// Asks what is left on the account.
    pub balance: BalanceReader,
    /// Counts who polls.
    pub polls: Polls,
    /// Carries what was begun to its end.
    pub tasks: Tasks,
    /// Longest purchase, in bytes.
    pub body_bytes_max: usize,
    /// How long a repeat waits for what became of the first.
    pub repeat_wait: Duration,
    /// Room for bodies, in KiB.
    room: Arc<Semaphore>,
}

impl Counter {
    /// A counter that takes bodies up to that length.
    pub fn new(
        gateway: Gateway,
        adopter: Adopter,
        balance: BalanceReader,
        polls: Polls,
        tasks: Tasks,
        body_bytes_max: usize,
        repeat_wait: Duration,
    ) -> Self {
        let room = Arc::new(Semaphore::new(HELD_BYTES_MAX.max(body_bytes_max) / KIB + 1));
        Self { gateway, adopter, balance, polls, tasks, body_bytes_max, repeat_wait, room }
    }

    /// Room for a body, before it is read: what would not fit into memory is turned away.
    fn room(&self, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, Problem> {
        let announced = headers.get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        let bytes = announced.unwrap_or(self.body_bytes_max).min(self.body_bytes_max);
        let kib = u32::try_from(bytes / KIB + 1).unwrap_or(u32::MAX);
        Arc::clone(&self.room).try_acquire_many_owned(kib).map_err(|_| {
            Problem::unavailable("Too many purchases are being sent at once. Nothing was bought; send it again.")
                .retry_after(Duration::from_secs(1))
        })
    }
}

/// What a request to the drop-in means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meant {
    Buy(&'static Family),
    Look(&'static Family, ProviderId),
    LookByStatus(&'static Family, ProviderId),
    List(&'static Family),
    Balance,
}

/// Reads method and path; `None` for anything the provider does not have.
fn meant(method: &Method, path: &str) -> Option<Meant> {
    let path = path.strip_prefix("v1/")?;
    if *method == Method::POST {
        return Family::of(path.strip_suffix("/generate")?).map(Meant::Buy);
    }
    if *method != Method::GET {
        return None;
    }
    // The documentation of Sora puts a slash behind the id (provider.md 10.5).
    let path = path.strip_suffix('/').unwrap_or(path);
    if path == "data/balance" {
        return Some(Meant::Balance);
    }
    if let Some(family) = path.strip_suffix("/generations") {
        return Family::of(family).map(Meant::List);
    }
    let (family, id) = path.rsplit_once('/')?;
    let id = ProviderId::parse(id).ok()?;
    if let Some(family) = family.strip_suffix("/generations") {
        return Some(Meant::Look(Family::of(family)?, id));
    }
    // Two of the public clients read `status` where the documentation has `generations` (provider.md 13).
    Some(Meant::LookByStatus(Family::of(family.strip_suffix("/status")?)?, id))
}

/// Everything under `/gateway`.
async fn serve(
    State(keys): State<ApiKeys>,
    State(counter): State<Counter>,
    path: Result<Named, Problem>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let meant = path.ok().and_then(|Named(path)| meant(&parts.method, &path));
    let scope = match meant {
        Some(Meant::Buy(_)) => Scope::Submit,
        Some(Meant::Look(..) | Meant::LookByStatus(..) | Meant::List(_) | Meant::Balance) => Scope::Read,
        None => {
            keys.authenticate(&parts.headers)?;
            return Err(unknown());
        }
    };
    let caller = keys.authorize(&parts.headers, scope)?;
    Seat::keep(&parts.extensions);
    match meant {
        Some(Meant::Buy(family)) => buy::buy(&counter, family, &caller, &parts.headers, body).await,
        Some(Meant::Look(family, provider_id)) => look::look(counter, family, provider_id).await,
        Some(Meant::LookByStatus(family, provider_id)) => look::look_by_status(counter, family, provider_id).await,
        Some(Meant::List(family)) => list::list(counter, family, parts.uri.query().unwrap_or_default()).await,
        Some(Meant::Balance) => balance::balance(counter).await,
        None => Err(unknown()),
    }
}

fn unknown() -> Problem {
    Problem::not_found(
        "The gateway has POST /gateway/v1/{family}/generate, GET /gateway/v1/{family}/generations with and without an id, \
         GET /gateway/v1/{family}/status/{id} and GET /gateway/v1/data/balance, for the families of /v1/models and ids of \
         A-Z, a-z, 0-9, _ and -.",
    )
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<String>) {
    if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
        headers.insert(name, value);
    }
}

/// The routes.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    #[derive(OpenApi)]
    #[openapi(paths(buy::buy, look::look, look::look_by_status, list::list, balance::balance))]
    struct Described;
    OpenApiRouter::with_openapi(Described::openapi()).route("/gateway/{*path}", any(serve))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_means_what_the_provider_would_take_it_for() {
        let family = |path| Family::of(path).unwrap();
        let id = |text| ProviderId::parse(text).unwrap();
        for (path, expected) in [
            ("v1/kling/o3-video/generations/a-1", Some(Meant::Look(family("kling/o3-video"), id("a-1")))),
            ("v1/sora/generations/a-1/", Some(Meant::Look(family("sora"), id("a-1")))),
            ("v1/veo/status/a-1", Some(Meant::LookByStatus(family("veo"), id("a-1")))),
            ("v1/veo/status/a-1/", Some(Meant::LookByStatus(family("veo"), id("a-1")))),
            ("v1/kling/generations", Some(Meant::List(family("kling")))),
            ("v1/kling/o3-video/generations/", Some(Meant::List(family("kling/o3-video")))),
            ("v1/data/balance", Some(Meant::Balance)),
            ("v1/data/balance/", Some(Meant::Balance)),
            ("v1/kling/o4/generations", None),
            ("v1/generations", None),
            ("v1/kling/status", None),
            ("v1/kling/generations/a%2Fb", None),
            ("v1/data/other", None),
            ("v1/veo/generate", None),
            ("data/balance", None),
        ] {
            assert_eq!(meant(&Method::GET, path), expected, "{path}");
        }
        assert_eq!(meant(&Method::POST, "v1/veo/generate"), Some(Meant::Buy(family("veo"))));
        for path in ["v1/veo/generations", "v1/veo/generations/a", "v1/data/balance", "v1/veo/status/a"] {
            assert_eq!(meant(&Method::POST, path), None, "{path}");
            assert_eq!(meant(&Method::DELETE, path), None, "{path}");
        }
    }
}
