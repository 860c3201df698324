//! Statements put together at run time: text and values side by side, never one inside the other.

use rusqlite::ToSql;
use rusqlite::types::ToSqlOutput;
use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;

use super::StoreError;
use crate::domain::id::GenerationId;

/// A value of a statement.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u8> for Value {
    fn from(number: u8) -> Self {
        Self::Number(number.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Number(number) => number.to_sql(),
            Self::Text(text) => text.to_sql(),
            Self::Bytes(bytes) => bytes.to_sql(),
        }
    }
}

/// A statement or a part of one, with the values bound in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), values: Vec::new() }
    }

    /// That a column holds the row of this generation.
    pub(super) fn of_generation(self, column: &str, id: GenerationId) -> Self {
        let sql = self.and(column).push(" = (SELECT id FROM generations WHERE uid = ");
        sql.bind(id.as_bytes().to_vec()).push(")")
    }

    pub(super) fn push(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self.push("?")
    }

    /// One more condition.
    pub(super) fn and(self, text: &str) -> Self {
        let and = if self.is_empty() { "" } else { " AND " };
        self.push(and).push(text)
    }

    /// One of the given values; no values are no condition.
    pub(super) fn any_of<V: Into<Value>>(mut self, column: &str, values: impl Iterator<Item = V>) -> Self {
        let mut values = values.peekable();
        if values.peek().is_none() {
            return self;
        }
        self = self.and(column).push(" IN (");
        for (place, value) in values.enumerate() {
            self = self.push(if place > 0 { ", " } else { "" }).bind(value);
        }
        self.push(")")
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// What follows, without a word between.
    pub(super) fn tail(mut self, other: &Self) -> Self {
        self.values.extend(other.values.iter().cloned());
        self.push(&other.text)
    }

    /// What follows as one more condition.
    pub(super) fn join(mut self, other: &Self) -> Self {
        if other.is_empty() {
            return self;
        }
        self.values.extend(other.values.iter().cloned());
        self.and(&other.text)
    }

    pub(super) fn query(self) -> Result<(String, SqliteArguments), StoreError> {
        let mut arguments = SqliteArguments::default();
        for value in self.values {
            let added = match value {
                Value::Number(number) => arguments.add(number),
                Value::Text(text) => arguments.add(text),
                Value::Bytes(bytes) => arguments.add(bytes),
            };
            added.map_err(|error| StoreError::Failed(error.to_string()))?;
        }
        Ok((self.text, arguments))
    }
}
