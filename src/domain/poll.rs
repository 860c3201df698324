//! Whether a client's poll pulls the first read of its generation forward.
//!
//! A read is worth its place in the budget where the outcome is likely to be there although no webhook told it. Pure arithmetic
//! over what is known; who counts the polls is `flow/poll.rs`, who writes the read down the decision. Never about a read that is
//! due anyway, nor about one behind the first: those have pauses of their own.

use std::time::Duration;

use super::experience::{Experience, Kind};
use super::family::Family;
use super::generation::{Generation, State};
use super::schedule::{Rules, Webhooks};
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
const LAST_CALL_UNTIL: f64 = 1.0 / 6.0;
/// The last polls that can still bring an answer in time.
const LAST_CALL_LATEST: Duration = Duration::from_secs(50);

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

/// The share of outcomes that no webhook tells, by the last ones: one in four where nothing is known yet, all where none is expected.
fn lost_share(webhooks: Webhooks, trust: Option<&Trust>) -> f64 {
    if webhooks == Webhooks::NotExpected {
        return 1.0;
    }
    let (missed, of) = trust.map(Trust::lately).unwrap_or_default();
    (real(missed) + 1.0) / (real(of) + 4.0)
}

fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Rules {
    /// Whether a poll could cause a read now: it runs, its shortest time is over, and its first read is still to come.
    pub fn expects_first_read(&self, generation: &Generation, now: Time) -> bool {
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
        if is_early || poll.used() >= 1.0 || !self.expects_first_read(generation, now) {
            return false;
        }
        let elapsed = now.since(generation.began_at());
        let waited = poll.read_ago.unwrap_or(elapsed.saturating_sub(self.expected_range(generation).from));
        let is_its_turn = poll.used() < TURNS_UNTIL && waited >= READS_APART * poll.polled.saturating_sub(1);
        let price = match self.webhooks {
            Webhooks::Expected => poll.price(),
            // Every outcome is read there, and one that is found early needs no read later.
            Webhooks::NotExpected => poll.used().max(f64::EPSILON),
        };
        is_its_turn
            || self.chance(generation, experience, poll, now) >= price
            || Self::is_last_call(generation, poll, now)
    }

    /// The chance that the outcome is there although no webhook told it.
    fn chance(&self, generation: &Generation, experience: &Experience, poll: &Poll, now: Time) -> f64 {
        let elapsed = now.since(generation.began_at());
        let running = |at: Duration| 1.0 - self.done_share(generation, experience, at);
        // It ran when it was last read.
        let ran = poll.read_ago.map_or(1.0, |ago| running(elapsed.saturating_sub(ago)));
        let running = (running(elapsed) / ran).min(1.0);
        let trust = experience.trusts.get(generation.family.path);
        let unheard = lost_share(self.webhooks, trust) * (1.0 - running);
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
        let pace = experience.paces.get(&Kind::of(self, generation));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decision::tests::{reading, rules};
    use crate::domain::decision::{Answer, Fact};
    use crate::domain::family::FAMILIES;
    use crate::domain::generation::{Attention, Request, Via, Watch};
    use crate::domain::id::{GenerationId, ProviderId};
    use crate::domain::notice::{Notice, Word};
    use crate::domain::outcome::Outcome;
    use crate::domain::pace::Pace;
    use crate::domain::schedule::Confirm;

    const BOUGHT: Time = Time::from_ms(1_795_428_000_000);
    const ALONE: Poll = Poll { read_ago: None, polled: 1, reads_used: 0, reads_per_minute: 48 };

    fn after(seconds: u64) -> Time {
        BOUGHT + Duration::from_secs(seconds)
    }

    fn sold(family: &str, model: &str, seconds: Option<u32>) -> Generation {
        let family = Family::of(family).unwrap();
        let request = Request { model: Some(model.to_owned()), duration_seconds: seconds, prompt: None };
        let new = Generation {
            state: State::Processing,
            provider_id: ProviderId::parse("p-1").ok(),
            submitted_at: Some(BOUGHT),
            request,
            ..Generation::new(GenerationId::fresh(BOUGHT), family, Via::Gateway, BOUGHT)
        };
        rules(Confirm::Untrusted).decide(&new, &Fact::TimePassed, &Experience::default(), BOUGHT).generation
    }

    /// Five seconds in standard: 120 to 180 s, asked about first after 210.
    fn o3() -> Generation {
        sold(FAMILIES[0].path, "kling_o3", Some(5))
    }

    /// The same where outcomes are read: asked about first after 150.
    fn o3_read() -> Generation {
        let new = Generation { watch: Watch::default(), ..o3() };
        reading().decide(&new, &Fact::TimePassed, &Experience::default(), BOUGHT).generation
    }

    fn pulls(generation: &Generation, experience: &Experience, poll: &Poll, seconds: u64) -> bool {
        rules(Confirm::Untrusted).is_worth_a_read(generation, experience, poll, after(seconds))
    }

    /// Two in a hundred webhooks get lost.
    fn usual() -> Experience {
        let recent = (0..256).map(|n| n % 50 > 0);
        let trust = |family: &Family| (family.path.to_owned(), Trust::stored((250, 6, 0), recent.clone(), []));
        Experience { trusts: FAMILIES.iter().map(trust).collect(), ..Experience::default() }
    }

    #[test]
    fn one_that_polls_alone_is_read_from_the_shortest_time_on_every_fifteen_seconds() {
        let ago = |seconds| Poll { read_ago: Some(Duration::from_secs(seconds)), reads_used: 3, ..ALONE };
        for experience in [Experience::default(), usual()] {
            assert_eq!([119, 120, 209].map(|at| pulls(&o3(), &experience, &ALONE, at)), [false, true, true]);
            assert_eq!([14, 15, 60].map(|seconds| pulls(&o3(), &experience, &ago(seconds), 180)), [false, true, true]);
        }
        assert!(!pulls(&o3(), &usual(), &ALONE, 210), "it is due anyway");
    }

    #[test]
    fn where_every_outcome_is_read_the_chance_has_to_reach_the_used_part_of_the_budget() {
        let bought = o3_read();
        let from = |reads_used| {
            let poll = Poll { polled: 30, reads_used, ..ALONE };
            (120..150).find(|at| reading().is_worth_a_read(&bought, &Experience::default(), &poll, after(*at)))
        };
        assert_eq!([0, 8, 16, 22, 30].map(from), [Some(121), Some(131), Some(141), Some(149), None]);
    }

    #[test]
    fn a_read_that_a_poll_caused_a_moment_before_the_first_one_takes_its_place() {
        let bought = o3_read();
        let pending = Notice { provider_id: ProviderId::parse("p-1").unwrap(), word: Word::Processing };
        let answered = |at: u64| {
            let fact = Fact::Answer(Answer::Known(pending.clone()));
            reading().decide(&bought, &fact, &Experience::default(), after(at)).generation.watch.check_at.unwrap()
        };
        assert_eq!(answered(125), after(150), "the first one stays where it was");
        assert!((158..=163).contains(&(answered(148).since(BOUGHT).as_secs())), "{:?}", answered(148));
    }

    #[test]
    fn several_take_turns() {
        let among = |polled, reads_used| Poll { polled, reads_used, ..ALONE };
        // 20 seconds after the shortest time it is the turn of the second, not of the third.
        assert!(pulls(&o3(), &usual(), &among(2, 7), 140));
        assert!(!pulls(&o3(), &usual(), &among(3, 7), 140));
        assert!(pulls(&o3(), &usual(), &among(3, 7), 150));
        assert!(!pulls(&o3(), &usual(), &among(2, 8), 140), "a sixth of the budget is used");
    }

    #[test]
    fn the_more_of_the_budget_is_used_the_likelier_it_has_to_be_there() {
        let crowd = |reads_used| Poll { polled: 300, reads_used, ..ALONE };
        let from = |reads_used| (120..210).find(|at| pulls(&o3(), &usual(), &crowd(reads_used), *at));
        // Past its expected time it is about as likely that its webhook is lost as that it is slow.
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 24, 48].map(from),
            [121, 172, 177, 179, 180, 180, 0, 0].map(|at| (at > 0).then_some(at))
        );
        let none_arrive = Trust::stored((0, 256, 0), [false; 256], []);
        let lost = Experience { trusts: [(FAMILIES[0].path.to_owned(), none_arrive)].into(), ..usual() };
        let from = |reads_used| (120..210).find(|at| pulls(&o3(), &lost, &crowd(reads_used), *at));
        assert_eq!([0, 4, 14, 24].map(from), [Some(121), Some(151), Some(167), None]);
    }

    #[test]
    fn what_ran_when_it_was_last_read_is_less_likely_to_be_there() {
        let crowd =
            |ago: Option<u64>| Poll { polled: 300, reads_used: 3, read_ago: ago.map(Duration::from_secs), ..ALONE };
        assert!(pulls(&o3(), &usual(), &crowd(None), 185));
        assert!(!pulls(&o3(), &usual(), &crowd(Some(15)), 195));
    }

    #[test]
    fn one_that_is_slower_than_the_table_says_is_waited_for() {
        let crowd = Poll { polled: 300, reads_used: 3, ..ALONE };
        let kind = Kind::of(&rules(Confirm::Untrusted), &o3());
        let learned = |ms| Experience { paces: [(kind.clone(), Pace::stored(200, [ms; 200]))].into(), ..usual() };
        assert!(!pulls(&o3(), &learned(200_000), &crowd, 185));
        assert!(pulls(&o3(), &learned(150_000), &crowd, 185));
    }

    #[test]
    fn before_its_clients_patience_ends_one_read_is_made() {
        let crowd = |reads_used, ago: Option<u64>| Poll {
            polled: 300,
            reads_used,
            read_ago: ago.map(Duration::from_secs),
            ..ALONE
        };
        let slow = sold(FAMILIES[0].path, "kling_o3_pro", Some(15));
        let at = |generation: &Generation, poll: Poll, seconds| pulls(generation, &usual(), &poll, seconds);
        assert_eq!([539, 540, 599, 600].map(|seconds| at(&slow, crowd(5, None), seconds)), [false, true, true, false]);
        assert_eq!([549, 550].map(|seconds| at(&slow, crowd(40, None), seconds)), [false, true]);
        assert!(!at(&slow, crowd(48, None), 590), "nothing is left");
        assert!(!at(&slow, crowd(5, Some(20)), 570), "it was made");
        assert!(at(&slow, crowd(5, Some(31)), 570), "that one was before");
        // Whose first read comes in time needs none.
        let soon = sold(FAMILIES[0].path, "kling_o3", Some(15));
        assert!(!at(&soon, crowd(5, None), 419));
        for (family, model, last) in
            [("veo", "veo", 540), ("kling/o1-video", "kling_o1_video", 540), ("sora", "sora", 540)]
        {
            let wide = sold(family, model, None);
            assert_eq!([last - 1, last].map(|seconds| at(&wide, crowd(5, None), seconds)), [false, true], "{family}");
        }
        // Pictures are waited for half as long.
        let mut picture = sold("chatgpt-images", "chatgpt_images", None);
        picture.watch.check_at = Some(after(330));
        picture.expected_by = Some(after(300));
        assert_eq!([239, 240].map(|seconds| at(&picture, crowd(5, None), seconds)), [false, true]);
    }

    #[test]
    fn only_a_first_read_that_is_still_to_come_is_pulled_forward() {
        let watch = o3().watch;
        let watched = |watch: Watch| Generation { watch, ..o3() };
        let url = || "https://x/v.mp4".to_owned();
        let told = Fact::Answer(Answer::Known(Notice {
            provider_id: ProviderId::parse("p-1").unwrap(),
            word: Word::Outcome(Outcome::Completed { result_url: url() }),
        }));
        let done = rules(Confirm::Untrusted).decide(&o3(), &told, &usual(), after(130)).generation;
        for other in [
            watched(Watch { running_streak: 1, ..watch.clone() }),
            watched(Watch { not_found_streak: 1, ..watch.clone() }),
            watched(Watch { error_streak: 1, ..watch.clone() }),
            watched(Watch { check_at: None, ..watch }),
            Generation { attention: Some(Attention::Conflict), ..o3() },
            Generation { claim: Some(Outcome::Completed { result_url: url() }), ..o3() },
            Generation { state: State::Submitting, ..o3() },
            done,
        ] {
            assert!(!pulls(&other, &usual(), &ALONE, 150), "{other:?}");
        }
    }
}
