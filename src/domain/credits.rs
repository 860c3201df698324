//! Money: exact amounts, and where the credits of a generation are.
//!
//! The one place that says what a credit state is. Amounts are integers, so sums are exact.

use std::fmt;
use std::time::Duration;

use super::generation::{Generation, State};
use super::time::Time;
use super::words::words;

/// An amount in US dollars, held as whole micro-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(i64);

/// The text was no amount.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be a decimal string of US dollars with at most six decimals, such as \"0.4500\"")]
pub struct NotAnAmount;

/// More than any purchase: a larger number is a mistake, and sums of a billion such still fit.
const MICROS_MAX: i64 = 1_000_000 * MICROS_PER_DOLLAR;
const MICROS_PER_DOLLAR: i64 = 1_000_000;

impl Usd {
    /// From micro-dollars.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Micro-dollars.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Reads a plain decimal: digits, optionally a point and one to six digits. No sign, no exponent, no rounding.
    ///
    /// # Errors
    /// [`NotAnAmount`] for anything else, and for a million dollars or more.
    pub fn parse(text: &str) -> Result<Self, NotAnAmount> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || whole.len() > 7 || decimals.len() > 6 {
            return Err(NotAnAmount);
        }
        let dollars: i64 = whole.parse().map_err(|_| NotAnAmount)?;
        let micros: i64 = format!("{decimals:0<6}").parse().map_err(|_| NotAnAmount)?;
        let amount = dollars * MICROS_PER_DOLLAR + micros;
        if amount < MICROS_MAX { Ok(Self(amount)) } else { Err(NotAnAmount) }
    }
}

impl fmt::Display for Usd {
    /// At least four decimals, more only where needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs();
        let decimals = format!("{:06}", micros % 1_000_000);
        let needed = decimals.trim_end_matches('0').len().max(4);
        write!(f, "{sign}{}.{}", micros / 1_000_000, &decimals[..needed])
    }
}

impl serde::Serialize for Usd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Usd {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_kept_exactly() {
        for (text, written) in [
            ("0.4500", "0.4500"),
            ("0.45", "0.4500"),
            ("1", "1.0000"),
            ("0.012345", "0.012345"),
            ("0.01234", "0.01234"),
            ("999999.999999", "999999.999999"),
        ] {
            assert_eq!(Usd::parse(text).unwrap().to_string(), written);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", ".5", "5.", "-1", "+1", "1e3", "0.1234567", "calculating", "1,5", " 1", "1000000", "٣"] {
            assert_eq!(Usd::parse(bad), Err(NotAnAmount), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn writing_and_reading_agree(micros in 0i64..MICROS_MAX) {
            let amount = Usd::from_micros(micros);
            prop_assert_eq!(Usd::parse(&amount.to_string()), Ok(amount));
        }
    }
}
