//! What follows from a webhook.

use super::{Attention, Credential, Disposition, Draft, EventKind, Learned, Notice, Outcome, State};
use crate::domain::notice::Word;
use crate::domain::outcome::{Source, Verification};
use crate::domain::schedule::Confirm;
use crate::planted;

impl Draft<'_> {
    pub(super) fn webhook(&mut self, credential: Credential, notice: &Notice) {
        match &self.next.provider_id {
            Some(bound) if *bound != notice.provider_id => return self.foreign_webhook(),
            Some(_) => {}
            None => self.bind(&notice.provider_id),
        }
        self.next.deliveries += 1;
        self.disposition = Some(match &notice.word {
            Word::Pending => self.running(State::Pending),
            Word::Processing => self.running(State::Processing),
            Word::Unknown(_) if planted::is(planted::Fault::UnknownIsFailed) => {
                self.told(credential, &Outcome::Failed(crate::domain::outcome::Failure::default()))
            }
            Word::Unknown(_) => {
                self.doubt_refusal();
                Disposition::UnknownStatus
            }
            Word::CompletedWithoutResult => self.completed_without_result(),
            Word::Outcome(outcome) => self.told(credential, outcome),
        });
    }

    /// The provider has something to say that we could not read: ask.
    pub(super) fn unreadable_webhook(&mut self) {
        self.next.deliveries += 1;
        self.disposition = Some(Disposition::Unreadable);
        self.ask_unless_settled();
    }

    /// A token of this generation came with the id of another.
    pub(super) fn foreign_webhook(&mut self) {
        self.next.deliveries += 1;
        self.disposition = Some(Disposition::Mismatch);
        self.raise(Attention::Conflict);
    }

    /// Asks at once, unless there is an outcome.
    pub(super) fn ask_unless_settled(&mut self) {
        if self.next.state.outcome().is_none() {
            self.check_now();
        }
    }

    /// Whoever is told of a generation has sold it, whatever was answered to the purchase.
    fn doubt_refusal(&mut self) -> bool {
        let refused = matches!(self.next.state, State::Rejected { .. });
        if refused {
            self.contradiction(None);
        }
        refused
    }

    fn running(&mut self, phase: State) -> Disposition {
        if self.doubt_refusal() {
            return Disposition::Conflict;
        }
        let known = self.next.state == phase && self.next.deliveries > 1;
        self.advance(phase);
        if known { Disposition::Duplicate } else { Disposition::Accepted }
    }

    fn completed_without_result(&mut self) -> Disposition {
        match self.next.state {
            State::Completed { .. } => Disposition::Duplicate,
            State::Failed { .. } | State::Rejected { .. } => self.contradiction(None),
            State::Prepared
            | State::Submitting
            | State::Unconfirmed
            | State::Pending
            | State::Processing
            | State::Lost { .. } => {
                let known = self.next.attention == Some(Attention::NoResult);
                self.advance(State::Processing);
                if self.next.state.is_running() {
                    self.raise(Attention::NoResult);
                }
                if known {
                    return Disposition::Duplicate;
                }
                self.check_now();
                Disposition::Accepted
            }
        }
    }

    /// An outcome was told.
    fn told(&mut self, credential: Credential, outcome: &Outcome) -> Disposition {
        if matches!(self.next.state, State::Rejected { .. }) {
            return self.contradiction(Some(outcome));
        }
        match self.next.state.outcome() {
            Some(known) if known.agrees(outcome) => self.told_again(outcome),
            Some(_) => self.contradiction(Some(outcome)),
            None => self.told_first(credential, outcome),
        }
    }

    /// The outcome is known; the webhook may still carry a reason that nobody else tells (provider.md 9.6).
    fn told_again(&mut self, outcome: &Outcome) -> Disposition {
        let filled = self.fill_reason(outcome);
        let first = self.next.webhook_at.is_none();
        self.next.webhook_at.get_or_insert(self.now);
        if planted::is(planted::Fault::EventForDuplicate) && !first {
            self.events.push(EventKind::Updated);
        }
        if filled || first { Disposition::Accepted } else { Disposition::Duplicate }
    }

    fn told_first(&mut self, credential: Credential, outcome: &Outcome) -> Disposition {
        if let Some(claim) = &mut self.next.claim {
            if !claim.agrees(outcome) {
                return self.contradiction(None);
            }
            return if fill_claim(claim, outcome) { Disposition::Accepted } else { Disposition::Duplicate };
        }
        self.next.webhook_at.get_or_insert(self.now);
        // It was said to be completed before, only without a result: that is asked about, not believed.
        let turned = self.next.attention == Some(Attention::NoResult) && matches!(outcome, Outcome::Failed(_));
        let confirm = turned
            || match self.rules.confirm {
                Confirm::Never => false,
                // What the provider itself signed needs no confirming, by whichever URL it came.
                Confirm::Untrusted => credential == Credential::Standing,
                Confirm::Always => true,
            };
        if confirm {
            self.next.claim = Some(outcome.clone());
            self.check_now();
        } else {
            let verification = credential.verification();
            self.settle(outcome.clone(), Learned { source: Source::Webhook, verification, recovered: false });
        }
        Disposition::Accepted
    }

    /// Two things are said that cannot both be true: the provider's status answer will settle it.
    fn contradiction(&mut self, told: Option<&Outcome>) -> Disposition {
        if let (true, Some(told)) = (planted::is(planted::Fault::Overwritten), told) {
            let (source, verification) = (Source::Webhook, Verification::Token);
            self.settle(told.clone(), Learned { source, verification, recovered: false });
            return Disposition::Accepted;
        }
        if let Some(told) = told {
            let waits = self.next.attention == Some(Attention::Conflict);
            match &mut self.next.claim {
                Some(claim) if waits && claim.agrees(told) => {
                    if !fill_claim(claim, told) {
                        return Disposition::Duplicate;
                    }
                }
                claim => *claim = Some(told.clone()),
            }
        }
        self.raise(Attention::Conflict);
        self.check_now();
        Disposition::Conflict
    }

    /// Fills the reason of a failure that is known without one; tells whether it did.
    pub(super) fn fill_reason(&mut self, outcome: &Outcome) -> bool {
        let (State::Failed { error, .. }, Outcome::Failed(failure)) = (&mut self.next.state, outcome) else {
            return false;
        };
        let filled = error.fill_from(failure);
        if filled {
            self.events.push(EventKind::Updated);
        }
        filled
    }
}

/// Takes over the reason of a failure that was told before without one; tells whether it did.
fn fill_claim(claim: &mut Outcome, told: &Outcome) -> bool {
    match (claim, told) {
        (Outcome::Failed(claimed), Outcome::Failed(failure)) => claimed.fill_from(failure),
        _ => false,
    }
}
