//! Where the credits of a generation are: the one place that says what a credit state is.

use std::time::Duration;

use super::generation::{Generation, State};
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
        match &generation.state {
            State::Prepared | State::Rejected { .. } => Self::NotCharged,
            State::Completed { .. } => Self::Delivered,
            State::Failed { .. } | State::Lost { .. } | State::Unconfirmed if generation.refunded_at.is_some() => {
                Self::Refunded
            }
            State::Failed { at, .. } if now >= *at + refund_window => Self::Refunded,
            State::Failed { .. } => Self::RefundExpected,
            State::Unconfirmed | State::Lost { .. } => Self::AtRisk,
            State::Submitting | State::Pending | State::Processing if generation.attention.is_some() => Self::AtRisk,
            State::Submitting | State::Pending | State::Processing => Self::Charged,
        }
    }
}
