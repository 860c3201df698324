//! Events on their way out: each outlet walks them in their order at its own pace.
//!
//! What is handed out is leased: a process that dies in between sends it again, under the same id.

use std::sync::LazyLock;
use std::time::Duration;

use rusqlite::params;

use super::events::{SELECTED, event};
use super::record::expect_one;
use super::tx::Tx;
use super::{Store, StoreError};
use crate::domain::event::{Event, EventKind, Outlook};
use crate::domain::generation::Generation;
use crate::domain::time::Time;

/// Which events an outlet wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Of these kinds.
    pub kinds: Vec<EventKind>,
    /// Only of purchases whose caller named a callback URL of its own.
    pub callers_only: bool,
}

/// An event handed out to be sent.
#[derive(Clone, Debug)]
pub struct Handed {
    /// Row of its dispatch.
    pub dispatch: i64,
    /// How often it was tried before.
    pub attempts: u32,
    /// The event.
    pub event: Event,
    /// For callers: the generation as it is now, and where they want to be told.
    pub caller: Option<(Generation, String)>,
}

/// What an outlet is to send now.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The events.
    pub handed: Vec<Handed>,
    /// There is nothing more for now, or no room for it.
    pub caught_up: bool,
}

/// Events looked at in one transaction: bounds how long an outlet that wants few of them holds the writer.
const LOOK_MAX: u32 = 500;

impl Store {
    /// Makes an outlet known, and useable again if it was disabled. A new one gets what happens from now on. What the process
    /// before this one was sending for the first time is due at once: nobody else is waiting for its answer.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn open_outlet(&self, name: &str, callers_only: bool, now: Time) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.writer
            .run(move |tx| {
                tx.execute(
                    "INSERT INTO outlets (name, position, callers_only) VALUES (?1, (SELECT coalesce(max(id), 0) FROM events), ?2)
                     ON CONFLICT (name) DO UPDATE SET disabled_at = NULL, reason = NULL",
                    params![name, callers_only],
                )?;
                tx.execute(
                    "UPDATE dispatches SET next_at = ?1 WHERE outlet = (SELECT id FROM outlets WHERE name = ?2)
                        AND state = 1 AND last_at IS NULL",
                    params![now.as_ms(), name],
                )?;
                Ok(())
            })
            .await
    }

    /// Hands out at most `limit` events that are due for an outlet: those to be tried again and new ones. They are
    /// not handed out again until `lease` has passed. None for an outlet that is disabled.
    ///
    /// # Errors
    /// [`StoreError`] when that was not kept: nothing may be sent.
    pub async fn hand_out(
        &self,
        name: &str,
        wants: &Wants,
        limit: usize,
        lease: Duration,
        refund_window: Duration,
        now: Time,
    ) -> Result<Batch, StoreError> {
        let (name, wants) = (name.to_owned(), wants.clone());
        self.writer.run(move |tx| tx.hand_out(&name, &wants, limit, lease, refund_window, now)).await
    }

    /// What is to be tried again at an outlet after `latest` is tried then: the clock has jumped back since that was written.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn bring_events_near(&self, name: &str, latest: Time) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.writer
            .run(move |tx| {
                tx.execute(
                    "UPDATE dispatches SET next_at = ?1 WHERE outlet = (SELECT id FROM outlets WHERE name = ?2)
                        AND state = 1 AND next_at > ?1",
                    params![latest.as_ms(), name],
                )?;
                Ok(())
            })
            .await
    }

    /// Takes back what was handed out and not tried, until a time.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept: it comes back when its lease runs out.
    pub async fn put_back(&self, dispatches: Vec<i64>, until: Time) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                for dispatch in &dispatches {
                    // An attempt that outlived its lease may have ended meanwhile.
                    tx.execute(
                        "UPDATE dispatches SET next_at = ?1 WHERE id = ?2 AND state = 1",
                        params![until.as_ms(), dispatch],
                    )?;
                }
                Ok(())
            })
            .await
    }

    /// Writes down what came of an attempt.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept: it is sent again.
    pub async fn record_attempt(
        &self,
        dispatch: i64,
        outlook: Outlook,
        http_status: Option<u16>,
        said: String,
        now: Time,
    ) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                let next_at = match outlook {
                    Outlook::Again { at } => Some(at.as_ms()),
                    Outlook::Delivered | Outlook::Dead => None,
                };
                let rows = tx.execute(
                    "UPDATE dispatches SET state = ?1, attempts = attempts + 1, next_at = ?2, last_at = ?3, http_status = ?4,
                            said = ?5 WHERE id = ?6",
                    params![outlook.state().code(), next_at, now.as_ms(), http_status, said, dispatch],
                )?;
                expect_one(rows, "dispatches", dispatch)
            })
            .await
    }

    /// Sends nothing more to an outlet until it is opened again; what waits goes on waiting.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn disable_outlet(&self, name: &str, reason: &'static str, now: Time) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.writer
            .run(move |tx| {
                tx.execute(
                    "UPDATE outlets SET disabled_at = ?1, reason = ?2 WHERE name = ?3",
                    params![now.as_ms(), reason, name],
                )?;
                Ok(())
            })
            .await
    }

    /// When something is to be tried again next at an outlet.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn next_attempt_at(&self, name: &str) -> Result<Option<Time>, StoreError> {
        let next: Option<i64> = sqlx::query_scalar(
            "SELECT min(next_at) FROM dispatches
             WHERE outlet = (SELECT id FROM outlets WHERE name = ?1 AND disabled_at IS NULL) AND state = 1",
        )
        .bind(name)
        .fetch_one(&self.readers)
        .await?;
        Ok(next.map(Time::from_ms))
    }
}

static DUE_AGAIN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, d.id AS dispatch, d.attempts FROM dispatches d JOIN events e ON e.id = d.event
         JOIN generations g ON g.id = e.generation
         WHERE d.outlet = ?1 AND d.state = 1 AND d.next_at <= ?2 ORDER BY d.next_at LIMIT ?3",
        &*SELECTED
    )
});
static NEW: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM events e JOIN generations g ON g.id = e.generation WHERE e.id > ?1 ORDER BY e.id LIMIT ?2",
        &*SELECTED
    )
});
static NEW_FOR_CALLERS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM events e INDEXED BY events_for_caller JOIN generations g ON g.id = e.generation
         WHERE e.for_caller = 1 AND e.id > ?1 ORDER BY e.id LIMIT ?2",
        &*SELECTED
    )
});

impl Tx<'_> {
    fn hand_out(
        &mut self,
        name: &str,
        wants: &Wants,
        limit: usize,
        lease: Duration,
        refund_window: Duration,
        now: Time,
    ) -> Result<Batch, StoreError> {
        let outlet = self.first(
            "SELECT id, position FROM outlets WHERE name = ?1 AND disabled_at IS NULL",
            params![name],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let Some((outlet, position)) = outlet else { return Ok(Batch { handed: Vec::new(), caught_up: true }) };
        let mut caught_up = true;
        // Half the room at most, or what fails again and again would keep out what is new.
        let mut handed = self.hand_out_again(outlet, limit.div_ceil(2), (now, now + lease), refund_window)?;
        if handed.len() < limit {
            let room = limit - handed.len();
            let new = self.hand_out_new((outlet, position), wants, room, now + lease, refund_window)?;
            handed.extend(new.handed);
            caught_up = new.caught_up;
        }
        if wants.callers_only {
            for one in &mut handed {
                one.caller = self.caller(&one.event)?;
            }
        }
        Ok(Batch { handed, caught_up })
    }

    fn hand_out_again(
        &self,
        outlet: i64,
        limit: usize,
        (now, until): (Time, Time),
        refund_window: Duration,
    ) -> Result<Vec<Handed>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let handed = self.all(&DUE_AGAIN, params![outlet, now.as_ms(), limit], |row| {
            Ok(Handed {
                dispatch: row.get("dispatch")?,
                attempts: row.get("attempts")?,
                event: event(row, refund_window)?,
                caller: None,
            })
        })?;
        for one in &handed {
            self.execute("UPDATE dispatches SET next_at = ?1 WHERE id = ?2", params![until.as_ms(), one.dispatch])?;
        }
        Ok(handed)
    }

    fn hand_out_new(
        &self,
        (outlet, position): (i64, i64),
        wants: &Wants,
        room: usize,
        until: Time,
        refund_window: Duration,
    ) -> Result<Batch, StoreError> {
        let new = if wants.callers_only { &NEW_FOR_CALLERS } else { &NEW };
        let looked_at = self.all(new, params![position, LOOK_MAX], |row| {
            Ok((row.get::<_, i64>("event_id")?, event(row, refund_window)?))
        })?;
        let looked_at_all = u32::try_from(looked_at.len()).unwrap_or(LOOK_MAX) < LOOK_MAX;
        let (mut handed, mut last) = (Vec::new(), position);
        for (row, event) in looked_at {
            if handed.len() == room {
                break;
            }
            last = row;
            if !wants.kinds.contains(&event.kind) {
                continue;
            }
            let dispatch = self.add(
                "INSERT INTO dispatches (outlet, event, state, attempts, next_at) VALUES (?1, ?2, 1, 0, ?3)",
                params![outlet, row, until.as_ms()],
            )?;
            handed.push(Handed { dispatch, attempts: 0, event, caller: None });
        }
        if last > position {
            self.execute("UPDATE outlets SET position = ?1 WHERE id = ?2", params![last, outlet])?;
        }
        Ok(Batch { caught_up: looked_at_all || handed.len() == room, handed })
    }

    fn caller(&self, event: &Event) -> Result<Option<(Generation, String)>, StoreError> {
        let Some(stored) = self.by_id(event.generation)? else { return Ok(None) };
        let url = self.callback_url(stored.row)?;
        Ok(url.map(|url| (stored.generation, url)))
    }
}
