//! Events as they are read: lists, single ones, and the stream's next pages.

use sqlx::QueryBuilder;
use sqlx::sqlite::{Sqlite, SqliteRow};

use super::pages::{self, Page, Paging};
use super::row::Row;
use super::rows::impossible;
use super::{Store, StoreError};
use crate::domain::event::{DispatchState, Event, EventKind};
use crate::domain::id::{EventId, GenerationId};
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
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
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

pub(super) const COLUMNS: &str = "e.id, e.uid, g.uid AS generation_uid, e.kind, e.at, e.sequence, e.shown";
/// The state of an event over all its dispatches.
const STATE: &str = "CASE WHEN EXISTS (SELECT 1 FROM dispatches d WHERE d.event = e.id AND d.state = 'pending') THEN 'pending'
     WHEN EXISTS (SELECT 1 FROM dispatches d WHERE d.event = e.id AND d.state = 'dead') THEN 'dead' ELSE 'delivered' END";

impl EventFilter {
    pub(super) fn push(&self, query: &mut QueryBuilder<Sqlite>) {
        pages::any_of(query, "e.kind", self.kinds.iter().map(|kind| kind.as_str()));
        pages::any_of(query, STATE, self.states.iter().map(|state| state.as_str()));
        if let Some(generation) = self.generation {
            query.push(" AND e.generation = (SELECT id FROM generations WHERE uid = ");
            query.push_bind(generation.as_bytes().to_vec()).push(")");
        }
    }
}

impl Store {
    /// A page of events, newest first unless asked otherwise.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn events(&self, filter: &EventFilter, paging: &Paging) -> Result<Page<Told>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(format!(
            "SELECT {COLUMNS}, {STATE} AS state FROM events e JOIN generations g ON g.id = e.generation WHERE TRUE"
        ));
        filter.push(&mut query);
        pages::finish(&mut query, "e.id", paging);
        let rows = query.build().fetch_all(&self.readers).await?;
        pages::page(&rows, paging, told)
    }

    /// One event and where it went.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn event(&self, id: EventId) -> Result<Option<(Told, Vec<Dispatch>)>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS}, {STATE} AS state FROM events e JOIN generations g ON g.id = e.generation WHERE e.uid = ?1"
        );
        let uid = id.as_bytes().as_slice();
        // One transaction, so that the state and the dispatches it follows from are of the same moment.
        let mut snapshot = self.readers.begin().await?;
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(uid).fetch_optional(&mut *snapshot).await?;
        let Some(row) = row else { return Ok(None) };
        let dispatches = sqlx::query(
            "SELECT o.name, d.state, d.attempts, d.last_at, d.next_at, d.http_status, d.said
             FROM dispatches d JOIN outlets o ON o.id = d.outlet WHERE d.event = ?1 ORDER BY d.id",
        )
        .bind(row.get::<i64>("id")?)
        .fetch_all(&mut *snapshot)
        .await?;
        let dispatches = dispatches.iter().map(dispatch).collect::<Result<_, _>>()?;
        Ok(Some((told(&row)?, dispatches)))
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
    pub async fn events_after(&self, position: i64, limit: u32) -> Result<Vec<(i64, Event)>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM events e JOIN generations g ON g.id = e.generation WHERE e.id > ?1 ORDER BY e.id LIMIT ?2"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(position).bind(limit).fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok((row.get("id")?, event(row)?))).collect()
    }
}

/// Reads [`COLUMNS`].
pub(super) fn event(row: &impl Row) -> Result<Event, StoreError> {
    let id: i64 = row.get("id")?;
    let (uid, generation): (Vec<u8>, Vec<u8>) = (row.get("uid")?, row.get("generation_uid")?);
    let kind: String = row.get("kind")?;
    let wrong = |column: &str| impossible("events", column, id);
    let shown: Option<String> = row.get("shown")?;
    Ok(Event {
        id: EventId::from_bytes(&uid).ok_or_else(|| wrong("uid"))?,
        generation: GenerationId::from_bytes(&generation).ok_or_else(|| wrong("generation"))?,
        kind: EventKind::parse(&kind).ok_or_else(|| wrong("kind"))?,
        at: Time::from_ms(row.get("at")?),
        sequence: row.get("sequence")?,
        shown: shown
            .map(|shown| serde_json::value::RawValue::from_string(shown).map_err(|_| wrong("shown")))
            .transpose()?,
    })
}

fn told(row: &SqliteRow) -> Result<Told, StoreError> {
    Ok(Told { event: event(row)?, state: state(row)? })
}

fn state(row: &SqliteRow) -> Result<DispatchState, StoreError> {
    let word: String = row.get("state")?;
    DispatchState::parse(&word).ok_or_else(|| impossible("dispatches", "state", 0))
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
