//! What follows from an answer of the provider's status endpoint.

use super::{Answer, Attention, Draft, Learned, Outcome, State, WORD_COUNTS};
use crate::domain::notice::Word;
use crate::domain::outcome::{Source, Verification};
use crate::domain::poll::Poll;
use crate::domain::schedule::{NOT_FOUND_BELIEVED, Rules, Webhooks};
use crate::planted;

impl Draft<'_> {
    pub(super) fn answer(&mut self, answer: &Answer) {
        // Without an id nothing was asked; an answer to nothing says nothing.
        if self.next.provider_id.is_none() {
            return;
        }
        self.count_late(answer);
        match answer {
            Answer::Known(notice) => {
                let watch = &mut self.next.watch;
                (watch.not_found_streak, watch.not_found_at, watch.error_streak) = (0, None, 0);
                match &notice.word {
                    Word::Pending => self.still_running(State::Pending),
                    Word::Processing | Word::Unknown(_) => self.still_running(State::Processing),
                    Word::CompletedWithoutResult => self.still_without_result(),
                    Word::Outcome(outcome) => self.answered(outcome),
                }
            }
            Answer::NotFound => self.not_found(),
            Answer::Paused { pause } => {
                self.next.watch.check_at = self.wants_answer().then(|| self.now + *pause);
            }
            Answer::Nothing => {
                self.next.watch.error_streak += 1;
                self.next.watch.check_at = self.wants_answer().then(|| Rules::retry_at(&self.next, self.now));
            }
        }
    }

    /// The first read comes sooner where that is worth it. One that finds it still running leaves the first read where it was.
    pub(super) fn polled(&mut self, poll: &Poll) {
        if self.rules.is_worth_a_read(&self.next, self.experience, poll, self.now) {
            self.check_now();
        }
    }

    /// Counts an answer towards giving up. Those that are to count lie so far apart that together they span the time a generation can
    /// take: a clock that jumps ahead makes it late, but not over.
    fn count_late(&mut self, answer: &Answer) {
        let weight = match answer {
            Answer::Known(_) | Answer::NotFound => WORD_COUNTS,
            Answer::Nothing => 1,
            Answer::Paused { .. } => return,
        };
        let late_from = self.rules.stuck_at(&self.next).min(self.rules.lost_at(&self.next));
        let apart = self.rules.late_answers_apart(&self.next);
        let watch = &mut self.next.watch;
        if self.now < late_from {
            (watch.late_answers, watch.late_at) = (0, None);
            return;
        }
        match watch.late_at {
            Some(at) if at <= self.now && self.now.since(at) < apart => return,
            // How long ago that was nobody knows: the clock jumped back.
            Some(at) if at > self.now => {}
            Some(_) | None => watch.late_answers += weight,
        }
        watch.late_at = Some(self.now);
    }

    /// Whether there is anything left to ask: a settled generation is asked about only while a contradiction made a check
    /// due, and not for ever.
    fn wants_answer(&self) -> bool {
        match self.next.state.settled_at() {
            None => true,
            Some(at) => self.next.watch.check_at.is_some() && self.now < at + self.rules.give_up_after,
        }
    }

    fn still_running(&mut self, phase: State) {
        if planted::is(planted::Fault::Reopened) {
            self.next.state = phase.clone();
        }
        self.advance(phase);
        if matches!(self.next.attention, Some(Attention::NoResult | Attention::NotFound)) {
            self.next.attention = None;
        }
        self.ask_again();
    }

    fn still_without_result(&mut self) {
        self.advance(State::Processing);
        if self.next.state.is_running() {
            self.raise(Attention::NoResult);
        }
        self.ask_again();
    }

    fn ask_again(&mut self) {
        self.next.watch.running_streak += 1;
        self.next.watch.check_at = self.wants_answer().then(|| {
            let again = self.rules.recheck_at(&self.next, self.now);
            // Somebody asked before it could be done: that is no reason to keep asking.
            let doubted = self.next.claim.is_some() || self.next.attention.is_some();
            let first = self.rules.first_check_at(&self.next, self.experience);
            if !doubted && self.now < first {
                self.next.watch.running_streak = 0;
                match self.rules.webhooks {
                    Webhooks::Expected => first,
                    // The first is one of many there, and not a moment after this one.
                    Webhooks::NotExpected => first.max(again),
                }
            } else {
                again
            }
        });
    }

    /// Three of these, the pause apart, are believed. Never a failure: the provider has only lost its memory.
    fn not_found(&mut self) {
        if planted::is(planted::Fault::NotFoundIsFailed) {
            return self.answered(&Outcome::Failed(crate::domain::outcome::Failure::default()));
        }
        let pause = self.rules.not_found_recheck;
        let watch = &mut self.next.watch;
        watch.error_streak = 0;
        // One of the future was written before the clock jumped back; how long ago that was nobody knows.
        if watch.not_found_at.is_none_or(|at| at > self.now || self.now.since(at) >= pause) {
            watch.not_found_streak += 1;
            watch.not_found_at = Some(self.now);
        }
        let believed = watch.not_found_streak >= NOT_FOUND_BELIEVED;
        self.next.watch.check_at = match (self.wants_answer(), self.next.state.is_running()) {
            (true, _) if !believed => Some(self.now + pause),
            (true, true) => {
                self.raise(Attention::NotFound);
                Some(self.rules.recheck_at(&self.next, self.now).max(self.now + pause))
            }
            _ => None,
        };
    }

    fn answered(&mut self, outcome: &Outcome) {
        let claim = self.next.claim.take();
        let claimed = claim.as_ref().is_some_and(|claim| claim.agrees(outcome));
        let outcome = with_reason(outcome, claim.as_ref());
        match self.next.state.outcome() {
            Some(known) if known.agrees(&outcome) => self.confirmed(&outcome),
            known => {
                let verification = if claimed { Verification::TokenAndStatus } else { Verification::Status };
                let source = if claimed && known.is_none() { Source::Webhook } else { Source::Check };
                // Where no webhook was to come none was lost.
                let webhook_lost = self.rules.webhooks == Webhooks::Expected && self.next.deliveries == 0;
                let recovered = source == Source::Check && webhook_lost;
                self.next.attention = None;
                self.settle(outcome, Learned { source, verification, recovered });
            }
        }
    }

    /// The provider stands by the outcome that is known.
    fn confirmed(&mut self, outcome: &Outcome) {
        self.fill_reason(outcome);
        if let State::Completed { learned, .. } | State::Failed { learned, .. } = &mut self.next.state
            && learned.verification == Verification::Token
        {
            learned.verification = Verification::TokenAndStatus;
        }
        self.next.attention = None;
        self.rest();
    }
}

/// The status answer may not carry the reason of a failure; the webhook that claimed the same does (provider.md 9.6).
fn with_reason(outcome: &Outcome, claim: Option<&Outcome>) -> Outcome {
    let mut outcome = outcome.clone();
    if let (Outcome::Failed(failure), Some(Outcome::Failed(claimed))) = (&mut outcome, claim) {
        failure.fill_from(claimed);
    }
    outcome
}
