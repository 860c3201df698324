//! Where time comes from: the system's clock, or one that tests move by hand.
//!
//! The only file that may read the system's time. Nothing here decides anything.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::domain::time::Time;

/// A source of time. Calendar time may jump; monotonic time never runs backwards.
pub trait Clock: Send + Sync + Debug {
    /// The calendar time, UTC.
    fn now(&self) -> Time;

    /// Time since some fixed moment, never running backwards.
    fn monotonic(&self) -> Duration;

    /// Ends once `span` of monotonic time has passed.
    fn sleep(&self, span: Duration) -> BoxFuture<'_, ()>;
}

/// The system's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[expect(clippy::disallowed_methods, reason = "the one place that may ask the system for its time")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that may ask the system for its time")]
    fn now(&self) -> Time {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time::from_ms(0) + since_epoch
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(span))
    }
}

/// A clock that stands still until it is moved: for tests, so that nothing ever sleeps.
#[derive(Debug)]
pub struct ManualClock {
    start: Time,
    passed: watch::Sender<Duration>,
}

impl ManualClock {
    /// Stands at `start`.
    pub fn new(start: Time) -> Self {
        Self { start, passed: watch::Sender::new(Duration::ZERO) }
    }

    /// Moves calendar and monotonic time forward and wakes every sleeper whose time has come.
    pub fn advance(&self, span: Duration) {
        self.passed.send_modify(|passed| *passed += span);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        self.start + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        *self.passed.borrow()
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'_, ()> {
        let end = self.monotonic() + span;
        let mut passed = self.passed.subscribe();
        Box::pin(async move {
            // The sender lives as long as the clock that is borrowed here, so waiting can only end by time.
            let _closed = passed.wait_for(|passed| *passed >= end).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_only_when_their_time_has_come() {
        let clock = ManualClock::new(Time::from_ms(1_000));
        let sleeper = clock.sleep(Duration::from_mins(1));
        tokio::pin!(sleeper);
        clock.advance(Duration::from_secs(59));
        assert!(futures_util::poll!(&mut sleeper).is_pending());
        clock.advance(Duration::from_secs(1));
        sleeper.await;
        assert_eq!(clock.now(), Time::from_ms(61_000));
    }
}
