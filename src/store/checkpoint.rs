//! Checkpoints off the commit path: what the log holds is copied into the database file by a thread beside the writer.
//!
//! That alone would let the log grow for ever: under steady writes there is always a frame that is not copied yet, and SQLite
//! begins the log anew only when there is none. So the writer finishes what the thread began, between two groups; little is left
//! to copy then. Nobody ever waits for a reader: while one holds on to an old state (a backup), the log grows, and begins anew after it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

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
    /// Asks the thread for a pass; `None` until the first.
    thread: Option<SyncSender<()>>,
    is_under_way: bool,
    is_copied: Arc<AtomicBool>,
}

impl Checkpoints {
    pub(super) fn new(source: Source) -> Self {
        Self { source, thread: None, is_under_way: false, is_copied: Arc::default() }
    }

    /// Between two groups: has a pass begun or finished, as the log's length wants. `busy`: the next group is waiting.
    pub(super) fn step(&mut self, connection: Option<&Connection>, busy: bool) {
        let (Some(connection), pages) = (connection, PAGES.get()) else { return };
        if self.is_copied.swap(false, Ordering::Acquire) {
            self.is_under_way = false;
            checkpoint(connection);
        } else if pages >= if busy { BEGIN_BUSY } else { BEGIN } && !self.is_under_way {
            self.is_under_way = self.begin();
            if !self.is_under_way {
                checkpoint(connection);
            }
        }
    }

    fn begin(&mut self) -> bool {
        let thread = self.thread.get_or_insert_with(|| {
            let (ask, asked) = sync_channel::<()>(1);
            let (source, is_copied) = (self.source.clone(), Arc::clone(&self.is_copied));
            let thread = std::thread::Builder::new().name("checkpoints".to_owned());
            // Without the thread the writer does it.
            drop(thread.spawn(move || {
                let mut connection = None;
                for () in asked {
                    match source.connection(&mut connection) {
                        // Each pass takes less time than the one before, so less is written beside it.
                        Ok(connection) => {
                            for _ in 0..PASSES_MAX {
                                if checkpoint(connection) <= FEW {
                                    break;
                                }
                            }
                        }
                        Err(error) => tracing::warn!(%error, "cannot checkpoint"),
                    }
                    is_copied.store(true, Ordering::Release);
                }
            }));
            ask
        });
        thread.try_send(()).is_ok()
    }
}

/// One pass; tells how many pages it left. What it could not do the next one does.
fn checkpoint(connection: &Connection) -> i32 {
    let left = connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)").and_then(|mut pragma| {
        pragma.query_row([], |row| Ok(row.get::<_, i32>("log")?.saturating_sub(row.get("checkpointed")?)))
    });
    left.unwrap_or_else(|error| {
        tracing::warn!(error = %StoreError::from(error), "a checkpoint was not made");
        0
    })
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
        checkpoints.step(Some(connection), false);
        while checkpoints.is_under_way && !checkpoints.is_copied.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        checkpoints.step(Some(connection), false);
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
}
