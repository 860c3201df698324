//! The balance of the provider's account: asked for when a caller wants it, once at a time, and not more often than makes sense.
//!
//! Whether the provider counts it among the reads of a status is not known, so it takes one out of the same budget: it can only be too
//! careful. It teaches the budget nothing, and is not written down: after a restart the handful of the last minute is forgotten.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tracing::Instrument;

use crate::clock::Clock;
use crate::provider::budget::{Budget, Spent};
use crate::provider::{HttpAnswer, Provider};

/// An answer is given again for so long: a caller that polls costs six reads a minute, however fast it polls.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Asks for the balance.
#[derive(Clone, Debug)]
pub struct BalanceReader {
    provider: Arc<dyn Provider>,
    budget: Arc<Budget>,
    clock: Arc<dyn Clock>,
    /// The last answer, and when it came, in time that does not jump. Held while asking: one request at a time, and who waited for it
    /// gets its answer.
    last: Arc<Mutex<Option<LastAnswer>>>,
}

/// What was answered, and when.
#[derive(Debug)]
struct LastAnswer {
    at: Duration,
    answer: Result<HttpAnswer, BalanceError>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BalanceError {
    /// The budget is spent, or the provider wants rest.
    #[error(transparent)]
    Spent(#[from] Spent),
    /// The provider gave none.
    #[error("the provider gave no answer: {0}")]
    NoAnswer(String),
}

impl BalanceReader {
    /// A reader that has not asked yet.
    pub fn new(provider: Arc<dyn Provider>, budget: Arc<Budget>, clock: Arc<dyn Clock>) -> Self {
        Self { provider, budget, clock, last: Arc::default() }
    }

    /// The provider's answer, whatever it is: its own, or that of a few seconds ago.
    ///
    /// # Errors
    /// [`BalanceError`] says why there is none.
    pub async fn read(&self) -> Result<HttpAnswer, BalanceError> {
        let mut last = self.last.lock().await;
        if let Some(LastAnswer { at, answer }) = &*last {
            let age = self.clock.monotonic().saturating_sub(*at);
            match answer {
                // Each refusal keeps a read for who comes back: who polls is refused from memory.
                Err(BalanceError::Spent(Spent { wait })) if age < KEPT_FOR.min(*wait) => {
                    return Err(BalanceError::Spent(Spent { wait: wait.saturating_sub(age) }));
                }
                Ok(_) | Err(BalanceError::NoAnswer(_)) if age < KEPT_FOR => return answer.clone(),
                Ok(_) | Err(_) => {}
            }
        }
        let answer = self.ask().await;
        *last = Some(LastAnswer { at: self.clock.monotonic(), answer: answer.clone() });
        answer
    }

    async fn ask(&self) -> Result<HttpAnswer, BalanceError> {
        let slot = self.budget.take(true)?;
        let asking = tracing::info_span!("balance.ask", otel.kind = "client");
        let answer = self.provider.balance().instrument(asking).await.map_err(BalanceError::NoAnswer);
        drop(slot);
        answer
    }
}
