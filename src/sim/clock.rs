//! The simulator's time: monotonic time is moved from event to event, calendar time follows it but for its jumps.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::clock::Clock;
use crate::domain::time::Time;

/// 2026-11-23T10:00:00Z
const START: Time = Time::from_ms(1_795_428_000_000);

/// So long after the beginning, by a calendar that does not jump.
pub(super) fn since_start(monotonic: Duration) -> Time {
    START + monotonic
}

/// The clock of one history.
#[derive(Debug, Default)]
pub(super) struct SimClock(Mutex<(Duration, i64)>);

impl SimClock {
    fn read(&self) -> (Duration, i64) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The time it really is: the provider's clock does not jump.
    pub(super) fn true_time(&self) -> Time {
        START + self.read().0
    }

    /// Moves on to a later time.
    pub(super) fn move_to(&self, monotonic: Duration) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0 = monotonic;
    }

    /// The calendar jumps by so many milliseconds, either way.
    pub(super) fn jump(&self, ms: i64) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1 += ms;
    }

    /// Somebody sets the calendar right.
    pub(super) fn set_right(&self) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1 = 0;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Time {
        let (monotonic, jumped_ms) = self.read();
        let now = START + monotonic;
        Time::from_ms(now.as_ms() + jumped_ms)
    }

    fn monotonic(&self) -> Duration {
        self.read().0
    }

    /// Nothing sleeps in the simulator: its events are queued.
    fn sleep(&self, _: Duration) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}
