//! The one writer: commands queue up, one transaction commits many, each caller gets its own result after the commit.
//!
//! It is a thread with a connection of its own, and its statements are run in place: handing each to another thread, as an async
//! driver does, costs more than SQLite itself (ADR 10). A command that fails fails alone. A caller that goes away changes
//! nothing: its command is carried through. When the database is broken the writer ends, and with it the service.

use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::StoreError;
use super::checkpoint::Checkpoints;
use super::files::Files;
use super::queue::{Command, Queue, Waiting};
use super::source::Source;
use super::tx::{Change, Changes, Lessons, Sums, Tx};
use super::waiters::Waiters;
use crate::clock::Pacer;
use crate::domain::experience::Experience;
use crate::telemetry::meters;

/// How often what was learned is written down.
const LESSONS_EVERY: Duration = Duration::from_millis(10);
/// Groups up to this size are answered by the writer itself: handing them over takes longer than that.
const ANSWERED_HERE_MAX: usize = 2;
/// Commands one transaction commits at most.
const GROUP_MAX: usize = 512;

/// Writes until the last [`super::Store`] is dropped.
#[derive(Debug)]
pub struct Writer {
    /// `None` after a group failed: the connection may be in any state, and is opened anew.
    connection: Option<Connection>,
    /// `None` when it may hold what was not kept, and has to be read again.
    experience: Option<Experience>,
    /// What was learned and is still to be written down, and when that may be done.
    lessons: Lessons,
    lessons_pace: Pacer,
    source: Source,
    commands: mpsc::Receiver<Box<dyn Command>>,
    waiting: Waiting,
    listeners: Listeners,
    checkpoints: Checkpoints,
    /// `None` for a database without files.
    files: Option<Files>,
}

/// Who hears of a change after its commit.
#[derive(Clone, Debug)]
pub(super) struct Listeners {
    pub(super) changes: broadcast::Sender<Changes>,
    pub(super) waiters: Waiters,
}

impl Listeners {
    fn tell(&self, changes: Vec<Change>) {
        self.waiters.wake(changes.iter().map(|change| change.id));
        if changes.is_empty() {
            return;
        }
        let changes = Changes::from(changes);
        // No listener is no fault.
        drop(self.changes.send(Changes::clone(&changes)));
        // Counted last: whoever waits for the news waits no longer for it.
        for outcome in changes.iter().filter_map(|change| change.outcome) {
            meters::outcome(outcome);
        }
    }
}

/// A writer for the database at `source`, which is opened when the first command comes.
pub(super) fn new(source: Source, listeners: Listeners) -> (Queue, Writer) {
    let (queue, commands, waiting) = Queue::new();
    let checkpoints = Checkpoints::new(source.clone());
    let files = match &source {
        Source::File { path, .. } => Some(Files::of(path)),
        Source::Memory(_) => None,
    };
    (
        queue,
        Writer {
            connection: None,
            experience: None,
            lessons: Lessons::default(),
            lessons_pace: Pacer::default(),
            source,
            commands,
            waiting,
            listeners,
            checkpoints,
            files,
        },
    )
}

/// What came of a group.
struct Answers {
    group: Vec<Box<dyn Command>>,
    result: Result<(), StoreError>,
    changed: Vec<Change>,
}

impl Answers {
    /// Whether the database is.
    fn broken(&self) -> Result<(), StoreError> {
        match &self.result {
            Err(error @ StoreError::Broken(_)) => Err(error.clone()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Answers every caller, and tells listeners what changed.
    fn give(self, listeners: &Listeners) {
        for command in self.group {
            command.answer(self.result.clone());
        }
        if self.result.is_ok() {
            listeners.tell(self.changed);
        }
    }
}

impl Writer {
    /// Takes what is waiting, commits it in one transaction, answers, and again; on a thread of its own.
    ///
    /// # Errors
    /// [`StoreError::Broken`]: nothing may be acknowledged any more.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let (end, ended) = oneshot::channel();
        let (hand_over, mut handed_over) = mpsc::unbounded_channel();
        self.lessons_pace = Pacer::new(LESSONS_EVERY);
        let listeners = self.listeners.clone();
        let thread = std::thread::Builder::new().name("writer".to_owned());
        let started = thread.spawn(move || {
            let mut result = Ok(());
            let mut group = Vec::new();
            while result.is_ok() && self.commands.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
                let answers = self.serve(std::mem::take(&mut group));
                result = answers.broken();
                if answers.group.len() <= ANSWERED_HERE_MAX {
                    answers.give(&self.listeners);
                } else {
                    // Whoever answers ends after us.
                    drop(hand_over.send(answers));
                }
                let copied = self.checkpoints.step(self.connection.as_ref(), !self.commands.is_empty());
                result = result.and(copied);
            }
            drop(hand_over);
            drop(end.send(self.end(result)));
        });
        started.map_err(|error| StoreError::Broken(format!("the writer's thread cannot be started: {error}")))?;
        // Callers are woken from inside the runtime: from the writer's thread each would cost it a system call.
        while let Some(answers) = handed_over.recv().await {
            answers.give(&listeners);
        }
        ended.await.unwrap_or_else(|_| Err(StoreError::Broken("the writer panicked".to_owned())))
    }

    /// The same on the caller's thread: for the simulator, in which nothing happens beside it.
    ///
    /// # Errors
    /// [`StoreError::Broken`]: nothing may be acknowledged any more.
    pub(crate) async fn run_here(mut self) -> Result<(), StoreError> {
        let mut group = Vec::new();
        while self.commands.recv_many(&mut group, GROUP_MAX).await > 0 {
            let answers = self.serve(std::mem::take(&mut group));
            let broken = answers.broken();
            answers.give(&self.listeners);
            broken?;
        }
        self.end(Ok(()))
    }

    fn serve(&mut self, mut group: Vec<Box<dyn Command>>) -> Answers {
        let mut changed = Vec::new();
        let watch = self.waiting.take_up();
        let result = self.keep(&mut group, &mut changed);
        self.waiting.rest();
        if let Err(error) = &result {
            meters::commit_failed();
            // SQLite may have rolled back by itself (a full disk).
            tracing::warn!(%error, "a group of writes was not committed");
            self.connection = None;
        } else {
            meters::commit(group.len(), watch.elapsed());
        }
        Answers { group, result, changed }
    }

    /// Commits, and makes sure that it is kept where it was thought to be.
    fn keep(&mut self, group: &mut [Box<dyn Command>], changed: &mut Vec<Change>) -> Result<(), StoreError> {
        self.checkpoints.trouble()?;
        if let Some(files) = &mut self.files {
            files.hold(&self.source)?;
            // Before a connection is opened anew, too: SQLite would create what is missing.
            files.check()?;
        }
        self.commit(group, changed)?;
        self.files.as_mut().map_or(Ok(()), Files::check)
    }

    fn end(mut self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        let files = self.files.take();
        match (result, files) {
            (Ok(()), files) => {
                drop(files);
                self.close()
            }
            (error, Some(files)) => {
                files.leave();
                error
            }
            (error, None) => error,
        }
    }

    fn close(mut self) -> Result<(), StoreError> {
        // What was learned last.
        self.lessons_pace = Pacer::default();
        if self.connection.is_some() && !self.lessons.is_empty() {
            self.commit(&mut [], &mut Vec::new())?;
        }
        match self.connection {
            Some(connection) => connection.close().map_err(|(_, error)| StoreError::from(error)),
            None => Ok(()),
        }
    }

    /// All in one transaction; when one of them fails, all again, each in a savepoint of its own.
    fn commit(&mut self, group: &mut [Box<dyn Command>], changed: &mut Vec<Change>) -> Result<(), StoreError> {
        let connection = &*self.source.connection(&mut self.connection)?;
        begin(connection)?;
        // Taken out until the commit: what is learned in a transaction that fails was not.
        let mut experience = match self.experience.take() {
            Some(experience) => experience,
            None => super::experience::load(connection)?,
        };
        let (mut lessons, mut sums) = (std::mem::take(&mut self.lessons), Sums::default());
        let mut tx = Tx { connection, changed, experience: &mut experience, lessons: &mut lessons, sums: &mut sums };
        for command in &mut *group {
            match command.run(&mut tx) {
                Ok(()) => {}
                // The whole group fails with it: nothing later can be trusted to be stored.
                Err(error @ (StoreError::Broken(_) | StoreError::Unavailable(_))) => return Err(error),
                Err(StoreError::Impossible(_) | StoreError::Failed(_)) => {
                    changed.clear();
                    execute(connection, "ROLLBACK")?;
                    return if group.len() == 1 { Ok(()) } else { self.commit_apart(group, changed) };
                }
            }
        }
        tx.write_sums()?;
        // What is learned can wait a little; it is not what was promised to anybody.
        if self.lessons_pace.is_due() {
            tx.write_lessons()?;
        }
        execute(connection, "COMMIT")?;
        self.lessons = lessons;
        self.experience = Some(experience);
        Ok(())
    }

    /// As [`Self::commit`], so that a command that fails does so alone.
    fn commit_apart(&mut self, group: &mut [Box<dyn Command>], changed: &mut Vec<Change>) -> Result<(), StoreError> {
        let Some(connection) = &self.connection else { return Ok(()) };
        begin(connection)?;
        let mut experience = super::experience::load(connection)?;
        for command in group {
            let before = changed.len();
            execute(connection, "SAVEPOINT command")?;
            let (mut lessons, mut sums) = (Lessons::default(), Sums::default());
            let mut tx =
                Tx { connection, changed, experience: &mut experience, lessons: &mut lessons, sums: &mut sums };
            match command.run(&mut tx).and_then(|()| tx.finish()) {
                Ok(()) => {}
                Err(error @ (StoreError::Broken(_) | StoreError::Unavailable(_))) => return Err(error),
                Err(StoreError::Impossible(_) | StoreError::Failed(_)) => {
                    changed.truncate(before);
                    execute(connection, "ROLLBACK TO command")?;
                    experience = super::experience::load(connection)?;
                }
            }
            execute(connection, "RELEASE command")?;
        }
        execute(connection, "COMMIT")?;
        self.experience = Some(experience);
        Ok(())
    }
}

fn begin(connection: &Connection) -> Result<(), StoreError> {
    execute(connection, "BEGIN IMMEDIATE")
}

fn execute(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions, Executor, Row};

    use super::*;

    async fn writer(folder: &tempfile::TempDir) -> (Queue, Writer, SqliteConnectOptions) {
        let file = folder.path().join("test.db");
        let options = super::super::options(&format!("sqlite://{}", file.display())).unwrap();
        let mut connection = options.connect().await.unwrap();
        sqlx::migrate!().run(&mut connection).await.unwrap();
        connection.execute("CREATE TABLE numbers (n INTEGER NOT NULL UNIQUE) STRICT").await.unwrap();
        let listeners = Listeners { changes: broadcast::Sender::new(16), waiters: Waiters::default() };
        let (queue, writer) = new(Source::File { path: file, pages_max: None }, listeners);
        (queue, writer, options)
    }

    async fn insert(queue: &Queue, n: i64) -> Result<i64, StoreError> {
        queue
            .run(move |tx| {
                tx.execute("INSERT INTO numbers VALUES (?1)", [n])?;
                Ok(n)
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
        queue.run(move |tx| tx.execute(sql, []).map(drop)).await
    }

    #[tokio::test]
    async fn a_full_database_refuses_and_recovers_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (queue, mut writer, options) = writer(&folder).await;
        // A connection opened again is as limited.
        writer.source = Source::File { path: folder.path().join("test.db"), pages_max: Some(200) };
        let mut running = tokio::task::JoinSet::new();
        running.spawn(writer.run());
        execute(&queue, "CREATE TABLE ballast (body BLOB) STRICT").await.unwrap();
        let keep = async || execute(&queue, "INSERT INTO ballast VALUES (zeroblob(20000))").await;
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
        other.execute("DELETE FROM ballast").await.unwrap();
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
