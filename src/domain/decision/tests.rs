//! The state machine: what no sequence of facts may do, and the transitions that HTTP tests cannot reach.

mod limits;
mod planted;
mod situations;
mod table;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::credits::CreditState;
use crate::domain::experience::Experience;
use crate::domain::family::FAMILIES;
use crate::domain::generation::{Request, Status, Via};
use crate::domain::id::GenerationId;
use crate::domain::notice::Word;
use crate::domain::schedule::{Confirm, ExpectedTimes, Webhooks};

const T0: Time = Time::from_ms(1_795_428_000_000);

pub(in crate::domain) fn rules(confirm: Confirm) -> Rules {
    let seconds = Duration::from_secs;
    Rules {
        webhooks: Webhooks::Expected,
        confirm,
        grace: seconds(30),
        webhook_retry_window: seconds(150),
        hard_limit: seconds(900),
        refund_window: seconds(300),
        recheck: [15, 30, 60].map(seconds).to_vec(),
        stuck_recheck: [300, 3_600].map(seconds).to_vec(),
        not_found_recheck: seconds(60),
        give_up_after: seconds(86_400),
        expected: ExpectedTimes::default(),
    }
}

/// The same where there is no public address.
pub(in crate::domain) fn reading() -> Rules {
    Rules { webhooks: Webhooks::NotExpected, ..rules(Confirm::Untrusted) }
}

fn new() -> Generation {
    Generation::new(GenerationId::fresh(T0), &FAMILIES[0], Via::Gateway, T0)
}

fn submitting() -> Generation {
    Generation { state: State::Submitting, submitted_at: Some(T0), ..new() }
}

fn id(text: &str) -> ProviderId {
    ProviderId::parse(text).unwrap()
}

fn completed(url: &str) -> Outcome {
    Outcome::Completed { result_url: url.to_owned() }
}

fn failed(code: Option<&str>) -> Outcome {
    Outcome::Failed(Failure { code: code.map(str::to_owned), text: None })
}

fn notice(provider_id: &str, word: Word) -> Notice {
    Notice { provider_id: id(provider_id), word }
}

fn webhook(generation: &Generation, provider_id: &str, word: Word) -> Fact {
    Fact::Webhook { reference: Reference::Generation(generation.id), signed: false, notice: notice(provider_id, word) }
}

fn answer(word: Word) -> Fact {
    Fact::Answer(Answer::Known(notice("p-1", word)))
}

/// Decides one fact after the other, a second apart; gives the last decision.
fn after(rules: &Rules, generation: &Generation, facts: &[Fact]) -> Decision {
    let (first, rest) = facts.split_first().unwrap();
    let mut decision = rules.decide(generation, first, &Experience::default(), T0);
    for (n, fact) in (1..).zip(rest) {
        decision = rules.decide(&decision.generation, fact, &Experience::default(), T0 + Duration::from_secs(n));
    }
    decision
}

#[test]
fn a_purchase_goes_where_its_answer_says() {
    let rules = rules(Confirm::Untrusted);
    let accepted = Submission::Accepted { provider_id: id("p-1"), price: Some(Usd::from_micros(150_000)) };
    let refused = Submission::Refused(Failure { code: Some("INVALID_MODEL".to_owned()), text: None });
    for (submission, status, attention, credits) in [
        (accepted, Status::Pending, None, CreditState::Charged),
        (refused, Status::Rejected, None, CreditState::NotCharged),
        (Submission::Unclear, Status::Unconfirmed, Some(Attention::Unconfirmed), CreditState::AtRisk),
    ] {
        let decided = rules.decide(&submitting(), &Fact::Submission(submission), &Experience::default(), T0).generation;
        assert_eq!((decided.state.status(), decided.attention), (status, attention));
        assert_eq!(CreditState::of(&decided, T0, rules.refund_window), credits);
        assert_eq!(decided.next_look_at().is_some(), decided.state.settled_at().is_none());
    }
}

#[test]
fn an_unconfirmed_purchase_is_healed_by_the_webhook_of_its_token() {
    let rules = rules(Confirm::Untrusted);
    let unclear = Fact::Submission(Submission::Unclear);
    let generation = submitting();
    let told = webhook(&generation, "p-1", Word::Outcome(completed("u")));
    let healed = after(&rules, &generation, &[unclear, told]);
    assert_eq!(healed.generation.state.status(), Status::Completed);
    assert_eq!(healed.generation.attention, None);
    assert_eq!(healed.generation.provider_id, Some(id("p-1")));
}

#[test]
fn an_unconfirmed_purchase_that_stays_silent_ends_as_lost_and_at_risk() {
    let rules = rules(Confirm::Untrusted);
    let unclear =
        rules.decide(&submitting(), &Fact::Submission(Submission::Unclear), &Experience::default(), T0).generation;
    let turn = unclear.watch.turn_at.unwrap();
    assert_eq!(turn, T0 + rules.give_up_after);
    let before =
        rules.decide(&unclear, &Fact::TimePassed, &Experience::default(), turn - Duration::from_millis(1)).generation;
    assert_eq!(before.state.status(), Status::Unconfirmed);
    let lost = rules.decide(&unclear, &Fact::TimePassed, &Experience::default(), turn).generation;
    assert_eq!((lost.state.status(), lost.attention), (Status::Lost, Some(Attention::Lost)));
    assert_eq!(CreditState::of(&lost, turn, rules.refund_window), CreditState::AtRisk);
    let refunded = rules.decide(&lost, &Fact::RefundConfirmed, &Experience::default(), turn).generation;
    assert_eq!(CreditState::of(&refunded, turn, rules.refund_window), CreditState::Refunded);
}

#[test]
fn a_webhook_may_come_before_the_answer_to_the_purchase() {
    let rules = rules(Confirm::Untrusted);
    let generation = submitting();
    let told = webhook(&generation, "p-1", Word::Outcome(completed("u")));
    let accepted = |provider_id: &str| {
        let price = Some(Usd::from_micros(150_000));
        Fact::Submission(Submission::Accepted { provider_id: id(provider_id), price })
    };
    let agreed = after(&rules, &generation, &[told.clone(), accepted("p-1")]).generation;
    assert_eq!((agreed.state.status(), agreed.attention), (Status::Completed, None));
    assert_eq!(agreed.price, Some(Usd::from_micros(150_000)));
    let disagreed = after(&rules, &generation, &[told, accepted("p-2")]).generation;
    assert_eq!((disagreed.state.status(), disagreed.attention), (Status::Completed, Some(Attention::Conflict)));
    assert_eq!(disagreed.provider_id, Some(id("p-1")));
}

#[test]
fn what_was_never_asked_about_is_not_given_up() {
    let rules = rules(Confirm::Untrusted);
    let accepted = Submission::Accepted { provider_id: id("p-1"), price: None };
    let pending = rules.decide(&submitting(), &Fact::Submission(accepted), &Experience::default(), T0).generation;
    let late = T0 + rules.give_up_after * 2;
    let waiting = rules.decide(&pending, &Fact::TimePassed, &Experience::default(), late).generation;
    assert_eq!((waiting.state.status(), waiting.attention), (Status::Pending, Some(Attention::Stuck)));
    assert_eq!(waiting.watch.turn_at, None, "its next read is what it waits for");
    assert!(waiting.watch.check_at.is_some());
    // Nor after one read: a clock that jumped ahead by years would make it look a day old. After three it is, as long as they
    // span the time that a generation can take.
    let mut asked = waiting;
    for answers in 0..=GIVE_UP_ANSWERS {
        let now = late + rules.hard_limit / 2 * answers;
        let status = rules.decide(&asked, &Fact::TimePassed, &Experience::default(), now).generation.state.status();
        assert_eq!(status == Status::Lost, answers == GIVE_UP_ANSWERS, "{answers}");
        for seconds in [0, 1, 60] {
            let now = now + Duration::from_secs(seconds);
            asked = rules.decide(&asked, &answer(Word::Processing), &Experience::default(), now).generation;
        }
    }
}

#[test]
fn what_is_learned_of_a_running_one_moves_when_it_is_expected() {
    let rules = rules(Confirm::Untrusted);
    let accepted = Submission::Accepted { provider_id: id("p-1"), price: None };
    let pending = rules.decide(&submitting(), &Fact::Submission(accepted), &Experience::default(), T0).generation;
    let told = |generation: &Generation, request: Request| {
        let details = Fact::Details(Details { request, ..Details::default() });
        let told = rules.decide(generation, &details, &Experience::default(), T0).generation;
        let expected_s = told.expected_by.unwrap().since(T0).as_secs();
        (told, expected_s)
    };
    let model = Request { model: Some("kling_o3_pro".to_owned()), ..Request::default() };
    let (with_model, expected_s) = told(&pending, model.clone());
    assert_eq!(expected_s, 630, "the slowest of its model");
    let (with_both, expected_s) = told(&with_model, Request { duration_seconds: Some(5), ..Request::default() });
    assert_eq!(expected_s, 270);
    assert_eq!(told(&with_both, model).1, 270);
    let moved = Generation { expected_by: Some(T0), ..with_both };
    assert_eq!(told(&moved, Request { prompt: Some("a boat".to_owned()), ..Request::default() }).1, 0, "nothing new");
}

#[test]
fn pending_becomes_processing_and_never_the_other_way() {
    let rules = rules(Confirm::Untrusted);
    let accepted = Fact::Submission(Submission::Accepted { provider_id: id("p-1"), price: None });
    for (words, status) in [
        (&[Word::Pending][..], Status::Pending),
        (&[Word::Processing], Status::Processing),
        (&[Word::Processing, Word::Pending], Status::Processing),
    ] {
        let facts: Vec<_> = std::iter::once(accepted.clone()).chain(words.iter().cloned().map(answer)).collect();
        assert_eq!(after(&rules, &submitting(), &facts).generation.state.status(), status, "{words:?}");
    }
}

#[test]
fn what_is_settled_keeps_count_of_what_came_before() {
    let rules = rules(Confirm::Untrusted);
    let accepted = Submission::Accepted { provider_id: id("p-1"), price: None };
    let pending = rules.decide(&submitting(), &Fact::Submission(accepted), &Experience::default(), T0).generation;
    let asked = Generation { watch: Watch { checks: 3, ..pending.watch.clone() }, events: 4, ..pending };
    let told = webhook(&asked, "p-1", Word::Outcome(completed("u")));
    let settled = rules.decide(&asked, &told, &Experience::default(), T0).generation;
    assert_eq!(settled.watch, Watch { checks: 3, ..Watch::default() });
    assert_eq!(settled.events, 5);
}

#[test]
fn a_completion_that_the_provider_takes_back_is_a_correction() {
    let rules = rules(Confirm::Untrusted);
    let generation = new();
    let told = webhook(&generation, "p-1", Word::Outcome(completed("u")));
    let corrected = after(&rules, &generation, &[told, answer(Word::Outcome(failed(Some("TIMEOUT"))))]);
    assert_eq!(corrected.events, [EventKind::Corrected]);
    assert_eq!(corrected.generation.state.status(), Status::Failed);
    assert_eq!(corrected.generation.outcomes, 2);
}

#[test]
fn a_settled_generation_in_conflict_is_not_asked_about_for_ever() {
    let rules = rules(Confirm::Untrusted);
    let generation = new();
    let facts = [
        webhook(&generation, "p-1", Word::Outcome(completed("u"))),
        webhook(&generation, "p-1", Word::Outcome(failed(Some("TIMEOUT")))),
    ];
    let mut conflict = after(&rules, &generation, &facts).generation;
    assert!(conflict.watch.check_at.is_some());
    let mut now = T0;
    for _ in 0..100_000 {
        let Some(at) = conflict.watch.check_at else { break };
        now = at;
        conflict = rules.decide(&conflict, &answer(Word::Processing), &Experience::default(), now).generation;
    }
    assert!(conflict.watch.check_at.is_none() && now >= T0 + rules.give_up_after);
    assert_eq!((conflict.state.status(), conflict.attention), (Status::Completed, Some(Attention::Conflict)));
}

#[test]
fn a_persons_early_check_does_not_start_a_chase() {
    let rules = rules(Confirm::Untrusted);
    let accepted = Submission::Accepted { provider_id: id("p-1"), price: None };
    let early = after(&rules, &submitting(), &[Fact::Submission(accepted), answer(Word::Pending)]).generation;
    assert_eq!(early.watch.check_at, Some(T0 + Duration::from_mins(11)));
}

#[test]
fn the_familys_own_shorter_limit_applies() {
    let rules = rules(Confirm::Untrusted);
    let veo = crate::domain::family::Family::of("veo").unwrap();
    let generation = Generation { family: veo, state: State::Pending, provider_id: Some(id("p-1")), ..submitting() };
    let stuck_at = T0 + Duration::from_secs(600 + 150);
    let at = |now| rules.decide(&generation, &Fact::TimePassed, &Experience::default(), now).generation.attention;
    assert_ne!(at(stuck_at - Duration::from_millis(1)), Some(Attention::Stuck));
    assert_eq!(at(stuck_at), Some(Attention::Stuck));
}

#[test]
fn a_refusal_that_comes_after_time_gave_the_answer_up_is_believed() {
    let rules = rules(Confirm::Untrusted);
    let late =
        rules.decide(&submitting(), &Fact::TimePassed, &Experience::default(), T0 + Duration::from_mins(30)).generation;
    assert_eq!((late.state.status(), late.attention), (Status::Unconfirmed, Some(Attention::Unconfirmed)));
    let refused = Fact::Submission(Submission::Refused(Failure::default()));
    let refused = rules.decide(&late, &refused, &Experience::default(), T0 + Duration::from_mins(31)).generation;
    assert_eq!((refused.state.status(), refused.attention), (Status::Rejected, None));
}

#[test]
fn every_fact_a_diagnosis_cites_is_there_and_every_state_has_one() {
    let rules = rules(Confirm::Untrusted);
    let running = after(&rules, &submitting(), &[answer_of_sale("p-1")]).generation;
    let failure = Failure { code: Some("IMAGE_INACCESSIBLE".to_owned()), text: None };
    let histories = [
        (new(), vec![]),
        (submitting(), vec![]),
        (submitting(), vec![Fact::Submission(Submission::Unclear)]),
        (submitting(), vec![Fact::Submission(Submission::Refused(failure.clone()))]),
        (running.clone(), vec![answer(Word::Processing)]),
        (running.clone(), vec![answer(Word::Outcome(completed("u")))]),
        (running.clone(), vec![answer(Word::Outcome(Outcome::Failed(failure)))]),
        (running.clone(), vec![answer(Word::Outcome(failed(None)))]),
        (running, vec![answer(Word::CompletedWithoutResult)]),
    ];
    for (start, facts) in histories {
        let generation =
            facts.iter().fold(start, |known, fact| rules.decide(&known, fact, &Experience::default(), T0).generation);
        let diagnosis = rules.diagnose(&generation, T0 + Duration::from_secs(45));
        assert!(!diagnosis.next_steps.is_empty() && !diagnosis.summary.is_empty());
        let cited = diagnosis.answers.iter().flat_map(|answer| &answer.facts);
        for fact in cited.clone().filter(|cited| matches!(cited.fact, "status" | "credits" | "deliveries" | "checks")) {
            assert!(!fact.value.is_null(), "{}", fact.fact);
        }
        assert!(diagnosis.answers.iter().all(|answer| !answer.facts.is_empty()));
        let has = |question| diagnosis.answers.iter().any(|answer| answer.question == question);
        assert!(has("Where is the money?"));
        assert_eq!(has("Why did it fail?"), generation.state.error().is_some());
        assert_eq!(has("Is it slow?"), generation.provider_id.is_some());
    }
}

fn answer_of_sale(provider_id: &str) -> Fact {
    Fact::Submission(Submission::Accepted { provider_id: id(provider_id), price: Some(Usd::from_micros(150_000)) })
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        prop_oneof![Just("u"), Just("v"), Just("u?sig=1")].prop_map(completed),
        prop_oneof![Just(None), Just(Some("TIMEOUT")), Just(Some("TASK_FAILED"))].prop_map(failed),
    ]
}

fn any_word() -> impl Strategy<Value = Word> {
    prop_oneof![
        Just(Word::Pending),
        Just(Word::Processing),
        Just(Word::CompletedWithoutResult),
        Just(Word::Unknown("paused".to_owned())),
        any_outcome().prop_map(Word::Outcome),
    ]
}

fn any_notice() -> impl Strategy<Value = Notice> {
    (prop_oneof![4 => Just("p-1"), 1 => Just("p-2")], any_word()).prop_map(|(id, word)| notice(id, word))
}

fn any_fact() -> impl Strategy<Value = Fact> {
    let minted = GenerationId::from_bytes(&[7; 16]).unwrap();
    let details =
        (any::<bool>(), proptest::option::of(0..9_i64), any::<bool>()).prop_map(|(bind, price, model)| Details {
            provider_id: bind.then(|| id("p-1")),
            price: price.map(Usd::from_micros),
            request: Request { model: model.then(|| "kling_o3".to_owned()), ..Request::default() },
            ..Details::default()
        });
    prop_oneof![
        3 => (any_notice(), any::<bool>()).prop_map(move |(notice, signed)| {
            Fact::Webhook { reference: Reference::Generation(minted), signed, notice }
        }),
        2 => (any_notice(), any::<bool>())
            .prop_map(|(notice, signed)| Fact::Webhook { reference: Reference::Standing, signed, notice }),
        1 => Just(Fact::UnreadableWebhook),
        1 => Just(Fact::ForeignWebhook),
        1 => Just(Fact::Doubted),
        2 => (0..60_u32).prop_map(|reads_used| {
            Fact::Polled(crate::domain::poll::Poll { read_ago: None, polled: 1, reads_used, reads_per_minute: 48 })
        }),
        4 => any_word().prop_map(answer),
        1 => Just(Fact::Answer(Answer::NotFound)),
        1 => Just(Fact::Answer(Answer::Nothing)),
        1 => Just(Fact::Answer(Answer::Paused { pause: Duration::from_secs(30) })),
        1 => Just(Fact::Intended(Details::default())),
        1 => Just(Fact::Submission(Submission::Unclear)),
        1 => Just(Fact::Submission(Submission::Foreign)),
        1 => Just(Fact::Submission(Submission::Refused(Failure::default()))),
        1 => Just(Fact::Submission(Submission::Accepted { provider_id: id("p-1"), price: None })),
        2 => details.prop_map(Fact::Details),
        1 => Just(Fact::RefundConfirmed),
        4 => Just(Fact::TimePassed),
    ]
}

fn any_rules() -> impl Strategy<Value = Rules> {
    prop_oneof![Just(Confirm::Never), Just(Confirm::Untrusted), Just(Confirm::Always)].prop_map(rules)
}

fn any_start() -> impl Strategy<Value = Generation> {
    let minted = GenerationId::from_bytes(&[7; 16]).unwrap();
    prop_oneof![Just(new()), Just(submitting())].prop_map(move |generation| Generation { id: minted, ..generation })
}

fn any_history() -> impl Strategy<Value = Vec<(Fact, u64)>> {
    let pause = prop_oneof![3 => 0..1_000_u64, 2 => 0..600_000_u64, 1 => 0..20_000_000_u64];
    proptest::collection::vec((any_fact(), pause), 1..40)
}

/// Whether the contract lets `fact` lead from one status to the other.
fn allowed(before: &Generation, fact: &Fact, after: &Generation) -> bool {
    use Status::{Completed, Failed, Lost, Pending, Prepared, Processing, Rejected, Submitting, Unconfirmed};
    let (from, to) = (before.state.status(), after.state.status());
    let answered = matches!(fact, Fact::Answer(Answer::Known(Notice { word: Word::Outcome(_), .. })));
    let told = matches!(fact, Fact::Webhook { notice: Notice { word: Word::Outcome(_), .. }, .. });
    match (from, to) {
        (from, to) if from == to => true,
        // A final state never goes back, except lost; a contradiction is settled by the provider's own answer.
        (Completed, Failed) | (Failed, Completed) | (Rejected, Completed | Failed) => answered,
        (Lost, Completed | Failed) => answered || told,
        // Given up for want of an id, which has come.
        (Lost, Pending | Processing) => before.provider_id.is_none() && after.provider_id.is_some(),
        // Only time gives up, and only what was open.
        (Completed | Failed | Rejected | Lost, _) | (Prepared, Lost) => false,
        // Only the provider's word makes an outcome.
        (_, Completed | Failed) => answered || told,
        (_, Lost) => *fact == Fact::TimePassed,
        (Submitting | Unconfirmed, Rejected) => matches!(fact, Fact::Submission(Submission::Refused(_))),
        (Submitting, Unconfirmed) => matches!(fact, Fact::Submission(_) | Fact::TimePassed),
        (Prepared, Submitting) => matches!(fact, Fact::Intended(_)),
        (Prepared | Submitting | Unconfirmed, Pending | Processing) | (Pending, Processing) => true,
        _ => false,
    }
}

/// What holds of every generation at every time.
fn holds(rules: &Rules, generation: &Generation, now: Time) -> Result<(), TestCaseError> {
    let status = generation.state.status();
    let open = generation.state.settled_at().is_none() && status != Status::Prepared;
    prop_assert!(!open || generation.next_look_at().is_some(), "{:?} sleeps for ever", status);
    prop_assert!(generation.watch.check_at.is_none() || generation.provider_id.is_some());
    let provider_spoke = generation.state.is_running() || generation.state.outcome().is_some();
    prop_assert!(!provider_spoke || generation.provider_id.is_some());
    let at_risk = CreditState::of(generation, now, rules.refund_window) == CreditState::AtRisk;
    let settled = matches!(status, Status::Completed | Status::Failed | Status::Rejected | Status::Prepared);
    prop_assert!(!(at_risk && settled), "{:?} at risk", status);
    let unpaid = status == Status::Lost && generation.refunded_at.is_none();
    prop_assert!(unpaid || generation.attention != Some(Attention::Lost));
    // A webhook that contradicts calls for a person, too.
    prop_assert!(!unpaid || matches!(generation.attention, Some(Attention::Lost | Attention::Conflict)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_sequence_of_facts_leaves_a_final_state_but_as_the_contract_allows(
        rules in any_rules(), start in any_start(), history in any_history(),
    ) {
        let (mut generation, mut now) = (start, T0);
        for (fact, pause_ms) in history {
            now = now + Duration::from_millis(pause_ms);
            let decision = rules.decide(&generation, &fact, &Experience::default(), now);
            prop_assert!(
                allowed(&generation, &fact, &decision.generation),
                "{:?} -> {:?} by {:?}", generation.state, decision.generation.state, fact
            );
            prop_assert_eq!(&decision, &rules.decide(&generation, &fact, &Experience::default(), now), "deciding is deterministic");
            // A new outcome version is exactly one event about it.
            let told = decision.events.iter().filter(|kind| {
                matches!(kind, EventKind::Completed | EventKind::Failed | EventKind::Corrected)
            });
            prop_assert_eq!(told.count(), usize::from(decision.settled));
            prop_assert_eq!(decision.generation.outcomes - generation.outcomes, u32::from(decision.settled));
            prop_assert_eq!(decision.generation.events - generation.events, u32::try_from(decision.events.len()).unwrap());
            // Known facts stay.
            prop_assert!(generation.price.is_none() || generation.price == decision.generation.price);
            prop_assert!(generation.provider_id.is_none() || generation.provider_id == decision.generation.provider_id);
            holds(&rules, &decision.generation, now)?;
            generation = decision.generation;
        }
    }

    #[test]
    fn the_same_fact_again_tells_nothing_new(rules in any_rules(), start in any_start(), history in any_history(), fact in any_fact()) {
        let mut generation = start;
        for (fact, _) in history {
            generation = rules.decide(&generation, &fact, &Experience::default(), T0).generation;
        }
        if let Fact::Webhook { .. } = fact {
            let once = rules.decide(&generation, &fact, &Experience::default(), T0);
            let twice = rules.decide(&once.generation, &fact, &Experience::default(), T0);
            prop_assert!(!twice.settled);
            prop_assert!(twice.events.is_empty(), "{:?}", twice.events);
        }
    }
}
