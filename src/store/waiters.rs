//! Who waits for a generation to change: woken by the commit itself, and nobody else with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::domain::id::GenerationId;

/// Everybody who waits.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiters(Arc<Mutex<HashMap<GenerationId, Waiting>>>);

/// Those who wait for one generation.
#[derive(Debug, Default)]
struct Waiting {
    bell: Arc<Notify>,
    count: usize,
}

/// A place among those who wait for one generation; given up when dropped.
#[derive(Debug)]
pub struct Watched {
    waiters: Waiters,
    id: GenerationId,
    bell: Arc<Notify>,
}

impl Waiters {
    pub(super) fn join(&self, id: GenerationId) -> Watched {
        let mut all = self.lock();
        let waiting = all.entry(id).or_default();
        waiting.count += 1;
        Watched { waiters: self.clone(), id, bell: Arc::clone(&waiting.bell) }
    }

    /// Wakes those who wait for these generations.
    pub(super) fn wake(&self, ids: impl Iterator<Item = GenerationId>) {
        let all = self.lock();
        if all.is_empty() {
            return;
        }
        for id in ids {
            if let Some(waiting) = all.get(&id) {
                waiting.bell.notify_waiters();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GenerationId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Ends with the next change that is committed after this was called.
    pub fn changed(&self) -> Notified<'_> {
        self.bell.notified()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut all = self.waiters.lock();
        if let Some(waiting) = all.get_mut(&self.id) {
            waiting.count -= 1;
            if waiting.count == 0 {
                all.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Time;

    #[tokio::test]
    async fn only_those_who_wait_for_it_are_woken_and_nobody_is_remembered() {
        let waiters = Waiters::default();
        let ids: Vec<_> = (0..3).map(|_| GenerationId::fresh(Time::from_ms(1))).collect();
        let (one, again, other) = (waiters.join(ids[0]), waiters.join(ids[0]), waiters.join(ids[1]));
        let (mut first, mut second, mut third) =
            (Box::pin(one.changed()), Box::pin(again.changed()), Box::pin(other.changed()));
        waiters.wake([ids[0], ids[2]].into_iter());
        assert!(futures_util::poll!(&mut first).is_ready() && futures_util::poll!(&mut second).is_ready());
        assert!(futures_util::poll!(&mut third).is_pending());
        drop((first, second, third));
        drop((one, again, other));
        assert!(waiters.lock().is_empty());
    }
}
