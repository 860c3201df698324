//! Points in time: milliseconds since 1970 in UTC, and arithmetic that cannot overflow.
//!
//! Never reads a clock. Everything that decides takes `now` as an argument; `clock.rs` is where it comes from.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, in whole milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

/// The text was no RFC 3339 time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be an RFC 3339 time such as 2026-11-23T10:00:00Z")]
pub struct NotATime;

impl Time {
    /// From milliseconds since the Unix epoch.
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads an RFC 3339 time with any offset, cut to milliseconds.
    ///
    /// # Errors
    /// [`NotATime`] for anything else.
    pub fn parse(text: &str) -> Result<Self, NotATime> {
        text.parse::<jiff::Timestamp>().map(|time| Self(time.as_millisecond())).map_err(|_| NotATime)
    }

    /// Reads the time of an HTTP `Date` header.
    ///
    /// # Errors
    /// [`NotATime`] for anything else.
    pub fn parse_http(text: &str) -> Result<Self, NotATime> {
        let parser = jiff::fmt::rfc2822::DateTimeParser::new();
        parser.parse_timestamp(text).map(|time| Self(time.as_millisecond())).map_err(|_| NotATime)
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(ms(span)))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(ms(span)))
    }
}

impl fmt::Display for Time {
    /// RFC 3339 in UTC, with as many decimals as are needed. Beyond the year 9999 the nearest time that can be written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nearest = if self.0.is_negative() { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(nearest).fmt(f)
    }
}

impl serde::Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A duration in whole milliseconds, cut at the largest an `i64` holds.
fn ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl utoipa::PartialSchema for Time {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        super::schema::time("A time as RFC 3339, written in UTC, to the millisecond.", "2026-11-23T10:02:31.482Z")
    }
}

impl utoipa::ToSchema for Time {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_rfc_3339() {
        let time = Time::parse("2026-11-23T10:02:31.482Z").unwrap();
        assert_eq!(time.to_string(), "2026-11-23T10:02:31.482Z");
        assert_eq!(Time::parse("2026-11-23T12:02:31.482+02:00").unwrap(), time);
        assert_eq!(Time::parse("2026-11-23T10:07:31Z").unwrap().to_string(), "2026-11-23T10:07:31Z");
        assert_eq!(Time::parse("yesterday"), Err(NotATime));
        assert_eq!(
            Time::parse_http("Mon, 23 Nov 2026 10:02:31 GMT").unwrap(),
            Time::parse("2026-11-23T10:02:31Z").unwrap()
        );
        assert_eq!(Time::parse_http("2026-11-23T10:02:31Z"), Err(NotATime));
    }

    #[test]
    fn arithmetic_saturates_instead_of_overflowing() {
        let far = Time::from_ms(i64::MAX);
        assert_eq!(far + Duration::MAX, far);
        assert_eq!(Time::from_ms(i64::MIN) - Duration::MAX, Time::from_ms(i64::MIN));
        assert_eq!(Time::from_ms(0).since(far), Duration::ZERO);
        assert_eq!(far.to_string(), "9999-12-30T22:00:00.999999999Z");
        assert_eq!(Time::from_ms(i64::MIN).to_string(), "-009999-01-02T01:59:59Z");
    }

    #[test]
    fn times_are_added_subtracted_and_told_apart_to_the_millisecond() {
        let (time, span) = (Time::from_ms(1_000), Duration::from_micros(2_999));
        assert_eq!(((time + span).as_ms(), (time - span).as_ms()), (1_002, 998));
        assert_eq!(Time::from_ms(1_500).since(time), Duration::from_millis(500));
        assert_eq!(time.since(Time::from_ms(1_500)), Duration::ZERO);
    }

    #[test]
    fn in_json_it_is_a_text() {
        let json = serde_json::to_string(&Time::from_ms(1_795_428_000_000)).unwrap();
        assert_eq!(json, "\"2026-11-23T10:00:00Z\"");
        assert_eq!(serde_json::from_str::<Time>(&json).unwrap(), Time::from_ms(1_795_428_000_000));
        assert!(serde_json::from_str::<Time>("\"soon\"").is_err());
    }
}
