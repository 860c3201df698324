//! A row, whoever read it: the pool's driver or the writer's.

use rusqlite::types::FromSql;
use sqlx::sqlite::{Sqlite, SqliteRow};

use super::StoreError;

/// What both drivers can read out of a column.
pub(super) trait Value: FromSql + for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite> {}

impl<T: FromSql + for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>> Value for T {}

/// A row of a query.
pub(super) trait Row {
    /// The value of a column by its name.
    fn get<T: Value>(&self, column: &str) -> Result<T, StoreError>;
    /// The value of a column by its place, the first is 0: faster.
    fn at<T: Value>(&self, place: usize) -> Result<T, StoreError>;
}

impl Row for SqliteRow {
    fn get<T: Value>(&self, column: &str) -> Result<T, StoreError> {
        Ok(sqlx::Row::try_get(self, column)?)
    }

    fn at<T: Value>(&self, place: usize) -> Result<T, StoreError> {
        Ok(sqlx::Row::try_get(self, place)?)
    }
}

impl Row for rusqlite::Row<'_> {
    fn get<T: Value>(&self, column: &str) -> Result<T, StoreError> {
        Ok(self.get(column)?)
    }

    fn at<T: Value>(&self, place: usize) -> Result<T, StoreError> {
        Ok(self.get(place)?)
    }
}
