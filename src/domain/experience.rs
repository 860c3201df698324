//! What settled generations taught: how long each kind takes lately, and whether the webhooks of a family arrive.
//!
//! A value like any other: decisions get it handed in, the store keeps it beside the outcomes it was learned from.

use std::collections::BTreeMap;
use std::time::Duration;

use super::decision::Decision;
use super::family::{Expected, Family};
use super::generation::{Generation, State};
use super::outcome::Source;
use super::pace::Pace;
use super::schedule::{Rules, Webhooks};
use super::time::Time;
use super::trust::Trust;

/// What is expected to take equally long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The family's path.
    pub family: String,
    /// The model as sent; the family's path for all that neither the table nor the user's settings name.
    pub model: String,
    /// Length of the clip in seconds; 0 where a model has none, or where it is not known.
    pub duration_seconds: u32,
}

/// Longer clips learn together with those of unknown length.
const LENGTH_MAX: u32 = 60;

/// All that was learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Experience {
    /// How long each kind takes.
    pub paces: BTreeMap<Kind, Pace>,
    /// Whether webhooks arrive, by the family's path.
    pub trusts: BTreeMap<String, Trust>,
}

/// What changed in the experience.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lesson {
    /// This pace.
    pub pace: Option<Kind>,
    /// The trust in this family.
    pub trust: Option<&'static Family>,
}

impl Kind {
    /// The kind of a generation. Names and lengths that callers make up fall together, so that their number stays bounded.
    pub fn of(rules: &Rules, generation: &Generation) -> Self {
        let (family, request) = (generation.family, &generation.request);
        let model = match request.model.as_deref() {
            Some(model) => rules.expected.names(family, model).then_some(model),
            None => family.only_model().map(|model| model.name),
        };
        let seconds = request.duration_seconds.filter(|seconds| (1..=LENGTH_MAX).contains(seconds));
        let seconds =
            seconds.filter(|seconds| model.is_none_or(|model| rules.expected.by_length(family, model, *seconds)));
        Self {
            family: family.path.to_owned(),
            model: model.unwrap_or(family.path).to_owned(),
            duration_seconds: seconds.unwrap_or(0),
        }
    }
}

/// How long behind the read that had found the outcome its first webhook came; `None` for any other change.
pub fn lag(before: &Generation, after: &Generation) -> Option<Duration> {
    let (None, Some(came), Some(found)) = (before.webhook_at, after.webhook_at, before.state.settled_at()) else {
        return None;
    };
    let found_by_read = before.state.learned().is_some_and(|learned| learned.source == Source::Check);
    (before.deliveries == 0 && found_by_read).then(|| came.since(found))
}

impl Experience {
    /// The expected time of a generation: the table's, its upper value replaced by what was learned.
    pub fn expected(&self, rules: &Rules, generation: &Generation) -> Expected {
        let (table, pace) = (table(rules, generation), self.pace(rules, generation));
        match pace.and_then(|pace| pace.learned(table)) {
            Some(to) => Expected { from: table.from.min(to), to },
            None => table,
        }
    }

    /// When half of them are done: the table's middle, replaced by what was learned.
    pub fn median(&self, rules: &Rules, generation: &Generation) -> Duration {
        let (table, pace) = (table(rules, generation), self.pace(rules, generation));
        pace.and_then(|pace| pace.learned_median(table)).unwrap_or_else(|| middle(table.from, table.to))
    }

    fn pace(&self, rules: &Rules, generation: &Generation) -> Option<&Pace> {
        self.paces.get(&Kind::of(rules, generation))
    }

    /// Learns from what was decided.
    pub fn learn(&mut self, rules: &Rules, before: &Generation, decision: &Decision, now: Time) -> Lesson {
        let after = &decision.generation;
        let mut lesson = Lesson::default();
        // What is not expected is neither in time nor missed.
        let expected = rules.webhooks == Webhooks::Expected;
        if decision.settled && before.state.outcome().is_none() {
            if expected {
                self.trust(after.family).settled(after.deliveries > 0);
                lesson.trust = Some(after.family);
            }
            lesson.pace = self.learn_pace(rules, before, after, now);
        } else if let Some(lag) = lag(before, after).filter(|_| expected) {
            self.trust(after.family).came_late(lag);
            lesson.trust = Some(after.family);
        }
        lesson
    }

    fn trust(&mut self, family: &Family) -> &mut Trust {
        self.trusts.entry(family.path.to_owned()).or_default()
    }

    /// Only completed ones say how long a video takes, and only where it is known when they were bought.
    fn learn_pace(&mut self, rules: &Rules, before: &Generation, after: &Generation, now: Time) -> Option<Kind> {
        let (State::Completed { learned, .. }, Some(bought)) = (&after.state, after.submitted_at) else { return None };
        let kind = Kind::of(rules, after);
        let took = after.webhook_at.unwrap_or(now).since(bought);
        // A read that found it at once only says that it took no longer: that must not make the next one wait longer still.
        let found_at_once = learned.source == Source::Check && before.watch.running_streak == 0;
        let took = match (found_at_once, rules.webhooks) {
            (false, _) => took,
            (true, Webhooks::Expected) => took.min(self.expected(rules, after).to),
            (true, Webhooks::NotExpected) => self.guess(rules, after, took),
        };
        self.paces.entry(kind.clone()).or_default().learn(took);
        Some(kind)
    }

    /// How long one took that the first read found done after `took`: half of them are, so the middle of what is possible has to
    /// count, or the first read could never come sooner. A read that had to wait in a queue was due at the median.
    fn guess(&self, rules: &Rules, generation: &Generation, took: Duration) -> Duration {
        let latest = took.min(self.median(rules, generation));
        // Below the table's shortest too, should the provider have become faster than that.
        middle(table(rules, generation).from.min(latest * 3 / 4), latest)
    }
}

fn table(rules: &Rules, generation: &Generation) -> Expected {
    let request = &generation.request;
    rules.expected.of(generation.family, request.model.as_deref(), request.duration_seconds)
}

fn middle(from: Duration, to: Duration) -> Duration {
    (from + to) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decision::tests::{reading, rules};
    use crate::domain::decision::{Answer, Fact};
    use crate::domain::family::FAMILIES;
    use crate::domain::generation::{Request, Via};
    use crate::domain::id::{GenerationId, ProviderId};
    use crate::domain::notice::{Notice, Word};
    use crate::domain::outcome::{Failure, Learned, Outcome, Verification};
    use crate::domain::schedule::Confirm;

    const BOUGHT: Time = Time::from_ms(1_795_428_000_000);

    fn running(model: &str) -> Generation {
        Generation {
            state: State::Processing,
            provider_id: ProviderId::parse("p-1").ok(),
            submitted_at: Some(BOUGHT),
            request: Request { model: Some(model.to_owned()), duration_seconds: Some(5), prompt: None },
            ..Generation::new(GenerationId::fresh(BOUGHT), &FAMILIES[0], Via::Api, BOUGHT)
        }
    }

    fn done() -> Notice {
        let outcome = Outcome::Completed { result_url: "https://x/v.mp4".to_owned() };
        Notice { provider_id: ProviderId::parse("p-1").unwrap(), word: Word::Outcome(outcome) }
    }

    fn learn(experience: &mut Experience, generation: &Generation, fact: &Fact, after: Duration) -> Lesson {
        let (rules, now) = (rules(Confirm::Untrusted), BOUGHT + after);
        let decision = rules.decide(generation, fact, experience, now);
        experience.learn(&rules, generation, &decision, now)
    }

    fn webhook(generation: &Generation) -> Fact {
        Fact::Webhook {
            reference: crate::domain::callback::Reference::Generation(generation.id),
            signed: false,
            notice: done(),
        }
    }

    #[test]
    fn what_is_expected_follows_what_was_seen() {
        let (mut experience, rules) = (Experience::default(), rules(Confirm::Untrusted));
        let generation = running("kling_o3");
        for _ in 0..50 {
            learn(&mut experience, &generation, &webhook(&generation), Duration::from_secs(140));
        }
        assert_eq!(experience.expected(&rules, &generation).to, Duration::from_secs(140));
        assert_eq!(experience.expected(&rules, &running("kling_o3_pro")).to, Duration::from_secs(270));
        let decision = rules.decide(
            &Generation { expected_by: None, ..generation.clone() },
            &Fact::TimePassed,
            &experience,
            BOUGHT,
        );
        assert_eq!(decision.generation.expected_by, Some(BOUGHT + Duration::from_secs(140)));
        assert_eq!(decision.generation.watch.check_at, Some(BOUGHT + Duration::from_secs(170)));
        // Of one that runs already the expectation does not move.
        let later = rules.decide(&decision.generation, &Fact::TimePassed, &Experience::default(), BOUGHT);
        assert_eq!(later.generation.expected_by, decision.generation.expected_by);
    }

    #[test]
    fn finding_lost_ones_late_never_makes_the_next_one_wait_longer() {
        let mut experience = Experience::default();
        let (generation, rules) = (running("kling_o3"), rules(Confirm::Untrusted));
        for _ in 0..200 {
            learn(&mut experience, &generation, &Fact::Answer(Answer::Known(done())), Duration::from_hours(3));
        }
        assert_eq!(experience.expected(&rules, &generation).to, Duration::from_mins(3));
        // One that was seen running shortly before did take that long.
        let mut seen = generation.clone();
        seen.watch.running_streak = 2;
        for _ in 0..60 {
            learn(&mut experience, &seen, &Fact::Answer(Answer::Known(done())), Duration::from_secs(250));
        }
        assert_eq!(experience.expected(&rules, &generation).to, Duration::from_secs(250));
    }

    #[test]
    fn a_webhook_says_how_long_it_took_though_nobody_had_asked_before() {
        let (mut experience, rules) = (Experience::default(), rules(Confirm::Untrusted));
        let generation = running("kling_o3");
        for _ in 0..60 {
            let lesson = learn(&mut experience, &generation, &webhook(&generation), Duration::from_secs(250));
            assert_eq!(lesson.pace, Some(Kind::of(&rules, &generation)));
        }
        assert_eq!(
            experience.expected(&rules, &generation),
            Expected { to: Duration::from_secs(250), ..table(&rules) }
        );
        assert_eq!((experience.trusts[FAMILIES[0].path].told, experience.trusts[FAMILIES[0].path].missed), (60, 0));
        let unbought = Generation { submitted_at: None, ..generation.clone() };
        assert_eq!(learn(&mut experience, &unbought, &webhook(&unbought), Duration::from_secs(9)).pace, None);
        assert_eq!(learn(&mut experience, &generation, &Fact::TimePassed, Duration::from_secs(9)), Lesson::default());
    }

    fn table(rules: &Rules) -> Expected {
        super::table(rules, &running("kling_o3"))
    }

    #[test]
    fn a_correction_teaches_nothing() {
        let (mut experience, rules) = (Experience::default(), rules(Confirm::Untrusted));
        let generation = running("kling_o3");
        let failed = Notice { word: Word::Outcome(Outcome::Failed(Failure::default())), ..done() };
        let found = Fact::Answer(Answer::Known(failed));
        let settled = rules.decide(&generation, &found, &Experience::default(), BOUGHT).generation;
        let corrected = Fact::Answer(Answer::Known(done()));
        assert_eq!(learn(&mut experience, &settled, &corrected, Duration::from_secs(9)), Lesson::default());
    }

    #[test]
    fn only_the_first_webhook_behind_a_read_is_late() {
        let (at, came) = (BOUGHT, BOUGHT + Duration::from_secs(40));
        let known = |source, deliveries, webhook_at| {
            let learned = Learned { source, verification: Verification::Status, recovered: false };
            let state = State::Completed { at, result_url: "u".to_owned(), learned };
            Generation { state, webhook_at, deliveries, ..running("kling_o3") }
        };
        let lag = |before: &Generation, webhook_at| {
            lag(before, &Generation { webhook_at, ..before.clone() }).map(|lag| lag.as_secs())
        };
        assert_eq!(lag(&known(Source::Check, 0, None), Some(came)), Some(40));
        assert_eq!(lag(&known(Source::Check, 0, None), None), None, "none has come");
        assert_eq!(lag(&known(Source::Check, 0, Some(at)), Some(came)), None, "it is not the first");
        assert_eq!(lag(&known(Source::Check, 1, None), Some(came)), None, "one had come and said something else");
        assert_eq!(lag(&known(Source::Webhook, 0, None), Some(came)), None, "no read found it");
        assert_eq!(lag(&running("kling_o3"), Some(came)), None, "it was not known");
    }

    /// Settles one by a read so many seconds after its purchase, where no webhooks come.
    fn read_at(experience: &mut Experience, seconds: u64, running_streak: u32) -> Lesson {
        let mut generation = running("kling_o3");
        generation.watch.running_streak = running_streak;
        let (rules, now) = (reading(), BOUGHT + Duration::from_secs(seconds));
        let decision = rules.decide(&generation, &Fact::Answer(Answer::Known(done())), experience, now);
        assert!(!decision.generation.state.learned().unwrap().recovered, "nothing was lost");
        experience.learn(&rules, &generation, &decision, now)
    }

    #[test]
    fn where_no_webhook_is_expected_none_is_missed() {
        let mut experience = Experience::default();
        let lesson = read_at(&mut experience, 150, 0);
        assert_eq!((lesson.trust, experience.trusts.len()), (None, 0));
        assert!(lesson.pace.is_some());
        // One that comes all the same counts for nothing either.
        let generation = running("kling_o3");
        let rules = reading();
        let settled = rules.decide(&generation, &Fact::Answer(Answer::Known(done())), &experience, BOUGHT).generation;
        let late = rules.decide(&settled, &webhook(&settled), &experience, BOUGHT + Duration::from_mins(1));
        assert_eq!(experience.learn(&rules, &settled, &late, BOUGHT), Lesson::default());
    }

    #[test]
    fn the_first_read_goes_where_half_of_the_outcomes_are_there() {
        let mut experience = Experience::default();
        let median_s = |experience: &Experience| experience.median(&reading(), &running("kling_o3")).as_secs();
        assert_eq!(median_s(&experience), 150, "the middle of the table");
        (0..49).for_each(|_| drop(read_at(&mut experience, 170, 2)));
        assert_eq!(median_s(&experience), 150, "too few to tell");
        read_at(&mut experience, 170, 2);
        assert_eq!(median_s(&experience), 170);
        // All of them are there at once: they take less, and the first read moves towards them, however early that is.
        let moved = |experience: &mut Experience| {
            (0..200).for_each(|_| drop(read_at(experience, 170, 0)));
            median_s(experience)
        };
        assert!((60..=135).contains(&moved(&mut experience)), "{}", median_s(&experience));
        for _ in 0..5 {
            moved(&mut experience);
        }
        assert_eq!(median_s(&experience), 60, "half of the shortest at the earliest");
    }

    #[test]
    fn what_reads_teach_stays_near_the_truth() {
        let (mut experience, mut chance) = (Experience::default(), fastrand::Rng::with_seed(7));
        let (mut behind, mut reads, mut medians) = (Vec::new(), 0, Vec::new());
        let count = 5_000;
        for _ in 0..count {
            let takes = chance.u64(120..180);
            let mut at = experience.median(&reading(), &running("kling_o3")).as_secs();
            let mut streak = 0;
            medians.push(at);
            while at < takes {
                (at, streak) = (at + chance.u64(10..=15), streak + 1);
            }
            read_at(&mut experience, at, streak);
            behind.push(at - takes);
            reads += streak + 1;
        }
        behind.sort_unstable();
        medians.sort_unstable();
        assert!((120..=175).contains(&medians[0]) && medians[count - 1] <= 175, "{medians:?}");
        assert!(behind[count / 2] <= 12 && behind[count * 95 / 100] <= 35, "{behind:?}");
        assert!(reads <= 10_500, "{reads} reads of {count}");
    }

    #[test]
    fn a_queue_of_reads_never_makes_the_next_one_wait_past_the_expected_time() {
        let mut experience = Experience::default();
        (0..200).for_each(|n| drop(read_at(&mut experience, 900, n % 2)));
        assert!(experience.median(&reading(), &running("kling_o3")) <= Duration::from_mins(3));
    }

    fn asked(family: &'static Family, model: Option<&str>, seconds: Option<u32>) -> Generation {
        let request = Request { model: model.map(str::to_owned), duration_seconds: seconds, prompt: None };
        Generation { family, request, ..running("kling_o3") }
    }

    #[test]
    fn every_model_and_length_of_the_table_learns() {
        let rules = rules(Confirm::Untrusted);
        let mut learned = 0;
        for family in FAMILIES {
            for model in family.models {
                let lengths = model.offers.iter().map(|offer| Some(offer.seconds));
                for seconds in lengths.chain([None]) {
                    let generation = asked(family, Some(model.name), seconds);
                    let mut experience = Experience::default();
                    let (now, table) = (BOUGHT + Duration::from_secs(1), experience.expected(&rules, &generation));
                    for _ in 0..50 {
                        let decision = rules.decide(&generation, &webhook(&generation), &experience, now);
                        experience.learn(&rules, &generation, &decision, now);
                    }
                    let expected = experience.expected(&rules, &generation).to;
                    assert_eq!(expected, table.to / 2, "{} {} {seconds:?}", family.path, model.name);
                    learned += 1;
                }
            }
        }
        assert!(learned > 80, "{learned}");
    }

    #[test]
    fn a_family_of_one_model_learns_without_its_name() {
        let rules = rules(Confirm::Untrusted);
        let kind = |path: &str, seconds| {
            let kind = Kind::of(&rules, &asked(Family::of(path).unwrap(), None, seconds));
            (kind.model, kind.duration_seconds)
        };
        assert_eq!(kind("kling/o1-video", Some(5)), ("kling_o1_video".to_owned(), 5));
        assert_eq!(kind("kling/o3-photo", None), ("kling_o3_photo".to_owned(), 0));
        assert_eq!(kind("sora", None), ("sora".to_owned(), 0));
        assert_eq!(kind("kling/o3-video", Some(5)), ("kling/o3-video".to_owned(), 5), "one of two");
    }

    #[test]
    fn made_up_names_learn_under_the_familys_and_their_number_is_bounded() {
        let (mut experience, rules) = (Experience::default(), rules(Confirm::Untrusted));
        for n in 0..5_000 {
            let generation = asked(&FAMILIES[0], Some(&format!("a name of my own {n}")), Some(n));
            let lesson = learn(&mut experience, &generation, &webhook(&generation), Duration::from_secs(140));
            assert_eq!(lesson.pace.map(|kind| kind.model), Some(FAMILIES[0].path.to_owned()));
        }
        assert_eq!(experience.paces.len(), 61, "one for each length up to a minute, and one for all others");
        let motion = asked(&FAMILIES[1], Some("kling_3_motion"), Some(5));
        assert_eq!(Kind::of(&rules, &motion).duration_seconds, 0, "its length is the reference video's");
    }

    #[test]
    fn a_webhook_behind_the_read_counts_as_late() {
        let (mut experience, rules) = (Experience::default(), rules(Confirm::Untrusted));
        let generation = running("kling_o3");
        let found = Fact::Answer(Answer::Known(done()));
        learn(&mut experience, &generation, &found, Duration::from_mins(4));
        let settled =
            rules.decide(&generation, &found, &Experience::default(), BOUGHT + Duration::from_mins(4)).generation;
        assert_eq!(experience.trusts[FAMILIES[0].path].missed, 1);
        learn(&mut experience, &settled, &webhook(&settled), Duration::from_mins(5));
        let trust = &experience.trusts[FAMILIES[0].path];
        assert_eq!((trust.missed, trust.late, trust.lag(50)), (0, 1, Some(Duration::from_mins(1))));
    }
}
