//! Events as they are read: lists, single ones, and the stream's next pages.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::value::{RawValue, to_raw_value};
use sqlx::sqlite::SqliteRow;

use super::pages::{Page, Paging};
use super::row::Row;
use super::rows::{self, JOINED, impossible};
use super::sql::Sql;
use super::walk::{self, Key, NEIGHBOURS_MAX, SCATTERED_MAX, Walk};
use super::{Store, StoreError};
use crate::domain::event::{DispatchState, Event, EventKind};
use crate::domain::id::{EventId, GenerationId};
use crate::domain::shown::Shown;
use crate::domain::time::Time;

/// Which events to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Any of these.
    pub kinds: Vec<EventKind>,
    /// Whether they arrived.
    pub states: Vec<DispatchState>,
    /// Of this generation.
    pub generation: Option<GenerationId>,
}

/// An event on its way to one place.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Dispatch {
    /// Where to.
    pub endpoint: String,
    /// How it stands.
    pub state: DispatchState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last.
    pub last_attempt_at: Option<Time>,
    /// When it is tried next.
    pub next_attempt_at: Option<Time>,
    /// The last answer's HTTP status.
    pub http_status: Option<u16>,
    /// The last answer in a few words.
    pub said: Option<String>,
}

/// An event and how it stands.
#[derive(Clone, Debug)]
pub struct Told {
    /// The event.
    pub event: Event,
    /// Pending while any place has not got it; dead when one never will.
    pub state: DispatchState,
}

/// The columns of [`event`], behind those of its generation.
const COLUMNS: &str = "e.id AS event_id, e.uid AS event_uid, e.kind, e.at, e.sequence, e.shown";
/// Where it stands: pending while any place has not got it, dead when one never will; as [`DispatchState`] is stored.
const STATE: &str = "CASE WHEN EXISTS (SELECT 1 FROM dispatches d WHERE d.event = e.id AND d.state = 1) THEN 1
     WHEN EXISTS (SELECT 1 FROM dispatches d WHERE d.event = e.id AND d.state = 3) THEN 3 ELSE 2 END";

/// What is selected of `events e` and `generations g` for [`event`].
pub(super) static SELECTED: LazyLock<String> = LazyLock::new(|| format!("{JOINED}, {COLUMNS}"));
static WITH_STATE: LazyLock<String> = LazyLock::new(|| format!("{JOINED}, {COLUMNS}, {STATE} AS state"));

const BY_NUMBER: Key = Key { time: None, number: "e.id" };
const BY_SEQUENCE: Key = Key { time: None, number: "e.sequence" };
const ALL: &str = "events e NOT INDEXED";
const OF_GENERATION: &str = "events e INDEXED BY sqlite_autoindex_events_2";
const OF_KIND: &str = "events e INDEXED BY events_kind";
const GENERATION: &str = "CROSS JOIN generations g ON g.id = e.generation";
const UNDELIVERED: Key = Key { time: None, number: "s.event" };
const OF_STATE: &str = "dispatches s INDEXED BY dispatches_state";
const EVENT: &str = "CROSS JOIN events e ON e.id = s.event CROSS JOIN generations g ON g.id = e.generation";
/// An event that waits for several places is one row.
const ONCE: &str =
    "NOT EXISTS (SELECT 1 FROM dispatches o WHERE o.event = s.event AND o.state = s.state AND o.id < s.id)";

impl EventFilter {
    pub(super) fn walks(&self) -> Vec<Walk> {
        let kinds = || Sql::default().any_of("e.kind", self.kinds.iter().map(|kind| kind.code()));
        let states = |sql: Sql| sql.any_of(STATE, self.states.iter().map(|state| state.code()));
        let walk = |from, by: Sql, rest: Sql| Walk {
            from,
            join: GENERATION,
            key: BY_NUMBER,
            by,
            rest,
            rows_max: SCATTERED_MAX,
        };
        if let Some(generation) = self.generation {
            let by = Sql::default().of_generation("e.generation", generation);
            return vec![Walk { key: BY_SEQUENCE, ..walk(OF_GENERATION, by, states(kinds())) }];
        }
        if !self.states.is_empty() && !self.states.contains(&DispatchState::Delivered) {
            let each = self.states.iter().map(|state| Sql::new("s.state <> 2 AND s.state = ").bind(state.code()));
            let walk = |by| Walk { join: EVENT, key: UNDELIVERED, ..walk(OF_STATE, by, states(kinds()).and(ONCE)) };
            return each.map(walk).collect();
        }
        if !self.kinds.is_empty() && !self.kinds.contains(&EventKind::Completed) {
            let each = self.kinds.iter().map(|kind| Sql::new("e.kind <> 1 AND e.kind = ").bind(kind.code()));
            return each.map(|by| walk(OF_KIND, by, states(Sql::default()))).collect();
        }
        vec![Walk { rows_max: NEIGHBOURS_MAX, ..walk(ALL, Sql::default(), states(kinds())) }]
    }

    /// What an event has to fulfil.
    pub(super) fn condition(&self) -> Sql {
        let kinds = Sql::default().any_of("e.kind", self.kinds.iter().map(|kind| kind.code()));
        let condition = kinds.any_of(STATE, self.states.iter().map(|state| state.code()));
        match self.generation {
            None => condition,
            Some(generation) => condition.of_generation("e.generation", generation),
        }
    }
}

impl Store {
    /// A page of events, newest first unless asked otherwise.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn events(
        &self,
        filter: &EventFilter,
        paging: &Paging,
        refund_window: Duration,
    ) -> Result<Page<Told>, StoreError> {
        walk::page(&self.readers, &filter.walks(), &WITH_STATE, paging, |row| told(row, refund_window)).await
    }

    /// One event and where it went.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn event(
        &self,
        id: EventId,
        refund_window: Duration,
    ) -> Result<Option<(Told, Vec<Dispatch>)>, StoreError> {
        static ONE: LazyLock<String> = LazyLock::new(|| {
            format!("SELECT {} FROM events e JOIN generations g ON g.id = e.generation WHERE e.uid = ?1", &*WITH_STATE)
        });
        let uid = id.as_bytes().as_slice();
        // One transaction, so that the state and the dispatches it follows from are of the same moment.
        let mut snapshot = self.readers.begin().await?;
        let row = sqlx::query(ONE.as_str()).bind(uid).fetch_optional(&mut *snapshot).await?;
        let Some(row) = row else { return Ok(None) };
        let dispatches = sqlx::query(
            "SELECT o.name, d.state, d.attempts, d.last_at, d.next_at, d.http_status, d.said
             FROM dispatches d JOIN outlets o ON o.id = d.outlet WHERE d.event = ?1 ORDER BY d.id",
        )
        .bind(row.get::<i64>("event_id")?)
        .fetch_all(&mut *snapshot)
        .await?;
        let dispatches = dispatches.iter().map(dispatch).collect::<Result<_, _>>()?;
        Ok(Some((told(&row, refund_window)?, dispatches)))
    }

    /// Where an event stands in the order of all; the last one's place without an id. `None` for an id that nothing has.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn event_position(&self, id: Option<EventId>) -> Result<Option<i64>, StoreError> {
        Ok(match id {
            Some(id) => {
                let found = sqlx::query_scalar("SELECT id FROM events WHERE uid = ?1").bind(id.as_bytes().as_slice());
                found.fetch_optional(&self.readers).await?
            }
            None => Some(sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM events").fetch_one(&self.readers).await?),
        })
    }

    /// The next `limit` events behind a place, oldest first, each with its own place.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn events_after(
        &self,
        position: i64,
        limit: u32,
        refund_window: Duration,
    ) -> Result<Vec<(i64, Event)>, StoreError> {
        static AFTER: LazyLock<String> = LazyLock::new(|| {
            format!(
                "SELECT {} FROM events e JOIN generations g ON g.id = e.generation WHERE e.id > ?1 ORDER BY e.id LIMIT ?2",
                &*SELECTED
            )
        });
        let rows = sqlx::query(AFTER.as_str()).bind(position).bind(limit).fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok((row.get("event_id")?, event(row, refund_window)?))).collect()
    }
}

/// Reads [`SELECTED`]. An event whose generation has not changed since is shown as that is.
pub(super) fn event(row: &impl Row, refund_window: Duration) -> Result<Event, StoreError> {
    let generation = rows::read(row)?.generation;
    let [id, uid, kind, at, sequence, shown] = [0, 1, 2, 3, 4, 5].map(|place| rows::WIDTH + place);
    let number: i64 = row.at(id)?;
    let wrong = |column: &str| impossible("events", column, number);
    let at = Time::from_ms(row.at(at)?);
    let uid: Vec<u8> = row.at(uid)?;
    let id = generation.id;
    let shown = match row.at::<Option<String>>(shown)? {
        Some(shown) => RawValue::from_string(shown),
        None => to_raw_value(&Shown::of(generation, at, refund_window)),
    };
    Ok(Event {
        id: EventId::from_bytes(&uid).ok_or_else(|| wrong("uid"))?,
        generation: id,
        kind: EventKind::of_code(row.at(kind)?).ok_or_else(|| wrong("kind"))?,
        at,
        sequence: row.at(sequence)?,
        shown: Some(shown.map_err(|_| wrong("shown"))?),
    })
}

fn told(row: &SqliteRow, refund_window: Duration) -> Result<Told, StoreError> {
    Ok(Told { event: event(row, refund_window)?, state: state(row)? })
}

fn state(row: &SqliteRow) -> Result<DispatchState, StoreError> {
    DispatchState::of_code(row.get("state")?).ok_or_else(|| impossible("dispatches", "state", 0))
}

fn dispatch(row: &SqliteRow) -> Result<Dispatch, StoreError> {
    Ok(Dispatch {
        endpoint: row.get("name")?,
        state: state(row)?,
        attempts: row.get("attempts")?,
        last_attempt_at: row.get::<Option<i64>>("last_at")?.map(Time::from_ms),
        next_attempt_at: row.get::<Option<i64>>("next_at")?.map(Time::from_ms),
        http_status: row.get("http_status")?,
        said: row.get("said")?,
    })
}
