//! Commands on their way to the writer: each waits with its caller, and answers it when the group it was in is committed.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument, Span};

use super::StoreError;
use super::tx::Tx;
use crate::clock::Stopwatch;

/// Commands that may wait; more are told to come back later.
const QUEUE_MAX: usize = 4_096;

/// Where commands are handed in.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    commands: mpsc::Sender<Box<dyn Command>>,
    waiting: Waiting,
}

/// Since when the writer has been at its present group; `None` while it waits for one. Whatever waits came after that.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<Mutex<Option<Stopwatch>>>);

impl Waiting {
    /// The writer takes up a group.
    pub(super) fn take_up(&self) -> Stopwatch {
        *self.since().insert(Stopwatch::start())
    }

    /// It is done with it.
    pub(super) fn rest(&self) {
        *self.since() = None;
    }

    fn since(&self) -> MutexGuard<'_, Option<Stopwatch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// A queue, and its other end.
    pub(super) fn new() -> (Self, mpsc::Receiver<Box<dyn Command>>, Waiting) {
        let (sender, commands) = mpsc::channel(QUEUE_MAX);
        let waiting = Waiting::default();
        (Self { commands: sender, waiting: waiting.clone() }, commands, waiting)
    }

    /// Commands that wait.
    pub(super) fn length(&self) -> usize {
        self.commands.max_capacity() - self.commands.capacity()
    }

    /// The longest that any command can have waited.
    pub(super) fn oldest(&self) -> Duration {
        self.waiting.since().map_or(Duration::ZERO, Stopwatch::elapsed)
    }
}

/// A command with its result's type hidden.
pub(super) trait Command: Send {
    /// Runs it inside the group's transaction. It may be run again, when that was rolled back.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError>;
    /// Answers the caller: with the command's own result once committed, else with the group's error.
    fn answer(self: Box<Self>, group: Result<(), StoreError>);
}

impl Debug for dyn Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

/// The wait for the commit, as part of what waits for it; what nobody asked for is no trace of its own.
fn commit_span() -> Span {
    // Not `span_enabled!`: where a layer has a filter of its own, the answer "no" hides the next line of the log.
    if Span::current().is_none() { Span::none() } else { tracing::info_span!("commit") }
}

struct Call<T, F> {
    work: F,
    result: Option<Result<T, StoreError>>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Command for Call<T, F>
where
    T: Send + 'static,
    F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let result = (self.work)(tx);
        let kept = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        kept
    }

    fn answer(self: Box<Self>, group: Result<(), StoreError>) {
        let own = self.result.unwrap_or_else(|| Err(StoreError::Unavailable("the command was not run".to_owned())));
        // The caller may be gone; what it asked for is done all the same.
        drop(self.caller.send(group.and(own)));
    }
}

impl Queue {
    /// Runs `work` inside a transaction and gives its result back after the commit. It may be run more than once: what it does
    /// is all in its [`Tx`].
    ///
    /// # Errors
    /// Those of `work`; [`StoreError::Unavailable`] when the queue is full or the writer has ended.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (caller, result) = oneshot::channel();
        let command = Box::new(Call { work, result: None, caller });
        self.commands.try_send(command).map_err(|error| {
            StoreError::Unavailable(match error {
                mpsc::error::TrySendError::Full(_) => "too many writes are waiting".to_owned(),
                mpsc::error::TrySendError::Closed(_) => "the writer has ended".to_owned(),
            })
        })?;
        result
            .instrument(commit_span())
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("the writer has ended".to_owned())))
    }
}
