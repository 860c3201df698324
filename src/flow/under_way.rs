//! Reads under way: nothing is asked twice at the same time, and who asks meanwhile shares what the first brings.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::reconcile::AskError;
use crate::domain::id::{CheckId, GenerationId};
use crate::planted;

/// The reads under way: nothing is asked twice at the same time.
#[derive(Clone, Debug, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashMap<GenerationId, watch::Receiver<Option<CheckId>>>>>);

impl UnderWay {
    fn map(&self) -> MutexGuard<'_, HashMap<GenerationId, watch::Receiver<Option<CheckId>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holds(&self, id: GenerationId) -> bool {
        self.map().contains_key(&id) && !planted::is(planted::Fault::AskedTwice)
    }

    /// Enters a read; `Err` with what another one about the same will bring.
    pub(super) fn enter(&self, id: GenerationId) -> Result<Place, Shared> {
        let mut map = self.map();
        if let Some(other) = map.get(&id).filter(|_| !planted::is(planted::Fault::AskedTwice)) {
            return Err(Shared(other.clone()));
        }
        let (done, shared) = watch::channel(None);
        map.insert(id, shared);
        Ok(Place { id, under_way: self.clone(), done })
    }
}

/// A read's entry among those under way; dropping it ends the read.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: GenerationId,
    under_way: UnderWay,
    pub(super) done: watch::Sender<Option<CheckId>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.under_way.map().remove(&self.id);
    }
}

/// What a read that is under way already will bring.
#[derive(Debug)]
pub struct Shared(watch::Receiver<Option<CheckId>>);

impl Shared {
    /// Waits for it.
    ///
    /// # Errors
    /// [`AskError::Interrupted`] when its answer was not kept.
    pub async fn wait(mut self) -> Result<CheckId, AskError> {
        let check = self.0.wait_for(Option::is_some).await.map_err(|_| AskError::Interrupted)?;
        check.ok_or(AskError::Interrupted)
    }
}
