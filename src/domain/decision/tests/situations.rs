//! The situations of the decision table: every state, and what is special about some of a state.

use super::table::{Situation, after_s};
use super::*;

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// Decides one fact at so many seconds.
fn next(generation: &Generation, seconds: u64, fact: &Fact) -> Generation {
    rules(Confirm::Untrusted).decide(generation, fact, &Experience::default(), after_s(seconds)).generation
}

fn prepared() -> Generation {
    Generation { id: GenerationId::from_bytes(&[7; 16]).unwrap(), ..new() }
}

/// On its way: five seconds in standard.
fn sent() -> Generation {
    let request = Request { model: Some("kling_o3".to_owned()), duration_seconds: Some(5), prompt: None };
    next(&prepared(), 0, &Fact::Intended(Details { request, ..Details::default() }))
}

fn running(state: State) -> Generation {
    let sold = Submission::Accepted { provider_id: id("p-1"), price: Some(Usd::from_micros(150_000)) };
    Generation { state, ..next(&sent(), 0, &Fact::Submission(sold)) }
}

fn asked(mut watch: Watch) -> Generation {
    let running = running(State::Processing);
    watch.check_at = watch.check_at.or(running.watch.check_at);
    watch.turn_at = watch.turn_at.or(running.watch.turn_at);
    Generation { watch, ..running }
}

fn told(generation: &Generation, seconds: u64, word: Word) -> Generation {
    next(generation, seconds, &webhook(generation, "p-1", word))
}

fn found(generation: &Generation, seconds: u64, word: Word) -> Generation {
    next(generation, seconds, &answer(word))
}

/// Told by a standing URL, and not yet confirmed.
fn claimed(outcome: Outcome) -> Generation {
    let notice = notice("p-1", Word::Outcome(outcome));
    next(&running(State::Processing), 50, &Fact::Webhook { reference: Reference::Standing, signed: false, notice })
}

fn one(name: &'static str, generation: Generation, seconds: u64) -> Situation {
    Situation { name, like: None, generation, seconds }
}

/// Of which only is told what differs from another.
fn like(like: &'static str, name: &'static str, generation: Generation, seconds: u64) -> Situation {
    Situation { like: Some(like), ..one(name, generation, seconds) }
}

/// Before the purchase and without an id.
fn unbought() -> Vec<Situation> {
    let unclear = next(&sent(), 30, &Fact::Submission(Submission::Unclear));
    let refused = Submission::Refused(Failure { code: Some("INVALID_MODEL".to_owned()), text: None });
    let rejected = next(&sent(), 2, &Fact::Submission(refused));
    let denied = told(&rejected, MINUTE, Word::Outcome(failed(None)));
    let lost = next(&unclear, DAY, &Fact::TimePassed);
    let seen = next(&lost, DAY + 1, &Fact::RefundConfirmed);
    let foreign = next(&sent(), 30, &Fact::Submission(Submission::Foreign));
    vec![
        one("prepared", prepared(), MINUTE),
        one("submitting", sent(), MINUTE),
        like("submitting", "unconfirmed", unclear, MINUTE),
        like("submitting", "unconfirmed in conflict", foreign, MINUTE),
        one("rejected", rejected, MINUTE),
        like("rejected", "rejected, and a webhook said it failed", denied, MINUTE),
        one("lost without an id", lost, DAY + HOUR),
        like("lost without an id", "lost without an id, and the credits were seen", seen, DAY + HOUR),
    ]
}

/// At the provider.
fn bought() -> Vec<Situation> {
    let pending = running(State::Pending);
    let overdue = next(&pending, 330, &Fact::TimePassed);
    let stuck = next(&overdue, 1_050, &Fact::TimePassed);
    let unlinked = told(&running(State::Processing), 50, Word::CompletedWithoutResult);
    let conflict = next(&running(State::Processing), 50, &Fact::ForeignWebhook);
    vec![
        one("pending", pending.clone(), MINUTE),
        like("pending", "pending, its shortest time over", pending.clone(), 120),
        like("pending", "pending, its first read due", pending, 210),
        like("pending, its first read due", "pending, overdue", overdue, 330),
        like("pending, overdue", "pending, stuck", stuck.clone(), 1_050),
        like("pending, stuck", "pending, stuck for an hour", stuck, 1_050 + HOUR),
        like("pending", "processing", running(State::Processing), MINUTE),
        like("processing", "processing without a link", unlinked, MINUTE),
        like("processing", "claimed to be completed", claimed(completed("u")), MINUTE),
        like("processing", "claimed to have failed", claimed(failed(None)), MINUTE),
        like("claimed to have failed", "claimed to have failed by TIMEOUT", claimed(failed(Some("TIMEOUT"))), MINUTE),
        like("processing", "processing in conflict", conflict, MINUTE),
    ]
}

/// Stuck for a day, with so many counted answers, the last of them at a time.
fn late(answers: u32, at: u64) -> Generation {
    let watch = Watch { running_streak: 4, late_answers: answers, late_at: Some(after_s(at)), ..Watch::default() };
    next(&asked(watch), DAY, &Fact::TimePassed)
}

/// Stuck for a day, and just now asked often enough.
fn exhausted() -> Generation {
    found(&late(8, DAY - 450), DAY, Word::Processing)
}

/// At the provider, and asked about before.
fn asked_before() -> Vec<Situation> {
    let gone =
        |streak, at| asked(Watch { not_found_streak: streak, not_found_at: Some(after_s(at)), ..Watch::default() });
    let twice = asked(Watch { checks: 2, running_streak: 2, ..Watch::default() });
    let silent = asked(Watch { checks: 5, error_streak: 5, ..Watch::default() });
    let not_found = Generation { attention: Some(Attention::NotFound), ..gone(3, 180) };
    let early = next(&late(8, DAY - 450), 1_049, &Fact::TimePassed);
    let (usual, known, lost) = ("processing, asked twice", "processing, not found a minute ago", "stuck for a day");
    vec![
        like("pending, its first read due", usual, twice, 240),
        like(usual, "processing, and five answers told nothing", silent, 240),
        like(usual, known, gone(1, 180), 240),
        like(known, "processing, not found twice, last just now", gone(2, 181), 240),
        like(known, "processing, not found twice, last a minute ago", gone(2, 180), 240),
        like(known, "processing, not found twice, before the clock jumped back", gone(2, 300), 240),
        like(known, "processing, not found twice, at this moment", gone(2, 240), 240),
        like(known, "processing, not found", not_found, 240),
        like("pending, stuck for an hour", lost, late(4, DAY - 450), DAY),
        like(lost, "stuck for a day, and just asked", late(4, DAY - 449), DAY),
        like(lost, "stuck for a day, and asked at this moment", late(4, DAY), DAY),
        like(lost, "stuck for a day, before the clock jumped back", late(4, DAY + 1), DAY),
        like(lost, "stuck for a day, answered twice", late(8, DAY - 450), DAY),
        like(lost, "stuck for a day, and all but one answer counted", late(11, DAY - 450), DAY),
        like("pending, overdue", "overdue, and stuck before the clock was put right", early, 1_049),
    ]
}

/// Final ones.
fn settled() -> Vec<Situation> {
    let running = running(State::Processing);
    let link = Word::Outcome(completed("u"));
    let done = told(&running, 100, link.clone());
    let failed_with = |code| told(&running, 100, Word::Outcome(failed(code)));
    let seen = next(&failed_with(None), 150, &Fact::RefundConfirmed);
    let lost = next(&exhausted(), DAY, &Fact::TimePassed);
    let again = next(&lost, DAY + HOUR, &Fact::UnreadableWebhook);
    let conflict = told(&done, 100, Word::Outcome(failed(Some("TIMEOUT"))));
    let found = found(&running, 100, link);
    let told_late = told(&found, 150, Word::Outcome(failed(None)));
    let (not_found_streak, not_found_at) = (2, Some(after_s(140)));
    let watch = Watch { not_found_streak, not_found_at, ..conflict.watch.clone() };
    let forgotten = Generation { watch, ..conflict.clone() };
    let doubted = "completed, and a webhook said it failed by TIMEOUT";
    vec![
        one("completed", done, 200),
        like("completed", "completed, found by a read", found, 200),
        one("failed", failed_with(None), 200),
        like("failed", "failed by TIMEOUT", failed_with(Some("TIMEOUT")), 200),
        like("failed", "failed, and the credits were seen", seen, 200),
        like("completed", doubted, conflict.clone(), 200),
        like(doubted, "completed, found by a read, and a webhook said it failed", told_late, 200),
        like(doubted, "the same almost for a day", conflict.clone(), DAY + 99),
        like(doubted, "the same for a day", conflict, DAY + 100),
        like(doubted, "the same, not found twice, last a minute ago", forgotten, 200),
        like("lost without an id", "lost", lost, DAY + HOUR),
        like("lost", "lost, and asked once more", again, DAY + HOUR),
    ]
}

/// All of them.
pub(super) fn all() -> Vec<Situation> {
    [unbought(), bought(), asked_before(), settled()].into_iter().flatten().collect()
}

/// The last moment before and the first of each.
fn around(seconds: &[u64]) -> Vec<Time> {
    seconds.iter().flat_map(|at| [after_s(*at) - Duration::from_millis(1), after_s(*at)]).collect()
}

/// The same where no webhook is expected.
pub(super) fn waiting_without_webhooks() -> Vec<(&'static str, Generation, Vec<Time>)> {
    vec![("pending", running(State::Pending), around(&[195, 900, DAY]))]
}

/// What waits for a moment, and the moments that matter.
pub(super) fn waiting() -> Vec<(&'static str, Generation, Vec<Time>)> {
    let unclear = next(&sent(), 30, &Fact::Submission(Submission::Unclear));
    let conflict = next(&sent(), 30, &Fact::Submission(Submission::Foreign));
    let seen = next(&unclear, 60, &Fact::RefundConfirmed);
    let pending = running(State::Pending);
    let veo = crate::domain::family::Family::of("veo").unwrap();
    let jumped =
        asked(Watch { check_at: Some(after_s(30 * DAY)), turn_at: Some(after_s(30 * DAY)), ..Watch::default() });
    let unlinked = told(&running(State::Processing), 50, Word::CompletedWithoutResult);
    vec![
        ("prepared", prepared(), vec![after_s(30 * DAY)]),
        ("submitting", sent(), around(&[30 * MINUTE, DAY])),
        ("unconfirmed", unclear, around(&[DAY])),
        ("unconfirmed in conflict", conflict, around(&[DAY])),
        ("unconfirmed, and the credits were seen", seen, around(&[DAY])),
        ("pending", pending.clone(), around(&[330, 1_050, DAY])),
        ("pending at a family that fails them sooner", Generation { family: veo, ..pending }, around(&[750])),
        ("processing without a link", unlinked, around(&[330, 1_050])),
        ("processing, before the clock jumped back a month", jumped, vec![after_s(100)]),
        ("stuck, and not asked enough", late(11, DAY - 10), around(&[DAY])),
        ("stuck, and asked enough", exhausted(), around(&[DAY])),
        ("completed", told(&running(State::Processing), 100, Word::Outcome(completed("u"))), vec![after_s(30 * DAY)]),
    ]
}
