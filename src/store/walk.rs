//! A page of a list: a few indexes walked in the list's order, merged.
//!
//! A walk looks at a bounded number of rows. Where its conditions leave few of very many, a page may hold less than was asked for,
//! even nothing, and still name a next one: no list, however it is filtered, takes longer the more there is.

use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, SqliteConnection};

use super::StoreError;
use super::pages::{Order, Page, Paging, Place, cursor};
use super::sql::Sql;

/// Rows one walk looks at for a page.
const ROWS_MAX: u32 = 4_000;

/// What a list is ordered by, and its cursors point at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// A time, where one comes first.
    pub(super) time: Option<&'static str>,
    /// The row's number.
    pub(super) number: &'static str,
}

impl Key {
    fn order(self, order: Order) -> String {
        let direction = match order {
            Order::Descending => " DESC",
            Order::Ascending => "",
        };
        let time = self.time.map(|time| format!("{time}{direction}, ")).unwrap_or_default();
        format!(" ORDER BY {time}{}{direction}", self.number)
    }

    /// Rows on one side of a place.
    fn beyond(self, sql: Sql, comparison: &str, place: Place) -> Sql {
        match self.time {
            None => sql.and(self.number).push(comparison).bind(place.1),
            Some(time) => {
                let sql = sql.and(&format!("({time}, {})", self.number)).push(comparison);
                sql.push("(").bind(place.0).push(", ").bind(place.1).push(")")
            }
        }
    }

    /// The columns that [`place`] reads.
    fn columns(self) -> String {
        format!("{} AS place_time, {} AS place_number", self.time.unwrap_or("0"), self.number)
    }
}

fn place(row: &SqliteRow) -> Result<Place, StoreError> {
    Ok((row.try_get("place_time")?, row.try_get("place_number")?))
}

/// One index walked in the order of a list.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// The table, and the index of it that is walked.
    pub(super) from: &'static str,
    /// What is joined to each row.
    pub(super) join: &'static str,
    /// What orders it.
    pub(super) key: Key,
    /// What the index is searched by.
    pub(super) by: Sql,
    /// What has to be looked at in each row.
    pub(super) rest: Sql,
}

/// What a walk found.
struct Walked<T> {
    rows: Vec<(Place, T)>,
    /// It looked at all it may look at, up to here.
    until: Option<Place>,
}

impl Walk {
    /// The statements of a walk: where it ends at the latest, and its rows.
    pub(super) fn statements(&self, columns: &str, paging: &Paging, until: Option<Place>) -> (Sql, Sql) {
        let (beyond, back) = match paging.order {
            Order::Descending => (" < ", " >= "),
            Order::Ascending => (" > ", " <= "),
        };
        let mut by = self.by.clone();
        if let Some(after) = paging.after {
            by = self.key.beyond(by, beyond, after);
        }
        let Self { from, join, key, .. } = self;
        let everything = |sql: Sql| if sql.is_empty() { Sql::new("TRUE") } else { sql };
        let end = Sql::new(&format!("SELECT {} FROM {from} WHERE ", key.columns())).tail(&everything(by.clone()));
        let end = end.push(&key.order(paging.order)).push(" LIMIT 1 OFFSET ").bind(i64::from(ROWS_MAX));
        if let Some(until) = until {
            by = key.beyond(by, back, until);
        }
        let rows = Sql::new(&format!("SELECT {columns}, {} FROM {from} {join} WHERE ", key.columns()));
        let rows = rows.tail(&everything(by.join(&self.rest)));
        let rows = rows.push(&key.order(paging.order)).push(" LIMIT ").bind(i64::from(paging.limit) + 1);
        (end, rows)
    }

    async fn run<T>(
        &self,
        connection: &mut SqliteConnection,
        columns: &str,
        paging: &Paging,
        read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
    ) -> Result<Walked<T>, StoreError> {
        let mut until = None;
        // Without conditions on each row, every row that is looked at is one of the page.
        if !self.rest.is_empty() {
            let (sql, values) = self.statements(columns, paging, None).0.query()?;
            let end = sqlx::query_with(sqlx::AssertSqlSafe(sql), values).fetch_optional(&mut *connection).await?;
            until = end.map(|row| place(&row)).transpose()?;
        }
        let (sql, values) = self.statements(columns, paging, until).1.query()?;
        let rows = sqlx::query_with(sqlx::AssertSqlSafe(sql), values).fetch_all(&mut *connection).await?;
        let rows = rows.iter().map(|row| Ok((place(row)?, read(row)?)));
        Ok(Walked { rows: rows.collect::<Result<_, StoreError>>()?, until })
    }
}

/// A page of what the walks find, all at the same moment.
pub(super) async fn page<T>(
    readers: &SqlitePool,
    walks: &[Walk],
    columns: &str,
    paging: &Paging,
    read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let mut snapshot = readers.begin().await?;
    let (mut rows, mut ends) = (Vec::new(), Vec::new());
    for walk in walks {
        let walked = walk.run(&mut snapshot, columns, paging, &read).await?;
        rows.extend(walked.rows);
        ends.extend(walked.until);
    }
    snapshot.commit().await?;
    let descends = paging.order == Order::Descending;
    let later = |one: &Place, other: &Place| if descends { other.cmp(one) } else { one.cmp(other) };
    rows.sort_by(|(one, _), (other, _)| later(one, other));
    // Behind the first place where a walk stopped, nothing is known of it.
    let end = ends.into_iter().min_by(later);
    if let Some(end) = &end {
        rows.retain(|(place, _)| later(place, end).is_le());
    }
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    let last = if rows.len() > limit { rows.get(limit - 1).map(|(place, _)| *place) } else { end };
    rows.truncate(limit);
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    Ok(Page { rows, next_cursor: last.map(|last| cursor(last, paging.order)) })
}
