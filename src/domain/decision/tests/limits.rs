//! Settings and histories that the table does not walk: what is confirmed, what is learned of, where a limit is moved.

use super::*;
use crate::domain::pace::Pace;

/// A price and a model that it knows of, so that nothing but what a test tells is new.
fn sold(rules: &Rules) -> Generation {
    let request = Request { model: Some("kling_o3".to_owned()), duration_seconds: Some(5), prompt: None };
    after(rules, &Generation { request, ..submitting() }, &[answer_of_sale("p-1")]).generation
}

#[test]
fn every_answer_has_its_word() {
    let pause = Duration::from_secs(1);
    let known = Answer::Known(notice("p-1", Word::Pending));
    let words = [known, Answer::NotFound, Answer::Paused { pause }, Answer::Nothing].map(|answer| answer.word());
    assert_eq!(words, ["known", "not_found", "paused", "nothing"]);
}

#[test]
fn which_webhooks_are_asked_about_is_as_the_user_says() {
    let (believed, asked) = (Status::Completed, Status::Pending);
    for (confirm, own, standing, signed) in [
        (Confirm::Never, believed, believed, [believed, believed]),
        (Confirm::Untrusted, believed, asked, [believed, believed]),
        (Confirm::Always, asked, asked, [asked, asked]),
    ] {
        let rules = rules(confirm);
        let sold = sold(&rules);
        let told = |reference, signed| {
            let notice = notice("p-1", Word::Outcome(completed("u")));
            let fact = Fact::Webhook { reference, signed, notice };
            let next = rules.decide(&sold, &fact, &Experience::default(), T0).generation;
            assert_eq!(next.claim.is_some(), next.state.status() == Status::Pending);
            next.state.status()
        };
        let minted = Reference::Generation(sold.id);
        assert_eq!((told(minted, false), told(Reference::Standing, false)), (own, standing), "{confirm:?}");
        assert_eq!([told(minted, true), told(Reference::Standing, true)], signed, "{confirm:?}");
    }
}

#[test]
fn a_failure_after_a_completion_without_a_link_is_asked_about_whatever_the_user_says() {
    let rules = rules(Confirm::Never);
    let sold = sold(&rules);
    for (first, second, status) in [
        (Word::CompletedWithoutResult, Word::Outcome(failed(None)), Status::Processing),
        (Word::CompletedWithoutResult, Word::Outcome(completed("u")), Status::Completed),
        (Word::Processing, Word::Outcome(failed(None)), Status::Failed),
    ] {
        let facts = [webhook(&sold, "p-1", first), webhook(&sold, "p-1", second)];
        assert_eq!(after(&rules, &sold, &facts).generation.state.status(), status);
    }
}

#[test]
fn the_expected_time_is_looked_up_anew_only_when_what_it_rests_on_is_new() {
    let rules = rules(Confirm::Untrusted);
    let sold = Generation { expected_by: Some(T0), ..sold(&rules) };
    let seconds = |generation: &Generation, details: Details| {
        let fact = Fact::Details(details);
        let told = rules.decide(generation, &fact, &Experience::default(), T0).generation;
        told.expected_by.unwrap().since(told.began_at()).as_secs()
    };
    let unknown = Generation { submitted_at: None, request: Request::default(), ..sold.clone() };
    let request = |model: Option<&str>, duration_seconds| Details {
        request: Request { model: model.map(str::to_owned), duration_seconds, prompt: None },
        ..Details::default()
    };
    assert_eq!(seconds(&sold, request(Some("kling_o3"), Some(5))), 0, "nothing is new");
    assert_eq!(seconds(&unknown, request(None, None)), 0);
    assert_eq!(seconds(&unknown, request(Some("kling_o3"), None)), 630);
    assert_eq!(seconds(&unknown, request(None, Some(5))), 630);
    let earlier = Some(T0 - Duration::from_mins(1));
    assert_eq!(seconds(&unknown, Details { submitted_at: earlier, ..Details::default() }), 630);
    assert_eq!(seconds(&Generation { expected_by: None, ..sold }, Details::default()), 180);
}

#[test]
fn what_was_learned_of_a_kind_is_when_the_next_of_it_is_expected() {
    let rules = rules(Confirm::Untrusted);
    let sold = Generation { expected_by: None, ..sold(&rules) };
    let mut experience = Experience::default();
    let kind = crate::domain::experience::Kind::of(&rules, &sold);
    experience.paces.insert(kind, Pace::stored(60, [100_000; 60]));
    let next = rules.decide(&sold, &Fact::TimePassed, &experience, T0).generation;
    assert_eq!(next.expected_by, Some(T0 + Duration::from_secs(100)));
}

#[test]
fn a_first_read_that_is_hours_away_is_not_taken_for_a_jump_of_the_clock() {
    let hours = Duration::from_hours;
    let patient = Rules { grace: hours(5), ..rules(Confirm::Untrusted) };
    let sold = sold(&patient);
    assert_eq!(sold.watch.check_at, Some(T0 + hours(5) + Duration::from_mins(3)));
    let pausing = Rules { not_found_recheck: hours(5), ..rules(Confirm::Untrusted) };
    let not_found = pausing.decide(&sold, &Fact::Answer(Answer::NotFound), &Experience::default(), T0).generation;
    assert_eq!(not_found.watch.check_at, Some(T0 + hours(5)));
    let jumped = Generation { watch: Watch { check_at: Some(T0 + hours(99)), ..Watch::default() }, ..sold };
    let next = patient.decide(&jumped, &Fact::TimePassed, &Experience::default(), T0).generation;
    assert_eq!(next.watch.check_at, Some(T0 + hours(5) + Duration::from_mins(3)), "the longest it can be");
}

#[test]
fn the_first_read_moves_with_what_is_told_before_it_and_not_after() {
    let rules = rules(Confirm::Untrusted);
    let unknown = after(&rules, &submitting(), &[answer_of_sale("p-1")]).generation;
    assert_eq!(unknown.watch.check_at, Some(T0 + Duration::from_mins(11)));
    let request = Request { model: Some("kling_o3".to_owned()), duration_seconds: Some(5), prompt: None };
    let details = Fact::Details(Details { request, ..Details::default() });
    let ask_s = |generation: &Generation, now_s: u64| {
        let now = T0 + Duration::from_secs(now_s);
        let next = rules.decide(generation, &details, &Experience::default(), now).generation;
        next.watch.check_at.map(|at| at.since(T0).as_secs())
    };
    assert_eq!(ask_s(&unknown, 1), Some(210));
    assert_eq!(ask_s(&unknown, 300), Some(300), "that is over already");
    let asked = Generation { watch: Watch { checks: 1, ..unknown.watch.clone() }, ..unknown.clone() };
    assert_eq!(ask_s(&asked, 1), Some(660));
    let claimed = Generation { claim: Some(completed("u")), ..unknown.clone() };
    assert_eq!(ask_s(&claimed, 1), Some(660));
    // Due now it stays due.
    for (now_s, at_s) in [(100, 100), (100, 99)] {
        let check_at = Some(T0 + Duration::from_secs(at_s));
        let due = Generation { watch: Watch { check_at, ..unknown.watch.clone() }, ..unknown.clone() };
        assert_eq!(ask_s(&due, now_s), Some(at_s));
    }
    let lost = State::Lost { at: T0 };
    assert_eq!(ask_s(&Generation { state: lost, ..unknown }, 1), Some(660), "only of a running one");
}

#[test]
fn whoever_is_told_of_a_refused_purchase_has_a_conflict() {
    let rules = rules(Confirm::Untrusted);
    let refused = Fact::Submission(Submission::Refused(Failure { code: None, text: None }));
    let refused = after(&rules, &submitting(), &[refused]).generation;
    assert_eq!(refused.state.status(), Status::Rejected);
    for word in [Word::Pending, Word::Processing, Word::Unknown("queued".to_owned()), Word::CompletedWithoutResult] {
        let told = after(&rules, &refused, &[webhook(&refused, "p-1", word)]).generation;
        let seen = (told.state.status(), told.attention, told.watch.check_at);
        assert_eq!(seen, (Status::Rejected, Some(Attention::Conflict), Some(T0)));
    }
}

#[test]
fn the_same_contradiction_again_is_a_duplicate_and_what_it_adds_is_kept() {
    let rules = rules(Confirm::Untrusted);
    let generation = new();
    let tell = |code| webhook(&generation, "p-1", Word::Outcome(failed(code)));
    let facts = [webhook(&generation, "p-1", Word::Outcome(completed("u"))), tell(Some("TIMEOUT"))];
    let conflict = after(&rules, &generation, &facts).generation;
    let asked = Generation { watch: Watch { check_at: None, ..conflict.watch }, ..conflict };
    for code in [Some("TIMEOUT"), None] {
        let again = after(&rules, &asked, &[tell(code)]);
        assert_eq!(again.disposition, Some(Disposition::Duplicate));
        assert_eq!((again.generation.watch.check_at, again.generation.claim), (None, Some(failed(Some("TIMEOUT")))));
    }
    let other = after(&rules, &asked, &[tell(Some("TASK_FAILED"))]);
    assert_eq!((other.disposition, other.generation.watch.check_at), (Some(Disposition::Conflict), Some(T0)));
}
