//! Whether the webhooks of a family arrive: how many were missed lately, how late the late ones were, and what that means for
//! the first read.

use std::collections::VecDeque;
use std::time::Duration;

use super::pace;

/// Outcomes looked back at. With one webhook in fifty lost, so many in a row without a loss happen once in two hundred times.
const WINDOW: usize = 256;
/// Fewer outcomes say nothing.
const KNOWN_MIN: usize = 50;
/// Lags kept.
const LAGS: usize = 64;
/// From this share of missed ones on, waiting for a webhook is a waste, in percent.
const POOR_PERCENT: usize = 20;
/// Among so many outcomes and more, at least so many percent without a webhook: they do not arrive at all.
const SILENT_OF: usize = 5;
const SILENT_PERCENT: usize = 80;

/// What became of the webhooks of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Outcomes that a webhook told in time.
    pub told: u64,
    /// Outcomes that a read had to find, and no webhook ever came.
    pub missed: u64,
    /// Outcomes that a read found before their webhook came.
    pub late: u64,
    /// The last outcomes, oldest first: whether a webhook came.
    recent: VecDeque<bool>,
    /// How long after the read the late ones came, in milliseconds, oldest first.
    lags_ms: VecDeque<u32>,
}

impl Trust {
    /// Trust as it was stored: the counts, the last outcomes and the last lags, oldest first.
    pub fn stored(
        (told, missed, late): (u64, u64, u64),
        recent: impl IntoIterator<Item = bool>,
        lags_ms: impl IntoIterator<Item = u32>,
    ) -> Self {
        Self { told, missed, late, recent: recent.into_iter().collect(), lags_ms: lags_ms.into_iter().collect() }
    }

    /// The last outcomes, oldest first: whether a webhook came.
    pub fn recent(&self) -> impl Iterator<Item = bool> {
        self.recent.iter().copied()
    }

    /// The last lags in milliseconds, oldest first.
    pub fn lags_ms(&self) -> impl Iterator<Item = u32> {
        self.lags_ms.iter().copied()
    }

    /// Missed ones among the last outcomes, and how many outcomes those are.
    pub fn lately(&self) -> (usize, usize) {
        (self.recent.iter().filter(|came| !**came).count(), self.recent.len())
    }

    /// So many percent of the late ones came no later after the read; `None` when none was late.
    pub fn lag(&self, percent: usize) -> Option<Duration> {
        pace::quantile(self.lags_ms(), percent)
    }

    /// An outcome is known; `told`: a webhook had come by then.
    pub fn settled(&mut self, told: bool) {
        self.recent.push_back(told);
        if self.recent.len() > WINDOW {
            self.recent.pop_front();
        }
        *(if told { &mut self.told } else { &mut self.missed }) += 1;
    }

    /// A webhook that counted as missed has come after all.
    pub fn came_late(&mut self, lag: Duration) {
        if let Some(came) = self.recent.iter_mut().rev().find(|came| !**came) {
            *came = true;
        }
        self.missed = self.missed.saturating_sub(1);
        self.late += 1;
        pace::push(&mut self.lags_ms, lag, LAGS);
    }

    /// Whether webhooks do not arrive at all, by the last outcomes.
    pub fn is_silent(&self) -> bool {
        let (missed, of) = self.lately();
        of >= SILENT_OF && missed * 100 >= of * SILENT_PERCENT
    }

    /// The pause from the expected time to the first read. Where no webhook was missed for long it can wait as long as one may
    /// still be on its way; where many are missed it is a third of the usual.
    pub fn grace(&self, usual: Duration, webhook_retry_window: Duration) -> Duration {
        let (missed, of) = self.lately();
        if of >= WINDOW && missed == 0 {
            usual.max(webhook_retry_window)
        } else if of >= KNOWN_MIN && missed * 100 >= of * POOR_PERCENT {
            usual / 3
        } else {
            usual
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_secs(30);
    const RETRIES: Duration = Duration::from_secs(150);

    fn trust(outcomes: impl IntoIterator<Item = bool>) -> Trust {
        let mut trust = Trust::default();
        outcomes.into_iter().for_each(|told| trust.settled(told));
        trust
    }

    #[test]
    fn the_first_read_waits_where_webhooks_come_and_hurries_where_they_do_not() {
        let grace = |outcomes: Vec<bool>| trust(outcomes).grace(USUAL, RETRIES);
        assert_eq!(grace(vec![]), USUAL);
        assert_eq!(grace(vec![true; 255]), USUAL, "not known for long");
        assert_eq!(grace(vec![true; 256]), RETRIES);
        let mut one_lost = vec![true; 400];
        one_lost[200] = false;
        assert_eq!(grace(one_lost.clone()), USUAL);
        one_lost.extend([true; 100]);
        assert_eq!(grace(one_lost), RETRIES, "long ago");
        assert_eq!(grace(vec![false; 49]), USUAL, "too few to tell");
        assert_eq!(grace(vec![false; 50]), USUAL / 3);
    }

    #[test]
    fn silence_takes_more_than_a_few_losses() {
        assert!(!trust([false; 4]).is_silent(), "too few to tell");
        assert!(trust([false; 5]).is_silent());
        assert!(trust([true, false, false, false, false]).is_silent());
        assert!(!trust([true, true, false, false, false]).is_silent());
    }

    #[test]
    fn a_fifth_that_is_missed_is_too_much() {
        let grace = |missed, of| trust((0..of).map(|n| n >= missed)).grace(USUAL, RETRIES);
        assert_eq!([grace(9, 50), grace(10, 50), grace(10, 51)], [USUAL, USUAL / 3, USUAL]);
        assert_eq!([grace(39, 200), grace(40, 200), grace(52, 256)], [USUAL, USUAL / 3, USUAL / 3]);
        assert_eq!(trust([true; 300]).grace(Duration::from_secs(200), RETRIES), Duration::from_secs(200));
    }

    #[test]
    fn what_was_stored_comes_back_as_it_was() {
        let mut known = trust((0..300).map(|n| n % 3 > 0));
        (0..70).for_each(|n| known.came_late(Duration::from_secs(n)));
        assert_eq!((known.recent().count(), known.lags_ms().count()), (256, 64));
        assert_eq!((known.lags_ms().next(), known.lags_ms().last()), (Some(6_000), Some(69_000)));
        let back = Trust::stored((known.told, known.missed, known.late), known.recent(), known.lags_ms());
        assert_eq!(back, known);
        assert_eq!((known.told, known.missed, known.late), (200, 30, 70));
    }

    #[test]
    fn a_late_webhook_is_not_a_missed_one() {
        let mut trust = trust([true, false, true]);
        assert_eq!((trust.told, trust.missed, trust.lately()), (2, 1, (1, 3)));
        trust.came_late(Duration::from_secs(40));
        assert_eq!((trust.missed, trust.late, trust.lately()), (0, 1, (0, 3)));
        assert_eq!(trust.lag(50), Some(Duration::from_secs(40)));
    }
}
