//! Commands on their way to the writer: each waits with its caller, and answers it when the group it was in is committed.

use std::fmt::Debug;

use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::tx::Tx;

/// Commands that may wait; more are told to come back later.
const QUEUE_MAX: usize = 4_096;

/// Where commands are handed in.
#[derive(Clone, Debug)]
pub(super) struct Queue(mpsc::Sender<Box<dyn Command>>);

impl Queue {
    /// A queue, and its other end.
    pub(super) fn new() -> (Self, mpsc::Receiver<Box<dyn Command>>) {
        let (sender, commands) = mpsc::channel(QUEUE_MAX);
        (Self(sender), commands)
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
        self.0.try_send(command).map_err(|error| {
            StoreError::Unavailable(match error {
                mpsc::error::TrySendError::Full(_) => "too many writes are waiting".to_owned(),
                mpsc::error::TrySendError::Closed(_) => "the writer has ended".to_owned(),
            })
        })?;
        result.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the writer has ended".to_owned())))
    }
}
