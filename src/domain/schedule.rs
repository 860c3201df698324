//! When to look again at a generation, and what to look at first when the budget is short.
//!
//! Pure arithmetic over [`Rules`]; who acts on it is `flow/reconcile.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::experience::Experience;
use super::family::{Expected, Family};
use super::generation::{Attention, Generation, State};
use super::id::GenerationId;
use super::reading;
use super::time::Time;

/// Which webhooks are asked about before they are believed (contract section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confirm {
    /// Every authentic webhook is believed.
    Never,
    /// Those that came by a standing URL are confirmed.
    #[default]
    Untrusted,
    /// All are confirmed.
    Always,
}

/// Whether the provider can call us (contract section 11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Webhooks {
    /// There is a public address: an outcome without a webhook is one whose webhook was lost.
    #[default]
    Expected,
    /// There is none: outcomes are read, and nothing is amiss when no webhook comes. One that does is taken as ever.
    NotExpected,
}

/// Expected times: the built-in table with the user's own over it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedTimes(BTreeMap<(String, String, u32), Expected>);

impl ExpectedTimes {
    /// Overrides by family path, model and seconds.
    pub fn new(overrides: impl IntoIterator<Item = ((String, String, u32), Expected)>) -> Self {
        Self(overrides.into_iter().collect())
    }

    /// The expected time for a model and duration; where either is unknown, the family's longest.
    pub fn of(&self, family: &Family, model: Option<&str>, seconds: Option<u32>) -> Expected {
        let exact = model.zip(seconds).and_then(|(model, seconds)| self.own(family, model, seconds));
        if let Some(expected) = exact {
            return expected;
        }
        let known = model.and_then(|name| family.model(name));
        match (known, seconds) {
            (Some(model), _) if model.offers.is_empty() => model.expected,
            (Some(model), Some(seconds)) if model.offers.iter().any(|offer| offer.seconds == seconds) => {
                family.expected(Some(model.name), Some(seconds))
            }
            _ => self.longest(family),
        }
    }

    fn own(&self, family: &Family, model: &str, seconds: u32) -> Option<Expected> {
        self.0.get(&(family.path.to_owned(), model.to_owned(), seconds)).copied()
    }

    /// Whether the table or the user's settings know a model of that name.
    pub fn names(&self, family: &Family, model: &str) -> bool {
        let own = || self.0.keys().any(|(path, name, _)| path == family.path && name == model);
        family.model(model).is_some() || own()
    }

    /// Whether clips of this length are told apart from others of the model: not where the table knows it without lengths.
    pub(super) fn by_length(&self, family: &Family, model: &str, seconds: u32) -> bool {
        let has_lengths = family.model(model).is_none_or(|known| !known.offers.is_empty());
        has_lengths || self.own(family, model, seconds).is_some()
    }

    /// The longest of the family, each built-in time replaced by the user's own where there is one.
    fn longest(&self, family: &Family) -> Expected {
        let built_in = family.models.iter().flat_map(|model| {
            let offers = model.offers.iter();
            offers.map(|offer| self.own(family, model.name, offer.seconds).unwrap_or(offer.expected))
        });
        let own = self.0.iter().filter(|((path, _, _), _)| path == family.path).map(|(_, expected)| *expected);
        let all = built_in.chain(own).max_by_key(|expected| expected.to);
        all.unwrap_or_else(|| family.expected(None, None))
    }
}

/// The user's settings that decisions depend on (contract section 3, `[reconcile]` and `webhook.confirm`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether any come.
    pub webhooks: Webhooks,
    /// Which webhooks are confirmed.
    pub confirm: Confirm,
    /// From the expected time to the first check.
    pub grace: Duration,
    /// How long the provider keeps retrying a webhook.
    pub webhook_retry_window: Duration,
    /// After this the provider fails a generation by itself.
    pub hard_limit: Duration,
    /// How long a refund may take.
    pub refund_window: Duration,
    /// Pauses after answers "still running"; the last repeats.
    pub recheck: Vec<Duration>,
    /// Pauses past the hard limit: the first for an hour, then the second.
    pub stuck_recheck: Vec<Duration>,
    /// Pause after an answer "not found".
    pub not_found_recheck: Duration,
    /// When a generation is given up.
    pub give_up_after: Duration,
    /// Expected times.
    pub expected: ExpectedTimes,
}

/// This many answers "not found", the pause apart, are believed (contract section 9).
pub(super) const NOT_FOUND_BELIEVED: u32 = 3;
/// Longest time from an intent to the answer: the largest request and the longest time limit together.
const SUBMISSION_MAX: Duration = Duration::from_mins(30);
/// Past the hard limit, the first pause of `stuck_recheck` applies for this long.
const STUCK_EAGER: Duration = Duration::from_hours(1);
/// First and longest pause after an answer that told nothing.
const ERROR_PAUSE: Duration = Duration::from_secs(15);
const ERROR_PAUSE_MAX: Duration = Duration::from_mins(10);
/// Longest pause a `Retry-After` of the provider can ask for.
pub const RATE_LIMITED_PAUSE_MAX: Duration = Duration::from_hours(1);
/// Where a list of pauses is empty; configuration refuses that.
const PAUSE_FALLBACK: Duration = Duration::from_mins(1);

impl Rules {
    /// When the outcome of this generation is expected: settled when it begins, so that it does not move under its reader.
    fn expected_by(&self, generation: &Generation) -> Time {
        let request = &generation.request;
        let table = || self.expected.of(generation.family, request.model.as_deref(), request.duration_seconds);
        generation.expected_by.unwrap_or_else(|| generation.began_at() + table().to)
    }

    /// When the provider is asked first: once the webhook should have come; where none is to come, once every other one is done.
    pub(super) fn first_check_at(&self, generation: &Generation, experience: &Experience) -> Time {
        if self.webhooks == Webhooks::NotExpected {
            return generation.began_at() + experience.median(self, generation);
        }
        let trust = experience.trusts.get(generation.family.path);
        let grace = trust.map_or(self.grace, |trust| trust.grace(self.grace, self.webhook_retry_window));
        self.expected_by(generation) + grace
    }

    /// The longest from the expected time to the first read.
    pub fn first_look_after(&self) -> Duration {
        self.grace.max(self.webhook_retry_window)
    }

    /// The longest pause between two reads.
    pub fn longest_pause(&self) -> Duration {
        let pauses = self.recheck.iter().chain(&self.stuck_recheck).copied();
        // The pauses after answers that told nothing are shorter than these.
        pauses.chain([RATE_LIMITED_PAUSE_MAX, self.not_found_recheck]).max().unwrap_or_default()
    }

    /// Past the expected time, and the last webhook that could come. Where none is to come: and the read that finds what ended in time.
    pub(super) fn overdue_at(&self, generation: &Generation) -> Time {
        self.expected_by(generation)
            + match self.webhooks {
                Webhooks::Expected => self.webhook_retry_window,
                Webhooks::NotExpected => reading::PAUSE_MAX,
            }
    }

    /// Past the hard limit and the last webhook that could come.
    pub(super) fn stuck_at(&self, generation: &Generation) -> Time {
        let limit = generation.began_at() + self.limit(generation);
        match self.webhooks {
            Webhooks::Expected => limit + self.webhook_retry_window,
            Webhooks::NotExpected => limit,
        }
    }

    /// How far apart two answers are that both count towards giving up: three span the longest a generation can take.
    pub(super) fn late_answers_apart(&self, generation: &Generation) -> Duration {
        self.limit(generation).min(self.give_up_after) / 2
    }

    /// The usual time of this generation: the table's, its end as it was expected when the generation began.
    pub fn expected_range(&self, generation: &Generation) -> Expected {
        let request = &generation.request;
        let table = self.expected.of(generation.family, request.model.as_deref(), request.duration_seconds);
        match generation.expected_by.map(|by| by.since(generation.began_at())) {
            Some(learned) => Expected { from: table.from.min(learned), to: learned },
            None => table,
        }
    }

    /// After this the provider fails it by itself: the family's own limit where it is documented to be shorter.
    pub fn limit(&self, generation: &Generation) -> Duration {
        generation.family.hard_limit.map_or(self.hard_limit, |limit| limit.min(self.hard_limit))
    }

    /// When the answer to a purchase counts as lost, should nobody have said so before: later than any purchase can take.
    pub(super) fn answer_lost_at(generation: &Generation) -> Time {
        generation.began_at() + SUBMISSION_MAX
    }

    /// When the generation is given up.
    pub(super) fn lost_at(&self, generation: &Generation) -> Time {
        generation.began_at() + self.give_up_after
    }

    /// What time alone makes of a generation without an outcome: worth a look, never an outcome.
    pub(super) fn attention_by_time(&self, generation: &Generation, now: Time) -> Option<Attention> {
        if !generation.state.is_running() {
            None
        } else if now >= self.stuck_at(generation) {
            Some(Attention::Stuck)
        } else if now >= self.overdue_at(generation) {
            Some(Attention::Overdue)
        } else {
            None
        }
    }

    /// When time alone changes something next; `None` past the last of these moments.
    pub(super) fn next_turn(&self, generation: &Generation, now: Time) -> Option<Time> {
        let lost_at = self.lost_at(generation);
        match &generation.state {
            State::Pending | State::Processing => {
                let turns = [self.overdue_at(generation), self.stuck_at(generation), lost_at];
                turns.into_iter().filter(|turn| *turn > now).min()
            }
            State::Submitting => Some(Self::answer_lost_at(generation)),
            State::Unconfirmed => Some(lost_at),
            State::Prepared
            | State::Rejected { .. }
            | State::Completed { .. }
            | State::Failed { .. }
            | State::Lost { .. } => None,
        }
    }

    /// When to ask again after an answer that says still running.
    pub(super) fn recheck_at(&self, generation: &Generation, now: Time) -> Time {
        let stuck_at = self.stuck_at(generation);
        let settled = generation.state.settled_at().is_some();
        let reading = self.webhooks == Webhooks::NotExpected && !settled;
        now + if now < stuck_at && reading {
            between(reading::PAUSE_MIN, reading::PAUSE_MAX, generation.id, generation.watch.running_streak)
        } else if now < stuck_at || settled {
            let answers = usize::try_from(generation.watch.running_streak).unwrap_or(usize::MAX);
            pause(&self.recheck, answers.saturating_sub(1))
        } else if now < stuck_at + STUCK_EAGER {
            pause(&self.stuck_recheck, 0)
        } else {
            pause(&self.stuck_recheck, 1)
        }
    }

    /// When to ask again after an answer that told nothing: doubling pauses, spread by a quarter either way.
    pub(super) fn retry_at(generation: &Generation, now: Time) -> Time {
        let doublings = generation.watch.error_streak.saturating_sub(1).min(16);
        let pause = ERROR_PAUSE.saturating_mul(1 << doublings).min(ERROR_PAUSE_MAX);
        now + spread(pause, generation.id, generation.watch.error_streak)
    }
}

/// The n-th pause of a list whose last one repeats.
fn pause(pauses: &[Duration], n: usize) -> Duration {
    pauses.get(n).or(pauses.last()).copied().unwrap_or(PAUSE_FALLBACK)
}

/// Between three and five quarters of `pause`.
fn spread(pause: Duration, id: GenerationId, nth: u32) -> Duration {
    between(pause * 3 / 4, pause * 3 / 4 + pause / 2, id, nth)
}

/// A span from `least` to `most`: another for every generation and try, the same for the same.
fn between(least: Duration, most: Duration, id: GenerationId, nth: u32) -> Duration {
    // FNV-1a (public domain): deciding must not depend on a source of chance.
    let bytes = id.as_bytes().iter().copied().chain(nth.to_le_bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let share = u32::try_from(hash >> 32 & 0xffff).unwrap_or(0);
    least + most.saturating_sub(least) * share / 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decision::tests::rules;
    use crate::domain::family::FAMILIES;
    use crate::domain::generation::{Request, Via};

    fn minutes(from: u64, to: u64) -> Expected {
        Expected { from: Duration::from_mins(from), to: Duration::from_mins(to) }
    }

    fn own(times: &[(&str, &str, u32, Expected)]) -> ExpectedTimes {
        ExpectedTimes::new(
            times.iter().map(|(path, model, seconds, expected)| {
                (((*path).to_owned(), (*model).to_owned(), *seconds), *expected)
            }),
        )
    }

    #[test]
    fn the_users_own_times_stand_over_the_table() {
        let o3 = &FAMILIES[0];
        let table = ExpectedTimes::default();
        let to_s = |times: &ExpectedTimes, model: Option<&str>, seconds: Option<u32>| {
            times.of(o3, model, seconds).to.as_secs()
        };
        for (model, seconds, expected_s) in [
            (Some("kling_o3"), Some(5), 180),
            (Some("kling_o3_pro"), Some(10), 450),
            (Some("kling_o3"), Some(7), 630),
            (Some("kling_o3"), None, 630),
            (Some("kling_o9"), Some(5), 630),
            (None, Some(5), 630),
            (None, None, 630),
        ] {
            assert_eq!(to_s(&table, model, seconds), expected_s, "{model:?} {seconds:?}");
        }
        let shorter = own(&[(o3.path, "kling_o3", 5, minutes(1, 2)), (o3.path, "kling_o3_pro", 15, minutes(1, 5))]);
        assert_eq!(to_s(&shorter, Some("kling_o3"), Some(5)), 120);
        assert_eq!(to_s(&shorter, Some("kling_o3"), Some(10)), 300, "not this one");
        assert_eq!(to_s(&shorter, Some("kling_o3"), Some(7)), 450, "the longest is another one now");
        assert_eq!(to_s(&shorter, None, None), 450);
        let longer = own(&[(o3.path, "kling_o9", 5, minutes(1, 20)), ("veo", "veo", 8, minutes(1, 60))]);
        assert_eq!(to_s(&longer, Some("kling_o9"), Some(5)), 1_200);
        assert_eq!(to_s(&longer, None, None), 1_200, "of this family");
    }

    #[test]
    fn a_model_without_durations_has_one_time() {
        let table = ExpectedTimes::default();
        for family in FAMILIES {
            for model in family.models.iter().filter(|model| model.offers.is_empty()) {
                for seconds in [None, Some(5)] {
                    assert_eq!(table.of(family, Some(model.name), seconds), model.expected, "{}", model.name);
                }
                assert!(table.names(family, model.name) && !table.by_length(family, model.name, 5));
                let with_other = own(&[(family.path, "another", 5, minutes(1, 120))]);
                assert_eq!(with_other.of(family, Some(model.name), None), model.expected, "{}", model.name);
            }
        }
    }

    #[test]
    fn it_is_known_which_models_have_a_name_and_which_tell_lengths_apart() {
        let (o3, table) = (&FAMILIES[0], ExpectedTimes::default());
        let with_own = own(&[(o3.path, "kling_o9", 7, minutes(1, 2)), ("kling", "kling_3_motion", 9, minutes(1, 2))]);
        for (times, model, named) in
            [(&table, "kling_o3", true), (&table, "kling_o9", false), (&with_own, "kling_o9", true)]
        {
            assert_eq!(times.names(o3, model), named, "{model}");
        }
        assert!(!with_own.names(&FAMILIES[1], "kling_o9"), "of another family");
        assert!(table.by_length(o3, "kling_o3", 7) && with_own.by_length(o3, "kling_o9", 5));
        assert!(!with_own.by_length(&FAMILIES[1], "kling_3_motion", 5));
        assert!(with_own.by_length(&FAMILIES[1], "kling_3_motion", 9), "the user says so");
    }

    #[test]
    fn the_longest_pause_is_an_hour_or_what_the_user_says() {
        let hours = Duration::from_hours;
        let usual = rules(Confirm::Untrusted);
        assert_eq!(usual.longest_pause(), hours(1));
        let short = Rules { stuck_recheck: vec![], recheck: vec![], ..usual.clone() };
        assert_eq!(short.longest_pause(), RATE_LIMITED_PAUSE_MAX);
        assert_eq!(Rules { recheck: vec![hours(1), hours(3)], ..usual.clone() }.longest_pause(), hours(3));
        assert_eq!(Rules { stuck_recheck: vec![hours(4), hours(1)], ..usual.clone() }.longest_pause(), hours(4));
        assert_eq!(Rules { not_found_recheck: hours(5), ..usual.clone() }.longest_pause(), hours(5));
        assert_eq!(usual.first_look_after(), Duration::from_secs(150));
        assert_eq!(Rules { grace: hours(1), ..usual }.first_look_after(), hours(1));
        assert!(ERROR_PAUSE_MAX * 5 / 4 < RATE_LIMITED_PAUSE_MAX);
    }

    #[test]
    fn pauses_after_silence_double_up_to_ten_minutes() {
        let id = GenerationId::from_bytes(&[7; 16]).unwrap();
        let mut generation = Generation::new(id, &FAMILIES[0], Via::Api, Time::from_ms(0));
        let mut pauses_s = Vec::new();
        for streak in [0, 1, 2, 3, 4, 5, 6, 7, 8, 30, u32::MAX] {
            generation.watch.error_streak = streak;
            let pause = Rules::retry_at(&generation, Time::from_ms(5_000)).since(Time::from_ms(5_000));
            pauses_s.push(pause.as_secs());
            let usual = ERROR_PAUSE.saturating_mul(1 << streak.saturating_sub(1).min(10)).min(ERROR_PAUSE_MAX);
            assert!((usual * 3 / 4..=usual * 5 / 4).contains(&pause), "{streak}: {pause:?}");
        }
        assert_eq!(pauses_s, [14, 17, 34, 49, 136, 192, 389, 584, 702, 673, 648]);
    }

    #[test]
    fn pauses_run_through_their_list_and_the_last_repeats() {
        let usual = rules(Confirm::Untrusted);
        let id = GenerationId::from_bytes(&[7; 16]).unwrap();
        let new = Generation::new(id, &FAMILIES[0], Via::Api, Time::from_ms(0));
        let after_s = |state: State, streak: u32, now_s: u64| {
            let mut generation = Generation { state, ..new.clone() };
            generation.watch.running_streak = streak;
            let now = Time::from_ms(0) + Duration::from_secs(now_s);
            usual.recheck_at(&generation, now).since(now).as_secs()
        };
        let running = |streak, now_s| after_s(State::Processing, streak, now_s);
        assert_eq!([0, 1, 2, 3, 4, u32::MAX].map(|streak| running(streak, 10)), [15, 15, 30, 60, 60, 60]);
        // Stuck after 17 min 30 s.
        assert_eq!(
            [1_049, 1_050, 1_051, 4_649, 4_650, 4_651].map(|now_s| running(1, now_s)),
            [15, 300, 300, 300, 3_600, 3_600]
        );
        assert_eq!(after_s(State::Lost { at: Time::from_ms(0) }, 2, 5_000), 30, "what is settled is asked about soon");
        assert_eq!(pause(&[], 0), PAUSE_FALLBACK);
    }

    #[test]
    fn the_usual_time_ends_when_it_was_expected_to() {
        let usual = rules(Confirm::Untrusted);
        let id = GenerationId::from_bytes(&[7; 16]).unwrap();
        let request = Request { model: Some("kling_o3".to_owned()), duration_seconds: Some(5), prompt: None };
        let new = Generation { request, ..Generation::new(id, &FAMILIES[0], Via::Api, Time::from_ms(0)) };
        assert_eq!(usual.expected_range(&new), minutes(2, 3));
        assert_eq!(usual.overdue_at(&new), Time::from_ms(330_000));
        assert_eq!(usual.first_check_at(&new, &Experience::default()), Time::from_ms(210_000));
        let by = |minutes: i64| Generation { expected_by: Some(Time::from_ms(minutes * 60_000)), ..new.clone() };
        assert_eq!(usual.expected_range(&by(4)), minutes(2, 4));
        assert_eq!(usual.expected_range(&by(1)), minutes(1, 1));
    }

    #[test]
    fn the_spread_stays_within_a_quarter() {
        for nth in 0..200 {
            let span = spread(Duration::from_secs(100), GenerationId::fresh(Time::from_ms(1_000)), nth);
            assert!((Duration::from_secs(75)..=Duration::from_secs(125)).contains(&span), "{span:?}");
        }
    }
}
