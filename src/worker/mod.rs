//! What runs by itself, supervised: a task that dies stops the service with a failure.
//!
//! The only place that spawns tasks of the service. Stopping has two stages: first nothing new is taken on, then, when the
//! rest has not ended in time, everything is dropped.

pub mod dispatch;
pub mod retention;
pub mod sweep;
pub mod upkeep;
pub mod watch;

use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The tasks of the service.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    /// Stop taking work on.
    stop: CancellationToken,
    failure: Arc<Mutex<Option<String>>>,
}

/// Counts a task that ended without saying so, as a panic does.
struct Watch {
    tasks: Tasks,
    name: &'static str,
    ended: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.ended {
            self.tasks.fail(format!("{} panicked", self.name));
        }
    }
}

impl Tasks {
    /// Stops when `stop` does.
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, ..Self::default() }
    }

    /// Cancelled when no more work is to be taken on.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a task that lasts as long as the service. One that fails, panics, or ends before it was told to stops
    /// everything.
    pub fn spawn<E: Display>(&self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static) {
        let mut watch = Watch { tasks: self.clone(), name, ended: false };
        self.tracker.spawn(async move {
            let result = task.await;
            watch.ended = true;
            match result {
                Ok(()) if watch.tasks.stop.is_cancelled() => {}
                Ok(()) => watch.tasks.fail(format!("{name} ended by itself")),
                Err(error) => watch.tasks.fail(format!("{name}: {error}")),
            }
        });
    }

    /// Carries something that was begun to its end, whoever asked for it may be gone. One that dies takes nothing with it.
    pub fn carry(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(work.in_current_span());
    }

    /// Why the service stopped by itself, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until every task has ended.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Stops everything: nothing may be acknowledged any more.
    pub fn fail(&self, why: String) {
        tracing::error!(why, "a part of the service died; stopping");
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(task: impl Future<Output = Result<(), String>> + Send + 'static) -> Option<String> {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("the task", task);
        tasks.stop().cancelled().await;
        tasks.ended().await;
        tasks.failure()
    }

    #[tokio::test]
    async fn a_task_that_dies_stops_the_service() {
        assert_eq!(run(async { Err("why".to_owned()) }).await.unwrap(), "the task: why");
        assert_eq!(run(async { Ok(()) }).await.unwrap(), "the task ended by itself");
        assert_eq!(run(async { panic!("on purpose") }).await.unwrap(), "the task panicked");
    }

    #[tokio::test]
    async fn a_task_that_ends_when_told_is_no_failure() {
        let tasks = Tasks::new(CancellationToken::new());
        let stop = tasks.stop().clone();
        tasks.spawn("the task", async move {
            stop.cancelled().await;
            Ok::<(), String>(())
        });
        tasks.stop().cancel();
        tasks.ended().await;
        assert_eq!(tasks.failure(), None);
    }
}
