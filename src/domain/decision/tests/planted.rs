//! What is planted must show: a proof that plants a fault and changes nothing would prove nothing.

use super::*;
use crate::planted::{Fault, plant};

/// What is decided with a fault planted.
fn with(fault: Fault, generation: &Generation, fact: &Fact, seconds: u64) -> Decision {
    plant(Some(fault));
    let now = T0 + Duration::from_secs(seconds);
    let decision = rules(Confirm::Untrusted).decide(generation, fact, &Experience::default(), now);
    plant(None);
    decision
}

fn pending() -> Generation {
    after(&rules(Confirm::Untrusted), &submitting(), &[answer_of_sale("p-1")]).generation
}

fn done() -> Generation {
    let pending = pending();
    let told = webhook(&pending, "p-1", Word::Outcome(completed("u")));
    after(&rules(Confirm::Untrusted), &pending, &[told]).generation
}

#[test]
fn a_repeated_webhook_is_told_again() {
    let done = done();
    let told = webhook(&done, "p-1", Word::Outcome(completed("u")));
    assert_eq!(with(Fault::EventForDuplicate, &done, &told, 9).events, [EventKind::Updated]);
    let found = after(&rules(Confirm::Untrusted), &pending(), &[answer(Word::Outcome(completed("u")))]).generation;
    assert_eq!(with(Fault::EventForDuplicate, &found, &told, 9).events, [], "that one is the first");
}

#[test]
fn a_number_is_left_out_with_attention_alone() {
    let pending = pending();
    let told = |decision: Decision| (decision.events.len(), decision.generation.events - pending.events);
    let unlinked = webhook(&pending, "p-1", Word::CompletedWithoutResult);
    assert_eq!(told(with(Fault::SequenceGap, &pending, &unlinked, 9)), (1, 2));
    let done = webhook(&pending, "p-1", Word::Outcome(completed("u")));
    assert_eq!(told(with(Fault::SequenceGap, &pending, &done, 9)), (1, 1));
}

#[test]
fn a_status_answer_reopens_what_is_settled() {
    let reopened = with(Fault::Reopened, &done(), &answer(Word::Processing), 9).generation;
    assert_eq!(reopened.state, State::Processing);
}

#[test]
fn a_contradicting_webhook_overwrites() {
    let done = done();
    let told = webhook(&done, "p-1", Word::Outcome(failed(Some("TIMEOUT"))));
    let decision = with(Fault::Overwritten, &done, &told, 9);
    assert_eq!((decision.disposition, decision.settled), (Some(Disposition::Accepted), true));
    assert_eq!(decision.generation.state.status(), Status::Failed);
    let unlinked = webhook(&done, "p-1", Word::CompletedWithoutResult);
    assert!(!with(Fault::Overwritten, &done, &unlinked, 9).settled, "no outcome is told");
}

#[test]
fn time_alone_fails_what_is_stuck_and_nothing_else() {
    let status = |attention| {
        let generation = Generation { attention, ..pending() };
        with(Fault::FailedByTime, &generation, &Fact::TimePassed, 9).generation.state.status()
    };
    assert_eq!(status(Some(Attention::Stuck)), Status::Failed);
    assert_eq!([status(Some(Attention::Overdue)), status(None)], [Status::Pending; 2]);
}

#[test]
fn one_is_given_up_that_nobody_asked_about() {
    let lost = with(Fault::LostUnasked, &pending(), &Fact::TimePassed, 86_400).generation;
    assert_eq!(lost.state.status(), Status::Lost);
}

#[test]
fn an_id_that_is_not_found_has_failed() {
    let not_found = Fact::Answer(Answer::NotFound);
    let failed = with(Fault::NotFoundIsFailed, &pending(), &not_found, 300).generation;
    assert_eq!(failed.state.status(), Status::Failed);
}

#[test]
fn a_word_nobody_knows_has_failed() {
    let pending = pending();
    let told = webhook(&pending, "p-1", Word::Unknown("paused".to_owned()));
    assert_eq!(with(Fault::UnknownIsFailed, &pending, &told, 9).generation.state.status(), Status::Failed);
}

#[test]
fn nobody_looks_for_a_month_after_still_running() {
    let check_at = |word| with(Fault::SleepsForEver, &pending(), &answer(word), 700).generation.watch.check_at.unwrap();
    assert_eq!(check_at(Word::Processing), T0 + Duration::from_secs(700) + Duration::from_hours(720));
    let unasked = with(Fault::SleepsForEver, &pending(), &Fact::TimePassed, 9).generation;
    assert_eq!(unasked.watch.check_at, pending().watch.check_at, "it was not asked yet");
}
