//! A page of a list: a few indexes walked in the list's order, merged.
//!
//! A walk looks at a bounded number of rows. Where its conditions leave few of very many, a page may hold less than was asked for,
//! even nothing, and still name a next one: no list, however it is filtered, takes longer the more there is.

use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, SqliteConnection};

use super::StoreError;
use super::pages::{Order, Page, Paging, Place, cursor};
use super::sql::Sql;

/// Rows one walk looks at for a page, where they lie one behind the other.
pub(super) const NEIGHBOURS_MAX: u32 = 4_000;
/// The same, where each may lie somewhere else in the file.
pub(super) const SCATTERED_MAX: u32 = 500;

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
    /// Rows it looks at for a page, at most.
    pub(super) rows_max: u32,
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
        let end = end.push(&key.order(paging.order)).push(" LIMIT 1 OFFSET ").bind(i64::from(self.rows_max));
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
    // A value that was asked for twice, or an event that waits here and is given up there, is found by two walks.
    rows.dedup_by_key(|(place, _)| *place);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::{ConnectOptions, Executor};

    use super::super::{EventFilter, Filter, Store};
    use super::*;
    use crate::domain::event::{DispatchState, EventKind};
    use crate::domain::generation::Attention;
    use crate::domain::time::Time;

    /// Ten thousand completed ones, of which every thousandth is of a rare model.
    const MANY: &str = "WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < 10000)
        INSERT INTO generations (uid, provider_id, family, status, model, result_url, source, verification, recovered, via,
                                 created_at, settled_at, checks, running_streak, not_found_streak, error_streak, late_answers,
                                 deliveries, outcomes, events)
        SELECT CAST(printf('%016d', n) AS BLOB), 'id-' || n, 1, 7, iif(n % 1000, 'common', 'rare'), 'https://cdn.example/v.mp4', 1, 1,
               0, 3, n / 3, n, 0, 0, 0, 0, 0, 1, 1, 0 FROM series";

    #[tokio::test]
    async fn a_rare_filter_is_paged_through_in_bounded_steps_and_misses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("many.db").display());
        let (store, _writer) = Store::open(&url).await.unwrap();
        let mut connection = super::super::options(&url).unwrap().connect().await.unwrap();
        connection.execute(MANY).await.unwrap();
        let filter = Filter { models: vec!["rare".to_owned()], ..Filter::default() };
        for order in [Order::Descending, Order::Ascending] {
            let (mut found, mut pages, mut paging) = (Vec::new(), 0, Paging { order, limit: 4, after: None });
            loop {
                let page = store.generations(&filter, &paging, Time::from_ms(1), Duration::ZERO).await.unwrap();
                found.extend(page.rows.iter().map(|generation| generation.provider_id.clone().unwrap().to_string()));
                pages += 1;
                let Some(cursor) = page.next_cursor else { break };
                paging.after = Some(Paging::read_cursor(&cursor, order).unwrap());
            }
            let mut expected: Vec<_> = (1..=10).map(|n| format!("id-{}", n * 1_000)).collect();
            if order == Order::Descending {
                expected.reverse();
            }
            assert_eq!(found, expected);
            assert!(pages >= 10_000 / NEIGHBOURS_MAX, "{pages} pages looked at everything");
        }
    }

    #[tokio::test]
    async fn what_several_walks_find_is_listed_once() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("twice.db").display());
        let (store, _writer) = Store::open(&url).await.unwrap();
        let mut connection = super::super::options(&url).unwrap().connect().await.unwrap();
        connection.execute(MANY).await.unwrap();
        let told =
            "INSERT INTO events (uid, generation, sequence, at, kind, for_caller) VALUES (zeroblob(16), 1, 1, 1, 2, 0);
            INSERT INTO outlets (id, name, position) VALUES (1, 'one', 1), (2, 'other', 1);
            INSERT INTO dispatches (outlet, event, state, attempts, next_at) VALUES (1, 1, 1, 0, 1), (2, 1, 3, 8, NULL);
            UPDATE generations SET attention = 6 WHERE id = 1";
        connection.execute(told).await.unwrap();
        let paging = Paging { order: Order::Descending, limit: 50, after: None };
        let twice = Filter { attentions: vec![Attention::Conflict; 2], ..Filter::default() };
        let page = store.generations(&twice, &paging, Time::from_ms(1), Duration::ZERO).await.unwrap();
        assert_eq!(page.rows.len(), 1, "asked for twice");
        for states in [vec![DispatchState::Pending, DispatchState::Dead], vec![DispatchState::Pending]] {
            let filter = EventFilter { states, kinds: vec![EventKind::Failed; 2], ..EventFilter::default() };
            assert_eq!(store.events(&filter, &paging, Duration::ZERO).await.unwrap().rows.len(), 1, "{filter:?}");
        }
    }
}
