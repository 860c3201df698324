//! What a command writes with: statements run in place, and what a group of commands writes down once.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{Connection, Params};

use super::StoreError;
use super::credits::Totals;
use super::tallies::Tallies;
use crate::domain::experience::{Experience, Kind};
use crate::domain::generation::Generation;
use crate::domain::id::GenerationId;
use crate::domain::time::Time;
use crate::telemetry::meters::Outcome;

/// A generation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub id: GenerationId,
    /// When it is to be looked at next.
    pub look_at: Option<Time>,
    /// Whether there is an event about it.
    pub told: bool,
    /// Whether a caller of the gateway wants to be told of it itself.
    pub for_caller: bool,
    /// The first outcome, when this brought it.
    pub outcome: Option<Outcome>,
}

/// What one commit changed.
pub type Changes = Arc<[Change]>;

impl Change {
    pub(super) fn of(before: Option<&Generation>, generation: &Generation) -> Self {
        let look_at = [generation.watch.check_at, generation.watch.turn_at].into_iter().flatten().min();
        Self { id: generation.id, look_at, told: false, for_caller: false, outcome: first_outcome(before, generation) }
    }
}

/// The outcome, when `before` had none. How long it took is known only of what was known before.
fn first_outcome(before: Option<&Generation>, after: &Generation) -> Option<Outcome> {
    let result = after.state.result()?;
    if before.is_some_and(|before| before.state.result().is_some()) {
        return None;
    }
    let learned = after.state.learned();
    let settled_at = after.state.settled_at().filter(|_| before.is_some());
    Some(Outcome {
        family: after.family,
        result,
        source: learned.map(|learned| learned.source),
        recovered: learned.is_some_and(|learned| learned.recovered),
        took: settled_at.map(|at| at.since(after.began_at())),
    })
}

/// What a command writes with.
#[derive(Debug)]
pub(super) struct Tx<'c> {
    pub(super) connection: &'c Connection,
    /// The generations that changed: told to listeners after the commit.
    pub(super) changed: &'c mut Vec<Change>,
    /// What was learned so far: decisions are made with it.
    pub(super) experience: &'c mut Experience,
    /// What of it is still to be written down.
    pub(super) lessons: &'c mut Lessons,
    /// What the sums are still to be changed by.
    pub(super) sums: &'c mut Sums,
}

/// What the sums are to be changed by: once for a group, however many generations changed.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// Those of the money report.
    pub(super) totals: Totals,
    /// Those of the charts.
    pub(super) tallies: Tallies,
}

impl Sums {
    /// Takes a change of a generation in.
    pub(super) fn count(&mut self, before: Option<&Generation>, after: Option<&Generation>) {
        self.totals.count(before, after);
        self.tallies.count(before, after);
    }
}

/// What was learned since it was last written down: once for a group, however many taught the same.
#[derive(Debug, Default)]
pub(super) struct Lessons {
    pub(super) paces: BTreeSet<Kind>,
    pub(super) trusts: BTreeSet<&'static str>,
}

impl Lessons {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.paces.is_empty() && self.trusts.is_empty()
    }
}

impl Tx<'_> {
    /// Runs a statement; tells how many rows it changed.
    pub(super) fn execute(&self, sql: &str, values: impl Params) -> Result<usize, StoreError> {
        Ok(self.connection.prepare_cached(sql)?.execute(values)?)
    }

    /// The first row of a query.
    pub(super) fn first<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        rows.next()?.map(read).transpose()
    }

    /// All rows of a query.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        all(self.connection, sql, values, read)
    }

    /// Runs a statement that adds a row; tells which.
    pub(super) fn add(&self, sql: &str, values: impl Params) -> Result<i64, StoreError> {
        self.execute(sql, values)?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Writes down what the commands of a group have in common.
    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        self.write_lessons()?;
        self.write_sums()
    }

    /// Brings the sums up to date.
    pub(super) fn write_sums(&mut self) -> Result<(), StoreError> {
        self.write_totals()?;
        self.write_tallies()
    }

    /// A statement whose values are bound one by one.
    pub(super) fn statement(&self, sql: &str) -> Result<rusqlite::CachedStatement<'_>, StoreError> {
        Ok(self.connection.prepare_cached(sql)?)
    }

    /// The row added last.
    pub(super) fn last_added(&self) -> i64 {
        self.connection.last_insert_rowid()
    }
}

/// All rows of a query.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    mut read: impl FnMut(&rusqlite::Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let (mut rows, mut found) = (statement.query(values)?, Vec::new());
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}
