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
/// Nobody pays more for a read than this chance that it finds something: rather late than for nothing.
const DEAREST: f64 = 0.5;
/// Reads cost the most once so much of the budget is used: one part in so many.
const DEAREST_FROM: u32 = 12;
/// Reads that nothing but a turn speaks for are made while less than this part of the budget is used.
const TURNS_UNTIL: u32 = 6;
/// Half the budget is left to what is due by itself.
const POLLS_UNTIL: u32 = 2;
/// Before its patience ends a client is told of what is there: so long before, or later while more than this part is used.
const LAST_CALL: Duration = Duration::from_mins(1);
const LAST_CALL_UNTIL: u32 = 8;
/// The last poll that can still bring an answer in time.
const LAST_CALL_LATEST: Duration = Duration::from_secs(25);

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
        let used = |part: u32| poll.reads_used.saturating_mul(part) >= poll.reads_per_minute;
        if !self.awaits_first_read(generation, now)
            || poll.read_ago.is_some_and(|ago| ago < READS_APART)
            || poll.reads_per_minute == 0
            || used(POLLS_UNTIL)
        {
            return false;
        }
        let elapsed = now.since(generation.began_at());
        let waited = poll.read_ago.unwrap_or(elapsed.saturating_sub(self.expected_range(generation).from));
        let is_its_turn = !used(TURNS_UNTIL) && waited >= READS_APART * poll.polled.saturating_sub(1);
        let price = DEAREST * (f64::from(poll.reads_used * DEAREST_FROM) / f64::from(poll.reads_per_minute)).min(1.0);
        is_its_turn
            || self.chance(generation, experience, poll, now) >= price.max(f64::EPSILON)
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

    /// The share of its kind that is done within `elapsed`; less than one.
    fn done_share(&self, generation: &Generation, experience: &Experience, elapsed: Duration) -> f64 {
        let pace = Kind::of(self, generation).and_then(|kind| experience.paces.get(&kind));
        if let Some(share) = pace.and_then(|pace| pace.done_share(elapsed)) {
            return share;
        }
        let expected = self.expected_range(generation);
        let (from, to) = (expected.from.as_secs_f64(), expected.to.as_secs_f64());
        let elapsed = elapsed.as_secs_f64();
        if elapsed >= to {
            1.0 - to / elapsed.max(f64::EPSILON) / SLOW_ONE_IN
        } else {
            (1.0 - 1.0 / SLOW_ONE_IN) * ((elapsed - from) / (to - from)).max(0.0)
        }
    }

    /// Whether its client gives up before the first read would come: then one is made before.
    fn is_last_call(generation: &Generation, poll: &Poll, now: Time) -> bool {
        let ends = generation.began_at() + patience(generation.family);
        let is_late = generation.watch.check_at.is_some_and(|at| at + READS_APART > ends);
        let since = now.since(ends - LAST_CALL);
        let is_near = now >= ends - LAST_CALL && now < ends;
        let is_made = poll.read_ago.is_some_and(|ago| ago <= since);
        let is_calm = poll.reads_used.saturating_mul(LAST_CALL_UNTIL) < poll.reads_per_minute;
        is_late && is_near && !is_made && (is_calm || now >= ends - LAST_CALL_LATEST)
    }
}
