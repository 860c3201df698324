//! How long the generations of one kind take lately: a window of the last times to outcome and its quantiles.
//!
//! A quantile of a long window shrugs at outliers; when the latest of it tell another pace than the rest, only they count, so a
//! provider that changes its pace is followed in either direction.

use std::collections::VecDeque;
use std::time::Duration;

use super::family::Expected;

/// Times kept.
const WINDOW: usize = 200;
/// The latest of them. At a generation a minute a change of pace is learned within the hour.
const LATEST: usize = 60;
/// The middle of the latest differs from the middle of the rest by more than one part in so many: the pace has changed.
const CHANGED: u32 = 7;
/// So many outcomes of a kind must be known before they count for anything (contract section 9).
const KNOWN_MIN: usize = 50;
/// The quantile that replaces the table's upper value, in percent.
const UPPER_PERCENT: usize = 95;

/// The last times to outcome of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Milliseconds, oldest first.
    times_ms: VecDeque<u32>,
    /// Outcomes that were ever learned from.
    known: u64,
}

impl Pace {
    /// A pace as it was stored: outcomes ever known, and the last times in milliseconds, oldest first.
    pub fn stored(known: u64, times_ms: impl IntoIterator<Item = u32>) -> Self {
        Self { times_ms: times_ms.into_iter().collect(), known }
    }

    /// Outcomes that were ever learned from.
    pub fn known(&self) -> u64 {
        self.known
    }

    /// The last times in milliseconds, oldest first.
    pub fn times_ms(&self) -> impl Iterator<Item = u32> {
        self.times_ms.iter().copied()
    }

    /// Takes in how long one took.
    pub fn learn(&mut self, took: Duration) {
        push(&mut self.times_ms, took, WINDOW);
        self.known += 1;
    }

    /// So many percent took no longer; `None` before anything is known.
    pub fn quantile(&self, percent: usize) -> Option<Duration> {
        quantile(self.present(), percent)
    }

    /// The share that took no longer than `elapsed`; `None` before enough is known. Less than one: something always takes longer.
    pub fn done_share(&self, elapsed: Duration) -> Option<f64> {
        if self.times_ms.len() < KNOWN_MIN {
            return None;
        }
        let elapsed_ms = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
        let (mut of, mut done, mut longest_ms) = (1_u32, 0_u32, 1_u32);
        for took_ms in self.present() {
            of += 1;
            done += u32::from(took_ms <= elapsed_ms);
            longest_ms = longest_ms.max(took_ms);
        }
        // Past the longest of them: how much longer one may take falls off with the time it takes.
        let beyond = (f64::from(longest_ms) / f64::from(elapsed_ms.max(1))).min(1.0);
        let left = f64::from(of - done) / f64::from(of);
        Some(1.0 - if done + 1 == of { left * beyond } else { left })
    }

    /// The times that tell the present pace.
    fn present(&self) -> impl Iterator<Item = u32> {
        let rest = self.times_ms.len().saturating_sub(LATEST);
        let middle = |times: &mut dyn Iterator<Item = u32>| quantile(times, 50).unwrap_or_default();
        let before = middle(&mut self.times_ms().take(rest));
        let latest = middle(&mut self.times_ms().skip(rest));
        // Where there is no rest there is nothing to skip either.
        let changed = before.abs_diff(latest) > before / CHANGED;
        self.times_ms().skip(if changed { rest } else { 0 })
    }

    /// The learned upper time, once enough is known: the 95th percentile, within half and double of the table's.
    pub fn learned(&self, table: Expected) -> Option<Duration> {
        let upper = self.quantile(UPPER_PERCENT).filter(|_| self.times_ms.len() >= KNOWN_MIN)?;
        Some(upper.clamp(table.to / 2, table.to * 2))
    }

    /// The learned median, once enough is known: not before half of the table's shortest time, not past its longest.
    pub fn learned_median(&self, table: Expected) -> Option<Duration> {
        let median = self.quantile(50).filter(|_| self.times_ms.len() >= KNOWN_MIN)?;
        Some(median.clamp(table.from / 2, table.to))
    }
}

/// Appends a span to a window of so many, in milliseconds.
pub(super) fn push(window: &mut VecDeque<u32>, span: Duration, longest: usize) {
    window.push_back(u32::try_from(span.as_millis()).unwrap_or(u32::MAX));
    while window.len() > longest {
        window.pop_front();
    }
}

/// The nearest-rank quantile of some times in milliseconds.
pub(super) fn quantile(times_ms: impl Iterator<Item = u32>, percent: usize) -> Option<Duration> {
    let mut sorted: Vec<u32> = times_ms.collect();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map(|ms| Duration::from_millis(u64::from(*ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Expected = Expected { from: Duration::from_mins(2), to: Duration::from_mins(3) };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn fifty_outcomes_have_to_be_known() {
        let mut pace = Pace::default();
        for n in 0..50 {
            assert_eq!((pace.learned(TABLE), pace.known()), (None, n));
            pace.learn(seconds(101 + n));
        }
        // 95 % of 50: the 48th.
        assert_eq!(pace.learned(TABLE), Some(seconds(148)));
        assert_eq!((pace.quantile(50), pace.quantile(100)), (Some(seconds(125)), Some(seconds(150))));
    }

    #[test]
    fn outliers_are_shrugged_at_and_nonsense_is_held_within_half_and_double() {
        let mut pace = Pace::stored(190, [150_000; 190]);
        // Ten of two hundred.
        for n in 0..10 {
            pace.learn(seconds(if n == 3 { 1 } else { 86_400 }));
        }
        assert_eq!(pace.learned(TABLE), Some(seconds(150)));
        assert_eq!(Pace::stored(64, [1; 200]).learned(TABLE), Some(seconds(90)));
        assert_eq!(Pace::stored(64, [u32::MAX; 200]).learned(TABLE), Some(seconds(360)));
    }

    #[test]
    fn the_last_two_hundred_times_are_kept() {
        let mut pace = Pace::default();
        for n in 0..250 {
            pace.learn(seconds(n));
            assert_eq!(pace.times_ms().count(), usize::try_from(n + 1).unwrap().min(200));
        }
        assert_eq!((pace.times_ms().next(), pace.times_ms().last(), pace.known()), (Some(50_000), Some(249_000), 250));
        assert_eq!(Pace::stored(7, [1, 2]).known(), 7);
    }

    #[test]
    fn the_pace_has_changed_when_the_middles_differ_by_more_than_a_seventh() {
        let upper = |before_ms: u32, latest_ms: u32, latest: usize| {
            let times = std::iter::repeat_n(before_ms, 70).chain(std::iter::repeat_n(latest_ms, latest));
            Pace::stored(1, times).quantile(1).unwrap().as_millis()
        };
        assert_eq!(upper(70_000, 80_000, 60), 70_000, "a seventh");
        assert_eq!(upper(70_000, 80_001, 60), 80_001);
        assert_eq!(upper(80_000, 60_000, 60), 60_000);
        assert_eq!(upper(70_000, 140_000, 20), 70_000, "not among the latest sixty yet");
        // Where there are no others but the latest, there is nothing to differ from.
        assert_eq!(Pace::stored(1, [5_000; 60]).quantile(1), Some(seconds(5)));
    }

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let of = |times: &[u32], percent| quantile(times.iter().copied(), percent).map(|span| span.as_millis());
        assert_eq!(of(&[], 50), None);
        assert_eq!([0, 1, 50, 51, 100].map(|percent| of(&[4, 2], percent)), [2, 2, 2, 4, 4].map(Some));
        assert_eq!([33, 34, 66, 67].map(|percent| of(&[3, 1, 2], percent)), [1, 2, 2, 3].map(Some));
    }

    #[test]
    fn a_change_of_pace_is_followed_in_both_directions_within_an_hour() {
        let mut pace = Pace::default();
        for (minutes, expected) in [(120, 150), (60, 240), (60, 100)] {
            for _ in 0..minutes {
                pace.learn(seconds(expected));
            }
            assert_eq!(pace.learned(TABLE), Some(seconds(expected)));
        }
    }
}
