//! The budget of status reads: never more than so many in any sliding minute, at rest when the provider asks for it, and
//! careful with one that is down.
//!
//! Counts in monotonic time, so no clock jump can widen it. What was read before a restart is handed in at the start.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::decision::{Answer, Told};
use crate::planted;

/// The provider counts reads per minute (provider.md section 3).
const WINDOW: Duration = Duration::from_mins(1);
/// Reads under way at the same time (reliability.md 5.3).
pub const IN_FLIGHT_MAX: usize = 4;
/// So many answers in a row that told nothing open the breaker.
const BREAKER_TRIPS: u32 = 5;
/// The breaker's first and longest pause.
const BREAKER_PAUSE: Duration = Duration::from_secs(30);
const BREAKER_PAUSE_MAX: Duration = Duration::from_mins(5);
/// How long to wait for a read under way to be answered; its end wakes the sweeper anyway.
const CROWDED_PAUSE: Duration = Duration::from_millis(100);
/// So long after its time a read is kept for somebody who asked.
const PROMISE_KEPT: Duration = Duration::from_secs(10);
/// At most one read in so many is kept for people.
const PROMISED_SHARE: usize = 4;
/// After a 429 one read a minute is added for every such pause, until it is the whole budget again.
const GROWS_EVERY: Duration = Duration::from_secs(10);
/// How often a refused key is complained about.
const COMPLAINT_PAUSE: Duration = Duration::from_mins(1);

/// A read may not be made yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no status read is left; the next is possible in {wait:?}")]
pub struct Spent {
    /// How long to wait at least.
    pub wait: Duration,
}

/// The budget; one for all uses together.
#[derive(Debug)]
pub struct Budget {
    per_minute: usize,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    /// When each read of the last minute ended, in their order. A read counts from its start until a minute after its end, so the provider
    /// cannot see two of them closer together than we do.
    ended: VecDeque<Duration>,
    /// Until when a read is kept for each of those who asked and were refused.
    promised: VecDeque<Duration>,
    rest_until: Duration,
    throttled: Option<Throttled>,
    failures: u32,
    key_refused: bool,
    complained_at: Option<Duration>,
}

/// The provider found us too fast: the rate was halved and grows back (reliability.md, C4).
#[derive(Clone, Copy, Debug)]
struct Throttled {
    per_minute: usize,
    grows_from: Duration,
}

/// The permission to make one read. Dropping it ends the read.
#[derive(Debug)]
pub struct Slot {
    budget: Arc<Budget>,
    used: bool,
}

impl Budget {
    /// A budget of `per_minute` reads. `ages`: how long ago the reads before the restart ended.
    pub fn new(per_minute: u32, clock: Arc<dyn Clock>, ages: impl IntoIterator<Item = Duration>) -> Arc<Self> {
        let now = WINDOW + clock.monotonic();
        let forgotten = planted::is(planted::Fault::BudgetForgotten);
        let mut ended: Vec<Duration> =
            ages.into_iter().filter(|age| *age < WINDOW && !forgotten).map(|age| now.saturating_sub(age)).collect();
        ended.sort_unstable();
        let state = Mutex::new(State { ended: ended.into(), ..State::default() });
        Arc::new(Self { per_minute: usize::try_from(per_minute).unwrap_or(usize::MAX), clock, state })
    }

    /// Takes one read out of the budget. What somebody `asked_for` does not wait for others to be answered; when it is refused, a
    /// read is kept for who comes back, so that a backlog cannot shut people out.
    ///
    /// # Errors
    /// [`Spent`] says how long to wait.
    pub fn take(self: &Arc<Self>, asked_for: bool) -> Result<Slot, Spent> {
        let (mut state, now) = self.state_now();
        let rate = state.rate(self.per_minute, now);
        let wait = if asked_for { state.wait(rate, now) } else { state.wait_for_others(rate, now) };
        if wait.is_zero() {
            if planted::is(planted::Fault::TakenInTwoSteps) {
                drop(state);
                state = self.state();
            }
            if asked_for {
                state.promised.pop_front();
            }
            state.in_flight += 1;
            Ok(Slot { budget: Arc::clone(self), used: true })
        } else {
            if asked_for && state.promised.len() < rate / PROMISED_SHARE {
                state.promised.push_back(now + wait + PROMISE_KEPT);
            }
            Err(Spent { wait })
        }
    }

    /// How long until a read that nobody asked for could be made; zero when one could be made now.
    pub fn wait(&self) -> Duration {
        let (mut state, now) = self.state_now();
        let rate = state.rate(self.per_minute, now);
        state.wait_for_others(rate, now)
    }

    /// Reads that may be made in a minute: fewer than configured for a while after the provider said that they were too many.
    pub fn rate(&self) -> u32 {
        let (state, now) = self.state_now();
        let rate = state.rate(self.per_minute, now);
        u32::try_from(rate).unwrap_or(u32::MAX)
    }

    /// Reads of the last minute, those under way included.
    pub fn used(&self) -> usize {
        let (mut state, now) = self.state_now();
        state.forget(now);
        state.in_flight + state.ended.len()
    }

    /// Whether the provider refuses our key.
    pub fn key_refused(&self) -> bool {
        self.state().key_refused
    }

    /// How long nothing will be asked: the provider wants rest, refuses our key, or is down.
    pub fn rest(&self) -> Duration {
        let (state, now) = self.state_now();
        state.rest_until.saturating_sub(now)
    }

    /// Whether so many answers in a row told nothing that the provider counts as down.
    pub fn is_broken(&self) -> bool {
        self.state().failures >= BREAKER_TRIPS
    }

    /// Learns from an answer: when to rest, and whether the provider is down.
    pub fn learn(&self, told: &Told) {
        let (mut state, now) = self.state_now();
        // A list that is forbidden is one that is not there: that says nothing of the key.
        state.key_refused = matches!((&told.answer, told.http_status), (Answer::Paused { .. }, Some(401 | 403)));
        match told.answer {
            Answer::Known(_) | Answer::NotFound => state.failures = 0,
            Answer::Paused { pause } => {
                // Those under way together are refused together: that is one complaint.
                if told.http_status == Some(429) && now >= state.rest_until {
                    let halved = (state.rate(self.per_minute, now) / 2).max(1);
                    state.throttled = Some(Throttled { per_minute: halved, grows_from: now + pause });
                }
                state.rest_until = state.rest_until.max(now + pause);
            }
            Answer::Nothing => {
                state.failures = state.failures.saturating_add(1);
                if state.failures >= BREAKER_TRIPS {
                    let doublings = (state.failures - BREAKER_TRIPS).min(8);
                    let pause = BREAKER_PAUSE.saturating_mul(1 << doublings).min(BREAKER_PAUSE_MAX);
                    state.rest_until = state.rest_until.max(now + pause);
                    tracing::warn!(failures = state.failures, ?pause, "the provider's status endpoint is in trouble");
                }
            }
        }
    }

    /// Says once a minute that the key is refused.
    pub fn complain(&self) {
        let (mut state, now) = self.state_now();
        if state.key_refused && state.complained_at.is_none_or(|at| now >= at + COMPLAINT_PAUSE) {
            state.complained_at = Some(now);
            tracing::error!(
                "the provider refuses provider.api_key: lost webhooks cannot be recovered until it is replaced"
            );
        }
    }

    /// Monotonic time, moved so that reads before the restart have one too.
    fn now(&self) -> Duration {
        if planted::is(planted::Fault::BudgetByCalendar) {
            return Duration::from_millis(u64::try_from(self.clock.now().as_ms()).unwrap_or(0));
        }
        let elapsed = self.clock.monotonic();
        WINDOW + if planted::is(planted::Fault::TimeGained) { elapsed * 20 } else { elapsed }
    }

    /// The state and the time, which is looked at while nobody else has the state: reads end in the order of their times then.
    fn state_now(&self) -> (MutexGuard<'_, State>, Duration) {
        let before = planted::is(planted::Fault::ClockBeforeLock).then(|| self.now());
        let state = self.state();
        let now = before.unwrap_or_else(|| self.now());
        (state, now)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, now: Duration) {
        let this_minute = Duration::from_secs(now.as_secs() / 60 * 60);
        if planted::is(planted::Fault::FixedWindow) {
            self.ended.retain(|ended| *ended >= this_minute);
        }
        while self.ended.front().is_some_and(|ended| *ended + WINDOW <= now) {
            self.ended.pop_front();
        }
    }

    fn rate(&self, per_minute: usize, now: Duration) -> usize {
        let Some(throttled) = self.throttled else { return per_minute };
        let grown = now.saturating_sub(throttled.grows_from).as_millis() / GROWS_EVERY.as_millis();
        throttled.per_minute.saturating_add(usize::try_from(grown).unwrap_or(usize::MAX)).min(per_minute)
    }

    /// The same for reads nobody asked for: those leave alone what was promised, and do not crowd.
    fn wait_for_others(&mut self, per_minute: usize, now: Duration) -> Duration {
        while self.promised.front().is_some_and(|until| *until <= now) {
            self.promised.pop_front();
        }
        let left = per_minute.saturating_sub(self.promised.len());
        self.wait(left, now).max(self.crowded())
    }

    fn wait(&mut self, per_minute: usize, now: Duration) -> Duration {
        self.forget(now);
        let rest = self.rest_until.saturating_sub(now);
        let rest = if planted::is(planted::Fault::RestIgnored) { Duration::ZERO } else { rest };
        let spent = if self.in_flight + self.ended.len() < per_minute {
            Duration::ZERO
        } else {
            // Of more than so many the first may not be enough: the place that is missing comes free with a later one.
            let missing = (self.in_flight + self.ended.len()).saturating_sub(per_minute);
            self.ended.get(missing).map_or(WINDOW, |ended| (*ended + WINDOW).saturating_sub(now))
        };
        rest.max(spent)
    }

    /// A short wait while enough reads are under way; while the breaker is closing again, one at a time tries.
    fn crowded(&self) -> Duration {
        let in_flight_max = if self.failures >= BREAKER_TRIPS { 1 } else { IN_FLIGHT_MAX };
        if self.in_flight >= in_flight_max { CROWDED_PAUSE } else { Duration::ZERO }
    }
}

impl Slot {
    /// Gives the read back: it was not made.
    pub fn give_back(mut self) {
        self.used = false;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (mut state, now) = self.budget.state_now();
        state.in_flight = state.in_flight.saturating_sub(1);
        if self.used {
            state.ended.push_back(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::domain::time::Time;

    fn told(answer: Answer, http_status: u16) -> Told {
        Told { answer, http_status: Some(http_status), said: String::new(), body: Vec::new() }
    }

    fn budget(per_minute: u32, ages: &[u64]) -> (Arc<Budget>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Time::from_ms(0)));
        let ages = ages.iter().map(|age| Duration::from_secs(*age));
        let shared: Arc<dyn Clock> = clock.clone();
        (Budget::new(per_minute, shared, ages), clock)
    }

    /// Tells the time only while nobody else may change the budget's state.
    #[derive(Debug, Default)]
    struct Jealous(std::sync::OnceLock<std::sync::Weak<Budget>>);

    impl Clock for Jealous {
        fn now(&self) -> Time {
            Time::from_ms(0)
        }

        fn monotonic(&self) -> Duration {
            let budget = self.0.get().and_then(std::sync::Weak::upgrade);
            assert!(budget.is_none_or(|budget| budget.state.try_lock().is_err()), "others can end reads meanwhile");
            Duration::ZERO
        }

        fn sleep(&self, _: Duration) -> futures_util::future::BoxFuture<'_, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    /// Found by `proof/orders`: with ends out of order, a full budget took one that was long past for a free place.
    #[test]
    fn reads_end_in_the_order_of_their_times() {
        let clock = Arc::new(Jealous::default());
        let shared: Arc<dyn Clock> = clock.clone();
        let budget = Budget::new(5, shared, []);
        clock.0.set(Arc::downgrade(&budget)).unwrap();
        let slot = budget.take(true).unwrap();
        budget.learn(&told(Answer::NotFound, 404));
        assert_eq!(
            (budget.wait(), budget.rest(), budget.rate(), budget.used()),
            (Duration::ZERO, Duration::ZERO, 5, 1)
        );
        drop(slot);
        assert_eq!(budget.used(), 1);
    }

    #[test]
    fn no_sliding_minute_holds_more_than_the_budget() {
        let (budget, clock) = budget(5, &[]);
        let mut starts: Vec<Duration> = Vec::new();
        for step in 0..2_000_u64 {
            if let Ok(slot) = budget.take(false) {
                starts.push(clock.monotonic());
                clock.advance(Duration::from_millis(step * 7_919 % 2_500));
                drop(slot);
            }
            clock.advance(Duration::from_millis(step * 104_729 % 900));
        }
        assert!(starts.len() > 50);
        for (n, start) in starts.iter().enumerate() {
            let within = starts[n..].iter().take_while(|later| **later < *start + WINDOW).count();
            assert!(within <= 5, "{within} reads within a minute of {start:?}");
        }
    }

    #[test]
    fn reads_before_a_restart_count() {
        let (budget, clock) = budget(3, &[10, 50, 70, 55]);
        assert_eq!(budget.used(), 3);
        assert_eq!(budget.take(false).unwrap_err().wait, Duration::from_secs(5));
        clock.advance(Duration::from_secs(5));
        assert!(budget.take(false).is_ok());
    }

    #[test]
    fn a_read_that_was_not_made_costs_nothing() {
        let (budget, _clock) = budget(1, &[]);
        budget.take(false).unwrap().give_back();
        assert!(budget.take(false).is_ok());
    }

    #[test]
    fn who_asked_and_was_refused_finds_a_read_when_coming_back() {
        let (budget, clock) = budget(8, &[]);
        for _ in 0..8 {
            drop(budget.take(false).unwrap());
        }
        let refused = budget.take(true).unwrap_err();
        clock.advance(refused.wait);
        // A backlog takes what it can get.
        let taken = std::iter::from_fn(|| budget.take(false).ok().map(drop)).count();
        assert_eq!(taken, 7);
        assert!(budget.take(true).is_ok());
        assert!(budget.take(true).is_err());
        // A promise nobody comes back for is not kept for ever.
        clock.advance(WINDOW + PROMISE_KEPT);
        assert_eq!(std::iter::from_fn(|| budget.take(false).ok().map(drop)).count(), 8);
    }

    #[test]
    fn a_429_stops_all_reads_for_as_long_as_it_says() {
        let (budget, clock) = budget(48, &[]);
        budget.learn(&told(Answer::Paused { pause: Duration::from_secs(7) }, 429));
        assert_eq!(budget.take(false).unwrap_err().wait, Duration::from_secs(7));
        clock.advance(Duration::from_secs(7));
        assert!(budget.take(false).is_ok());
        assert!(!budget.key_refused());
    }

    #[test]
    fn after_a_429_the_rate_is_halved_once_and_grows_back() {
        let (budget, clock) = budget(48, &[]);
        for _ in 0..4 {
            budget.learn(&told(Answer::Paused { pause: Duration::from_secs(7) }, 429));
        }
        clock.advance(Duration::from_secs(7));
        assert_eq!(budget.rate(), 24, "four of one moment are one complaint");
        assert_eq!(std::iter::from_fn(|| budget.take(false).ok().map(drop)).count(), 24);
        clock.advance(Duration::from_mins(1));
        assert_eq!(budget.rate(), 30);
        budget.learn(&told(Answer::Paused { pause: Duration::from_secs(7) }, 429));
        clock.advance(Duration::from_mins(10));
        assert_eq!(budget.rate(), 48);
        budget.learn(&told(Answer::Paused { pause: Duration::from_mins(5) }, 401));
        assert_eq!(budget.rate(), 48, "a refused key says nothing about the rate");
    }

    #[test]
    fn a_refused_key_is_noticed_and_forgotten_when_it_works_again() {
        let (budget, _clock) = budget(48, &[]);
        budget.learn(&told(Answer::Paused { pause: Duration::from_mins(5) }, 401));
        assert!(budget.key_refused());
        budget.learn(&told(Answer::NotFound, 404));
        assert!(!budget.key_refused());
        budget.learn(&told(Answer::NotFound, 403));
        assert!(!budget.key_refused(), "a list that is not for us");
    }

    #[test]
    fn trouble_that_piles_up_opens_the_breaker_and_one_good_answer_closes_it() {
        let (budget, clock) = budget(48, &[]);
        for _ in 0..BREAKER_TRIPS {
            assert!(budget.take(false).is_ok());
            budget.learn(&told(Answer::Nothing, 500));
        }
        assert_eq!(budget.take(false).unwrap_err().wait, BREAKER_PAUSE);
        clock.advance(BREAKER_PAUSE);
        let probe = budget.take(false).unwrap();
        assert!(budget.take(false).is_err(), "one read at a time tries");
        budget.learn(&told(Answer::NotFound, 404));
        drop(probe);
        assert!(budget.take(false).is_ok() && budget.take(false).is_ok());
    }
}
