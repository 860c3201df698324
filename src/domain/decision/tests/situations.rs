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

fn asked(watch: Watch) -> Generation {
    let running = running(State::Processing);
    let (check_at, turn_at) = (running.watch.check_at, running.watch.turn_at);
    let watch = Watch { check_at: watch.check_at.or(check_at), turn_at: watch.turn_at.or(turn_at), ..watch };
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
    next(&running(State::Processing), 50, &Fact::Webhook { reference: Reference::Standing, notice })
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
    vec![
        one("prepared", prepared(), MINUTE),
        one("submitting", sent(), MINUTE),
        like("submitting", "submitting for long", sent(), 30 * MINUTE),
        like("submitting", "unconfirmed", unclear.clone(), MINUTE),
        like(
            "unconfirmed",
            "unconfirmed in conflict",
            next(&sent(), 30, &Fact::Submission(Submission::Foreign)),
            MINUTE,
        ),
        like("unconfirmed", "unconfirmed for a day", unclear, DAY),
        one("rejected", rejected, MINUTE),
        like("rejected", "rejected, and a webhook said it failed", denied, MINUTE),
        one("lost without an id", lost, DAY + HOUR),
        like("lost without an id", "lost without an id, and the credits were seen", seen, DAY + HOUR),
    ]
}

/// At the provider.
fn bought() -> Vec<Situation> {
    let pending = running(State::Pending);
    let unlinked = told(&running(State::Processing), 50, Word::CompletedWithoutResult);
    vec![
        one("pending", pending.clone(), MINUTE),
        like("pending", "pending, its first read due", pending.clone(), 210),
        like("pending, its first read due", "pending, overdue", pending.clone(), 330),
        like("pending, overdue", "pending, stuck", pending.clone(), 1_050),
        like("pending, stuck", "pending, stuck for an hour", pending.clone(), 1_050 + HOUR),
        like("pending, stuck for an hour", "pending for a day", pending, DAY),
        like("pending", "processing", running(State::Processing), MINUTE),
        like("processing", "processing without a link", unlinked, MINUTE),
        like("processing", "claimed to be completed", claimed(completed("u")), MINUTE),
        like("processing", "claimed to have failed", claimed(failed(None)), MINUTE),
        like("claimed to have failed", "claimed to have failed by TIMEOUT", claimed(failed(Some("TIMEOUT"))), MINUTE),
        like(
            "processing",
            "processing in conflict",
            next(&running(State::Processing), 50, &Fact::ForeignWebhook),
            MINUTE,
        ),
    ]
}

/// At the provider, and asked about before.
fn asked_before() -> Vec<Situation> {
    let ago = |seconds: u64, ago: u64| Some(after_s(seconds - ago));
    let gone =
        |streak, at: Option<Time>| asked(Watch { not_found_streak: streak, not_found_at: at, ..Watch::default() });
    let late = |answers, at| {
        asked(Watch { checks: 9, running_streak: 4, late_answers: answers, late_at: at, ..Watch::default() })
    };
    let twice = asked(Watch { checks: 2, running_streak: 2, ..Watch::default() });
    let silent = asked(Watch { checks: 5, error_streak: 5, ..Watch::default() });
    let not_found = Generation { attention: Some(Attention::NotFound), ..gone(3, Some(after_s(200))) };
    let month = Some(after_s(30 * DAY));
    let ahead = Watch { turn_at: month, check_at: month, ..Watch::default() };
    let (usual, known, lost) = ("processing, asked twice", "processing, not found a minute ago", "stuck for a day");
    vec![
        like("pending, its first read due", usual, twice, 240),
        like(usual, "processing, and five answers told nothing", silent, 240),
        like(usual, known, gone(1, ago(240, 60)), 240),
        like(known, "processing, not found twice, last just now", gone(2, ago(240, 59)), 240),
        like(known, "processing, not found twice, last a minute ago", gone(2, ago(240, 60)), 240),
        like(known, "processing, not found twice, before the clock jumped back", gone(2, Some(after_s(300))), 240),
        like(known, "processing, not found", not_found, 260),
        like(usual, "processing, before the clock jumped back a month", asked(ahead), 240),
        like(usual, "stuck, answered twice", late(8, ago(2 * HOUR, 450)), 2 * HOUR),
        like("stuck, answered twice", lost, late(8, ago(DAY, 450)), DAY),
        like(lost, "stuck for a day, and just asked", late(8, ago(DAY, 449)), DAY),
        like(lost, "stuck for a day, before the clock jumped back", late(8, Some(after_s(DAY + 1))), DAY),
        like(lost, "stuck for a day, and all but the last answer counted", late(11, ago(DAY, 450)), DAY),
        like(lost, "stuck for a day, and asked enough", late(12, ago(DAY, 1)), DAY),
    ]
}

/// Final ones.
fn settled() -> Vec<Situation> {
    let running = running(State::Processing);
    let link = Word::Outcome(completed("u"));
    let done = told(&running, 100, link.clone());
    let failed_with = |code| told(&running, 100, Word::Outcome(failed(code)));
    let given_up = State::Lost { at: after_s(DAY) };
    let lost =
        Generation { state: given_up, attention: Some(Attention::Lost), watch: Watch::default(), ..running.clone() };
    let again = next(&lost, DAY + HOUR, &Fact::UnreadableWebhook);
    let conflict = told(&done, 100, Word::Outcome(failed(Some("TIMEOUT"))));
    let (not_found_streak, not_found_at) = (2, Some(after_s(140)));
    let forgotten =
        Generation { watch: Watch { not_found_streak, not_found_at, ..conflict.watch.clone() }, ..conflict.clone() };
    let doubted = "completed, and a webhook said it failed by TIMEOUT";
    vec![
        one("completed", done, 200),
        like("completed", "completed, found by a read", found(&running, 100, link), 200),
        one("failed", failed_with(None), 200),
        like("failed", "failed by TIMEOUT", failed_with(Some("TIMEOUT")), 200),
        like("failed", "failed, and the credits were seen", next(&failed_with(None), 150, &Fact::RefundConfirmed), 200),
        like("completed", doubted, conflict.clone(), 200),
        like(doubted, "the same almost for a day", conflict.clone(), DAY + 99),
        like(doubted, "the same for a day", conflict, DAY + 100),
        like(doubted, "the same, not found twice, last a minute ago", forgotten, 200),
        one("lost", lost, DAY + HOUR),
        like("lost", "lost, and asked once more", again, DAY + HOUR),
    ]
}

/// All of them.
pub(super) fn all() -> Vec<Situation> {
    [unbought(), bought(), asked_before(), settled()].into_iter().flatten().collect()
}
