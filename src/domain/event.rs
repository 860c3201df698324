//! What goes out to the user's systems: events, what they say, and how a place that gets them is treated.
//!
//! One event per change, never two for the same. Which change makes which event is decided in `decision/`.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::id::{EventId, GenerationId};
use super::time::Time;
use super::words::words;

words! {
    /// What happened (contract section 8).
    EventKind {
        /// There is a result.
        Completed = "generation.completed",
        /// There will be none.
        Failed = "generation.failed",
        /// A person should look.
        Attention = "generation.attention",
        /// A later fact filled a gap of a settled generation.
        Updated = "generation.updated",
        /// The outcome told before was wrong.
        Corrected = "generation.corrected",
    }
}

words! {
    /// How an event on its way stands.
    DispatchState {
        /// It has not arrived yet.
        Pending = "pending",
        /// It was answered with 2xx, or there is nowhere to send it.
        Delivered = "delivered",
        /// It was tried as often as the schedule says; a person can send it again.
        Dead = "dead",
    }
}

/// Something that happened to a generation, to be told.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its id: the same on every attempt.
    pub id: EventId,
    /// What it is about.
    pub generation: GenerationId,
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub at: Time,
    /// Its number among this generation's events, from one.
    pub sequence: u32,
    /// The generation as it was then, as JSON; `None` for events of before this was kept.
    pub shown: Option<Box<RawValue>>,
}

/// The body of an event, as it is sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventBody)]
pub struct EventBody<'e> {
    r#type: EventKind,
    /// When it happened.
    timestamp: Time,
    /// The number of this event among those of its generation, from one.
    sequence: u32,
    /// The generation as it was then.
    #[schema(value_type = Option<super::shown::Shown>)]
    data: Option<&'e RawValue>,
}

impl Event {
    /// What is sent.
    pub fn body(&self) -> EventBody<'_> {
        EventBody { r#type: self.kind, timestamp: self.at, sequence: self.sequence, data: self.shown.as_deref() }
    }
}

/// How a dispatch goes on after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It arrived.
    Delivered,
    /// It is tried again.
    Again {
        /// When.
        at: Time,
    },
    /// It was tried as often as the schedule says.
    Dead,
}

impl Outlook {
    /// The state it is in from now on.
    pub fn state(self) -> DispatchState {
        match self {
            Self::Delivered => DispatchState::Delivered,
            Self::Again { .. } => DispatchState::Pending,
            Self::Dead => DispatchState::Dead,
        }
    }

    /// After the attempt number `attempt` (from one) failed. `retry_after` may only lengthen a pause, and by a day at most.
    /// Pauses are spread by a tenth, so that what failed together does not come back together.
    pub fn after_failure(
        schedule: &[Duration],
        attempt: u32,
        retry_after: Option<Duration>,
        id: EventId,
        now: Time,
    ) -> Self {
        let nth = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(pause) = schedule.get(nth) else { return Self::Dead };
        let tenths = u32::from(id.as_bytes()[15] ^ u8::try_from(attempt % 251).unwrap_or(0));
        let spread = *pause + *pause / 10 * tenths / 255;
        Self::Again { at: now + spread.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX)) }
    }

    /// The latest moment at which anything can be tried next.
    pub fn latest(schedule: &[Duration], now: Time) -> Time {
        let longest = schedule.iter().max().copied().unwrap_or_default();
        now + (longest + longest / 10).max(RETRY_AFTER_MAX)
    }
}

/// Longest pause an endpoint can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_followed_and_then_it_is_dead() {
        let schedule = [5, 30].map(Duration::from_secs);
        let (id, now) = (EventId::fresh(Time::from_ms(1)), Time::from_ms(1_000_000));
        let pause = |attempt, retry_after| match Outlook::after_failure(&schedule, attempt, retry_after, id, now) {
            Outlook::Again { at } => Some(at.since(now)),
            Outlook::Delivered | Outlook::Dead => None,
        };
        let within = |pause: Option<Duration>, seconds: u64| {
            let span = Duration::from_secs(seconds);
            pause.is_some_and(|pause| (span..=span + span / 10).contains(&pause))
        };
        assert!(within(pause(1, None), 5) && within(pause(2, None), 30));
        assert_eq!(pause(3, None), None);
        assert!(within(pause(1, Some(Duration::from_secs(1))), 5), "Retry-After never shortens");
        assert_eq!(pause(1, Some(Duration::from_mins(2))), Some(Duration::from_mins(2)));
        assert_eq!(pause(1, Some(Duration::from_hours(99))), Some(RETRY_AFTER_MAX));
        assert_eq!(pause(3, Some(Duration::from_mins(2))), None);
    }

    #[test]
    fn pauses_are_spread_by_the_id_and_the_attempt() {
        let (schedule, now) = ([Duration::from_secs(2_550); 300], Time::from_ms(1_000_000));
        let pause = |last_byte, attempt| {
            let mut id = [7; 16];
            id[15] = last_byte;
            match Outlook::after_failure(&schedule, attempt, None, EventId::from_bytes(&id).unwrap(), now) {
                Outlook::Again { at } => at.since(now).as_secs(),
                Outlook::Delivered | Outlook::Dead => 0,
            }
        };
        // A tenth is 255 s: a second for each of 255 steps.
        for (last_byte, attempt, steps) in [(0, 1, 1), (3, 1, 2), (3, 4, 7), (255, 1, 254), (3, 250, 249), (3, 251, 3)]
        {
            assert_eq!(pause(last_byte, attempt), 2_550 + steps, "{last_byte} {attempt}");
        }
    }

    #[test]
    fn the_latest_try_is_a_day_off_or_the_longest_pause_and_its_spread() {
        let now = Time::from_ms(1_000_000);
        let latest = |pauses: &[u64]| {
            let schedule: Vec<_> = pauses.iter().map(|hours| Duration::from_hours(*hours)).collect();
            Outlook::latest(&schedule, now).since(now)
        };
        assert_eq!(latest(&[]), Duration::from_hours(24));
        assert_eq!(latest(&[1, 20, 6]), Duration::from_hours(24));
        assert_eq!(latest(&[1, 100, 6]), Duration::from_hours(110));
    }

    #[test]
    fn what_is_tried_again_is_pending() {
        let again = Outlook::Again { at: Time::from_ms(1) };
        let states = [Outlook::Delivered, again, Outlook::Dead].map(Outlook::state);
        assert_eq!(states, [DispatchState::Delivered, DispatchState::Pending, DispatchState::Dead]);
    }
}
