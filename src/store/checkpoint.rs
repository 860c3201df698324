//! Checkpoints off the commit path: what the log holds is copied into the database file by a thread beside the writer.
//!
//! That alone would let the log grow for ever: under steady writes there is always a frame that is not copied yet, and SQLite
//! begins the log anew only when there is none. So the writer finishes what the thread began, between two groups; little is left
//! to copy then. Nobody ever waits for a reader: while one holds on to an old state (a backup), the log grows, and begins anew after it.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use rusqlite::Connection;

use super::StoreError;
use super::source::Source;

/// Pages in the log from which on they are copied when nobody is waiting: the less, the shorter others wait for the disk meanwhile.
const BEGIN: i32 = 200;
/// The same while more is waiting already: 16 MiB, for pages that are written again and again are copied once.
const BEGIN_BUSY: i32 = 4_000;
/// Pages left to the writer are few.
const FEW: i32 = 30;
/// Passes the thread makes to leave few.
const PASSES_MAX: u32 = 4;

thread_local! {
    /// Pages in the log after this thread's last commit.
    static PAGES: Cell<i32> = const { Cell::new(0) };
}

/// Notes how long the log is after every commit of this connection, and keeps SQLite from checkpointing inside of them.
pub(super) fn watch(connection: &Connection) {
    connection.wal_hook(Some(|_, pages| {
        PAGES.set(pages);
        Ok(())
    }));
}

/// The writer's side.
#[derive(Debug)]
pub(super) struct Checkpoints {
    source: Source,
    /// `None` until the first pass.
    thread: Option<Thread>,
    is_under_way: bool,
    /// The thread's part is done, ours is not yet.
    is_copied: bool,
}

/// What copies beside the writer.
#[derive(Debug)]
struct Thread {
    /// Asks for a pass.
    ask: SyncSender<()>,
    /// What came of it.
    copied: Receiver<Result<(), StoreError>>,
}

impl Checkpoints {
    pub(super) fn new(source: Source) -> Self {
        Self { source, thread: None, is_under_way: false, is_copied: false }
    }

    /// Between two groups: has a pass begun or finished, as the log's length wants. `busy`: the next group is waiting.
    ///
    /// # Errors
    /// As of [`Self::trouble`].
    pub(super) fn step(&mut self, connection: Option<&Connection>, busy: bool) -> Result<(), StoreError> {
        self.trouble()?;
        let (Some(connection), pages) = (connection, PAGES.get()) else { return Ok(()) };
        if std::mem::take(&mut self.is_copied) {
            pass(connection)?;
        } else if pages >= if busy { BEGIN_BUSY } else { BEGIN } && !self.is_under_way {
            self.is_under_way = self.begin();
            if !self.is_under_way {
                pass(connection)?;
            }
        }
        Ok(())
    }

    /// Looks what came of the pass under way.
    ///
    /// # Errors
    /// [`StoreError::Broken`]: what was written or synced into the file cannot be trusted. A disk that is full is no fault: what could
    /// not be copied stays in the log.
    pub(super) fn trouble(&mut self) -> Result<(), StoreError> {
        let Some(thread) = &self.thread else { return Ok(()) };
        match thread.copied.try_recv() {
            Ok(copied) => {
                (self.is_under_way, self.is_copied) = (false, true);
                copied
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => Ok(()),
        }
    }

    fn begin(&mut self) -> bool {
        let source = &self.source;
        let thread = self.thread.get_or_insert_with(|| {
            let (ask, asked) = sync_channel::<()>(1);
            let (tell, copied) = sync_channel(1);
            let source = source.clone();
            let thread = std::thread::Builder::new().name("checkpoints".to_owned());
            // Without the thread the writer does it.
            drop(thread.spawn(move || {
                let mut connection = None;
                for () in asked {
                    if tell.send(passes(&source, &mut connection)).is_err() {
                        break;
                    }
                }
            }));
            Thread { ask, copied }
        });
        thread.ask.try_send(()).is_ok()
    }
}

/// Each pass takes less time than the one before, so less is written beside it.
fn passes(source: &Source, connection: &mut Option<Connection>) -> Result<(), StoreError> {
    let connection = match source.connection(connection) {
        Ok(connection) => connection,
        Err(error) => return only_broken(error),
    };
    for _ in 0..PASSES_MAX {
        if pass(connection)? <= FEW {
            break;
        }
    }
    Ok(())
}

/// One pass; tells how many pages it left. What it could not do the next one does.
fn pass(connection: &Connection) -> Result<i32, StoreError> {
    let left = connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)").and_then(|mut pragma| {
        pragma.query_row([], |row| Ok(row.get::<_, i32>("log")?.saturating_sub(row.get("checkpointed")?)))
    });
    left.or_else(|error| only_broken(error.into()).map(|()| 0))
}

fn only_broken(error: StoreError) -> Result<(), StoreError> {
    match error {
        StoreError::Broken(_) => Err(error),
        StoreError::Unavailable(_) | StoreError::Impossible(_) | StoreError::Failed(_) => {
            tracing::warn!(%error, "a checkpoint was not made");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database of one table, and the writer's side of it.
    fn opened(folder: &tempfile::TempDir) -> (Connection, Checkpoints, Source) {
        let path = folder.path().join("log.db");
        let first = Connection::open(&path).unwrap();
        first.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE ballast (body BLOB) STRICT").unwrap();
        let source = Source::File { path, pages_max: None };
        (source.open().unwrap(), Checkpoints::new(source.clone()), source)
    }

    /// Commits about so many pages, and has what follows done to its end.
    fn write(connection: &Connection, checkpoints: &mut Checkpoints, pages: i32) {
        connection.execute("INSERT INTO ballast VALUES (zeroblob(?1))", [pages * 4_000]).unwrap();
        checkpoints.step(Some(connection), false).unwrap();
        while checkpoints.is_under_way {
            // As the writer does before a group.
            checkpoints.trouble().unwrap();
            checkpoints.step(Some(connection), false).unwrap();
        }
    }

    #[test]
    fn the_log_begins_anew_under_steady_writes() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, mut checkpoints, _source) = opened(&folder);
        for _ in 0..20 {
            write(&connection, &mut checkpoints, BEGIN + 50);
            assert!(PAGES.get() < 2 * BEGIN + 200, "{} pages", PAGES.get());
        }
    }

    #[test]
    fn what_the_thread_began_is_finished_though_it_was_looked_for_trouble_before() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, mut checkpoints, _source) = opened(&folder);
        connection.execute("INSERT INTO ballast VALUES (zeroblob(?1))", [(BEGIN + 50) * 4_000]).unwrap();
        checkpoints.step(Some(&connection), false).unwrap();
        while checkpoints.is_under_way {
            checkpoints.trouble().unwrap();
        }
        connection.execute("INSERT INTO ballast VALUES (zeroblob(4000))", []).unwrap();
        checkpoints.step(Some(&connection), false).unwrap();
        assert!(!checkpoints.is_under_way, "nothing is begun anew");
        connection.execute("INSERT INTO ballast VALUES (zeroblob(4000))", []).unwrap();
        assert!(PAGES.get() < BEGIN, "{} pages: the log did not begin anew", PAGES.get());
    }

    #[test]
    fn a_reader_that_stays_holds_up_nobody_and_the_log_begins_anew_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, mut checkpoints, source) = opened(&folder);
        let reader = source.open().unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM ballast").unwrap();
        for _ in 0..5 {
            write(&connection, &mut checkpoints, BEGIN + 50);
        }
        assert!(PAGES.get() > 5 * BEGIN, "nothing it may still read is overwritten: {} pages", PAGES.get());
        reader.execute_batch("COMMIT").unwrap();
        write(&connection, &mut checkpoints, BEGIN + 50);
        write(&connection, &mut checkpoints, 1);
        assert!(PAGES.get() < BEGIN, "{} pages", PAGES.get());
    }

    #[test]
    fn a_file_that_cannot_be_written_to_ends_it_and_a_full_disk_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("garbage.db");
        std::fs::write(&path, [0xa5; 8_192]).unwrap();
        let broken = passes(&Source::File { path, pages_max: None }, &mut None);
        assert!(matches!(broken, Err(StoreError::Broken(_))), "{broken:?}");
        only_broken(StoreError::Unavailable("database or disk is full".to_owned())).unwrap();
    }
}
