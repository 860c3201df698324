//! The one writer: commands queue up, one transaction commits many, each caller gets its own result after the commit.
//!
//! A command runs in its own savepoint, so a bad one fails alone. A caller that goes away changes nothing: its command is
//! carried through. When the database is broken the writer ends, and with it the service.

use futures_util::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::StoreError;
use crate::domain::generation::Generation;
use crate::domain::id::GenerationId;
use crate::domain::time::Time;

/// Commands that may wait; more are told to come back later.
const QUEUE_MAX: usize = 4_096;
/// Commands one transaction commits at most.
const GROUP_MAX: usize = 256;

/// A generation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub id: GenerationId,
    /// When it is to be looked at next.
    pub look_at: Option<Time>,
}

impl Change {
    pub(super) fn of(generation: &Generation) -> Self {
        let look_at = [generation.watch.check_at, generation.watch.turn_at].into_iter().flatten().min();
        Self { id: generation.id, look_at }
    }
}

/// What a command writes with.
pub(super) struct Tx<'c> {
    /// The connection, inside a transaction.
    pub(super) connection: &'c mut SqliteConnection,
    /// The generations that changed: told to listeners after the commit.
    pub(super) changed: &'c mut Vec<Change>,
}

/// Where commands are handed in.
#[derive(Clone, Debug)]
pub(super) struct Queue(mpsc::Sender<Box<dyn Command>>);

/// A command with its result's type hidden.
trait Command: Send {
    /// Runs it inside the group's transaction; tells whether to keep what it wrote.
    fn run<'c>(&'c mut self, tx: Tx<'c>) -> BoxFuture<'c, Result<(), StoreError>>;
    /// Answers the caller: with the command's own result once committed, else with the group's error.
    fn answer(self: Box<Self>, group: Result<(), StoreError>);
}

impl std::fmt::Debug for dyn Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

struct Call<T, F> {
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Command for Call<T, F>
where
    T: Send + 'static,
    F: for<'c> FnOnce(Tx<'c>) -> BoxFuture<'c, Result<T, StoreError>> + Send,
{
    fn run<'c>(&'c mut self, tx: Tx<'c>) -> BoxFuture<'c, Result<(), StoreError>> {
        Box::pin(async move {
            let Some(work) = self.work.take() else { return Ok(()) };
            let result = work(tx).await;
            let kept = result.as_ref().map(|_| ()).map_err(Clone::clone);
            self.result = Some(result);
            kept
        })
    }

    fn answer(self: Box<Self>, group: Result<(), StoreError>) {
        let own = self.result.unwrap_or_else(|| Err(StoreError::Unavailable("the command was not run".to_owned())));
        // The caller may be gone; what it asked for is done all the same.
        drop(self.caller.send(group.and(own)));
    }
}

impl Queue {
    /// Runs `work` inside a transaction and gives its result back after the commit.
    ///
    /// # Errors
    /// Those of `work`; [`StoreError::Unavailable`] when the queue is full or the writer has ended.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(Tx<'c>) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        let (caller, result) = oneshot::channel();
        let command = Box::new(Call { work: Some(work), result: None, caller });
        self.0.try_send(command).map_err(|error| {
            StoreError::Unavailable(match error {
                mpsc::error::TrySendError::Full(_) => "too many writes are waiting".to_owned(),
                mpsc::error::TrySendError::Closed(_) => "the writer has ended".to_owned(),
            })
        })?;
        result.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the writer has ended".to_owned())))
    }
}

/// Writes until the last [`super::Store`] is dropped.
#[derive(Debug)]
pub struct Writer {
    connection: SqliteConnection,
    commands: mpsc::Receiver<Box<dyn Command>>,
    changes: broadcast::Sender<Change>,
}

pub(super) fn new(connection: SqliteConnection, changes: broadcast::Sender<Change>) -> (Queue, Writer) {
    let (sender, commands) = mpsc::channel(QUEUE_MAX);
    (Queue(sender), Writer { connection, commands, changes })
}

impl Writer {
    /// Takes what is waiting, commits it in one transaction, answers, and again.
    ///
    /// # Errors
    /// [`StoreError::Broken`]: nothing may be acknowledged any more.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while self.commands.recv_many(&mut group, GROUP_MAX).await > 0 {
            let mut changed = Vec::new();
            let result = self.commit(&mut group, &mut changed).await;
            let broken = matches!(result, Err(StoreError::Broken(_)));
            for command in group.drain(..) {
                command.answer(result.clone());
            }
            match result {
                Ok(()) => {
                    for change in changed {
                        // No listener is no fault.
                        drop(self.changes.send(change));
                    }
                }
                Err(error) if broken => return Err(error),
                Err(error) => tracing::warn!(%error, "a group of writes was not committed"),
            }
        }
        self.connection.close().await.map_err(StoreError::from)
    }

    async fn commit(&mut self, group: &mut [Box<dyn Command>], changed: &mut Vec<Change>) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        for command in group {
            let before = changed.len();
            let mut savepoint = transaction.begin().await?;
            match command.run(Tx { connection: &mut savepoint, changed }).await {
                Ok(()) => savepoint.commit().await?,
                // The whole group fails with it: nothing later can be trusted to be stored.
                Err(error @ (StoreError::Broken(_) | StoreError::Unavailable(_))) => return Err(error),
                Err(StoreError::Impossible(_) | StoreError::Failed(_)) => {
                    changed.truncate(before);
                    savepoint.rollback().await?;
                }
            }
        }
        transaction.commit().await?;
        Ok(())
    }
}
