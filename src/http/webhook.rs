//! `POST /webhooks/{family}/{token}`: the provider tells an outcome.
//!
//! Authenticates before it reads the body, by the provider's signature once it has it; answers 200 only after the commit. Every refusal
//! of who sends looks the same.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderMap;
use axum::routing::post;
use ipnet::IpNet;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::document::refusals::Receiving;
use super::document::requests::{ProviderWebhook, SignatureHeader, WebhookReceived};
use super::extract::Named;
use super::parameter::{OfFamily, OfToken};
use super::probe::Probe;
use super::problem::{self, Problem};
use super::{AppState, Everything, extract};
use crate::domain::decision::Disposition;
use crate::flow::intake::{Authentic, Intake, WrongSignature};
use crate::telemetry::meters;

/// How long a commit is waited for (reliability.md, A18): the provider itself gives up after 30 seconds.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);

/// Who may send webhooks, and how long they may be.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// Longest body in bytes.
    pub body_bytes_max: usize,
    /// Networks webhooks may come from; none means any.
    pub allow_ips: Arc<[IpNet]>,
    /// Networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Tells who asks by which process it is refused.
    pub probe: Probe,
}

/// Takes a webhook of the provider.
///
/// The URL is the credential: one is minted for each generation, one stands for each family. Answered only when what it says is
/// on disk. Anything that is wrong with the URL, or with a signature where `webhook.provider_secrets` are set, gets the same 404; with a header `Recoup-Probe` in the request it comes back with one that
/// only this process can give, by which `recoup doctor` knows its own service.
#[utoipa::path(post, path = "/webhooks/{family}/{token}", tag = "webhooks", operation_id = "receive_webhook",
    params(OfFamily, OfToken, SignatureHeader),
    request_body(content = ProviderWebhook),
    responses((status = 200, description = "Kept, or known already.", body = WebhookReceived), Receiving))]
async fn receive(
    State(state): State<AppState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Named(path): Named,
    request: Request,
) -> Result<Json<WebhookReceived>, Problem> {
    let Everything { intake, gate, crowds, .. } = &*state;
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let admitted = gate.admit(intake, &path, peer.ip(), headers);
    let authentic = admitted.map_err(|problem| gate.probe.seal(headers, problem))?;
    let body = extract::body(body, gate.body_bytes_max)
        .await
        .inspect_err(|problem| meters::webhook_refused(problem.code()))?;
    let named = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let envelope = intake.open(&path, named, &body).map_err(|WrongSignature| {
        meters::webhook_refused("WRONG_SIGNATURE");
        tracing::warn!("a webhook by an authentic URL was refused: its signature is not the provider's");
        gate.probe.seal(headers, nothing_here())
    })?;
    let _place = crowds.webhook().await?;
    let recording = tokio::time::timeout(RECORD_TIMEOUT, intake.receive(authentic, body, envelope)).await;
    let recorded = recording.map_err(|_| {
        Problem::unavailable("The database takes too long. It may have been kept; send it again.")
            .retry_after(problem::UNAVAILABLE_RETRY_AFTER)
    })??;
    if recorded.disposition == Disposition::Unreadable {
        return Err(Problem::unreadable_webhook(
            "The body must be a JSON object with the generation's id and its status. It was kept as it came.",
        ));
    }
    Ok(Json(WebhookReceived { status: "received" }))
}

/// The routes: the family may hold a slash, so the route takes whatever comes.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    #[derive(OpenApi)]
    #[openapi(paths(receive))]
    struct Described;
    OpenApiRouter::with_openapi(Described::openapi()).route("/webhooks/{*path}", post(receive))
}

impl Gate {
    /// One answer for every cause, so that nobody learns which token, family or address would do.
    fn admit(&self, intake: &Intake, path: &str, peer: IpAddr, headers: &HeaderMap) -> Result<Authentic, Problem> {
        let admitted = self.is_allowed(self.sender(peer, headers));
        intake.authenticate(path).filter(|_| admitted).ok_or_else(|| {
            meters::webhook_refused("NOT_FOUND");
            nothing_here()
        })
    }

    fn is_allowed(&self, sender: IpAddr) -> bool {
        self.allow_ips.is_empty() || contains(&self.allow_ips, sender)
    }

    /// The rightmost address that is not one of our proxies: everything left of it could be made up.
    pub(super) fn sender(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut sender = peer.to_canonical();
        let values = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
        for hop in hops.iter().rev() {
            if !contains(&self.trusted_proxies, sender) {
                break;
            }
            match hop.parse::<IpAddr>() {
                Ok(address) => sender = address.to_canonical(),
                Err(_) => break,
            }
        }
        sender
    }
}

fn nothing_here() -> Problem {
    Problem::not_found("There is nothing here.")
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate {
            body_bytes_max: 1,
            allow_ips: ["203.0.113.0/24".parse().unwrap()].into(),
            trusted_proxies: ["10.0.0.0/8".parse().unwrap()].into(),
            probe: Probe::default(),
        }
    }

    fn sender(peer: &str, forwarded: &[&str]) -> String {
        let headers = forwarded.iter().map(|value| ("x-forwarded-for".parse().unwrap(), value.parse().unwrap()));
        gate().sender(peer.parse().unwrap(), &headers.collect()).to_string()
    }

    #[test]
    fn only_what_our_own_proxies_say_is_believed() {
        assert_eq!(sender("198.51.100.7", &["203.0.113.9"]), "198.51.100.7", "a stranger's header");
        assert_eq!(sender("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(sender("10.0.0.1", &["203.0.113.9, 198.51.100.7"]), "198.51.100.7", "the rightmost stranger");
        assert_eq!(sender("10.0.0.1", &["203.0.113.9, 10.2.2.2"]), "203.0.113.9");
        assert_eq!(sender("10.0.0.1", &["203.0.113.9", "198.51.100.7"]), "198.51.100.7", "headers are joined");
        assert_eq!(sender("10.0.0.1", &["nonsense"]), "10.0.0.1");
        assert_eq!(sender("::ffff:10.0.0.1", &["203.0.113.9"]), "203.0.113.9", "mapped addresses are the same");
    }

    #[test]
    fn an_empty_list_allows_everybody() {
        assert!(Gate::default().is_allowed("192.0.2.1".parse().unwrap()));
        assert!(!gate().is_allowed("192.0.2.1".parse().unwrap()));
        assert!(gate().is_allowed("203.0.113.200".parse().unwrap()));
    }
}
