//! Where time comes from: the system's clock, or one that tests move by hand.
//!
//! The only file that may read the system's time. Nothing here decides anything.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};
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

/// Lets something happen at most once in a while. By the system's clock: for what nobody outside can see.
#[derive(Debug, Default)]
pub struct Pacer {
    /// `None`: whenever it is asked for.
    every: Option<Duration>,
    last: Option<Instant>,
}

impl Pacer {
    /// At most once in `every`.
    pub fn new(every: Duration) -> Self {
        Self { every: Some(every), last: None }
    }

    /// Whether it may happen now; if so, it counts as done.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clocks")]
    pub fn is_due(&mut self) -> bool {
        let Some(every) = self.every else { return true };
        let now = Instant::now();
        let due = self.last.is_none_or(|last| now.duration_since(last) >= every);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// Measures how long something takes. By the system's clock: what is measured is the machine.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clocks")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long it has been running.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A calendar that parts from the monotonic clock by so much has jumped.
const JUMP: Duration = Duration::from_secs(10);

/// Notices when the calendar jumps: times of before lie far ahead then, or are long past.
#[derive(Debug, Default)]
pub struct JumpWatch {
    /// Calendar time less monotonic time.
    offset: Option<Time>,
}

impl JumpWatch {
    /// Whether calendar and monotonic time have parted since the last look. At the first one nobody knows: they may have.
    pub fn has_jumped(&mut self, clock: &dyn Clock) -> bool {
        let offset = clock.now() - clock.monotonic();
        let before = self.offset.replace(offset);
        before.is_none_or(|before| offset.since(before).max(before.since(offset)) >= JUMP)
    }
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
    /// By how much the calendar is wrong.
    jumped_ms: AtomicI64,
}

impl ManualClock {
    /// Stands at `start`.
    pub fn new(start: Time) -> Self {
        Self { start, passed: watch::Sender::new(Duration::ZERO), jumped_ms: AtomicI64::new(0) }
    }

    /// Moves calendar and monotonic time forward and wakes every sleeper whose time has come.
    pub fn advance(&self, span: Duration) {
        self.passed.send_modify(|passed| *passed += span);
    }

    /// The calendar jumps by so many milliseconds, either way; monotonic time does not.
    pub fn jump(&self, ms: i64) {
        self.jumped_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        let now = self.start + self.monotonic();
        Time::from_ms(now.as_ms() + self.jumped_ms.load(Ordering::Relaxed))
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
