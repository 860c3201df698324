//! Where the credits of a generation are: the one place that says what a credit state is.

use std::time::Duration;

use super::generation::{Generation, State, Status};
use super::time::Time;
use super::words::words;

words! {
    /// Where the credits of one generation are (contract section 5), in the order of the money report.
    CreditState {
        /// Taken, and there is a result.
        Delivered = "delivered",
        /// Taken, and running normally.
        Charged = "charged",
        /// The generation failed and the refund window is still open.
        RefundExpected = "refund_expected",
        /// The refund window has passed (the provider's promise), or a person confirmed it.
        Refunded = "refunded",
        /// Taken, or maybe taken, and somebody should look.
        AtRisk = "at_risk",
        /// Refused, or never sent.
        NotCharged = "not_charged",
    }
}

impl CreditState {
    /// Where the credits of this generation are at `now`.
    ///
    /// The provider promises a refund within five minutes of a failure and confirms it nowhere (provider.md section 5), so
    /// after `refund_window` the promise is taken as kept.
    pub fn of(generation: &Generation, now: Time, refund_window: Duration) -> Self {
        let window_passed = matches!(generation.state, State::Failed { at, .. } if now >= at + refund_window);
        let refunded = generation.refunded_at.is_some();
        Self::by(generation.state.status(), generation.attention.is_some(), refunded, window_passed)
    }

    /// The same by what decides it: status, whether somebody should look, whether a person saw the credits come back, and
    /// whether the refund window of a failed one has passed.
    pub fn by(status: Status, attention: bool, refunded: bool, window_passed: bool) -> Self {
        match status {
            Status::Prepared | Status::Rejected => Self::NotCharged,
            Status::Completed => Self::Delivered,
            Status::Failed | Status::Lost | Status::Unconfirmed if refunded => Self::Refunded,
            Status::Failed if window_passed => Self::Refunded,
            Status::Failed => Self::RefundExpected,
            Status::Unconfirmed | Status::Lost => Self::AtRisk,
            Status::Submitting | Status::Pending | Status::Processing if attention => Self::AtRisk,
            Status::Submitting | Status::Pending | Status::Processing => Self::Charged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::family::FAMILIES;
    use crate::domain::generation::{Attention, Via};
    use crate::domain::outcome::{Failure, Learned, Source, Verification};

    #[test]
    fn a_promise_counts_as_kept_when_its_window_has_passed() {
        let (at, window) = (Time::from_ms(1_000), Duration::from_mins(5));
        let learned = Learned { source: Source::Check, verification: Verification::Status, recovered: false };
        let id = crate::domain::id::GenerationId::from_bytes(&[7; 16]).unwrap();
        let new = Generation::new(id, &FAMILIES[0], Via::Api, at);
        let failed = Generation { state: State::Failed { at, error: Failure::default(), learned }, ..new.clone() };
        let of = |generation: &Generation, ms| CreditState::of(generation, Time::from_ms(ms), window).as_str();
        assert_eq!([300_999, 301_000].map(|ms| of(&failed, ms)), ["refund_expected", "refunded"]);
        let seen = Generation { refunded_at: Some(at), ..failed };
        assert_eq!(of(&seen, 1_000), "refunded");
        let running = Generation { state: State::Pending, ..new };
        let overdue = Generation { attention: Some(Attention::Overdue), ..running.clone() };
        assert_eq!([of(&running, 1_000_000), of(&overdue, 0)], ["charged", "at_risk"]);
    }

    #[test]
    fn every_state_says_where_the_credits_are() {
        // Status, and the credits of one nobody has to look at, that somebody has to, and whose credits a person saw.
        for (status, normal, attention, seen) in [
            (Status::Prepared, "not_charged", "not_charged", "not_charged"),
            (Status::Rejected, "not_charged", "not_charged", "not_charged"),
            (Status::Submitting, "charged", "at_risk", "charged"),
            (Status::Pending, "charged", "at_risk", "charged"),
            (Status::Processing, "charged", "at_risk", "charged"),
            (Status::Unconfirmed, "at_risk", "at_risk", "refunded"),
            (Status::Lost, "at_risk", "at_risk", "refunded"),
            (Status::Completed, "delivered", "delivered", "delivered"),
            (Status::Failed, "refund_expected", "refund_expected", "refunded"),
        ] {
            let by = |attention, refunded| CreditState::by(status, attention, refunded, false).as_str();
            assert_eq!([by(false, false), by(true, false), by(false, true)], [normal, attention, seen], "{status:?}");
        }
        assert_eq!(CreditState::by(Status::Failed, false, false, true), CreditState::Refunded);
        assert_eq!(CreditState::by(Status::Lost, true, false, true), CreditState::AtRisk);
    }
}
