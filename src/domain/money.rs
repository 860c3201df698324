//! Money: exact amounts in US dollars. Integers inside, so sums are exact; decimal strings outside.

use std::fmt;

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

impl std::ops::AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

impl std::ops::SubAssign for Usd {
    fn sub_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_sub(other.0);
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

impl utoipa::PartialSchema for Usd {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let about = "US dollars as a decimal string: four decimals, up to six where needed. Exact.";
        super::schema::text(about, r"^-?[0-9]+\.[0-9]{4,6}$", "0.4500")
    }
}

impl utoipa::ToSchema for Usd {}

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
            ("0", "0.0000"),
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

    #[test]
    fn sums_are_exact_and_end_at_the_largest_amount() {
        let mut sum = Usd::from_micros(450_000);
        sum += Usd::from_micros(1);
        assert_eq!(sum.as_micros(), 450_001);
        sum -= Usd::from_micros(950_002);
        assert_eq!((sum.as_micros(), sum.to_string()), (-500_001, "-0.500001".to_owned()));
        sum -= Usd::from_micros(i64::MAX);
        sum -= Usd::from_micros(i64::MAX);
        assert_eq!(sum.as_micros(), i64::MIN);
        assert_eq!(Usd::parse("0999999.5").unwrap().as_micros(), 999_999_500_000);
    }

    #[test]
    fn in_json_an_amount_is_a_text() {
        let amount = Usd::from_micros(450_000);
        assert_eq!(serde_json::to_string(&amount).unwrap(), "\"0.4500\"");
        assert_eq!(serde_json::from_str::<Usd>("\"0.45\"").unwrap(), amount);
        assert!(serde_json::from_str::<Usd>("0.45").is_err());
    }

    proptest! {
        #[test]
        fn writing_and_reading_agree(micros in 0i64..MICROS_MAX) {
            let amount = Usd::from_micros(micros);
            prop_assert_eq!(Usd::parse(&amount.to_string()), Ok(amount));
        }
    }
}
