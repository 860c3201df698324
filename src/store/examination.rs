//! Whether the database is whole: looked at beside everything else, on a connection and a thread of its own.

use std::time::Duration;

use tokio::sync::oneshot;

use super::inspect::{Whole, read_through};
use super::source::Source;
use super::{Store, StoreError};

impl Store {
    /// Reads through the database for at most so long, and looks for pages that cannot be.
    ///
    /// # Errors
    /// [`StoreError::Broken`] says what is wrong with it.
    pub async fn examine(&self, at_most: Duration) -> Result<(), StoreError> {
        let (tell, told) = oneshot::channel();
        let source = self.source.clone();
        let thread = std::thread::Builder::new().name("examination".to_owned());
        let started = thread.spawn(move || tell.send(examine(&source, at_most)));
        started.map_err(|error| StoreError::Unavailable(format!("no thread: {error}")))?;
        told.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the examination was not ended".to_owned())))
    }

    /// Has the writer look whether everything is still in its place; writes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when nothing could be written now.
    pub async fn look_after(&self) -> Result<(), StoreError> {
        self.writer.run(|_| Ok(())).await
    }
}

fn examine(source: &Source, at_most: Duration) -> Result<(), StoreError> {
    let connection = source.open()?;
    connection.pragma_update(None, "query_only", true)?;
    match read_through(&connection, at_most)? {
        // A large one is not read to its end.
        Whole::Yes | Whole::NotKnown => Ok(()),
        Whole::No(found) => Err(StoreError::Broken(format!("the file is corrupt: {found}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A database with some pages of rows, closed again.
    async fn made(folder: &tempfile::TempDir) -> (String, std::path::PathBuf) {
        let path = folder.path().join("examined.db");
        let url = format!("sqlite://{}", path.display());
        drop(Store::open(&url).await.unwrap());
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE ballast (n INTEGER, body TEXT) STRICT").unwrap();
        for n in 0..500 {
            connection.execute("INSERT INTO ballast VALUES (?1, printf('%200d', ?1))", [n]).unwrap();
        }
        (url, path)
    }

    #[tokio::test]
    async fn a_page_that_cannot_be_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (url, path) = made(&folder).await;
        let (store, _writer) = Store::open(&url).await.unwrap();
        store.examine(Duration::from_mins(1)).await.unwrap();
        let last_page = path.metadata().unwrap().len() - 4_096;
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xa5; 4_096], last_page).unwrap();
        let error = store.examine(Duration::from_mins(1)).await.unwrap_err();
        assert!(matches!(error, StoreError::Broken(_)), "{error}");
    }
}
