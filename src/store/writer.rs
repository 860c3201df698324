//! The one writer: commands queue up, one transaction commits many, each caller gets its own result after the commit.
//!
//! A command runs in its own savepoint, so a bad one fails alone. A caller that goes away changes nothing: its command is
//! carried through. When the database is broken the writer ends, and with it the service.

use futures_util::future::BoxFuture;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::StoreError;
use super::waiters::Waiters;
use crate::domain::experience::Experience;
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
    /// Whether there is an event about it.
    pub told: bool,
}

impl Change {
    pub(super) fn of(generation: &Generation) -> Self {
        let look_at = [generation.watch.check_at, generation.watch.turn_at].into_iter().flatten().min();
        Self { id: generation.id, look_at, told: false }
    }
}

/// What a command writes with.
pub(super) struct Tx<'c> {
    /// The connection, inside a transaction.
    pub(super) connection: &'c mut SqliteConnection,
    /// The generations that changed: told to listeners after the commit.
    pub(super) changed: &'c mut Vec<Change>,
    /// What was learned so far: decisions are made with it.
    pub(super) experience: &'c mut Experience,
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
    /// `None` after a group failed: the connection may be in any state, and is opened anew.
    connection: Option<SqliteConnection>,
    /// `None` when it may hold what was not kept, and has to be read again.
    experience: Option<Experience>,
    options: SqliteConnectOptions,
    commands: mpsc::Receiver<Box<dyn Command>>,
    listeners: Listeners,
}

/// Who hears of a change after its commit.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) changes: broadcast::Sender<Change>,
    pub(super) waiters: Waiters,
}

impl Listeners {
    fn tell(&self, change: Change) {
        self.waiters.wake(change.id);
        // No listener is no fault.
        drop(self.changes.send(change));
    }
}

/// `options` opens the connection again, should it be needed.
pub(super) fn new(
    connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    listeners: Listeners,
) -> (Queue, Writer) {
    let (sender, commands) = mpsc::channel(QUEUE_MAX);
    (Queue(sender), Writer { connection, experience: None, options, commands, listeners })
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
                        self.listeners.tell(change);
                    }
                }
                Err(error) if broken => return Err(error),
                Err(error) => {
                    // SQLite may have rolled back by itself (a full disk), sqlx does not know of it.
                    tracing::warn!(%error, "a group of writes was not committed");
                    if let Some(connection) = self.connection.take() {
                        drop(connection.close_hard().await);
                    }
                }
            }
        }
        match self.connection.take() {
            Some(connection) => connection.close().await.map_err(StoreError::from),
            None => Ok(()),
        }
    }

    async fn commit(&mut self, group: &mut [Box<dyn Command>], changed: &mut Vec<Change>) -> Result<(), StoreError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.options.connect().await?),
        };
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        // Taken out until the commit: what is learned in a transaction that fails was not.
        let mut experience = match self.experience.take() {
            Some(experience) => experience,
            None => super::experience::load(&mut transaction).await?,
        };
        if let [command] = group {
            // Alone it needs no savepoint: what it did wrong is rolled back with the transaction.
            match command.run(Tx { connection: &mut transaction, changed, experience: &mut experience }).await {
                Ok(()) => transaction.commit().await?,
                Err(error @ (StoreError::Broken(_) | StoreError::Unavailable(_))) => return Err(error),
                Err(StoreError::Impossible(_) | StoreError::Failed(_)) => {
                    changed.clear();
                    return Ok(transaction.rollback().await?);
                }
            }
            self.experience = Some(experience);
            return Ok(());
        }
        for command in group {
            let before = changed.len();
            let mut savepoint = transaction.begin().await?;
            match command.run(Tx { connection: &mut savepoint, changed, experience: &mut experience }).await {
                Ok(()) => savepoint.commit().await?,
                // The whole group fails with it: nothing later can be trusted to be stored.
                Err(error @ (StoreError::Broken(_) | StoreError::Unavailable(_))) => return Err(error),
                Err(StoreError::Impossible(_) | StoreError::Failed(_)) => {
                    changed.truncate(before);
                    savepoint.rollback().await?;
                    experience = super::experience::load(&mut transaction).await?;
                }
            }
        }
        transaction.commit().await?;
        self.experience = Some(experience);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Executor, Row};

    use super::*;

    async fn writer(folder: &tempfile::TempDir) -> (Queue, Writer, SqliteConnectOptions) {
        let file = folder.path().join("test.db");
        let options = super::super::options(&format!("sqlite://{}", file.display())).unwrap();
        let mut connection = options.connect().await.unwrap();
        sqlx::migrate!().run(&mut connection).await.unwrap();
        connection.execute("CREATE TABLE numbers (n INTEGER NOT NULL UNIQUE) STRICT").await.unwrap();
        let listeners = Listeners { changes: broadcast::Sender::new(16), waiters: Waiters::default() };
        let (queue, writer) = new(Some(connection), options.clone(), listeners);
        (queue, writer, options)
    }

    async fn insert(queue: &Queue, n: i64) -> Result<i64, StoreError> {
        queue
            .run(move |tx| {
                Box::pin(async move {
                    sqlx::query("INSERT INTO numbers VALUES (?1)").bind(n).execute(&mut *tx.connection).await?;
                    Ok(n)
                })
            })
            .await
    }

    #[tokio::test]
    async fn each_caller_gets_its_own_result_and_a_bad_command_fails_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (queue, writer, options) = writer(&folder).await;
        // All are queued before the writer runs: one group. 5 comes twice, so its second command fails.
        let calls = [1, 5, 2, 5, 3].map(|n| {
            let queue = queue.clone();
            async move { insert(&queue, n).await }
        });
        drop(queue);
        let (results, written) = tokio::join!(futures_util::future::join_all(calls), writer.run());
        written.unwrap();
        let got: Vec<_> = results.iter().map(|result| result.as_ref().ok().copied()).collect();
        assert_eq!(got, [Some(1), Some(5), Some(2), None, Some(3)]);
        assert!(matches!(results[3], Err(StoreError::Failed(_))));
        let mut connection = options.connect().await.unwrap();
        let rows = sqlx::query("SELECT n FROM numbers ORDER BY rowid").fetch_all(&mut connection).await.unwrap();
        let kept: Vec<i64> = rows.iter().map(|row| row.get("n")).collect();
        assert_eq!(kept, [1, 5, 2, 3], "in the order of the calls");
    }

    async fn execute(queue: &Queue, sql: &'static str) -> Result<(), StoreError> {
        queue
            .run(move |tx| {
                Box::pin(async move {
                    tx.connection.execute(sql).await?;
                    Ok(())
                })
            })
            .await
    }

    #[tokio::test]
    async fn a_full_database_refuses_and_recovers_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (queue, mut writer, options) = writer(&folder).await;
        // A connection opened again is as limited.
        writer.options = options.clone().pragma("max_page_count", "100");
        writer.connection = Some(writer.options.connect().await.unwrap());
        let mut running = tokio::task::JoinSet::new();
        running.spawn(writer.run());
        execute(&queue, "CREATE TABLE bodies (body BLOB) STRICT").await.unwrap();
        let keep = async || execute(&queue, "INSERT INTO bodies VALUES (zeroblob(20000))").await;
        let mut kept = 0;
        let error = loop {
            match keep().await {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
        };
        assert!(kept > 0 && matches!(error, StoreError::Unavailable(_)), "{kept}: {error}");
        let again = keep().await.unwrap_err();
        assert!(matches!(again, StoreError::Unavailable(_)), "still full: {again:?}");
        // Space is made, as somebody who cleans a disk does.
        let mut other = options.connect().await.unwrap();
        other.execute("DELETE FROM bodies").await.unwrap();
        keep().await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (queue, writer, options) = writer(&folder).await;
        {
            let call = insert(&queue, 7);
            tokio::pin!(call);
            assert!(futures_util::poll!(call).is_pending());
        }
        drop(queue);
        writer.run().await.unwrap();
        let mut connection = options.connect().await.unwrap();
        let kept: i64 = sqlx::query_scalar("SELECT n FROM numbers").fetch_one(&mut connection).await.unwrap();
        assert_eq!(kept, 7);
    }

    #[tokio::test]
    async fn without_a_writer_the_caller_is_told_to_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let (queue, writer, _options) = writer(&folder).await;
        drop(writer);
        assert!(matches!(insert(&queue, 1).await, Err(StoreError::Unavailable(_))));
    }
}
