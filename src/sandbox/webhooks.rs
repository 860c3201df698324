//! Sending webhooks as the provider does: up to five attempts, paused as the family documents, then never again.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::plan::{Fate, Ping};
use super::world::{Attempt, Purchase};
use super::{Sandbox, shape};
use crate::domain::time::Time;

/// What the receiver has for its answer (provider.md section 4).
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// What the real one says of itself is not known.
const SENDER: &str = "RunBlob-Webhook/sandbox";

/// HMAC-SHA256 of the raw body in lower-case hex, as the provider's own client verifies it (provider.md section 13).
fn sign(secret: &str, body: &[u8]) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(body);
    Some(hex::encode(mac.finalize().into_bytes()))
}

impl Sandbox {
    /// Sends what the plan of a purchase says.
    pub(super) fn announce(self: &Arc<Self>, purchase: &Purchase) {
        let Some(url) = &purchase.callback_url else { return };
        if purchase.plan.fate == Fate::NeverEnds {
            return;
        }
        for ping in &purchase.plan.webhooks {
            let sandbox = Arc::clone(self);
            let (purchase, ping, url) = (purchase.clone(), ping.clone(), url.clone());
            self.senders.spawn(async move {
                let stop = sandbox.stop.clone();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sandbox.deliver(&purchase, &ping, &url) => {}
                }
            });
        }
    }

    async fn deliver(&self, purchase: &Purchase, ping: &Ping, url: &str) {
        let at = purchase.ends_at + Duration::from_millis(ping.after_ms);
        self.sleep_until(at).await;
        let body = shape::webhook(purchase, &ping.body, self.clock.now());
        let pauses = purchase.family.webhook_pauses.iter().map(|pause| Some(*pause)).chain([None]);
        for pause in pauses {
            let status = self.post(url, &body).await;
            let attempt = Attempt { at: self.clock.now(), status };
            if let Some(purchase) = self.world().find(purchase.family, &purchase.id) {
                purchase.attempts.push(attempt);
            }
            self.changed();
            match (status, pause) {
                (Some(200), _) | (_, None) => return,
                (_, Some(pause)) => self.clock.sleep(pause / self.settings.speed).await,
            }
        }
    }

    async fn post(&self, url: &str, body: &[u8]) -> Option<u16> {
        let mut request = self.http.post(url).header("content-type", "application/json").header("user-agent", SENDER);
        if let Some(signature) = self.settings.webhook_secret.as_deref().and_then(|secret| sign(secret, body)) {
            request = request.header("x-runblob-signature", signature);
        }
        let request = request.body(body.to_vec());
        Some(request.send().await.ok()?.status().as_u16())
    }

    async fn sleep_until(&self, at: Time) {
        self.clock.sleep(at.since(self.clock.now())).await;
    }
}
