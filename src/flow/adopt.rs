//! A generation that a client asks about and we do not know: asked about once, and taken on if the provider knows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use tracing::Instrument;

use crate::clock::Clock;
use crate::domain::decision::Answer;
use crate::domain::family::Family;
use crate::domain::generation::Generation;
use crate::domain::id::ProviderId;
use crate::domain::schedule::Rules;
use crate::domain::time::Time;
use crate::provider::Provider;
use crate::provider::budget::{Budget, Spent};
use crate::store::{Store, StoreError};
use crate::telemetry::meters;

/// An id the provider does not know is not asked about again for so long: a client that polls a wrong id every few seconds
/// must not eat the budget.
const UNKNOWN_FOR: Duration = Duration::from_mins(1);
/// Unknown ids remembered.
const UNKNOWN_MAX: usize = 1_000;

/// Takes on what others bought.
#[derive(Clone, Debug)]
pub struct Adopter {
    /// Where everything is kept.
    pub store: Store,
    /// Who is asked.
    pub provider: Arc<dyn Provider>,
    /// How it is judged.
    pub rules: Arc<Rules>,
    /// How often may be asked.
    pub budget: Arc<Budget>,
    /// When it is.
    pub clock: Arc<dyn Clock>,
    /// Ids the provider did not know, and when. Held while asking: the same id is asked about once, however many ask.
    pub unknown: Arc<Mutex<BTreeMap<(&'static str, String), Time>>>,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The provider does not know it either.
    #[error("the provider does not know this generation")]
    Unknown,
    /// The budget is spent, or the provider wants rest.
    #[error(transparent)]
    Spent(#[from] Spent),
    /// The provider gave no usable answer.
    #[error("the provider gave no usable answer: {0}")]
    NoAnswer(String),
    /// The database could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Adopter {
    /// The generation of the provider's id in that family: on record, or else asked about once and taken on.
    ///
    /// # Errors
    /// [`AdoptError`] says why there is none.
    pub async fn find(&self, family: &'static Family, provider_id: &ProviderId) -> Result<Generation, AdoptError> {
        if let Some(known) = self.store.generation_in(family, provider_id).await? {
            return Ok(known);
        }
        let mut unknown = self.unknown.lock().await;
        // Whoever waited for the lock may find it done.
        if let Some(known) = self.store.generation_in(family, provider_id).await? {
            return Ok(known);
        }
        let now = self.clock.now();
        // One of the future was written before the clock jumped back.
        unknown.retain(|_, since| *since <= now && now.since(*since) < UNKNOWN_FOR);
        let key = (family.path, provider_id.as_str().to_owned());
        if unknown.contains_key(&key) {
            return Err(AdoptError::Unknown);
        }
        let slot = self.budget.take(true)?;
        let check = match self.store.begin_stray_check(now).await {
            Ok(check) => check,
            Err(error) => {
                slot.give_back();
                return Err(error.into());
            }
        };
        let asking = tracing::info_span!("check.ask", otel.kind = "client", family = family.path);
        let told = self.provider.status(family, provider_id).instrument(asking).await;
        self.budget.learn(&told);
        meters::check(family, &told.answer);
        drop(slot);
        let (answer, said) = (told.answer.clone(), told.said.clone());
        let now = self.clock.now();
        let prompt = prompt(&told.body);
        let settling = tracing::info_span!("check.settle", answer = told.answer.word());
        let adopted = self.store.record_stray_answer(&self.rules, family, provider_id, check, told, prompt, now);
        let adopted = adopted.instrument(settling).await?;
        match (adopted, answer) {
            (Some(generation), _) => Ok(generation),
            (None, Answer::NotFound) => {
                if unknown.len() < UNKNOWN_MAX {
                    unknown.insert(key, now);
                }
                Err(AdoptError::Unknown)
            }
            (None, Answer::Known(_) | Answer::Paused { .. } | Answer::Nothing) => Err(AdoptError::NoAnswer(said)),
        }
    }
}

fn prompt(body: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    answer.get("prompt")?.as_str().filter(|prompt| !prompt.is_empty()).map(str::to_owned)
}
