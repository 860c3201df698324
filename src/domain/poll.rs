//! Whether a client's poll pulls the first read of its generation forward.
//!
//! A read is worth its place in the budget where the outcome is likely to be there although no webhook told it. Pure arithmetic
//! over what is known; who counts the polls is `flow/poll.rs`, who writes the read down the decision. Never about a read that is
//! due anyway, nor about one behind the first: those have pauses of their own.

use std::time::Duration;

use super::experience::{Experience, Kind};
use super::family::Family;
use super::generation::{Generation, State};
use super::schedule::Rules;
use super::time::Time;
use super::trust::Trust;

/// A poll, and what is asked beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// How long ago a poll last caused a read of this generation; `None` when none did.
    pub read_ago: Option<Duration>,
    /// Generations that are polled at present and wait for their first read, this one among them.
    pub polled: u32,
    /// Reads of the last minute, whatever caused them.
    pub reads_used: u32,
    /// Reads that may be made in a minute.
    pub reads_per_minute: u32,
}

/// Reads that polls cause of one generation lie so far apart at least (contract section 9).
pub const READS_APART: Duration = Duration::from_secs(15);
/// So many take longer than the table says; how much longer falls off with the time it takes. One part in so many.
const SLOW_ONE_IN: f64 = 50.0;
/// What reads cost, in chances that they find something: from nothing with an unused budget over this, where so much of it is used ...
const MEDIUM: (f64, f64) = (1.0 / 12.0, 0.5);
/// ... to more than any chance where half of it is.
const DEAREST: (f64, f64) = (1.0 / 2.0, 1.0);
/// Reads that nothing but a turn speaks for are made while less of the budget is used.
const TURNS_UNTIL: f64 = 1.0 / 6.0;
/// A client is told of what is there so long before its patience ends, or later while more than this part of the budget is used.
const LAST_CALL: Duration = Duration::from_mins(1);
const LAST_CALL_UNTIL: f64 = 1.0 / 8.0;
/// The last polls that can still bring an answer in time.
const LAST_CALL_LATEST: Duration = Duration::from_secs(35);

impl Poll {
    /// The part of the budget that is used.
    fn used(&self) -> f64 {
        f64::from(self.reads_used) / f64::from(self.reads_per_minute.max(1))
    }

    /// The chance that a read must have to find something.
    fn price(&self) -> f64 {
        let ((medium, price), (dearest, most)) = (MEDIUM, DEAREST);
        let used = self.used();
        let price = if used < medium {
            price * used / medium
        } else {
            price + (most - price) * (used - medium) / (dearest - medium)
        };
        price.max(f64::EPSILON)
    }
}

/// How long the provider's own client polls (provider.md section 13).
fn patience(family: &Family) -> Duration {
    match family.path {
        "gemini" | "chatgpt-images" => Duration::from_mins(5),
        _ => Duration::from_mins(10),
    }
}

/// The share of webhooks that get lost, by the last outcomes: one in four where nothing is known yet.
fn lost_share(trust: Option<&Trust>) -> f64 {
    let (missed, of) = trust.map(Trust::lately).unwrap_or_default();
    (real(missed) + 1.0) / (real(of) + 4.0)
}

fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Rules {
    /// Whether a poll could cause a read now: it runs, its shortest time is over, and its first read is still to come.
    pub fn awaits_first_read(&self, generation: &Generation, now: Time) -> bool {
        let watch = &generation.watch;
        let unasked = (watch.running_streak, watch.not_found_streak, watch.error_streak) == (0, 0, 0);
        let doubted = generation.claim.is_some() || generation.attention.is_some();
        matches!(generation.state, State::Pending | State::Processing)
            && unasked
            && !doubted
            && watch.check_at.is_some_and(|at| at > now)
            && now >= generation.began_at() + self.expected_range(generation).from
    }

    /// Whether this poll causes a read now.
    pub(super) fn is_worth_a_read(
        &self,
        generation: &Generation,
        experience: &Experience,
        poll: &Poll,
        now: Time,
    ) -> bool {
        let is_early = poll.read_ago.is_some_and(|ago| ago < READS_APART);
        if is_early || poll.used() >= 1.0 || !self.awaits_first_read(generation, now) {
            return false;
        }
        let elapsed = now.since(generation.began_at());
        let waited = poll.read_ago.unwrap_or(elapsed.saturating_sub(self.expected_range(generation).from));
        let is_its_turn = poll.used() < TURNS_UNTIL && waited >= READS_APART * poll.polled.saturating_sub(1);
        is_its_turn
            || self.chance(generation, experience, poll, now) >= poll.price()
            || Self::is_last_call(generation, poll, now)
    }

    /// The chance that the outcome is there although no webhook told it.
    fn chance(&self, generation: &Generation, experience: &Experience, poll: &Poll, now: Time) -> f64 {
        let elapsed = now.since(generation.began_at());
        let running = |at: Duration| 1.0 - self.done_share(generation, experience, at);
        // It ran when it was last read.
        let ran = poll.read_ago.map_or(1.0, |ago| running(elapsed.saturating_sub(ago)));
        let running = (running(elapsed) / ran).min(1.0);
        let unheard = lost_share(experience.trusts.get(generation.family.path)) * (1.0 - running);
        unheard / (unheard + running)
    }

    /// The share of its kind that is done within `elapsed`; less than one. As expected when it began, or as learned where that is
    /// slower: what has been learned in a short time knows only the quick ones.
    fn done_share(&self, generation: &Generation, experience: &Experience, elapsed: Duration) -> f64 {
        let expected = self.expected_range(generation);
        let (from, to, at) = (expected.from.as_secs_f64(), expected.to.as_secs_f64(), elapsed.as_secs_f64());
        let expected = if elapsed < expected.to {
            (1.0 - 1.0 / SLOW_ONE_IN) * ((at - from) / (to - from)).max(0.0)
        } else {
            1.0 - to / at.max(f64::EPSILON) / SLOW_ONE_IN
        };
        let pace = Kind::of(self, generation).and_then(|kind| experience.paces.get(&kind));
        pace.and_then(|pace| pace.done_share(elapsed)).map_or(expected, |learned| learned.min(expected))
    }

    /// Whether its client gives up before the first read would come: then one is made before.
    fn is_last_call(generation: &Generation, poll: &Poll, now: Time) -> bool {
        let ends = generation.began_at() + patience(generation.family);
        let is_late = generation.watch.check_at.is_some_and(|at| at + READS_APART > ends);
        let since = now.since(ends - LAST_CALL);
        let is_near = now >= ends - LAST_CALL && now < ends;
        let is_made = poll.read_ago.is_some_and(|ago| ago <= since);
        let is_calm = poll.used() < LAST_CALL_UNTIL;
        is_late && is_near && !is_made && (is_calm || now >= ends - LAST_CALL_LATEST)
    }
}
