//! Those who deal with the service: clients that buy, the provider that calls back, people who ask, strangers who forge.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::SimError;
use super::event::Event;
use super::fate::fate;
use super::machine::{APART, Sim};
use super::pollers::Product;
use super::service::PUBLIC_URL;
use super::world::Counter;
use crate::clock::Clock;
use crate::domain::family::{FAMILIES, Family};
use crate::domain::id::GenerationId;
use crate::domain::notice::{Notice, Word};
use crate::domain::purchase::{Order, SubmitResult};
use crate::flow::gateway::{PurchaseError, Wanted};
use crate::flow::intake::Envelope;
use crate::sandbox::{Fate, PingBody};

/// An equal purchase counts as a repeat for so long.
const REPEATED_WITHIN: Duration = Duration::from_mins(10);

impl Sim<'_> {
    /// A client buys through the gateway, as the provider documents it.
    pub(super) async fn buy(
        &mut self,
        at: Duration,
        key: Option<String>,
        prompt: String,
        asked: Option<(&'static str, u32)>,
    ) -> Result<(), SimError> {
        let faults = self.faults;
        let counter = match self.chance.u8(0..100) {
            _ if !faults => Counter::Sells,
            0..8 => Counter::SellsSilently,
            8..11 => Counter::SellsToTheDead,
            11..14 => Counter::Dies,
            14..18 => Counter::Refuses,
            18..21 => Counter::Fails,
            21..24 => Counter::IsAway,
            _ => Counter::Sells,
        };
        let counter = if self.jumped_at.is_some_and(|jumped| at < jumped + APART) { Counter::Sells } else { counter };
        let plan = fate(&mut self.chance, self.loss, faults);
        let family = if asked.is_none() && self.chance.u8(0..4) == 0 {
            &FAMILIES[self.chance.usize(0..FAMILIES.len())]
        } else {
            &FAMILIES[0]
        };
        let asked = asked.map(|(model, seconds)| (model, Some(seconds)));
        (self.world.inner().counter, self.world.inner().plan) = (counter, plan);
        self.purchase(at, wanted(family, &prompt, asked, key.as_ref()), key).await
    }

    /// A client buys a product in a world in which nothing goes wrong, and polls for it.
    pub(super) async fn order(&mut self, at: Duration, prompt: String, product: Product) -> Result<(), SimError> {
        let plan = fate(&mut self.chance, self.loss, false);
        (self.world.inner().counter, self.world.inner().plan) = (Counter::Sells, plan);
        self.polling = true;
        let asked = Some((product.model, product.seconds));
        self.purchase(at, wanted(product.family, &prompt, asked, None), None).await
    }

    async fn purchase(&mut self, at: Duration, wanted: Wanted, key: Option<String>) -> Result<(), SimError> {
        let before = self.world.inner().sold.len();
        let Some(service) = &self.service else { return Ok(()) };
        let (caller, answer) = oneshot::channel();
        let body = wanted.body_sha256;
        let purchase = service.gateway.clone().purchase(wanted, caller);
        let died = tokio::select! {
            biased;
            () = purchase => false,
            () = self.world.died.notified() => true,
        };
        if died {
            if key.is_none() {
                self.unanswered.entry(body).or_insert(at);
            }
            self.die();
            let down = self.some_time(Duration::from_secs(20));
            self.push(at + down, Event::Up);
        } else {
            self.answered(at, key, body, answer.await.ok())?;
        }
        let sold = self.world.inner().sold.len();
        for n in before..sold {
            self.announce(at, n);
            if self.polling {
                self.begin_polling(at, n);
            }
        }
        Ok(())
    }

    /// Whoever was told that it was sold has it on record; the same key buys once.
    fn answered(
        &mut self,
        at: Duration,
        key: Option<String>,
        body: [u8; 32],
        answer: Option<Result<crate::flow::gateway::Bought, PurchaseError>>,
    ) -> Result<(), SimError> {
        let Some(Ok(bought)) = answer else { return Ok(()) };
        let maybe_sold = matches!(bought.reply.result, SubmitResult::Accepted | SubmitResult::Unclear);
        if let Some(key) = key {
            let earlier = self.orders.insert(key, maybe_sold);
            // Keys are kept for a day by the calendar; one that jumps ahead by years forgets them.
            let again = earlier == Some(true) && !bought.is_repeat && self.jumped_at.is_none();
            self.hold(!again, "P4 the same key never buys twice", || format!("{bought:?}"))?;
            return Ok(());
        }
        let lost_at = self.unanswered.get(&body).copied().filter(|lost_at| at < *lost_at + REPEATED_WITHIN);
        let bought_again = lost_at.is_some() && !bought.is_repeat && self.jumped_at.is_none();
        self.hold(!bought_again, "P5 what repeats a lost purchase is not sent", || format!("{bought:?}"))?;
        if bought.reply.result != SubmitResult::Unclear {
            self.unanswered.remove(&body);
        } else if lost_at.is_none() {
            self.unanswered.insert(body, at);
        }
        Ok(())
    }

    /// The provider sends its webhooks once it is done.
    fn announce(&mut self, at: Duration, sold: usize) {
        let purchase = self.world.inner().sold[sold].purchase.clone();
        if purchase.plan.fate == Fate::NeverEnds {
            return;
        }
        let takes = purchase.ends_at.since(purchase.bought_at);
        for (ping, plan) in purchase.plan.webhooks.iter().enumerate() {
            let after = Duration::from_millis(plan.after_ms);
            self.push(at + takes + after, Event::Webhook { sold, ping, attempt: 0 });
        }
    }

    pub(super) async fn webhook(
        &mut self,
        at: Duration,
        sold: usize,
        ping: usize,
        attempt: usize,
    ) -> Result<(), SimError> {
        let purchase = self.world.inner().sold[sold].purchase.clone();
        let body = purchase.plan.webhooks[ping].body.clone();
        let bytes = purchase.webhook_body(&body, self.clock.true_time());
        let acknowledged = match (&self.service, &purchase.callback_url) {
            (Some(_), Some(url)) => self.receive(url, bytes).await?,
            _ => false,
        };
        if acknowledged {
            let mut inner = self.world.inner();
            match body {
                PingBody::Documented | PingBody::WithoutReason => {
                    let without_url = matches!(purchase.plan.fate, Fate::CompletedWithoutUrl { .. });
                    inner.sold[sold].told |= !without_url;
                }
                PingBody::Contradicting => inner.sold[sold].lied_to = true,
                PingBody::Truncated
                | PingBody::NotJson
                | PingBody::UnknownStatus(_)
                | PingBody::WrongId
                | PingBody::WithoutUrl
                | PingBody::Raw(_) => {}
            }
        } else if let Some(pause) = purchase.family.webhook_pauses.get(attempt) {
            self.push(at + *pause, Event::Webhook { sold, ping, attempt: attempt + 1 });
        }
        Ok(())
    }

    /// Whether it was answered 200.
    async fn receive(&mut self, url: &str, body: Vec<u8>) -> Result<bool, SimError> {
        let Some(service) = &self.service else { return Ok(false) };
        let path = url.strip_prefix(PUBLIC_URL).and_then(|path| path.strip_prefix("/webhooks/")).unwrap_or_default();
        let Some(authentic) = service.intake.authenticate(path) else {
            return self.hold(false, "our own callback URL is authentic", || path.to_owned()).map(|()| false);
        };
        let notice = Notice::parse(&body);
        let recorded = service.intake.receive(authentic, body, Envelope::default()).await?;
        let about = match recorded.generation {
            Some(id) => service.store.generation(id).await?,
            None => None,
        };
        let kept = match recorded.delivery {
            Some(delivery) => service.store.delivery(delivery).await?.is_some(),
            None => about.is_some(),
        };
        self.hold(kept, "I1 what is acknowledged is kept", || format!("{recorded:?}"))?;
        let outcome = matches!(&notice, Ok(Notice { word: Word::Outcome(_), .. }));
        let before = about.as_ref().and_then(|about| self.checker.get(about.id)).map_or(0, |before| before.outcomes);
        let settled = about.as_ref().is_some_and(|about| about.outcomes > before);
        self.hold(outcome || !settled, "P2 only an outcome settles", || format!("{notice:?}"))?;
        let visible = about.is_some_and(|about| about.state.settled_at().is_some() || about.attention.is_some());
        self.hold(!outcome || visible, "I1 an acknowledged outcome is seen at once", || format!("{notice:?}"))?;
        Ok(notice.is_ok())
    }

    pub(super) fn forge(&mut self) -> Result<(), SimError> {
        let Some(service) = &self.service else { return Ok(()) };
        let known = self.checker.known().map(|known| known.id).min();
        let path = format!("{}/{}.AAAA", FAMILIES[0].path, known.unwrap_or(GenerationId::fresh(self.clock.now())));
        let accepted = service.intake.authenticate(&path).is_some();
        self.hold(!accepted, "I9 a forged token is nothing", || path)
    }

    /// A person wants to know now.
    pub(super) async fn ask(&mut self, at: Duration, about: Option<GenerationId>) -> Result<(), SimError> {
        let mut ids: Vec<_> =
            self.checker.known().filter(|known| known.provider_id.is_some()).map(|known| known.id).collect();
        ids.sort_unstable();
        let (Some(service), false) = (&self.service, ids.is_empty()) else { return Ok(()) };
        let id = about.unwrap_or(ids[self.chance.usize(0..ids.len())]);
        if let Ok(permit) = service.reconciler.begin(id, true).await {
            self.begin(at, permit)?;
        }
        Ok(())
    }
}

fn wanted(
    family: &'static Family,
    prompt: &str,
    asked: Option<(&'static str, Option<u32>)>,
    key: Option<&String>,
) -> Wanted {
    let body = match asked {
        Some((model, Some(seconds))) => json!({"prompt": prompt, "model": model, "duration": seconds.to_string()}),
        Some((model, None)) => json!({"prompt": prompt, "model": model}),
        None => json!({"prompt": prompt}),
    };
    let body = Bytes::from(body.to_string());
    let order = Order::read(family, &body).unwrap_or_else(|_| unreachable!("a purchase as documented"));
    Wanted {
        family,
        order,
        body_sha256: Sha256::digest(&body).into(),
        body,
        content_type: None,
        metadata: None,
        pass_trace: false,
        scope: "sim".to_owned(),
        idempotency_key: key.cloned(),
        request_id: None,
        // Nobody waits here: time stands still meanwhile.
        patience: Duration::ZERO,
        room: None,
    }
}
