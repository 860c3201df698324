//! What the simulated provider knows: purchases, their states by the clock, money. The ledger is the oracle of tests.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::plan::{Fate, Fault, Plan};
use super::script::Script;
use super::settings::{Idempotency, Lists, Settings};
use crate::domain::family::Family;
use crate::domain::money::Usd;
use crate::domain::time::Time;

/// One attempt to deliver a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// When it was answered, or given up.
    pub at: Time,
    /// The HTTP status; `None` when there was no answer.
    pub status: Option<u16>,
}

/// What came with the request of a purchase, besides what it buys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The `seed` of families that answer with one, drawn where none was sent.
    pub seed: Option<u32>,
    /// `X-Request-ID`.
    pub request_id: Option<String>,
    /// `X-Idempotency-Key`.
    pub idempotency_key: Option<String>,
}

/// One purchase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Purchase {
    /// The provider's id.
    pub id: String,
    /// Where it was bought.
    #[serde(serialize_with = "path")]
    pub family: &'static Family,
    /// The model as sent, or the family's default.
    pub model: String,
    /// Length in seconds.
    pub seconds: Option<u32>,
    /// The prompt.
    pub prompt: String,
    /// Where webhooks go.
    pub callback_url: Option<String>,
    /// What was charged.
    pub price: Usd,
    /// What came with the request.
    #[serde(flatten)]
    pub asked: Asked,
    /// What becomes of it.
    pub plan: Plan,
    /// When it was bought.
    pub bought_at: Time,
    /// When it begins to be made.
    pub starts_at: Time,
    /// When it ends.
    pub ends_at: Time,
    /// When its status was read.
    pub reads: Vec<Time>,
    /// Every attempt to deliver a webhook.
    pub attempts: Vec<Attempt>,
    /// What its result's link begins with.
    #[serde(skip)]
    pub results_at: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn path<S: serde::Serializer>(family: &&'static Family, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(family.path)
}

/// The provider's word on a purchase at some time.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing {
    Pending,
    Processing,
    Completed { url: Option<String> },
    Failed { reason: Value },
}

impl Standing {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
        }
    }
}

impl Purchase {
    /// Where the result is.
    pub fn result_url(&self) -> String {
        let kind = match self.family.medium {
            crate::domain::family::Medium::Video => "mp4",
            crate::domain::family::Medium::Image => "png",
        };
        format!("{}/{}/{}.{kind}", self.results_at, self.family.path, self.id)
    }

    /// How it stands at `now`.
    pub(super) fn standing(&self, now: Time) -> Standing {
        if now < self.starts_at {
            return Standing::Pending;
        }
        if now < self.ends_at || self.plan.fate == Fate::NeverEnds {
            return Standing::Processing;
        }
        match &self.plan.fate {
            Fate::Failed { reason } => Standing::Failed { reason: reason.clone() },
            Fate::CompletedWithoutUrl { reads, instead } => {
                let since = self.reads.iter().filter(|read| **read >= self.ends_at).count();
                let shown = since > usize::try_from(*reads).unwrap_or(usize::MAX);
                Standing::Completed { url: if shown { Some(self.result_url()) } else { instead.clone() } }
            }
            Fate::Completed | Fate::NeverEnds | Fate::Forgotten => Standing::Completed { url: Some(self.result_url()) },
        }
    }

    /// Whether its money is back at `now`.
    fn is_refunded(&self, now: Time, speed: u32) -> bool {
        matches!(self.plan.fate, Fate::Failed { .. }) && now >= self.ends_at + REFUND_AFTER / speed
    }
}

/// Failed jobs are refunded within five minutes (provider.md section 5).
const REFUND_AFTER: Duration = Duration::from_mins(1);
/// pending to processing: 10 to 30 seconds (provider.md section 3).
pub(super) const STARTS_AFTER: Duration = Duration::from_secs(20);
/// The window in which status reads are counted.
const READS_WINDOW: Duration = Duration::from_mins(1);

/// Everything that changes.
#[derive(Debug)]
pub(super) struct World {
    pub(super) purchases: Vec<Purchase>,
    pub(super) plans: VecDeque<Plan>,
    pub(super) submit_faults: VecDeque<Fault>,
    pub(super) status_faults: VecDeque<Fault>,
    pub(super) every_status: Option<Fault>,
    pub(super) list_faults: VecDeque<Fault>,
    /// Which lists there are.
    pub(super) lists: Lists,
    /// What `X-Idempotency-Key` does.
    pub(super) idempotency: Idempotency,
    /// When lists were read.
    pub(super) list_reads: Vec<Time>,
    pub(super) chance: fastrand::Rng,
    recent_reads: VecDeque<Time>,
    funds: Usd,
    /// Requests that a script was meant for, by prompt.
    scripted: HashMap<String, u32>,
    /// Places of purchases by key-holder and idempotency key.
    by_key: HashMap<(String, String), usize>,
}

impl World {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            purchases: Vec::new(),
            plans: VecDeque::new(),
            submit_faults: VecDeque::new(),
            status_faults: VecDeque::new(),
            every_status: None,
            list_faults: VecDeque::new(),
            lists: settings.lists,
            idempotency: settings.idempotency,
            list_reads: Vec::new(),
            chance: fastrand::Rng::with_seed(settings.seed),
            recent_reads: VecDeque::new(),
            funds: settings.funds,
            scripted: HashMap::new(),
            by_key: HashMap::new(),
        }
    }

    /// The script of a prompt, while it holds.
    pub(super) fn next_script(&mut self, prompt: &str, script: Option<Script>) -> Option<Script> {
        let script = script?;
        let met = self.scripted.entry(prompt.to_owned()).or_default();
        *met = met.saturating_add(1);
        (*met <= script.times).then_some(script)
    }

    /// What the same key-holder bought under the same idempotency key, where that is honoured.
    pub(super) fn bought_before(&self, holder: &str, key: Option<&str>) -> Option<Purchase> {
        if self.idempotency == Idempotency::Ignored {
            return None;
        }
        let place = self.by_key.get(&(holder.to_owned(), key?.to_owned()))?;
        self.purchases.get(*place).cloned()
    }

    /// Takes a purchase on.
    pub(super) fn keep(&mut self, holder: &str, purchase: Purchase) {
        if let Some(key) = &purchase.asked.idempotency_key {
            self.by_key.entry((holder.to_owned(), key.clone())).or_insert(self.purchases.len());
        }
        self.purchases.push(purchase);
    }

    /// The purchases that the list of a family shows, newest first.
    pub(super) fn listed(&self, path: &'static str) -> impl Iterator<Item = &Purchase> {
        let with_all_kling = self.lists == Lists::AllKling && path == "kling";
        let shown = move |purchase: &&Purchase| {
            let own = purchase.family.path;
            let fits = own == path || (with_all_kling && own.starts_with("kling/"));
            fits && purchase.plan.fate != Fate::Forgotten
        };
        self.purchases.iter().rev().filter(shown)
    }

    pub(super) fn find(&mut self, family: &Family, id: &str) -> Option<&mut Purchase> {
        self.purchases.iter_mut().find(|purchase| purchase.id == id && purchase.family.path == family.path)
    }

    /// What is left on the account.
    pub(super) fn balance(&self, now: Time, speed: u32) -> Usd {
        let kept = self.purchases.iter().filter(|purchase| !purchase.is_refunded(now, speed));
        let spent: i64 = kept.map(|purchase| purchase.price.as_micros()).sum();
        Usd::from_micros(self.funds.as_micros() - spent)
    }

    /// Counts a read of a status or a list; tells whether it is one too many.
    pub(super) fn read_is_too_many(&mut self, now: Time, per_minute: Option<u32>) -> bool {
        while self.recent_reads.front().is_some_and(|read| *read + READS_WINDOW <= now) {
            self.recent_reads.pop_front();
        }
        let limit = per_minute.and_then(|limit| usize::try_from(limit).ok());
        if limit.is_some_and(|limit| self.recent_reads.len() >= limit) {
            return true;
        }
        self.recent_reads.push_back(now);
        false
    }
}

/// What the sandbox charges: the documented sample price for 5 seconds in standard, more for longer, twice for pro. The
/// provider publishes no tariff (provider.md 9.3); only that it is a decimal string is real.
pub fn price(family: &Family, model: &str, seconds: Option<u32>) -> Usd {
    let five_seconds: i64 = match family.path {
        "kling/o3-video" => 150_000,
        "kling/o1-video" => 300_000,
        "kling/o1-photo" => 29_000,
        "kling/o3-photo" => 50_000,
        "chatgpt-images" => 12_300,
        "gemini" => 20_000,
        _ => 120_000,
    };
    let length = i64::from(seconds.unwrap_or(5)).max(1);
    let tier = if model.ends_with("_pro") { 2 } else { 1 };
    Usd::from_micros(five_seconds * tier * length / 5)
}
